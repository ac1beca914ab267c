"""dbt's sources file: the one in docs/ is the one that is made, and what it claims holds."""

import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from pipeline.tables import LOADS, TABLES
from pipeline.warehouse.dbt import sources
from pipeline.warehouse.dialects import DIALECTS
from pipeline.warehouse.script import script
from pipeline.warehouse.statements import SCHEMA
from tests.golden import GOLDEN
from tests.recorded import Recorder, of_every_kind

PAGE = Path(__file__).parents[1] / "docs" / "dbt" / "sources.yml"
(SOURCE,) = yaml.safe_load(sources(SCHEMA))["sources"]


def test_the_file_is_current() -> None:
    """`make docs` was run after the last change of a column."""
    assert PAGE.read_text("utf-8") == sources(SCHEMA)


def test_another_schema_has_the_same_source() -> None:
    (made,) = yaml.safe_load(sources("audits"))["sources"]

    assert made == {**SOURCE, "schema": "audits"}


def test_every_table_and_column_is_described() -> None:
    described = {
        table["name"]: [column["name"] for column in table["columns"]] for table in SOURCE["tables"]
    }

    assert described == {table.name: list(table.names) for table in (*TABLES, LOADS)}
    for table in SOURCE["tables"]:
        assert all(len(one["description"]) > 5 for one in [table, *table["columns"]])


def test_freshness_is_of_what_tells_when_a_run_was_loaded() -> None:
    (loads,) = [table for table in SOURCE["tables"] if table["name"] == LOADS.name]

    assert loads["config"]["loaded_at_field"] == "loaded_at"
    assert set(loads["config"]["freshness"]) == {"warn_after", "error_after"}


# --- what the tests claim -----------------------------------------------------------------------

Claim = tuple[str, str, dict[str, Any]]


def claims() -> list[Claim]:
    """Each test as its table, its kind and its arguments, those of dbt's own macros."""
    found: list[Claim] = []
    for table in SOURCE["tables"]:
        found += [(table["name"], *_claim(test, {})) for test in table.get("data_tests", [])]
        for column in table["columns"]:
            name = {"column_name": column["name"]}
            found += [(table["name"], *_claim(test, name)) for test in column.get("data_tests", [])]
    return found


def _claim(test: Any, column: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(test, str):
        return test, column
    ((kind, options),) = test.items()
    return kind, {**column, **options["arguments"]}


def against(claim: Claim) -> str:
    """The query whose rows dbt counts as failures."""
    table, kind, told = claim
    place, column = f"{SCHEMA}.{table}", told["column_name"]
    if kind == "not_null":
        return f"SELECT 1 FROM {place} WHERE {column} IS NULL"  # noqa: S608 - our own file
    if kind == "unique":
        return f"SELECT {column} FROM {place} GROUP BY 1 HAVING COUNT(*) > 1"  # noqa: S608
    if kind == "accepted_values":
        cells = [str(one) if told.get("quote") is False else f"'{one}'" for one in told["values"]]
        return f"SELECT 1 FROM {place} WHERE {column} NOT IN ({', '.join(cells)})"  # noqa: S608
    assert kind == "relationships"
    (to,) = re.findall(r"source\('checkpoint_audit', '(\w+)'\)", told["to"])
    parents = f"SELECT {told['field']} FROM {SCHEMA}.{to}"  # noqa: S608
    return f"SELECT 1 FROM {place} WHERE {column} NOT IN ({parents})"  # noqa: S608


def failures(connection: duckdb.DuckDBPyConnection) -> set[tuple[str, str]]:
    return {claim[:2] for claim in claims() if connection.execute(against(claim)).fetchall()}


@pytest.fixture
def loaded(tmp_path: Path) -> duckdb.DuckDBPyConnection:
    """Runs of today and every golden one, in the order of their start."""
    kept = sorted(path.parent for path in GOLDEN.glob("*/*/manifest.json"))
    connection = duckdb.connect()
    for run in [*kept, Recorder(tmp_path).publish(of_every_kind()).path]:
        connection.execute(script(DIALECTS["duckdb"], SCHEMA, str(run), {}))
    return connection


def test_the_claims_hold_for_runs_that_were_loaded(loaded: duckdb.DuckDBPyConnection) -> None:
    assert {kind for _, kind, _ in claims()} == {
        "not_null",
        "unique",
        "accepted_values",
        "relationships",
    }
    assert failures(loaded) == set()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE outcomes SET verdict = 'OK'", ("outcomes", "accepted_values")),
        ("UPDATE runs SET exit_code = 2", ("runs", "accepted_values")),
        ("INSERT INTO outcomes SELECT * FROM outcomes LIMIT 1", ("outcomes", "unique")),
        ("DELETE FROM runs", ("clusters", "relationships")),
        ("DELETE FROM checkpoints", ("parts", "relationships")),
        ("DELETE FROM outcomes", ("findings", "relationships")),
    ],
)
def test_a_claim_that_does_not_hold_is_found(
    damage: str, found: tuple[str, str], loaded: duckdb.DuckDBPyConnection
) -> None:
    loaded.execute(f"USE {SCHEMA}")
    loaded.execute(damage)

    assert found in failures(loaded)
