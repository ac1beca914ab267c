"""Answers that an Atlas gives which means harm, or which something between us has spoiled.

Each case is one way to answer the request for one checkpoint, and the failure kinds that may come
of it (None: it is read as a checkpoint all the same).
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import zstandard

from tests.loopback import Asked, Talk

MIB = 1 << 20
METADATA = "http://169.254.169.254/latest/meta-data/iam/security-credentials/"


class Case(NamedTuple):
    """A name, how to answer, and what may come of it."""

    name: str
    talk: Talk
    kinds: frozenset[str | None]


def case(name: str, talk: Talk, *kinds: str | None) -> Case:
    return Case(name, talk, frozenset(kinds))


# ── how answers are put together ─────────────────────────────────────────────────────────────────


def document(asked: Asked, **other: Any) -> dict[str, Any]:
    """The checkpoint that was asked for, with some attributes of another kind."""
    part = {
        "typeName": "REPLICA_SET",
        "replicaSetName": "rs0",
        "shardName": "rs0",
        "tokenDiscovered": True,
        "tokenTimestamp": {"date": "2026-11-20T03:00:00Z", "increment": 1},
    }
    honest = {
        "id": asked.parts[-1],
        "groupId": asked.parts[5],
        "clusterId": "c" * 24,
        "started": "2026-11-20T03:00:00Z",
        "completed": "2026-11-20T03:00:00Z",
        "timestamp": "2026-11-20T02:59:30Z",
        "restorable": True,
        "parts": [part],
        "links": [{"rel": "self", "href": METADATA}],
    }
    return {**honest, **other}


def head(status: str = "200 OK", *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1")


def whole(body: bytes, status: str = "200 OK", *lines: str) -> bytes:
    kind = "Content-Type: application/json"
    return head(status, kind, f"Content-Length: {len(body)}", *lines) + body


def says(body: bytes, status: str = "200 OK", *lines: str) -> Talk:
    """Answer with a whole body."""
    return writes(whole(body, status, *lines), then="stay")


def writes(*chunks: bytes, then: str = "close") -> Talk:
    """Write bytes as they are; then close, hang, or stay for the next request."""

    async def talk(_: Asked, writer: asyncio.StreamWriter) -> None:
        await _write(writer, chunks)
        await _then(writer, then)

    return talk


def about(*lines: str, status: str = "200 OK", then: str = "stay", tail: bytes = b"") -> Talk:
    """Answer with the honest checkpoint, under other header lines, and something behind it."""

    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await _write(writer, [whole(json.dumps(document(asked)).encode(), status, *lines) + tail])
        await _then(writer, then)

    return talk


def changed(before: str, after: bytes) -> Talk:
    """Answer with the honest checkpoint, a piece of its text put in another way."""

    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        body = json.dumps(document(asked)).encode()
        assert before.encode() in body
        await _write(writer, [whole(body.replace(before.encode(), after))])

    return talk


async def _write(writer: asyncio.StreamWriter, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        writer.write(chunk)
        await writer.drain()


async def _then(writer: asyncio.StreamWriter, then: str) -> None:
    if then == "hang":
        await asyncio.Event().wait()
    if then == "close":
        writer.close()


# ── bodies without measure ───────────────────────────────────────────────────────────────────────

BLANKS = bytes(MIB).replace(b"\0", b" ")


def endless(pace: float, *, opening: bytes, piece: bytes) -> Talk:
    """An answer that goes on for ever, a piece at a time, each after `pace` seconds."""

    async def talk(_: Asked, writer: asyncio.StreamWriter) -> None:
        await _write(writer, [opening])
        while True:
            await _write(writer, [piece])
            await asyncio.sleep(pace)

    return talk


def encoded(coding: str, *pieces: bytes) -> Talk:
    """A body in a coding that may not have been asked for."""
    return writes(head("200 OK", f"Content-Encoding: {coding}", "Connection: close"), *pieces)


def parts(count: int) -> Talk:
    """A checkpoint of many parts."""

    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        honest = document(asked)
        body = json.dumps({**honest, "parts": honest["parts"] * count}, separators=(",", ":"))
        await _write(writer, [whole(body.encode())])

    return talk


def small_parts(count: int) -> Talk:
    """As many parts as fit: none of them says anything."""
    return changed_whole(lambda honest: {**honest, "parts": [{}] * count})


def changed_whole(change: Any) -> Talk:
    """The honest document after a change."""

    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await _write(writer, [whole(json.dumps(change(document(asked))).encode())])

    return talk


def _pieces(count: int, piece: bytes) -> Iterator[bytes]:
    return (piece for _ in range(count))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def big(*lines: str, chunked: bool = False, count: int = 1024) -> Talk:
    """A gibibyte of blanks."""

    async def talk(_: Asked, writer: asyncio.StreamWriter) -> None:
        piece = _chunk(BLANKS) if chunked else BLANKS
        await _write(writer, [head("200 OK", *lines)])
        await _write(writer, _pieces(count, piece))
        writer.close()

    return talk


NOTHING = bytes(64 * MIB)
BOMB = gzip.compress(NOTHING, 1)  # in 300 KB
DEFLATED_BOMB = zlib.compress(NOTHING, 1)
ZSTD_BOMB = zstandard.compress(NOTHING, 1)

#: More than is kept in memory; each ends soon.
HEAVY = [
    case("gzip bomb", encoded("gzip", BOMB), "too_large"),
    case("gzip bomb of many members", encoded("gzip", *[BOMB] * 16), "too_large"),
    case("gzip in gzip", encoded("gzip", gzip.compress(BOMB)), "unreadable"),
    case("gzip, gzip", encoded("gzip, gzip", gzip.compress(BOMB)), "unreadable"),
    case("deflate bomb", encoded("deflate", DEFLATED_BOMB), "too_large"),
    case("zstd bomb", encoded("zstd", ZSTD_BOMB), "unreadable", "cut", "too_large"),
    case("br that is none", encoded("br", BOMB), "unreadable", "cut"),
    case("unknown coding", encoded("x-none", b"{}"), "unreadable"),
    case("a gibibyte", big(f"Content-Length: {1 << 30}"), "too_large"),
    case("a gibibyte until the end", big("Connection: close"), "too_large"),
    case("a gibibyte in chunks", big("Transfer-Encoding: chunked", chunked=True), "too_large"),
    case(
        "a gibibyte in chunks that says it has two bytes",
        big("Content-Length: 2", "Transfer-Encoding: chunked", chunked=True),
        "unreadable",
        "too_large",
    ),
    case(
        "a gibibyte as an error",
        writes(head("500 Oops"), *_pieces(64, BLANKS)),
        "too_large",
    ),
    case(
        "a gibibyte to be refused with",
        writes(head("401 Unauthorized"), *_pieces(64, BLANKS)),
        "too_large",
    ),
    case("many parts", parts(40_000), "too_large"),
    case("more parts than fit", parts(100_000), "too_large"),
    case("as many parts as fit", small_parts(2_000_000), "too_large"),
    case("a deep list", says(b"[" * 100_000), "unreadable"),
    case("a deep object", says(b'{"a":' * 100_000), "unreadable"),
    case(
        "deep links",
        changed('"links": [', b'"links": [' + b"[" * 100_000 + b"]" * 100_000),
        None,
        "unreadable",
    ),
    case("a long number", says(b'{"id": ' + b"1" * 4_000_000 + b"}"), "unreadable"),
    case("a deep error", says(b'{"errorCode":' + b"[" * 100_000, "404 Not Found"), "unreadable"),
    case(
        "a huge error",
        says(
            json.dumps({"error": 403, "errorCode": "X" * MIB, "detail": "y" * MIB}).encode(),
            "403 Forbidden",
        ),
        "project_refused",
    ),
    case(
        "a million parameters",
        says(
            json.dumps({"error": 429, "errorCode": "X", "parameters": [[{}]] * 400_000}).encode(),
            "404 Not Found",
        ),
        "not_found",
    ),
]


#: What never ends, and has to be ended; beside one that does, since without it nothing is known.
ENDLESS = [
    case("an honest answer", about(), None),
    case(
        "a body for ever",
        endless(0.2, opening=head("200 OK", "Connection: close"), piece=b" "),
        "timed_out",
    ),
    case(
        "chunks for ever",
        endless(0.2, opening=head("200 OK", "Transfer-Encoding: chunked"), piece=_chunk(b" ")),
        "timed_out",
    ),
    case(
        "a chunk's extension for ever",
        endless(
            0.0, opening=head("200 OK", "Transfer-Encoding: chunked") + b"1;", piece=b"a" * 65536
        ),
        "timed_out",
        "cut",
        "unreadable",
    ),
    case(
        "trailers for ever",
        endless(
            0.0,
            opening=head("200 OK", "Transfer-Encoding: chunked") + _chunk(b"{}") + b"0\r\n",
            piece=b"X-More: more\r\n" * 1000,
        ),
        "timed_out",
        "cut",
        "unreadable",
    ),
    case("a head for ever", endless(0.2, opening=b"HTTP/1.1 200 OK\r\n", piece=b"A"), "timed_out"),
    case(
        "headers for ever",
        endless(0.0, opening=b"HTTP/1.1 200 OK\r\n", piece=b"X-More: more\r\n" * 1000),
        "unreadable",
    ),
    case(
        "a header for ever",
        endless(0.0, opening=b"HTTP/1.1 200 OK\r\nX-More: ", piece=b"m" * 65536),
        "unreadable",
    ),
    case(
        "a status line for ever",
        endless(0.0, opening=b"HTTP/1.1 200 ", piece=b"O" * 65536),
        "unreadable",
    ),
    case(
        "interim answers for ever",
        endless(0.0, opening=b"", piece=head("102 Processing") * 1000),
        "timed_out",
        "unreadable",
    ),
    case(
        "links for ever",
        endless(0.0, opening=b"", piece=head("103 Early Hints", f"Link: <{METADATA}>") * 1000),
        "timed_out",
        "unreadable",
    ),
]


# ── the wire ─────────────────────────────────────────────────────────────────────────────────────

GONE_ASTRAY = b'{"error":404,"errorCode":"CHECKPOINT_NOT_FOUND","detail":"of another request"}'

WIRE = [
    case("no status line", writes(b'{"restorable": true}\r\n\r\n'), "unreadable"),
    case("bytes of another protocol", writes(bytes(range(256)) * 16), "unreadable"),
    case("HTTP/0.9", writes(b"<html>hello</html>"), "unreadable", "unreachable"),
    case("HTTP/1.0", writes(b"HTTP/1.0 200 OK\r\n\r\n{}"), "unreadable"),
    case("HTTP/3.7", writes(b"HTTP/3.7 200 OK\r\nContent-Length: 2\r\n\r\n{}"), "unreadable"),
    case("status 999", says(b"{}", "999 Beyond"), "server_error", "unexpected_status"),
    case("status 099", writes(head("099 Below")), "unreadable", "unexpected_status"),
    case("status 20000", writes(head("20000 Above")), "unreadable"),
    case("status two hundred", writes(head("two hundred OK")), "unreadable"),
    case("204 with a body", about(status="204 No Content", then="close"), "unreadable"),
    case("304 with a body", about(status="304 Not Modified", then="close"), "unreadable"),
    case("206", about(status="206 Partial Content"), "unexpected_status"),
    case(
        "101",
        writes(head("101 Switching", "Upgrade: h2c", "Connection: upgrade"), b"x" * 9999),
        "unexpected_status",
        "unreadable",
    ),
    case(
        "more than it says",
        writes(head("200 OK", "Content-Length: 2"), b'{}{"restorable": true}'),
        "unreadable",
    ),
    case("less than it says", writes(head("200 OK", "Content-Length: 1000000"), b"{}"), "cut"),
    case("garbage behind it", about(tail=b"\x00\xff garbage\r\n\r\n"), None, "unreadable"),
    case(
        "two lengths",
        writes(head("200 OK", "Content-Length: 2", "Content-Length: 3"), b"{}"),
        "unreadable",
    ),
    case("a negative length", writes(head("200 OK", "Content-Length: -2"), b"{}"), "unreadable"),
    case(
        "a length beyond measure",
        writes(head("200 OK", f"Content-Length: {'9' * 40}"), b"{}"),
        "unreadable",
    ),
    case(
        "a length just below 2^64",
        writes(head("200 OK", f"Content-Length: {2**64 - 1}"), b"{}"),
        "unreadable",
        "too_large",
        "cut",
    ),
    case(
        "a chunk beyond measure",
        writes(head("200 OK", "Transfer-Encoding: chunked"), b"f" * 40 + b"\r\n{}"),
        "unreadable",
        "cut",
    ),
    case(
        "a negative chunk",
        writes(head("200 OK", "Transfer-Encoding: chunked"), b"-2\r\n{}\r\n0\r\n\r\n"),
        "unreadable",
        "cut",
    ),
    case(
        "a bare line feed",
        writes(b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"),
        "unreadable",
        "unreachable",
    ),
    case("129 headers", about(*[f"X-{n}: a" for n in range(129)]), "unreadable"),
    case("a header's name that is none", about("\x7f\x00: a"), "unreadable"),
    case("a header with NUL", about("RateLimit-Limit: 1\x00"), "unreadable", None),
    case(
        "a header that steers", about("Deprecation: \x1b]0;owned\x07\x1b[31m"), None, "unreadable"
    ),
    case("a header in Latin-1", about("Sunset: \xff\xfe\x9b31m"), None),
    case("a folded header", about("Sunset: a\r\n b"), None, "unreadable"),
    case(
        "cookies",
        about(*[f"Set-Cookie: a{n}={'b' * 4000}; Domain=.invalid" for n in range(9)]),
        None,
    ),
    case("interim answers", writes(head("100 Continue") * 50, whole(b"{}")), "unreadable"),
    *(
        case(
            f"Retry-After {value!r}", says(b"{}", "503 No", f"Retry-After: {value}"), "server_error"
        )
        for value in (
            "-1",
            "",
            "soon",
            "1e9",
            "999999999999999999999",
            "0x10",
            "NaN",
            "inf",
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "Fri, 31 Dec 9999 23:59:59 -2359",
            "Mon, 01 Jan 0001 00:00:00 GMT",
            "Mon, 99 Foo 2026 99:99:99 GMT",
            "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
            "1, 2",
            "\x85 1",
            "\xb2",
        )
    ),
    *(
        case(
            f"RateLimit {value!r}",
            about(f"RateLimit-Limit: {value}", f"RateLimit-Remaining: {value}"),
            None,
        )
        for value in ("-1", "0", "", "1e9", "NaN", "9" * 400, "0, 0", "\xb2", "100;w=60")
    ),
    *(
        case(f"Content-Type {value!r}", about(f"Content-Type: {value}"), None)
        for value in ("text/html", "", "application/json; charset=utf-7", "a" * 8000, ";;;=")
    ),
]


def elsewhere(url: str) -> list[Case]:
    """Answers that point to another server, or to an address that gives away a machine's keys."""
    statuses = (300, 301, 302, 303, 305, 307, 308)
    places = (url, METADATA, "//other.invalid/", "/api/atlas/v2", "")
    lines = (
        f"Refresh: 0;url={url}",
        f"Link: <{url}>; rel=preload",
        f"Content-Location: {url}",
        f'Alt-Svc: h2="{url.removeprefix("http://")}"',
    )
    return [
        *(
            case(
                f"{status} to {place}",
                says(b"", f"{status} Moved", f"Location: {place}"),
                "unexpected_status",
            )
            for status in statuses
            for place in places
        ),
        *(case(line, about(line), None) for line in lines),
        case(
            "links",
            changed_whole(lambda d: {**d, "links": [{"rel": "next", "href": url}] * 9}),
            None,
        ),
    ]


# ── what the body says ───────────────────────────────────────────────────────────────────────────

#: Values as JSON, and what is no JSON.
VALUES = (
    "null", "true", "false", "0", "-1", "1.5", "1e300", "1e400", "-1e400", "NaN", "Infinity",
    "9" * 30, "9" * 400, "9" * 5000, '""', '"text"',
    '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"',
    '"\\u001b[31mred\\u0007\\u009b31m\\u202e"', "[]", "[[]]", "{}",
    '{"a": {}}', "[null]", '["a", 1]',
    '"9999-12-31T23:59:59Z"', '"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59-23:59"',
    '"2026-02-30T25:61:61Z"', '"2026-11-20"', '"=cmd()|a!A1"', '"<script>alert(1)</script>"',
    '"' + "long" * 10_000 + '"', "tru", '"open', "\xff", '"\xed\xa0\x80"', "'a'", "",
)  # fmt: skip

#: Attribute → how to say it with another value. Each belongs to one project.
FIELDS = {
    "id": ("id",),
    "groupId": ("groupId",),
    "clusterId": ("clusterId",),
    "started": ("started",),
    "completed": ("completed",),
    "timestamp": ("timestamp",),
    "restorable": ("restorable",),
    "parts": ("parts",),
    "links": ("links",),
    "unknown": ("unknown",),
    "part": ("parts", 0),
    "typeName": ("parts", 0, "typeName"),
    "replicaSetName": ("parts", 0, "replicaSetName"),
    "shardName": ("parts", 0, "shardName"),
    "tokenDiscovered": ("parts", 0, "tokenDiscovered"),
    "tokenTimestamp": ("parts", 0, "tokenTimestamp"),
    "date": ("parts", 0, "tokenTimestamp", "date"),
    "increment": ("parts", 0, "tokenTimestamp", "increment"),
}


def with_value(
    path: tuple[str | int, ...], value: str, error: dict[str, Any] | None = None
) -> Talk:
    """Answer with `value`, as it stands, in one place of the honest document (or of `error`)."""

    async def talk(asked: Asked, writer: asyncio.StreamWriter) -> None:
        found: Any = document(asked) if error is None else json.loads(json.dumps(error))
        place: Any = found
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = "@here@"
        raw = value.encode("latin-1")
        body = json.dumps(found).encode().replace(b'"@here@"', raw)
        await _write(writer, [whole(body, "200 OK" if error is None else "404 Not Found")])

    return talk


def _ways(field: str) -> frozenset[str | None]:
    """What may come of a value of any kind in that place."""
    if field in {"id", "groupId"}:
        return frozenset({"other_checkpoint", "unreadable", None})
    return frozenset({"unreadable", None})


SHAPES = [
    Case(f"{field} is {value[:20]!r}", with_value(path, value), _ways(field))
    for field, path in FIELDS.items()
    for value in VALUES
]

_ERROR = {
    "error": 404,
    "errorCode": "SOMETHING",
    "reason": "Not Found",
    "detail": "nothing",
    "parameters": ["a"],
    "badRequestDetail": {"fields": [{"field": "f", "description": "d"}]},
}
_ERROR_FIELDS: dict[str, tuple[str | int, ...]] = {
    **{name: (name,) for name in _ERROR},
    "parameter": ("parameters", 0),
    "fields": ("badRequestDetail", "fields"),
    "violation": ("badRequestDetail", "fields", 0),
    "field": ("badRequestDetail", "fields", 0, "field"),
    "description": ("badRequestDetail", "fields", 0, "description"),
}

#: A 404 is an absence by Atlas's own code only, whatever else stands there.
ERRORS = [
    Case(
        f"error's {name} is {value[:20]!r}",
        with_value(path, value, _ERROR),
        frozenset({"not_found", "unreadable"}),
    )
    for name, path in _ERROR_FIELDS.items()
    for value in VALUES
]

OTHERS = [
    case("nothing", says(b""), "unreadable"),
    case("null", says(b"null"), "unreadable"),
    case("a number", says(b"1"), "unreadable"),
    case("a list", says(b"[]"), "unreadable"),
    case("a list of one", changed_whole(lambda honest: [honest]), "unreadable"),
    case("an empty object", says(b"{}"), "unreadable"),
    case("a byte order mark", changed("{", b"\xef\xbb\xbf{"), "unreadable"),
    case("UTF-16", says(json.dumps({"id": "a"}).encode("utf-16")), "unreadable"),
    case("NUL behind it", changed("}]}", b"}]}\x00"), "unreadable"),
    case("two of them", changed("}]}", b"}]}{}"), "unreadable"),
    case("the id twice", changed('"id":', b'"id": "' + b"0" * 24 + b'", "id":'), None),
    case(
        "the id twice, the other last",
        changed('"links":', b'"id": "' + b"0" * 24 + b'", "links":'),
        "other_checkpoint",
    ),
    case(
        "restorable twice",
        changed('"restorable": true', b'"restorable": true, "restorable": 0'),
        None,
    ),
    case("another checkpoint", changed_whole(lambda d: {**d, "id": "f" * 24}), "other_checkpoint"),
    case(
        "another project", changed_whole(lambda d: {**d, "groupId": "f" * 24}), "other_checkpoint"
    ),
    case(
        "an id in other digits",
        changed_whole(lambda d: {**d, "id": d["id"].translate({48: 0x660, 49: 0x661})}),
        "other_checkpoint",
    ),
    case(
        "an id with a line feed",
        changed_whole(lambda d: {**d, "id": d["id"] + "\n"}),
        "other_checkpoint",
    ),
    case(
        "an envelope nobody asked for", changed_whole(lambda d: {"status": 200, "content": d}), None
    ),
    case(
        "an envelope with a wild status",
        changed_whole(lambda d: {"status": 10**30, "content": d}),
        "unreadable",
    ),
    case(
        "envelopes in envelopes",
        changed_whole(lambda d: {"status": 200, "content": {"status": 200, "content": d}}),
        "unreadable",
    ),
    *(
        case(
            f"an error in HTML, {status}",
            says(b"<h1>\x1b[31m" + b"no" * 500, f"{status} No"),
            "not_found",
            "project_refused",
            "server_error",
            "bad_request",
            "unreadable",
            "unexpected_status",
        )
        for status in (400, 403, 404, 405, 418, 500, 502)
    ),
]
