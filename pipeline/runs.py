"""The outputs of one audit: its lock, its staging folder, its published runs, what is current.

    outputs/<audit_name>/
      runs/<run_id>/      immutable once it is there
      current.json        which run is current, replaced atomically and last
      current             the same as a link
      attempts.jsonl      one line for every start and end
      .work/              unfinished journals, staging, the lock

A run is staged in a folder that no reader looks at, every file and folder is forced to disk, then
one rename makes it visible; only then does the pointer move. A reader that resolves the pointer
once, and reads on from there, never sees half a run.
"""

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import filelock
import msgspec

from pipeline.errors import AlreadyRunning, OutputsUnwritable
from pipeline.staging import Staging, writing

#: A journal untouched for so long is not gone on with any more. Seconds.
_ABANDONED_S = 7 * 86_400


class Current(msgspec.Struct, frozen=True):
    """What `current.json` says; `path` is relative to the audit's folder."""

    run_id: str
    audit_date: date
    path: str
    manifest_sha256: str
    exit_code: int
    schema_version: str


class AuditFolder:
    """The folder of one audit name."""

    def __init__(self, output_dir: Path, audit_name: str) -> None:
        self.path = output_dir / audit_name
        self.runs = self.path / "runs"
        self.work = self.path / ".work"

    def prepare(self) -> None:
        """Make the folders; raises `OutputsUnwritable` where that cannot be done."""
        with writing(self.path):
            self.runs.mkdir(parents=True, exist_ok=True)
            self.work.mkdir(exist_ok=True)
            probe = self.work / "probe"
            probe.write_bytes(b"")
            probe.unlink()

    @contextmanager
    def lock(self, holder: str) -> Iterator[None]:
        """Hold this audit; the lock dies with its process.

        `holder` tells others who has it. Raises `AlreadyRunning` when somebody else does.
        """
        note = self.work / "holder"
        lock = filelock.FileLock(self.work / "lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            by = _read_note(note)
            raise AlreadyRunning(f"the audit in {self.path} is already running: {by}") from None
        except OSError as error:
            raise OutputsUnwritable(f"{self.work} cannot be locked: {error.strerror}") from error
        try:
            with writing(note):
                note.write_text(holder, "utf-8")
            yield
        finally:
            with suppress(OSError):  # a note left behind does no harm, an end hidden by it would
                note.unlink(missing_ok=True)
            lock.release()

    def clean(self) -> None:
        """Remove what runs that died left behind; only while holding the lock.

        Half-staged runs, and journals that nobody went on with for a week.
        """
        for left in self.work.glob("stage-*"):
            shutil.rmtree(left, ignore_errors=True)
        for journal in self.work.glob("*.journal"):
            if time.time() - journal.stat().st_mtime > _ABANDONED_S:
                remove_journal(journal)

    def note(self, **facts: Any) -> None:
        """Add one line to `attempts.jsonl`, in a single write; whether or not the audit is held.

        It begins on a line of its own even where the last one was cut short.
        """
        line = json.dumps(facts, ensure_ascii=False, default=str) + "\n"
        path = self.path / "attempts.jsonl"
        with writing(path):
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                _append(handle, line.encode("utf-8", "backslashreplace"))
            finally:
                os.close(handle)

    def current(self) -> Current | None:
        """Read the pointer; None before the first run."""
        try:
            return msgspec.json.decode((self.path / "current.json").read_bytes(), type=Current)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
            raise OutputsUnwritable(
                f"{self.path / 'current.json'} cannot be read: {error}",
                hint="restore it from a copy, or remove it and start again",
            ) from error

    def stage(self, run_id: str) -> Staging:
        """Begin a run's folder, out of sight."""
        return Staging(self.work / f"stage-{run_id}", run_id)

    def publish(self, staging: "Staging", current: Current) -> bool:
        """Make a staged run visible, then current, as `point` does."""
        known = self.current()
        with writing(self.path):
            _sync_tree(staging.path)
            staging.path.rename(self.runs / staging.run_id)
            _sync(self.runs)
        return self._point(known, current)

    def point(self, current: Current) -> bool:
        """Make a run that is visible already current; once more does no harm.

        False when it stays as it is, because the current run has a later audit date.
        """
        return self._point(self.current(), current)

    def _point(self, known: Current | None, current: Current) -> bool:
        if known is not None and known.audit_date > current.audit_date:
            return False
        with writing(self.path):
            self._point_to(current)
        return True

    def _point_to(self, current: Current) -> None:
        pointer = self.work / "current.json"
        pointer.write_bytes(msgspec.json.format(msgspec.json.encode(current), indent=2) + b"\n")
        _sync(pointer)
        pointer.replace(self.path / "current.json")
        link = self.work / "current"
        link.unlink(missing_ok=True)
        link.symlink_to(current.path)
        link.replace(self.path / "current")
        _sync(self.path)


def _append(handle: int, line: bytes) -> None:
    with suppress(OSError):  # a file system without locks: an empty line may come of it, no more
        # What another process is writing at this moment must not look like what was cut short.
        fcntl.flock(handle, fcntl.LOCK_EX)
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        line = b"\n" + line
    written = os.write(handle, line)
    if written != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(handle)


def _read_note(note: Path) -> str:
    """Say who holds the lock; whoever it is may be gone by now, and the note with it."""
    try:
        return note.read_text("utf-8") or "a process that has just begun"
    except (OSError, UnicodeDecodeError):
        return "an unknown process"


def remove_journal(path: Path) -> None:
    """Remove a journal with the files that SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _sync_tree(folder: Path) -> None:
    """Force a folder to disk, the innermost first."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(place, name))
        _sync(Path(place))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
