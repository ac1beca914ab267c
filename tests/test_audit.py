"""One run from end to end: room, deadlines, populations, and nights that are kept."""

import os
import signal
from datetime import UTC, datetime, timedelta

import pytest

from tests.durability import table, write_input
from tests.nights import Night, facts, half_done, summary


def test_too_little_room_is_said_before_anything_is_asked(night: Night) -> None:
    ended = night.run(set_up="tests.nights:no_room")

    assert ended.code == 73
    assert "needs about" in ended.err
    assert sum(night.atlas.asked.values()) == 0
    assert night.run().code == 4
    night.books.check_settled()


# ── deadlines ──────────────────────────────────────────────────────────────────────


def test_a_deadline_that_leaves_no_time_publishes_nothing(night: Night) -> None:
    """It would take the place of a good run."""
    first = night.run()
    ended = night.run("--deadline", "1s")

    assert ended.code == 78
    assert "leaves no time to ask for anything" in ended.err
    assert night.books.current == first.run
    assert "going on with" in night.run().err


def test_what_was_not_asked_before_the_deadline(night: Night) -> None:
    half_done(night)
    before = night.asked
    ended = night.run("--deadline", "1s")

    assert ended.code == 4
    assert "the deadline is near: 5 triples were not asked" in ended.err
    found = [row for row in table(ended.run, "outcomes") if row["verdict"] == "INCONCLUSIVE"]
    assert {row["failure_kind"] for row in found} == {"not_asked"}
    assert {row["error_detail"] for row in found} == {"not asked before the deadline"}
    assert {row["fetched_by"] for row in found} == {"none"}
    assert night.asked == before
    assert "5 triples were not asked before the deadline." in summary(ended.run)["notices"]
    assert "(5 not_asked)" in ended.err.splitlines()[-1]

    completed = night.start("--complete", "nightly")
    assert facts(completed.run)["inconclusive_count"] == 0
    assert night.asked == before + 5
    assert not [n for n in summary(completed.run)["notices"] if "deadline" in n]
    night.books.check_settled()


def test_what_is_asked_after_all_was_not_left_out(night: Night) -> None:
    """A run that was killed while it published, its deadline past, goes on without one."""
    half_done(night)
    killed = night.run("--deadline", "1s", set_up="tests.nights:killed_before_publishing")
    assert killed.code == -signal.SIGKILL
    ended = night.run()

    assert "5 of 10 triples answered" in ended.err
    assert facts(ended.run)["inconclusive_count"] == 0
    assert not [n for n in summary(ended.run)["notices"] if "deadline" in n]


def test_what_was_answered_before_the_deadline_stays(night: Night) -> None:
    half_done(night)
    ended = night.run("--deadline", "1s")

    assert "the deadline is near: 5 triples were not asked" in ended.err
    assert facts(ended.run)["inconclusive_count"] == 5
    night.books.check_settled()


def test_a_deadline_far_away_changes_nothing(night: Night) -> None:
    assert facts(night.run("--deadline", "2h").run)["inconclusive_count"] == 0


def test_a_wrong_deadline(night: Night) -> None:
    assert night.run("--deadline", "soon").code == 78


# ── the population ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def whole(night: Night) -> Night:
    """A night before, complete: without the bad line."""
    trimmed(night, 10)
    assert night.run().code == 1
    return night


def trimmed(night: Night, count: int) -> None:
    night.write(count)
    lines = night.input.read_text("utf-8").splitlines(keepends=True)
    night.input.write_text("".join(lines[:-1]), "utf-8")


def passing(night: Night, count: int) -> None:
    """An input of triples that pass."""
    fit = [t for t in night.scene.triples if t.expected_verdict == "PASS"]
    write_input(night.input, fit[:count])
    lines = night.input.read_text("utf-8").splitlines(keepends=True)
    night.input.write_text("".join(lines[:-1]), "utf-8")


def test_a_population_that_shrank_is_said_first(night: Night) -> None:
    passing(night, 5)
    assert night.run().code == 0
    passing(night, 3)
    ended = night.run()

    assert ended.code == 3
    sentence = "The population shrank: 3 triples, 5 in the last complete run"
    assert summary(ended.run)["notices"][0].startswith(sentence)
    assert summary(ended.run)["headline"].startswith(sentence)
    assert ended.err.splitlines()[-1].split("exit 3: ")[1].startswith(f"Not all known: {sentence}")
    assert facts(ended.run)["complete"] is False
    assert sentence in (ended.run / "report.html").read_text("utf-8")

    # It is compared with the last complete run, until somebody says that it is as it should be.
    assert night.run("--fresh").code == 3
    assert night.run("--accept-drop").code == 0
    assert night.run().code == 0


def test_a_drop_is_noticed_where_no_run_was_ever_complete(night: Night) -> None:
    passing(night, 5)
    night.down(0)
    assert night.run().code == 3
    passing(night, 3)
    found = summary(night.run().run)
    assert found["shortfalls"][0].startswith(
        "The population shrank: 3 triples, 5 in the run before"
    )
    again = summary(night.run("--fresh").run)
    assert again["shortfalls"] == found["shortfalls"]


def test_a_fifth_may_be_gone(night: Night) -> None:
    passing(night, 5)
    night.run()
    passing(night, 4)
    assert night.run().code == 0


def test_a_shrunken_population_beside_open_findings(whole: Night) -> None:
    trimmed(whole, 5)
    assert whole.run().code == 4


def test_min_triples(night: Night) -> None:
    passing(night, 5)
    assert night.run("--min-triples", "5").code == 0
    ended = night.run("--min-triples", "6")
    assert ended.code == 3
    assert "5 triples in the input, 6 at least expected." in ended.err


def test_max_input_age(night: Night) -> None:
    passing(night, 5)
    then = datetime.now(UTC) - timedelta(hours=40)
    os.utime(night.input, (then.timestamp(), then.timestamp()))

    assert night.run("--max-input-age", "41h").code == 0
    ended = night.run("--max-input-age", "39h")
    assert ended.code == 3
    assert "40.0 hours before the run began; 39.0 hours are allowed" in ended.err
    assert night.start("-", "--audit-name", "x", "--max-input-age", "1h").code == 78


# ── keeping ──────────────────────────────────────────────────────────────────────


def test_keep_removes_old_nights_only(night: Night) -> None:
    """None that is a day old yet is removed, whatever its date."""
    for day in ("2026-11-01", "2026-11-02", "2026-11-03"):
        night.run("--audit-date", day)
    night.run("--keep", "1")
    assert len(night.books.runs) == 4

    ended = night.run("--keep", "2", set_up="tests.nights:two_days_later")
    dates = [facts(run)["audit_date"] for run in night.books.runs]
    assert dates == [datetime.now(UTC).date(), datetime.now(UTC).date() + timedelta(days=2)]
    assert "removed, as --keep says" in ended.err
    night.books.check_settled()


def test_keep_leaves_what_another_run_completes(night: Night) -> None:
    night.down(0)
    first = night.run("--audit-date", "2026-11-01")
    night.start("--complete", "nightly")
    night.run("--keep", "1", set_up="tests.nights:two_days_later")

    assert first.run in night.books.runs


def test_usage_of_keep(night: Night) -> None:
    assert night.run("--keep", "0").code == 2


def test_a_run_that_is_not_current_is_told_quietly_too(night: Night) -> None:
    passing(night, 5)
    night.run()
    ended = night.run("--audit-date", "2026-11-01", "--quiet")

    assert ended.code == 0
    assert len(ended.err.splitlines()) == 1
    assert "exit 0: published, but not current" in ended.err
    assert ended.run in night.books.runs
    assert (night.run("--quiet").err, night.run("--quiet").out) == ("", "")
