"""Loading runs into real warehouses: DuckDB, and a PostgreSQL that the tests start."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputUnusable, LoadRefused
from pipeline.published import read_run
from pipeline.tables import TABLES
from pipeline.warehouse import load as loading
from pipeline.warehouse import stage as staging
from pipeline.warehouse.address import read_address
from pipeline.warehouse.load import Loaded
from pipeline.warehouse.stage import fill
from pipeline.warehouse.statements import create_tables, replace_slice
from tests.postgres import Postgres
from tests.warehouses import NIGHT, Made, held, loads, query, schemas, wanted

SIZES = {"checkpoints": 3, "parts": 7, "outcomes": 10, "clusters": 2, "findings": 4}
FEWER = {"checkpoints": 2, "parts": 5, "outcomes": 9, "clusters": 2, "findings": 0}

KINDS = ("duckdb", "postgresql")


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty warehouse, of each kind."""
    return new_warehouse(request, str(request.param), tmp_path)


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    return postgres.new_database()


def new_warehouse(request: pytest.FixtureRequest, kind: str, folder: Path) -> str:
    if kind == "duckdb":
        return f"duckdb://{folder}/warehouse.duckdb"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


def load(
    made: Made, url: str, *, schema: str = "checkpoint_audit", replace_anyway: bool = False
) -> Loaded:
    address = read_address({"CHECKPOINT_AUDIT_WAREHOUSE_URL": url})
    run = read_run(made.path)
    return loading.load(run, address, schema, datetime.now(UTC), replace_anyway=replace_anyway)


# --- what is loaded -----------------------------------------------------------------------------


def test_all_rows_are_there(url: str, tmp_path: Path) -> None:
    made = Made(tmp_path, SIZES)

    loaded = load(made, url)

    assert loaded == Loaded({**SIZES, "runs": 1}, None, ())
    assert held(url) == wanted(made)
    (noted,) = loads(url)
    assert (noted["run_id"], noted["row_count"], noted["replaced_run_id"]) == (
        made.run_id,
        27,
        None,
    )


def test_the_same_run_twice_gives_the_same_rows(url: str, tmp_path: Path) -> None:
    made = Made(tmp_path, SIZES)

    load(made, url)
    again = load(made, url)

    assert again.replaced == made.run_id
    assert held(url) == wanted(made)
    assert len(loads(url)) == 2


def test_only_the_slice_is_replaced(url: str, tmp_path: Path) -> None:
    """Neither another night nor an audit of the same date is touched."""
    night = Made(tmp_path, SIZES)
    others = [
        Made(tmp_path, SIZES, started_at=NIGHT - timedelta(days=1), audit_date=date(2026, 11, 19)),
        Made(tmp_path, SIZES, audit="ad-hoc"),
    ]
    later = Made(tmp_path, FEWER, started_at=NIGHT + timedelta(hours=1))
    for made in (night, *others):
        load(made, url)

    loaded = load(later, url)

    assert loaded.replaced == night.run_id
    assert held(url) == wanted(later, *others)


def test_a_night_without_findings_empties_the_slice(url: str, tmp_path: Path) -> None:
    load(Made(tmp_path, SIZES), url)
    later = Made(tmp_path, {"outcomes": 10}, started_at=NIGHT + timedelta(hours=1))

    load(later, url)

    assert held(url) == wanted(later)


def test_a_column_that_is_null_all_night_changes_no_type(url: str, tmp_path: Path) -> None:
    """Neither in the first night nor in a later one."""
    before = columns(url, Made(tmp_path, {"parts": [{"shard_name": None, "token_at": None}] * 3}))
    after = columns(
        url, Made(tmp_path, {"parts": [{"shard_name": "s"}] * 3}, started_at=NIGHT + HOUR)
    )
    last = Made(tmp_path, {"parts": [{"shard_name": None}] * 2}, started_at=NIGHT + 2 * HOUR)

    assert before == after == columns(url, last)
    assert held(url) == wanted(last)


HOUR = timedelta(hours=1)


def columns(url: str, made: Made) -> list[tuple[Any, ...]]:
    """Load, and give the columns that the tables have then."""
    load(made, url)
    return query(
        url,
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns "
        "WHERE table_schema = 'checkpoint_audit' ORDER BY 1, 2",
    )


TEXTS = [
    None,
    "",
    " ",
    "NULL",
    "\\N",
    "\\.",
    "a\n\\.\nb",
    'it\'s "quoted"',
    "a,b;c\td\\e",
    "two\nlines\r\nand\rmore",
    "é 😀 \u202e \x01 \u2028",
    "%s ? {0}",
    "E'\\n'",
    "x" * 100_000,
]


def test_every_text_arrives_as_it_is(url: str, tmp_path: Path) -> None:
    """An empty text is none that is null; dlt's CSV for PostgreSQL makes it one."""
    nullable = [
        {
            "message": text or "",
            "observed": text or "",
            "waiver_id": text,
            "checkpoint_id": text,
        }
        for text in TEXTS
    ]
    parts = [{"replica_set_name": text, "type_name": text, "shard_name": text} for text in TEXTS]
    made = Made(tmp_path, {"findings": nullable, "parts": parts})

    load(made, url)

    assert held(url) == wanted(made)


def test_every_number_and_time_arrives_as_it_is(url: str, tmp_path: Path) -> None:
    """Up to the bounds of their types, to the last bit and microsecond."""
    times = [
        datetime(2026, 11, 20, 3, 0, 0, 123456, UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999000, UTC),
    ]
    parts = [
        {"token_increment": number, "part_index": index, "token_at": at, "token_discovered": seen}
        for number, index, at, seen in [
            (2**63 - 1, 2**31 - 1, times[0], True),
            (2**63 - 1, 0, times[1], False),
            (-(2**63), -(2**31), times[2], None),
            (None, 1, None, None),
            (0, 1, datetime(2300, 1, 1, 0, 0, 0, 123457, UTC), None),
        ]
    ]
    spreads = [0.1, 1 / 3, 1e300, 5e-324, -0.0, None]
    checkpoints = [{"token_spread_s": value, "restorable": None} for value in spreads]
    made = Made(tmp_path, {"parts": parts, "checkpoints": checkpoints})

    load(made, url)

    assert held(url) == wanted(made)


@pytest.mark.parametrize("year", [1, 1969, 2300, 9999])
def test_the_last_and_the_first_time_of_a_table(year: int, url: str, tmp_path: Path) -> None:
    """They are what is compared; as seconds in binary fractions they differ from 2242 on."""
    at = datetime(year, 12, 31, 23, 59, 59, 123457, UTC)
    made = Made(tmp_path, {"parts": [{"token_at": at}]})

    load(made, url)

    assert held(url) == wanted(made)


def test_the_character_nul(url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Atlas's own words may hold one. PostgreSQL takes none: another takes its place there."""
    texts = ["a\0b\0", "\0", "", "c", None]
    parts = [{"replica_set_name": text, "type_name": "\0", "shard_name": text} for text in texts]
    made = Made(tmp_path, {"parts": parts})

    load(made, url)

    if url.startswith("duckdb"):
        assert held(url) == wanted(made)
        assert not caplog.records
        return
    without = [
        {name: text and text.replace("\0", "\ufffd") for name, text in row.items()} for row in parts
    ]
    assert held(url) == wanted(Made(tmp_path / "without", {"parts": without}))
    assert {record.getMessage() for record in caplog.records} == {
        f"parts.{name}: the character NUL, which the warehouse does not take, is U+FFFD there in "
        f"{count} of the values"
        for name, count in {"replica_set_name": 2, "shard_name": 2, "type_name": 5}.items()
    }


def test_many_rows_go_in_several_batches(url: str, tmp_path: Path) -> None:
    made = Made(tmp_path, {"parts": 25_000})

    load(made, url)

    assert held(url)["parts"] == wanted(made)["parts"]


def test_nothing_but_the_tables_stays(url: str, tmp_path: Path) -> None:
    load(Made(tmp_path, SIZES), url, schema="audits")

    names = query(
        url, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'audits'"
    )
    assert {name for (name,) in names} == {*(table.name for table in TABLES), "loads"}
    assert schemas(url) == {"audits"}


def test_a_schema_with_capitals_is_the_same_each_time(url: str, tmp_path: Path) -> None:
    made = Made(tmp_path, SIZES)
    load(made, url, schema="Audits")

    load(made, url, schema="Audits")

    assert held(url, "Audits") == wanted(made)


def test_views_on_the_tables_survive(url: str, tmp_path: Path) -> None:
    """Rows are deleted and inserted; no table is ever dropped or renamed."""
    load(Made(tmp_path, SIZES), url)
    query(url, "CREATE VIEW checkpoint_audit.mine AS SELECT run_id FROM checkpoint_audit.parts")
    query(url, "CREATE TABLE checkpoint_audit.notes AS SELECT 1 AS a")
    later = Made(tmp_path, FEWER, started_at=NIGHT + HOUR)

    load(later, url)

    assert query(url, "SELECT DISTINCT run_id FROM checkpoint_audit.mine") == [(later.run_id,)]
    assert query(url, "SELECT a FROM checkpoint_audit.notes") == [(1,)]


@pytest.mark.parametrize("deferred", [True, False])
def test_a_foreign_key_onto_the_tables(deferred: bool, postgres_url: str, tmp_path: Path) -> None:
    """As the guide says: rows are deleted before they are inserted anew."""
    url, made = postgres_url, Made(tmp_path, SIZES)
    load(made, url)
    how = "DEFERRABLE INITIALLY DEFERRED" if deferred else ""
    query(url, "ALTER TABLE checkpoint_audit.runs ADD UNIQUE (run_id)")
    query(url, f"CREATE TABLE mine (run_id TEXT REFERENCES checkpoint_audit.runs (run_id) {how})")
    query(url, "INSERT INTO mine SELECT run_id FROM checkpoint_audit.runs")
    if deferred:
        load(made, url)
    else:
        with pytest.raises(LoadRefused, match="violates foreign key constraint"):
            load(made, url)

    assert held(url) == wanted(made)
    assert query(url, "SELECT run_id FROM mine") == [(made.run_id,)]


# --- refusals -----------------------------------------------------------------------------------


def test_a_run_that_began_before_the_loaded_one(url: str, tmp_path: Path) -> None:
    loaded = Made(tmp_path, SIZES)
    load(loaded, url)
    older = Made(tmp_path, FEWER, started_at=NIGHT - HOUR)

    with pytest.raises(LoadRefused, match=r"it began at .* 02:00:00 UTC, before .* 03:00:00 UTC"):
        load(older, url)

    assert held(url) == wanted(loaded)
    assert schemas(url) == {"checkpoint_audit"}


def test_replace_anyway_is_noted(url: str, tmp_path: Path) -> None:
    loaded = Made(tmp_path, SIZES, triple_count=100)
    load(loaded, url)
    worse = Made(tmp_path, FEWER, started_at=NIGHT - HOUR, triple_count=79, inconclusive_count=99)

    done = load(worse, url, replace_anyway=True)

    assert held(url) == wanted(worse)
    assert len(done.ignored) == 3
    assert loads(url)[-1]["refusals"] == "; ".join(done.ignored)
    assert loads(url)[-1]["replaced_run_id"] == loaded.run_id


def test_what_is_there_is_looked_at_once_more_in_the_end(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another load may have been quicker. (Into a DuckDB file there is none meanwhile.)"""
    url = postgres_url
    newer = Made(tmp_path, SIZES, started_at=NIGHT + HOUR)
    meanwhile(monkeypatch, lambda: load(newer, url))

    with pytest.raises(LoadRefused, match="it began at"):
        load(Made(tmp_path, FEWER), url)

    assert held(url) == wanted(newer)


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something after the first load is staged, before it is swapped."""
    done: list[object] = []

    def filling(*args: Any) -> None:
        fill(*args)
        if not done:
            done.append(None)
            act()

    monkeypatch.setattr(loading, "fill", filling)


@pytest.mark.parametrize("column", ["dropped", "added", "of another type", "nullable"])
def test_tables_of_another_make(column: str, url: str, tmp_path: Path) -> None:
    loaded = Made(tmp_path, SIZES)
    load(loaded, url)
    query(url, f"ALTER TABLE checkpoint_audit.clusters {ALTERED[column]}")
    before = query(url, "SELECT COUNT(*) FROM checkpoint_audit.parts")

    with pytest.raises(LoadRefused, match=r"checkpoint_audit.clusters has other columns"):
        load(Made(tmp_path, FEWER, started_at=NIGHT + HOUR), url)

    assert query(url, "SELECT COUNT(*) FROM checkpoint_audit.parts") == before == [(7,)]
    assert schemas(url) == {"checkpoint_audit"}


ALTERED = {
    "dropped": "DROP COLUMN largest_gap_s",
    "added": "ADD COLUMN more INTEGER",
    "of another type": "ALTER COLUMN triple_count TYPE INTEGER",
    "nullable": "ALTER COLUMN triple_count DROP NOT NULL",
}


def test_a_file_that_is_not_as_published(url: str, tmp_path: Path) -> None:
    made = Made(tmp_path, SIZES)
    (path,) = (made.path / "parts").rglob("*.parquet")
    path.write_bytes(path.read_bytes() + b" ")

    with pytest.raises(InputUnusable, match="is not as it was published"):
        load(made, url)


# --- failures -----------------------------------------------------------------------------------


def test_a_table_that_cannot_be_staged(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dlt alone two tables show the new run then, and one is empty."""
    loaded = Made(tmp_path, SIZES)
    load(loaded, url)
    later = Made(tmp_path, FEWER, started_at=NIGHT + HOUR)
    with monkeypatch.context() as patched:
        patched.setattr(loading, "create_tables", with_a_check)
        with pytest.raises(LoadRefused, match=r"(?i)the rows could not be staged: .*constraint"):
            load(later, url)

    assert held(url) == wanted(loaded)
    assert schemas(url) == {"checkpoint_audit"}
    load(later, url)
    assert held(url) == wanted(later)


def with_a_check(schema: str, types: dict[str, str]) -> list[str]:
    """The tables, the third of which takes no row, as where a disk is full."""
    statements = create_tables(schema, types)
    statements[2] = statements[2][: -len("\n)")] + ",\n  CHECK (attempts < 0)\n)"
    return statements


@pytest.mark.parametrize("lost", ["DELETE FROM {}.parts WHERE part_index = 3", "INSERT", "UPDATE"])
def test_rows_that_did_not_arrive(
    lost: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Made(tmp_path, SIZES)
    load(loaded, url)
    check = staging._check

    def checking(connection: Any, place: str, content: Any) -> None:
        if content.table.name == "parts":
            connection.rows(LOSSES[lost[:6]].format(place))
        check(connection, place, content)

    monkeypatch.setattr(staging, "_check", checking)
    with pytest.raises(LoadRefused, match=r"not all of the rows of parts arrived: .* in the files"):
        load(Made(tmp_path, SIZES, started_at=NIGHT + HOUR), url)

    assert held(url) == wanted(loaded)
    assert schemas(url) == {"checkpoint_audit"}


LOSSES = {
    "DELETE": "DELETE FROM {} WHERE part_index = 3",
    "INSERT": "INSERT INTO {0} SELECT * FROM {0} WHERE part_index = 3",
    "UPDATE": "UPDATE {} SET replica_set_name = '' WHERE part_index = 3",
}


def test_a_statement_that_is_refused_in_the_middle(postgres_url: str, tmp_path: Path) -> None:
    url, loaded = postgres_url, Made(tmp_path, SIZES)
    load(loaded, url)
    query(
        url,
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'not tonight'; END $$;"
        "CREATE TRIGGER no BEFORE INSERT ON checkpoint_audit.clusters FOR EACH ROW "
        "EXECUTE FUNCTION no()",
    )

    with pytest.raises(LoadRefused, match="not tonight"):
        load(Made(tmp_path, FEWER, started_at=NIGHT + HOUR), url)

    assert held(url) == wanted(loaded)
    assert len(loads(url)) == 1
    assert schemas(url) == {"checkpoint_audit"}


def test_a_statement_that_is_refused_in_the_middle_by_duckdb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, loaded = f"duckdb://{tmp_path}/w.duckdb", Made(tmp_path, SIZES)
    load(loaded, url)

    def broken(schema: str, stage: str) -> list[str]:
        statements = replace_slice(schema, stage)
        return [*statements[:5], "SELECT error('not tonight')", *statements[5:]]

    with monkeypatch.context() as patched:
        patched.setattr(loading, "replace_slice", broken)
        with pytest.raises(LoadRefused, match="not tonight"):
            load(Made(tmp_path, FEWER, started_at=NIGHT + HOUR), url)

    assert held(url) == wanted(loaded)
    assert schemas(url) == {"checkpoint_audit"}


KEEPING_BACK = {
    "a trigger": "CREATE FUNCTION checkpoint_audit.no() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN IF NEW.part_index = 3 THEN RETURN NULL; END IF; RETURN NEW; END $$;"
    "CREATE TRIGGER no BEFORE INSERT ON checkpoint_audit.parts FOR EACH ROW "
    "EXECUTE FUNCTION checkpoint_audit.no()",
    "a trigger that changes": "CREATE FUNCTION checkpoint_audit.no() RETURNS trigger "
    "LANGUAGE plpgsql AS $$ BEGIN NEW.shard_name = ''; RETURN NEW; END $$;"
    "CREATE TRIGGER no BEFORE INSERT ON checkpoint_audit.parts FOR EACH ROW "
    "EXECUTE FUNCTION checkpoint_audit.no()",
    "a rule": "CREATE RULE no AS ON INSERT TO checkpoint_audit.parts DO INSTEAD NOTHING",
    "row level security": "ALTER TABLE checkpoint_audit.parts ENABLE ROW LEVEL SECURITY;"
    "ALTER TABLE checkpoint_audit.parts FORCE ROW LEVEL SECURITY;"
    "CREATE POLICY mine ON checkpoint_audit.parts USING (part_index <> 3) WITH CHECK (TRUE)",
}


@pytest.mark.parametrize("what", KEEPING_BACK)
def test_rows_that_are_kept_back_in_the_swap(what: str, postgres_url: str, tmp_path: Path) -> None:
    """Without an error of PostgreSQL's."""
    url, loaded = postgres_url, Made(tmp_path, SIZES)
    load(loaded, url)
    query(url, KEEPING_BACK[what])
    before = held(url)
    later = Made(tmp_path, SIZES, started_at=NIGHT + HOUR)

    with pytest.raises(LoadRefused, match=r"parts arrived: .* checkpoint_audit\.parts"):
        load(later, url)

    assert held(url) == before
    assert len(loads(url)) == 1


def test_a_role_with_few_digits(postgres: Postgres, tmp_path: Path) -> None:
    """Those of its numbers: sums would not be those of the files."""
    url = postgres.new_database()
    query(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET extra_float_digits = -15")
    made = Made(tmp_path, {"checkpoints": [{"token_spread_s": 1 / 3}]})

    load(made, url)

    query(url, f"ALTER DATABASE {url.rpartition('/')[2]} RESET extra_float_digits")
    assert held(url) == wanted(made)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_text(
    encoding: str, postgres: Postgres, tmp_path: Path
) -> None:
    name = f"test_{encoding.lower()}"
    postgres.execute(
        f"CREATE DATABASE {name} OWNER loader ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    )
    url = postgres.url(name)
    held_by_any = Made(tmp_path, {"parts": [{"shard_name": "plain"}]})
    load(held_by_any, url)
    later = Made(tmp_path, {"parts": [{"shard_name": "\N{EURO SIGN}"}]}, started_at=NIGHT + HOUR)

    with pytest.raises(LoadRefused) as refused:
        load(later, url)

    assert f"in {encoding}, which cannot hold every text" in refused.value.hint
    assert "load into a database in UTF8" in refused.value.hint
    assert held(url) == wanted(held_by_any)


def test_a_latin_database_holds_what_it_can(postgres: Postgres, tmp_path: Path) -> None:
    postgres.execute(
        "CREATE DATABASE test_latin OWNER loader ENCODING LATIN1 LOCALE 'C' TEMPLATE template0"
    )
    url, made = postgres.url("test_latin"), Made(tmp_path, {"parts": [{"shard_name": "é"}]})

    load(made, url)

    assert held(url) == wanted(made)


def test_a_column_of_whole_seconds(postgres_url: str, tmp_path: Path) -> None:
    """Its type is called the same."""
    made = Made(tmp_path, SIZES)
    load(made, postgres_url)
    query(postgres_url, "ALTER TABLE checkpoint_audit.parts ALTER token_at TYPE timestamptz(0)")

    with pytest.raises(
        LoadRefused, match=r"token_at \(timestamp with time zone, 0 digits of a sec"
    ):
        load(made, postgres_url)


def test_a_role_that_may_not_write(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database()
    query(url, "CREATE SCHEMA checkpoint_audit")
    query(url, "CREATE TABLE checkpoint_audit.mine (a INTEGER)")
    database = url.rpartition("/")[2]
    query(postgres.url(database, role="postgres"), f"ALTER DATABASE {database} OWNER TO postgres")

    with pytest.raises(LoadRefused, match="permission denied for database"):
        load(Made(tmp_path, SIZES), url)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LoadRefused, match=r"PostgreSQL 127.0.0.1:1/audits refused: .*Connection"):
        load(Made(tmp_path, SIZES), "postgresql://me:secret-password@127.0.0.1:1/audits")


def test_a_file_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LoadRefused, match=r"nowhere/w.duckdb refused: .*No such file"):
        load(Made(tmp_path, SIZES), f"duckdb://{tmp_path}/nowhere/w.duckdb")


def test_a_file_that_was_made_for_nothing(tmp_path: Path) -> None:
    """It goes again; one that was there, or holds something, stays."""
    url, made = f"duckdb://{tmp_path}/w.duckdb", Made(tmp_path, SIZES, base_url=LOOPBACK)
    with pytest.raises(LoadRefused, match="a loopback address"):
        load(made, url)
    assert not (tmp_path / "w.duckdb").exists()

    query(url, "SELECT 1")
    with pytest.raises(LoadRefused, match="a loopback address"):
        load(made, url)
    assert (tmp_path / "w.duckdb").exists()


LOOPBACK = "http://127.0.0.1:8000"


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "w.duckdb").write_text("not a database", "utf-8")
    with pytest.raises(LoadRefused, match=r"w.duckdb refused: .*not a valid DuckDB"):
        load(Made(tmp_path, SIZES), f"duckdb://{tmp_path}/w.duckdb")


# --- stages -------------------------------------------------------------------------------------


def test_a_stage_that_was_left_is_dropped(url: str, tmp_path: Path) -> None:
    query(url, "CREATE SCHEMA checkpoint_audit_stage_0123456789ab")
    query(url, "CREATE TABLE checkpoint_audit_stage_0123456789ab.parts (a INTEGER)")
    query(url, "CREATE SCHEMA checkpoint_audit_stage_mine")

    load(Made(tmp_path, SIZES), url)

    assert schemas(url) == {"checkpoint_audit", "checkpoint_audit_stage_mine"}


def test_a_stage_of_a_load_that_is_under_way_stays(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load begins and ends while another one's rows are staged: both are right."""
    other = Made(tmp_path, SIZES, audit="weekly")
    made = Made(tmp_path, SIZES)
    meanwhile(monkeypatch, lambda: load(other, postgres_url))

    load(made, postgres_url)

    assert held(postgres_url) == wanted(made, other)
    assert schemas(postgres_url) == {"checkpoint_audit"}


def test_the_address_is_not_what_is_shown() -> None:
    address = read_address(
        {"CHECKPOINT_AUDIT_WAREHOUSE_URL": "postgresql://me:se%40cret-1@db.example.com/audits"}
    )

    assert "cret-1" not in repr(address) + str(address) + repr(replace(address, shown=""))
    assert {"se@cret-1", "se%40cret-1"} <= set(address.secrets)
