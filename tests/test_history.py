"""The nights of an audit: a row each, the missing and the damaged among them."""

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.digests import sha256_of
from pipeline.errors import InputMissing
from pipeline.history import (
    History,
    Night,
    NightState,
    as_csv,
    as_json,
    as_text,
    read_history,
)
from tests import nights
from tests.nights import NO_FAULTS, facts

TODAY = date(2026, 11, 24)
MISSING, DAMAGED, NOT_YET = NightState.MISSING, NightState.DAMAGED, NightState.NOT_YET


def publish(outputs: Path, night: str, number: int = 0, **changes: Any) -> Path:
    """Lay down as much of a run as a history reads."""
    run_id = f"{night.replace('-', '')}T030000Z-nightly-00000{number}"
    path = outputs / "nightly" / "runs" / run_id
    (path / "outcomes" / f"dt={night}").mkdir(parents=True)
    at = datetime.fromisoformat(f"{night}T03:00:00+00:00") + timedelta(hours=number)
    facts = {
        "run_id": run_id,
        "audit_name": "nightly",
        "audit_date": night,
        "parent_run_id": None,
        "started_at": at.isoformat(),
        "finished_at": (at + timedelta(minutes=5)).isoformat(),
        "rules_version": "7",
        "policy_sha256": "abcdef0123456789",
        "policy_name": "strict",
        **dict.fromkeys(
            ("base_url", "input_source", "input_sha256", "credential_id", "tool_version"), "-"
        ),
        "triple_count": 10,
    }
    counts = {"triple_count": 10, "pass_count": 7, "fail_count": 1, "absent_count": 2}
    summary = {
        "run": facts,
        "counts": {**counts, "inconclusive_count": 0},
        "excused_count": 2,
        "exit_code": 1,
        "complete": True,
        **changes,
    }
    (path / "summary.json").write_bytes(msgspec.json.encode(summary))
    seal(path, {**facts, "complete": summary["complete"], "exit_code": summary["exit_code"]})
    return path


def seal(path: Path, facts: dict[str, Any]) -> None:
    files = [{"path": "summary.json", "sha256": sha256_of(path / "summary.json")}]
    (path / "manifest.json").write_bytes(msgspec.json.encode({**facts, "files": files}))


def read(outputs: Path, first: date | None = None, last: date | None = None) -> History:
    return read_history(outputs / "nightly", first, last, TODAY)


def states(history: History) -> dict[str, str]:
    return {f"{night.audit_date:%d}": night.state for night in history.nights}


# --- which nights -------------------------------------------------------------------------------


def test_from_the_first_night_until_today(tmp_path: Path) -> None:
    """Nights without a run are rows, at the end too; today may still have its run."""
    publish(tmp_path, "2026-11-20")
    publish(tmp_path, "2026-11-22", complete=False)
    found = read(tmp_path)

    assert (found.first, found.last) == (date(2026, 11, 20), TODAY)
    assert states(found) == {
        "20": "COMPLETE",
        "21": "MISSING",
        "22": "INCOMPLETE",
        "23": "MISSING",
        "24": "NOT_YET",
    }
    assert found.counts == {
        "COMPLETE": 1,
        "INCOMPLETE": 1,
        "DAMAGED": 0,
        "MISSING": 2,
        "NOT_YET": 1,
    }
    assert not found.is_sound


def test_a_range(tmp_path: Path) -> None:
    """Both ends are part of it, whether or not there are runs."""
    publish(tmp_path, "2026-11-20")

    assert states(read(tmp_path, date(2026, 11, 19), date(2026, 11, 20))) == {
        "19": "MISSING",
        "20": "COMPLETE",
    }
    assert states(read(tmp_path, TODAY, TODAY)) == {"24": "NOT_YET"}
    assert read(tmp_path, date(2026, 11, 20), date(2026, 11, 20)).is_sound


def test_a_night_that_is_labelled_with_tomorrow(tmp_path: Path) -> None:
    publish(tmp_path, "2026-11-25")

    assert states(read(tmp_path)) == {"25": "COMPLETE"}


def test_no_audit(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="'nightly'"):
        read(tmp_path)
    with pytest.raises(InputMissing):
        read(tmp_path, TODAY, TODAY)
    (tmp_path / "nightly").mkdir()
    with pytest.raises(InputMissing):
        read(tmp_path)
    assert states(read(tmp_path, TODAY, TODAY)) == {"24": "NOT_YET"}


# --- which run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("complete", "counts"),
    [
        ((True, True, True), 2),
        ((True, True, False), 1),
        ((True, False, False), 0),
        ((False, False, False), 2),
    ],
)
def test_the_latest_complete_run_counts(
    complete: tuple[bool, ...], counts: int, tmp_path: Path
) -> None:
    runs = [
        publish(tmp_path, "2026-11-23", number, complete=each)
        for number, each in enumerate(complete)
    ]
    (night,) = read(tmp_path, last=date(2026, 11, 23)).nights

    assert night.run_count == 3
    assert night.run_id == runs[counts].name
    assert night.complete is complete[counts]


def test_what_a_row_says(tmp_path: Path) -> None:
    path = publish(tmp_path, "2026-11-23")
    (night, _) = read(tmp_path).nights

    assert night == Night(
        audit_date=date(2026, 11, 23),
        state=NightState.COMPLETE,
        run_count=1,
        run_id=path.name,
        population=10,
        pass_count=7,
        fail_count=1,
        absent_count=2,
        inconclusive_count=0,
        excused_count=2,
        exit_code=1,
        complete=True,
        policy_name="strict",
        policy_sha256="abcdef0123456789",
        rules_version="7",
        started_at=datetime(2026, 11, 23, 3, tzinfo=UTC),
        finished_at=datetime(2026, 11, 23, 3, 5, tzinfo=UTC),
    )


# --- what is damaged ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["manifest.json", "summary.json"])
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_damaged_run_is_named(name: str, harm: str, tmp_path: Path) -> None:
    """Not left out: its folder still tells the night."""
    path = publish(tmp_path, "2026-11-22")
    publish(tmp_path, "2026-11-23")
    if harm == "gone":
        (path / name).unlink()
    else:
        (path / name).write_bytes((path / name).read_bytes()[:-3])
    found = read(tmp_path, last=date(2026, 11, 23))

    assert states(found) == {"22": "DAMAGED", "23": "COMPLETE"}
    assert found.nights[0].damaged_runs[0].startswith(f"{path.name}: ")
    assert found.nights[0].pass_count is None
    assert not found.is_sound
    assert f"damaged: {path.name}: " in as_text(found)


def test_a_damaged_run_beside_a_whole_one(tmp_path: Path) -> None:
    whole, damaged = publish(tmp_path, "2026-11-23"), publish(tmp_path, "2026-11-23", 1)
    (damaged / "summary.json").write_text("{}", "utf-8")
    (night,) = read(tmp_path, last=date(2026, 11, 23)).nights

    assert (night.state, night.run_id, night.run_count) == ("COMPLETE", whole.name, 2)
    assert damaged.name in night.damaged_runs[0]
    assert not night.is_sound


def test_the_night_of_a_run_without_tables_is_told_by_its_id(tmp_path: Path) -> None:
    path = publish(tmp_path, "2026-11-23")
    (path / "manifest.json").unlink()
    (path / "outcomes/dt=2026-11-23").rename(path / "outcomes/dt=never")

    assert states(read(tmp_path, last=date(2026, 11, 23))) == {"23": "DAMAGED"}


def test_what_is_no_run_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    publish(tmp_path, "2026-11-23")
    (tmp_path / "nightly/runs/notes.txt").write_text("mine", "utf-8")

    assert len(read(tmp_path).nights) == 2
    assert "notes.txt is left out" in caplog.text


# --- how it is shown ----------------------------------------------------------------------------


def test_text_is_aligned_and_bounded(tmp_path: Path) -> None:
    publish(tmp_path, "2026-11-21")
    publish(tmp_path, "2026-11-23")
    head, *rows, empty, total = as_text(read(tmp_path)).splitlines()

    assert head.split() == [
        *("night", "state", "runs", "triples", "pass", "fail", "absent", "inconclusive"),
        *("excused", "exit", "policy", "rules", "run"),
    ]
    assert rows[0].split()[:10] == [
        "2026-11-21",
        "COMPLETE",
        "1",
        "10",
        "7",
        "1",
        "2",
        "0",
        "2",
        "1",
    ]
    assert rows[1].split() == ["2026-11-22", "MISSING", "0"]
    assert rows[0].index("strict abcdef01") == head.index("policy")
    assert empty == ""
    assert total == (
        "nightly: 4 nights from 2026-11-21 to 2026-11-24: 2 COMPLETE, 1 MISSING, 1 NOT_YET"
    )


HOSTILE = Night(
    audit_date=TODAY,
    state=DAMAGED,
    run_id="=cmd()\x1b[2J" + "x" * 500,
    policy_name='"a,\nb' + "y" * 500,
    policy_sha256="ab\n\u2028\x1bcd",
    rules_version="9" * 500,
    damaged_runs=("=1\n+2",),
)


def test_what_manifests_say_is_inert() -> None:
    """Formulas in a spreadsheet, control characters on a terminal."""
    history = History(audit_name="nightly", first=TODAY, last=TODAY, nights=(HOSTILE,))
    head, row = csv.reader(io.StringIO(as_csv(history)))

    assert tuple(head) == Night.__struct_fields__
    assert len(row) == len(head)
    assert not any(cell.startswith(("=", "+")) for cell in row)
    for text in (as_csv(history), as_text(history)):
        assert "\x1b" not in text
    # The head, the night, nothing, the damaged run, the sum.
    assert len(as_text(history).splitlines()) == 5
    assert max(map(len, as_text(history).splitlines())) < 250
    assert json.loads(as_json(history))["nights"][0]["run_id"] == HOSTILE.run_id


def test_csv_and_json_say_the_same(tmp_path: Path) -> None:
    publish(tmp_path, "2026-11-22")
    found = read(tmp_path)
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    told = json.loads(as_json(found))["nights"]

    assert [row["state"] for row in rows] == [night["state"] for night in told]
    assert rows[0]["started_at"] == told[0]["started_at"] == "2026-11-22T03:00:00Z"
    assert (rows[0]["complete"], rows[1]["complete"]) == ("true", "")


# --- the command --------------------------------------------------------------------------------


def test_the_command(night: nights.Night) -> None:
    """Real nights: one that was completed, one left out, one that failed to publish nothing."""
    today = datetime.now(UTC).date()
    dates = [(today - timedelta(days=n)).isoformat() for n in (3, 2, 1, 0)]
    night.down(0)
    night.run("--audit-date", dates[0])
    night.atlas.play(NO_FAULTS)
    completed = night.start("--complete", "nightly")
    last = night.run("--audit-date", dates[2])
    ended = night.say("history", "nightly", "--format", "json")
    found = {each["audit_date"]: each for each in json.loads(ended.out)["nights"]}

    assert ended.code == 0
    assert [found[each]["state"] for each in dates] == [
        "INCOMPLETE",
        "MISSING",
        "INCOMPLETE",
        "NOT_YET",
    ]
    row = found[dates[0]]
    assert (row["run_id"], row["run_count"]) == (completed.run.name, 2)
    assert row["policy_sha256"] == facts(completed.run)["policy_sha256"]
    assert found[dates[2]]["fail_count"] == facts(last.run)["fail_count"]

    options = ("--from", dates[0], "--to", dates[0], "--fail-on", "missing")
    assert night.say("history", "nightly", *options).code == 0
    options = ("--from", dates[0], "--to", dates[1], "--fail-on", "missing")
    assert night.say("history", "nightly", *options).code == 1
    assert night.say("history", "nightly", "--format", "csv").out.count("\n") == 5
    assert "MISSING" in night.say("history", "nightly").out


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("weekly",), 66, "'weekly'"),
        (("../nightly",), 78, "not the name of an audit"),
        (("nightly", "--from", "yesterday"), 78, "--from 'yesterday' is not a date"),
        (("nightly", "--to", "2999-01-01"), 78, "--to 2999-01-01 lies in the future"),
        (("nightly", "--from", "2026-02-02", "--to", "2026-02-01"), 78, "later than --to"),
    ],
)
def test_what_cannot_be_told(
    args: tuple[str, ...], code: int, said: str, night: nights.Night
) -> None:
    ended = night.say("history", *args)

    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
