"""Request → Reply over HTTP: the one place where aiohttp's errors end.

Whatever happens on the wire becomes a `Reply`. The text of a foreign error is not repeated, since
some carry the request's headers: a reply says in our own words what happened. An answer that
repeats a secret of ours is kept without it, and says so.

Redirects are not followed, bodies are capped, TLS is always verified, and plain HTTP is for
loopback alone.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

import aiohttp
import msgspec
from aiohttp import hdrs
from multidict import istr
from yarl import URL

from pipeline.addresses import is_loopback, scheme_and_host
from pipeline.atlas import EVIDENCE_HEADERS, Reply, Request
from pipeline.auth import Authentication, TokenUnavailable
from pipeline.deadlines import Deadlines
from pipeline.errors import ConfigurationWrong
from pipeline.outcomes import FailureKind
from pipeline.redaction import Secrets

log = logging.getLogger(__name__)

#: The largest body that is read, in bytes, after decompression. A checkpoint has a few thousand.
MAX_BODY = 8 * 1024 * 1024

_CHUNK = 64 * 1024

#: For so long an end waits for Atlas to take back its token. Seconds; containers are killed ten
#: seconds after they are told to stop, and requests in flight are waited for eight of these.
_CLOSE_S = 1.5


class Connection(msgspec.Struct, frozen=True):
    """How to reach Atlas. `timeout` in seconds, for a whole request with its body."""

    base_url: str
    user_agent: str
    timeout: float = 30.0
    ca_file: Path | None = None
    proxy: str | None = None


class HttpTransport:
    """Sends requests through one session; made by `connect`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        *,
        timeout: float = 30.0,
        hidden: Secrets | None = None,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`timeout` in seconds, for a whole request with its body; `hidden` is in no reply."""
        self._session = session
        self._base = URL(base_url)
        self._deadlines = Deadlines(timeout)
        self._hidden = hidden or Secrets()
        self._wall = wall

    async def send(self, request: Request) -> Reply:
        """Send one GET and read the whole answer; trouble on the way is part of the reply.

        Raises `CredentialsRefused` when the credentials end before the request is sent.
        """
        sent_at, status, headers = self._wall(), 0, dict[str, str]()
        task = self._deadlines.begin()
        try:
            # Not `async with`: it would wait for what a GET does not have, a fifth of the time.
            response = await self._session.get(
                self._url(request.path), headers={"Accept": request.accept}, allow_redirects=False
            )
            try:
                status, headers = response.status, _chosen(response.headers)
                body = await _read_capped(response)
            finally:
                if not response.closed:  # a body was not read to its end
                    response.close()
            return self._without_secrets(Reply(status, sent_at, self._wall(), headers, body))
        except _TooLargeError:
            trouble = FailureKind.TOO_LARGE, f"the body is larger than {MAX_BODY} bytes"
        except asyncio.CancelledError:
            if not self._deadlines.cancelled_by_us(task):
                raise
            trouble = _read_trouble(TimeoutError())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            trouble = _read_trouble(error)
        finally:
            self._deadlines.end(task)
        return self._without_secrets(Reply(status, sent_at, self._wall(), headers, b"", *trouble))

    def _without_secrets(self, reply: Reply) -> Reply:
        """Take out what a server has repeated of our credentials, and leave a mark of it."""
        body, texts = self._hidden.without(reply.body), "\n".join(reply.headers.values())
        if body is reply.body and self._hidden.without_in(texts) is texts:
            return reply
        headers = {name: self._hidden.without_in(text) for name, text in reply.headers.items()}
        log.warning("an answer repeats a secret of this run; it is kept without it")
        detail = "; ".join(filter(None, (reply.trouble_detail, _REPEATED)))
        return msgspec.structs.replace(reply, headers=headers, body=body, trouble_detail=detail)

    def _url(self, path: str) -> URL:
        """Put a path with its query behind the base; built of parts, so that none is parsed."""
        base, (path, _, query) = self._base, path.partition("?")
        return URL.build(
            scheme=base.scheme,
            authority=base.raw_authority,
            path=base.raw_path.rstrip("/") + path,
            query_string=query,
            encoded=True,
        )


_REPEATED = "the answer repeated a secret of this run, which was taken out"


class _CleanRequest(aiohttp.ClientRequest):
    """A request that is not sent where an answer lies already.

    A connection is kept for the next request. What has arrived on it meanwhile was asked for by
    nobody, as when a gateway answers one request twice; aiohttp would take it for the answer to
    the next one, and an absence of one checkpoint would be told of another.
    """

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Send on a connection on which nothing waits to be read.

        Raises `ServerDisconnectedError`, after which a session tries another connection.
        """
        if conn.protocol is not None and conn.protocol.should_close:
            raise aiohttp.ServerDisconnectedError
        return await super().send(conn)


class _TooLargeError(Exception):
    """The body went past the cap."""


async def _read_capped(response: aiohttp.ClientResponse) -> bytes:
    length = response.content_length
    is_plain = hdrs.CONTENT_ENCODING not in response.headers
    if is_plain and length is not None and length <= MAX_BODY:
        return await response.read()
    chunks, size = [], 0
    async for chunk in response.content.iter_chunked(_CHUNK):
        size += len(chunk)
        if size > MAX_BODY:
            raise _TooLargeError
        chunks.append(chunk)
    return b"".join(chunks)


def _chosen(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers that are evidence; bytes that are no UTF-8, which no table could hold, as escapes."""
    chosen = {}
    for name, key in _EVIDENCE:
        value = headers.get(key)
        if value is not None:
            is_plain = value.isascii()
            chosen[name] = value if is_plain else value.encode("utf-8", "backslashreplace").decode()
    return chosen


#: Names with the keys by which aiohttp's headers find them at once.
_EVIDENCE = tuple((name, istr(name)) for name in EVIDENCE_HEADERS)


def _read_trouble(error: Exception) -> tuple[FailureKind, str]:
    """Say what kind of trouble a foreign error is, without repeating what it carries."""
    if isinstance(error, TokenUnavailable):
        return FailureKind.UNREACHABLE, str(error)
    kind, words = _named_trouble(error)
    reason = getattr(error, "strerror", None)
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(reason, str):
        return kind, f"{words}: {reason}"
    return kind, words


#: Foreign errors → what they are; the first that fits counts.
_TROUBLES: tuple[tuple[type[Exception], FailureKind, str], ...] = (
    (TimeoutError, FailureKind.TIMED_OUT, "no whole answer in time"),
    (
        aiohttp.ClientConnectorCertificateError,
        FailureKind.UNREACHABLE,
        "the server's certificate is not trusted",
    ),
    (aiohttp.ClientSSLError, FailureKind.UNREACHABLE, "no TLS with the server"),
    (aiohttp.ClientConnectorDNSError, FailureKind.UNREACHABLE, "the host has no address"),
    (aiohttp.ClientProxyConnectionError, FailureKind.UNREACHABLE, "no connection to the proxy"),
    (aiohttp.ClientHttpProxyError, FailureKind.UNREACHABLE, "the proxy refuses"),
    (aiohttp.ClientConnectorError, FailureKind.UNREACHABLE, "no connection"),
    (aiohttp.ClientPayloadError, FailureKind.CUT, "the body ended early or is badly compressed"),
    (aiohttp.ClientResponseError, FailureKind.UNREADABLE, "the answer is not HTTP"),
    (aiohttp.ClientConnectionError, FailureKind.UNREACHABLE, "closed before the answer"),
    (ConnectionError, FailureKind.UNREACHABLE, "closed before the answer"),
)


def _named_trouble(error: Exception) -> tuple[FailureKind, str]:
    for foreign, kind, words in _TROUBLES:
        if isinstance(error, foreign):
            return kind, words
    return FailureKind.UNREACHABLE, f"no answer ({type(error).__name__})"


# --- where to connect ---------------------------------------------------------------------------


def read_base_url(text: str) -> str:
    """Check the address of Atlas: https, or http to loopback; no credentials, query or fragment.

    Raises `ConfigurationWrong`, without repeating an address that may hold a secret.
    """
    text = text.strip()
    if any(mark in text for mark in "@?#"):
        raise ConfigurationWrong(
            "the base URL holds a user name or password, a query or a fragment",
            hint="give the address alone, credentials through their own variables",
        )
    scheme, host = scheme_and_host(text)
    if not host or scheme not in ("https", "http"):
        raise ConfigurationWrong(
            "the base URL is not an address of the form https://host",  # it may be a secret instead
            hint="leave --base-url and MONGODB_ATLAS_BASE_URL out for https://cloud.mongodb.com",
        )
    if scheme == "http" and not is_loopback(host):
        raise ConfigurationWrong(
            f"plain http would show the credentials to the network: {text!r}",
            hint="use https; http is for 127.0.0.1, ::1 and localhost alone",
        )
    return text.rstrip("/")


def proxy_for(base_url: str, environ: Mapping[str, str]) -> str | None:
    """Give the proxy that the environment names for `base_url`; none for loopback.

    Raises `ConfigurationWrong` for a kind of proxy that cannot be used.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    proxies = _proxies(environ)
    if is_loopback(host) or proxy_bypass_environment(f"{host}:{parts.port or 443}", proxies):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy:
        return None
    scheme, proxy_host = scheme_and_host(proxy)
    if scheme not in ("http", "https") or not proxy_host:
        raise ConfigurationWrong(
            f"the proxy named for {parts.scheme} is not an http proxy",
            hint="name one of the form http://host:port in HTTPS_PROXY, or the host in NO_PROXY",
        )
    return proxy


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Read `<scheme>_proxy` in either case; the lower-case name wins, even to say: none."""
    named = {name: value for name, value in environ.items() if name.lower().endswith("_proxy")}
    upper_first = sorted(named.items())
    return {name.lower().removesuffix("_proxy"): value for name, value in upper_first}


def _tls(connection: Connection) -> ssl.SSLContext | bool:
    """What verifies the server; plain http needs nothing, and loading authorities takes time."""
    if connection.base_url.startswith("http:"):
        return True
    try:
        return ssl.create_default_context(cafile=connection.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationWrong(
            f"--ca-file {connection.ca_file} holds no certificates that can be read: "
            f"{error.strerror}",
            hint="name a file with PEM certificates",
        ) from error


@asynccontextmanager
async def connect(
    connection: Connection, authentication: Authentication
) -> AsyncIterator[HttpTransport]:
    """Open a session to Atlas; at the end revoke what the authentication holds, and close it."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=_tls(connection)),
        timeout=aiohttp.ClientTimeout(total=None),  # each request has its own
        headers={"User-Agent": connection.user_agent},
        cookie_jar=aiohttp.DummyCookieJar(),
        middlewares=(authentication,),
        request_class=_CleanRequest,
        proxy=connection.proxy,
        trust_env=False,
    ) as session:
        try:
            yield HttpTransport(
                session,
                connection.base_url,
                timeout=connection.timeout,
                hidden=authentication.hidden,
            )
        finally:
            await _close(authentication, session)


async def _close(authentication: Authentication, session: aiohttp.ClientSession) -> None:
    """Give back what is held, but do not let an end wait for long."""
    try:
        async with asyncio.timeout(_CLOSE_S):
            await authentication.close(session)
    except TimeoutError:
        log.warning("Atlas did not take back the access token; it ends by itself in an hour")
