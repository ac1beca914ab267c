"""The outputs of one audit: its lock, its staging folder, its published runs, what is current.

    outputs/<audit_name>/
      runs/<run_id>/      immutable once it is there
      current.json        which run is current, replaced atomically and last
      current             the same as a link
      attempts.jsonl      one line for every start and end
      .work/              unfinished journals, staging, the lock; these elsewhere if so asked

A run is staged in a folder that no reader looks at, every file and folder is forced to disk, then
one rename makes it visible; only then does the pointer move. A reader that resolves the pointer
once, and reads on from there, never sees half a run.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import filelock
import msgspec

from pipeline.errors import AlreadyRunning, AuditError, OutputsUnwritable
from pipeline.published import Current, PublishedRun, read_current, read_run
from pipeline.staging import Staging, writing

log = logging.getLogger(__name__)

#: A journal untouched for so long is not gone on with any more. Seconds.
ABANDONED_S = 7 * 86_400


class AuditFolder:
    """The folder of one audit name."""

    def __init__(self, output_dir: Path, audit_name: str, work_dir: Path | None = None) -> None:
        """`work_dir` is where journals, lock and staging are instead of beside the runs.

        What becomes visible there in one step is still made ready in the folder itself: `beside`.
        """
        self.path = output_dir / audit_name
        self.runs = self.path / "runs"
        self.beside = self.path / ".work"
        self.work = self.beside
        if work_dir is not None:
            place = place_of(os.path.realpath(output_dir))
            self.work = Path(os.path.realpath(work_dir)) / place / audit_name

    def address_of(self, run_id: str) -> str:
        """Say where a run is, for people and for other commands."""
        return str(self.runs / run_id)

    def prepare(self) -> None:
        """Make the folders; raises `OutputsUnwritable` where that cannot be done."""
        with writing(self.path):
            self.runs.mkdir(parents=True, exist_ok=True)
            self.beside.mkdir(exist_ok=True)
        with writing(self.work):
            if self.work != self.beside:
                self.work.mkdir(parents=True, exist_ok=True)
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

        Half-staged and half-removed runs, and journals that nobody went on with for a week; a link
        that a crash parted from the pointer goes where that points.
        """
        self._clean_work()
        current, link = self.current(), self.path / "current"
        if current is not None and not (link.is_symlink() and str(link.readlink()) == current.path):
            with writing(link):
                self._link_to(current)

    def _clean_work(self) -> None:
        copies = self.beside.glob("copy-*")
        own = [path for path in copies if path.name.startswith(self._copy) or _is_abandoned(path)]
        for left in (*self.work.glob("stage-*"), *self.beside.glob("gone-*"), *own):
            shutil.rmtree(left, ignore_errors=True)
        with writing(self.work):
            for left in self.work.glob("*.csv.gz"):
                left.unlink(missing_ok=True)
        for left in (*self.work.glob("*.journal"), *self.work.glob("*.damaged*")):
            if left.exists() and _is_abandoned(left):
                remove_journal(left)
        if self.work != self.beside:
            self._say_what_is_beside()

    def _say_what_is_beside(self) -> None:
        """Say that there is a journal which is not looked at."""
        for journal in self.beside.glob("*.journal"):
            log.warning(
                "%s is of a start without --work-dir, and is not gone on with: what it holds is "
                "asked for again; start without --work-dir to go on with it",
                journal,
            )

    @property
    def _copy(self) -> str:
        """What copies of this work folder's runs are called, while they are made.

        Another work folder's may be under way: its lock is another one.
        """
        return f"copy-{hashlib.sha256(bytes(self.work)).hexdigest()[:8]}-"

    def check_room(self, needed: int) -> None:
        """Raise `OutputsUnwritable` where fewer than `needed` bytes are free."""
        for folder in {self.work, self.beside}:
            with writing(folder):
                free = shutil.disk_usage(folder).free
            if free < needed:
                place = self.path if folder == self.beside else folder
                raise OutputsUnwritable(
                    f"{place} has {_size(free)} free, and this run needs about {_size(needed)}; "
                    "nothing more was asked",
                    hint="make room, or name another folder with --output-dir or --work-dir; "
                    "then start the same command again",
                )

    def note(self, **facts: Any) -> None:
        """Add one line to `attempts.jsonl`, in a single write; whether or not the audit is held.

        Half a line that was left at the end, by a kill or a full disk, is taken away.
        """
        path = self.path / "attempts.jsonl"
        with writing(path):
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                _append(handle, line_of(facts))
            finally:
                os.close(handle)

    def current(self) -> Current | None:
        """Read the pointer, as `read_current` does."""
        return read_current(self.path)

    def stage(self, run_id: str) -> Staging:
        """Begin a run's folder, out of sight."""
        return Staging(self.work / f"stage-{run_id}", run_id)

    def publish(self, staging: Staging, current: Current, parent: str | None = None) -> bool:
        """Make a staged run visible, then current.

        False when the current run stays: it has a later audit date, or it is another one than the
        run `parent` which this one completes.
        """
        known = self.current()
        with writing(self.path):
            self._show(staging)
        return self._point(known, current, parent)

    def _show(self, staging: Staging) -> None:
        """Let a staged run be seen, in one step."""
        sync_tree(staging.path)
        self._bring_beside(staging.path).rename(self.runs / staging.run_id)
        sync(self.runs)

    def _bring_beside(self, staged: Path) -> Path:
        """Bring a staged run to where one step makes it visible: to the same file system."""
        if staged.parent == self.beside:
            return staged
        beside = self.beside / f"{self._copy}{staged.name}"
        try:
            return staged.rename(beside)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        try:
            _copy_tree(staged, beside)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        shutil.rmtree(staged)
        return beside

    def finish(self, run_id: str) -> None:
        """Do what is left of making a run visible, before it is pointed to: nothing, in a folder.

        Raises `OutputsUnwritable`.
        """

    def point(self, current: Current, parent: str | None = None) -> bool:
        """Make a run that is visible already current, as `publish` does; once more does no harm."""
        return self._point(self.current(), current, parent)

    def _point(self, known: Current | None, current: Current, parent: str | None) -> bool:
        if known is not None and not follows(current, known, parent):
            return False
        with writing(self.path):
            pointer = self.beside / "current.json"
            pointer.write_bytes(encoded(current))
            sync(pointer)
            pointer.replace(self.path / "current.json")
            self._link_to(current)
        return True

    def _link_to(self, current: Current) -> None:
        link = self.beside / "current"
        link.unlink(missing_ok=True)
        link.symlink_to(current.path)
        link.replace(self.path / "current")
        sync(self.path)

    # --- the runs there are ---

    def published(self) -> Iterator[PublishedRun]:
        """Give the published runs, the one begun last first; what is no run is said and left."""
        for path in sorted(self.runs.glob("*"), reverse=True):
            try:
                yield read_run(path)
            except AuditError as error:
                log.warning("%s is left out: %s", path, error)

    def last_whole(self, until: date) -> PublishedRun | None:
        """Give the run that a population is compared with: the latest one, by its label.

        Of those that are labelled `until` or earlier, the latest complete one; where none was
        complete, as some triple of a fleet may always be inconclusive, the latest one whose own
        population had no shortfall.
        """
        runs = [
            run
            for run in self.published()
            if run.manifest.audit_date <= until and not run.manifest.shortfalls
        ]
        complete = [run for run in runs if run.manifest.complete]
        return max(complete or runs, key=_by_label, default=None)

    def previous_to(self, night: date) -> PublishedRun | None:
        """Give the run that one of `night` is compared with: what a person calls last night's.

        The current run, if it is of an earlier night; else the latest run of one, by its label: a
        run that completes another, or is made again, then tells what changed since last night, as
        the first one did. Where there is no earlier night, the current run of the same. None where
        there are later nights only. Raises `InputMissing` or `InputUnusable` where the run that is
        current cannot be read.
        """
        current = self.current()
        if current is None:
            return None
        if current.audit_date >= night:
            earlier = [run for run in self.published() if run.manifest.audit_date < night]
            if earlier or current.audit_date > night:
                return max(earlier, key=_by_label, default=None)
        return read_run(self.path / current.path)

    def keep(self, nights: int, now: datetime, spared: Container[str] = ()) -> list[str]:
        """Remove all runs but those of the latest `nights` audit dates; gives what was removed.

        Never the current run, one that another names as its parent, one younger than a day, the one
        that a population is compared with, or one of `spared`.
        """
        runs, current, whole = list(self.published()), self.current(), self.last_whole(date.max)
        dates = sorted({run.manifest.audit_date for run in runs}, reverse=True)[:nights]
        kept = {each.run_id for each in (current, whole) if each is not None}
        kept.update(run.manifest.parent_run_id or "" for run in runs)
        removed = [
            run.path
            for run in runs
            if run.manifest.audit_date not in dates
            and now - run.manifest.finished_at >= timedelta(days=1)
            and run.run_id not in kept
            and run.run_id not in spared
        ]
        for path in removed:
            self._remove(path)
        return [path.name for path in removed]

    def _remove(self, path: Path) -> None:
        """Take a run out of sight in one step, then away."""
        with writing(path):
            gone = path.rename(self.beside / f"gone-{path.name}")
            sync(self.runs)
            shutil.rmtree(gone)


def new_run_id(started_at: datetime, audit_name: str) -> str:
    """Make an id for a run; ids sort by their runs' starts."""
    return f"{started_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{audit_name}-{secrets.token_hex(3)}"


def line_of(facts: Mapping[str, Any]) -> bytes:
    """Give a line of `attempts.jsonl`."""
    line = json.dumps(facts, ensure_ascii=False, default=str) + "\n"
    return line.encode("utf-8", "backslashreplace")


def encoded(current: Current) -> bytes:
    """Give what `current.json` holds."""
    return msgspec.json.format(msgspec.json.encode(current), indent=2) + b"\n"


def place_of(address: str) -> str:
    """Name a folder for what belongs to the outputs at `address`, and to no others."""
    last = re.sub(r"[^A-Za-z0-9]+", "-", address.rsplit("/", 1)[-1])[:32].strip("-")
    return f"{last or 'outputs'}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"


def _by_label(run: PublishedRun) -> tuple[date, datetime]:
    return run.manifest.audit_date, run.manifest.started_at


def follows(current: Current, known: Current, parent: str | None) -> bool:
    """Whether a run may become current in place of the one that is."""
    if parent is not None and known.audit_date == current.audit_date:
        return known.run_id in (parent, current.run_id)
    return known.audit_date <= current.audit_date


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _append(handle: int, line: bytes) -> None:
    with suppress(OSError):  # a file system without locks; what is written at once is seldom torn
        # What another process is writing at this moment must not look like what was cut short.
        fcntl.flock(handle, fcntl.LOCK_EX)
    _cut_torn_line(handle)
    written = os.write(handle, line)
    if written != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(handle)


def _cut_torn_line(handle: int) -> None:
    """Take away half a line that a killed process, or a full disk, left at the end of a file."""
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        os.ftruncate(handle, os.pread(handle, size, 0).rfind(b"\n") + 1)


def _read_note(note: Path) -> str:
    """Say who holds the lock; whoever it is may be gone by now, and the note with it."""
    try:
        return note.read_text("utf-8") or "a process that has just begun"
    except (OSError, UnicodeDecodeError):
        return "an unknown process"


#: A journal's file, and those that SQLite keeps beside it. The first goes first: what is left of a
#: removal that was broken off is then no journal, and the next one begins by removing it.
_JOURNAL_FILES = ("", "-wal", "-shm")


def remove_journal(path: Path) -> None:
    """Remove a journal, or what is left of one; raises `OutputsUnwritable`."""
    with writing(path):
        for suffix in _JOURNAL_FILES:
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def copy_log_aside(path: Path) -> Path:
    """Copy a journal's log to a name that nothing else takes, and give that.

    Raises `OutputsUnwritable`.
    """
    aside = path.with_suffix(".damaged-log")
    with writing(aside):
        shutil.copyfile(path.with_name(f"{path.name}-wal"), aside)
    return aside


def set_aside(path: Path) -> Path:
    """Give a journal another name, under which nobody goes on with it; gives that.

    Raises `OutputsUnwritable`.
    """
    aside = path.with_suffix(".damaged")
    remove_journal(aside)
    for suffix in _JOURNAL_FILES:
        with writing(path), suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def _is_abandoned(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > ABANDONED_S


def _copy_tree(folder: Path, to: Path) -> None:
    """Copy a folder to disk; the first trouble is raised as it is, unlike `shutil.copytree`'s."""
    for place, _, names in os.walk(folder):
        target = to / Path(place).relative_to(folder)
        target.mkdir()
        for name in names:
            shutil.copyfile(Path(place, name), target / name)
    sync_tree(to)


def sync_tree(folder: Path) -> None:
    """Force a folder to disk, the innermost first."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))


def sync(path: Path) -> None:
    """Force a file or a folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
