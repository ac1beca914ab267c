"""Answers that mean harm, through the command line: each ends in one row with a clear failure kind.

The server is the test's own. A second one counts what is sent elsewhere: nothing may be. Memory is
bounded; that no command hangs is the wait's business, and nothing is concluded from how long
it took.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.dataset as ds
import pytest

from tests import hostility
from tests.hostility import MIB, Case, about, says, whole
from tests.loopback import Asked, Ended, Server, Started, Talk, clean_env, serving

TOKEN = "token-of-the-hostile-tests"
TABLES = ("checkpoints", "parts", "outcomes", "clusters", "findings", "runs", "evidence")

#: Generous: a run without any hostile answer takes about a fifth of it.
MOST_MEMORY = 600 * hostility.MIB

HEADER = "project_id,cluster_name,checkpoint_id\n"


def group(number: int) -> str:
    return f"{number:024x}"


async def empty_list(_: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(whole(b'{"results": []}'))
    await writer.drain()


class Sent(NamedTuple):
    """How a run ended that was sent hostile answers, and where it is."""

    ended: Ended
    path: Path

    def table(self, name: str) -> list[dict[str, Any]]:
        files = sorted(map(str, (self.path / name).rglob("*.parquet")))
        rows: list[dict[str, Any]] = ds.dataset(files).to_table().to_pylist()
        return rows


def started(
    server: Server, folder: Path, rows: Sequence[str], *options: str, **env: str
) -> Started:
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "in.csv"
    source.write_text(HEADER + "".join(f"{row}\n" for row in rows), "utf-8")
    known = {"MONGODB_ATLAS_ACCESS_TOKEN": TOKEN, "MONGODB_ATLAS_BASE_URL": server.url}
    return Started(
        *("run", str(source), "--output-dir", str(folder / "outputs")),
        *("--timeout", "2", "--attempts", "1", "--no-progress", *options),
        env=clean_env(**{**known, **env}),
        folder=folder,
    )


def published(running: Started) -> Sent:
    """Wait for a run that is published, and see that all of it can be read."""
    ended = running.wait()
    assert ended.code in {0, 1, 3, 4}, ended.err
    sent = Sent(ended, Path(ended.out.splitlines()[-1]))
    for name in TABLES:
        sent.table(name)
    json.loads((sent.path / "summary.json").read_bytes())
    json.loads((sent.path / "manifest.json").read_bytes())
    for name in ("report.html", "report.md", "unresolved.csv"):
        assert_plain((sent.path / name).read_bytes().decode())
    assert_plain(ended.err)
    return sent


def assert_plain(text: str) -> None:
    """Nothing steers a terminal, or turns what is read round."""
    found = re.findall(
        "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", text
    )
    assert not found


def answering(cases: Sequence[Case]) -> Talk:
    """Answer the request for checkpoint number n with case number n."""

    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if "backupCheckpoints" not in asked.path:
            await empty_list(asked, writer)
            return
        await cases[int(asked.parts[-1], 16)].talk(asked, writer)

    return talk


@contextmanager
def elsewhere() -> Iterator[Server]:
    """A server that nobody may ask anything."""
    with serving(empty_list) as server:
        yield server
        assert server.connections == 0


def assert_each(make: Callable[[str], list[Case]], folder: Path, timeout: str) -> Sent:
    """Audit one triple for each case, each of a project of its own; each ends as it may."""
    with elsewhere() as other:
        cases = make(other.url)
        with serving(answering(cases)) as server:
            rows = [f"{group(n)},c{n},{group(n)}" for n in range(len(cases))]
            sent = published(started(server, folder, rows, "--timeout", timeout))
    found = {int(row["checkpoint_id"], 16): row for row in sent.table("outcomes")}
    assert len(found) == len(cases)
    wrong = {
        case.name: (found[n]["failure_kind"], found[n]["error_detail"])
        for n, case in enumerate(cases)
        if found[n]["failure_kind"] not in case.kinds
    }
    assert not wrong
    return sent


GROUPS: dict[str, Callable[[str], list[Case]]] = {
    "heavy": lambda _: hostility.HEAVY,
    "endless": lambda _: hostility.ENDLESS,
    "wire": lambda _: hostility.WIRE,
    "elsewhere": hostility.elsewhere,
    "shapes": lambda _: hostility.SHAPES,
    "errors": lambda _: hostility.ERRORS,
    "others": lambda _: hostility.OTHERS,
}


@pytest.mark.parametrize("name", GROUPS)
def test_each_hostile_answer_is_one_row(name: str, tmp_path: Path) -> None:
    """Of a kind that says what was wrong, in bounded memory, and nobody else is asked anything."""
    sent = assert_each(GROUPS[name], tmp_path, "2" if name == "endless" else "20")

    assert sent.ended.peak < MOST_MEMORY


# ── what is asked before any checkpoint ──────────────────────────────────────────────────────────

SECRET = "secret-of-the-hostile-tests"
ACCOUNT = {
    "MONGODB_ATLAS_ACCESS_TOKEN": "",
    "MONGODB_ATLAS_CLIENT_ID": "id-of-the-hostile-tests",
    "MONGODB_ATLAS_CLIENT_SECRET": SECRET,
}
STEERING = "\x1b]0;owned\x07\x1b[31m\u202e\x9b31m\ncheckpoint-audit: exit 0: Yes"
TOKENS: tuple[Any, ...] = ("a\r\nX-Evil: 1", "é", None, {}, "x" * 70_000)
LIVES: tuple[Any, ...] = (10**300, 1e300, -1, [])
KINDS: tuple[Any, ...] = (1, None, [], {}, True, "", "\x00")
ENDS_ON, UNREACHED, REFUSED = {0}, {69}, {77}


class Before(NamedTuple):
    """One resource that is hostile, how, and the codes that a run may end with."""

    resource: str
    name: str
    talk: Talk
    codes: set[int]


def told(status: str = "200 OK", **document: Any) -> Talk:
    return says(json.dumps(document).encode(), status)


def limits(capacity: Any, rate: Any, duration: Any) -> Talk:
    """A project's rate limits, as JSON has them."""
    names = ("capacity", "refillRate", "refillDurationSeconds")
    numbers = zip(names, (capacity, rate, duration), strict=True)
    values = {name: {"value": value} for name, value in numbers}
    return told(results=[{"endpointSetName": "Legacy Backup", "scope": "GROUP", **values}])


def before(elsewhere: str) -> list[Before]:
    """Every resource that is asked before checkpoints are, hostile in many ways."""
    drip = hostility.endless(0.2, opening=hostility.head(), piece=b" ")
    moved = says(b"", "307 Moved", f"Location: {elsewhere}")
    same: list[tuple[str, Talk, set[int], set[int]]] = [
        ("a bomb", hostility.encoded("gzip", hostility.BOMB), UNREACHED, ENDS_ON),
        ("a gibibyte", hostility.big("Connection: close"), UNREACHED, ENDS_ON),
        ("a body for ever", drip, UNREACHED, UNREACHED),
        ("a deep object", says(b'{"access_token":' * 100_000), UNREACHED, ENDS_ON),
        ("elsewhere", moved, UNREACHED, ENDS_ON),
        ("not HTTP", hostility.writes(b"\x00" * 999), UNREACHED, ENDS_ON),
    ]
    no = "401 Unauthorized"
    not_listed = {"errorCode": "IP_ADDRESS_NOT_ON_ACCESS_LIST"}
    return [
        *(Before("token", name, talk, codes) for name, talk, codes, _ in same),
        *(Before("groups", name, talk, codes) for name, talk, _, codes in same),
        *(Before("rateLimits", name, talk, ENDS_ON) for name, talk, _, _ in same),
        *(
            Before("token", f"token {value!r:.20}", told(access_token=value), UNREACHED)
            for value in TOKENS
        ),
        *(
            Before(
                "token", f"{life!r:.20} s", told(access_token="t" * 30, expires_in=life), ENDS_ON
            )
            for life in LIVES
        ),
        Before("token", "steering", told(no, error_description=STEERING), REFUSED),
        Before("token", "no end", told(no, error_description="no" * 30_000), REFUSED),
        Before("token", "no words", told(no, error_description={"a": [1]}), REFUSED),
        Before("revoke", "a body for ever", drip, ENDS_ON),
        Before("groups", "steering", told("403 No", **not_listed, detail=STEERING), REFUSED),
        Before("groups", "no end", told("403 No", **not_listed, detail="a" * MIB), REFUSED),
        Before(
            "groups", "steers on", told("500 No", errorCode="\x1b[1m", detail=STEERING), ENDS_ON
        ),
        *(
            Before("rateLimits", f"{numbers!r:.40}", limits(*numbers), ENDS_ON)
            for numbers in (
                (0, 0, 0),
                (-9, -9, -9),
                (1e300, 10**300, 1e300),
                (1, 1, 999_999_999),
                (1e-300, 1e-300, 1e-300),
                ("a", None, [1]),
            )
        ),
        Before("rateLimits", "many", told(results=[{}] * 400_000), ENDS_ON),
        Before("rateLimits", "no list", told(results={"a": 1}), ENDS_ON),
    ]


def except_for(hostile: Before) -> Talk:
    """Answer well, but for one resource."""

    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        resource = asked.parts[-1]
        if resource == hostile.resource:
            await hostile.talk(asked, writer)
        elif resource == "token":
            await told(access_token="token-" * 5, expires_in=3600)(asked, writer)
        elif resource == "revoke":
            await says(b"")(asked, writer)
        elif "backupCheckpoints" in asked.path:
            await about()(asked, writer)
        else:
            await empty_list(asked, writer)

    return talk


def end_of(hostile: Before, folder: Path) -> Ended:
    """Audit enough triples for limits to be asked for."""
    rows = [f"{group(1)},orders,{group(n)}" for n in range(101)]
    with serving(except_for(hostile)) as server:
        ended = started(server, folder, rows, **ACCOUNT).wait()
    assert_plain(ended.err)
    assert SECRET not in ended.err
    return ended


def test_what_comes_before_checkpoints_may_be_hostile_too(tmp_path: Path) -> None:
    """A run goes on, or ends with a code that says why; nobody else is told the secret."""
    with elsewhere() as other, ThreadPoolExecutor(10) as pool:
        cases = before(other.url)
        folders = [tmp_path / str(n) for n in range(len(cases))]
        ended = list(pool.map(end_of, cases, folders))
    wrong = {
        f"{case.resource}: {case.name}": end.err
        for case, end in zip(cases, ended, strict=True)
        if end.code not in case.codes or len(end.last_line) > 2000
    }

    assert not wrong
    assert max(end.peak for end in ended) < MOST_MEMORY


# ── lists ────────────────────────────────────────────────────────────────────────────────────────


def page(results: Any, **other: Any) -> Talk:
    return says(json.dumps({"results": results, **other}).encode())


def strangers(count: int, seed: int = 0xABCDEF) -> list[dict[str, Any]]:
    return [{"id": f"{seed:08x}{n:016x}", "restorable": True} for n in range(1, count + 1)]


def pages_for_ever() -> Talk:
    """Each page is full, and of others than the last."""
    numbers = count(1)

    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await page(strangers(500, next(numbers)), totalCount=10**18)(asked, writer)

    return talk


def mine(**other: Any) -> Talk:
    """A page of what was asked for, spoiled."""

    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        gid = asked.parts[5]
        items = [{"id": group(n), "groupId": gid, "restorable": True, **other} for n in range(3)]
        await page(items)(asked, writer)

    return talk


def lists(elsewhere: str) -> dict[str, Talk]:
    """Pages of all kinds; the list is of three checkpoints in truth."""
    following = [{"rel": "next", "href": f"{elsewhere}/{n}"} for n in range(9)]
    return {
        "total below": page(strangers(3), totalCount=-5),
        "total beyond": page(strangers(3), totalCount=10**300),
        "total in words": page(strangers(3), totalCount="three"),
        "links elsewhere": page(strangers(500), totalCount=9999, links=following),
        "links to keys": page(
            [], totalCount=9, links=[{"rel": "next", "href": hostility.METADATA}]
        ),
        "pages for ever": pages_for_ever(),
        "the same for ever": page(strangers(500)),
        "the same item": page(strangers(1) * 500),
        "no objects": page([1, None, "a", [], {}, True, 1.5, [[[]]]] * 60),
        "ids of all kinds": page([{"id": value} for value in KINDS]),
        "many": page(strangers(100_000)),
        "too many": page(strangers(400_000)),
        "no list": page({"a": 1}),
        "no results": says(b"{}"),
        "a list": says(b"[]"),
        "a deep list": says(b'{"results":' + b"[" * 100_000),
        "deep items": says(b'{"results":[' + b'{"a":' * 100_000 + b"}" * 100_000 + b"]}"),
        "a bomb": hostility.encoded("gzip", hostility.BOMB),
        "for ever": hostility.endless(0.2, opening=hostility.head(), piece=b" "),
        "elsewhere": says(b"", "302 Moved", f"Location: {elsewhere}"),
        "another project's": mine(groupId="f" * 24),
        "without end": mine(parts=[{}] * 100_000),
        "spoiled": mine(id=7),
    }


def test_lists_may_be_hostile(tmp_path: Path) -> None:
    """What they do not answer well is asked for by itself; and they cost no more than that."""
    with elsewhere() as other:
        pages = lists(other.url)
        talks = list(pages.values())

        async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
            if "itemsPerPage" in asked.path and "backupCheckpoints" in asked.path:
                await talks[int(asked.parts[5], 16)](asked, writer)
            elif "backupCheckpoints" in asked.path:
                await about()(asked, writer)
            else:
                await empty_list(asked, writer)

        with serving(talk) as server:
            rows = [f"{group(p)},orders,{group(n)}" for p in range(len(talks)) for n in range(3)]
            sent = published(started(server, tmp_path, rows, "--fetch", "list"))
    asked = Counter(each.parts[5] for each in server.asked if "backupCheckpoints?" in each.path)

    assert {row["verdict"] for row in sent.table("outcomes")} == {"PASS"}
    assert {row["fetched_by"] for row in sent.table("outcomes")} == {"get"}
    assert set(asked) == {group(n) for n in range(len(talks))}
    assert max(asked.values()) <= 3
    assert sent.ended.peak < MOST_MEMORY


# ── the input, and connections ───────────────────────────────────────────────────────────────────

NAMES = (
    "../../orgs", "..%2f..%2forgs", "%2e%2e", "..", ".", "a/b", "a\\b", "a?b=c", "a#b", "a;b",
    "a b", "a\x00b", "a%00b", "a\x1b[31m", "\u0430-cyrillic", "a\u202eb", "\uff41", "a\u0301",
    "-a", "_a", "@a", "http://127.0.0.1", "a@b", "a:80", "a\u2028b", "\ufeffa", "a\u00ad",
    "a\U0001f4a3",
)  # fmt: skip
IDS = (
    "../" * 8, "g" * 24, "1" * 23, "1" * 25, "\u0661" * 24, "\uff11" * 24, "0x" + "1" * 22,
    "1" * 23 + "\x00",
)  # fmt: skip


def test_no_name_leads_astray(tmp_path: Path) -> None:
    """What is no name of a cluster, or no id, is a bad line and never part of a request."""
    good = f"{group(1)},orders,{group(1)}"
    rows = [
        good,
        *(f'{group(1)},"{name}",{group(n)}' for n, name in enumerate(NAMES)),
        *(f'{group(1)},orders,"{name}"' for name in IDS),
        *(f'"{name}",orders,{group(1)}' for name in IDS),
    ]
    with elsewhere(), serving(except_for(Before("", "", empty_list, set()))) as server:
        sent = published(started(server, tmp_path, rows))
    summary = json.loads((sent.path / "summary.json").read_bytes())
    path = f"/api/atlas/v2/groups/{group(1)}/clusters/orders/backupCheckpoints/{group(1)}"

    assert sent.ended.code == 3
    assert summary["run"]["bad_line_count"] == len(rows) - 1
    assert {asked.path for asked in server.asked} == {
        "/api/atlas/v2/groups?itemsPerPage=1&pageNum=1",
        path,
    }


def test_no_answer_is_taken_for_another(tmp_path: Path) -> None:
    """One request is answered twice: the second answer, an absence, is nobody's."""
    absence = whole(hostility.GONE_ASTRAY, "404 Not Found")

    async def twice(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if "backupCheckpoints" not in asked.path:
            await empty_list(asked, writer)
            return
        head, _, body = whole(json.dumps(hostility.document(asked)).encode()).partition(b"{")
        writer.write(head)
        await writer.drain()
        await asyncio.sleep(0.05)  # so that the body and what follows come together
        writer.write(b"{" + body + absence)
        await writer.drain()

    rows = [f"{group(1)},orders,{group(n)}" for n in range(20)]
    with serving(twice) as server:
        sent = published(started(server, tmp_path, rows, "--concurrency", "1", "--attempts", "5"))

    assert {row["verdict"] for row in sent.table("outcomes")} == {"PASS"}
