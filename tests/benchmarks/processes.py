"""Processes, measured from outside: CPU, wall clock and memory as the system counts them.

This process stays small (nothing but the standard library): the peak that the system reports for a
child begins with what its parent had at the fork.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.request import ProxyHandler, build_opener

from tests.benchmarks.figures import BenchmarkFailed

ROOT = Path(__file__).parents[2]
_SHOWN_ERROR_CHARS = 3000
_LISTENING = "listening on "


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children took. Seconds of CPU (user and system), seconds, MiB."""

    cpu_s: float
    wall_s: float
    peak_mib: float


def measure(command: Sequence[str], environment: Mapping[str, str]) -> tuple[Usage, str]:
    """Run a command to its end; gives what it took and what it wrote to standard output.

    Raises `BenchmarkFailed` unless it ends with 0.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=output, stderr=errors, env=environment, cwd=ROOT, text=True
        )
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise BenchmarkFailed(
                f"{' '.join(command)} ended with {process.returncode}: {_end_of(errors)}"
            )
        usage = Usage(used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss / _peaks_a_mib())
        output.seek(0)
        return usage, output.read()


def _peaks_a_mib() -> int:
    """`ru_maxrss` counts KiB on Linux and bytes on macOS."""
    return 2**20 if sys.platform == "darwin" else 2**10


def _end_of(file: IO[str]) -> str:
    file.seek(0)
    return file.read()[-_SHOWN_ERROR_CHARS:]


# --- which core -------------------------------------------------------------------------------


@contextmanager
def parted_cores() -> Iterator[list[str]]:
    """Pin this process, and so its children, to one core for as long as the context lasts.

    Gives the number of another one as arguments for a server: none, and nothing is pinned, where
    there is but one core, or no such call (macOS).
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) <= 1:
        yield []
        return
    os.sched_setaffinity(0, {cores[-1]})
    try:
        yield [str(cores[0])]
    finally:
        os.sched_setaffinity(0, cores)


# --- servers ----------------------------------------------------------------------------------


@contextmanager
def serving(
    module: str, *arguments: str, environment: Mapping[str, str]
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a server of this package; gives its address once it listens, and its process."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=environment, cwd=ROOT, text=True
    ) as process:
        try:
            yield _address(process), process
        finally:
            process.terminate()


def _address(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout else ""
    if not line.startswith(_LISTENING):
        raise BenchmarkFailed(f"a server said {line!r} instead of where it listens")
    return line.removeprefix(_LISTENING).strip()


@dataclass(frozen=True, slots=True)
class ServerUsage:
    """What the fast server took so far: seconds of CPU, requests answered."""

    cpu_s: float
    requests: int


def server_usage(base_url: str) -> ServerUsage:
    """Ask the fast server what it took so far."""
    with build_opener(ProxyHandler({})).open(f"{base_url}/usage", timeout=30) as answer:
        return ServerUsage(**json.load(answer))
