"""Data quality at the door: what is wrong with the tables of a run keeps it from readers."""

import json
import re
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.derive import facts_of
from pipeline.errors import ExitCode, ProgramFault
from pipeline.outcomes import Failure, FailureKind
from pipeline.policy import default_policy, read_policy
from pipeline.published import PublishedRun, read_run
from pipeline.quality import ROWS_AT_ONCE, check_tables
from pipeline.replay import judge_anew
from pipeline.runs import AuditFolder
from pipeline.staging import Staging
from tests.golden import GOLDEN
from tests.nights import Night
from tests.recorded import START, Answers, Recorder, document, good, of_every_kind, ref

PAGES = [[ref(n, 3) for n in range(1, 4)], [ref(n, 3) for n in range(4, 6)]]
POLICY = read_policy('[thresholds]\nrpo_age = "30m"\n', "a policy of the tests")

Row = dict[str, Any]
Change = Callable[[list[Row]], Any]


def answers() -> Answers:
    """Some of every kind, and a checkpoint of three parts."""
    (part,) = document(ref(1))["parts"]
    parts = [{**part, "replicaSetName": name, "shardName": name} for name in ("a", "b", "c")]
    never = Failure(FailureKind.NOT_ASKED, detail="not asked before the deadline")
    return of_every_kind() | {ref(9): [good(ref(9), parts=parts)], ref(1, 4): never}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedRun:
    recorder = Recorder(tmp_path_factory.mktemp("outputs"))
    return recorder.publish(answers(), pages=PAGES, policy=POLICY)


@pytest.fixture
def run(published: PublishedRun, tmp_path: Path) -> PublishedRun:
    """A copy of a run, as it was staged."""
    shutil.copytree(published.path, tmp_path / "run")
    return PublishedRun(tmp_path / "run", published.manifest)


def check(run: PublishedRun, rows_at_once: int = ROWS_AT_ONCE) -> None:
    check_tables(run.path, facts_of(run), rows_at_once)


def path_of(run: PublishedRun, table: str) -> Path:
    (path,) = run.path.glob(f"*/**/{table}-*.parquet")
    return path


def alter(run: PublishedRun, table: str, change: Change) -> None:
    """Change the rows of a table, which a function is given as a list."""
    path = path_of(run, table)
    found = pq.read_table(path, partitioning=None)
    rows = found.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, found.schema), path, row_group_size=4)


def alter_schema(run: PublishedRun, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
    path = path_of(run, table)
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)


def put(row: int, **values: Any) -> Change:
    return lambda rows: rows[row].update(values)


def drop(row: int) -> Change:
    return lambda rows: rows.pop(row)


def twice(row: int) -> Change:
    return lambda rows: rows.insert(row, dict(rows[row]))


def swap(row: int) -> Change:
    def change(rows: list[Row]) -> None:
        rows[row], rows[row + 1] = rows[row + 1], rows[row]

    return change


def renamed(row: int, cluster: str) -> Change:
    return put(row, cluster_name=cluster)


ONE = f"{ref(1).group_id}/orders/{ref(1).checkpoint_id}"
THREE = f"{ref(1, 3).group_id}/orders/{ref(1, 3).checkpoint_id}"
SEVEN = f"{ref(7).group_id}/orders/{ref(7).checkpoint_id}"
NINE = f"{ref(9).group_id}/orders/{ref(9).checkpoint_id}"

#: Rows of `outcomes`: 0 to 8 are of one cluster (3 and 8: FAIL, 5: ABSENT, 6 and 7: INCONCLUSIVE),
#: 9 and 10 (FAIL, INCONCLUSIVE) of another, 11 to 15 from pages of a list, 16 was never asked.
DAMAGES: dict[str, tuple[str, Change, str]] = {
    # keys and order
    "outcome twice": ("outcomes", twice(0), f"outcomes: {ONE} is there twice"),
    "outcomes not sorted": ("outcomes", swap(1), "outcomes: the rows are not in order at "),
    "checkpoint twice": ("checkpoints", twice(0), f"checkpoints: {ONE} is there twice"),
    "checkpoints not sorted": ("checkpoints", swap(0), "checkpoints: the rows are not in order"),
    "part twice": ("parts", twice(0), f"parts: {ONE} part_index 0 is there twice"),
    "parts not sorted": ("parts", swap(4), "parts: the rows are not in order at "),
    "cluster twice": ("clusters", twice(0), f"clusters: {ref(1).group_id}/orders is there twice"),
    "clusters not sorted": ("clusters", swap(0), "clusters: the rows are not in order at "),
    "finding twice": ("findings", twice(0), "rule_id restorable-false is there twice"),
    "findings not sorted": ("findings", swap(0), "findings: the rows are not in order at "),
    "failing twice": ("failing", twice(0), "failing: "),
    "reply twice in a triple": ("replies", twice(5), "reply_id 6 is there twice"),
    "reply_id twice": ("replies", put(11, reply_id=4), "replies: reply_id 4 is there twice"),
    "replies not sorted": ("replies", swap(0), "replies: the rows are not in order at "),
    # references
    "checkpoint lacking": ("checkpoints", drop(0), f"checkpoints: lacks {ONE}"),
    "checkpoint of no outcome": (
        "checkpoints",
        lambda rows: rows.append({**rows[-1], "checkpoint_id": "f" * 24}),
        "should not be there",
    ),
    "checkpoint of an absent triple": (
        "outcomes",
        put(0, verdict="ABSENT", failure_kind="checkpoint_absent"),
        f"checkpoints: {ONE} should not be there",
    ),
    "checkpoint's reply": ("checkpoints", put(0, reply_id=5), f"reply_id of {ONE} is 5, wanted 4"),
    "checkpoint's digest": (
        "checkpoints",
        put(0, reply_sha256="0" * 64),
        f"checkpoints: reply_sha256 of {ONE} is 0000",
    ),
    "checkpoint's time": ("checkpoints", put(0, fetched_at=START), f"fetched_at of {ONE} is "),
    "part_count": ("checkpoints", put(0, part_count=2), f"part_count of {ONE} is 1, wanted 2"),
    "last part lacking": ("parts", drop(7), f"parts: part_count of {NINE} is 2, wanted 3"),
    "all parts lacking": ("parts", drop(0), f"parts: lacks {ONE}"),
    "a hole among parts": ("parts", drop(6), f"part_index of {NINE} is 2, wanted 1"),
    "parts not from 0": ("parts", drop(5), f"part_index of {NINE} is 1, wanted 0"),
    "first part not 0": ("parts", put(0, part_index=1), f"part_index of {ONE} is 1, wanted 0"),
    "part of no checkpoint": (
        "parts",
        lambda rows: rows.append({**rows[-1], "checkpoint_id": "f" * 24}),
        "parts: ",
    ),
    "finding on no triple": (
        "findings",
        lambda rows: rows.insert(6, {**rows[5], "checkpoint_id": "0" * 22 + "ff"}),
        "is not in outcomes",
    ),
    "finding on no cluster": ("findings", renamed(6, "zeta"), "zeta is not in clusters"),
    "finding's scope": ("findings", put(0, scope="cluster"), "has the wrong scope"),
    "FAIL without a finding": ("findings", drop(0), "is not in findings"),
    "cluster lacking": ("clusters", drop(1), f"clusters: lacks {ref(1, 2).group_id}/billing"),
    "last cluster lacking": ("clusters", drop(3), f"clusters: lacks {ref(1, 4).group_id}/orders"),
    "cluster of no outcome": (
        "clusters",
        lambda rows: rows.append({**rows[-1], "cluster_name": "zeta"}),
        "clusters: ",
    ),
    "failing lacking": ("failing", drop(1), "failing: lacks "),
    "failing though it passes": (
        "failing",
        put(0, checkpoint_id=ref(1).checkpoint_id),
        "failing: ",
    ),
    "reply lacking": ("replies", drop(3), f"reply 4, on which {ONE} rests, is none of its"),
    "page lacking": ("replies", drop(1), f"reply 2, on which {THREE} rests, is no page"),
    "reply to another": (
        "outcomes",
        put(6, reply_id=16),
        f"reply 16, on which {SEVEN} rests, is none",
    ),
    "reply to no triple": (
        "replies",
        lambda rows: rows.append({**rows[-1], "checkpoint_id": "f" * 24, "reply_id": 99}),
        "is not in outcomes",
    ),
    "reply's digest": ("replies", put(3, body_sha256="0" * 64), f"reply_sha256 of {ONE} is "),
    "page's digest": ("replies", put(1, body_sha256="0" * 64), f"reply_sha256 of {THREE} is "),
    "reply's time": ("replies", put(3, received_at=START), f"fetched_at of {ONE} is "),
    # columns of one row
    "judged with a failure": ("outcomes", put(0, failure_kind="cut"), "has a checkpoint and a"),
    "no reason": ("outcomes", put(6, failure_kind=None), "neither a checkpoint nor a failure_kind"),
    "judged without a reply": (
        "outcomes",
        put(0, reply_id=None, reply_sha256=None, fetched_at=None),
        f"{ONE} was judged without a reply",
    ),
    "throttled is absent": ("outcomes", put(5, failure_kind="throttled"), "ABSENT by no word"),
    "excused though it passes": (
        "outcomes",
        put(0, excused_by="W"),
        f"{ONE} passed and is excused",
    ),
    "reply, never asked": (
        "outcomes",
        put(0, fetched_by="none"),
        "was never asked and has a reply",
    ),
    "half a reply": (
        "outcomes",
        put(6, reply_sha256=None),
        "only one of reply_id and reply_sha256",
    ),
    # one value in a run
    "run_id": ("parts", put(3, run_id="another"), "parts: run_id is 'another', wanted 2026"),
    "audit_name": ("clusters", put(0, audit_name="weekly"), "audit_name is 'weekly'"),
    "audit_date": ("runs", put(0, audit_date=date(2026, 11, 21)), "audit_date is '2026-11-21'"),
    "run_id of evidence": ("replies", put(0, run_id="another"), "replies: run_id is 'another'"),
    # enumerations
    "verdict": ("outcomes", put(0, verdict="OK"), "verdict is 'OK', wanted PASS or FAIL or"),
    "cluster's verdict": ("clusters", put(0, verdict=""), "clusters: verdict is ''"),
    "failure_kind": ("outcomes", put(6, failure_kind="bored"), "failure_kind is 'bored'"),
    "fetched_by": ("outcomes", put(0, fetched_by="auto"), "fetched_by is 'auto', wanted get or"),
    "severity": ("findings", put(0, severity="grave"), "severity is 'grave'"),
    "scope": ("findings", put(0, scope="fleet"), "scope is 'fleet'"),
    "rule_id": ("findings", put(0, rule_id="mine"), "rule_id is 'mine'"),
    "reply's kind": ("replies", put(3, failure_kind="bored"), "replies: failure_kind is 'bored'"),
    "trouble": ("replies", put(13, trouble="bored"), "trouble is 'bored'"),
    "anomalies": ("checkpoints", put(0, anomalies="bad_id,odd"), "anomalies is 'odd', wanted "),
    "run's meaning": ("runs", put(0, exit_code=2), "exit_code is '2', wanted 0 or 1 or 3 or 4"),
    "purpose": ("replies", put(3, purpose="fun"), "purpose is 'fun'"),
    # counts
    **{
        f"cluster's {name}": ("clusters", put(0, **{name: 77}), f"{name} of {ref(1).group_id}")
        for name in (
            *("triple_count", "pass_count", "fail_count", "absent_count", "inconclusive_count"),
        )
    },
    **{
        f"run's {name}": ("runs", put(0, **{name: 77}), f"runs: {name} is 77, wanted ")
        for name in (
            *("line_count", "triple_count", "duplicate_count", "bad_line_count", "pass_count"),
            *("fail_count", "absent_count", "inconclusive_count", "excused_count"),
            *("request_count", "refusal_count"),
        )
    },
    "run's completeness": ("runs", put(0, complete=True), "complete is True, wanted False"),
    "two runs": ("runs", twice(0), "runs: has 2 rows, wanted 1"),
    "no run": ("runs", drop(0), "runs: has 0 rows, wanted 1"),
    "a finding on a cluster lost": ("findings", drop(6), "summary.json: rpo-age is "),
    "another kind": (
        "outcomes",
        put(6, failure_kind="cut"),
        "INCONCLUSIVE timed_out is 1, wanted 0",
    ),
    "an excuse more": ("outcomes", put(3, excused_by="W"), "excused_count is 0, wanted 1"),
    "a refusal lost": (
        "replies",
        put(7, failure_kind="server_error"),
        "refusal_count is 1, wanted 0",
    ),
    "a reply that counts for none lost": ("replies", drop(11), "request_count is 17, and replies "),
}


@pytest.mark.parametrize("rows_at_once", [1, 2, ROWS_AT_ONCE])
def test_a_run_that_was_published_is_sound(run: PublishedRun, rows_at_once: int) -> None:
    check(run, rows_at_once)


@pytest.mark.parametrize("rows_at_once", [1, 3, ROWS_AT_ONCE])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_with_a_table_is_named(
    run: PublishedRun, damage: str, rows_at_once: int
) -> None:
    table, change, words = DAMAGES[damage]
    alter(run, table, change)

    with pytest.raises(ProgramFault, match=re.escape(words)) as caught:
        check(run, rows_at_once)
    assert str(caught.value).startswith("a check of the tables failed: ")


SCHEMAS: dict[str, tuple[str, Callable[[pa.Table], pa.Table], str]] = {
    "naive time": (
        "outcomes",
        lambda table: cast(table, "fetched_at", pa.timestamp("us")),
        "fetched_at is timestamp[us], wanted timestamp[us, tz=UTC]",
    ),
    "nanoseconds": (
        "checkpoints",
        lambda table: cast(table, "started_at", pa.timestamp("ns", "UTC")),
        "started_at is timestamp[ns, tz=UTC], wanted timestamp[us, tz=UTC]",
    ),
    "all null": (
        "parts",
        lambda table: table.set_column(6, "part_index", pa.nulls(table.num_rows, pa.int32())),
        "part_index is int32, wanted int32 and never null",
    ),
    "no type": (
        "findings",
        lambda table: cast(table, "waiver_id", pa.null()),
        "waiver_id is null, wanted string",
    ),
    "another order": (
        "clusters",
        lambda table: table.select(table.column_names[::-1]),
        "clusters: the columns are largest_gap_s, ",
    ),
    "a column more": (
        "failing",
        lambda table: table.append_column("more", pa.nulls(table.num_rows)),
        "failing_since, more",
    ),
    "a column lacking": ("replies", lambda table: table.drop_columns(["body"]), "the columns are "),
    "no version": (
        "runs",
        lambda table: table.replace_schema_metadata(None),
        "runs: schema_version is '', wanted '",
    ),
}


def cast(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    place = table.schema.get_field_index(name)
    values = pa.nulls(table.num_rows) if pa.types.is_null(kind) else table[name].cast(kind)
    return table.set_column(place, table.schema.field(place).with_type(kind), values)


@pytest.mark.parametrize("damage", SCHEMAS)
def test_another_schema_than_the_contracts_is_named(run: PublishedRun, damage: str) -> None:
    """With the types go naive times, and nulls where none may be: no such value can be written."""
    table, change, words = SCHEMAS[damage]
    alter_schema(run, table, change)

    with pytest.raises(ProgramFault, match=re.escape(words)):
        check(run)


def lose(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def copy(path: Path) -> None:
    shutil.copyfile(path, path.with_name("copy.parquet"))


def misfile(path: Path) -> None:
    path.parent.rename(path.parent.with_name("dt=2026-01-01"))


@pytest.mark.parametrize("table", ["outcomes", "failing"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lose, "{}/dt=2026-11-20 has 0 files, wanted 1"),
        (copy, "{}/dt=2026-11-20 has 2 files, wanted 1"),
        (misfile, "{}/dt=2026-11-20 has 0 files, wanted 1"),
        (cut, " cannot be read: "),
    ],
)
def test_a_file_that_is_not_there_or_torn_is_named(
    run: PublishedRun, table: str, damage: Callable[[Path], None], words: str
) -> None:
    damage(path_of(run, table))

    with pytest.raises(ProgramFault, match=re.escape(words.format(table))):
        check(run)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("excused_count", 3, "runs: excused_count is 0, wanted 3, as in summary.json"),
        ("complete", True, "runs: complete is False, wanted True, as in summary.json"),
        ("rules", [], "summary.json: "),
        ("kinds", [], "summary.json: "),
        ("counts", {"triple_count": 17}, "runs: pass_count is "),
        ("counts", 1, "summary.json: cannot be read: "),
    ],
)
def test_a_summary_that_says_something_else_is_named(
    run: PublishedRun, key: str, value: Any, words: str
) -> None:
    path = run.path / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), key: value}), "utf-8")

    with pytest.raises(ProgramFault, match=re.escape(words)):
        check(run)


def test_a_rule_that_nothing_was_found_by_is_named(run: PublishedRun) -> None:
    """What the summary counts and the table lacks, as well as the other way round."""
    path = run.path / "summary.json"
    summary = json.loads(path.read_bytes())
    summary["rules"].append({**summary["rules"][0], "rule_id": "rpo-gap"})
    path.write_text(json.dumps(summary), "utf-8")

    with pytest.raises(ProgramFault, match="rpo-gap is 2, wanted 0, as findings count to"):
        check(run)


# --- what is sound -------------------------------------------------------------------------------


def only_good() -> Answers:
    return {ref(number): [good(ref(number))] for number in range(1, 4)}


def never_asked() -> Answers:
    never = Failure(FailureKind.NOT_ASKED, detail="not asked before the deadline")
    return {ref(number): never for number in range(1, 4)}


@pytest.mark.parametrize("answered", [only_good, never_asked, of_every_kind])
def test_nights_with_and_without_findings_and_checkpoints_are_sound(
    tmp_path: Path, answered: Callable[[], Answers]
) -> None:
    recorder = Recorder(tmp_path)
    recorder.bad_line = "x,y,z,nobody" if answered is of_every_kind else ""
    for night in ("2026-11-20", "2026-11-21"):
        check(recorder.publish(answered(), audit_date=night), rows_at_once=2)


def test_a_run_that_is_judged_anew_is_checked_as_well(run: PublishedRun, tmp_path: Path) -> None:
    judge_anew(run, default_policy(), tmp_path / "anew", START)
    check(read_run(tmp_path / "anew"))


@pytest.mark.parametrize("path", sorted((GOLDEN / "0.2.0.dev0").glob("*/")), ids=lambda p: p.name)
def test_golden_runs_are_sound(path: Path) -> None:
    """Runs of simulated fleets: with faults, from lists, completed, waived, signed, judged anew."""
    check(read_run(path), rows_at_once=5)


# --- the door ------------------------------------------------------------------------------------


class Bending(Staging):
    """Writes what it is given, but for the summary."""

    def write(self, name: str, content: str | bytes) -> None:
        if name == "summary.json":
            summary = json.loads(content)
            content = json.dumps({**summary, "excused_count": 99})
        super().write(name, content)


class BendingFolder(AuditFolder):
    def stage(self, run_id: str) -> Staging:
        return Bending(self.work / f"stage-{run_id}", run_id)


def test_nothing_of_it_is_published(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.folder = BendingFolder(tmp_path, "nightly")
    with pytest.raises(ProgramFault, match="excused_count is 0, wanted 99") as caught:
        recorder.publish(of_every_kind())

    assert caught.value.exit_code == ExitCode.PROGRAM_FAULT
    assert not list(recorder.folder.runs.iterdir())
    assert recorder.folder.current() is None
    assert not list(recorder.folder.work.glob("stage-*"))


def test_what_was_collected_is_kept_for_the_next_start(night: Night) -> None:
    ended = night.run(set_up="tests.nights:bent_summary")
    asked = night.asked

    assert ended.code == ExitCode.PROGRAM_FAULT
    assert "a check of the tables failed: runs: excused_count is 0, wanted 99" in ended.err
    assert not list((night.out / "nightly" / "runs").iterdir())
    assert night.run().code in {ExitCode.OPEN, ExitCode.OPEN_AND_INCOMPLETE}
    assert night.asked == asked
