"""Three ways in, their limits, and everybody else kept out."""

from __future__ import annotations

import base64
import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from pipeline.simulator import Credentials, FaultPlan, Fleet, serve
from pipeline.simulator.credentials import REALM, Digest, Tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pipeline.simulator.server import Simulator

ACCEPT = {"Accept": "application/vnd.atlas.2023-01-01+json"}
KNOWN = Credentials()
ROOT = "/api/atlas/v2"


class Clock:
    """A clock that stands until it is moved; seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def running(
    credentials: Credentials = KNOWN,
    plan: FaultPlan | None = None,
    clock: Clock | None = None,
    **session: Any,
) -> AsyncIterator[tuple[Simulator, aiohttp.ClientSession]]:
    """Serve a small fleet, with a client that talks to it."""
    served = serve(Fleet.seeded(), credentials=credentials, faults=plan, clock=clock or Clock())
    async with (
        served as simulator,
        aiohttp.ClientSession(simulator.base_url, headers=ACCEPT, **session) as client,
    ):
        yield simulator, client


def basic(secret: str = KNOWN.client_secret) -> dict[str, str]:
    text = base64.b64encode(f"{KNOWN.client_id}:{secret}".encode()).decode()
    return {"Authorization": f"Basic {text}"}


async def token(client: aiohttp.ClientSession, secret: str = KNOWN.client_secret) -> Any:
    """Ask for a token; return the status and the reply."""
    form = {"grant_type": "client_credentials"}
    async with client.post("/api/oauth/token", data=form, headers=basic(secret)) as reply:
        return reply.status, await reply.json()


async def status(client: aiohttp.ClientSession, authorization: str) -> int:
    async with client.get(ROOT, headers={"Authorization": authorization}) as reply:
        return reply.status


# ── nobody, and the fixed token ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer ",
        "Bearer wrong",
        "Bearer é",
        "Basic eDp5",
        "Digest",
        "Digest nonce",
        "Negotiate x",
    ],
)
async def test_strangers_are_challenged(authorization: str) -> None:
    """Without a credential that is known: 401 in Atlas's form, a challenge, no rate limits."""
    given = {"Authorization": authorization}
    async with running() as (_, client), client.get(ROOT, headers=given) as reply:
        body = await reply.json()

        assert reply.status == 401
        assert (body["error"], body["errorCode"]) == (401, "UNEXPECTED_ERROR")
        assert f'Digest realm="{REALM}"' in reply.headers["WWW-Authenticate"]
        assert "RateLimit-Limit" not in reply.headers


async def test_the_fixed_token_is_let_in() -> None:
    """A bearer token given as it is opens the API."""
    async with running() as (_, client):
        assert await status(client, f"Bearer {KNOWN.access_token}") == 200


# ── service account ──────────────────────────────────────────────────────────────────────────────


async def test_a_service_account_gets_a_token_that_works() -> None:
    """The token opens the API, and says for how many seconds."""
    async with running(Credentials(expires_in=120)) as (simulator, client):
        code, reply = await token(client)

        assert code == 200
        assert (reply["token_type"], reply["expires_in"]) == ("Bearer", 120)
        assert await status(client, f"Bearer {reply['access_token']}") == 200
        assert (simulator.tokens_created, simulator.live_tokens) == (1, 1)


async def test_a_token_expires() -> None:
    """At the end of its time a token is like any other wrong one."""
    clock = Clock()
    async with running(Credentials(expires_in=120), clock=clock) as (simulator, client):
        _, reply = await token(client)
        clock.now += 120

        assert await status(client, f"Bearer {reply['access_token']}") == 401
        assert simulator.live_tokens == 0


async def test_a_revoked_token_is_dead() -> None:
    """Revoking answers 200 without a body, also for a token that was never there (RFC 7009)."""
    async with running() as (simulator, client):
        _, reply = await token(client)
        for given in (reply["access_token"], "never there"):
            form = {"token": given, "token_type_hint": "access_token"}
            async with client.post("/api/oauth/revoke", data=form, headers=basic()) as answer:
                assert (answer.status, await answer.read()) == (200, b"")

        assert await status(client, f"Bearer {reply['access_token']}") == 401
        assert (simulator.tokens_revoked, simulator.live_tokens) == (1, 0)


async def test_a_wrong_secret_gets_no_token() -> None:
    """invalid_client, in the OAuth form."""
    async with running() as (simulator, client):
        code, reply = await token(client, "wrong")

        assert (code, reply["error"]) == (401, "invalid_client")
        assert simulator.tokens_created == 0


@pytest.mark.parametrize(
    ("path", "form", "error"),
    [
        ("/api/oauth/token", {"grant_type": "password"}, "unsupported_grant_type"),
        ("/api/oauth/token", {}, "unsupported_grant_type"),
        ("/api/oauth/revoke", {}, "invalid_request"),
    ],
)
async def test_a_wrong_form_is_refused(path: str, form: dict[str, str], error: str) -> None:
    """400 in the OAuth form."""
    async with running() as (_, client):
        async with client.post(path, data=form, headers=basic()) as reply:
            assert reply.status == 400
            assert (await reply.json())["error"] == error


async def test_strangers_cannot_revoke() -> None:
    """Revoking asks for the client's id and secret too."""
    form = {"token": "x"}
    async with running() as (_, client), client.post("/api/oauth/revoke", data=form) as reply:
        assert reply.status == 401


async def test_live_tokens_are_limited() -> None:
    """One more than the limit is access_denied; a token given back makes room."""
    async with running(Credentials(max_live_tokens=2)) as (_, client):
        assert [(await token(client))[0] for _ in range(2)] == [200, 200]

        code, reply = await token(client)
        assert (code, reply["error"]) == (403, "access_denied")


async def test_creations_are_limited_by_the_minute() -> None:
    """The 51st in a minute is 429 in Atlas's form, also for a wrong secret; a minute heals it."""
    clock = Clock()
    async with running(clock=clock) as (_, client):
        for _ in range(50):
            assert (await token(client, "wrong"))[0] == 401
        code, reply = await token(client)
        assert (code, reply["errorCode"]) == (429, "RATE_LIMITED")
        assert reply["parameters"] == ["/api/oauth/token", 50, 1]

        clock.now += 60
        assert (await token(client))[0] == 200


def test_the_built_in_limit_is_a_hundred_tokens() -> None:
    """As Atlas documents for a service account."""
    tokens = Tokens(KNOWN, Clock())
    made = [tokens.create() for _ in range(101)]

    assert all(made[:100])
    assert made[100] is None


async def test_everything_is_revoked_in_mid_run() -> None:
    """After so many requests no credential is good any more, and no new token is to be had."""
    async with running(plan=FaultPlan(revoke_after=3)) as (_, client):
        bearer = f"Bearer {KNOWN.access_token}"

        assert [await status(client, bearer) for _ in range(5)] == [200, 200, 200, 401, 401]
        assert (await token(client))[0] == 401


# ── API key ──────────────────────────────────────────────────────────────────────────────────────


async def test_aiohttps_digest_works_and_answers_ahead() -> None:
    """25 requests with aiohttp's middleware cost one 401: later ones need no challenge."""
    digest = aiohttp.DigestAuthMiddleware(KNOWN.public_key, KNOWN.private_key)
    async with running(middlewares=(digest,)) as (simulator, client):
        for _ in range(25):
            async with client.get(f"{ROOT}/groups?pageNum=1&itemsPerPage=2") as reply:
                assert reply.status == 200

        assert simulator.requests["-", 401] == 1
        assert simulator.requests["-", 200] == 25


async def test_digest_survives_an_old_nonce() -> None:
    """A stale nonce costs one more 401 and no failure."""
    digest = aiohttp.DigestAuthMiddleware(KNOWN.public_key, KNOWN.private_key)
    known = Credentials(nonce_uses=5)
    async with running(known, middlewares=(digest,)) as (simulator, client):
        for _ in range(12):
            async with client.get(ROOT) as reply:
                assert reply.status == 200

        assert simulator.requests["-", 401] == 3


async def test_a_wrong_key_is_refused() -> None:
    """The middleware tries once more with the challenge, and fails."""
    digest = aiohttp.DigestAuthMiddleware(KNOWN.public_key, "wrong")
    async with running(middlewares=(digest,)) as (_, client):
        async with client.get(ROOT) as reply:
            assert reply.status == 401


class Answerer:
    """Answers a challenge by hand, so that each field can be got wrong."""

    def __init__(self, digest: Digest) -> None:
        challenge = digest.challenge()
        self.fields = {
            "username": KNOWN.public_key,
            "realm": REALM,
            "nonce": challenge.partition('nonce="')[2].partition('"')[0],
            "uri": "/x?y=1",
            "cnonce": "c",
            "nc": "00000001",
            "qop": "auth",
        }

    def header(self, method: str = "GET", **changed: str) -> str:
        fields = {**self.fields, **changed}
        ha1 = _md5(f"{fields['username']}:{fields['realm']}:{KNOWN.private_key}")
        ha2 = _md5(f"{method}:{fields['uri']}")
        middle = ":".join(fields[name] for name in ("nonce", "nc", "cnonce", "qop"))
        fields["response"] = changed.get("response", _md5(f"{ha1}:{middle}:{ha2}"))
        return "Digest " + ", ".join(f'{name}="{value}"' for name, value in fields.items())


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def test_a_response_computed_by_hand_is_accepted_once() -> None:
    """The same count a second time is a replay, another count is not."""
    digest = Digest(KNOWN, Clock())
    answer = Answerer(digest)

    assert digest.check("GET", "/x?y=1", answer.header()) == (True, False)
    assert digest.check("GET", "/x?y=1", answer.header()) == (False, False)
    assert digest.check("GET", "/x?y=1", answer.header(nc="00000003")) == (True, False)
    assert digest.check("GET", "/x?y=1", answer.header(nc="00000002")) == (True, False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"username": "other"},
        {"realm": "other"},
        {"uri": "/x"},
        {"qop": "auth-int"},
        {"nc": "1"},
        {"nc": "0000000g"},
        {"cnonce": ""},
        {"response": "0" * 32},
        {"method": "POST"},
        {"algorithm": "SHA-256"},
    ],
)
def test_every_field_counts(wrong: dict[str, str]) -> None:
    """A field that is wrong is refused, and is not called stale."""
    digest = Digest(KNOWN, Clock())

    assert digest.check("GET", "/x?y=1", Answerer(digest).header(**wrong)) == (False, False)


def test_a_nonce_grows_old() -> None:
    """Past its time, or never given out, a nonce is stale and nothing else is wrong."""
    clock = Clock()
    digest = Digest(KNOWN, clock)
    answer = Answerer(digest)
    clock.now += KNOWN.nonce_s

    assert digest.check("GET", "/x?y=1", answer.header()) == (False, True)
    assert digest.check("GET", "/x?y=1", answer.header(nonce="unknown")) == (False, True)


def test_secrets_are_not_shown() -> None:
    """What is printed of credentials holds none of the secrets, fake as they are."""
    shown = repr(KNOWN)

    for secret in (KNOWN.client_secret, KNOWN.private_key, KNOWN.access_token):
        assert secret not in shown
