"""Completing a run: what was inconclusive is asked for, all the rest is taken over."""

import json
import re
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.simulator import FaultPlan
from tests.durability import Ended, rows, table
from tests.nights import NO_FAULTS, Night, facts, summary


def test_a_run_is_completed(night: Night) -> None:
    """Only what was inconclusive is asked for; all the rest, and its evidence, is taken over."""
    night.down(0)
    first = night.run()
    assert [row["verdict"] for row in table(first.run, "outcomes")].count("INCONCLUSIVE") == 1
    night.atlas.play(NO_FAULTS)
    night.atlas.asked.clear()
    ended = night.start("--complete", "nightly")

    assert ended.code == 4  # the input has a bad line
    assert night.asked == 1
    found = facts(ended.run)
    assert found["parent_run_id"] == first.run.name
    assert found["inconclusive_count"] == 0
    assert found["request_count"] == 2  # with the preliminary call
    assert found["line_count"] == facts(first.run)["line_count"]
    assert night.books.current == ended.run
    assert (
        f"Completes {first.run.name}: 9 answers are from its evidence."
        in summary(ended.run)["notices"]
    )
    check_evidence(ended.run)
    night.books.check()

    again = night.run("--fresh")
    assert rows_but_for_the_run(ended.run) == rows_but_for_the_run(again.run)


def rows_but_for_the_run(run: Path) -> dict[str, list[dict[str, Any]]]:
    found = rows(run)
    del found["runs"]
    return found


def check_evidence(run: Path) -> None:
    """Every answer has its reply, and no reply is there twice."""
    replies = table(run, "evidence")
    by_id = {row["reply_id"]: row["body_sha256"] for row in replies}
    assert len(by_id) == len(replies)
    for row in table(run, "outcomes"):
        assert row["reply_id"] is None or by_id[row["reply_id"]] == row["reply_sha256"]


@pytest.mark.parametrize("named", ["audit", "run id", "folder"])
def test_a_run_is_named_in_three_ways(named: str, night: Night) -> None:
    night.down(0)
    first = night.run()
    name = {"audit": "nightly", "run id": first.run.name, "folder": str(first.run)}[named]
    ended = night.start("--complete", name)

    assert facts(ended.run)["parent_run_id"] == first.run.name


def test_a_killed_completion_goes_on(night: Night) -> None:
    night.down(0)
    first = night.run()
    night.atlas.play(NO_FAULTS)
    killed = night.start("--complete", "nightly", set_up="tests.nights:killed_before_publishing")
    assert killed.code == -signal.SIGKILL
    night.atlas.asked.clear()
    ended = night.start("--complete", "nightly")

    assert "9 of 10" not in ended.err
    assert "10 of 10 triples answered" in ended.err
    assert night.asked == 0
    assert facts(ended.run)["parent_run_id"] == first.run.name
    night.books.check_settled()


def test_a_whole_run_has_nothing_to_complete(night: Night) -> None:
    first = night.run()
    asked = sum(night.atlas.asked.values())
    ended = night.start("--complete", "nightly")

    assert (ended.code, ended.run) == (first.code, first.run)
    assert "nothing to complete" in ended.err
    assert sum(night.atlas.asked.values()) == asked
    assert len(night.books.runs) == 1


def test_lists_are_taken_over_too(night: Night) -> None:
    night.down(0)
    first = night.run("--fetch", "list")
    by = {row["fetched_by"] for row in table(first.run, "outcomes")}
    assert "list" in by
    assert facts(first.run)["inconclusive_count"]
    ended = night.start("--complete", "nightly")
    check_evidence(ended.run)


def test_a_run_that_is_not_current_is_completed_beside_it(night: Night) -> None:
    night.down(0)
    first = night.run()
    second = night.run()
    ended = night.start("--complete", first.run.name)

    assert facts(ended.run)["parent_run_id"] == first.run.name
    assert night.books.current == second.run
    assert last_line(ended).startswith(
        f"checkpoint-audit: exit {ended.code}: published, but not current: "
    )
    # By the audit's name, the current run would be completed.
    assert last_line(ended).endswith(f"; what to do: {to_complete(ended.run.name)}")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_last_line_says_how_to_complete_a_run(log_format: str, night: Night) -> None:
    night.down(0)
    ended = night.run("--quiet", "--log-format", log_format)
    (line,) = ended.err.splitlines()
    hint = to_complete("nightly")

    if log_format == "json":
        assert json.loads(line)["hint"] == hint
        line = "checkpoint-audit: " + json.loads(line)["message"]
    form = (
        r"checkpoint-audit: exit 4: No: .* Report: \S+ \(manifest sha256:\w{64}\); what to do: (.*)"
    )
    found = re.fullmatch(form, line)
    assert found is not None
    assert found[1] == hint


def test_a_whole_run_has_no_hint(night: Night) -> None:
    ended = night.run()
    assert "what to do" not in last_line(ended)


def last_line(ended: Ended) -> str:
    return ended.err.splitlines()[-1]


def to_complete(name: str) -> str:
    return f"later, `run --complete {name}` asks for just the inconclusive triples again"


def test_a_start_says_its_deadline(night: Night) -> None:
    """A time of day that has passed is tomorrow's."""
    moment = datetime.now(UTC) - timedelta(hours=2)
    ended = night.run("--deadline", f"{moment:%H:%M}Z")
    wanted = moment + timedelta(days=1)

    assert f"the deadline is {wanted:%Y-%m-%d %H:%M} UTC\n" in ended.err


def test_damaged_evidence_completes_nothing(night: Night) -> None:
    night.down(0)
    first = night.run()
    (evidence,) = (first.run / "evidence").glob("*.parquet")
    content = bytearray(evidence.read_bytes())
    content[100] ^= 1
    evidence.write_bytes(content)
    ended = night.start("--complete", "nightly")

    assert ended.code == 65
    assert "is not as it was published" in ended.err
    assert len(night.books.runs) == 1


def test_completing_what_is_not_there(night: Night) -> None:
    assert night.start("--complete", "nightly").code == 66
    assert night.start("--complete", "../nightly").code == 66
    assert night.start("--complete", "").code == 2
    assert night.start().code == 2


def test_completing_takes_its_input_from_the_run(night: Night) -> None:
    night.run()
    assert night.run("--complete", "nightly").code == 2
    assert night.start("--complete", "nightly", "--audit-name", "other").code == 2


def test_answers_of_two_addresses_are_not_mixed(night: Night) -> None:
    night.down(0)
    night.run()
    ended = night.start("--complete", "nightly", "--base-url", "http://127.0.0.1:9")

    assert ended.code == 78
    assert "answers of two places are not one run" in ended.err


def test_unresolved_triples_are_an_audit_of_their_own(night: Night) -> None:
    night.down(0)
    first = night.run()
    night.atlas.play(NO_FAULTS)
    ended = night.start(first.run / "unresolved.csv")

    assert ended.code == 0
    assert facts(ended.run)["triple_count"] == 1


# ── what a completed run inherits ────────────────────────────────────────────────────────────────


def test_what_makes_a_population_less_than_whole_is_not_cured(night: Night) -> None:
    """The input is what it was; the run is not complete, however many of its triples are judged."""
    night.down(0)
    first = night.run("--min-triples", "500")
    night.atlas.play(NO_FAULTS)
    ended = night.start("--complete", "nightly")

    assert summary(first.run)["shortfalls"] == summary(ended.run)["shortfalls"] != []
    assert facts(ended.run)["inconclusive_count"] == 0
    assert facts(ended.run)["complete"] is False


def test_a_drop_that_was_accepted_stays_accepted(night: Night) -> None:
    night.run()
    night.write(5)
    night.down(0)
    first = night.run("--accept-drop")
    assert summary(first.run)["shortfalls"] == []
    night.atlas.play(NO_FAULTS)

    assert summary(night.start("--complete", "nightly").run)["shortfalls"] == []


@pytest.mark.parametrize("option", ["--accept-drop", "--min-triples=3", "--max-input-age=1h"])
def test_the_population_is_that_of_the_run(option: str, night: Night) -> None:
    night.run()
    assert night.start("--complete", "nightly", option).code == 2


def test_attempts_and_names_are_taken_over(night: Night) -> None:
    """Attempts are the parent's where the answer is; everybody who asked is named."""
    down = night.scene.triples[0].checkpoint_id
    night.atlas.play(FaultPlan(rate=0.5, kinds=("500",), checkpoints={down: "always-500"}))
    third = night.run()
    attempts = {row["attempts"] for row in table(third.run, "outcomes")}
    assert {1, 2} < attempts
    night.atlas.play(NO_FAULTS)
    ended = night.start("--complete", third.run.name)
    taken = {row["checkpoint_id"]: row["attempts"] for row in table(third.run, "outcomes")}
    found = {row["checkpoint_id"]: row["attempts"] for row in table(ended.run, "outcomes")}

    assert {k: v for k, v in found.items() if k != down} == {
        k: v for k, v in taken.items() if k != down
    }
    assert facts(ended.run)["credential_id"] == facts(third.run)["credential_id"]


def test_a_completion_has_a_journal_of_its_own(night: Night) -> None:
    """Another start for the same input, and one that completes another run, do not mix with it."""
    night.down(0)
    first = night.run()
    second = night.run()
    for parent in (first, second):
        killed = night.start(
            "--complete", parent.run.name, set_up="tests.nights:killed_before_publishing"
        )
        assert killed.code == -signal.SIGKILL
    plain = night.run()
    assert facts(plain.run)["parent_run_id"] is None
    assert f"was begun to complete {first.run.name}" in plain.err
    for parent in (first, second):
        ended = night.start("--complete", parent.run.name)
        assert facts(ended.run)["parent_run_id"] == parent.run.name


def test_keep_spares_what_is_being_completed(night: Night) -> None:
    night.down(0)
    first = night.run("--audit-date", "2026-11-01")
    killed = night.start(
        "--complete", first.run.name, set_up="tests.nights:killed_before_publishing"
    )
    assert killed.code == -signal.SIGKILL
    night.run()
    night.run("--keep", "1", set_up="tests.nights:two_days_later")

    assert first.run in night.books.runs


def test_a_completion_that_died_beside_its_pointer_is_finished_by_name(night: Night) -> None:
    night.down(0)
    night.run()
    night.atlas.play(NO_FAULTS)
    killed = night.start("--complete", "nightly", set_up="tests.nights:killed_before_tidying")
    assert killed.code == -signal.SIGKILL
    ended = night.start("--complete", "nightly")

    assert "nothing to complete" in ended.err
    assert night.books.current == ended.run
    assert night.books.attempts()[-1]["published"] is False
    night.books.check_settled()


def test_a_whole_run_that_is_not_current_is_told_as_such(night: Night) -> None:
    first, second = night.run(), night.run()
    ended = night.start("--complete", first.run.name)

    assert ended.run == first.run
    assert "nothing to complete" in ended.err
    assert "published, but not current" in ended.err
    assert "not current" not in night.start("--complete", second.run.name).err
