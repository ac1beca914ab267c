"""Comparing what is derived with what was published: values, a few hundred rows at a time."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOBase
from pathlib import Path
from typing import Any, Self, TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import InputUnusable
from pipeline.evidence import BYTES_AT_ONCE, batches_of, reading
from pipeline.published import AS_IT_WAS, PublishedRun
from pipeline.tables import (
    CHECKPOINTS,
    CLUSTERS,
    FINDINGS,
    OUTCOMES,
    PARTS,
    REPLIES,
    RUNS,
    Table,
    complete,
    own_columns,
)
from pipeline.verify.intact import SHOWN

#: Rows that are compared at once.
_CHUNK_ROWS = 500

#: Columns by which a row is told from the others of its table.
KEYS = {
    CHECKPOINTS.name: ("group_id", "cluster_name", "checkpoint_id"),
    PARTS.name: ("group_id", "cluster_name", "checkpoint_id", "part_index"),
    OUTCOMES.name: ("group_id", "cluster_name", "checkpoint_id"),
    CLUSTERS.name: ("group_id", "cluster_name"),
    FINDINGS.name: ("group_id", "cluster_name", "checkpoint_id", "rule_id"),
    RUNS.name: ("run_id",),
    REPLIES.name: ("reply_id",),
}


class Problems:
    """What was looked at, and what is wrong: the first few of each place."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._shown: list[str] = []
        self._count = 0

    def say(self, text: str) -> None:
        """Keep a sentence about what was looked at."""
        self.said.append(text)

    def problem(self, where: str, what: str) -> None:
        """Keep a problem: in which file or table, and what is wrong."""
        self._count += 1
        if len(self._shown) < SHOWN:
            self._shown.append(f"{where}: {what}")

    def problems(self) -> Iterator[str]:
        """Give what is shown, and something for each that is not."""
        yield from self._shown
        yield from ("" for _ in range(self._count - len(self._shown)))


class ComparedText(TextIOBase):
    """Compares what is written with what stands in a file."""

    def __init__(self, stored: TextIO) -> None:
        self._stored = stored
        self.differs = False

    def write(self, text: str) -> int:
        """Compare the next piece."""
        self.differs = self.differs or self._stored.read(len(text)) != text
        return len(text)


# --- tables --------------------------------------------------------------------------------------


class Compared:
    """Takes rows of a table, and compares some columns of them with what was published.

    Where a row is about something else than the one that was published, one of them is too many:
    the rest of the table is then not compared.
    """

    def __init__(
        self,
        table: Table,
        names: Sequence[str],
        run: PublishedRun,
        found: Problems,
        constants: Sequence[Any] | None = None,
    ) -> None:
        """Without `constants`, the rows that are taken have the columns `names` only."""
        self._table = table
        self._names = names
        self._found = found
        self._constants = constants
        self._stored = _Stored(table, names, run)
        self._items: list[Any] = []
        self._bytes = 0
        self._is_lost = False
        self.count = 0

    def add(self, item: Any, size: int = 0) -> None:
        """Take one item."""
        self.extend((item,), size)

    def extend(self, items: Iterable[Any], size: int = 0) -> None:
        """Take items; of evidence, `size` are the bytes of their bodies."""
        self._items.extend(items)
        self._bytes += size
        if len(self._items) >= _CHUNK_ROWS or self._bytes > BYTES_AT_ONCE:
            self._compare()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._compare()
            self._compare_ends()

    @contextmanager
    def uncompared(self) -> Iterator["Compared"]:
        """Take rows and only count them."""
        self._is_lost = True
        yield self
        self._compare()

    def _compare(self) -> None:
        if not self._items:
            return
        wanted = self._wanted()
        self._items, self._bytes = [], 0
        self.count += wanted.num_rows
        if self._is_lost:
            return
        stored = self._stored.take(wanted.num_rows)
        if not stored.equals(wanted):
            self._say(wanted, stored)

    def _wanted(self) -> pa.Table:
        if self._constants is None:
            schema = pa.schema([self._table.schema.field(name) for name in self._names])
            columns = list(zip(*self._items, strict=True))
            return pa.table(columns, schema=schema).replace_schema_metadata(None)
        own = own_columns(self._table, len(self._constants), self._items)
        whole = complete(self._table, self._constants, own)
        return whole.select(self._stored.names).replace_schema_metadata(None)

    def _say(self, wanted: pa.Table, stored: pa.Table) -> None:
        keys = KEYS[self._table.name]
        row = _first_other(wanted.select(keys), stored.select(keys))
        if row is not None:
            self._is_lost = True
            self._say_lost(self.count - wanted.num_rows + row, _key(wanted, row, keys), stored, row)
            wanted, stored = wanted.slice(0, row), stored.slice(0, row)
        for name in wanted.column_names:
            self._say_column(name, wanted, stored)

    def _say_lost(self, at: int, wanted: str, stored: pa.Table, row: int) -> None:
        keys = KEYS[self._table.name]
        there = f"is {_key(stored, row, keys)}" if row < stored.num_rows else "is not there"
        said = f"row {at} {there}, wanted {wanted}; nothing behind it is compared"
        self._found.problem(self._table.name, said)

    def _say_column(self, name: str, wanted: pa.Table, stored: pa.Table) -> None:
        keys = KEYS[self._table.name]
        for row in _others(wanted[name], stored[name]):
            said = f"{name} is {stored[name][row].as_py()!r}, wanted {wanted[name][row].as_py()!r}"
            self._found.problem(self._table.name, f"{_key(wanted, row, keys)}: {said}")

    def _compare_ends(self) -> None:
        if not self._is_lost and (left := self._stored.left()):
            self._found.problem(self._table.name, f"{left:,} rows more than can be derived")


class _Stored:
    """The rows of a published table, in turn; only columns that this program knows."""

    def __init__(self, table: Table, names: Sequence[str], run: PublishedRun) -> None:
        folder = "evidence" if table is REPLIES else table.name
        paths = [path for path in run.files(folder) if path.suffix == ".parquet"]
        known = [_names_in(path) for path in paths]
        self.names = [name for name in names if all(name in each for each in known)]
        self._schema = pa.schema(
            [table.schema.field(name).remove_metadata() for name in self.names]
        )
        self._batches = (
            batch.select(self.names) for path in paths for batch in batches_of(path, self.names)
        )
        self._ahead = self._schema.empty_table()

    def take(self, count: int) -> pa.Table:
        """Give the next rows; fewer where there are no more."""
        while self._ahead.num_rows < count and (batch := next(self._batches, None)) is not None:
            self._ahead = pa.concat_tables([self._ahead, self._table_of(batch)])
        taken, self._ahead = self._ahead.slice(0, count), self._ahead.slice(count)
        return taken

    def _table_of(self, batch: pa.RecordBatch) -> pa.Table:
        found = pa.Table.from_batches([batch]).replace_schema_metadata(None)
        wrong = [f.name for f in self._schema if found.schema.field(f.name).type != f.type]
        if wrong:
            raise InputUnusable(
                f"the columns {', '.join(wrong)} are of other types", hint=AS_IT_WAS
            )
        return found.cast(self._schema)

    def left(self) -> int:
        """Count what was not taken."""
        return int(self._ahead.num_rows) + sum(int(batch.num_rows) for batch in self._batches)


def _names_in(path: Path) -> list[str]:
    with reading(path), pq.ParquetFile(path) as file:
        return list(file.schema_arrow.names)


def _key(rows: pa.Table, row: int, keys: Sequence[str]) -> str:
    return "/".join(str(rows[name][row].as_py()) for name in keys)


def _first_other(wanted: pa.Table, stored: pa.Table) -> int | None:
    """The first row that differs, or is not there."""
    rows = [row for name in wanted.column_names for row in _others(wanted[name], stored[name])]
    short = [stored.num_rows] if stored.num_rows < wanted.num_rows else []
    return min([*rows, *short], default=None)


def _others(wanted: pa.ChunkedArray, stored: pa.ChunkedArray) -> list[int]:
    """The rows in which two columns differ, as far as both go."""
    wanted = wanted.slice(0, len(stored))
    differ = pc.fill_null(pc.not_equal(wanted, stored), fill_value=False)
    lacking = pc.xor(pc.is_null(wanted), pc.is_null(stored))
    mask = pc.or_(differ, lacking)
    return list(pc.indices_nonzero(mask).to_pylist())
