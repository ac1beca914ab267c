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

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import filelock
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import AlreadyRunning, OutputsUnwritable
from pipeline.tables import Table, complete, own_columns

#: Rows in one Parquet row group, at most.
ROW_GROUP_ROWS = 100_000

#: Bytes of bodies in one row group of evidence, at most.
ROW_GROUP_BYTES = 32 * 1024 * 1024

#: Items that are turned into Arrow at once: few enough to be still in the processor's cache.
_CHUNK_ITEMS = 500

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
        with _writing(self.path):
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
            with _writing(note):
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
        """Add one line to `attempts.jsonl`."""
        line = json.dumps(facts, ensure_ascii=False, default=str) + "\n"
        with (
            _writing(self.path),
            (self.path / "attempts.jsonl").open("a", encoding="utf-8") as file,
        ):
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

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

    def stage(self, run_id: str) -> "Staging":
        """Begin a run's folder, out of sight."""
        return Staging(self.work / f"stage-{run_id}", run_id)

    def publish(self, staging: "Staging", current: Current) -> bool:
        """Make a staged run visible, then current, as `point` does."""
        known = self.current()
        with _writing(self.path):
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
        with _writing(self.path):
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


class Staging:
    """A run's folder while it is being written."""

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self.run_id = run_id
        self._rows: dict[str, int] = {}
        with _writing(path):
            path.mkdir(parents=True)

    def table(self, table: Table, audit_date: date, constants: Sequence[Any]) -> "Sink":
        """Open the file of one table; `constants` are the values of its first columns."""
        folder = f"{table.name}/dt={audit_date.isoformat()}"
        return self._sink(f"{folder}/{table.name}-{self.run_id}-00000.parquet", table, constants)

    def evidence(self, table: Table, constants: Sequence[Any]) -> "Sink":
        """Open a file of evidence, whose row groups are bounded in bytes too."""
        return self._sink(f"evidence/{table.name}-{self.run_id}-00000.parquet", table, constants)

    def _sink(self, name: str, table: Table, constants: Sequence[Any]) -> "Sink":
        path = self._place(name)
        return Sink(path, table, constants, lambda rows: self._rows.__setitem__(name, rows))

    def write(self, name: str, content: str | bytes) -> None:
        """Write one small file."""
        data = content.encode() if isinstance(content, str) else content
        with _writing(self.path):
            self._place(name).write_bytes(data)

    @contextmanager
    def open_text(self, name: str) -> Iterator[TextIO]:
        """Open a text file to be written line by line."""
        with _writing(self.path), self._place(name).open("w", encoding="utf-8", newline="") as file:
            yield file

    def copy(self, name: str, source: Path) -> None:
        """Copy a file in as it is."""
        with _writing(self.path):
            shutil.copyfile(source, self._place(name))

    def rows(self, table: Table) -> int:
        """How many rows the closed files of `table` hold."""
        return sum(
            rows
            for name, rows in self._rows.items()
            if Path(name).name.startswith(f"{table.name}-{self.run_id}-")
        )

    def seal(self, facts: dict[str, Any]) -> str:
        """List every file with its digest in `manifest.json`; give the manifest's own digest."""
        with _writing(self.path):
            files = [self._describe(path) for path in self._files()]
            text = json.dumps({**facts, "files": files}, indent=2, ensure_ascii=False, default=str)
            self.write("manifest.json", text + "\n")
            digest = sha256_of(self.path / "manifest.json")
            sums = [f"{each['sha256']}  {each['path']}\n" for each in files]
            self.write("SHA256SUMS", "".join([*sums, f"{digest}  manifest.json\n"]))
            return digest

    def discard(self) -> None:
        """Take it all back."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _describe(self, path: Path) -> dict[str, Any]:
        name = self._name(path)
        size, digest = path.stat().st_size, sha256_of(path)
        return {"path": name, "rows": self._rows.get(name), "bytes": size, "sha256": digest}

    def _files(self) -> list[Path]:
        return sorted(path for path in self.path.rglob("*") if path.is_file())

    def _name(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def _place(self, name: str) -> Path:
        path = self.path / name
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path


class Sink:
    """One Parquet file being written, a chunk of rows at a time. Use as a context manager.

    It takes items of its table: see `Table.flatten`.
    """

    def __init__(
        self, path: Path, table: Table, constants: Sequence[Any], done: Callable[[int], None]
    ) -> None:
        self._path = path
        self._table = table
        self._constants = constants
        self._done = done
        self._items: list[Any] = []
        self._chunks: list[pa.Table] = []
        self._chunked_rows = 0
        self._bytes = 0
        self.count = 0
        with _writing(path):
            self._writer = pq.ParquetWriter(
                path,
                table.schema,
                compression="snappy",
                use_dictionary=[c.name for c in table.columns if not c.distinct],
            )

    def add(self, item: Any, size: int = 0) -> None:
        """Add one item, as `extend` does."""
        self.extend((item,), size)

    def extend(self, items: Iterable[Any], size: int = 0) -> None:
        """Add items; `size` counts towards the row group's bytes.

        They stay in one row group, so give a few at a time.
        """
        if self._bytes and self._bytes + size > ROW_GROUP_BYTES:
            self._write()
        self._bytes += size
        self._items.extend(items)
        if len(self._items) >= _CHUNK_ITEMS:
            self._chunk()

    def _chunk(self) -> None:
        """Turn the gathered items into Arrow, which is smaller."""
        chunk = own_columns(self._table, len(self._constants), self._items)
        self._chunks.append(chunk)
        self._chunked_rows += chunk.num_rows
        self._items = []
        while self._chunked_rows >= ROW_GROUP_ROWS:
            self._write_group(ROW_GROUP_ROWS)

    def _write(self) -> None:
        """Write all that was gathered."""
        if self._items:
            self._chunk()
        if self._chunked_rows:
            self._write_group(self._chunked_rows)

    def _write_group(self, size: int) -> None:
        """Write a row group of the first `size` rows; the others stay for the next."""
        gathered = pa.concat_tables(self._chunks)
        group = complete(self._table, self._constants, gathered.slice(0, size))
        with _writing(self._path):
            self._writer.write_table(group, row_group_size=size)
        self.count += size
        self._chunked_rows -= size
        self._chunks, self._bytes = [], 0
        if self._chunked_rows:
            left = gathered.slice(size)
            self._chunks, self._bytes = [left], left.nbytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._write()
        finally:
            with _writing(self._path):
                self._writer.close()
        self._done(self.count)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise OutputsUnwritable(f"{where} cannot be written: {error.strerror or error}") from error


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


def sha256_of(path: Path) -> str:
    """Give a file's SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
