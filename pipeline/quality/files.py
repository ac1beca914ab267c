"""The staged files: one for each table, of the contract's schema, with the values it allows."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.columns import SCHEMA_VERSION
from pipeline.errors import ProgramFault
from pipeline.report.summary import RunFacts
from pipeline.tables import REPLIES, Table

#: Read ahead, as is pyarrow's way, all row groups would stay in memory. Bytes of a column at once.
_A_LITTLE: dict[str, Any] = {"pre_buffer": False, "buffer_size": 65_536}


def fault(table: str, what: str) -> ProgramFault:
    """Say what is wrong with a staged table."""
    return ProgramFault(
        f"a check of the tables failed: {table}: {what}",
        hint="nothing was published, and what was collected is kept; "
        "please report this with the lines above",
    )


class TableFile:
    """The staged file of one table."""

    def __init__(self, folder: Path, table: Table, facts: RunFacts, rows_at_once: int) -> None:
        """Raises `ProgramFault` unless there is one file, where the contract puts it."""
        self.table = table
        self._rows_at_once = rows_at_once
        self._facts = facts
        place = "evidence" if table is REPLIES else f"{table.name}/dt={facts.audit_date}"
        found = sorted((folder / place).glob("*.parquet"))
        if len(found) != 1:
            raise self.fault(f"{place} has {len(found)} files, wanted 1")
        self.path = found[0]

    def fault(self, what: str) -> ProgramFault:
        """Say what is wrong with it."""
        return fault(self.table.name, what)

    def check(self) -> None:
        """Check its schema, and the columns of few values; raises `ProgramFault`."""
        self._check_schema()
        self._check_constants()
        self._check_enumerations()

    def read(self, columns: Sequence[str], as_dictionaries: Sequence[str] = ()) -> Iterator[Any]:
        """Read some columns, so many rows at a time; raises `ProgramFault` if it is no file."""
        try:
            with pq.ParquetFile(self.path, read_dictionary=as_dictionaries, **_A_LITTLE) as file:
                yield from file.iter_batches(self._rows_at_once, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise self.fault(f"{self.path.name} cannot be read: {error}") from error

    def _check_schema(self) -> None:
        """Types hold for every value: no time is naive, no column that must not have a null has."""
        wanted, found = self.table.schema, self._schema()
        if found.names != wanted.names:
            raise self.fault(f"the columns are {', '.join(found.names)}")
        for field, known in zip(found, wanted, strict=True):
            if (field.type, field.nullable) != (known.type, known.nullable):
                raise self.fault(f"{field.name} is {_described(field)}, wanted {_described(known)}")
        version = (found.metadata or {}).get(b"schema_version", b"").decode()
        if version != SCHEMA_VERSION:
            raise self.fault(f"schema_version is {version!r}, wanted {SCHEMA_VERSION!r}")

    def _schema(self) -> pa.Schema:
        try:
            return pq.read_schema(self.path)
        except (pa.ArrowException, OSError) as error:
            raise self.fault(f"{self.path.name} cannot be read: {error}") from error

    def _check_constants(self) -> None:
        facts = self._facts
        for name, known in (
            ("run_id", facts.run_id),
            ("audit_name", facts.audit_name),
            ("audit_date", str(facts.audit_date)),
        ):
            if name in self.table.names:
                self._check_values(name, (known,), "")

    def _check_enumerations(self) -> None:
        for column in self.table.columns:
            if column.values is not None and not column.values.is_open:
                allowed = tuple(column.values.meanings)
                self._check_values(column.name, allowed, column.values.separator)

    def _check_values(self, name: str, allowed: Collection[str], separator: str) -> None:
        """Texts are read as the dictionaries that they are stored as, which are short."""
        is_text = self.table.schema.field(name).type == pa.string()
        for batch in self.read([name], [name] if is_text else []):
            column = batch.column(0)
            found = column.dictionary if is_text else column.unique().drop_null()
            for value in found.to_pylist():
                told = filter(None, value.split(separator)) if separator else [value]
                if wrong := [one for one in told if str(one) not in allowed]:
                    wanted = " or ".join(allowed)
                    raise self.fault(f"{name} is {str(wrong[0])!r}, wanted {wanted}")


def _described(field: pa.Field) -> str:
    return f"{field.type}{'' if field.nullable else ' and never null'}"
