"""Runs to be loaded, made of given rows, and what a warehouse holds of them afterwards."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.staging import Staging
from pipeline.tables import LOADS, TABLES, Table
from tests import postgres
from tests.durability import ROOT

NIGHT = datetime(2026, 11, 20, 3, tzinfo=UTC)
DATE = NIGHT.date()
ATLAS = "https://cloud.mongodb.com"

#: A value of each type, where nothing else is said of a column.
_PLAIN: dict[str, Any] = {
    "string": "x",
    "bool": True,
    "int32": 3,
    "int64": 5,
    "float64": 0.25,
    "date32": NIGHT.date(),
    "timestamp": NIGHT,
}

Rows = dict[str, list[dict[str, Any]]]


class Made:
    """A published run, made for a test.

    `rows` says of tables how many rows they have, or what is in them as far as it matters.
    """

    def __init__(
        self,
        outputs: Path,
        rows: Mapping[str, int | Sequence[Mapping[str, Any]]],
        *,
        audit: str = "nightly",
        started_at: datetime = NIGHT,
        audit_date: date = DATE,
        suffix: str = "7f3a9c",
        base_url: str = ATLAS,
        facts: Mapping[str, Any] | None = None,
        **run: Any,
    ) -> None:
        self.run_id = f"{started_at:%Y%m%dT%H%M%SZ}-{audit}-{suffix}"
        self.path = outputs / audit / "runs" / self.run_id
        constants = {"run_id": self.run_id, "audit_name": audit, "audit_date": audit_date}
        own = {"started_at": started_at, "base_url": base_url, "triple_count": 10, **run}
        self.rows = {
            table.name: [{**_plain(table, i), **row, **constants} for i, row in enumerate(given)]
            for table in TABLES
            for given in [[own] if table.name == "runs" else _given(rows.get(table.name, 0))]
        }
        staging = Staging(self.path, self.run_id)
        for table in TABLES:
            self._write(table)
        staging.seal(
            {
                **constants,
                "parent_run_id": None,
                "started_at": started_at.isoformat(),
                "finished_at": (started_at + timedelta(hours=1)).isoformat(),
                "base_url": base_url,
                "input_source": "nightly.csv",
                "input_sha256": "0" * 64,
                "credential_id": "me",
                "triple_count": self.rows["runs"][0]["triple_count"],
                "tool_version": "9.9.9",
                "complete": True,
                "exit_code": 0,
                **(facts or {}),
            }
        )

    def _write(self, table: Table) -> None:
        (row,) = self.rows["runs"]
        folder = self.path / table.name / f"dt={row['audit_date']}"
        folder.mkdir(parents=True)
        content = pa.Table.from_pylist(self.rows[table.name], schema=table.schema)
        pq.write_table(content, folder / f"{table.name}-{self.run_id}-00000.parquet")


def _given(rows: int | Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    return [{}] * rows if isinstance(rows, int) else rows


def _plain(table: Table, index: int) -> dict[str, Any]:
    """A row, and in its numbers which row it is."""
    row = {column.name: _PLAIN[column.type] for column in table.columns}
    numbers = {c.name: index for c in table.columns if c.type in {"int32", "int64"}}
    return row | numbers


# --- what is in a warehouse ---------------------------------------------------------------------


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement in a warehouse by itself; gives its rows, if it has any."""
    if url.startswith("duckdb://"):
        with duckdb.connect(url.removeprefix("duckdb://")) as file:
            return list(file.execute(statement).fetchall())
    return postgres.query(url, statement)


def held(url: str, schema: str = "checkpoint_audit") -> Rows:
    """All rows of the six tables, as Python has them; times as UTC."""
    found = {}
    for table in TABLES:
        statement = f"SELECT {', '.join(_asked(table, url))} FROM {schema}.{table.name}"  # noqa: S608
        rows = query(url, statement)
        found[table.name] = _sorted([dict(zip(table.names, row, strict=True)) for row in rows])
    return found


def _asked(table: Table, url: str) -> Iterator[str]:
    """DuckDB wants another package for times with a zone: they are asked for in microseconds."""
    is_duckdb = url.startswith("duckdb://")
    asked = "EPOCH_US({})" if is_duckdb else "EXTRACT(EPOCH FROM {}) * 1000000"
    for column in table.columns:
        is_time = column.type == "timestamp"
        yield asked.format(column.name) if is_time else column.name


def wanted(*runs: Made) -> Rows:
    """All rows of these runs, as `held` gives them."""
    return {
        table.name: _sorted([_as_asked(table, row) for run in runs for row in run.rows[table.name]])
        for table in TABLES
    }


def _as_asked(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    return {column.name: _value(column.type, row[column.name]) for column in table.columns}


def _value(kind: str, value: Any) -> Any:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    is_time = kind == "timestamp" and value is not None
    return (value - epoch) // timedelta(microseconds=1) if is_time else value


def _sorted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: str(sorted((k, str(v)) for k, v in row.items())))


def loads(url: str, schema: str = "checkpoint_audit") -> list[dict[str, Any]]:
    """The rows of `loads`, in the order of their times, without these."""
    names = [name for name in LOADS.names if name != "loaded_at"]
    statement = f"SELECT {', '.join(names)} FROM {schema}.loads ORDER BY loaded_at"  # noqa: S608
    return [dict(zip(names, row, strict=True)) for row in query(url, statement)]


def schemas(url: str) -> set[str]:
    """The schemas of a warehouse, but for its own."""
    rows = query(url, "SELECT DISTINCT schema_name FROM information_schema.schemata")
    own = ("pg_", "information_schema", "public", "main")
    return {name for (name,) in rows if not name.startswith(own)}


# --- the command --------------------------------------------------------------------------------


def command(
    url: str, *args: str | Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run `load` as its users do, with this address."""
    known = {"PYTHONPATH": str(ROOT), "CHECKPOINT_AUDIT_WAREHOUSE_URL": url}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "load", *map(str, args)],
        env={**os.environ, **known, **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
