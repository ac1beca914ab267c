"""The story of one triple: every request, the reply that counted, and what the rules make of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigurationWrong, InputMissing
from pipeline.outcomes import FailureKind
from pipeline.policy import read_policy
from pipeline.published import PublishedRun
from pipeline.rules import RULES
from pipeline.story import State, Story, as_text, find_triple, story_of
from tests.doubles import reply
from tests.durability import Starter, table
from tests.recorded import Answers, Recorder, good, of_every_kind, ref

PAGES = [[ref(n, 3) for n in range(1, 4)]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> PublishedRun:
    return Recorder(tmp_path_factory.mktemp("outputs")).publish(of_every_kind(), pages=PAGES)


def told(run: PublishedRun, number: int, *place: Any) -> Story:
    return story_of(run, ref(number, *place))


def states(story: Story) -> dict[str, State]:
    return {ruling.rule_id: ruling.state for ruling in story.rulings}


def test_every_request_is_told_in_its_order(run: PublishedRun) -> None:
    story = told(run, 5)

    assert [ask.failure_kind for ask in story.asks] == ["throttled", "server_error", None]
    assert [ask.is_the_answer for ask in story.asks] == [False, False, True]
    assert [ask.waited_s for ask in story.asks] == [None, 0.0, 0.0]
    assert story.refusals == 1
    assert story.asks[-1].headers == {"date": "Fri, 20 Nov 2026 03:00:00 GMT"}
    assert story.outcome["reply_id"] == story.asks[-1].reply_id
    assert story.outcome["reply_sha256"] == story.asks[-1].body_sha256


def test_every_triple_has_a_story_and_every_rule_a_place_in_it(run: PublishedRun) -> None:
    for row in table(run.path, "outcomes"):
        named = f"{row['group_id']}/{row['cluster_name']}/{row['checkpoint_id']}"
        story = story_of(run, find_triple(run, named))

        assert story.triple == named
        assert story.outcome["verdict"] == row["verdict"]
        assert set(states(story)) == set(RULES)
        assert row["verdict"] in as_text(story)


def test_what_objects_is_what_was_published(run: PublishedRun) -> None:
    story = told(run, 4)
    objecting = {rule_id for rule_id, state in states(story).items() if state is State.OBJECTS}
    published = {
        row["rule_id"]
        for row in table(run.path, "findings")
        if row["cluster_name"] == "orders"
        and row["group_id"] == ref(4).group_id
        and row["checkpoint_id"] in {None, ref(4).checkpoint_id}
    }

    assert "restorable-false" in published
    assert objecting == published
    (ruling,) = [each for each in story.rulings if each.rule_id == "restorable-false"]
    assert ruling.fails
    assert "restorable: false" in ruling.said


def test_what_is_not_judged_says_why(run: PublishedRun) -> None:
    absent, good = told(run, 6), told(run, 1)
    why = {each.rule_id: each.said for each in (*absent.rulings,)}

    assert states(absent)["restorable-false"] is State.NOT_JUDGED
    assert why["restorable-false"] == "there is no checkpoint to judge"
    assert states(good)["restorable-false"] is State.NO_OBJECTION


def test_a_limit_that_the_policy_has_not(tmp_path: Path) -> None:
    limited = '[thresholds]\nretention = "1d"\n'
    answers: Answers = {ref(1): of_every_kind()[ref(1)], ref(6): of_every_kind()[ref(6)]}
    with_limit = Recorder(tmp_path / "a").publish(answers, policy=read_policy(limited))
    without = Recorder(tmp_path / "b").publish(answers)

    assert states(told(with_limit, 6))["absent-inside-retention"] is State.NO_OBJECTION
    assert states(told(without, 6))["absent-inside-retention"] is State.NOT_JUDGED


def test_a_rule_that_is_switched_off(tmp_path: Path) -> None:
    policy = read_policy("[rules.no-config-part]\nenabled = false\n")
    story = told(Recorder(tmp_path).publish(of_every_kind(), policy=policy), 4)
    said = {each.rule_id: each.said for each in story.rulings}

    assert states(story)["no-config-part"] is State.NOT_JUDGED
    assert said["no-config-part"] == "the policy has switched it off"


def test_a_page_of_a_list(run: PublishedRun) -> None:
    story = told(run, 2, 3)

    assert story.item == 1
    (ask,) = story.asks
    assert (ask.purpose, ask.is_the_answer) == ("list", True)
    assert story.checkpoint is not None
    assert story.checkpoint.id == ref(2).checkpoint_id
    assert "item 1 of a page of its cluster's list" in as_text(story)


def test_what_was_never_asked(run: PublishedRun) -> None:
    story = told(run, 8)

    assert story.asks == ()
    assert story.outcome["failure_kind"] == FailureKind.NOT_ASKED
    assert "not asked before the deadline" in as_text(story)


def test_a_waiver_is_told(tmp_path: Path) -> None:
    waiver = """
[[waivers]]
id = "W-1"
reason = "known"
owner = "me"
approver = "you"
expires = 2027-01-01
rules = ["restorable-false"]
"""
    run = Recorder(tmp_path).publish(of_every_kind(), policy=read_policy(waiver))

    assert "[waived: W-1]" in as_text(told(run, 4))


# ── names ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("named", [str(ref(8)), "orders/" + ref(8).checkpoint_id, f"{8:024X}"])
def test_a_triple_is_named_in_full_or_as_far_as_needed(named: str, run: PublishedRun) -> None:
    assert find_triple(run, named) == ref(8)


def test_an_id_in_several_clusters(run: PublishedRun) -> None:
    with pytest.raises(ConfigurationWrong, match="is several triples: "):
        find_triple(run, ref(1).checkpoint_id)


@pytest.mark.parametrize("named", ["", "/", "f" * 24, "a/b/c/d", str(ref(1, 9))])
def test_what_is_not_in_the_run(named: str, run: PublishedRun) -> None:
    with pytest.raises(InputMissing, match="has no triple"):
        find_triple(run, named)


# ── a terminal ───────────────────────────────────────────────────────────────────────────────────


def test_the_command_steers_no_terminal(tmp_path: Path, starter: Starter) -> None:
    """What Atlas says is shown, and does nothing."""
    document = {"error": 400, "errorCode": "X", "detail": "\x1b[2J\r\n\u202eevil"}
    answers: Answers = {ref(1): [reply(400, document, {"date": "\x1b]0;owned\x07"})]}
    Recorder(tmp_path).publish(answers)
    args = ("explain", "nightly", ref(1).checkpoint_id, "--output-dir", tmp_path)
    text = starter.start(*args, env={})
    document = json.loads(starter.start(*args, "--format", "json", env={}).out)

    assert text.code == 0
    assert "evil" in text.out
    assert all(line.isprintable() for line in text.out.splitlines())
    assert document["outcome"]["verdict"] == "INCONCLUSIVE"


LIES = "x\nverdict: PASS\r\u2028verdict: PASS\x85verdict: PASS"


def test_no_datum_begins_a_line_of_its_own(tmp_path: Path) -> None:
    """A label, a policy's name, a shard's name and an error's detail, which others choose."""
    part = {"typeName": "REPLICA_SET", "replicaSetName": LIES, "shardName": LIES}
    document = {"error": 500, "errorCode": "X", "detail": LIES}
    lying: Answers = {ref(1): [good(ref(1), parts=[part])], ref(2): [reply(500, document)]}
    policy = read_policy(f"name = {json.dumps(LIES)}\nowner_label = 'owner'\n")
    more = f'{ref(3).group_id},orders,{ref(3).checkpoint_id},"{LIES}"\n'
    run = Recorder(tmp_path).publish(lying, policy=policy, more=more, not_asked="1")

    for number, verdict in ((1, "FAIL"), (2, "INCONCLUSIVE"), (3, "INCONCLUSIVE")):
        text = as_text(told(run, number))
        assert "verdict: PASS" in text
        said = [line for line in text.splitlines() if line.startswith("verdict: ")]
        assert said == [f"verdict: {verdict}"]


def test_a_run_that_was_changed_has_no_story(
    run: PublishedRun, tmp_path: Path, starter: Starter
) -> None:
    copy = Path(shutil.copytree(run.path, tmp_path / "copy"))
    (path,) = (copy / "evidence").glob("*.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    ended = starter.start("explain", copy, str(ref(1)), env={})

    assert ended.code == 65
    assert "not as it was published" in ended.err
