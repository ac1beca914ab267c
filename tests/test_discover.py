"""The walk from a credential to its triples, over an Atlas that is a small class."""

import asyncio
import os
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.atlas import Reply, Request
from pipeline.discover import COLUMNS, Discovery, Found, Wanted, writing
from pipeline.errors import AtlasUnavailable, AuditError, CredentialsRefused, OutputsUnwritable
from pipeline.fetch import Fetcher, Retry, unrecorded
from pipeline.limits import Governor
from pipeline.outcomes import FailureKind
from pipeline.triples import BadLine, Triple, TripleReader
from tests.doubles import error, group, refused, reply, trouble
from tests.virtual_time import now, run

NO_BACKUPS = error(400, "BACKUP_JOB_NOT_FOUND")
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def checkpoint(hours: float, number: int = 0) -> dict[str, Any]:
    """A checkpoint that was started so many hours before noon."""
    started = NOON - timedelta(hours=hours)
    return {
        "id": f"{int(started.timestamp()):08x}{number:016x}",
        "started": started.isoformat().replace("+00:00", "Z"),
    }


class Atlas:
    """An organization: for each project its clusters, for each of those its checkpoints.

    A `Reply` in place of a list is what asking for the list is answered with.
    """

    def __init__(
        self,
        projects: dict[int, dict[str, list[Any] | Reply] | Reply] | Reply,
        *,
        standing: Reply | None = None,
        latency: Callable[[], float] = lambda: 0.1,
    ) -> None:
        self.projects = projects
        self.standing = standing
        self.latency = latency
        self.asked: list[str] = []
        self.in_flight = self.most = 0

    async def send(self, request: Request) -> Reply:
        self.asked.append(request.path)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(self.latency())
            return self._answer(request)
        finally:
            self.in_flight -= 1

    def _answer(self, request: Request) -> Reply:
        parts, query = urlsplit(request.path).path.split("/"), urlsplit(request.path).query
        if "itemsPerPage=1&" in query and self.standing is not None:
            return self.standing
        found = self._found([unquote(part) for part in parts[5:]])
        if isinstance(found, Reply):
            return found
        numbers = parse_qs(query)
        number, items = int(numbers["pageNum"][0]), int(numbers["itemsPerPage"][0])
        return reply(200, {"results": found[(number - 1) * items : number * items]})

    def _found(self, below: list[str]) -> list[Any] | Reply:
        if isinstance(self.projects, Reply):
            return self.projects
        if not below:
            return [{"id": group(n), "name": f"project {n}"} for n in self.projects]
        clusters = self.projects[int(below[0], 16)]
        if isinstance(clusters, Reply):
            return clusters
        if len(below) == 2:
            return [{"name": name, "mongoDBVersion": "4.0.28"} for name in clusters]
        return clusters[below[2]]


def walk(
    atlas: Atlas, wanted: Wanted | None = None, written: list[str] | None = None
) -> tuple[Found, list[str]]:
    """Walk through `atlas` in virtual time; gives the lines that were written."""
    text = written if written is not None else []
    fetcher = Fetcher(atlas, Governor(jitter=lambda: 0.0), unrecorded, retry=Retry(2))
    found = run(Discovery(fetcher, wanted or Wanted(), text.append).run())
    return found, "".join(text).splitlines()


def read_again(lines: Iterable[str]) -> tuple[list[Triple], list[BadLine]]:
    """Read what was written as the audit does."""
    every = list(TripleReader(f"{line}\n".encode() for line in lines))
    good = [line for line in every if isinstance(line, Triple)]
    return good, [line for line in every if isinstance(line, BadLine)]


SMALL: dict[int, dict[str, list[Any] | Reply] | Reply] = {
    2: {"orders": [checkpoint(1), checkpoint(2)], "archive": [checkpoint(30)]},
    1: {"orders": [checkpoint(3)], "scratch": NO_BACKUPS, "empty": []},
}


def test_rows_are_triples_with_labels() -> None:
    found, lines = walk(Atlas(SMALL))
    triples, bad = read_again(lines)

    assert lines[0] == ",".join(COLUMNS)
    assert bad == []
    assert [(t.ref.group_id, t.ref.cluster_name, t.labels["started"]) for t in triples] == [
        (group(1), "orders", "2026-11-20T09:00:00Z"),
        (group(2), "archive", "2026-11-19T06:00:00Z"),
        (group(2), "orders", "2026-11-20T11:00:00Z"),
        (group(2), "orders", "2026-11-20T10:00:00Z"),
    ]
    assert triples[0].labels["project_name"] == "project 1"
    assert triples[0].labels["mongodb_version"] == "4.0.28"
    assert (found.clusters, found.without_backups, found.without_checkpoints) == (5, 1, 1)
    assert (found.listed, found.written, found.unlisted) == (4, 4, [])


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_the_order_of_answers_changes_nothing(seed: int) -> None:
    """Two walks over the same thing write the same lines."""
    chance = random.Random(seed)
    fleet: dict[int, dict[str, list[Any] | Reply] | Reply] = {
        n: {f"c{m}": [checkpoint(h, m) for h in range(m)] for m in range(4)} for n in range(1, 20)
    }
    hurried = walk(Atlas(fleet, latency=lambda: chance.uniform(0.01, 3.0)))

    assert hurried[1] == walk(Atlas(fleet))[1]


def test_rows_come_before_everything_is_asked() -> None:
    """The first rows are out long before the last list is asked for; not all waits in memory."""
    fleet: dict[int, dict[str, list[Any] | Reply] | Reply] = {
        n: {"orders": [checkpoint(1)]} for n in range(1, 400)
    }
    atlas = Atlas(fleet)
    when: list[int] = []
    fetcher = Fetcher(atlas, Governor(), unrecorded)
    run(Discovery(fetcher, Wanted(), lambda _: when.append(len(atlas.asked))).run())

    rows = when[1:]
    assert rows[0] < len(atlas.asked) / 4
    assert atlas.most <= 64


# --- filters --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        (Wanted(projects=("project 2",)), {(2, "orders"), (2, "archive")}),
        (Wanted(projects=("*1", "none")), {(1, "orders")}),
        (Wanted(projects=(group(2),), clusters=("arch*",)), {(2, "archive")}),
        (Wanted(clusters=("ORDERS",)), set()),
        (Wanted(since=NOON - timedelta(hours=3)), {(1, "orders"), (2, "orders")}),
        (Wanted(until=NOON - timedelta(hours=3)), {(2, "archive")}),
    ],
)
def test_filters(wanted: Wanted, places: set[tuple[int, str]]) -> None:
    """Globs match a project's id or name, a cluster's name; case counts."""
    _, lines = walk(Atlas(SMALL), wanted)
    triples, _ = read_again(lines)

    assert {(int(t.ref.group_id, 16), t.ref.cluster_name) for t in triples} == places


def test_what_is_not_wanted_is_not_asked_for() -> None:
    atlas = Atlas(SMALL)
    walk(atlas, Wanted(projects=("project 1",), clusters=("orders",)))

    assert not [path for path in atlas.asked if group(2) in path]
    assert not [path for path in atlas.asked if "scratch" in path]


def test_age_is_the_ids_whatever_started_says() -> None:
    """A checkpoint with a broken `started` is one that an audit must see."""
    recent, old = checkpoint(1)["id"], checkpoint(9)["id"]
    starts: list[Any] = [None, 7, "", "yesterday", "1999-01-01T00:00:00Z", "2030-01-01T00:00:00Z"]
    for started in starts:
        items = [{"id": one, "started": started} for one in (recent, old)]
        _, lines = walk(Atlas({1: {"orders": items}}), Wanted(since=NOON - timedelta(hours=2)))
        triples, _ = read_again(lines)

        assert [triple.ref.checkpoint_id for triple in triples] == [recent]


# --- what could not be listed ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(403, "ACCESS_FORBIDDEN"), FailureKind.PROJECT_REFUSED),
        (error(401, "NOT_IN_GROUP"), FailureKind.PROJECT_REFUSED),
        (error(404, "CLUSTER_NOT_FOUND"), FailureKind.CLUSTER_NOT_FOUND),
        (error(404, "CHECKPOINT_NOT_SUPPORTED"), FailureKind.NOT_FOUND),
        (error(500), FailureKind.SERVER_ERROR),
        (trouble(FailureKind.TIMED_OUT), FailureKind.TIMED_OUT),
        (error(401), FailureKind.UNAUTHENTICATED),
    ],
)
@pytest.mark.parametrize("level", ["project", "cluster"])
def test_a_place_that_cannot_be_listed_is_a_bad_line(
    level: str, answer: Reply, kind: FailureKind
) -> None:
    """The rest is there; an audit of the CSV cannot end as complete."""
    broken: Any = answer if level == "project" else {"archive": answer, "orders": [checkpoint(1)]}
    found, lines = walk(Atlas({**SMALL, 2: broken}))
    triples, bad = read_again(lines)

    assert [place.failure.kind for place in found.unlisted] == [kind]
    assert len(triples) == (1 if level == "project" else 2)
    assert len(bad) == 1
    assert bad[0].line == len(lines)
    assert "not listed: " in str(bad[0])
    assert lines[-1].startswith(f"{group(2)},{'' if level == 'project' else 'archive'},")


@pytest.mark.parametrize("code", ["CHECKPOINT_NOT_FOUND", "INVALID_CHECKPOINT_ID"])
def test_an_absence_that_is_no_lists_is_no_lack_of_backups(code: str) -> None:
    found, lines = walk(Atlas({**SMALL, 2: {"archive": error(404, code)}}))

    assert found.without_backups == 1
    assert [place.cluster_name for place in found.unlisted] == ["archive"]
    assert lines[-1].startswith(f"{group(2)},archive,not listed: ")


@pytest.mark.parametrize("odd", [False, True])
def test_backups_that_go_meanwhile_were_there(*, odd: bool) -> None:
    """A page that shows checkpoints, then a refusal: the rows stay, and the list is not whole."""

    class Ending(Atlas):
        def _answer(self, request: Request) -> Reply:
            is_second = "backupCheckpoints" in request.path and "pageNum=1&" not in request.path
            return NO_BACKUPS if is_second else super()._answer(request)

    items = [{"no": "id", "n": n} if odd else checkpoint(n) for n in range(9)]
    found, lines = walk(Ending({1: {"orders": items, "archive": [checkpoint(1)]}}))
    triples, bad = read_again(lines)

    assert (len(triples), len(bad)) == (1 if odd else 10, 1)
    assert (found.without_backups, len(found.unlisted)) == (0, 1)


def test_a_project_without_a_name_is_no_silence() -> None:
    """The others are listed; a line of its own says that one was not."""

    class Odd(Atlas):
        def _found(self, below: list[str]) -> list[Any] | Reply:
            found = super()._found(below)
            return found if below or isinstance(found, Reply) else [{"name": "no id"}, *found]

    found, lines = walk(Odd(SMALL))
    triples, bad = read_again(lines)

    assert (len(triples), len(bad)) == (4, 1)
    assert lines[-1].startswith(',,"not listed: ')
    assert str(found.unlisted[0]).startswith("a project (")
    assert len(walk(Odd({}))[0].unlisted) == 1


def test_a_bucket_that_is_empty_for_hours_is_that_of_all_clusters() -> None:
    """Each is named, and the other projects' are there."""
    throttled: Any = {"archive": refused(retry_after="3600"), "orders": [checkpoint(1)]}
    found, lines = walk(Atlas({**SMALL, 2: throttled}))
    triples, bad = read_again(lines)

    assert [place.failure.kind for place in found.unlisted] == [FailureKind.THROTTLED] * 2
    assert (len(triples), len(bad)) == (1, 2)


def test_a_page_that_fails_leaves_the_pages_before_it() -> None:
    class Torn(Atlas):
        def _answer(self, request: Request) -> Reply:
            is_second = "backupCheckpoints" in request.path and "pageNum=1&" not in request.path
            return error(403) if is_second else super()._answer(request)

    found, lines = walk(Torn({1: {"orders": [checkpoint(hours) for hours in range(9)]}}))
    triples, bad = read_again(lines)

    assert (len(triples), len(bad), len(found.unlisted)) == (9, 1, 1)


@pytest.mark.parametrize(
    "item", [{}, {"id": "5f"}, {"id": "x" * 24}, {"name": "no id"}, 7, {"id": 7}, "\u001b[31m"]
)
def test_an_item_that_names_nothing_is_no_silence(item: Any) -> None:
    found, lines = walk(Atlas({1: {"orders": [checkpoint(1), item, checkpoint(2)]}}))
    triples, bad = read_again(lines)

    assert len(triples) == 2
    assert len(bad) == len(found.unlisted) == 1
    assert "an item that names nothing" in lines[-1]
    assert lines[-1].isprintable()


def test_a_cluster_that_run_would_not_take_is_named() -> None:
    found, _ = walk(Atlas({1: {"orders prod!": [checkpoint(1)], "orders": [checkpoint(1)]}}))

    assert [place.cluster_name for place in found.unlisted] == [""]
    assert "orders prod!" in str(found.unlisted[0])


def test_a_project_that_refuses_holds_up_nothing_before_it() -> None:
    """It is asked again for a quarter of an hour; all rows before it are out within seconds."""
    refusing = refused(retry_after="300")
    atlas = Atlas({0xFFF: refusing, **{n: {"orders": [checkpoint(1)]} for n in range(1, 20)}})
    written: list[float] = []
    fetcher = Fetcher(atlas, Governor(jitter=lambda: 0.0), unrecorded)

    async def timed() -> float:
        begun = now()
        await Discovery(fetcher, Wanted(), lambda _: written.append(now() - begun)).run()
        return now() - begun

    whole = run(timed())

    assert len(written) == 1 + 19 + 1
    assert max(written[:-1]) < 10
    assert whole > 600


def test_behind_a_project_that_refuses_lists_are_asked_for_ahead() -> None:
    """Rows keep their order, and not all waits in memory: so rows, and in the end lists, wait."""
    atlas = Atlas(
        {0: refused(retry_after="300"), **{n: {"a": [checkpoint(1)]} for n in range(99)[1:]}}
    )
    written: list[tuple[float, int]] = []
    fetcher = Fetcher(atlas, Governor(jitter=lambda: 0.0), unrecorded)

    async def timed() -> None:
        begun = now()

        def note(_: str) -> None:
            written.append((now() - begun, len({path.split("?")[0] for path in atlas.asked})))

        await Discovery(fetcher, Wanted(), note).run()

    run(timed())

    assert written[0][0] < 10
    assert written[1][0] > 600
    assert 16 < written[1][1] < 99


def test_cells_of_the_csv_are_inert() -> None:
    """A project's name is anybody's text."""

    class Named(Atlas):
        def _found(self, below: list[str]) -> list[Any] | Reply:
            if below:
                return super()._found(below)
            return [{"id": group(1), "name": '=HYPERLINK("x")\n,'}]

    _, lines = walk(Named({1: {"orders": [checkpoint(1)]}}))
    triples, bad = read_again(lines)

    assert bad == []
    assert triples[0].labels["project_name"] == '\'=HYPERLINK("x") ,'


# --- what ends a walk -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error_class", "said"),
    [
        (error(401), CredentialsRefused, "refuses"),
        (error(403, "IP_ADDRESS_NOT_ON_ACCESS_LIST"), CredentialsRefused, "ACCESS_LIST"),
        (error(402), CredentialsRefused, "SUSPENDED"),
        (error(403), CredentialsRefused, "refuses"),
        (trouble(FailureKind.UNREACHABLE), AtlasUnavailable, "cannot be reached"),
        (trouble(FailureKind.TIMED_OUT), AtlasUnavailable, "cannot be reached"),
        (error(503), AtlasUnavailable, "does not list its projects"),
        (error(410), AtlasUnavailable, "does not list its projects"),
    ],
)
def test_no_projects_no_output(answer: Reply, error_class: type[AuditError], said: str) -> None:
    """Not even a header: whoever reads the pipe finds no input at all."""
    written: list[str] = []
    with pytest.raises(error_class, match=said) as caught:
        walk(Atlas(answer), written=written)

    assert caught.value.hint
    assert written == []


@pytest.mark.parametrize("bad", [error(401), error(402), error(403, "ORG_REQUIRES_ACCESS_LIST")])
def test_credentials_that_end_meanwhile_end_the_walk(bad: Reply) -> None:
    """What is written by then ends in a line that no audit takes for the end of a whole list."""
    written: list[str] = []
    atlas = Atlas({1: {"orders": [checkpoint(1)]}, 2: bad}, standing=error(401))
    with pytest.raises(CredentialsRefused):
        walk(atlas, written=written)

    _, lines = read_again("".join(written).splitlines())
    assert len(lines) == 1
    assert "cut short" in str(lines[0])
    assert atlas.in_flight == 0


def test_atlas_that_is_gone_after_the_projects() -> None:
    with pytest.raises(AtlasUnavailable, match="and nothing else"):
        walk(Atlas({1: error(503), 2: trouble(FailureKind.UNREACHABLE)}))


# --- nothing found --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("projects", "wanted", "reason"),
    [
        ({}, Wanted(), "sees no project"),
        (SMALL, Wanted(projects=("x",)), "none of 2 projects matches"),
        ({1: {}}, Wanted(), "no cluster in 1 projects"),
        (SMALL, Wanted(clusters=("x",)), "none of 5 clusters matches"),
        (SMALL, Wanted(since=NOON), "none of 4 checkpoints is of the age"),
        ({1: {"a": NO_BACKUPS, "b": []}}, Wanted(), "of 2 clusters 1 have no legacy backups and 1"),
        ({1: {"a": NO_BACKUPS}}, Wanted(), "closed to new clusters since March 2020"),
    ],
)
def test_why_there_is_nothing(projects: Any, wanted: Wanted, reason: str) -> None:
    found, lines = walk(Atlas(projects), wanted)

    assert lines == [",".join(COLUMNS)]
    assert reason in found.reason


# --- where it goes --------------------------------------------------------------------------------


def test_a_file_is_replaced_at_the_end(tmp_path: Path) -> None:
    place = tmp_path / "found.csv"
    place.write_text("old", "utf-8")
    with writing(place) as write:
        write("nëw\n")
        assert place.read_text("utf-8") == "old"

    assert place.read_bytes() == "nëw\n".encode()
    assert list(tmp_path.iterdir()) == [place]


def test_a_file_stays_when_the_walk_fails(tmp_path: Path) -> None:
    place = tmp_path / "found.csv"
    place.write_text("old", "utf-8")

    def fail() -> None:
        with writing(place) as write:
            write("new\n")
            raise CredentialsRefused("no")

    with pytest.raises(CredentialsRefused):
        fail()

    assert place.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_a_link_is_written_through(tmp_path: Path) -> None:
    place, link = tmp_path / "found.csv", tmp_path / "link.csv"
    link.symlink_to(place)
    with writing(link) as write:
        write("new\n")

    assert link.is_symlink()
    assert place.read_text("utf-8") == "new\n"


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    here = [tmp_path / name for name in ("pipe", "loop", "loop/new", "no/folder", "x" * 300)]
    for place in (tmp_path, *here):
        with pytest.raises(OutputsUnwritable, match=r"cannot be written|no regular file"):
            with writing(place):
                pass
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "loop"}
