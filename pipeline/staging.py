"""A run's folder while it is being written, out of every reader's sight: tables, texts, digests."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.digests import sha256_of
from pipeline.errors import OutputsUnwritable
from pipeline.tables import Table, complete, own_columns

#: Rows in one Parquet row group, at most.
ROW_GROUP_ROWS = 100_000

#: Bytes of bodies in one row group of evidence, at most.
ROW_GROUP_BYTES = 32 * 1024 * 1024

#: Items that are turned into Arrow at once: few enough to be still in the processor's cache.
_CHUNK_ITEMS = 500


class Staging:
    """A run's folder while it is being written."""

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self.run_id = run_id
        self._rows: dict[str, int] = {}
        with writing(path):
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
        with writing(self.path):
            self._place(name).write_bytes(data)

    @contextmanager
    def open_text(self, name: str) -> Iterator[TextIO]:
        """Open a text file to be written line by line."""
        with writing(self.path), self._place(name).open("w", encoding="utf-8", newline="") as file:
            yield file

    def copy(self, name: str, source: Path) -> None:
        """Copy a file in as it is."""
        with writing(self.path):
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
        with writing(self.path):
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
        with writing(path):
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
        with writing(path):
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
        with writing(self._path):
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
            with writing(self._path):
                self._writer.close()
        self._done(self.count)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell trouble with the file system as `OutputsUnwritable`."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise OutputsUnwritable(f"{where} cannot be written: {error.strerror or error}") from error
