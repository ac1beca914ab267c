"""Servers on loopback that a test writes by hand, byte by byte, and commands that are measured.

A server lives in a thread with a loop of its own, so that a command can be waited for meanwhile.
"""

import asyncio
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PROGRAM = (sys.executable, "-m", "pipeline")

#: Only against hanging for ever: nothing is concluded from how long something took. Seconds.
_LONGEST = 180.0


class Asked(NamedTuple):
    """A request as it came in."""

    method: str
    path: str
    head: str
    body: bytes

    @property
    def parts(self) -> list[str]:
        return self.path.partition("?")[0].split("/")


Talk = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers with `talk`; keeps what it was asked. A talk that closes its writer ends it."""

    def __init__(self, talk: Talk) -> None:
        self.port = 0
        self.asked: list[Asked] = []
        self.connections = 0
        self._talk = talk
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            while not writer.is_closing():
                asked = await _read_request(reader)
                self.asked.append(asked)
                await self._talk(asked, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the client has left, or says nothing that could be answered; or all is over
        finally:
            self._talks.discard(task)
            writer.close()

    async def end(self) -> None:
        for task in self._talks:
            task.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)


async def _read_request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    method, path, _ = head.split("\r\n", 1)[0].split(" ")
    lengths = [
        line[15:] for line in head.split("\r\n") if line.lower().startswith("content-length")
    ]
    body = await reader.readexactly(int(lengths[0])) if lengths else b""
    return Asked(method, path, head, body)


@contextmanager
def serving(talk: Talk, *, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Serve `talk` on a free port of 127.0.0.1, in a thread, as long as the context lasts."""
    server, loop, ready = Server(talk), asyncio.new_event_loop(), threading.Event()
    over = asyncio.Event()

    async def main() -> None:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=1024, ssl=tls)
        server.port = listening.sockets[0].getsockname()[1]
        ready.set()
        await over.wait()
        listening.close()
        await server.end()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)
        assert not thread.is_alive()
        loop.close()


# ── commands ─────────────────────────────────────────────────────────────────────────────────────


class Ended(NamedTuple):
    """How a command ended, and the most memory it had, in bytes."""

    code: int
    out: str
    err: str
    peak: int

    @property
    def last_line(self) -> str:
        return self.err.splitlines()[-1]


class Started:
    """A command under way; `wait` for it once."""

    def __init__(
        self, *args: str | Path, env: dict[str, str], folder: Path, program: Sequence[str] = PROGRAM
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / "stdout", folder / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*program, *map(str, args)],
                env=env,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def wait(self) -> Ended:
        timer = threading.Timer(_LONGEST, self.process.kill)
        timer.start()
        try:
            status, peak = _ended(self.process.pid)
        finally:
            timer.cancel()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        out, err = (path.read_text("utf-8", "backslashreplace") for path in (self._out, self._err))
        return Ended(self.process.returncode, out, err, peak)


def _ended(pid: int) -> tuple[int, int]:
    """Wait for a process; give its status and the most memory that it had, in bytes.

    What `wait4` tells counts in the memory of whoever started it, which may be a process of many
    tests. The kernel's own mark only rises, so that the last look at it is as good as all.
    """
    mark = Path(f"/proc/{pid}/status")
    if not mark.exists():
        _, status, usage = os.wait4(pid, 0)
        return status, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    peak = 0
    while True:
        found = re.search(r"^VmHWM:\s+(\d+) kB", mark.read_text("utf-8"), re.MULTILINE)
        peak = max(peak, int(found[1]) * 1024 if found else 0)
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status, peak
        time.sleep(0.01)


def clean_env(**extra: str) -> dict[str, str]:
    """This process's environment without anybody's credentials or proxies."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MONGODB_ATLAS") and not name.lower().endswith("_proxy")
    }
    return {**kept, "PYTHONPATH": str(ROOT), **extra}
