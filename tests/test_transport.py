"""Request → Reply: plain cases by aioresponses, the rest by real sockets on loopback."""

import asyncio
import gzip
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import aioresponses
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from pipeline import transport
from pipeline.addresses import is_loopback
from pipeline.atlas import EVIDENCE_HEADERS, Reply, Request, read_reply, request_for
from pipeline.auth import Authentication, Credentials, Kind, TokenUnavailable, authentication
from pipeline.errors import ConfigurationWrong, CredentialsRefused
from pipeline.outcomes import Failure, FailureKind
from pipeline.redaction import Secrets
from pipeline.transport import (
    MAX_BODY,
    Connection,
    HttpTransport,
    connect,
    proxy_for,
    read_base_url,
)
from tests.doubles import good, ref

SECRET = "s3cret-of-the-test"
REQUEST = request_for(ref())
AGENT = "checkpoint-audit/0 (test; run)"
ATLAS = "https://atlas.example.invalid"


def bearer(base_url: str = ATLAS) -> Authentication:
    return authentication(Credentials(Kind.ACCESS_TOKEN, "test", SECRET), base_url)


async def ask(base_url: str, request: Request = REQUEST, **told: Any) -> Reply:
    """Open a session, send one request, close it."""
    connection = Connection(base_url, AGENT, **{"timeout": 5.0, **told})
    async with connect(connection, bearer(base_url)) as sender:
        return await sender.send(request)


def assert_no_secret(reply: Reply) -> None:
    assert SECRET not in repr(reply)
    assert "Bearer" not in repr(reply)
    assert "authorization" not in repr(reply).lower()


# ── plain cases, without a network ───────────────────────────────────────────────────────────────


class Response(aiohttp.ClientResponse):
    """aioresponses 0.7.9 does not know what aiohttp 3.14 wants to be given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        writer: Any = SimpleNamespace(output_size=0)
        super().__init__(*args, stream_writer=writer, **kwargs)


async def mocked(**answer: Any) -> Reply:
    with aioresponses() as mock:
        mock.get(URL(ATLAS + REQUEST.path, encoded=True), response_class=Response, **answer)
        return await ask(ATLAS)


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 404, 410, 418, 429, 500, 503])
async def test_every_status_is_a_reply(status: int) -> None:
    """Whatever the status: the transport judges nothing."""
    reply = await mocked(status=status, body=b'{"error": 1}', headers={"Retry-After": "3"})

    assert (reply.status, reply.body, reply.trouble) == (status, b'{"error": 1}', None)
    assert reply.headers["retry-after"] == "3"


async def test_only_headers_that_are_evidence_are_kept() -> None:
    """By lower-case names; a cookie or a trace of a gateway is not stored."""
    wanted = {name.title(): f"value of {name}" for name in EVIDENCE_HEADERS}
    wanted["Content-Type"] = "application/json"
    reply = await mocked(body=b"{}", headers={**wanted, "Set-Cookie": "a=b", "X-Other": "c"})

    assert reply.headers == {name.lower(): value for name, value in wanted.items()}


async def test_headers_can_be_stored_whatever_bytes_they_hold() -> None:
    """A gateway's Latin-1 must not end a run: what no table could hold is escaped."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/\xe9\r\nDate: \xc3\xa9\r\n"
    async with raw_server(answering(head + b"Content-Length: 2\r\n\r\n{}")) as port:
        reply = await ask(f"http://127.0.0.1:{port}")

    assert reply.headers == {"content-type": r"text/\udce9", "date": "é"}


async def test_times_are_the_wall_clocks() -> None:
    """Sent before, received after the body: aware, and to the microsecond."""
    moments = iter(datetime(2026, 11, 20, 3, 0, n, 123456, UTC) for n in range(2))
    with aioresponses() as mock:
        mock.get(URL(ATLAS + REQUEST.path, encoded=True), response_class=Response)
        async with aiohttp.ClientSession() as session:
            reply = await HttpTransport(session, ATLAS, wall=lambda: next(moments)).send(REQUEST)

    assert reply.received_at - reply.sent_at == timedelta(seconds=1)
    assert reply.sent_at.microsecond == 123456


def key(**told: Any) -> ConnectionKey:
    known: dict[str, Any] = {"is_ssl": True, "ssl": True, "proxy": None, "proxy_auth": None}
    hashes = {"proxy_headers_hash": None, "server_hostname": None}
    return ConnectionKey(host="h", port=443, **{**known, **hashes, **told})


def request_info() -> aiohttp.RequestInfo:
    """What aiohttp hangs on its errors: the request with its headers."""
    headers = CIMultiDictProxy(CIMultiDict({"Authorization": f"Bearer {SECRET}"}))
    return aiohttp.RequestInfo(URL(ATLAS), "GET", headers, URL(ATLAS))


FOREIGN: list[tuple[Exception, FailureKind, str]] = [
    (TimeoutError(), FailureKind.TIMED_OUT, "no whole answer in time"),
    (aiohttp.ServerTimeoutError(SECRET), FailureKind.TIMED_OUT, "no whole answer in time"),
    (aiohttp.ServerDisconnectedError(SECRET), FailureKind.UNREACHABLE, "closed before the answer"),
    (aiohttp.ClientOSError(104, SECRET), FailureKind.UNREACHABLE, "closed before the answer"),
    (ConnectionResetError(104, SECRET), FailureKind.UNREACHABLE, "closed before the answer"),
    (aiohttp.ClientPayloadError(SECRET), FailureKind.CUT, "the body ended early"),
    (
        aiohttp.ClientConnectorDNSError(key(), OSError(-2, "Name or service not known")),
        FailureKind.UNREACHABLE,
        "the host has no address: Name or service not known",
    ),
    (
        aiohttp.ClientConnectorError(key(), OSError(111, "Connection refused")),
        FailureKind.UNREACHABLE,
        "no connection: Connection refused",
    ),
    (
        aiohttp.ClientConnectorCertificateError(key(), ssl.CertificateError(1, "self-signed")),
        FailureKind.UNREACHABLE,
        "the server's certificate is not trusted",
    ),
    (
        aiohttp.ClientConnectorSSLError(key(), ssl.SSLError(1, "wrong version")),
        FailureKind.UNREACHABLE,
        "no TLS with the server",
    ),
    (
        aiohttp.ClientResponseError(request_info(), (), status=400, message=SECRET),
        FailureKind.UNREADABLE,
        "the answer is not HTTP",
    ),
    (
        aiohttp.ClientHttpProxyError(request_info(), (), status=407, message=SECRET),
        FailureKind.UNREACHABLE,
        "the proxy refuses",
    ),
    (aiohttp.InvalidURL(SECRET), FailureKind.UNREACHABLE, "no answer (InvalidURL)"),
    (ValueError(SECRET), FailureKind.UNREACHABLE, "no answer (ValueError)"),
    (OSError(5, SECRET), FailureKind.UNREACHABLE, "no answer (OSError)"),
    (
        TokenUnavailable("no token: the token endpoint answered 503"),
        FailureKind.UNREACHABLE,
        "no token: the token endpoint answered 503",
    ),
]


@pytest.mark.parametrize(
    ("foreign", "kind", "words"), FOREIGN, ids=[type(case[0]).__name__ for case in FOREIGN]
)
async def test_foreign_errors_become_replies_in_our_own_words(
    foreign: Exception, kind: FailureKind, words: str
) -> None:
    """Some carry the request's headers, or a part of the answer: nothing of that is repeated."""
    reply = await mocked(exception=foreign)

    assert (reply.status, reply.trouble, reply.body) == (0, kind, b"")
    assert reply.trouble_detail.startswith(words)
    assert_no_secret(reply)


@pytest.mark.parametrize("error", [CredentialsRefused("refused"), RuntimeError("a bug")])
async def test_what_is_not_about_this_request_passes_through(error: Exception) -> None:
    with pytest.raises(type(error)):
        await mocked(exception=error)


# ── over HTTP ────────────────────────────────────────────────────────────────────────────────────

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def web_server(
    handler: Handler, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[int, list[web.Request]]]:
    """Serve every path with one handler; gives the port, and the requests as they come."""
    seen: list[web.Request] = []

    async def noting(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", noting)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 0, ssl_context=tls).start()
        yield runner.addresses[0][1], seen
    finally:
        await runner.cleanup()


async def well(_: web.Request) -> web.Response:
    return web.json_response({"restorable": True})


async def test_what_a_request_carries() -> None:
    async with web_server(well) as (port, seen):
        await ask(f"http://127.0.0.1:{port}")

    headers = seen[0].headers
    assert seen[0].method == "GET"
    assert headers["Accept"] == "application/vnd.atlas.2023-01-01+json"
    assert headers["User-Agent"] == AGENT
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert "gzip" in headers["Accept-Encoding"]
    assert "Cookie" not in headers


async def test_an_address_of_version_6_is_reached() -> None:
    async with web_server(well, host="::1") as (port, seen):
        reply = await ask(f"http://[::1]:{port}")

    assert (reply.status, len(seen)) == (200, 1)


@pytest.mark.parametrize(
    "base_url",
    [
        "https://cloud.mongodb.com",
        "https://[2001:db8::1]:8443/prefix",
        "https://xn--bcher-kva.example",
        "http://127.0.0.1:8080",
    ],
)
async def test_the_address_is_the_one_that_was_given(base_url: str) -> None:
    async with connect(Connection(base_url, AGENT), bearer(base_url)) as sender:
        assert str(sender._url("/api/x%2Fy?a=1")) == f"{base_url}/api/x%2Fy?a=1"


@pytest.mark.parametrize("prefix", ["", "/behind/a/gateway"])
async def test_the_path_goes_out_as_it_is_encoded(prefix: str) -> None:
    """Nothing is decoded and encoded again on the way; a base URL may have a path."""
    async with web_server(well) as (port, seen):
        await ask(f"http://127.0.0.1:{port}{prefix}", Request("/a%2Fb%20%41?x=%2B&y=1"))

    assert seen[0].raw_path == f"{prefix}/a%2Fb%20%41?x=%2B&y=1"


async def test_redirects_are_not_followed() -> None:
    """A login page must neither get the credentials nor stand for an answer."""

    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    async with web_server(elsewhere) as (port, seen):
        reply = await ask(f"http://127.0.0.1:{port}")

    assert (reply.status, reply.trouble) == (302, None)
    assert [request.path for request in seen] == [REQUEST.path]


async def test_cookies_are_not_kept() -> None:
    async def baking(_: web.Request) -> web.Response:
        return web.Response(headers={"Set-Cookie": "session=1"})

    async with web_server(baking) as (port, seen):
        base_url = f"http://localhost:{port}"  # by default aiohttp keeps no cookies of addresses
        async with connect(Connection(base_url, AGENT), bearer()) as sender:
            for _ in range(2):
                await sender.send(REQUEST)

    assert [request.headers.get("Cookie") for request in seen] == [None, None]


async def test_the_environment_changes_nothing_behind_our_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither a netrc nor proxy variables are read by aiohttp itself."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with web_server(well) as (port, seen):
        reply = await ask(f"http://127.0.0.1:{port}")

    assert reply.status == 200
    assert seen[0].headers["Authorization"] == f"Bearer {SECRET}"


async def test_compressed_bodies_are_evidence_as_they_read() -> None:
    body = b'{"restorable": true}' * 100

    async def packing(_: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})

    async with web_server(packing) as (port, _):
        assert (await ask(f"http://127.0.0.1:{port}")).body == body


@pytest.mark.parametrize(
    ("size", "trouble"), [(MAX_BODY, None), (MAX_BODY + 1, FailureKind.TOO_LARGE)]
)
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_eight_mebibytes_are_the_most(
    size: int, trouble: FailureKind | None, encoding: str
) -> None:
    """After decompression; the status and headers of what was too large are kept."""
    body = b" " * size

    async def large(_: web.Request) -> web.Response:
        packed = gzip.compress(body, 1) if encoding == "gzip" else body
        return web.Response(body=packed, headers={"Content-Encoding": encoding})

    async with web_server(large) as (port, _):
        reply = await ask(f"http://127.0.0.1:{port}")

    assert (reply.status, reply.trouble) == (200, trouble)
    assert len(reply.body) == (0 if trouble else size)
    assert "content-type" in reply.headers


async def test_a_bomb_costs_little_memory() -> None:
    """A quarter of a gigabyte packed into 250 KB: reading stops soon after 8 MiB."""
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join([packer.compress(bytes(2**20)) for _ in range(256)] + [packer.flush()])

    async def exploding(_: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with web_server(exploding) as (port, _):
        tracemalloc.start()
        try:
            reply = await ask(f"http://127.0.0.1:{port}")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert reply.trouble is FailureKind.TOO_LARGE
    assert peak < 4 * MAX_BODY


async def test_the_session_goes_on_after_a_body_that_was_too_large() -> None:
    async def large_first(request: web.Request) -> web.Response:
        return web.Response(body=b" " * (MAX_BODY + 1) if len(seen) == 1 else b"{}")

    async with web_server(large_first) as (port, seen):
        base_url = f"http://127.0.0.1:{port}"
        async with connect(Connection(base_url, AGENT), bearer()) as sender:
            troubles = [(await sender.send(REQUEST)).trouble for _ in range(3)]

    assert troubles == [FailureKind.TOO_LARGE, None, None]


# ── bytes on the wire ────────────────────────────────────────────────────────────────────────────

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(talk: Talk) -> AsyncIterator[int]:
    """Serve connections by hand."""
    talks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def answering(*chunks: bytes, then: str = "close") -> Talk:
    """Read the request's head, write `chunks`, then close, abort or hang."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
        if then == "hang":
            await asyncio.Event().wait()
        if then == "abort":
            writer.transport.abort()

    return talk


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WIRE: list[tuple[str, Talk, FailureKind, int]] = [
    ("nothing", answering(), FailureKind.UNREACHABLE, 0),
    ("reset", answering(then="abort"), FailureKind.UNREACHABLE, 0),
    ("half a head", answering(b"HTTP/1.1 200 O"), FailureKind.UNREACHABLE, 0),
    ("not HTTP", answering(b"220 smtp ready\r\n\r\n"), FailureKind.UNREADABLE, 0),
    ("cut", answering(HEAD + b"Content-Length: 100\r\n\r\n{"), FailureKind.CUT, 200),
    (
        "cut by reset",
        answering(HEAD + b"Content-Length: 100\r\n\r\n{", then="abort"),
        FailureKind.CUT,
        200,
    ),
    (
        "cut chunks",
        answering(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"),
        FailureKind.CUT,
        200,
    ),
    (
        "bad gzip",
        answering(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!"),
        FailureKind.CUT,
        200,
    ),
    ("no answer", answering(then="hang"), FailureKind.TIMED_OUT, 0),
    (
        "half an answer",
        answering(HEAD + b"Content-Length: 100\r\n\r\n{", then="hang"),
        FailureKind.TIMED_OUT,
        200,
    ),
]


@pytest.mark.parametrize(
    ("talk", "kind", "status"), [case[1:] for case in WIRE], ids=[case[0] for case in WIRE]
)
async def test_what_goes_wrong_on_the_wire(talk: Talk, kind: FailureKind, status: int) -> None:
    """A part of a body is never taken for the whole."""
    async with raw_server(talk) as port:
        reply = await ask(f"http://127.0.0.1:{port}", timeout=0.3)

    assert (reply.trouble, reply.status, reply.body) == (kind, status, b"")
    assert reply.trouble_detail
    assert_no_secret(reply)


async def test_chunks_that_make_no_sense_are_no_answer() -> None:
    """In one packet with the head not even that is HTTP; either way it is asked again."""
    talk = answering(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n")
    async with raw_server(talk) as port:
        reply = await ask(f"http://127.0.0.1:{port}")

    assert reply.trouble in {FailureKind.CUT, FailureKind.UNREADABLE}
    assert reply.body == b""


async def test_a_compressed_body_that_ends_early_is_not_readable() -> None:
    """A gateway cut it and set the length right: aiohttp sees no fault, the reading does."""
    part = gzip.compress(good(REQUEST).body)[:-20]
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(part)
    async with raw_server(answering(head, part)) as port:
        reply = await ask(f"http://127.0.0.1:{port}")
    read = read_reply(ref(), reply)

    assert isinstance(read, Failure)
    assert read.is_transient


async def test_an_answer_that_repeats_a_secret_is_kept_without_it() -> None:
    """As when an error shows the request's headers; what was done is part of the reply."""

    async def echoing(request: web.Request) -> web.Response:
        told = request.headers["Authorization"]
        return web.json_response({"detail": told}, status=500, headers={"Sunset": told})

    async with web_server(echoing) as (port, _):
        reply = await ask(f"http://127.0.0.1:{port}")

    assert reply.body == b'{"detail": "Bearer [secret]"}'
    assert reply.headers["sunset"] == "Bearer [secret]"
    assert reply.trouble is None
    assert "repeated a secret" in reply.trouble_detail


ABSENT = b'{"error":404,"errorCode":"CHECKPOINT_NOT_FOUND"}'
UNASKED = b"HTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\n%s" % (len(ABSENT), ABSENT)


async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the first request of a connection twice, the others not at all."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(HEAD + b"Content-Length: 2\r\n\r\n")
    await writer.drain()
    await asyncio.sleep(0.1)  # in a packet of its own, so that the body ends with what follows
    writer.write(b"{}" + UNASKED)
    await writer.drain()
    await reader.readuntil(b"\r\n\r\n")


async def test_an_answer_to_no_request_answers_no_request() -> None:
    """A gateway that answers one request twice must not tell of one checkpoint another's."""
    async with raw_server(twice) as port:
        async with connect(Connection(f"http://127.0.0.1:{port}", AGENT), bearer()) as sender:
            replies = [await sender.send(REQUEST) for _ in range(3)]

    assert [(reply.status, reply.body) for reply in replies] == [(200, b"{}")] * 3


async def test_nobody_listens() -> None:
    async with raw_server(answering()) as port:
        pass
    reply = await ask(f"http://127.0.0.1:{port}")

    assert reply.trouble is FailureKind.UNREACHABLE
    assert reply.trouble_detail.startswith("no connection: ")
    assert_no_secret(reply)


async def test_cancelling_a_request_is_no_trouble_of_it() -> None:
    async with raw_server(answering(then="hang")) as port:
        asking = asyncio.create_task(ask(f"http://127.0.0.1:{port}"))
        await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────


class Authority:
    """A certificate authority of our own, with a server's certificate."""

    def __init__(self, folder: Path, *names: str) -> None:
        authority = trustme.CA()
        self.file = folder / f"{'-'.join(names)}.pem"
        authority.cert_pem.write_to_path(str(self.file))
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(self.server)


async def test_the_right_authority_is_trusted(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "127.0.0.1")
    async with web_server(well, ours.server) as (port, _):
        reply = await ask(f"https://127.0.0.1:{port}", ca_file=ours.file)

    assert (reply.status, reply.trouble) == (200, None)


@pytest.mark.parametrize("trusting", ["the system's", "another", "the right one, another name"])
async def test_no_other_server_gets_the_credentials(tmp_path: Path, trusting: str) -> None:
    """Unknown authorities and names that do not fit end before a request is sent."""
    other = Authority(tmp_path, "elsewhere.invalid")
    theirs = other if trusting.startswith("the right") else Authority(tmp_path, "127.0.0.1")
    async with web_server(well, theirs.server) as (port, seen):
        ca_file = None if trusting == "the system's" else other.file
        reply = await ask(f"https://127.0.0.1:{port}", ca_file=ca_file)

    assert reply.trouble is FailureKind.UNREACHABLE
    assert reply.trouble_detail.startswith("the server's certificate is not trusted")
    assert not seen
    assert_no_secret(reply)


async def test_a_server_without_tls_gets_nothing() -> None:
    async with web_server(well) as (port, seen):
        reply = await ask(f"https://127.0.0.1:{port}")

    assert reply.trouble is FailureKind.UNREACHABLE
    assert not seen


@pytest.mark.parametrize("content", [None, "", "not a certificate", "a folder"])
async def test_a_file_without_certificates_is_a_wrong_configuration(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content == "a folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)

    with pytest.raises(ConfigurationWrong, match="--ca-file"):
        await ask("https://127.0.0.1:1", ca_file=path)


# ── proxies ──────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def tunnelling(port: int, answer: bytes = b"200 OK") -> AsyncIterator[tuple[int, list[str]]]:
    """A proxy that tunnels whatever is asked for to `port`; gives its own port and what it saw."""
    heads: list[str] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 " + answer + b"\r\n\r\n")
        if answer.startswith(b"200"):
            there = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    async with raw_server(talk) as proxy:
        yield proxy, heads


async def test_a_proxy_tunnels_and_sees_no_credentials(tmp_path: Path) -> None:
    """CONNECT to Atlas's name, which this machine need not resolve; TLS is Atlas's own."""
    atlas = Authority(tmp_path, "atlas.example.invalid")
    async with web_server(well, atlas.server) as (port, seen), tunnelling(port) as (proxy, heads):
        reply = await ask(
            ATLAS, ca_file=atlas.file, proxy=f"http://me:{SECRET}-proxy@127.0.0.1:{proxy}"
        )

    assert reply.status == 200
    assert seen[0].headers["Host"] == "atlas.example.invalid"
    assert heads[0].startswith("CONNECT atlas.example.invalid:443 ")
    assert "Bearer" not in heads[0]
    assert "Proxy-Authorization: Basic" in heads[0]
    assert "Proxy-Authorization" not in seen[0].headers


async def test_a_proxy_that_refuses_is_named() -> None:
    async with tunnelling(1, b"407 Who are you?") as (proxy, _):
        reply = await ask(ATLAS, proxy=f"http://me:{SECRET}@127.0.0.1:{proxy}")

    assert (reply.trouble, reply.trouble_detail) == (FailureKind.UNREACHABLE, "the proxy refuses")
    assert_no_secret(reply)


async def test_a_proxy_that_is_not_there_is_named() -> None:
    async with raw_server(answering()) as port:
        pass
    reply = await ask(ATLAS, proxy=f"http://me:{SECRET}@127.0.0.1:{port}")

    assert reply.trouble is FailureKind.UNREACHABLE
    assert reply.trouble_detail.startswith("no connection to the proxy")
    assert_no_secret(reply)


PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("base_url", "environ", "proxy"),
    [
        (ATLAS, {}, None),
        (ATLAS, {"HTTPS_PROXY": PROXY}, PROXY),
        (ATLAS, {"https_proxy": PROXY}, PROXY),
        (ATLAS, {"HTTPS_PROXY": "http://other:1", "https_proxy": PROXY}, PROXY),
        (ATLAS, {"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1"}, PROXY),
        (ATLAS, {"HTTPS_PROXY": PROXY, "https_proxy": ""}, None),
        (ATLAS, {"ALL_PROXY": PROXY}, PROXY),
        (ATLAS, {"ALL_PROXY": "http://other:1", "HTTPS_PROXY": PROXY}, PROXY),
        (ATLAS, {"HTTP_PROXY": PROXY}, None),
        (ATLAS, {"HTTPS_PROXY": ""}, None),
        (ATLAS, {"HTTPS_PROXY": "https://proxy:3129"}, "https://proxy:3129"),
        (ATLAS, {"HTTPS_PROXY": PROXY, "NO_PROXY": "example.invalid"}, None),
        (ATLAS, {"HTTPS_PROXY": PROXY, "NO_PROXY": ".example.invalid"}, None),
        (ATLAS, {"HTTPS_PROXY": PROXY, "no_proxy": "x, atlas.example.invalid"}, None),
        (ATLAS, {"HTTPS_PROXY": PROXY, "NO_PROXY": "ATLAS.example.invalid"}, None),
        (ATLAS, {"HTTPS_PROXY": PROXY, "NO_PROXY": "atlas.example.invalid:443"}, None),
        (f"{ATLAS}:8443", {"HTTPS_PROXY": PROXY, "NO_PROXY": "example.invalid:8443"}, None),
        (f"{ATLAS}:8443", {"HTTPS_PROXY": PROXY, "NO_PROXY": "example.invalid:443"}, PROXY),
        (ATLAS, {"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, None),
        (ATLAS, {"HTTPS_PROXY": PROXY, "NO_PROXY": "other.invalid"}, PROXY),
        (ATLAS, {"HTTPS_PROXY": PROXY, "NO_PROXY": ""}, PROXY),
        ("http://127.0.0.1:8080", {"HTTP_PROXY": PROXY, "ALL_PROXY": PROXY}, None),
        ("https://127.0.0.1", {"HTTPS_PROXY": PROXY}, None),
        ("http://localhost", {"HTTP_PROXY": PROXY}, None),
        ("http://[::1]:80", {"HTTP_PROXY": PROXY}, None),
    ],
)
def test_which_proxy_is_used(base_url: str, environ: dict[str, str], proxy: str | None) -> None:
    """HTTPS_PROXY, ALL_PROXY and NO_PROXY as curl reads them; loopback never goes through one."""
    assert proxy_for(base_url, environ) == proxy


@pytest.mark.parametrize(
    "proxy", [f"socks5://me:{SECRET}@p:1", "proxy:3128", "http://", "http://[::1", "http://a b"]
)
def test_a_proxy_of_another_kind_is_a_wrong_configuration(proxy: str) -> None:
    with pytest.raises(ConfigurationWrong) as raised:
        proxy_for(ATLAS, {"HTTPS_PROXY": proxy})

    assert SECRET not in str(raised.value)


# ── addresses ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("https://cloud.mongodb.com", "https://cloud.mongodb.com"),
        ("https://cloud.mongodb.com/", "https://cloud.mongodb.com"),
        ("https://cloud.mongodb.com\n", "https://cloud.mongodb.com"),
        ("  https://cloud.mongodbgov.com//", "https://cloud.mongodbgov.com"),
        ("HTTPS://Cloud.example", "HTTPS://Cloud.example"),
        ("https://gateway:8443/atlas/", "https://gateway:8443/atlas"),
        ("https://10.0.0.1", "https://10.0.0.1"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://localhost:1", "http://localhost:1"),
        ("http://LOCALHOST", "http://LOCALHOST"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_addresses_that_will_do(text: str, address: str) -> None:
    assert read_base_url(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cloud.mongodb.com",
        "//cloud.mongodb.com",
        "ftp://cloud.mongodb.com",
        "file:///etc/passwd",
        "https://",
        "https://:443",
        "https:///path",
        "https://host:port",
        "https://host:0",
        "https://host:99999",
        "https://[::1",
        "https://a b",
        "https://a\nb",
        "https://a\tb",
        "https://häuser.example",
        "https://host\\.example",
        "http://cloud.mongodb.com",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://2130706433",
        "http://[::2]",
        f"https://host?token={SECRET}",
        "https://host?",
        f"https://host#{SECRET}",
        "https://host#",
        f"https://me:{SECRET}@host",
        f"https://{SECRET}@host",
        f"https://me:{SECRET}@host:port",
        f"https://me:{SECRET}@[::1",
        f"me:{SECRET}@host",
        "http://127.0.0.1@elsewhere.example",
        "https://host\\@elsewhere.example",
    ],
)
def test_addresses_that_will_not_do(text: str) -> None:
    """And the words about it hold no secret that the address may hold."""
    with pytest.raises(ConfigurationWrong) as raised:
        read_base_url(text)

    assert SECRET not in str(raised.value) + raised.value.hint
    assert raised.value.hint


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("LocalHost", True),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_what_is_loopback(host: str, answer: bool) -> None:
    assert is_loopback(host) is answer


# ── the end of a session ─────────────────────────────────────────────────────────────────────────


class Closing:
    """An authentication that notes its end, and takes its time for it."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.closed = False
        self.hidden = Secrets()

    async def __call__(self, request: aiohttp.ClientRequest, handler: Any) -> Any:
        return await handler(request)

    async def close(self, session: aiohttp.ClientSession) -> None:
        assert not session.closed
        await asyncio.sleep(self.seconds)
        self.closed = True


async def test_the_token_is_given_back_however_a_session_ends() -> None:
    """While the session is still open."""
    who = Closing()
    with pytest.raises(ValueError, match="a bug"):
        async with connect(Connection(ATLAS, AGENT), who):
            raise ValueError("a bug")

    assert who.closed


async def test_giving_back_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stopped container has seconds; what is not given back is said, and is no failure."""
    monkeypatch.setattr(transport, "_CLOSE_S", 0.05)
    who = Closing(3600)
    async with connect(Connection(ATLAS, AGENT), who):
        pass

    assert not who.closed
    assert "did not take back" in caplog.text
