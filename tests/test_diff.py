"""What changed since last night: in every run, by `diff`, and by `run --fail-on new`."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.changes import Change, ChangeKind, Changes
from pipeline.diff import ComparedRun, Diff, as_json, as_text
from pipeline.outcomes import Verdict
from tests.durability import Ended, table, write_input
from tests.nights import NO_FAULTS, Night, facts, summary

TODAY = datetime.now(UTC).date()


def date_of(days_ago: int) -> str:
    return (TODAY - timedelta(days=days_ago)).isoformat()


def run(night: Night, days_ago: int, *options: str | Path) -> Ended:
    """Audit a night of so many days ago."""
    return night.run("--audit-date", date_of(days_ago), *options)


def changes(ended: Ended) -> dict[str, Any]:
    found: dict[str, Any] = summary(ended.run)["changes"]
    return found


def counted(found: dict[str, Any]) -> dict[str, int]:
    return {kind: count for kind, count in found["counts"].items() if count}


def since(ended: Ended, night: Night) -> dict[int, int]:
    """Since how many days ago each failing triple of a run fails, by the triple's place."""
    places = {t.checkpoint_id: place for place, t in enumerate(night.scene.triples)}
    return {
        places[row["checkpoint_id"]]: (TODAY - row["failing_since"]).days
        for row in table(ended.run, "failing")
    }


# --- every run ----------------------------------------------------------------------------------


def test_the_first_run_has_nothing_to_compare_with(night: Night) -> None:
    ended = run(night, 0)

    assert summary(ended.run)["changes"] is None
    assert set(since(ended, night).values()) == {0}


def test_every_run_is_compared_with_last_nights(night: Night) -> None:
    first = run(night, 2)
    night.become(t0="not-restorable", t3="healthy-sharded")
    second = run(night, 1)
    found = changes(second)

    assert (found["since_run_id"], found["since_audit_date"]) == (first.run.name, date_of(2))
    assert counted(found) == {"became_unrestorable": 1, "recovered": 1, "still_failing": 3}
    assert found["unchanged"] == 5
    assert found["newly_open"] == 1
    (turned,) = (each for each in found["shown"] if each["kind"] == "became_unrestorable")
    assert turned["checkpoint_id"] == night.scene.triples[0].checkpoint_id
    assert (turned["before"], turned["after"], turned["since"]) == ("PASS", "FAIL", date_of(1))


def test_since_when_goes_on_over_four_nights(night: Night) -> None:
    """A night between does not break the row, if none was audited; one that is unknown does."""
    nights = [
        (8, {"t0": "not-restorable", "t1": "absent"}),
        (7, {"t0": "absent"}),
        (4, {"t0": "not-restorable", "t1": "not-restorable"}),
        (1, {"t1": "not-restorable", "t2": "absent"}),
    ]
    found = []
    for days_ago, stories in nights:
        night.become(**stories)
        known = since(run(night, days_ago), night)
        found.append({place: known[place] for place in (0, 1, 2, 3) if place in known})

    assert found == [{0: 8, 1: 8, 3: 8}, {0: 8, 3: 8}, {0: 8, 1: 4, 3: 8}, {1: 4, 2: 1, 3: 8}]


def test_a_rolling_population(night: Night) -> None:
    """Gone and new are no trouble; what is new and fails at once comes first."""
    night.write(6)
    run(night, 1)
    night.write(10)
    found = changes(run(night, 0))

    assert counted(found) == {"new": 4, "still_failing": 2}
    new = [each["after"] for each in found["shown"] if each["kind"] == "new"]
    assert new == ["FAIL", "ABSENT", "PASS", "PASS"]
    night.write(5)
    assert counted(changes(run(night, 0, "--accept-drop")))["gone"] == 1


def test_a_second_run_of_a_night_is_compared_with_the_night_before(night: Night) -> None:
    """Else asking again would make what is new look old."""
    first = run(night, 1)
    night.become(t0="absent")
    run(night, 0)
    again = run(night, 0, "--fresh")

    assert changes(again)["since_run_id"] == first.run.name
    assert counted(changes(again))["became_unrestorable"] == 1


def test_a_second_run_of_the_first_night(night: Night) -> None:
    first = run(night, 0)
    again = run(night, 0, "--fresh")

    assert changes(again)["since_run_id"] == first.run.name


def test_a_completed_run_is_compared_with_the_night_before(night: Night) -> None:
    """As the run that it completes: a person asks what changed since last night."""
    first = run(night, 1)
    night.become(t1="not-restorable")
    night.down(0)
    parent = run(night, 0)
    night.atlas.play(NO_FAULTS)
    ended = night.start("--complete", parent.run.name)

    assert counted(changes(parent))["newly_inconclusive"] == 1
    assert changes(ended)["since_run_id"] == first.run.name
    assert counted(changes(ended)) == {"became_unrestorable": 1, "still_failing": 4}


def test_a_resumed_run_is_compared_too(night: Night) -> None:
    first = run(night, 1)
    night.become(t7="absent")
    killed = night.run("--audit-date", date_of(0), set_up="tests.nights:killed_half_way")
    assert killed.code < 0
    ended = run(night, 0)

    assert changes(ended)["since_run_id"] == first.run.name
    assert counted(changes(ended))["became_unrestorable"] == 1


def test_a_night_that_is_audited_late_is_compared_with_the_one_before_it(night: Night) -> None:
    first = run(night, 3)
    run(night, 1)
    late = run(night, 2)

    assert changes(late)["since_run_id"] == first.run.name
    earlier = run(night, 5)
    assert summary(earlier.run)["changes"] is None


@pytest.mark.parametrize("damaged", ["outcomes", "failing", "manifest"])
def test_a_previous_run_that_cannot_be_read_is_a_notice(damaged: str, night: Night) -> None:
    """The run goes on, and ends as it would have."""
    first = run(night, 1)
    path = first.run / "manifest.json"
    if damaged != "manifest":
        path = next((first.run / damaged).rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    ended = run(night, 0)
    told = summary(ended.run)

    assert ended.code == first.code
    assert told["changes"] is None
    assert any("What changed since the previous run is not known" in n for n in told["notices"])
    assert set(since(ended, night).values()) == {0}


@pytest.fixture
def lenient(tmp_path: Path) -> Path:
    """A policy under which it is no failure that a checkpoint has no parts."""
    path = tmp_path / "lenient.toml"
    path.write_text("[rules.no-parts]\nfails = false\n", "utf-8")
    return path


def test_rules_are_told_from_atlas(night: Night, lenient: Path) -> None:
    """Of two that have no parts Atlas says what it said; the third it has no more."""
    night.become(t1="no-parts", t2="no-parts")
    run(night, 2, "--policy", lenient)
    night.become(t0="absent", t1="no-parts", t2="no-parts")
    found = changes(run(night, 1))
    turned = [each for each in found["shown"] if each["kind"] == "became_unrestorable"]

    assert (found["rules_changed"], found["is_rejudged"], found["note"]) == (True, True, "")
    assert counted(found) == {"became_unrestorable": 3, "still_failing": 4}
    assert found["by_rules"]["became_unrestorable"] == 2
    assert {(each["after"], each["cause"], each["rejudged"]) for each in turned} == {
        ("FAIL", "rules", "FAIL"),
        ("ABSENT", "atlas", None),
    }


def test_evidence_that_is_gone_is_said(night: Night, lenient: Path) -> None:
    first = run(night, 1, "--policy", lenient)
    next((first.run / "evidence").glob("*.parquet")).unlink()
    found = changes(run(night, 0))

    assert (found["rules_changed"], found["is_rejudged"]) == (True, False)
    assert "is not known" in found["note"]
    assert not any(found["by_rules"].values())


# --- run --fail-on new --------------------------------------------------------------------------


def test_fail_on_new(night: Night) -> None:
    """What was open in the run before ends with 0 or 3; the run's own code stays."""
    night.input.write_text(night.input.read_text("utf-8").rpartition("x,")[0], "utf-8")
    first = run(night, 3, "--fail-on", "new")
    assert first.code == 1
    assert "nothing to compare with, so all that is open counts as new" in first.err
    same = run(night, 2, "--fail-on", "new")
    assert same.code == 0
    assert facts(same.run)["exit_code"] == summary(same.run)["exit_code"] == 1
    assert "was open in" in same.err
    night.become(t0="absent")
    worse = run(night, 1, "--fail-on", "new", "--quiet")
    assert worse.code == 1
    since = summary(same.run)["run"]["audit_date"]
    assert f"Newly open since {since}: 1 checkpoint." in worse.err
    assert run(night, 1, "--fail-on", "new", "--fresh").code == 1  # asking again silences nothing
    assert run(night, 0, "--fail-on", "new").code == 0
    assert run(night, 0, "--fresh").code == 1


@pytest.mark.parametrize(
    "died", ["killed_before_pointing", "killed_while_old_runs_go", "killed_before_tidying"]
)
def test_what_nobody_was_told_of_is_new(night: Night, died: str) -> None:
    """A night that died when all but its end was done is finished by the next night's start."""
    night.run("--fail-on", "new")
    night.become(t0="absent")
    night.run("--fail-on", "new", set_up=f"tests.nights:tomorrow,tests.nights:{died}")
    left = max(night.books.runs, key=lambda path: path.name)

    told = night.run("--fail-on", "new", "--quiet", set_up="tests.nights:two_days_later")

    assert told.code == 4
    assert changes(told)["newly_open"] == 0
    tomorrow = (TODAY + timedelta(days=1)).isoformat()
    assert (
        f"Newly open since {tomorrow}: nothing. What was newly open on {tomorrow} counts too"
        in (told.err)
    )
    assert f"{left.name} was left by an earlier start, and is published now too: exit 4" in told.err
    noted = [each for each in night.books.attempts() if each["event"] == "finished"]
    assert [(each["run_id"], each["exit_code"]) for each in noted] == [(left.name, 4)]
    again = night.run("--fail-on", "new", "--fresh", set_up="tests.nights:in_three_days")
    assert again.code == 3
    assert "counts too" not in again.err


def test_a_quiet_good_night_tells_what_was_left(night: Night) -> None:
    write_input(night.input, night.scene.triples[1:3])
    night.input.write_text(night.input.read_text("utf-8").rpartition("x,")[0], "utf-8")
    night.run("--quiet", set_up="tests.nights:killed_before_tidying")
    (left,) = night.books.runs

    told = night.run("--quiet", set_up="tests.nights:tomorrow")
    quiet = night.run("--quiet", set_up="tests.nights:two_days_later")

    assert told.code == 0
    assert f"{left.name} was left by an earlier start, and is published now too: exit 0" in told.err
    assert len(told.err.splitlines()) == 1
    assert (quiet.code, quiet.err) == (0, "")


def test_a_start_that_fails_tells_what_was_left(night: Night) -> None:
    night.run(set_up="tests.nights:killed_before_tidying")
    (left,) = night.books.runs

    failed = night.run("--quiet", "--strict", set_up="tests.nights:tomorrow")

    assert failed.code == 65
    said = failed.err.splitlines()
    assert f"{left}, which an earlier start has left, is published: exit 4: No: " in said[0]
    assert said[-1].startswith("checkpoint-audit: exit 65")


def test_what_was_left_is_kept(night: Night) -> None:
    """Whatever `--keep` says: it is named on the last line, to be loaded."""
    night.run(set_up="tests.nights:killed_before_tidying")
    (left,) = night.books.runs

    night.run("--keep", "1", set_up="tests.nights:in_three_days")

    assert left in night.books.runs
    assert len(night.books.runs) == 2


def test_what_was_left_and_brought_nothing_new_does_not_count(night: Night) -> None:
    night.run("--fail-on", "new")
    night.run(set_up="tests.nights:tomorrow,tests.nights:killed_before_tidying")

    told = night.run("--fail-on", "new", set_up="tests.nights:two_days_later")

    assert told.code == 3
    assert "was left by an earlier start" in told.err
    assert "counts too" not in told.err


def test_fail_on_new_is_told_to_whoever_watches(night: Night, tmp_path: Path) -> None:
    run(night, 1)
    metrics = tmp_path / "audit.prom"
    ended = run(night, 0, "--fail-on", "new", "--metrics-file", metrics)

    assert ended.code == 3  # the input has a bad line
    assert 'checkpoint_audit_last_exit_code{audit="nightly"} 3.0' in metrics.read_text("utf-8")


def test_a_finding_on_a_cluster_is_new_too(night: Night) -> None:
    """No triple fails that did not; but those that passed are gone, and the cluster has none."""
    run(night, 1)
    write_input(night.input, night.scene.triples[3:5])
    ended = run(night, 0, "--fail-on", "new", "--accept-drop")
    found = changes(ended)

    assert counted(found) == {"still_failing": 2, "gone": 8}
    assert (found["newly_open"], found["newly_open_findings"]) == (0, 1)
    assert ended.code == 4
    assert ": 1 finding on clusters." in ended.err
    assert run(night, 0, "--fail-on", "new", "--fresh").code == 4


def test_the_one_line_of_a_quiet_night_names_a_waiver_that_lapsed(
    night: Night, tmp_path: Path
) -> None:
    lapsed = tmp_path / "policy.toml"
    lapsed.write_text(
        '[[waivers]]\nid = "W-1"\nreason = "r"\nowner = "o"\napprover = "a"\n'
        'expires = 2026-01-31\nrules = ["restorable-false", "no-restorable-checkpoint"]\n',
        "utf-8",
    )
    ended = run(night, 0, "--quiet", "--policy", lapsed)

    assert ended.code == 4
    (line,) = ended.err.splitlines()
    assert "Waiver W-1 lapsed on 2026-01-31." in line


# --- diff ---------------------------------------------------------------------------------------


def test_diff_as_text(night: Night) -> None:
    first = run(night, 2)
    night.become(t0="not-restorable", t1="absent")
    second = run(night, 1)
    ended = night.say("diff", first.run.name, "nightly", "--limit", "1")

    assert ended.code == 0
    assert first.run.name in ended.out
    assert second.run.name in ended.out
    assert "both were judged by the same rules under the same policy" in ended.out
    assert "\nbecame_unrestorable: 2\n  PASS -> FAIL " in ended.out
    assert "  and 1 more; --limit 0 shows all\n" in ended.out
    assert max(map(len, ended.out.splitlines())) < 160


def test_diff_as_json_is_what_the_run_says(night: Night) -> None:
    first = run(night, 2)
    night.become(t0="not-restorable", t1="absent")
    second = run(night, 1)
    ended = night.say("diff", first.run, second.run, "--format", "json")
    found = json.loads(ended.out)

    assert found["changes"] == changes(second)
    assert found["older"]["run_id"] == first.run.name
    assert found["newer"]["exit_code"] == 4


def test_diff_under_rules_that_are_not_todays(night: Night) -> None:
    """Today's rules cannot say what another version's would have said."""
    first, second = run(night, 2), run(night, 1)
    manifest = second.run / "manifest.json"
    text = re.sub(r'"rules_version": ".*?"', '"rules_version": "0"', manifest.read_text("utf-8"))
    manifest.write_text(text, "utf-8")
    ended = night.say("diff", first.run, second.run)

    assert ended.code == 0
    assert "was judged by rules 0, and this version has" in ended.out
    assert "became_unrestorable" in ended.out


def test_diff_fails_on_what_is_new(night: Night) -> None:
    first = run(night, 2)
    night.become(t0="absent")
    second = run(night, 1)

    assert night.say("diff", first.run, second.run, "--fail-on", "new").code == 1
    assert night.say("diff", second.run, first.run, "--fail-on", "new").code == 0
    assert "OLD is of a later night" in night.say("diff", second.run, first.run).err


def test_diff_of_what_is_not_there(night: Night) -> None:
    first = run(night, 1)
    ended = night.say("diff", first.run, "weekly")
    assert ended.code == 66
    path = next((first.run / "clusters").rglob("*.parquet"))
    path.write_bytes(b"")
    ended = night.say("diff", first.run, first.run)
    assert (ended.code, ended.out) == (65, "")
    assert "not as it was published" in ended.err


def test_what_a_run_says_of_itself_steers_no_terminal() -> None:
    """Manifests are read from folders that others may have written."""
    told = ComparedRun("run\x1b[2J", "a\nb", TODAY, "1", "ab" * 32, complete=True, exit_code=0)
    shown = Change(ChangeKind.NEW, "5f" * 12, "or\x1bders", "1", "x\ny", Verdict.FAIL)  # type: ignore[arg-type]
    every = dict.fromkeys(ChangeKind, 1)
    made = Changes(
        since_run_id="run",
        since_audit_date="2026-11-20",
        counts=every,
        by_rules=every,
        shown=(shown,),
        left_out=0,
        open_counts=every,
        cluster_counts=every,
        rules_changed=True,
        note="\x1b]0;",
    )
    text = as_text(Diff(told, told, made))

    assert "\x1b" not in text
    assert not [line for line in text.splitlines() if line.startswith("y")]
    assert json.loads(as_json(Diff(told, told, made)))["older"]["run_id"] == "run\x1b[2J"


def test_every_kind_is_in_the_report(night: Night) -> None:
    """A night of an outage, and the one after it."""
    night.write(9)
    night.down(0)
    run(night, 2)
    night.write(8)
    night.down(1)
    first = run(night, 1, "--accept-drop")
    night.write(10)
    night.become(t2="absent", t3="healthy-sharded")
    night.down(5)
    ended = run(night, 0)
    kinds = {*counted(changes(first)), *counted(changes(ended))}

    assert kinds == set(ChangeKind)
    for name in ("report.html", "report.md"):
        assert "determined" in (ended.run / name).read_text("utf-8")
