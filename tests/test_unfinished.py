"""A run that was stopped: found again and gone on with, or put away, and always said."""

import signal
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.simulator import FaultPlan
from tests.nights import NO_FAULTS, Night, facts, half_done


def test_a_killed_run_goes_on_and_says_how_far_it_was(night: Night) -> None:
    half_done(night)
    ended = night.run()

    assert ended.code == 4
    assert "going on with the unfinished run" in ended.err
    assert "5 of 10 triples answered" in ended.err
    assert night.asked - len(night.scene.triples) <= 5  # what was in flight when it was killed
    night.books.check_settled()


def test_a_run_with_every_answer_asks_nothing_more(night: Night) -> None:
    """Not even where Atlas is away."""
    night.run(set_up="tests.nights:killed_before_publishing")
    asked = sum(night.atlas.asked.values())
    night.atlas.play(FaultPlan(maintenance=True))

    assert night.run().code == 4
    assert sum(night.atlas.asked.values()) == asked
    night.books.check_settled()


def test_fresh_says_what_it_throws_away(night: Night) -> None:
    half_done(night)
    before = night.asked
    ended = night.run("--fresh")

    assert "--fresh: thrown away: the unfinished run" in ended.err
    assert "5 of 10 triples answered" in ended.err
    assert night.asked - before == len(night.scene.triples)
    night.books.check_settled()


def test_an_input_that_changed_is_said(night: Night) -> None:
    """The run of the former input is left for a week; it comes back with that input."""
    half_done(night)
    before = night.asked
    whole = night.input.read_bytes()
    night.write(8)
    ended = night.run()

    assert ended.code == 4
    assert "is left unfinished: it was begun before the input changed" in ended.err
    assert "5 of 10 triples answered" in ended.err
    assert night.asked - before == 8
    night.books.check()

    night.input.write_bytes(whole)
    assert "going on with the unfinished run" in night.run().err
    assert night.asked - before - 8 <= 5 + 5
    night.books.check_settled()


def test_another_version_goes_on_and_says_so(night: Night) -> None:
    half_done(night)
    ended = night.run(set_up="tests.nights:of_another_version")

    assert "began this run, 9.9.9 goes on with it" in ended.err
    assert "5 of 10 triples answered" in ended.err
    night.books.check_settled()


def test_a_run_that_goes_on_under_another_policy_says_so(night: Night, tmp_path: Path) -> None:
    half_done(night)
    policy = tmp_path / "mine.toml"
    policy.write_text('name = "mine"\n', "utf-8")
    killed = night.run(set_up="tests.nights:killed_before_publishing")
    ended = night.run("--policy", policy)
    said = "begun under another policy"

    assert said not in killed.err
    assert f"{said}, this run is judged by 'mine' now" in ended.err
    assert "10 of 10 triples answered" in ended.err
    night.books.check_settled()


@pytest.mark.parametrize(
    ("set_up", "said"),
    [
        ("of_another_format", "journalled in another way"),
        ("two_days_later", "it was begun 48 hours ago"),
    ],
)
def test_a_journal_that_is_of_no_use_is_said(set_up: str, said: str, night: Night) -> None:
    half_done(night)
    before = night.asked
    ended = night.run(set_up=f"tests.nights:{set_up}")

    assert ended.code == 4
    assert "starting anew: the unfinished run" in ended.err
    assert "5 of 10 triples answered, is not gone on with" in ended.err
    assert said in ended.err
    assert night.asked - before == len(night.scene.triples)
    night.books.check_settled()


def test_an_old_journal_goes_on_where_its_date_is_asked_for(night: Night) -> None:
    half_done(night)
    today = datetime.now(UTC).date().isoformat()
    ended = night.run("--audit-date", today, set_up="tests.nights:two_days_later")

    assert "going on with the unfinished run" in ended.err
    assert str(facts(ended.run)["audit_date"]) == today


def test_a_run_goes_on_under_the_date_it_began_with(night: Night) -> None:
    half_done(night)
    ended = night.run(set_up="tests.nights:tomorrow")

    assert "going on with the unfinished run" in ended.err
    assert facts(ended.run)["audit_date"] == datetime.now(UTC).date()


def test_a_night_is_not_taken_for_the_one_before_it(night: Night) -> None:
    """A run that died when all but its tidying was done is finished, and tonight's is begun."""
    night.run(set_up="tests.nights:killed_before_tidying")
    (before,) = night.books.runs
    ended = night.run(set_up="tests.nights:tomorrow")

    assert ended.code == 4
    assert ended.run.name != before.name
    assert len(night.books.runs) == 2
    assert facts(ended.run)["audit_date"] == datetime.now(UTC).date() + timedelta(days=1)
    assert f"{before.name} was left by an earlier start, and is published now too" in ended.err
    night.books.check_settled()


def test_what_became_visible_is_finished_by_the_next_start_of_the_audit(night: Night) -> None:
    """Whatever that start's own input is, and even where Atlas is away by then."""
    night.run(set_up="tests.nights:killed_before_pointing")
    (first,) = night.books.runs
    assert [night.books.current] == [None]
    night.write(8)
    night.atlas.play(FaultPlan(access_list=True))
    ended = night.run()

    assert ended.code == 77
    assert f"run {first.name} was left by an earlier start; finishing" in ended.err
    assert (
        "which an earlier start has left" not in ended.err
    )  # whoever looks for tonight's run is told of it
    assert night.books.current == first
    assert "left unfinished" not in ended.err
    night.atlas.play(NO_FAULTS)
    assert night.run().code == 4
    night.books.check_settled()


def test_what_became_visible_is_finished_before_all_is_begun_anew(night: Night) -> None:
    night.run(set_up="tests.nights:killed_before_pointing")
    (first,) = night.books.runs
    ended = night.run("--fresh")

    assert "thrown away" not in ended.err
    assert sorted([first, ended.run]) == night.books.runs
    night.books.check_settled()


def test_a_visible_run_that_was_laid_hands_on_stops_nobody(night: Night) -> None:
    night.run(set_up="tests.nights:killed_before_pointing")
    (first,) = night.books.runs
    (first / "summary.json").write_text("{", "utf-8")
    ended = night.run()

    assert ended.code == 4
    assert f"run {first.name} cannot be finished" in ended.err
    assert "it is published already" in ended.err
    assert night.books.current == ended.run


def test_a_backfill_is_gone_on_with_under_its_own_date_only(night: Night) -> None:
    killed = night.run("--audit-date", "2026-11-01", set_up="tests.nights:killed_half_way")
    assert killed.code == -signal.SIGKILL
    tonight = night.run()

    assert facts(tonight.run)["audit_date"] == datetime.now(UTC).date()
    assert "is left unfinished: it was begun for 2026-11-01" in tonight.err
    backfill = night.run("--audit-date", "2026-11-01")
    assert "going on with the unfinished run" in backfill.err
    assert str(facts(backfill.run)["audit_date"]) == "2026-11-01"
    assert night.books.current == tonight.run


def test_a_run_begun_by_a_clock_that_was_ahead_is_not_gone_on_with(night: Night) -> None:
    killed = night.run(set_up="tests.nights:in_three_days,tests.nights:killed_half_way")
    assert killed.code == -signal.SIGKILL
    ended = night.run()

    assert "by a clock that was ahead" in ended.err
    assert facts(ended.run)["audit_date"] == datetime.now(UTC).date()


def test_a_log_that_was_damaged_is_said_and_what_is_intact_is_gone_on_with(night: Night) -> None:
    half_done(night)
    log = journal_of(night).with_name(f"{journal_of(night).name}-wal")
    content = bytearray(log.read_bytes())
    content[len(content) // 4] ^= 1
    log.write_bytes(content)
    ended = night.run()

    assert ended.code == 4
    assert "is damaged; a copy is" in ended.err
    assert "going on with the unfinished run" in ended.err
    night.books.check()


def test_a_log_that_is_gone_is_said_where_no_run_is_left(night: Night) -> None:
    half_done(night)
    journal_of(night).write_bytes(b"")
    ended = night.run()

    assert ended.code == 4
    assert "the journal is set aside as" in ended.err
    assert "it holds no run" in ended.err


def test_a_run_that_was_published_is_told_once_more_on_the_same_day(night: Night) -> None:
    night.run(set_up="tests.nights:killed_before_tidying")
    asked = night.asked
    ended = night.run()

    assert [ended.run.name] == [run.name for run in night.books.runs]
    assert night.asked == asked
    night.books.check_settled()


# ── damage ────────────────────────────────────────────────────────────────────────────────


def journal_of(night: Night) -> Path:
    (journal,) = night.books.journals
    return journal


def change_a_body(night: Night) -> None:
    """Exchange the bodies of two replies: SQLite has nothing against it."""

    with sqlite3.connect(journal_of(night)) as db:
        (first, second) = db.execute("SELECT id, body FROM replies WHERE triple_id > 0 LIMIT 2")
        db.execute("UPDATE replies SET body = ? WHERE id = ?", (first[1], second[0]))
        db.execute("UPDATE replies SET body = ? WHERE id = ?", (second[1], first[0]))
    db.close()


def lose_a_reply(night: Night) -> None:

    with sqlite3.connect(journal_of(night)) as db:
        db.execute("DELETE FROM replies WHERE id = (SELECT max(reply_id) FROM answers)")
    db.close()


def test_a_body_that_changed_sets_the_journal_aside(night: Night) -> None:
    half_done(night)
    change_a_body(night)
    ended = night.run()

    assert ended.code == 4
    assert "starting anew, the journal is set aside as" in ended.err
    assert "is damaged: a row of its replies" in ended.err
    assert [path.suffix for path in (night.out / "nightly/.work").glob("*.damaged*")]
    night.books.check()


def test_an_answer_without_its_reply_is_found_before_anything_is_published(night: Night) -> None:
    night.run(set_up="tests.nights:killed_before_publishing")
    lose_a_reply(night)
    ended = night.run()

    assert ended.code == 73
    assert "an answer's reply is not there; it is set aside as" in ended.err
    assert night.books.runs == []
    assert night.run().code == 4
    night.books.check()


def test_a_damaged_journal_of_another_input_stops_nobody(night: Night) -> None:
    half_done(night)
    with sqlite3.connect(journal_of(night)) as db:
        db.execute("DROP TABLE answers")
    db.close()
    night.write(8)
    ended = night.run("--keep", "1")

    assert ended.code == 4
    assert "an unfinished run is left alone" in ended.err
    assert facts(ended.run)["triple_count"] == 8
    night.books.check()
