"""The faults of single requests, played over real HTTP.

Every player gets a `Scene`: the request and the honest answer, which it spoils. None returned means
that the client got no answer at all.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

from aiohttp import web

from pipeline.simulator.answers import Answer, problem, render
from pipeline.simulator.buckets import Taken, refusal_parameters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pipeline.simulator.faults import FaultPlan, Lasting, Transient

OVERSIZE_BYTES = 9 * 1024 * 1024
"""More than the 8 MiB beyond which a careful client stops reading."""

HTML = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"
ELSEWHERE = "https://login.elsewhere.invalid/"
NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Scene:
    """A request, the honest answer to it, and what the bucket said."""

    request: web.Request
    honest: Answer
    taken: Taken | None
    plan: FaultPlan

    def plain(self) -> web.Response:
        """Return the honest answer without compression, so that its bytes can be spoiled."""
        return render(self.request, self.honest, compress=False)


def throttled(path: str, taken: Taken, retry_after: str | None) -> Answer:
    """Return a 429 whose headers and parameters say what the bucket is like.

    `retry_after` is the header's text; None leaves it out.
    """
    headers = rate_headers(taken)
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    detail = f"Resource {path} is asked too often."
    return problem(429, taken.rules.form, detail, refusal_parameters(path, taken), headers=headers)


def rate_headers(taken: Taken) -> dict[str, str]:
    """Return the RateLimit headers, unless the rules leave them out."""
    if not taken.rules.headers:
        return {}
    limit = str(taken.rules.capacity)
    return {"RateLimit-Limit": limit, "RateLimit-Remaining": str(taken.remaining)}


async def play(kind: Transient | Lasting, scene: Scene) -> web.StreamResponse | None:
    """Answer a request the way a fault of that kind does."""
    return await PLAYERS[kind](scene)


async def _server_error(scene: Scene) -> web.StreamResponse:
    return render(scene.request, problem(500, "UNEXPECTED_ERROR", "Something went wrong."))


async def _bad_gateway(_scene: Scene) -> web.StreamResponse:
    text = HTML.format("502 Bad Gateway")
    return web.Response(status=502, text=text, content_type="text/html")


async def _unavailable(scene: Scene) -> web.StreamResponse:
    return render(scene.request, unavailable(None))


async def _unavailable_for(scene: Scene) -> web.StreamResponse:
    return render(scene.request, unavailable(scene.plan.retry_after))


def unavailable(retry_after: int | None) -> Answer:
    """Return a 503, with the advice to come back in so many seconds if there is any."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return problem(503, "SERVICE_UNAVAILABLE", "Atlas is being maintained.", headers=headers)


def _refuse(scene: Scene, retry_after: str | None, *, headers: bool = True) -> web.StreamResponse:
    taken = scene.taken
    if taken is None:
        # Outside the bucket's endpoints there is nothing to say about a bucket.
        bare = problem(429, "RATE_LIMITED", "Asked too often.", [scene.request.path, 100, 1])
        return render(scene.request, bare)
    seconds = 0 if retry_after == "0" else scene.plan.retry_after
    advised = replace(taken, allowed=False, remaining=0, retry_after=seconds)
    answer = throttled(scene.request.path, advised, retry_after)
    return render(scene.request, answer if headers else Answer(429, answer.payload))


async def _throttle(scene: Scene) -> web.StreamResponse:
    return _refuse(scene, str(scene.plan.retry_after))


async def _throttle_without_advice(scene: Scene) -> web.StreamResponse:
    return _refuse(scene, None)


async def _throttle_zero(scene: Scene) -> web.StreamResponse:
    return _refuse(scene, "0")


async def _throttle_until(scene: Scene) -> web.StreamResponse:
    until = datetime.now(UTC) + timedelta(seconds=scene.plan.retry_after)
    return _refuse(scene, format_datetime(until, usegmt=True))


async def _throttle_bare(scene: Scene) -> web.StreamResponse:
    return _refuse(scene, None, headers=False)


async def _empty(scene: Scene) -> web.StreamResponse:
    return web.Response(headers={"Content-Type": scene.honest.content_type})


async def _text(_scene: Scene) -> web.StreamResponse:
    return web.Response(text="upstream connect error or disconnect/reset before headers\n")


async def _cut_json(scene: Scene) -> web.StreamResponse:
    response = scene.plain()
    body = _body(response)
    response.body = body[: len(body) // 2]
    return response


async def _cut_body(scene: Scene) -> web.StreamResponse:
    honest = scene.plain()
    body = _body(honest)
    response = web.StreamResponse(status=honest.status, headers=honest.headers)
    response.content_length = len(body)
    await response.prepare(scene.request)
    await response.write(body[: len(body) // 2])
    if scene.request.transport is not None:
        scene.request.transport.close()
    return response


async def _reset(scene: Scene) -> None:
    transport = scene.request.transport
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    # With linger at zero the kernel sends RST instead of an orderly end.
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    transport.abort()


async def _slow(scene: Scene) -> web.StreamResponse:
    await asyncio.sleep(scene.plan.slow_s)
    return render(scene.request, scene.honest)


async def _oversized(scene: Scene) -> web.StreamResponse:
    response = scene.plain()
    response.body = _padded(_body(response))
    return response


async def _gzip_bomb(scene: Scene) -> web.StreamResponse:
    response = scene.plain()
    response.body = gzip.compress(_padded(_body(response)), compresslevel=1, mtime=0)
    response.headers["Content-Encoding"] = "gzip"
    return response


def _padded(body: bytes) -> bytes:
    """Pad with blanks: still sound JSON, so that only its size is wrong with it."""
    return body + b" " * OVERSIZE_BYTES


async def _html(_scene: Scene) -> web.StreamResponse:
    return web.Response(text=HTML.format("Sign in"), content_type="text/html")


async def _gone(scene: Scene) -> web.StreamResponse:
    return render(scene.request, withdrawn())


def withdrawn() -> Answer:
    """Return the 410 of a version that was taken away."""
    return problem(410, "VERSION_GONE", "This version of the resource was withdrawn.")


async def _redirect(_scene: Scene) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": ELSEWHERE})


async def _teapot(_scene: Scene) -> web.StreamResponse:
    return web.Response(status=418, text="short and stout\n")


def _body(response: web.Response) -> bytes:
    return response.body if isinstance(response.body, bytes) else b""


PLAYERS: dict[Transient | Lasting, Callable[[Scene], Awaitable[web.StreamResponse | None]]] = {
    "500": _server_error,
    "502-html": _bad_gateway,
    "503": _unavailable,
    "503-retry-after": _unavailable_for,
    "429": _throttle,
    "429-no-retry-after": _throttle_without_advice,
    "429-zero": _throttle_zero,
    "429-date": _throttle_until,
    "429-no-headers": _throttle_bare,
    "empty-200": _empty,
    "text-200": _text,
    "cut-json": _cut_json,
    "cut-body": _cut_body,
    "reset": _reset,
    "slow": _slow,
    "oversized": _oversized,
    "gzip-bomb": _gzip_bomb,
    "html-200": _html,
    "always-500": _server_error,
    "gone": _gone,
    "redirect": _redirect,
    "teapot": _teapot,
}
