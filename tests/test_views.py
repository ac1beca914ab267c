"""Views for DuckDB: made over real published runs, and every example of docs/duckdb.md answered."""

import json
import re
import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.history import NightState, read_history
from pipeline.outcomes import FailureKind
from pipeline.policy import read_policy
from pipeline.published import PublishedRun, find_folder, read_run
from pipeline.replay import read_summary
from pipeline.report import Summary
from pipeline.warehouse.views import VIEWED, views_sql
from tests.doubles import error, trouble
from tests.durability import table
from tests.golden import GOLDEN
from tests.nights import Night
from tests.recorded import START, Answers, Recorder, document, good, ref

PAGE = (Path(__file__).parents[1] / "docs/duckdb.md").read_text("utf-8")
EXAMPLES = dict(re.findall(r"<!-- tested: (.*?) -->\n```sql\n(.*?)```", PAGE, re.DOTALL))
POLICY = read_policy('[thresholds]\nrpo_age = "30m"\n', "a policy of the tests")

OLD, BILLING, FRESH = ref(3), ref(1, 2, "billing"), ref(1, 3, "fresh")
NIGHTS = [date(2026, 11, day) for day in (12, 13, 16, 17, 19)]


def answers(*failing: Any, minutes: int = 10) -> Answers:
    """Three clusters; the newest point of one is `minutes` old."""
    point = (START - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    found: Answers = {ref(number): [good(ref(number))] for number in (1, 2, 3)}
    (part,) = document(FRESH)["parts"]
    part["tokenTimestamp"]["date"] = point
    times = dict.fromkeys(("started", "completed", "timestamp"), point)
    found |= {BILLING: [good(BILLING)], FRESH: [good(FRESH, **times, parts=[part])]}
    return found | {each: [error(404)] for each in failing}


def publish_nights(recorder: Recorder) -> list[PublishedRun]:
    """That of the 16th was tried again, with less luck; the 14th, 15th and 18th are missing."""
    recorder.bad_line = ""
    not_restorable = {BILLING: [good(BILLING, restorable=False)]}
    unlucky = {ref(2): [trouble(FailureKind.TIMED_OUT)]}
    nights: list[tuple[str, Answers]] = [
        ("12", answers()),
        ("13", answers(OLD)),
        ("16", answers(OLD, minutes=45)),
        ("16", answers(OLD) | unlucky),
        ("17", answers(OLD) | not_restorable),
        ("19", answers(OLD, minutes=20) | not_restorable | {ref(4): [good(ref(4))]}),
    ]
    return [
        recorder.publish(
            found,
            policy=POLICY,
            audit_date=f"2026-11-{day}",
            started_at=(START + timedelta(minutes=number)).isoformat(),
        )
        for number, (day, found) in enumerate(nights)
    ]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Below a folder with a name that wants care, in SQL and in patterns."""
    outputs = tmp_path_factory.mktemp("views") / "it's [my] $$ place*" / "outputs"
    outputs.mkdir(parents=True)
    publish_nights(Recorder(outputs))
    return outputs


@pytest.fixture
def db() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.fixture
def nightly(outputs: Path, db: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    db.execute(views_sql(str(outputs / "nightly"), "nightly"))
    return db


def rows(db: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return db.execute(query).fetchall()


def names(db: duckdb.DuckDBPyConnection) -> list[str]:
    return [name for (name,) in rows(db, "SELECT view_name FROM duckdb_views() WHERE NOT internal")]


# --- the tables ----------------------------------------------------------------------------------


def test_all_runs_of_every_table_are_there(
    outputs: Path, nightly: duckdb.DuckDBPyConnection
) -> None:
    runs = sorted((outputs / "nightly" / "runs").iterdir())
    assert len(runs) == 6
    for viewed in VIEWED:
        found = nightly.execute(f"FROM all_{viewed.name} LIMIT 0")
        assert tuple(column[0] for column in found.description) == viewed.names
        found.fetchall()
        folder = "evidence" if viewed.name == "replies" else viewed.name
        wanted = sum(len(table(run, folder)) for run in runs)
        assert rows(nightly, f"SELECT count(*) FROM all_{viewed.name}") == [(wanted,)]


def test_what_is_current_is_read_from_the_pointer(
    outputs: Path, nightly: duckdb.DuckDBPyConnection
) -> None:
    current = find_folder(outputs, "nightly")
    assert rows(nightly, "FROM current_run") == [(current.name,)]
    for viewed in VIEWED:
        query = f"SELECT DISTINCT run_id FROM current_{viewed.name}"
        assert rows(nightly, query) == [(current.name,)]


def test_golden_runs_of_every_version_are_read_together(
    tmp_path: Path, db: duckdb.DuckDBPyConnection
) -> None:
    """Those of 0.1.0 lack a table; some have none, or only null, where others have values."""
    golden = [path.parent for path in GOLDEN.glob("*/*/manifest.json")]
    for path in golden:
        run = read_run(path)
        shutil.copytree(path, tmp_path / "nightly" / "runs" / run.run_id)
    db.execute(views_sql(str(tmp_path / "nightly"), "nightly"))

    versions = rows(db, "SELECT tool_version, count(*) FROM all_runs GROUP BY ALL ORDER BY ALL")
    assert versions[0] == ("0.1.0", 1)
    assert sum(count for _, count in versions) == len(golden)
    assert rows(db, "SELECT count(DISTINCT run_id) FROM all_replies") == [(len(golden),)]
    for name in names(db):
        rows(db, f"FROM {name}")


def test_of_a_run_that_does_not_tell_it_fails_since_that_night(
    tmp_path: Path, db: duckdb.DuckDBPyConnection
) -> None:
    run = read_run(GOLDEN / "0.1.0" / "get")
    shutil.copytree(run.path, tmp_path / "runs" / run.run_id)
    (tmp_path / "current.json").write_text(json.dumps({"run_id": run.run_id}))
    db.execute(views_sql(str(tmp_path), "demo"))

    failing = [row for row in table(run.path, "outcomes") if row["verdict"] in {"FAIL", "ABSENT"}]
    found = rows(db, "SELECT failing_since, count(*) FROM first_failing GROUP BY ALL")
    assert found == [(run.manifest.audit_date, len(failing))]


# --- what there is not, or not yet ---------------------------------------------------------------

#: These need no Parquet file.
NEVER_EMPTY = {"published", "current_run"}


def test_without_any_run_all_views_are_there_and_empty(
    tmp_path: Path, db: duckdb.DuckDBPyConnection
) -> None:
    recorder = Recorder(tmp_path)
    script = views_sql(str(tmp_path / "nightly"), "nightly")
    db.execute(script)

    assert len(names(db)) == 3 * len(VIEWED) + 5
    assert [rows(db, f"FROM {name}") for name in names(db)] == [[] for _ in names(db)]
    recorder.publish(answers(OLD))
    for name in set(names(db)) - NEVER_EMPTY:
        with pytest.raises(duckdb.Error, match=r"again: there is now .*nightly/runs/"):
            rows(db, f"SELECT count(*) FROM {name}")
    db.execute(script)
    assert rows(db, "SELECT count(*) FROM current_outcomes") == [(5,)]


def test_a_session_that_did_not_run_the_script_is_told_to(outputs: Path, tmp_path: Path) -> None:
    """And sees no empty tables, which would look as if nothing failed."""
    with duckdb.connect(tmp_path / "db") as first:
        first.execute(views_sql(str(outputs / "nightly"), "nightly"))
    with duckdb.connect(tmp_path / "db") as second:
        with pytest.raises(duckdb.Error, match="run the script of checkpoint-audit views in this"):
            rows(second, "FROM first_failing")


def test_a_run_that_is_published_later_is_in_the_next_answer(
    tmp_path: Path, db: duckdb.DuckDBPyConnection
) -> None:
    recorder = Recorder(tmp_path)
    recorder.publish(answers())
    db.execute(views_sql(str(tmp_path / "nightly"), "nightly"))
    assert rows(db, "FROM first_failing") == []

    later = recorder.publish(answers(OLD), audit_date="2026-11-21")
    assert rows(db, "FROM current_run") == [(later.run_id,)]
    assert rows(db, "SELECT checkpoint_id FROM first_failing") == [(OLD.checkpoint_id,)]


@pytest.mark.parametrize("left", ["manifest.json", "runs", "outcomes"])
def test_a_run_that_is_not_whole_harms_no_view(
    outputs: Path, tmp_path: Path, db: duckdb.DuckDBPyConnection, left: str
) -> None:
    """Without its manifest a run is being written, or taken away, and is left out."""
    shutil.copytree(outputs / "nightly", tmp_path / "nightly", symlinks=True)
    half = find_folder(tmp_path, "nightly")
    (half / "manifest.json").unlink()
    if left != "manifest.json":
        shutil.rmtree(half / left)
    db.execute(views_sql(str(tmp_path / "nightly"), "nightly"))

    assert rows(db, "SELECT count(*) FROM published") == [(5,)]
    for viewed in VIEWED:
        found = rows(db, f"SELECT count(*) FROM all_{viewed.name} WHERE run_id = '{half.name}'")
        assert found == [(0,)]
        assert rows(db, f"FROM current_{viewed.name}") == []


# --- what agrees with the rest of the product ----------------------------------------------------


def test_the_nights_are_those_of_history(outputs: Path, nightly: duckdb.DuckDBPyConnection) -> None:
    told = read_history(outputs / "nightly", None, NIGHTS[-1], NIGHTS[-1])
    counted = [night for night in told.nights if night.run_id is not None]
    missing = [night.audit_date for night in told.nights if night.state is NightState.MISSING]

    query = "SELECT audit_date, run_id, run_count, complete FROM history_runs ORDER BY audit_date"
    assert rows(nightly, query) == [
        (night.audit_date, night.run_id, night.run_count, night.complete) for night in counted
    ]
    assert max(night.run_count for night in counted) == 2
    found = rows(nightly, "FROM missing_nights ORDER BY ALL")
    assert found == [(each,) for each in missing]
    assert len(missing) == 3


def test_of_equal_runs_history_and_the_views_choose_the_same(
    tmp_path: Path, db: duckdb.DuckDBPyConnection
) -> None:
    recorder = Recorder(tmp_path)
    for _ in range(3):
        recorder.publish(answers())
    db.execute(views_sql(str(tmp_path / "nightly"), "nightly"))

    (night,) = read_history(tmp_path / "nightly", None, START.date(), START.date()).nights
    assert rows(db, "SELECT run_id, run_count FROM history_runs") == [(night.run_id, 3)]


def test_since_when_something_fails_is_as_its_report_says(
    outputs: Path, nightly: duckdb.DuckDBPyConnection
) -> None:
    """And as the runs say that were published one after the other."""
    summary: Summary = read_summary(read_run(find_folder(outputs, "nightly")))
    assert summary.changes is not None
    told = {each.checkpoint_id: each.since for each in summary.changes.shown if each.since}
    by_id = rows(nightly, "SELECT checkpoint_id, failing_since::VARCHAR FROM first_failing")
    query = """
        SELECT checkpoint_id, min(audit_date)::VARCHAR FROM all_outcomes AS failing
        WHERE verdict IN ('FAIL', 'ABSENT') AND NOT EXISTS (
          FROM all_outcomes AS later WHERE later.checkpoint_id = failing.checkpoint_id
          AND later.group_id = failing.group_id AND later.cluster_name = failing.cluster_name
          AND later.run_id > failing.run_id AND later.verdict NOT IN ('FAIL', 'ABSENT')
        ) GROUP BY ALL"""

    assert dict(by_id) == told
    assert sorted(by_id) == sorted(rows(nightly, query))
    assert told == {OLD.checkpoint_id: "2026-11-13", BILLING.checkpoint_id: "2026-11-17"}


# --- the page ------------------------------------------------------------------------------------

D = date
ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    "verdicts now": [("ABSENT", 1), ("FAIL", 1), ("PASS", 4)],
    "runs": [
        (D(2026, 11, 12), True, 5, 5),
        (D(2026, 11, 13), True, 5, 4),
        (D(2026, 11, 16), True, 5, 4),
        (D(2026, 11, 16), False, 5, 3),
        (D(2026, 11, 17), True, 5, 3),
        (D(2026, 11, 19), True, 6, 4),
    ],
    "beyond their rpo": [("billing", None, 0.5), ("orders", 1.0, 0.5)],
    "since when": [(D(2026, 11, 13), "ABSENT", "CHECKPOINT_NOT_FOUND")],
    "this week": [
        ("billing", BILLING.checkpoint_id, "PASS", "FAIL"),
        ("orders", OLD.checkpoint_id, "PASS", "ABSENT"),
        ("orders", ref(4).checkpoint_id, None, "PASS"),
    ],
    "by week": [
        (D(2026, 11, 9), "billing", 1),
        (D(2026, 11, 9), "fresh", 1),
        (D(2026, 11, 9), "orders", 3),
        (D(2026, 11, 16), "billing", 1),
        (D(2026, 11, 16), "fresh", 1),
        (D(2026, 11, 16), "orders", 3),
    ],
    "missing": [(D(2026, 11, 14),), (D(2026, 11, 15),), (D(2026, 11, 18),)],
    "rpo over time": [
        (D(2026, 11, 12), 10.0, False),
        (D(2026, 11, 13), 10.0, False),
        (D(2026, 11, 16), 45.0, True),
        (D(2026, 11, 17), 10.0, False),
        (D(2026, 11, 19), 20.0, False),
    ],
}


def test_every_example_has_an_answer() -> None:
    assert list(EXAMPLES) == list(ANSWERS)
    assert PAGE.count("```sql") == len(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_page(
    outputs: Path,
    nightly: duckdb.DuckDBPyConnection,
    monkeypatch: pytest.MonkeyPatch,
    example: str,
) -> None:
    monkeypatch.chdir(outputs.parent)
    assert rows(nightly, EXAMPLES[example]) == ANSWERS[example]


# --- the command ---------------------------------------------------------------------------------


def test_the_command_prints_the_script(night: Night, db: duckdb.DuckDBPyConnection) -> None:
    before = night.say("views", "nightly")
    ran = night.run()
    after = night.say("views", "nightly")

    assert (before.code, after.code) == (0, 0)
    assert before.out == after.out == views_sql(str(night.out / "nightly"), "nightly")
    assert "there is no run in " in before.err
    assert "there is no run in " not in after.err
    db.execute(after.out)
    assert rows(db, "FROM current_run") == [(ran.run.name,)]
    assert rows(db, "SELECT count(*) FROM current_outcomes") == [(len(table(ran.run, "outcomes")),)]


@pytest.mark.parametrize("name", ["../nightly", "Nightly", ""])
def test_a_name_that_no_audit_has_is_refused(night: Night, name: str) -> None:
    assert night.say("views", name).code == 78


def test_objects_are_read_by_their_addresses() -> None:
    script = views_sql("s3://bucket/audits/nightly", "nightly")
    assert "read_text('s3://bucket/audits/nightly/current.json')" in script
    assert "glob('s3://bucket/audits/nightly/runs/*/outcomes/dt=*/*.parquet')" in script
