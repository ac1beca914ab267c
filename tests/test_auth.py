"""Three ways in: how credentials are read, and how they stand against the simulator."""

import asyncio
import logging
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pipeline.atlas import Reply, Request, preliminary_request, request_for
from pipeline.auth import (
    Authentication,
    Credentials,
    Kind,
    ServiceAccount,
    authentication,
    read_credentials,
    secrets_in,
)
from pipeline.checkpoints import CheckpointRef
from pipeline.errors import AuditError, ConfigurationWrong, CredentialsRefused
from pipeline.outcomes import FailureKind
from pipeline.simulator import Credentials as Known
from pipeline.simulator import FaultPlan, Fleet, serve
from pipeline.simulator.faults import ProjectFault
from pipeline.simulator.server import Simulator
from pipeline.transport import Connection, HttpTransport, connect

KNOWN = Known()
ID, SECRET = "MONGODB_ATLAS_CLIENT_ID", "MONGODB_ATLAS_CLIENT_SECRET"
PUBLIC, PRIVATE = "MONGODB_ATLAS_PUBLIC_API_KEY", "MONGODB_ATLAS_PRIVATE_API_KEY"
TF_PUBLIC, TF_PRIVATE = "MONGODB_ATLAS_PUBLIC_KEY", "MONGODB_ATLAS_PRIVATE_KEY"
TOKEN = "MONGODB_ATLAS_ACCESS_TOKEN"

# ── reading ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("environ", "kind", "name", "secret"),
    [
        ({ID: "i", SECRET: "s"}, Kind.SERVICE_ACCOUNT, "i", "s"),
        ({PUBLIC: "p", PRIVATE: "s"}, Kind.API_KEY, "p", "s"),
        ({TF_PUBLIC: "p", TF_PRIVATE: "s"}, Kind.API_KEY, "p", "s"),
        ({PUBLIC: "p", TF_PRIVATE: "s"}, Kind.API_KEY, "p", "s"),
        ({PUBLIC: "p", TF_PUBLIC: "p", PRIVATE: "s"}, Kind.API_KEY, "p", "s"),
        ({TOKEN: "t"}, Kind.ACCESS_TOKEN, "access-token-e3b98a4da31a", "t"),
        ({ID: " i\n", SECRET: "\ts\r\n"}, Kind.SERVICE_ACCOUNT, "i", "s"),
        ({ID: "i", SECRET: "s", PUBLIC: "p"}, Kind.SERVICE_ACCOUNT, "i", "s"),
        ({ID: "", SECRET: "", TOKEN: "t"}, Kind.ACCESS_TOKEN, "access-token-e3b98a4da31a", "t"),
        ({ID: " ", SECRET: "s", TOKEN: "t"}, Kind.ACCESS_TOKEN, "access-token-e3b98a4da31a", "t"),
        ({ID: "i", SECRET: "a'b\"c"}, Kind.SERVICE_ACCOUNT, "i", "a'b\"c"),
    ],
)
def test_one_complete_set_is_found(
    environ: dict[str, str], kind: Kind, name: str, secret: str
) -> None:
    """By MongoDB's own names; blank is not set; a token is known by its digest."""
    assert read_credentials(environ) == Credentials(kind, name, secret)


@pytest.mark.parametrize(
    ("environ", "error", "words"),
    [
        ({}, CredentialsRefused, "no credentials"),
        ({ID: "", TOKEN: "  "}, CredentialsRefused, "no credentials"),
        ({ID: "i"}, CredentialsRefused, f"{ID} is set, {SECRET} is not"),
        ({SECRET: "hidden"}, CredentialsRefused, f"{SECRET} is set, {ID} is not"),
        ({ID: "i", SECRET: "\n"}, CredentialsRefused, f"{SECRET} is not"),
        ({PUBLIC: "p"}, CredentialsRefused, f"{PRIVATE} or {TF_PRIVATE} is not"),
        ({TF_PRIVATE: "hidden"}, CredentialsRefused, f"{PUBLIC} or {TF_PUBLIC} is not"),
        (
            {ID: "i", SECRET: "hidden", TOKEN: "hidden"},
            ConfigurationWrong,
            "service account and access token",
        ),
        (
            {ID: "i", SECRET: "hidden", PUBLIC: "p", PRIVATE: "hidden"},
            ConfigurationWrong,
            "service account and API key",
        ),
        ({PUBLIC: "p", TF_PUBLIC: "q", PRIVATE: "hidden"}, ConfigurationWrong, "both set and diff"),
        ({ID: "i", SECRET: "hid\nden"}, CredentialsRefused, "no credential has"),
        ({ID: "i", SECRET: "hid den"}, CredentialsRefused, "no credential has"),
        ({ID: "i", SECRET: '"hidden"'}, CredentialsRefused, "no credential has"),
        ({ID: "'i'", SECRET: "hidden"}, CredentialsRefused, "no credential has"),
        ({TOKEN: "hiddén"}, CredentialsRefused, "no credential has"),
        ({PUBLIC: "p:q", PRIVATE: "hidden"}, CredentialsRefused, "no id has"),
        ({ID: "i:j", SECRET: "hidden"}, CredentialsRefused, "no id has"),
        ({TOKEN: "hid\x00den"}, CredentialsRefused, "no credential has"),
    ],
)
def test_what_is_wrong_with_them_is_named_without_them(
    environ: dict[str, str], error: type[AuditError], words: str
) -> None:
    with pytest.raises(error, match=words) as raised:
        read_credentials(environ)

    assert "hidd" not in str(raised.value) + raised.value.hint


def kept(folder: Path, text: str | bytes, mode: int = 0o600) -> str:
    """Put a secret into a file."""
    path = folder / f"secret-{len(list(folder.iterdir()))}"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("text", ["s3cret", "s3cret\n", " s3cret \r\n"])
def test_a_file_may_hold_the_secret(tmp_path: Path, text: str) -> None:
    """As an editor or a secret store leaves it, with a line end or without."""
    environ = {ID: "i", f"{SECRET}_FILE": kept(tmp_path, text)}

    assert read_credentials(environ).secret == "s3cret"


def test_every_part_may_come_from_a_file(tmp_path: Path) -> None:
    environ = {f"{name}_FILE": kept(tmp_path, name) for name in (TF_PUBLIC, TF_PRIVATE)}

    assert read_credentials(environ) == Credentials(Kind.API_KEY, TF_PUBLIC, TF_PRIVATE)


def test_a_variable_and_its_file_must_agree(tmp_path: Path) -> None:
    """Line ends apart; the names of those that differ are told."""
    environ = {TOKEN: "one\n", f"{TOKEN}_FILE": kept(tmp_path, "one")}
    assert read_credentials(environ).secret == "one"

    with pytest.raises(ConfigurationWrong, match=f"{TOKEN} and {TOKEN}_FILE"):
        read_credentials({**environ, TOKEN: "two"})


def test_of_three_that_are_given_the_differing_ones_are_named(tmp_path: Path) -> None:
    environ = {PUBLIC: "p", f"{PUBLIC}_FILE": kept(tmp_path, "p"), TF_PUBLIC: "q", PRIVATE: "s"}

    with pytest.raises(ConfigurationWrong, match=f"^{PUBLIC} and {TF_PUBLIC} "):
        read_credentials(environ)


@pytest.mark.parametrize(
    ("mode", "accepted", "warned"),
    [
        (0o600, True, False),
        (0o400, True, False),
        (0o640, True, True),
        (0o440, True, True),
        (0o604, False, False),
        (0o644, False, False),
        (0o444, False, False),
    ],
)
def test_who_else_may_read_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, accepted: bool, warned: bool
) -> None:
    """Everybody: refused. The group: warned of, since Kubernetes mounts secrets like that."""
    environ = {TOKEN + "_FILE": kept(tmp_path, "t", mode)}
    if accepted:
        read_credentials(environ)
    else:
        with pytest.raises(CredentialsRefused, match="every user"):
            read_credentials(environ)

    assert ("its group can read" in caplog.text) is warned


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b" \n", "empty"), (b"\xff\xfe", "not text"), (b"a\nb", "no credential has")],
)
def test_files_that_hold_no_secret(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(CredentialsRefused, match=words):
        read_credentials({f"{TOKEN}_FILE": kept(tmp_path, content)})


@pytest.mark.parametrize("name", ["nowhere", ".", "file/below"])
def test_files_that_are_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(CredentialsRefused, match=r"cannot be read: \w"):
        read_credentials({f"{TOKEN}_FILE": str(tmp_path / name)})


@pytest.mark.parametrize("text", ["hidden", "hidden/with/slashes", "hidden" * 1000])
def test_a_secret_in_place_of_its_file_is_not_shown(text: str) -> None:
    with pytest.raises(CredentialsRefused, match=f"{SECRET}_FILE names a file") as raised:
        read_credentials({ID: "i", f"{SECRET}_FILE": text})

    assert "hidden" not in str(raised.value) + raised.value.hint


# ── a simulator, or a token endpoint made by hand ────────────────────────────────────────────────

FLEET = Fleet.seeded()
FOREIGN = FLEET.projects[0].group_id
SERVICE_ACCOUNT = Credentials(Kind.SERVICE_ACCOUNT, KNOWN.client_id, KNOWN.client_secret)
API_KEY = Credentials(Kind.API_KEY, KNOWN.public_key, KNOWN.private_key)
ACCESS_TOKEN = Credentials(Kind.ACCESS_TOKEN, "access-token", KNOWN.access_token)
ALL = [SERVICE_ACCOUNT, API_KEY, ACCESS_TOKEN]
BY_KIND = [each.kind for each in ALL]


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


class Night:
    """A simulator and a session to it, on one clock."""

    def __init__(
        self, simulator: Simulator, sender: HttpTransport, clock: Clock, who: Authentication
    ) -> None:
        self.simulator = simulator
        self.sender = sender
        self.clock = clock
        self.who = who

    async def statuses(self, count: int = 1, request: Request | None = None) -> list[int]:
        """Send so many requests one after the other."""
        asked = request or preliminary_request()
        return [(await self.sender.send(asked)).status for _ in range(count)]

    async def at_once(self, count: int, request: Request | None = None) -> Counter[int]:
        """Send so many requests at the same time."""
        asked = request or preliminary_request()
        replies = await asyncio.gather(*(self.sender.send(asked) for _ in range(count)))
        return Counter(reply.status for reply in replies)


@asynccontextmanager
async def night(
    credentials: Credentials,
    known: Known = KNOWN,
    plan: FaultPlan | None = None,
    reread: Callable[[], Credentials] | None = None,
) -> AsyncIterator[Night]:
    clock = Clock()
    async with serve(FLEET, credentials=known, faults=plan, clock=clock) as simulator:
        who = authentication(credentials, simulator.base_url, reread=reread, clock=clock)
        async with connect(Connection(simulator.base_url, "test"), who) as sender:
            yield Night(simulator, sender, clock, who)


def foreign() -> tuple[FaultPlan, Request]:
    """A project that answers 401 to good credentials too, and a request to it."""
    plan = FaultPlan(projects={FOREIGN: ProjectFault("unauthorized")})
    return plan, request_for(CheckpointRef(FOREIGN, "orders", "5e" * 12))


TokenAnswer = Callable[[web.Request], Any]


class Desk:
    """A token endpoint that answers as it is told; everything else is let in."""

    def __init__(self, answer: TokenAnswer) -> None:
        self.answer = answer
        self.asked: list[Mapping[str, Any]] = []
        self.authorizations: list[str] = []
        self.bearers: list[str] = []
        self.revoked: list[str] = []

    async def token(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.post())
        self.authorizations.append(request.headers["Authorization"])
        answered: web.StreamResponse = await self.answer(request)
        return answered

    async def revoke(self, request: web.Request) -> web.Response:
        self.revoked.append(str((await request.post())["token"]))
        return web.Response()

    async def api(self, request: web.Request) -> web.Response:
        self.bearers.append(request.headers["Authorization"])
        return web.json_response({})

    @asynccontextmanager
    async def open(self, clock: Clock | None = None) -> AsyncIterator[HttpTransport]:
        app = web.Application()
        app.router.add_post("/api/oauth/token", self.token)
        app.router.add_post("/api/oauth/revoke", self.revoke)
        app.router.add_get("/{tail:.*}", self.api)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            who = authentication(SERVICE_ACCOUNT, base_url, clock=clock or Clock())
            async with connect(Connection(base_url, "test", timeout=5.0), who) as sender:
                yield sender
        finally:
            await runner.cleanup()


def telling(status: int = 200, **document: Any) -> TokenAnswer:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(document, status=status)

    return answer


# ── all kinds ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("credentials", ALL, ids=BY_KIND)
async def test_each_kind_is_let_in(credentials: Credentials) -> None:
    async with night(credentials) as here:
        assert await here.statuses(3) == [200, 200, 200]


@pytest.mark.parametrize("credentials", ALL, ids=BY_KIND)
async def test_many_at_once_are_let_in(credentials: Credentials) -> None:
    async with night(credentials) as here:
        assert await here.at_once(64) == {200: 64}


def rotated(credentials: Credentials) -> Credentials:
    return Credentials(credentials.kind, credentials.id, "old-and-over")


@pytest.mark.parametrize("credentials", ALL, ids=BY_KIND)
async def test_a_rotated_secret_is_read_again(credentials: Credentials) -> None:
    """The secret at hand is refused; by now the file holds another, and it is let in."""
    async with night(rotated(credentials), reread=lambda: credentials) as here:
        assert await here.at_once(16) == {200: 16}


@pytest.mark.parametrize("credentials", [API_KEY, ACCESS_TOKEN], ids=BY_KIND[1:])
@pytest.mark.parametrize("reread", ["same", "another kind", "unreadable"])
async def test_when_nothing_better_can_be_read_the_401_stands(
    credentials: Credentials, reread: str
) -> None:
    """What a 401 means is for others to judge; another kind's secret is not sent instead."""

    def read() -> Credentials:
        if reread == "unreadable":
            raise CredentialsRefused("gone")
        other = API_KEY if credentials is ACCESS_TOKEN else SERVICE_ACCOUNT
        valid = Credentials(other.kind, credentials.id, credentials.secret)
        return valid if reread == "another kind" else rotated(credentials)

    async with night(rotated(credentials), reread=read) as here:
        assert await here.statuses(2) == [401, 401]
        # A challenge costs one more; the same secret is not tried a second time.
        assert here.simulator.requests["-", 401] <= 2 + 2 * (credentials is API_KEY)


@pytest.mark.parametrize("credentials", ALL, ids=BY_KIND)
async def test_no_secret_is_shown_anywhere(
    credentials: Credentials, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in what can be printed, nor in what is logged, nor in what is raised."""
    caplog.set_level(logging.DEBUG)
    plan, request = foreign()
    async with night(credentials, plan=plan) as here:
        replies = [await here.sender.send(request), await here.sender.send(preliminary_request())]
        made = getattr(here.who, "_token", None)
        shown = f"{credentials} {credentials!r} {here.who!r} {replies!r} {made!r}"
        token = getattr(made, "value", credentials.secret)
    wrong = rotated(credentials)
    async with night(wrong) as here:
        try:
            shown += repr(await here.sender.send(preliminary_request()))
        except CredentialsRefused as refused:
            shown += f"{refused} {refused.hint} {refused!r}"

    for secret in (credentials.secret, wrong.secret, token, "Bearer ", "Basic "):
        assert secret not in shown
        assert secret not in caplog.text


# ── service account ──────────────────────────────────────────────────────────────────────────────


async def test_one_token_for_everybody() -> None:
    """64 callers at the same moment, then more: one token is made."""
    async with night(SERVICE_ACCOUNT) as here:
        await here.at_once(64)
        await here.at_once(64)

        assert here.simulator.tokens_created == 1


async def test_a_token_is_renewed_before_it_ends() -> None:
    """In the last tenth of its hour; nobody sees a 401, and again only one is made."""
    async with night(SERVICE_ACCOUNT) as here:
        await here.statuses()
        here.clock.now += 3600 * 0.9 - 1
        await here.statuses()
        assert here.simulator.tokens_created == 1

        here.clock.now += 2
        assert await here.at_once(64) == {200: 64}
        assert here.simulator.tokens_created == 2
        assert here.simulator.requests["-", 401] == 0


@pytest.mark.parametrize("life", [1, 10, 45])
async def test_a_short_lived_token_is_not_made_for_every_request(life: int) -> None:
    async with night(SERVICE_ACCOUNT, Known(expires_in=life)) as here:
        assert set(await here.statuses(30)) == {200}
        assert here.simulator.tokens_created == 1

        here.clock.now += life
        assert await here.statuses() == [200]
        assert here.simulator.tokens_created == 2


@pytest.mark.parametrize("life", [None, 0, -5, "soon", True, [], 10**12, 10**300, 1e300])
async def test_a_life_that_makes_no_sense_is_an_hour(life: object) -> None:
    desk, clock = Desk(telling(access_token="t", expires_in=life)), Clock()
    async with desk.open(clock) as sender:
        for _ in range(3):
            await sender.send(preliminary_request())
            clock.now += 1000

    assert len(desk.asked) == 1


async def test_an_unexpected_401_renews_the_token_once() -> None:
    """The caller gets the answer to the second request; nobody else notices."""
    async with night(SERVICE_ACCOUNT, plan=FaultPlan(stray_401_at=2)) as here:
        assert await here.statuses(3) == [200, 200, 200]
        assert here.simulator.tokens_created == 2
        assert here.simulator.requests["-", 401] == 1


async def test_a_token_revoked_behind_our_back_fails_nobody() -> None:
    """Everybody in flight is answered 401; the first renews, the others use what is new."""

    class Forgetful(Desk):
        async def api(self, request: web.Request) -> web.Response:
            await super().api(request)
            await asyncio.sleep(0.02)
            is_old = request.headers["Authorization"] == "Bearer old"
            return web.Response(status=401 if is_old and len(self.bearers) > 1 else 200)

    desk = Forgetful(telling(access_token="old"))
    async with desk.open() as sender:
        await sender.send(preliminary_request())
        desk.answer = telling(access_token="new")
        replies = await asyncio.gather(*(sender.send(preliminary_request()) for _ in range(16)))

    assert {reply.status for reply in replies} == {200}
    assert len(desk.asked) == 2


async def test_a_token_that_has_ended_is_not_sent() -> None:
    desk, clock = Desk(telling(access_token="t", expires_in=100)), Clock()
    async with desk.open(clock) as sender:
        await sender.send(preliminary_request())
        desk.answer = telling(503)
        clock.now += 101
        reply = await sender.send(preliminary_request())

    assert reply.trouble is FailureKind.UNREACHABLE
    assert len(desk.bearers) == 1


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_foreign_project_does_not_use_up_the_tokens(at_once: bool) -> None:
    """It answers 401 whatever the token: one renewal, then the 401 stands for a minute."""
    plan, request = foreign()
    async with night(SERVICE_ACCOUNT, plan=plan) as here:
        for made in (2, 2, 3):
            if at_once:
                assert await here.at_once(40, request) == {401: 40}
            else:
                assert await here.statuses(5, request) == [401] * 5
            assert here.simulator.tokens_created == made
            here.clock.now += 31

        assert await here.statuses() == [200]


async def test_every_token_is_given_back() -> None:
    plan, request = foreign()
    async with night(SERVICE_ACCOUNT, plan=plan) as here:
        await here.statuses(1, request)
        assert here.simulator.live_tokens == 2
        simulator = here.simulator
        assert isinstance(here.who, ServiceAccount)
        await here.who.close(here.sender._session)

        assert simulator.live_tokens == 0
        assert simulator.tokens_revoked == simulator.tokens_created == 2


async def test_a_session_gives_its_token_back_at_its_end() -> None:
    desk = Desk(telling(access_token="t1", expires_in=3600))
    async with desk.open() as sender:
        await sender.send(preliminary_request())
        assert desk.revoked == []

    assert desk.revoked == ["t1"]


async def test_a_token_that_is_just_being_made_is_given_back_too() -> None:
    """Its caller was cancelled, by a signal perhaps; Atlas has made it nevertheless."""

    async def slowly(_: web.Request) -> web.Response:
        await asyncio.sleep(0.2)
        return web.json_response({"access_token": "late"})

    desk = Desk(slowly)
    async with desk.open() as sender:
        sending = asyncio.create_task(sender.send(preliminary_request()))
        await asyncio.sleep(0.1)
        sending.cancel()
        await asyncio.wait({sending})

    assert desk.revoked == ["late"]


async def test_who_is_cancelled_while_waiting_takes_nobody_along() -> None:
    async def slowly(_: web.Request) -> web.Response:
        await asyncio.sleep(0.1)
        return web.json_response({"access_token": "t"})

    desk = Desk(slowly)
    async with desk.open() as sender:
        first, *others = [asyncio.create_task(sender.send(preliminary_request())) for _ in range(4)]
        await asyncio.sleep(0.05)
        first.cancel()
        replies = await asyncio.gather(*others)

    assert {reply.status for reply in replies} == {200}
    assert len(desk.asked) == 1


@pytest.mark.parametrize("resets", [True, False])
async def test_a_token_that_cannot_be_given_back_is_said(
    caplog: pytest.LogCaptureFixture, resets: bool
) -> None:
    """And does no other harm: the run has all its answers."""

    class Stubborn(Desk):
        async def revoke(self, request: web.Request) -> web.Response:
            if resets and request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)

    async with Stubborn(telling(access_token="t0ken")).open() as sender:
        await sender.send(preliminary_request())

    assert "could not be revoked" in caplog.text
    assert "t0ken" not in caplog.text


async def test_what_the_token_endpoint_is_asked() -> None:
    """Id and secret raw in a Basic header, and the grant in a form."""
    desk = Desk(telling(access_token="t"))
    async with desk.open() as sender:
        await sender.send(preliminary_request())

    scheme, _, pair = desk.authorizations[0].partition(" ")
    assert scheme == "Basic"
    assert b64decode(pair).decode() == f"{KNOWN.client_id}:{KNOWN.client_secret}"
    assert dict(desk.asked[0]) == {"grant_type": "client_credentials"}
    assert desk.bearers == ["Bearer t"]


@pytest.mark.parametrize(
    ("status", "error"), [(400, "invalid_request"), (401, "invalid_client"), (403, "access_denied")]
)
async def test_a_refused_service_account_ends_the_run(status: int, error: str) -> None:
    """In Atlas's words, with the id, without the secret."""
    desk = Desk(telling(status, error=error, error_description="No, you may not."))
    async with desk.open() as sender:
        with pytest.raises(CredentialsRefused, match=f"{status} No, you may not") as raised:
            await sender.send(preliminary_request())

    assert KNOWN.client_id in str(raised.value)
    assert KNOWN.client_secret not in str(raised.value) + raised.value.hint
    assert len(desk.asked) == 1


@pytest.mark.parametrize("name", ["error_description", "detail", "error"])
async def test_a_token_endpoint_may_say_anything(name: str) -> None:
    """It repeats what it was told, or does not end, or says no words: the end is readable."""
    pair = b64encode(f"{KNOWN.client_id}:{KNOWN.client_secret}".encode()).decode()
    for said in (f"no {KNOWN.client_secret}", f"no {pair}", "no" * 9999, 7, ["no"], {"no": 1}):
        desk = Desk(telling(401, **{name: said}))
        async with desk.open() as sender:
            with pytest.raises(CredentialsRefused) as raised:
                await sender.send(preliminary_request())

        assert KNOWN.client_secret not in str(raised.value)
        assert pair not in str(raised.value)
        assert len(str(raised.value)) < 1000


async def raw(_: web.Request) -> web.Response:
    return web.Response(text="<html>sign in</html>")


async def long(_: web.Request) -> web.Response:
    return web.json_response({"access_token": "t", "padding": "x" * 100_000})


async def moved(_: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "/api/oauth/elsewhere"})


@pytest.mark.parametrize(
    "answer",
    [
        telling(429, error=429, errorCode="RATE_LIMITED"),
        telling(500, access_token="t"),
        telling(503),
        telling(200),
        telling(200, access_token=""),
        telling(200, access_token=7),
        telling(200, access_token="two\nlines"),
        raw,
        long,
        moved,
    ],
)
async def test_a_token_endpoint_in_trouble_is_asked_again_later(answer: TokenAnswer) -> None:
    """No token is no answer to the request, which is tried again; nothing is sent without one."""
    desk = Desk(answer)
    async with desk.open() as sender:
        reply = await sender.send(preliminary_request())
        assert reply.trouble is FailureKind.UNREACHABLE
        assert "token endpoint" in reply.trouble_detail
        assert desk.bearers == []

        desk.answer = telling(access_token="t")
        assert (await sender.send(preliminary_request())).status == 200


async def test_a_token_endpoint_that_resets_is_unreachable() -> None:
    async def reset(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with Desk(reset).open() as sender:
        reply: Reply = await sender.send(preliminary_request())

    assert reply.trouble is FailureKind.UNREACHABLE


@pytest.mark.parametrize(
    "answer",
    [b"220 smtp ready\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"],
    ids=["not HTTP", "cut"],
)
async def test_a_token_endpoint_that_cannot_be_read_is_unreachable(answer: bytes) -> None:
    """Not a trouble of one triple: without a token nothing is asked."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        who = authentication(Credentials(Kind.SERVICE_ACCOUNT, "i", "secret"), base_url)
        async with connect(Connection(base_url, "agent"), who) as sender:
            reply = await sender.send(preliminary_request())

    assert reply.trouble is FailureKind.UNREACHABLE
    assert "token endpoint" in reply.trouble_detail


async def test_an_answer_in_two_packets_is_one_answer() -> None:
    async def halves(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for half in (b'{"access_', b'token": "whole"}'):
            await response.write(half)
            await asyncio.sleep(0.05)
        return response

    desk = Desk(halves)
    async with desk.open() as sender:
        await sender.send(preliminary_request())

    assert desk.bearers == ["Bearer whole"]


async def test_a_token_stays_in_use_while_no_other_is_to_be_had() -> None:
    """Due for renewal it is still good; the endpoint is not pestered, and asked again later."""
    async with night(SERVICE_ACCOUNT, Known(max_live_tokens=1)) as here:
        await here.statuses()
        here.clock.now += 3300
        assert set(await here.statuses(10)) == {200}
        assert await here.at_once(10) == {200: 10}
        assert here.simulator.requests["-", 403] == 1

        here.clock.now += 11
        assert set(await here.statuses(10)) == {200}
        assert here.simulator.requests["-", 403] == 2

        here.clock.now += 300
        assert set(await here.statuses(10)) == {200}
        assert here.simulator.tokens_created == 2


async def test_a_service_account_that_was_deleted_ends_the_run() -> None:
    """401 to the token, then 401 to the id and secret: that is about us, not about a project."""
    async with night(SERVICE_ACCOUNT, plan=FaultPlan(revoke_after=2)) as here:
        assert await here.statuses(2) == [200, 200]
        with pytest.raises(CredentialsRefused):
            await here.statuses()


async def test_credentials_that_cannot_be_read_again_are_the_old_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def gone() -> Credentials:
        raise CredentialsRefused("the file is gone")

    async with night(rotated(SERVICE_ACCOUNT), reread=gone) as here:
        with pytest.raises(CredentialsRefused, match="401"):
            await here.statuses()

    assert "the file is gone" in caplog.text


# ── API key ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_challenge_is_answered_once_and_then_ahead() -> None:
    async with night(API_KEY) as here:
        assert set(await here.statuses(25)) == {200}
        assert here.simulator.requests["-", 401] == 1


@pytest.mark.parametrize("at_once", [1, 32])
async def test_a_stale_nonce_is_no_refusal(at_once: int) -> None:
    """Atlas's nonces live shortly: every so often all that is in flight is challenged anew."""
    async with night(API_KEY) as here:
        for _ in range(4):
            assert await here.at_once(at_once) == {200: at_once}
            here.clock.now += 31


async def test_nonces_that_serve_a_few_times_are_no_refusal_either() -> None:
    """Requests overtake each other, and use up a nonce that another was given."""
    async with night(API_KEY, Known(nonce_uses=3)) as here:
        assert await here.at_once(32) == {200: 32}
        assert await here.at_once(32) == {200: 32}


async def test_a_stray_401_to_an_api_key_is_answered_like_a_challenge() -> None:
    async with night(API_KEY, plan=FaultPlan(stray_401_at=3)) as here:
        assert await here.statuses(5) == [200] * 5


def test_secrets_are_known_whether_or_not_they_can_be_used() -> None:
    environ = {
        "MONGODB_ATLAS_CLIENT_ID": "id",
        "MONGODB_ATLAS_CLIENT_SECRET": "one",
        "MONGODB_ATLAS_PRIVATE_KEY": "two",
        "MONGODB_ATLAS_ACCESS_TOKEN": "",
    }
    assert sorted(secrets_in(environ)) == ["one", "two"]
