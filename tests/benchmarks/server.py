"""An Atlas that does nothing but answer fast, so that what is measured is the client.

HTTP/1.1 written by hand on asyncio's streams of bytes, on uvloop where that is installed.

    python -m tests.benchmarks.server [CORE]

prints `listening on http://127.0.0.1:PORT` and goes on until it is ended.
"""

import asyncio
import os
import re
import sys
from collections.abc import Callable
from typing import cast

from tests.benchmarks.answers import Atlas

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Exchange(asyncio.Protocol):
    """One connection: bytes in, however they are cut, answers out in the same order."""

    def __init__(self, atlas: Atlas) -> None:
        self._atlas = atlas
        self._rest = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back. (uvloop's transport is one by what it does, not by its class.)"""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is there whole."""
        data, start, answers = self._rest + data, 0, []
        while (end := data.find(_HEAD_END, start)) >= 0:
            head = data[start:end]
            stop = end + len(_HEAD_END) + _body_length(head)
            if stop > len(data):
                break
            answers.append(self._atlas.answer(head))
            start = stop
        self._rest = data[start:]
        if answers and self._transport is not None:
            self._transport.write(b"".join(answers))


def _body_length(head: bytes) -> int:
    if head.startswith(b"GET"):
        return 0
    found = _LENGTH.search(head)
    return int(found[1]) if found else 0


async def _serve() -> None:
    atlas = Atlas()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Exchange(atlas), "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"listening on http://127.0.0.1:{port}\n")
    sys.stdout.flush()
    await server.serve_forever()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Give uvloop's loop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def main() -> None:
    """Serve until ended, on the core given, if any."""
    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve())


if __name__ == "__main__":
    main()
