"""Who we are to Atlas: a service account, an API key, or a bearer token as given.

Credentials come from environment variables or from files named by them, never from the command
line. Each kind authenticates as a client middleware: it sees every request just before it is sent
and the answer just after, so that renewing a token or answering a digest challenge stays invisible
to who asked.

Facts of the service account (MongoDB's page on service accounts): a token lives `expires_in`
seconds, an hour as a rule; at most 100 are alive at a time and 50 are made a minute, which is why
one run shares one token and revokes it at its end.
"""

import asyncio
import hashlib
import logging
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from typing import Any, NoReturn, Protocol

import aiohttp
import msgspec

from pipeline.errors import ConfigurationWrong, CredentialsRefused
from pipeline.redaction import EVERY, Secrets
from pipeline.variables import SECRET, read_variable

log = logging.getLogger(__name__)

Handler = Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]

_HTTP_OK = 200
_UNAUTHORIZED = 401
_OAUTH_REFUSED = (400, 401, 403)

#: A token is renewed this share of its life before it ends, and at least so many seconds.
_RENEW_EARLY_SHARE, _RENEW_EARLY_S = 0.1, 30.0

#: A 401 renews the token at most this often: a project of another organization answers 401 to a
#: good token too, and renewing for each of its triples would use up the tokens. Seconds.
_RENEW_PAUSE_S = 60.0

#: How long a token that cannot be renewed just now is used before that is tried again. Seconds.
_RETRY_PAUSE_S = 10.0

_DEFAULT_LIFE_S = 3600.0

#: No token lives so long, which is a year. Seconds.
_LONGEST_LIFE_S = 365 * 86_400.0

#: Of what the token endpoint says of a refusal.
_SAID_CHARS = 500

_GRANT = {"grant_type": "client_credentials"}
_TOKEN_ANSWER_BYTES = 64 * 1024
_OAUTH_TIMEOUT = aiohttp.ClientTimeout(total=15)


class Kind(StrEnum):
    """The three ways in, in the order in which they are looked for."""

    SERVICE_ACCOUNT = "service account"
    API_KEY = "API key"
    ACCESS_TOKEN = "access token"  # noqa: S105 - a kind, not a token


@dataclass(frozen=True, slots=True)
class Credentials:
    """One complete set. `id` may be shown and stored; `secret` never is."""

    kind: Kind
    id: str
    secret: str = field(repr=False)


# --- reading credentials ------------------------------------------------------------------------

#: Kind → the names of its parts; each name may also end in _FILE and then names a file.
VARIABLES: dict[Kind, tuple[tuple[str, ...], ...]] = {
    Kind.SERVICE_ACCOUNT: (("MONGODB_ATLAS_CLIENT_ID",), ("MONGODB_ATLAS_CLIENT_SECRET",)),
    Kind.API_KEY: (
        ("MONGODB_ATLAS_PUBLIC_API_KEY", "MONGODB_ATLAS_PUBLIC_KEY"),
        ("MONGODB_ATLAS_PRIVATE_API_KEY", "MONGODB_ATLAS_PRIVATE_KEY"),
    ),
    Kind.ACCESS_TOKEN: (("MONGODB_ATLAS_ACCESS_TOKEN",),),
}


def secrets_in(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Give the secrets that stand in variables themselves, whether or not they can be used."""
    names = chain.from_iterable(parts[-1] for parts in VARIABLES.values())
    return tuple(filter(None, (environ.get(name) for name in names)))


def has_credentials(environ: Mapping[str, str]) -> bool:
    """Whether `environ` holds any part of a set, usable or not."""
    names = [name for parts in VARIABLES.values() for part in parts for name in part]
    return any(environ.get(name, "").strip() or environ.get(f"{name}_FILE") for name in names)


def read_credentials(environ: Mapping[str, str]) -> Credentials:
    """Find the one complete set of credentials in `environ`.

    Raises `CredentialsRefused` when there is none, or a file that holds one must not be used, and
    `ConfigurationWrong` when there are two.
    """
    found = {kind: [read_variable(names, environ) for names in VARIABLES[kind]] for kind in Kind}
    complete = [kind for kind, parts in found.items() if all(parts)]
    if len(complete) > 1:
        raise ConfigurationWrong(
            f"two complete sets of credentials are given: {complete[0]} and {complete[1]}",
            hint=f"unset {_names(complete[0])} or {_names(complete[1])}",
        )
    if not complete:
        raise _incomplete(found)
    kind = complete[0]
    values = [value for part in found[kind] if part is not None for value in [part[1]]]
    if kind is Kind.ACCESS_TOKEN:
        fingerprint = hashlib.sha256(values[0].encode()).hexdigest()[:12]
        return Credentials(kind, f"access-token-{fingerprint}", values[0])
    if ":" in values[0]:  # it parts id and secret in both schemes
        raise CredentialsRefused(
            f"the id of the {kind} holds a colon, which no id has",
            hint=f"look at {VARIABLES[kind][0][0]}",
        )
    return Credentials(kind, values[0], values[1])


def _names(kind: Kind) -> str:
    return " and ".join(names[0] for names in VARIABLES[kind])


def _incomplete(found: Mapping[Kind, list[tuple[str, str] | None]]) -> CredentialsRefused:
    for kind, parts in found.items():
        given = [part[0] for part in parts if part]
        missing = [
            " or ".join(names)
            for names, part in zip(VARIABLES[kind], parts, strict=True)
            if not part
        ]
        if given and missing:
            return CredentialsRefused(
                f"the {kind} is incomplete: {given[0]} is set, {missing[0]} is not",
                hint=f"set {missing[0]}, or {missing[0].split()[0]}_FILE to a file that holds it",
            )
    return CredentialsRefused("no credentials: no service account, API key or access token is set")


# --- authenticating -----------------------------------------------------------------------------


class Authentication(Protocol):
    """Authenticates every request of a session it is a middleware of.

    A call may raise `CredentialsRefused`; every other trouble is a `ClientError` as of any request.
    `hidden` is all that no answer may be kept with.
    """

    hidden: Secrets

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: Handler
    ) -> aiohttp.ClientResponse:
        """Send `request` authenticated; once more where the answer asks for it."""
        ...

    async def close(self, session: aiohttp.ClientSession) -> None:
        """Give back what Atlas holds for us."""
        ...


def authentication(
    credentials: Credentials,
    base_url: str,
    *,
    reread: Callable[[], Credentials] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Authentication:
    """Make the middleware for `credentials`.

    `reread` reads them again, for secrets that are rotated while a run is under way; it is called
    once Atlas refuses the ones at hand. `clock` gives seconds.
    """
    reread = reread or (lambda: credentials)
    if credentials.kind is Kind.SERVICE_ACCOUNT:
        return ServiceAccount(credentials, base_url, reread, clock)
    if credentials.kind is Kind.API_KEY:
        return ApiKey(credentials, reread)
    return AccessToken(credentials, reread)


class AccessToken:
    """A bearer token as it was given."""

    def __init__(self, credentials: Credentials, reread: Callable[[], Credentials]) -> None:
        self._credentials = credentials
        self._reread = reread
        self.hidden = _secrets_of(credentials)

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: Handler
    ) -> aiohttp.ClientResponse:
        """Send `request` with the token; once more if another one can be read by now."""
        used = self._credentials
        response = await _send_with(used.secret, request, handler)
        if response.status != _UNAUTHORIZED:
            return response
        self._credentials = _reread(self._reread, self._credentials)
        if self._credentials == used:
            return response
        self.hidden.add(self._credentials.secret)
        response.release()
        return await _send_with(self._credentials.secret, request, handler)

    async def close(self, session: aiohttp.ClientSession) -> None:
        """Nothing to give back: the token is not ours."""


class ApiKey:
    """A public and a private key, by HTTP Digest (RFC 7616)."""

    def __init__(self, credentials: Credentials, reread: Callable[[], Credentials]) -> None:
        self._credentials = credentials
        self._reread = reread
        self._digest = aiohttp.DigestAuthMiddleware(credentials.id, credentials.secret)
        self.hidden = _secrets_of(credentials)

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: Handler
    ) -> aiohttp.ClientResponse:
        """Send `request`, answering the challenge; with other keys if they can be read by now."""
        used = self._credentials
        response = await self._digest(request, handler)
        if response.status != _UNAUTHORIZED:
            return response
        if self._credentials == used:
            self._credentials = _reread(self._reread, used)
            if self._credentials == used:
                return response
            secret = self._credentials.secret
            self.hidden.add(secret)
            self._digest = aiohttp.DigestAuthMiddleware(self._credentials.id, secret)
        response.release()
        return await self._digest(request, handler)

    async def close(self, session: aiohttp.ClientSession) -> None:
        """Nothing to give back: a nonce ends by itself."""


class TokenUnavailable(aiohttp.ClientConnectionError):
    """The token endpoint is not there just now; the text is ours and holds no secret."""


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    renew_at: float
    ends_at: float


class ServiceAccount:
    """A client id and secret: one token for all, made by one caller while the others wait."""

    def __init__(
        self,
        credentials: Credentials,
        base_url: str,
        reread: Callable[[], Credentials],
        clock: Callable[[], float],
    ) -> None:
        self._credentials = credentials
        self._base_url = base_url
        self._reread = reread
        self._clock = clock
        self.hidden = _secrets_of(credentials)
        self._token: _Token | None = None
        self._made: list[str] = []
        self._making: asyncio.Task[_Token] | None = None
        self._renewed_at = float("-inf")
        self._not_before = float("-inf")

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: Handler
    ) -> aiohttp.ClientResponse:
        """Send `request` with the common token; once more with a renewed one after a 401."""
        token = await self._current(request.session)
        response = await _send_with(token.value, request, handler)
        if response.status != _UNAUTHORIZED or not self._may_renew(token):
            return response
        response.release()
        token = await self._current(request.session)
        return await _send_with(token.value, request, handler)

    async def close(self, session: aiohttp.ClientSession) -> None:
        """Revoke every token this run made; a failure to do so is said and does no other harm."""
        if self._making is not None:
            await asyncio.wait({self._making})
        for token in self._made:
            form = {"token": token, "token_type_hint": "access_token"}
            try:
                status, _ = await self._post(session, "revoke", form)
            except (aiohttp.ClientError, TimeoutError):
                status = 0
            if status != _HTTP_OK:
                log.warning("an access token could not be revoked; it ends by itself in an hour")
        self._made.clear()
        self._token = None

    def _may_renew(self, refused: _Token) -> bool:
        """Whether another token than the refused one is, or may now be made, at hand."""
        if self._token is not refused:
            return True
        if self._clock() - self._renewed_at < _RENEW_PAUSE_S:
            return False
        self._renewed_at = self._clock()
        self._token = None
        return True

    async def _current(self, session: aiohttp.ClientSession) -> _Token:
        """Give the token in force; makes one, for everybody who waits, if there is none.

        A token that is only due for renewal stays in use while no other is to be had.
        """
        token, now = self._token, self._clock()
        if token is not None and now < max(token.renew_at, min(self._not_before, token.ends_at)):
            return token
        if self._making is None:
            self._making = asyncio.create_task(self._make(session))
            self._making.add_done_callback(self._made_one)
        try:
            return await asyncio.shield(self._making)
        except (aiohttp.ClientError, TimeoutError, CredentialsRefused):
            if token is None or token is not self._token or self._clock() >= token.ends_at:
                raise
            return token

    def _made_one(self, task: "asyncio.Task[_Token]") -> None:
        self._making = None
        if task.cancelled():
            return
        if task.exception() is None:
            self._token = task.result()
        else:
            self._not_before = self._clock() + _RETRY_PAUSE_S

    async def _make(self, session: aiohttp.ClientSession) -> _Token:
        asked_at = self._clock()
        status, answer = await self._post(session, "token", _GRANT)
        if status in _OAUTH_REFUSED:
            used = self._credentials
            self._credentials = _reread(self._reread, used)
            if self._credentials == used:
                self._refuse(status, answer)
            self.hidden.add(self._credentials.secret)
            self.hidden.add(_pair(self._credentials))
            status, answer = await self._post(session, "token", _GRANT)
        if status in _OAUTH_REFUSED:
            self._refuse(status, answer)
        value = answer.get("access_token")
        if status != _HTTP_OK or not isinstance(value, str) or not SECRET.fullmatch(value):
            raise TokenUnavailable(f"no token: the token endpoint answered {status}")
        self._made.append(value)
        self.hidden.add(value)
        life = _life(answer.get("expires_in"))
        early = min(max(_RENEW_EARLY_S, life * _RENEW_EARLY_SHARE), life / 2)
        return _Token(value, asked_at + life - early, asked_at + life)

    def _refuse(self, status: int, answer: Mapping[str, Any]) -> NoReturn:
        who = f"{self._credentials.kind} {self._credentials.id}"
        raise CredentialsRefused(
            f"Atlas refuses the {who}: {status} {self.hidden.without_in(_said(answer))}".strip(),
            hint="check the client id and secret, and whether the secret has expired; "
            "then start the same command again",
        )

    async def _post(
        self, session: aiohttp.ClientSession, verb: str, form: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """Ask the token endpoint; an answer that cannot be read is none."""
        try:
            return await self._post_once(session, verb, form)
        except aiohttp.ClientHttpProxyError:
            raise
        except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError):
            # Not chained: such an error holds the request's headers.
            raise TokenUnavailable("no token: the token endpoint's answer is no HTTP") from None

    async def _post_once(
        self, session: aiohttp.ClientSession, verb: str, form: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """Send id and secret, raw and not percent-encoded; read what is answered."""
        async with session.post(
            f"{self._base_url}/api/oauth/{verb}",
            data=form,
            headers={
                "Authorization": f"Basic {_pair(self._credentials)}",
                "Accept": "application/json",
            },
            middlewares=(),
            allow_redirects=False,
            timeout=_OAUTH_TIMEOUT,
        ) as response:
            return response.status, _decode(await _read_start(response))


async def _read_start(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.content.readexactly(_TOKEN_ANSWER_BYTES)
    except asyncio.IncompleteReadError as whole:
        return whole.partial


def _decode(body: bytes) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


async def _send_with(
    token: str, request: aiohttp.ClientRequest, handler: Handler
) -> aiohttp.ClientResponse:
    request.headers["Authorization"] = f"Bearer {token}"
    return await handler(request)


def _said(answer: Mapping[str, Any]) -> str:
    """The token endpoint's own words, if it has some, without end."""
    said = (answer.get(name) for name in ("error_description", "detail", "error"))
    return next((text[:_SAID_CHARS] for text in said if isinstance(text, str) and text), "")


def _pair(credentials: Credentials) -> str:
    """Id and secret as the token endpoint is told them."""
    return b64encode(f"{credentials.id}:{credentials.secret}".encode()).decode()


def _secrets_of(credentials: Credentials) -> Secrets:
    encoded = b64encode(credentials.secret.encode()).decode()
    return Secrets(credentials.secret, encoded, _pair(credentials), also=EVERY)


def _life(expires_in: object) -> float:
    """Seconds that a token lives; what makes no sense is taken as the documented hour."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return _DEFAULT_LIFE_S
    return float(expires_in) if 1 <= expires_in <= _LONGEST_LIFE_S else _DEFAULT_LIFE_S


def _reread(reread: Callable[[], Credentials], used: Credentials) -> Credentials:
    """Read credentials again; trouble in doing so leaves the ones in use, as does another kind."""
    try:
        found = reread()
    except (CredentialsRefused, ConfigurationWrong) as error:
        log.warning("credentials were refused, and cannot be read again: %s", error)
        return used
    return found if found.kind is used.kind else used
