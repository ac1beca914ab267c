"""ClickHouse, from PyPI, in a process of its own.

It is a library with threads, timers and signals of its own, and a statement of it that waits cannot
be stopped: in the process of the tests it could stop them all. A statement here has its time.

    {"sql": "…", "form": "ArrowStream"}    a line on standard input
    {"size": 12}                           a line on standard output, and so many bytes; or:
    {"refused": "…"}
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: What a statement may take. Seconds.
_PATIENCE_S = 300


class Refused(Exception):
    """A statement that ClickHouse has refused."""


class Session:
    """A session, which lasts as long as its process; it takes one statement at a time."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def query(self, sql: str, form: str = "CSV") -> bytes:
        """Run one statement; gives what it finds. Raises `Refused`."""
        limit = threading.Timer(_PATIENCE_S, self._process.kill)
        limit.start()
        try:
            return self._answer(json.dumps({"sql": sql, "form": form}))
        finally:
            limit.cancel()

    def _answer(self, asked: str) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(asked.encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"ClickHouse has died, or had no answer in {_PATIENCE_S} s, to {asked}"
        answer = json.loads(line)
        if "refused" in answer:
            raise Refused(answer["refused"])
        return self._process.stdout.read(int(answer["size"]))


@contextmanager
def running(folder: Path) -> Iterator[Session]:
    """Start ClickHouse with its data in a folder."""
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.clickhouse", str(folder)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield Session(process)
        finally:
            # It keeps nothing that is wanted.
            process.kill()


def _serve(folder: str) -> None:
    # What the library says on standard output is no answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from chdb import session as sessions

    opened: Any = sessions.Session
    session = opened(folder)
    # They interrupt a statement with signals, to see where it is.
    session.query(
        "SET query_profiler_real_time_period_ns = 0, query_profiler_cpu_time_period_ns = 0"
    )
    for line in sys.stdin:
        data, answer = _answered(session, **json.loads(line))
        answers.write(json.dumps(answer).encode() + b"\n" + data)
        answers.flush()


def _answered(session: Any, sql: str, form: str) -> tuple[bytes, dict[str, Any]]:
    from chdb._exceptions import ChdbError  # not that of `chdb`, which has its name

    try:
        data: bytes = session.query(sql, form).bytes()
    except ChdbError as error:
        return b"", {"refused": str(error)}
    return data, {"size": len(data)}


if __name__ == "__main__":
    _serve(sys.argv[1])
