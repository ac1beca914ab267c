"""The contract of the tables: a snapshot that is checked in, and every run that was ever kept.

The snapshot of a schema version is tests/data/schemas/VERSION.json: what stands there was promised.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline import transport
from pipeline.checkpoints import TYPE_NAMES, Anomaly
from pipeline.columns import (
    ENUMERATIONS,
    SCHEMA_VERSION,
    SCOPE,
    TROUBLE,
    Column,
    Values,
)
from pipeline.diff import make_diff
from pipeline.evidence import Evidence
from pipeline.outcomes import FailureKind, Verdict
from pipeline.policy import Severity
from pipeline.published import read_run
from pipeline.report.advice import ADVICE
from pipeline.rules import RULES
from pipeline.story import story_of
from pipeline.tables import FAILING, LOADS, REPLIES, TABLES, Table
from tests.golden import GOLDEN
from tests.recorded import Recorder, of_every_kind

SCHEMAS = Path(__file__).parent / "data" / "schemas"
DECLARED = (*TABLES, REPLIES, FAILING, LOADS)
KEPT = sorted(path.parent for path in GOLDEN.glob("*/*/manifest.json"))

WHAT_TO_DO = """\
The tables are not those of schema version {version}. Names, order, types and nullability are
promised to whoever loads them. Either take the change back, or: raise SCHEMA_VERSION in
pipeline/columns.py, write the new snapshot to tests/data/schemas/ (`python -m tests.test_columns`),
keep golden runs of the new version (`python -m tests.golden`), and tell users in CHANGELOG.md."""


# --- the snapshot -------------------------------------------------------------------------------


def snapshot() -> dict[str, Any]:
    """What readers build on, of every table, as Arrow has it."""
    return {table.name: _told(table.schema) for table in DECLARED}


def _told(schema: pa.Schema) -> dict[str, Any]:
    columns = [f"{f.name}: {f.type}{', null' if f.nullable else ''}" for f in schema]
    keys = sorted({key.decode() for field in schema for key in field.metadata})
    return {
        "columns": columns,
        "file_metadata": sorted(key.decode() for key in schema.metadata),
        "field_metadata": keys,
    }


def kept_snapshot(version: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((SCHEMAS / f"{version}.json").read_text("utf-8"))
    return read


def test_the_tables_are_those_that_were_promised() -> None:
    assert snapshot() == kept_snapshot(SCHEMA_VERSION), WHAT_TO_DO.format(version=SCHEMA_VERSION)


def test_a_published_file_says_what_the_snapshot_says(tmp_path: Path) -> None:
    """The files themselves, not only what the code declares."""
    run = Recorder(tmp_path).publish(of_every_kind())
    promised = kept_snapshot(SCHEMA_VERSION)
    folders = {table.name: table.name for table in TABLES} | {"replies": "evidence"}

    for name, folder in folders.items():
        (path,) = run.path.joinpath(folder).rglob(f"{name}-*.parquet")
        assert _told(pq.read_schema(path)) == promised[name]
        assert pq.read_schema(path).metadata[b"schema_version"] == SCHEMA_VERSION.encode()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda columns: columns[::-1], id="order"),
        pytest.param(lambda columns: columns[:-1], id="a column less"),
        pytest.param(
            lambda columns: (columns[0]._replace(type="binary"), *columns[1:]), id="a type"
        ),
        pytest.param(
            lambda columns: (columns[0]._replace(nullable=True), *columns[1:]), id="nullability"
        ),
        pytest.param(lambda columns: (columns[0]._replace(name="run"), *columns[1:]), id="a name"),
    ],
)
def test_every_change_breaks_the_snapshot(change: Any) -> None:
    changed = TABLES[0]._replace(columns=change(TABLES[0].columns))

    assert _told(changed.schema) != kept_snapshot(SCHEMA_VERSION)[changed.name]


# --- what is declared ---------------------------------------------------------------------------

COLUMNS = [
    pytest.param(column, id=f"{table.name}.{column.name}")
    for table in DECLARED
    for column in table.columns
]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_says_what_null_means_exactly_where_there_may_be_one(column: Column) -> None:
    assert bool(column.null) is column.nullable
    assert column.meaning


@pytest.mark.parametrize("column", COLUMNS)
def test_a_length_of_time_and_a_count_have_a_unit(column: Column) -> None:
    endings = ("_s", "_count", "_at", "_date")
    assert column.unit or not column.name.endswith(endings)


def test_enumerations_are_those_of_the_code() -> None:
    known = {values.name: set(values.meanings) for values in ENUMERATIONS}

    assert known["verdict"] == set(Verdict)
    assert known["severity"] == set(Severity)
    assert known["anomalies"] == set(Anomaly)
    assert known["failure_kind"] == set(FailureKind) == set(ADVICE)
    assert known["rule_id"] == set(RULES)
    assert known["type_name"] == TYPE_NAMES
    assert {rule.scope for rule in RULES.values()} == set(SCOPE.meanings)
    assert {kind for _, kind, _ in transport._TROUBLES} <= set(TROUBLE.meanings)


def test_every_enumeration_of_a_column_is_in_the_dictionary() -> None:
    used = {column.values for table in DECLARED for column in table.columns if column.values}

    assert used == set(ENUMERATIONS)


# --- what was published once --------------------------------------------------------------------


def test_every_schema_version_has_golden_runs() -> None:
    versions = {path.stem for path in SCHEMAS.glob("*.json")}

    assert {_manifest(run)["schema_version"] for run in KEPT} == versions
    assert SCHEMA_VERSION in versions


def _manifest(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "manifest.json").read_bytes())
    return read


@pytest.mark.parametrize("run", KEPT, ids=lambda run: f"{run.parent.name}-{run.name}")
def test_a_kept_run_has_the_schema_of_its_version(run: Path) -> None:
    promised = kept_snapshot(_manifest(run)["schema_version"])

    for table in (*TABLES, REPLIES):
        assert _told(_read(run, table).schema)["columns"] == promised[table.name]["columns"]


@pytest.mark.parametrize("run", KEPT, ids=lambda run: f"{run.parent.name}-{run.name}")
def test_a_kept_run_is_read_by_todays_schema(run: Path) -> None:
    """A reader that knows today's columns finds every row, and the counts of the manifest."""
    rows = {file["path"]: file["rows"] for file in _manifest(run)["files"] if "rows" in file}

    for table in (*TABLES, REPLIES):
        found = ds.dataset(_files(run, table), schema=table.schema).to_table()
        assert found.schema.equals(table.schema)
        assert found.num_rows == sum(rows[str(p.relative_to(run))] for p in _files(run, table))


@pytest.mark.parametrize("run", KEPT, ids=lambda run: f"{run.parent.name}-{run.name}")
def test_a_kept_run_holds_no_value_that_is_not_declared(run: Path) -> None:
    for table in (*TABLES, REPLIES):
        read = _read(run, table)
        for column in table.columns:
            if column.values is not None and not column.values.is_open:
                cells = read.column(column.name).unique().drop_null().to_pylist()
                assert {one for cell in cells for one in _split(cell, column.values)} <= set(
                    column.values.meanings
                )


def _split(cell: object, values: Values) -> list[str]:
    text = str(cell)
    return [one for one in text.split(values.separator) if one] if values.separator else [text]


@pytest.mark.parametrize("run", KEPT, ids=lambda run: f"{run.parent.name}-{run.name}")
def test_a_kept_run_is_read_by_our_own_readers(run: Path) -> None:
    """What `run --complete`, `report`, `diff` and `explain` read; `verify` is in test_golden."""
    published = read_run(run)
    evidence = Evidence(published)
    told = list(evidence.told())

    assert len(told) == published.manifest.triple_count
    assert len(list(evidence.replies())) == evidence.reply_count()
    assert make_diff(published, published, limit=10).changes.has_newly_open is False
    assert story_of(published, told[0].ref).outcome["verdict"] == told[0].verdict


def _files(run: Path, table: Table) -> list[Path]:
    folder = "evidence" if table is REPLIES else table.name
    return sorted((run / folder).rglob(f"{table.name}-*.parquet"))


def _read(run: Path, table: Table) -> pa.Table:
    return pa.concat_tables(pq.ParquetFile(path).read() for path in _files(run, table))


if __name__ == "__main__":
    text = json.dumps(snapshot(), indent=1)
    (SCHEMAS / f"{SCHEMA_VERSION}.json").write_text(f"{text}\n", "utf-8")
