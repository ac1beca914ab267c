"""Numbered fault points: each write, force to disk, rename and statement of a process, by number.

Nothing in the program knows of them: what it calls is replaced in a process that is there to be
broken. `install` counts what goes by and lets one of it fail, or kills the process there.

A point is told by its lane and its number in it. The thread that commits has a lane of its own:
it goes beside the others, and one count for both would differ from start to start.
"""

import builtins
import errno
import io
import json
import os
import shutil
import signal
import sqlite3
import stat
import threading
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq


class Mode(StrEnum):
    """What happens at a point."""

    FAIL = "fail"  # this once
    FULL = "full"  # and at every later point that wants room
    KILL = "kill"  # before anything of it is done
    TORN = "torn"  # when half of it is done
    STOP = "stop"  # SIGTERM comes, and all goes on


class Lane(StrEnum):
    """Whose calls are counted together."""

    MAIN = "main"
    COMMITS = "commits"


class Point(NamedTuple):
    """One point: where it is, what is done there, whether that can be half done, or fail at all."""

    lane: str
    number: int
    name: str
    tears: bool
    fails: bool
    fills: bool  # whether it wants room on the disk


class Fault(NamedTuple):
    """What goes wrong where."""

    lane: str
    number: int
    mode: str


class Points:
    """Counts points as they are passed, and acts at the one of the fault."""

    def __init__(self, log: int, fault: Fault | None) -> None:
        """`log` is a descriptor that each point is written to, so that a kill hides none."""
        self._log = log
        self._fault = fault
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._is_full = False

    def passes(
        self,
        name: str,
        error: Callable[[], Exception] | None,
        *,
        tear: Callable[[], object] | None = None,
        fills: bool = True,
    ) -> None:
        """Pass one point; raises `error` or does not return where the fault is here."""
        can = (tear is not None, error is not None, fills)
        with self._lock:
            point = self._count(name, *can)
        if self._fault is None:
            return
        if point[:2] == self._fault[:2]:
            self._act(Mode(self._fault.mode), error, tear)
        elif self._is_full and fills and error is not None:
            raise error()

    def _count(self, name: str, *can: bool) -> Point:
        is_commit = threading.current_thread().name == "journal"
        lane = Lane.COMMITS if is_commit else Lane.MAIN
        self._counts[lane] += 1
        point = Point(lane, self._counts[lane], name, *can)
        _write(self._log, json.dumps(point).encode() + b"\n")
        return point

    def _act(
        self, mode: Mode, error: Callable[[], Exception] | None, tear: Callable[[], object] | None
    ) -> None:
        if mode in {Mode.FAIL, Mode.FULL}:
            if error is None:
                return
            self._is_full = mode is Mode.FULL
            raise error()
        if mode is Mode.STOP:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if mode is Mode.TORN and tear is not None:
            tear()
        os.kill(os.getpid(), signal.SIGKILL)


_write = os.write
_open = io.open


def install(log: int, fault: Fault | None) -> None:
    """Replace what this process calls, for the rest of its life."""
    points = Points(log, fault)
    _replace_calls(points)
    _replace_open(points)
    _replace_parquet(points)
    _replace_sqlite(points)


def _full(what: object) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(what))


# --- calls of the file system ---


def _replace_calls(points: Points) -> None:
    """A full disk still lets names be taken away, and moved."""
    for name, fills in (("mkdir", True), ("symlink", True), ("fsync", True)):
        _replace_call(points, name, fills=fills)
    for name in ("rename", "replace", "unlink", "rmdir"):
        _replace_call(points, name, fills=False)
    _replace_sendfile(points)
    _replace_create(points)
    _replace_write(points)


def _replace_call(points: Points, name: str, *, fills: bool) -> None:
    plain: Callable[..., Any] = getattr(os, name)

    def counted(target: Any, *args: Any, **kwargs: Any) -> Any:
        place = _place(target, *args) if name in {"rename", "replace", "symlink"} else target
        if name == "mkdir" and not _makes(Path(target)):
            return plain(target, *args, **kwargs)
        shown = _shown(place)
        points.passes(f"{name} {shown}", lambda: _full(shown), fills=fills)
        return plain(target, *args, **kwargs)

    setattr(os, name, counted)


def _makes(folder: Path) -> bool:
    """Whether there is anything to make: a folder that is there, or is in none, is not touched."""
    return folder.parent.is_dir() and not folder.exists()


def _place(_source: Any, target: Any, *_: Any) -> Any:
    return target


def _shown(place: Any) -> str:
    """The file's own name; of a descriptor, what it stands for where that can be told."""
    if isinstance(place, int):
        link = f"/proc/self/fd/{place}"
        place = Path(link).readlink() if Path(link).exists() else "a file"
    name = Path(os.fsdecode(place)).name
    # A journal's own name is made of a digest, in which the Atlas's port has its part.
    return f"journal{name.partition('.journal')[2]}" if ".journal" in name else name


def _replace_sendfile(points: Points) -> None:
    """How a file is copied where the system does it."""
    if not hasattr(os, "sendfile"):
        return
    plain = os.sendfile

    def counted(out: int, source: int, offset: int, count: int) -> int:
        def tear() -> None:
            plain(out, source, offset, os.fstat(source).st_size // 2)

        shown = _shown(out)
        points.passes(f"copy {shown}", lambda: _full(shown), tear=tear)
        return plain(out, source, offset, count)

    os.sendfile = counted  # type: ignore[assignment]


def _replace_create(points: Points) -> None:
    plain = os.open

    def counted(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_CREAT:
            points.passes(f"create {_shown(path)}", lambda: _full(path))
        return plain(path, flags, *args, **kwargs)

    os.open = counted


def _replace_write(points: Points) -> None:
    """Writes past Python's own files; not those to the standard streams, or to a socket."""

    def counted(descriptor: int, data: Any, /) -> int:
        def tear() -> None:
            _write(descriptor, data[: len(data) // 2])

        if descriptor > 2 and stat.S_ISREG(os.fstat(descriptor).st_mode):
            shown = _shown(descriptor)
            points.passes(f"write {shown}", lambda: _full(shown), tear=tear)
        return _write(descriptor, data)

    os.write = counted


# --- files ---


class _Raw(io.FileIO):
    """A file whose every write is a point; below Python's buffers, where the system is called."""

    def __init__(self, path: Any, mode: str, points: Points) -> None:
        super().__init__(path, mode)
        self._points = points

    def write(self, data: Any, /) -> int:
        held = memoryview(data).cast("B")

        def tear() -> None:
            _write(self.fileno(), held[: len(held) // 2])

        shown = _shown(self.name)
        self._points.passes(f"write {shown}", lambda: _full(self.name), tear=tear)
        return super().write(held)


def _replace_open(points: Points) -> None:
    def counted(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *args: Any,
    ) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return _open(file, mode, buffering, encoding, errors, newline, *args)
        points.passes(f"open {_shown(file)}", lambda: _full(file))
        raw = _Raw(os.fspath(file), mode.replace("b", "").replace("t", ""), points)
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline)

    io.open = counted  # type: ignore[assignment]
    builtins.open = counted  # type: ignore[assignment]
    shutil.open = counted  # type: ignore[attr-defined]


def _replace_parquet(points: Points) -> None:
    """Arrow writes by itself: what it is asked to do is a point, whatever it makes of it."""
    _replace_arrow(points, "__init__", lambda _, path, *__: Path(path))
    _replace_arrow(points, "write_table", lambda writer, *_: Path(writer.where))
    _replace_arrow(points, "close", lambda writer: Path(writer.where))


def _replace_arrow(points: Points, name: str, file_of: Callable[..., Path]) -> None:
    plain = getattr(pq.ParquetWriter, name)

    def counted(writer: Any, *args: Any, **kwargs: Any) -> Any:
        if name == "close" and not writer.is_open:  # asked once more when it is thrown away
            return plain(writer)
        path = file_of(writer, *args)

        def tear() -> None:
            plain(writer, *args, **kwargs)
            os.truncate(path, path.stat().st_size // 2)

        error = OSError(errno.ENOSPC, "Error writing bytes to file")
        points.passes(f"{name} {path.name}", lambda: error, tear=tear)
        result = plain(writer, *args, **kwargs)
        if name == "__init__":
            writer.where = path
        return result

    setattr(pq.ParquetWriter, name, counted)


# --- the journal ---


def _full_database() -> sqlite3.Error:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


_WRITING = ("BEGIN", "INSERT", "CREATE", "COMMIT", "DROP", "DELETE", "UPDATE", "ROLLBACK")


class _Connection(sqlite3.Connection):
    """A connection whose every statement that writes is a point, and its end one as well."""

    points: Points

    def execute(self, statement: str, *args: Any) -> sqlite3.Cursor:
        self._pass(statement)
        return super().execute(statement, *args)

    def executemany(self, statement: str, *args: Any) -> sqlite3.Cursor:
        self._pass(statement)
        return super().executemany(statement, *args)

    def close(self) -> None:
        """What was logged is moved into the file here; where that fails, SQLite leaves it there."""
        self.points.passes("close the journal", None, fills=False)
        super().close()

    def _pass(self, statement: str) -> None:
        words = statement.split()
        if words[0].upper() in _WRITING or "journal_mode" in words:
            fills = words[0] != "ROLLBACK"
            self.points.passes(" ".join(words[:4]), _full_database, fills=fills)


def _replace_sqlite(points: Points) -> None:
    plain = sqlite3.connect
    _Connection.points = points

    def counted(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        points.passes("open the journal", _full_database)
        return plain(*args, factory=_Connection, **kwargs)

    sqlite3.connect = counted  # type: ignore[assignment]
