"""No secret gets out, whatever happens: the real command, and a search of all that it leaves.

Every run is as loud as it can be made: all loggers at DEBUG, asyncio's debug mode, faulthandler.
"""

import asyncio
import gzip
import json
import signal
import ssl
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trustme

from pipeline.atlas import Reply, Request
from pipeline.journal import Journal
from tests.doubles import MOMENT
from tests.hostility import document, says, whole
from tests.leaks import forms, leaks
from tests.loopback import Asked, Ended, Started, Talk, clean_env, serving

#: With everything that is escaped somewhere.
ODD = "s3cr\"t%41/\\'+&<of>-the-"
TOKENS = "issued-t0ken/of+the=test-"
HEADER = "project_id,cluster_name,checkpoint_id\n"


class Known(NamedTuple):
    """One way to be let in."""

    login: str
    secret: str
    names: dict[str, str]

    @property
    def env(self) -> dict[str, str]:
        return {name: getattr(self, part) for name, part in self.names.items()}

    def files(self, folder: Path) -> dict[str, str]:
        """The same by files, which nobody else can read."""
        folder.mkdir()
        env = {}
        for name, value in self.env.items():
            path = folder / name.lower()
            path.write_text(value + "\n", "utf-8")
            path.chmod(0o600)
            env[f"{name}_FILE"] = str(path)
        return env


KINDS = {
    "service account": Known(
        "login-of-the-test",
        ODD + "service-account",
        {"MONGODB_ATLAS_CLIENT_ID": "login", "MONGODB_ATLAS_CLIENT_SECRET": "secret"},
    ),
    "API key": Known(
        "loginofthetest",
        ODD + "api-key",
        {"MONGODB_ATLAS_PUBLIC_API_KEY": "login", "MONGODB_ATLAS_PRIVATE_API_KEY": "secret"},
    ),
    "access token": Known("", ODD + "access-token", {"MONGODB_ATLAS_ACCESS_TOKEN": "secret"}),
}

NEEDLES = [
    *(form for known in KINDS.values() for form in forms(known.secret, known.login).values()),
    *forms(TOKENS).values(),
    # Cut in two by whatever, each half is too much still.
    "-the-service-account",
    "-the-api-key",
    "-the-access-token",
    "t0ken/of",
    "ping-address-of-the-test",
]

#: Nothing reads it so far. What will must not show it either.
PING = {"CHECKPOINT_AUDIT_PING_URL": "https://ping.invalid/ping-address-of-the-test"}

#: The command, with all loggers as loud as they get, and whatever a case does before.
LOUD = """
import faulthandler, logging, sys
faulthandler.enable()
from pipeline import talk
given = talk.set_up
def set_up(**told):
    given(**told)
    for name in ("", "asyncio", "aiohttp", "pipeline", *logging.root.manager.loggerDict):
        logging.getLogger(name).setLevel(logging.DEBUG)
    for handler in logging.root.handlers:
        handler.filters.clear()
talk.set_up = set_up
sys.argv[0] = "checkpoint-audit"
{before}
from pipeline.__main__ import main
main()
"""


def command(
    folder: Path, env: dict[str, str], *options: str, rows: int = 12, before: str = ""
) -> Started:
    folder.mkdir(parents=True, exist_ok=True)
    triples = [f"{1 + n % 3:024x},orders,{n:024x}" for n in range(rows)]
    (folder / "in.csv").write_text(HEADER + "\n".join(triples) + "\n", "utf-8")
    return Started(
        *("run", "in.csv", "--output-dir", "outputs", "--attempts", "2", "--timeout", "5"),
        *options,
        env=clean_env(**{"PYTHONASYNCIODEBUG": "1", **PING, **env}),
        folder=folder,
        program=(sys.executable, "-c", LOUD.replace("{before}", before)),
    )


def assert_clean(folder: Path, ended: Ended, *codes: int) -> None:
    assert ended.code in codes, ended.err
    assert leaks(folder, NEEDLES) == []


# ── the search itself ────────────────────────────────────────────────────────────────────────────


def _raw(folder: Path, text: str) -> None:
    (folder / "attempts.jsonl").write_text(f"before {text} after", "utf-8")


def _packed(folder: Path, text: str) -> None:
    (folder / "input.csv.gz").write_bytes(gzip.compress(f"before {text} after".encode()))


def _table(folder: Path, text: str) -> None:
    table = pa.table({"n": [1, 2], "text": ["a" * 999, text], "body": [b"b" * 999, text.encode()]})
    pq.write_table(table, folder / "a.parquet", compression="zstd")


def _journal(folder: Path, text: str) -> None:
    with Journal(folder / "a.journal") as journal:
        reply = Reply(200, MOMENT, MOMENT, {}, f'{{"restorable": true, "x": "{text}"}}'.encode())
        journal.record("checkpoint", Request("/path"), reply, None)


@pytest.mark.parametrize("place", [_raw, _packed, _table, _journal])
def test_the_search_finds_what_it_looks_for(
    place: Callable[[Path, str], None], tmp_path: Path
) -> None:
    """In every form, in every kind of file: else the tests below could not fail."""
    for known in KINDS.values():
        for form in forms(known.secret, known.login).values():
            folder = tmp_path / "in" / "here"
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.iterdir():
                path.unlink()
            place(folder, form)

            assert leaks(tmp_path, NEEDLES)
    place(folder, "nothing of the kind")
    assert leaks(tmp_path, NEEDLES) == [] or place is _journal


# ── an Atlas that is told secrets ────────────────────────────────────────────────────────────────


def authorization(asked: Asked) -> str:
    lines = (line.partition(": ") for line in asked.head.split("\r\n"))
    return next((value for name, _, value in lines if name.lower() == "authorization"), "")


CHALLENGE = 'WWW-Authenticate: Digest realm="MMS Public API", nonce="n", qop="auth", algorithm=MD5'


class Scene:
    """How this Atlas behaves; `asked` counts the requests for checkpoints."""

    def __init__(self, known: Known, name: str) -> None:
        self.asked = 0
        self._known = known
        self._name = name
        self._tokens = count(1)

    async def talk(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.path.startswith("/api/oauth/"):
            await self._oauth(asked)(asked, writer)
        elif not authorization(asked):
            await says(b"{}", "401 Unauthorized", CHALLENGE)(asked, writer)
        elif "backupCheckpoints" in asked.path:
            self.asked += 1
            await self._checkpoint(asked, writer)
        elif self._name == "refused" or (self._name == "refused half-way" and self.asked > 4):
            await self._refuse(asked, writer)
        else:
            await says(b'{"results": []}')(asked, writer)

    def _oauth(self, asked: Asked) -> Talk:
        if asked.parts[-1] == "revoke":
            return says(asked.body + authorization(asked).encode(), "500 No")
        token = f"{TOKENS}{next(self._tokens)}"
        return says(json.dumps({"access_token": token, "expires_in": 3600}).encode())

    async def _checkpoint(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if self._name == "refused half-way" and self.asked > 4:
            await self._refuse(asked, writer)
        elif self._name == "echo":
            await self._echo(asked, writer)
        else:
            await asyncio.sleep(0.05 if self._name == "slow" else 0)
            writer.write(whole(json.dumps(document(asked)).encode()))
            await writer.drain()

    async def _refuse(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        body = {"error": 401, "errorCode": "UNEXPECTED_ERROR", "detail": authorization(asked)}
        await says(json.dumps(body).encode(), "401 Unauthorized")(asked, writer)

    async def _echo(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        """Show what was sent, and the secret behind it, in all forms and all places."""
        sent = authorization(asked)
        told = [sent, *forms(self._known.secret, self._known.login).values()]
        if sent.startswith(f"Bearer {TOKENS}"):
            told += forms(sent.removeprefix("Bearer ")).values()
        if self.asked % 4 == 0:
            body = json.dumps({**document(asked), "told": told}).encode()
            await says(body, "200 OK", f"Sunset: {sent}", f"Deprecation: {told[1]}")(asked, writer)
        elif self.asked % 4 == 1:
            error = {"error": 403, "errorCode": told[1], "detail": " ".join(told)}
            body = json.dumps({**error, "parameters": told}).encode()
            await says(body, "403 No", f"Retry-After: {sent}")(asked, writer)
        elif self.asked % 4 == 2:
            codes = "".join(f"\\u{ord(c):04x}" for c in sent)
            await says(f'{{"error": 404, "detail": "{codes}"}}'.encode(), "404 No")(asked, writer)
        else:
            await says(f"<pre>{asked.head}</pre>{' '.join(told)}".encode(), "502 No")(asked, writer)


# ── what can happen to a run ─────────────────────────────────────────────────────────────────────

CRASH = "import pipeline.derive as d; d.judge = None"

#: A fault of the program whose text holds what was sent, as that of some libraries does.
TALKATIVE = """
import pipeline.transport as t
async def read(response):
    raise RuntimeError(f"{response.request_info.headers} {repr(response.request_info.headers)}")
t._read_capped = read
"""

#: Another one, of the credentials themselves.
CONFIDING = """
import pipeline.audit as a, pipeline.reach as r
def authentication(credentials, *args, **told):
    try:
        raise ValueError(credentials.secret)
    except ValueError as error:
        raise KeyError(credentials.secret, repr(credentials.secret)) from error
r.authentication = authentication
"""

FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
"""

PUBLISHED = {0, 1, 3, 4}


class Happening(NamedTuple):
    """What Atlas does, what is done to the program, and the codes that it may end with."""

    scene: str
    codes: set[int]
    before: str = ""
    options: tuple[str, ...] = ()
    by_file: bool = False


HAPPENINGS = {
    "all is well": Happening("good", {0}),
    "all is well, by files": Happening("good", {0}, by_file=True),
    "all is well, by lists and in JSON": Happening(
        "good", {0}, options=("--fetch", "list", "--log-format", "json")
    ),
    "refused": Happening("refused", {77}),
    "refused half-way": Happening("refused half-way", {77}),
    "the server repeats it": Happening("echo", {3, 4}),
    "the server repeats it, in JSON": Happening("echo", {3, 4}, options=("--log-format", "json")),
    "a crash": Happening("good", {70}, CRASH),
    "a crash that says what was sent": Happening("good", {70}, TALKATIVE),
    "a crash that says the secret": Happening("good", {70}, CONFIDING),
    "a crash in JSON": Happening("good", {70}, TALKATIVE, ("--log-format", "json")),
    "a full disk": Happening("echo", {73}, FULL),
}


def happen(known: Known, name: str, folder: Path) -> list[str]:
    """Let it happen; gives what was wrong."""
    told = HAPPENINGS[name]
    scene = Scene(known, told.scene)
    env = known.files(folder.with_suffix(".secrets")) if told.by_file else known.env
    with serving(scene.talk) as server:
        env = {**env, "MONGODB_ATLAS_BASE_URL": server.url}
        rows = 600 if told.before == FULL else 12
        ended = command(folder, env, *told.options, rows=rows, before=told.before).wait()
    found = leaks(folder, NEEDLES)
    if ended.code not in told.codes:
        found.append(f"{ended.code}: {ended.err}")
    if ended.code in PUBLISHED and told.scene == "echo" and not leaks(folder, ["[secret]"]):
        found.append("nothing was taken out")
    return [f"{name}: {what}" for what in found]


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_happens_no_secret_gets_out(kind: str, tmp_path: Path) -> None:
    """Not to stdout, stderr, the journal, a table, a report, or a note of how the run ended."""
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(
            lambda each: happen(KINDS[kind], each[1], tmp_path / str(each[0])),
            enumerate(HAPPENINGS),
        )
        assert [what for each in found for what in each] == []


ACCOUNT = KINDS["service account"]


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_killed_and_gone_on_with(kind: str, tmp_path: Path) -> None:
    """The journal is there meanwhile, with its log; a damaged one is set aside, and searched."""
    known = KINDS[kind]
    with serving(Scene(known, "slow").talk) as server:
        env = {**known.env, "MONGODB_ATLAS_BASE_URL": server.url}
        for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
            before = len(server.asked)
            running = command(tmp_path, env, "--concurrency", "1", rows=60)
            wait_for(lambda before=before: len(server.asked) > before + 12)  # type: ignore[misc]
            running.process.send_signal(number)
            assert_clean(tmp_path, running.wait(), code)
        journals = list((tmp_path / "outputs/in/.work").glob("*.journal"))
        assert len(journals) == 1
        for path in journals:
            path.write_bytes(path.read_bytes()[:-999] + b"torn" * 200)
        ended = command(tmp_path, env, rows=60).wait()

    assert_clean(tmp_path, ended, 0)


def wait_for(happened: Callable[[], bool]) -> None:
    """Wait until it has happened; for ever, as far as a minute is that."""
    for _ in range(6000):
        if happened():
            return
        time.sleep(0.01)
    raise AssertionError("it has not happened")


def token_endpoint(status: str, body: bytes, *lines: str) -> Talk:
    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await says(body.replace(b"@sent@", authorization(asked).encode()), status, *lines)(
            asked, writer
        )

    return talk


_TOLD = " ".join(forms(ACCOUNT.secret, ACCOUNT.login).values())
_SAID = json.dumps({"error": "invalid_client", "error_description": f"@sent@ {_TOLD}"}).encode()

TOKEN_ENDPOINTS: dict[str, tuple[Talk, int]] = {
    "out of order": (token_endpoint("500 No", b"@sent@"), 69),
    "garbage": (token_endpoint("200 OK", b"<html>@sent@"), 69),
    "refuses and repeats": (token_endpoint("401 Unauthorized", _SAID), 77),
    "forbids and repeats": (token_endpoint("403 Forbidden", _SAID), 77),
    "not HTTP": (token_endpoint("no number @sent@", b""), 69),
    "elsewhere": (token_endpoint("307 Moved", b"", "Location: http://other.invalid/"), 69),
    "too many": (token_endpoint("429 Slow down", _SAID), 69),
}


def test_the_token_endpoint_gives_nothing_away(tmp_path: Path) -> None:
    """Whatever it does with the id and the secret that it is told."""

    def end(name: str) -> tuple[str, int]:
        talk, _ = TOKEN_ENDPOINTS[name]
        with serving(talk) as server:
            env = {**ACCOUNT.env, "MONGODB_ATLAS_BASE_URL": server.url}
            return name, command(tmp_path / name, env).wait().code

    with ThreadPoolExecutor(4) as pool:
        codes = dict(pool.map(end, TOKEN_ENDPOINTS))

    assert codes == {name: code for name, (_, code) in TOKEN_ENDPOINTS.items()}
    assert leaks(tmp_path, NEEDLES) == []


# ── on the way there ─────────────────────────────────────────────────────────────────────────────


async def refusing_proxy(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Repeats what it was sent, as proxies do in their pages."""
    assert asked.method == "CONNECT"
    await says(asked.head.encode(), "407 No", "Proxy-Authenticate: Basic")(asked, writer)


def test_neither_networks_nor_proxies_give_anything_away(tmp_path: Path) -> None:
    """A proxy's password is a secret as well."""
    password = "p%22ssw%25rd-of-the-proxy"
    hidden = [*NEEDLES, "rd-of-the-proxy", b64encode(b'u:p"ssw%rd-of-the-proxy').decode()]
    authority, untrusted = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(untrusted)
    good = Scene(ACCOUNT, "good").talk
    with (
        serving(refusing_proxy) as proxy,
        serving(good, tls=untrusted) as secure,
        serving(good) as plain,
    ):
        nobody = proxy.url.removeprefix("http://").replace(str(proxy.port), "1")
        ways = {
            "refused": {"MONGODB_ATLAS_BASE_URL": f"http://{nobody}"},
            "no TLS": {"MONGODB_ATLAS_BASE_URL": plain.url.replace("http:", "https:")},
            "not trusted": {"MONGODB_ATLAS_BASE_URL": secure.url.replace("http:", "https:")},
            "a proxy": {
                "MONGODB_ATLAS_BASE_URL": "https://atlas.invalid",
                "HTTPS_PROXY": f"http://u:{password}@127.0.0.1:{proxy.port}",
            },
            "no proxy": {
                "MONGODB_ATLAS_BASE_URL": "https://atlas.invalid",
                "https_proxy": f"http://u:{password}@{nobody}",
            },
            "no such proxy": {
                "MONGODB_ATLAS_BASE_URL": "https://atlas.invalid",
                "ALL_PROXY": f"socks5://u:{password}@{nobody}",
            },
        }
        running = [command(tmp_path / name, {**ACCOUNT.env, **ways[name]}) for name in ways]
        ended = [each.wait() for each in running]

    assert [each.code for each in ended] == [69, 69, 69, 69, 69, 78]
    assert leaks(tmp_path, hidden) == []


# ── configuration ────────────────────────────────────────────────────────────────────────────────


def _wrong(folder: Path) -> dict[str, tuple[int, dict[str, str]]]:
    """What is wrong, the code for it, and the variables that say it."""
    secret, name = ACCOUNT.secret, "MONGODB_ATLAS_CLIENT_SECRET"
    open_file, empty, binary = folder / "open", folder / "empty", folder / "binary"
    open_file.write_text(secret, "utf-8")
    open_file.chmod(0o644)
    empty.write_text("", "utf-8")
    binary.write_bytes(b"\xff" + secret.encode())
    login = {"MONGODB_ATLAS_CLIENT_ID": ACCOUNT.login}
    url = "MONGODB_ATLAS_BASE_URL"
    return {
        "in the address": (78, {**ACCOUNT.env, url: f"https://user:{secret}@host"}),
        "in the address, encoded": (78, {**ACCOUNT.env, url: "https://u:s3cr%22t%2541@host"}),
        "as a query": (78, {**ACCOUNT.env, url: f"https://host/?key={secret}"}),
        "as the address": (78, {**ACCOUNT.env, url: secret}),
        "two sets": (78, {**ACCOUNT.env, **KINDS["access token"].env}),
        "two that differ": (78, {**ACCOUNT.env, f"{name}_FILE": str(folder / "x")}),
        "for a file's path": (77, {**login, f"{name}_FILE": secret}),
        "in a file for all": (77, {**login, f"{name}_FILE": str(open_file)}),
        "in no file": (77, {**login, f"{name}_FILE": str(empty)}),
        "in a file that is no text": (77, {**login, f"{name}_FILE": str(binary)}),
        "with a line feed": (77, {**login, name: secret + "\n" + secret}),
        "with a blank": (77, {**login, name: secret + " " + secret}),
        "in quotes": (77, {**login, name: f"'{secret}'"}),
        "not in ASCII": (77, {**login, name: f"{secret}\u00e9"}),
        "not in UTF-8": (77, {**login, name: f"{secret}\udcff"}),
        "with a colon before": (77, {**ACCOUNT.env, "MONGODB_ATLAS_CLIENT_ID": "a:b"}),
        "alone": (77, {name: secret}),
    }


def test_wrong_configurations_are_named_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "x").write_text(ACCOUNT.secret + "-another", "utf-8")
    (tmp_path / "x").chmod(0o600)
    wrong = _wrong(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        codes = dict(
            pool.map(
                lambda name: (name, command(tmp_path / "runs" / name, wrong[name][1]).wait().code),
                wrong,
            )
        )

    assert codes == {name: code for name, (code, _) in wrong.items()}
    assert leaks(tmp_path / "runs", NEEDLES) == []
