"""`schema`: each dialect's SQL parses, and does what it says in those that can be run here."""

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError

from pipeline.errors import ConfigurationWrong, InputUnusable
from pipeline.outcomes import Failure, FailureKind
from pipeline.published import read_run
from pipeline.tables import LOADS, RUNS, TABLES
from pipeline.warehouse import load as loading
from pipeline.warehouse.address import read_address
from pipeline.warehouse.dialects import DIALECTS, Dialect, Place
from pipeline.warehouse.script import checked_location, counts_of, script, sections
from pipeline.warehouse.statements import checked_schema
from tests import clickhouse as clickhouses
from tests.recorded import START, Answers, Recorder, document, good, of_every_kind, ref
from tests.scripted import (
    SCHEMA,
    ClickHouse,
    DuckDB,
    Postgres,
    Refused,
    Warehouse,
    published,
    run_ids,
)

if TYPE_CHECKING:
    from tests import postgres as servers

NAMES = tuple(DIALECTS)


def statements(dialect: Dialect) -> list[str]:
    place = Place(SCHEMA, checked_location(dialect, ""))
    return [one for _, found in sections(dialect, place, {}) for one in found]


# --- the text -----------------------------------------------------------------------------------

#: What sqlglot cannot parse, and why that is as it should be.
UNPARSED = {
    "postgres": (
        r"\\copy |LOCK TABLE ",
        "psql's own command, and a lock that sqlglot only hands on: both are run for real below",
    ),
    "redshift": ("LOCK ", "a lock that sqlglot only hands on"),
    "bigquery": ("LOAD DATA OVERWRITE TEMP TABLE ", "sqlglot knows LOAD DATA without TEMP TABLE"),
}


def is_parsed(statement: str, name: str) -> bool:
    """Whether it is one statement that sqlglot understands, and does not only hand on."""
    try:
        trees = sqlglot.parse(statement, dialect=name)
    except ParseError:
        return False
    return len(trees) == 1 and trees[0] is not None and trees[0].find(exp.Command) is None


@pytest.mark.parametrize("name", NAMES)
def test_sqlglot_parses_every_statement(name: str) -> None:
    known, _ = UNPARSED.get(name, ("(?!)", ""))
    unparsed = [one for one in statements(DIALECTS[name]) if not is_parsed(one, name)]

    assert [one for one in unparsed if not re.match(known, one)] == []
    assert bool(unparsed) is (name in UNPARSED)


def test_bigquerys_loads_parse_but_for_their_temporary_tables() -> None:
    loads = [one for one in statements(DIALECTS["bigquery"]) if one.startswith("LOAD DATA")]

    assert len(loads) == len(TABLES)
    for load in loads:
        columns = load.partition("(")[2].partition("\n)")[0]
        assert is_parsed(f"CREATE TEMP TABLE staged ({columns})", "bigquery")


@pytest.mark.parametrize("name", NAMES)
def test_every_table_has_every_column_of_the_contract(name: str) -> None:
    dialect = DIALECTS[name]
    made = {}
    for statement in statements(dialect):
        tree = sqlglot.parse_one(statement, dialect=name) if "CREATE TABLE" in statement else None
        if tree is not None and tree.this.this.name.find("staged_") < 0:
            columns = tree.find_all(exp.ColumnDef)
            made[tree.this.this.name] = [column.name for column in columns]
    prefix = "" if dialect.is_transactional else "loaded_"

    assert made == {
        **{f"{prefix}{table.name}": list(table.names) for table in TABLES},
        LOADS.name: list(LOADS.names),
    }


@pytest.mark.parametrize("name", [name for name in NAMES if DIALECTS[name].is_transactional])
def test_between_begin_and_commit_are_only_inserts_and_deletes_runs_last(name: str) -> None:
    """DDL would commit what is under way in Snowflake, and is refused by BigQuery."""
    text = statements(DIALECTS[name])
    begin = text.index(DIALECTS[name].begin)
    within = text[begin + 1 : -1]

    assert text[-1] == DIALECTS[name].commit
    assert {one.split()[0] for one in within} - {"LOCK"} == {"INSERT", "DELETE"}
    assert within[-1].startswith(f"INSERT INTO {SCHEMA}.{RUNS.name} ")


@pytest.mark.parametrize("name", [name for name in NAMES if not DIALECTS[name].is_transactional])
def test_without_a_transaction_runs_come_last_and_are_looked_for(name: str) -> None:
    *_, last, check = statements(DIALECTS[name])

    assert last.startswith(f"INSERT INTO {SCHEMA}.loaded_runs ")
    assert check.startswith("SELECT ")


@pytest.mark.parametrize("name", ["postgres", "redshift"])
def test_the_lock_comes_before_any_snapshot(name: str) -> None:
    """Redshift makes one at the first query or DML of a transaction, and so does PostgreSQL."""
    text = statements(DIALECTS[name])

    assert text[text.index(DIALECTS[name].begin) + 1].startswith("LOCK ")


@pytest.mark.parametrize("name", NAMES)
def test_the_head_says_what_to_replace_and_how_to_run_it(name: str) -> None:
    dialect = DIALECTS[name]
    head, _, body = script(dialect, SCHEMA, "", {}).partition("\n\n")

    assert all(line.startswith("--") for line in head.splitlines())
    assert f"Replace {dialect.location} throughout" in head
    assert "load.sql" in head
    assert dialect.location in body or name == "postgres"
    assert max(map(len, body.splitlines())) < 700


def test_dialects_and_the_options_are_the_same() -> None:
    from pipeline.cli.schema import DialectName

    assert [str(name) for name in DialectName] == list(NAMES)


@pytest.mark.parametrize("name", ["a-b", "a.b", "1a", "", "a b", 'a"', "a;b", "a" * 49, "ä", "A"])
def test_a_schema_is_a_plain_word(name: str) -> None:
    with pytest.raises(ConfigurationWrong, match="--schema"):
        checked_schema(name)


@pytest.mark.parametrize("text", ["a'b", 'a"b', "a`b", "a\\b", "a;b", "a*b", "a\nb", "${a}", "a?b"])
def test_a_location_that_would_end_its_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationWrong, match="cannot be written into SQL"):
        checked_location(DIALECTS["duckdb"], text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bigquery", "s3://b"),
        ("redshift", "/a"),
        ("snowflake", "outputs"),
        ("snowflake", "s3://bucket/run"),
    ],
)
def test_a_location_that_a_warehouse_cannot_load_from_is_refused(name: str, text: str) -> None:
    with pytest.raises(ConfigurationWrong, match="cannot load from"):
        checked_location(DIALECTS[name], text)


@pytest.mark.parametrize("text", ["/", "//"])
@pytest.mark.parametrize("name", NAMES)
def test_the_root_is_no_placeholder(name: str, text: str) -> None:
    with pytest.raises(ConfigurationWrong, match="is no run's folder"):
        checked_location(DIALECTS[name], text)


def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputUnusable, match=r"manifest\.json cannot be read"):
        counts_of(str(tmp_path))


# --- the command --------------------------------------------------------------------------------


def command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "schema", *args],
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_command_prints_the_script() -> None:
    done = command("--dialect", "snowflake", "--schema", "audits", "--location", "@nightly/a run/")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == script(DIALECTS["snowflake"], "audits", "@nightly/a run", {})
    assert "FROM '@nightly/a run/parts/'" in done.stdout


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ((), 2),
        (("--dialect", "oracle"), 2),
        (("--dialect", "duckdb", "--dbt"), 2),
        (("--dbt", "--location", "a"), 2),
        (("--dialect", "duckdb", "--schema", "a b"), 78),
        (("--dialect", "duckdb", "--location", "a'b"), 78),
    ],
)
def test_what_cannot_be_printed_is_refused(args: tuple[str, ...], code: int) -> None:
    done = command(*args)

    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr


# --- in warehouses ------------------------------------------------------------------------------

#: Texts that a loader may take for something else, or for nothing.
ODD = (
    "\\N",
    "NULL",
    "",
    'a "quoted", text',
    "two\nlines\r\n",
    "tab\tand \\ and '",
    "ünï ✓ 😀",
    " ",
)


def odd() -> Answers:
    """Texts of every kind, of Atlas's in shards and of ours in details; empty ones and none."""
    part = document(ref(1))["parts"][0]
    parts = [{**part, "shardName": text, "replicaSetName": text} for text in ODD]
    bare = [{"typeName": "CONFIG_SERVER_REPLICA_SET"}]
    answers: Answers = {ref(1): [good(ref(1), parts=[*parts, *bare])]}
    for number, text in enumerate(ODD, start=2):
        answers[ref(number)] = Failure(FailureKind.NOT_ASKED, detail=text)
    return answers | {ref(30): [good(ref(30), started=None, completed="0999-01-01T00:00:00Z")]}


def without_findings() -> Answers:
    return {ref(number): [good(ref(number))] for number in (1, 2, 3)}


class Runs:
    """Runs of two audits of one date, each begun an hour after the one before."""

    def __init__(self, folder: Path) -> None:
        self._audits = {name: Recorder(folder, name) for name in ("nightly", "adhoc")}
        self._count = 0

    def publish(self, answers: Answers, audit: str = "nightly", **facts: Any) -> Path:
        self._count += 1
        began = (START + timedelta(hours=self._count)).isoformat()
        recorder = self._audits[audit]
        recorder.bad_line = ""
        return recorder.publish(answers, started_at=began, **facts).path


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "outputs")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clickhouses.Session]:
    with clickhouses.running(tmp_path_factory.mktemp("clickhouse")) as opened:
        yield opened


@pytest.fixture(params=["duckdb", "postgres", "clickhouse"])
def warehouse(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    postgres: "servers.Postgres",
    session: clickhouses.Session,
) -> Warehouse:
    folder = tmp_path / "warehouse"
    folder.mkdir()
    if request.param == "duckdb":
        return DuckDB(folder)
    if request.param == "postgres":
        return Postgres(folder, postgres.new_database())
    session.query(f"DROP DATABASE IF EXISTS {SCHEMA}")
    return ClickHouse(folder, session)


def test_every_value_of_every_table_comes_through(warehouse: Warehouse, runs: Runs) -> None:
    other, nightly = runs.publish(of_every_kind(), "adhoc"), runs.publish(odd())
    warehouse.load(other)
    warehouse.load(nightly)

    assert warehouse.rows() == published(other, nightly)


def test_the_same_run_twice_gives_the_same_rows(warehouse: Warehouse, runs: Runs) -> None:
    run = runs.publish(of_every_kind())
    warehouse.load(run)
    warehouse.load(run)

    assert warehouse.rows() == published(run)
    assert all(published(run)[table.name] for table in TABLES)


def test_a_later_run_replaces_its_slice_and_no_other(warehouse: Warehouse, runs: Runs) -> None:
    """The same date in another audit, and another date of the same audit, stay."""
    adhoc = runs.publish(of_every_kind(), "adhoc")
    before = runs.publish(of_every_kind(), audit_date="2026-11-19")
    first, second = runs.publish(of_every_kind()), runs.publish(odd())
    for run in (adhoc, before, first, second):
        warehouse.load(run)

    assert warehouse.rows() == published(adhoc, before, second)


def test_a_run_without_findings_empties_those_of_its_slice(
    warehouse: Warehouse, runs: Runs
) -> None:
    worse, better = runs.publish(of_every_kind()), runs.publish(without_findings())
    warehouse.load(worse)
    had = warehouse.rows()["findings"]
    warehouse.load(better)

    assert had
    assert warehouse.rows() == published(better)
    assert warehouse.rows()["findings"] == []


def test_a_refused_statement_leaves_what_was_there(warehouse: Warehouse, runs: Runs) -> None:
    """In the middle: checkpoints, parts, outcomes and clusters are through by then."""
    old, new = runs.publish(of_every_kind()), runs.publish({**of_every_kind(), **odd()})
    warehouse.load(old)
    noted = len(warehouse.loads())
    warehouse.refuse_findings()
    with pytest.raises(Refused):
        warehouse.load(new)
    warehouse.accept_findings()

    assert warehouse.rows() == published(old)
    assert len(warehouse.loads()) == noted
    warehouse.load(new)
    assert warehouse.rows() == published(new)


def test_files_that_are_no_whole_run_change_nothing(warehouse: Warehouse, runs: Runs) -> None:
    old, new = runs.publish(of_every_kind()), runs.publish(odd())
    warehouse.load(old)
    (empty,) = (old / "parts").rglob("*.parquet")
    (lost,) = (new / "parts").rglob("*.parquet")
    was = published(old)
    lost.write_bytes(_cut(empty, 0))
    with pytest.raises(Refused, match=r"whole|zero"):
        warehouse.load(new)

    assert warehouse.rows() == was


@pytest.mark.parametrize("has_manifest", [True, False])
def test_findings_that_were_lost_are_noticed(
    has_manifest: bool, warehouse: Warehouse, runs: Runs
) -> None:
    """Without a manifest only where a FAIL is left without one."""
    old, new = runs.publish(odd()), runs.publish(of_every_kind())
    warehouse.load(old)
    was = published(old)
    (cut,) = (new / "findings").rglob("*.parquet")
    cut.write_bytes(_cut(cut, 1))
    if not has_manifest:
        (new / "manifest.json").unlink()
    with pytest.raises(Refused, match=r"whole|zero"):
        warehouse.load(new)

    assert warehouse.rows() == was


def test_a_whole_run_without_its_manifest_is_loaded(warehouse: Warehouse, runs: Runs) -> None:
    run = runs.publish({**of_every_kind(), **odd()})
    (run / "manifest.json").unlink()
    warehouse.load(run)

    assert warehouse.rows() == published(run)


def _cut(path: Path, rows: int) -> bytes:
    from io import BytesIO

    import pyarrow.parquet as pq

    file = BytesIO()
    pq.write_table(pq.read_table(path).slice(0, rows), file)
    return file.getvalue()


def test_loads_are_noted(warehouse: Warehouse, runs: Runs) -> None:
    first, second = runs.publish(of_every_kind()), runs.publish(odd())
    warehouse.load(first)
    warehouse.load(second)
    one, two = warehouse.loads()
    count = sum(len(rows) for rows in published(second).values())

    assert (one["run_id"], one["replaced_run_id"]) == (first.name, None)
    assert (two["run_id"], two["replaced_run_id"]) == (second.name, first.name)
    assert (two["row_count"], two["schema_version"], two["refusals"]) == (count, "1", "")


@pytest.mark.parametrize("name", ["duckdb", "postgres"])
def test_the_command_load_and_the_script_take_one_anothers_tables(
    name: str, tmp_path: Path, runs: Runs, postgres: "servers.Postgres"
) -> None:
    """Whichever came first has made them."""
    made = [runs.publish(of_every_kind()), runs.publish(odd()), runs.publish(of_every_kind())]
    url = (
        postgres.new_database() if name == "postgres" else f"duckdb:///{tmp_path}/warehouse.duckdb"
    )
    warehouse = Postgres(tmp_path, url) if name == "postgres" else DuckDB(tmp_path)
    address = read_address({"CHECKPOINT_AUDIT_WAREHOUSE_URL": url})
    warehouse.load(made[0])
    loading.load(read_run(made[1]), address, SCHEMA, START, replace_anyway=True)
    then = warehouse.rows()
    warehouse.load(made[2])

    assert then == published(made[1])
    assert warehouse.rows() == published(made[2])
    replaced = {row["run_id"]: row["replaced_run_id"] for row in warehouse.loads()}
    assert replaced == {
        made[0].name: None,
        made[1].name: made[0].name,
        made[2].name: made[1].name,
    }


@pytest.mark.parametrize("level", ["read committed", "repeatable read"])
def test_postgres_keeps_two_loads_apart(
    level: str, tmp_path: Path, runs: Runs, postgres: "servers.Postgres"
) -> None:
    """Both delete what is there and insert: without a lock the slice would be there twice.

    LOCK makes no snapshot, so the one that waits sees what the other has committed.
    """
    run = runs.publish(of_every_kind())
    url = postgres.new_database()
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    first, second = (Postgres(folder, url) for folder in folders)
    database = url.rpartition("/")[2]
    first.values(f"ALTER DATABASE {database} SET default_transaction_isolation = '{level}'")
    first.load(run)
    with ThreadPoolExecutor() as pool:
        for load in [pool.submit(each.load, run) for each in (first, second)]:
            load.result()

    assert first.rows() == published(run)
    assert len(first.loads()) == 3


def test_a_postgres_load_waits_for_one_that_is_under_way(
    tmp_path: Path, runs: Runs, postgres: "servers.Postgres"
) -> None:
    run = runs.publish(of_every_kind())
    warehouse = Postgres(tmp_path, postgres.new_database())
    warehouse.load(run)
    other = psycopg2.connect(warehouse.url)
    try:
        lock = DIALECTS["postgres"].lock.format(schema=SCHEMA)
        with other.cursor() as cursor:
            cursor.execute(lock)
        patient = warehouse.script(run).replace(lock, f"SET lock_timeout = '1ms';\n{lock}")
        with pytest.raises(Refused, match="lock timeout"):
            warehouse.execute(patient)
    finally:
        other.close()

    assert warehouse.rows() == published(run)


@pytest.fixture
def clickhouse(tmp_path: Path, session: clickhouses.Session) -> ClickHouse:
    session.query(f"DROP DATABASE IF EXISTS {SCHEMA}")
    return ClickHouse(tmp_path, session)


def test_views_show_the_run_that_began_last_whatever_was_loaded_last(
    clickhouse: ClickHouse, runs: Runs
) -> None:
    earlier, later = runs.publish(of_every_kind()), runs.publish(odd())
    clickhouse.load(later)
    clickhouse.load(earlier)

    assert clickhouse.rows() == published(later)


@pytest.mark.parametrize("is_same", [True, False])
def test_what_a_load_left_that_died_is_removed_by_the_next_of_its_audit(
    is_same: bool, clickhouse: ClickHouse, runs: Runs
) -> None:
    """It may have died behind any statement; another audit's load under way is left alone."""
    died, next_, adhoc = (
        runs.publish(of_every_kind()),
        runs.publish(odd()),
        runs.publish(without_findings(), "adhoc"),
    )
    clickhouse.execute(clickhouse.script(died).partition(f"INSERT INTO {SCHEMA}.loaded_runs ")[0])

    assert _all_runs(clickhouse) == {died.name}
    assert run_ids(clickhouse.rows()) == set()
    clickhouse.load(adhoc)
    assert _all_runs(clickhouse) == {died.name, adhoc.name}
    clickhouse.load(died if is_same else next_)

    shown = died if is_same else next_
    assert clickhouse.rows() == published(adhoc, shown)
    assert _all_runs(clickhouse) == {shown.name, adhoc.name}


@pytest.mark.parametrize("table", [table.name for table in TABLES if table is not RUNS])
@pytest.mark.parametrize("times", [0, 2])
def test_a_statement_that_a_client_lost_or_repeated_shows_nothing(
    times: int, table: str, clickhouse: ClickHouse, runs: Runs
) -> None:
    """As of a client that goes on behind an error, or asks twice; the next load mends it."""
    old, new = runs.publish(odd()), runs.publish({**odd(), **of_every_kind()})
    clickhouse.load(old)
    text = clickhouse.script(new)
    (insert,) = re.findall(rf"(?ms)^INSERT INTO \S+\.loaded_{table} .*?;\n", text)
    with pytest.raises(Refused, match="not there as a whole"):
        clickhouse.execute(text.replace(insert, insert * times))

    assert clickhouse.rows() == published(old)
    clickhouse.load(new)
    assert clickhouse.rows() == published(new)
    assert [row["run_id"] for row in clickhouse.loads()] == [old.name, new.name]


def test_files_that_are_not_whole_are_not_shown_by_a_client_that_goes_on(
    clickhouse: ClickHouse, runs: Runs
) -> None:
    run = runs.publish(of_every_kind())
    (cut,) = (run / "parts").rglob("*.parquet")
    cut.write_bytes(_cut(cut, 1))
    statements_ = clickhouse.script(run).split(";\n")
    (check,) = [one for one in statements_ if "the files are not one whole run" in one]
    with pytest.raises(Refused, match="not there as a whole"):
        clickhouse.execute(";\n".join(one for one in statements_ if one != check))

    assert run_ids(clickhouse.rows()) == set()


def _all_runs(clickhouse: ClickHouse) -> set[str]:
    found = clickhouse.query("SELECT DISTINCT run_id FROM checkpoint_audit.loaded_outcomes")
    return set(found.column(0).to_pylist())
