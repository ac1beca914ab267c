"""Faults: each spoils what it says it spoils, and a plan knows what will come of it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from pipeline.simulator import Credentials, FaultPlan, Fleet, serve
from pipeline.simulator.faults import LASTING, RUN_WIDE, TRANSIENT, ProjectFault, Troubles
from pipeline.simulator.stories import STORIES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pipeline.simulator.faults import Lasting, Misery, RunWide, Transient
    from pipeline.simulator.fleet import Triple
    from pipeline.simulator.server import Simulator

KNOWN = Credentials()
HEADERS = {
    "Accept": "application/vnd.atlas.2023-01-01+json",
    "Authorization": f"Bearer {KNOWN.access_token}",
}
LIMIT_BYTES = 8 * 1024 * 1024
ABSENT_CODES = {story.error_code for story in STORIES.values() if story.verdict == "ABSENT"}


class Clock:
    """A clock that stands until it is moved; seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@cache
def fleet() -> Fleet:
    return Fleet.seeded(projects=4)


@cache
def healthy() -> Triple:
    """Return a triple whose body is long enough to be cut."""
    return next(one for one in fleet().triples() if one.story == "healthy-sharded")


def path(triple: Triple) -> str:
    cluster = f"/api/atlas/v2/groups/{triple.group_id}/clusters/{triple.cluster_name}"
    return f"{cluster}/backupCheckpoints/{triple.checkpoint_id}"


@asynccontextmanager
async def running(
    plan: FaultPlan, served: Fleet | None = None, **options: Any
) -> AsyncIterator[tuple[Simulator, aiohttp.ClientSession]]:
    """Serve the fleet under a plan, with a client that is let in."""
    async with (
        serve(served or fleet(), faults=plan, **options) as simulator,
        aiohttp.ClientSession(simulator.base_url, headers=HEADERS, auto_decompress=False) as client,
    ):
        yield simulator, client


async def ask(
    client: aiohttp.ClientSession, target: str, **options: Any
) -> tuple[aiohttp.ClientResponse, bytes]:
    async with client.get(target, allow_redirects=False, **options) as reply:
        return reply, await reply.read()


def first_ask(kind: Transient) -> FaultPlan:
    """Return a plan in which the first ask of every path meets that kind."""
    return FaultPlan(rate=1.0, kinds=(kind,), retry_after=2, slow_s=0.01)


# ── faults that pass ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", TRANSIENT)
async def test_a_passing_fault_passes(kind: Transient) -> None:
    """Whatever the first ask met, the second is answered in full, and one fault was counted."""
    async with running(first_ask(kind)) as (simulator, client):
        try:
            await ask(client, path(healthy()))
        except aiohttp.ClientError:
            assert kind in {"cut-body", "reset"}
        reply, body = await ask(client, path(healthy()), headers={"Accept-Encoding": "identity"})

        assert reply.status == 200
        assert json.loads(body)["id"] == healthy().checkpoint_id
        assert simulator.faults == {kind: 1}


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("500", 500, "UNEXPECTED_ERROR"),
        ("503", 503, "SERVICE_UNAVAILABLE"),
        ("503-retry-after", 503, "SERVICE_UNAVAILABLE"),
        ("429", 429, "RATE_LIMITED_TOKEN_BUCKET"),
        ("429-no-retry-after", 429, "RATE_LIMITED_TOKEN_BUCKET"),
        ("429-zero", 429, "RATE_LIMITED_TOKEN_BUCKET"),
        ("429-date", 429, "RATE_LIMITED_TOKEN_BUCKET"),
        ("429-no-headers", 429, "RATE_LIMITED_TOKEN_BUCKET"),
    ],
)
async def test_passing_faults_in_atlas_form(kind: Transient, status: int, code: str) -> None:
    """Those that Atlas itself would answer have its status and code."""
    async with running(first_ask(kind)) as (_, client):
        reply, body = await ask(client, path(healthy()))

        assert reply.status == json.loads(body)["error"] == status
        assert json.loads(body)["errorCode"] == code


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("503", None),
        ("503-retry-after", "2"),
        ("429", "2"),
        ("429-no-retry-after", None),
        ("429-zero", "0"),
        ("429-no-headers", None),
    ],
)
async def test_advice_when_to_come_back(kind: Transient, advice: str | None) -> None:
    """Retry-After is in seconds, zero, or not there at all."""
    async with running(first_ask(kind)) as (_, client):
        reply, _ = await ask(client, path(healthy()))

        assert reply.headers.get("Retry-After") == advice


async def test_advice_may_be_a_date() -> None:
    """HTTP allows a date too."""
    async with running(first_ask("429-date")) as (_, client):
        reply, _ = await ask(client, path(healthy()))
        until = parsedate_to_datetime(reply.headers["Retry-After"])

        assert until.utcoffset() is not None
        assert abs((until - datetime.now(UTC)).total_seconds()) < 60


async def test_a_refusal_without_any_headers() -> None:
    """Then only its parameters teach anything."""
    async with running(first_ask("429-no-headers")) as (_, client):
        reply, body = await ask(client, path(healthy()))

        assert not [name for name in reply.headers if name.lower().startswith("ratelimit")]
        assert json.loads(body)["parameters"] == [path(healthy()), 2, 1200, 500, 60]


async def test_a_proxy_answers_with_a_page() -> None:
    """502 comes as HTML."""
    async with running(first_ask("502-html")) as (_, client):
        reply, body = await ask(client, path(healthy()))

        assert (reply.status, reply.content_type) == (502, "text/html")
        assert body.startswith(b"<!DOCTYPE html>")


@pytest.mark.parametrize("kind", ["empty-200", "text-200", "cut-json"])
async def test_a_good_status_over_a_bad_body(kind: Transient) -> None:
    """The status and the length are right, and the body is no JSON."""
    async with running(first_ask(kind)) as (_, client):
        reply, body = await ask(client, path(healthy()))

        assert reply.status == 200
        assert reply.headers["Content-Length"] == str(len(body))
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)


async def test_a_body_that_ends_too_early() -> None:
    """More is announced than comes: the client sees a broken body."""
    async with running(first_ask("cut-body")) as (simulator, client):
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask(client, path(healthy()))

        assert simulator.requests[healthy().group_id, 200] == 1


async def test_a_connection_that_is_reset() -> None:
    """No answer at all, which is counted under status 0.

    Twice, for aiohttp's client asks once more by itself when the connection of a GET breaks.
    """
    plan = FaultPlan(rate=1.0, kinds=("reset",), repeats=2)
    async with running(plan) as (simulator, client):
        with pytest.raises(aiohttp.ClientConnectionError):
            await ask(client, path(healthy()))
        # The client may know before the server has counted.
        await asyncio.sleep(0.01)

        assert simulator.requests[healthy().group_id, 0] == 2


async def test_a_slow_answer_is_a_good_one() -> None:
    """It comes late and whole."""
    async with running(first_ask("slow")) as (simulator, client):
        reply, _ = await ask(client, path(healthy()))

        assert reply.status == 200
        assert simulator.faults["slow"] == 1


async def test_a_fault_can_repeat() -> None:
    """With `repeats` at 3 the fourth ask is the first to go well."""
    plan = FaultPlan(rate=1.0, kinds=("500",), repeats=3)
    async with running(plan) as (_, client):
        statuses = [(await ask(client, path(healthy())))[0].status for _ in range(4)]

        assert statuses == [500, 500, 500, 200]


async def test_one_credential_hiccup_a_run() -> None:
    """The n-th API request is answered 401 with a challenge, and no other."""
    async with running(FaultPlan(stray_401_at=2)) as (simulator, client):
        replies = [(await ask(client, path(healthy())))[0] for _ in range(4)]

        assert [reply.status for reply in replies] == [200, 401, 200, 200]
        assert replies[1].headers["WWW-Authenticate"].startswith("Digest ")
        assert simulator.faults["stray-401"] == 1


def test_the_same_seed_chooses_the_same_paths() -> None:
    """Which path meets which fault hangs on the seed and the path alone, not on the order."""
    paths = [path(triple) for triple in fleet().triples()]
    plan = FaultPlan(seed=3, rate=0.3)
    one, two = Troubles(plan, Clock()), Troubles(plan, Clock())
    met = {target: one.of_path(target) for target in paths}

    assert met == {target: two.of_path(target) for target in reversed(paths)}
    assert met != {
        target: Troubles(FaultPlan(seed=4, rate=0.3), Clock()).of_path(target) for target in paths
    }
    assert 0.15 < sum(kind is not None for kind in met.values()) / len(met) < 0.45


def test_every_passing_kind_is_met() -> None:
    """Over many paths every kind comes up."""
    troubles = Troubles(FaultPlan(rate=1.0), Clock())

    assert {troubles.of_path(f"/{n}") for n in range(500)} == set(TRANSIENT)


# ── faults of a project ──────────────────────────────────────────────────────────────────────────


def with_project(kind: Misery, **more: Any) -> FaultPlan:
    return FaultPlan(projects={healthy().group_id: ProjectFault(kind, **more)})


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("refuses", 403, "ACCESS_FORBIDDEN"),
        ("unauthorized", 401, "USER_UNAUTHORIZED"),
        ("throttled", 429, "RATE_LIMITED_TOKEN_BUCKET"),
        ("down", 503, "SERVICE_UNAVAILABLE"),
    ],
)
async def test_a_project_in_trouble(kind: Misery, status: int, code: str) -> None:
    """Everything asked of it is answered so, and other projects are as ever."""
    other = next(one for one in fleet().triples() if one.group_id != healthy().group_id)
    async with running(with_project(kind)) as (_, client):
        for target in (path(healthy()), path(healthy()).rpartition("/")[0]):
            reply, body = await ask(client, target)
            assert (reply.status, json.loads(body)["errorCode"]) == (status, code)

        reply, _ = await ask(client, path(other))
        assert reply.status == STORIES[other.story].status


async def test_a_missing_role_is_not_a_challenge() -> None:
    """USER_UNAUTHORIZED asks nobody to log in again, and has no RateLimit headers."""
    async with running(with_project("unauthorized")) as (_, client):
        reply, _ = await ask(client, path(healthy()))

        assert "WWW-Authenticate" not in reply.headers
        assert "RateLimit-Limit" not in reply.headers


@pytest.mark.parametrize("kind", ["throttled", "down"])
async def test_a_project_advises_when_to_come_back(kind: Misery) -> None:
    """Retry-After is what the plan says."""
    async with running(with_project(kind, retry_after=3600)) as (_, client):
        reply, _ = await ask(client, path(healthy()))

        assert reply.headers["Retry-After"] == "3600"


async def test_a_projects_trouble_may_pass() -> None:
    """Its time runs from the first ask; after it the project answers."""
    clock = Clock()
    plan = with_project("throttled", retry_after=5, seconds=30)
    async with running(plan, clock=clock) as (_, client):
        statuses = []
        for moment in (0, 29, 31):
            clock.now = 2000.0 + moment
            statuses.append((await ask(client, path(healthy())))[0].status)

        assert statuses == [429, 429, 200]


async def test_a_project_that_hangs_for_a_time() -> None:
    """It answers when its time is over."""
    async with running(with_project("hangs", seconds=0.05)) as (simulator, client):
        reply, _ = await ask(client, path(healthy()))

        assert reply.status == 200
        assert simulator.faults["hangs"] == 1


async def test_a_project_that_hangs_for_ever() -> None:
    """The client gives up, which is counted as no answer."""
    async with running(with_project("hangs")) as (simulator, client):
        with pytest.raises(TimeoutError):
            await ask(client, path(healthy()), timeout=aiohttp.ClientTimeout(total=0.05))
        await asyncio.sleep(0.01)

        assert simulator.requests == {(healthy().group_id, 0): 1}


async def test_stopping_does_not_wait_for_what_hangs() -> None:
    """The server ends the request instead, and its client learns that there is no answer."""
    async with aiohttp.ClientSession(headers=HEADERS) as client, asyncio.timeout(5):
        async with serve(fleet(), faults=with_project("hangs")) as simulator:
            hanging = asyncio.create_task(ask(client, simulator.base_url + path(healthy())))
            await asyncio.sleep(0.05)
            assert simulator.max_in_flight[healthy().group_id] == 1

        with pytest.raises(aiohttp.ClientError):
            await hanging


# ── faults of one checkpoint ─────────────────────────────────────────────────────────────────────


def with_checkpoint(kind: Lasting) -> FaultPlan:
    return FaultPlan(checkpoints={healthy().checkpoint_id: kind})


@pytest.mark.parametrize(
    ("kind", "status", "media"),
    [
        ("always-500", 500, "application/json"),
        ("gone", 410, "application/json"),
        ("html-200", 200, "text/html"),
        ("redirect", 302, "application/octet-stream"),
        ("teapot", 418, "text/plain"),
    ],
)
async def test_a_lasting_fault_lasts(kind: Lasting, status: int, media: str) -> None:
    """However often it is asked for, the answer is the same."""
    async with running(with_checkpoint(kind)) as (_, client):
        for _ in range(3):
            reply, _ = await ask(client, path(healthy()))
            assert (reply.status, reply.content_type) == (status, media)


async def test_a_redirect_leads_elsewhere() -> None:
    """To another host: whoever follows it carries credentials there."""
    async with running(with_checkpoint("redirect")) as (_, client):
        reply, _ = await ask(client, path(healthy()))

        assert reply.headers["Location"].startswith("https://login.elsewhere.invalid")


async def test_an_oversized_body_is_sound_json() -> None:
    """Nothing but its size is wrong with it."""
    async with running(with_checkpoint("oversized")) as (_, client):
        _, body = await ask(client, path(healthy()))

        assert len(body) > LIMIT_BYTES
        assert json.loads(body)["id"] == healthy().checkpoint_id


async def test_a_small_body_may_be_a_large_one() -> None:
    """Some kilobytes of gzip unpack to more than the limit."""
    async with running(with_checkpoint("gzip-bomb")) as (_, client):
        reply, body = await ask(client, path(healthy()))

        assert reply.headers["Content-Encoding"] == "gzip"
        assert len(body) < LIMIT_BYTES // 100
        assert len(gzip.decompress(body)) > LIMIT_BYTES


@pytest.mark.parametrize("kind", LASTING)
async def test_a_list_leaves_out_what_is_spoiled(kind: Lasting) -> None:
    """Otherwise the list would tell what the checkpoint's own address hides."""
    async with running(with_checkpoint(kind)) as (_, client):
        reply, body = await ask(client, path(healthy()).rpartition("/")[0])

        assert reply.status == 200
        assert healthy().checkpoint_id.encode() not in body


# ── faults of the run ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("account_suspended", 402, "ACCOUNT_SUSPENDED"),
        ("access_list", 403, "IP_ADDRESS_NOT_ON_ACCESS_LIST"),
        ("withdrawn", 410, "VERSION_GONE"),
        ("maintenance", 503, "SERVICE_UNAVAILABLE"),
    ],
)
async def test_a_run_in_trouble(kind: RunWide, status: int, code: str) -> None:
    """Every resource answers so, and no token is refused for it."""
    async with running(FaultPlan.parse(f"{kind} = true")) as (_, client):
        for target in ("/api/atlas/v2", "/api/atlas/v2/groups", path(healthy())):
            reply, body = await ask(client, target)
            assert (reply.status, json.loads(body)["errorCode"]) == (status, code)


async def test_the_access_list_names_the_caller() -> None:
    """The address that is not on the list is among the parameters."""
    async with running(FaultPlan(access_list=True)) as (_, client):
        _, body = await ask(client, path(healthy()))

        assert json.loads(body)["parameters"] == ["127.0.0.1"]


async def test_a_token_is_given_beyond_an_access_list() -> None:
    """The access list applies to using a token, not to making one."""
    pair = f"{KNOWN.client_id}:{KNOWN.client_secret}".encode()
    basic = f"Basic {base64.b64encode(pair).decode()}"
    async with running(FaultPlan(access_list=True)) as (_, client):
        form, headers = {"grant_type": "client_credentials"}, {"Authorization": basic}
        async with client.post("/api/oauth/token", data=form, headers=headers) as reply:
            assert reply.status == 200


# ── what is to be expected ───────────────────────────────────────────────────────────────────────


def test_without_faults_the_fleet_is_right() -> None:
    """An empty plan expects what the fleet does, and so does one whose faults pass."""
    passing = FaultPlan(
        rate=1.0,
        stray_401_at=3,
        projects={healthy().group_id: ProjectFault("hangs", seconds=1)},
    )
    for triple in fleet().triples():
        assert FaultPlan.none().expected(triple) == triple.expected_verdict
        assert passing.expected(triple) == triple.expected_verdict


@pytest.mark.parametrize(
    "plan",
    [
        *(FaultPlan.parse(f"{kind} = true") for kind in RUN_WIDE),
        *(
            FaultPlan(projects={healthy().group_id: ProjectFault(kind)})
            for kind in ("down", "hangs", "refuses", "throttled", "unauthorized")
        ),
        *(FaultPlan(checkpoints={healthy().checkpoint_id: kind}) for kind in LASTING),
    ],
)
def test_what_lasts_is_inconclusive(plan: FaultPlan) -> None:
    """A fault that lasts leaves nothing to conclude about what lies under it."""
    assert healthy().expected_verdict == "PASS"
    assert plan.expected(healthy()) == "INCONCLUSIVE"


def test_a_nightly_plan_has_something_of_everything() -> None:
    """Every passing kind, every lasting kind, two projects that refuse in different ways."""
    plan = FaultPlan.nightly(fleet(), seed=1)

    assert set(plan.kinds) == set(TRANSIENT)
    assert set(plan.checkpoints.values()) == set(LASTING)
    assert {fault.kind for fault in plan.projects.values()} == {"refuses", "unauthorized"}
    assert plan == FaultPlan.nightly(fleet(), seed=1)
    assert plan != FaultPlan.nightly(fleet(), seed=2)


def test_a_nightly_plan_spares_a_small_fleet() -> None:
    """With fewer than four projects none refuses, and a single checkpoint has a single fault."""
    plan = FaultPlan.nightly(Fleet.seeded(projects=1, clusters=1, checkpoints=1), seed=1)

    assert plan.projects == {}
    assert len(plan.checkpoints) == 1


def test_the_demo_plan_is_about_the_demo_fleet() -> None:
    """Its two projects are the demo's last, one refusing and one throttled for an hour."""
    last = [project.group_id for project in Fleet.demo().projects[-2:]]
    faults = FaultPlan.demo().projects

    assert list(faults) == last
    assert [faults[one].kind for one in last] == ["refuses", "throttled"]
    assert faults[last[1]].retry_after == 3600


async def concluded(client: aiohttp.ClientSession, triple: Triple) -> str:
    """Audit one triple the way that a patient, simple-minded client would."""
    for _ in range(4):
        try:
            reply, raw = await ask(client, path(triple), headers={"Accept-Encoding": "identity"})
            body = json.loads(raw)
        except (aiohttp.ClientError, ValueError):
            continue
        if reply.status == 200:
            return judged(body, triple, len(raw))
        if body["errorCode"] in ABSENT_CODES:
            return "ABSENT"
    return "INCONCLUSIVE"


def judged(body: dict[str, Any], triple: Triple, size: int) -> str:
    """Judge a body by the plain rules."""
    if body["id"] != triple.checkpoint_id or size > LIMIT_BYTES:
        return "INCONCLUSIVE"
    parts = body.get("parts") or []
    configs = [part for part in parts if part["typeName"].startswith("CONFIG_SERVER")]
    sound = (
        body.get("restorable") is True
        and all(part.get("tokenDiscovered") is True for part in parts)
        and (len(parts) == 1 or configs)
        and body["started"] <= (body.get("completed") or "")
    )
    return "PASS" if sound else "FAIL"


async def test_what_a_plan_expects_is_what_comes_out() -> None:
    """Under a whole night's faults, asking up to four times finds every expected verdict."""
    night = Fleet.seeded(projects=6, clusters=4, checkpoints=15)
    triples = tuple(night.triples())
    plan = FaultPlan.nightly(night, seed=5, rate=0.8)
    async with running(plan, night) as (simulator, client):
        found = {triple: await concluded(client, triple) for triple in triples}

    assert found == {triple: plan.expected(triple) for triple in triples}
    assert set(found.values()) == {"PASS", "FAIL", "ABSENT", "INCONCLUSIVE"}
    assert set(TRANSIENT) | set(LASTING) | {"stray-401"} <= set(simulator.faults)


# ── plans in files ───────────────────────────────────────────────────────────────────────────────


def test_a_plan_is_read_from_toml() -> None:
    """Every key is a field; an empty document is no faults."""
    text = """
        seed = 5
        rate = 0.25
        kinds = ["500", "reset"]
        stray_401_at = 9
        sunset_on = 2027-01-02T00:00:00Z

        [projects.5840e3b0e196714b215bb700]
        kind = "throttled"
        retry_after = 3600

        [checkpoints]
        6affb4e9fe8de31550a83c8d = "teapot"
    """

    assert FaultPlan.parse("") == FaultPlan.none()
    assert FaultPlan.parse(text) == FaultPlan(
        seed=5,
        rate=0.25,
        kinds=("500", "reset"),
        stray_401_at=9,
        sunset_on=datetime(2027, 1, 2, tzinfo=UTC),
        projects={"5840e3b0e196714b215bb700": ProjectFault("throttled", retry_after=3600)},
        checkpoints={"6affb4e9fe8de31550a83c8d": "teapot"},
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ratio = 0.5", "ratio"),
        ("rate = 'much'", "rate"),
        ("rate = 1.5", "share from 0 to 1"),
        ("rate = 0.5\nkinds = []", "kinds is empty"),
        ("kinds = ['boredom']", "boredom"),
        ("projects.x.kind = 'sulks'", "sulks"),
        ("projects.x = {kind = 'down', until = 3}", "until"),
        ("checkpoints.x = 'lost'", "lost"),
        ("sunset_on = 2027-01-02T00:00:00", "time zone"),
        ("rate = ", "not a plan of faults"),
    ],
)
def test_a_wrong_plan_is_named(text: str, named: str) -> None:
    """A ValueError says what is unknown or wrong."""
    with pytest.raises(ValueError, match=named):
        FaultPlan.parse(text)
