"""The staged files: one for each table, of the contract's schema, with the values it allows."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.columns import SCHEMA_VERSION
from pipeline.errors import ProgramFault
from pipeline.outcomes import FailureKind, Verdict
from pipeline.policy import Severity
from pipeline.report.summary import RunFacts
from pipeline.rules import RULES
from pipeline.tables import REPLIES, Table

#: What a column may hold, beside null where the contract allows that.
VALUES: Mapping[str, Collection[str]] = {
    "verdict": tuple(Verdict),
    "failure_kind": tuple(FailureKind),
    "fetched_by": ("get", "list", "none"),
    "scope": ("checkpoint", "cluster"),
    "rule_id": tuple(RULES),
    "severity": tuple(Severity),
    "purpose": ("checkpoint", "list", "preliminary", "limits"),
}


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
        for name, allowed in self._allowed().items():
            self._check_values(name, allowed)

    def read(self, columns: Sequence[str], as_dictionaries: Sequence[str] = ()) -> Iterator[Any]:
        """Read some columns, so many rows at a time; raises `ProgramFault` if it is no file."""
        try:
            with pq.ParquetFile(self.path, read_dictionary=as_dictionaries) as file:
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

    def _allowed(self) -> dict[str, Collection[Any]]:
        facts = self._facts
        constants: dict[str, Collection[Any]] = {
            "run_id": (facts.run_id,),
            "audit_name": (facts.audit_name,),
            "audit_date": (facts.audit_date,),
        }
        known = {**VALUES, **constants}
        return {name: known[name] for name in self.table.names if name in known}

    def _check_values(self, name: str, allowed: Collection[Any]) -> None:
        """Texts are read as the dictionaries that they are stored as, which are short."""
        is_text = self.table.schema.field(name).type == pa.string()
        for batch in self.read([name], [name] if is_text else []):
            column = batch.column(0)
            for value in (column.dictionary if is_text else column.unique()).to_pylist():
                if value not in allowed:
                    wanted = " or ".join(map(str, allowed))
                    raise self.fault(f"{name} is {str(value)!r}, wanted {wanted}")


def _described(field: pa.Field) -> str:
    return f"{field.type}{'' if field.nullable else ' and never null'}"
