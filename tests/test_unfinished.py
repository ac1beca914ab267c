"""A run that was stopped: found again and gone on with, or put away, and always said."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.simulator import FaultPlan
from tests.nights import Night, facts, half_done


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
    assert "5 of 10 triples answered is not gone on with" in ended.err
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
    night.books.check_settled()


def test_a_run_that_is_finished_late_turns_nothing_back(night: Night) -> None:
    """It had become visible, and was killed; meanwhile another one of that night was published."""
    night.run(set_up="tests.nights:killed_before_pointing")
    (first,) = night.books.runs
    assert [night.books.current] == [None]
    whole = night.input.read_bytes()
    night.write(8)
    second = night.run()
    assert night.books.current == second.run

    night.input.write_bytes(whole)
    ended = night.run()
    assert ended.run == first
    assert "published, but not current" in ended.err
    assert night.books.current == second.run
    night.books.check_settled()


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
