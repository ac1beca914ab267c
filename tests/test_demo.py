"""What the simulator planted is found, and nothing else: over whole fleets, and by the demo."""

from collections import Counter
from datetime import timedelta
from functools import cache
from itertools import groupby
from typing import Any

import msgspec
import pytest

from pipeline.atlas import Reply, read_reply
from pipeline.checkpoints import CheckpointRef
from pipeline.demo import EXPECTED, EXPECTED_FINDINGS, Comparison
from pipeline.errors import ProgramFault
from pipeline.findings import judge
from pipeline.judgements import Judgement
from pipeline.outcomes import Answer, Failure, FailureKind, microseconds
from pipeline.policy import default_policy
from pipeline.rules import RULES
from pipeline.simulator import FaultPlan, Fleet
from pipeline.simulator.fleet import AS_OF, COLUMNS, Triple, cells
from pipeline.simulator.stories import STORIES, cluster_findings

#: A day after the fleets' newest checkpoints, so that the longest run of one has ended.
ASKED = AS_OF + timedelta(days=1)
POLICY = default_policy()
LOST = Failure(FailureKind.SERVER_ERROR, 500)

#: The rules of which the default policy has no threshold, or one that everything keeps.
NOT_JUDGED = {
    "absent-inside-retention",
    "too-few-restorable",
    "rpo-age",
    "rpo-gap",
    "retention-not-reached",
}
FLEETS = {
    "the demo's": Fleet.demo(),
    "seed 3": Fleet.seeded(seed=3, projects=10, clusters=10, checkpoints=50),
    "seed 11": Fleet.seeded(seed=11, projects=10, clusters=10, checkpoints=50),
    "small clusters": Fleet.seeded(seed=5, projects=20, clusters=25, checkpoints=3),
    "single checkpoints": Fleet.seeded(seed=6, projects=40, clusters=25, checkpoints=1),
    "odd sizes": Fleet.seeded(seed=8, projects=9, clusters=7, checkpoints=13),
}


def reply_to(fleet: Fleet, triple: Triple) -> Reply:
    story = STORIES[triple.story]
    if not story.listed:
        document: dict[str, Any] = {"error": story.status, "errorCode": story.error_code}
        return Reply(story.status, ASKED, ASKED, {}, msgspec.json.encode(document))
    cluster = fleet.cluster(triple.group_id, triple.cluster_name)
    assert cluster is not None
    found = fleet.checkpoint(cluster, triple.checkpoint_id)
    assert found is not None
    return Reply(200, ASKED, ASKED, {}, msgspec.json.encode(fleet.body(found)))


def answer_of(fleet: Fleet, plan: FaultPlan, line: int, triple: Triple) -> Answer:
    """What an audit learns of a triple, with the labels that its line carries."""
    ref = CheckpointRef(triple.group_id, triple.cluster_name, triple.checkpoint_id)
    verdict = plan.expected(triple)
    named = dict(zip(COLUMNS, cells(triple, verdict), strict=True))
    labels = msgspec.json.encode({name: named[name] for name in COLUMNS[3:]}).decode()
    is_lost = verdict != triple.expected_verdict
    found = LOST if is_lost else read_reply(ref, reply_to(fleet, triple))
    return Answer(ref, line, labels, found, 1, "get", microseconds(ASKED), line, "ab" * 32)


@cache
def judged(name: str) -> list[Judgement]:
    """Every cluster of a fleet, judged by the default policy."""
    return judged_under(FLEETS[name], FaultPlan.none())


def judged_under(fleet: Fleet, plan: FaultPlan) -> list[Judgement]:
    """The same where some of it cannot be learned."""
    answers = [answer_of(fleet, plan, line, one) for line, one in enumerate(fleet.triples(), 2)]
    answers.sort(key=lambda answer: answer.ref)
    clusters = groupby(answers, key=lambda one: (one.ref.group_id, one.ref.cluster_name))
    return [judge(list(cluster), POLICY, ASKED) for _, cluster in clusters]


@pytest.mark.parametrize("name", FLEETS)
def test_everything_planted_is_found_and_nothing_else(name: str) -> None:
    comparison = Comparison()
    for judgement in judged(name):
        comparison.check(judgement)

    assert comparison.planted > 0
    assert (comparison.precision, comparison.recall) == (1.0, 1.0)


@pytest.mark.parametrize("seed", range(8))
def test_what_cannot_be_learned_changes_nothing_else(seed: int) -> None:
    """Lasting faults of checkpoints and whole projects: of the rest just what was planted."""
    fleet = Fleet.seeded(seed=seed, projects=5, clusters=3, checkpoints=30)
    comparison = Comparison()
    judgements = judged_under(fleet, FaultPlan.nightly(fleet, seed))
    for judgement in judgements:
        comparison.check(judgement)

    assert any(judgement.cluster.inconclusive_count for judgement in judgements)
    assert comparison.planted > 0
    assert (comparison.precision, comparison.recall) == (1.0, 1.0)


def test_every_rule_that_the_default_policy_judges_is_planted() -> None:
    """Over whole fleets each rule objects somewhere, so none of them could be left out unseen."""
    objected = {
        finding.rule_id
        for name in FLEETS
        for judgement in judged(name)
        for finding in judgement.findings
    }

    assert objected == set(RULES) - NOT_JUDGED


def test_a_fleet_holds_no_more_sickness_than_it_says() -> None:
    """The count is of pairs of triple and rule, and of clusters."""
    comparison = Comparison()
    for judgement in judged("the demo's"):
        comparison.check(judgement)
    of_triples = sum(len(one.expected_findings) for one in Fleet.demo().triples())
    of_clusters = sum(
        finding.checkpoint_id is None
        for judgement in judged("the demo's")
        for finding in judgement.findings
    )

    assert of_clusters > 0
    assert comparison.planted == of_triples + of_clusters


# --- differences --------------------------------------------------------------------------------


def changed(judgement: Judgement, **labels: str) -> Judgement:
    """The judgement with other labels on the first of its outcomes."""
    first, *rest = judgement.outcomes
    said = {**msgspec.json.decode(first.labels), **labels}
    first = msgspec.structs.replace(first, labels=msgspec.json.encode(said).decode())
    return msgspec.structs.replace(judgement, outcomes=(first, *rest))


def without(judgement: Judgement, *names: str) -> Judgement:
    """The judgement of lines that lack some columns."""
    outcomes = []
    for outcome in judgement.outcomes:
        said = msgspec.json.decode(outcome.labels, type=dict[str, str])
        kept = {name: text for name, text in said.items() if name not in names}
        labels = msgspec.json.encode(kept).decode()
        outcomes.append(msgspec.structs.replace(outcome, labels=labels))
    return msgspec.structs.replace(judgement, outcomes=tuple(outcomes))


def passing() -> Judgement:
    """A cluster whose first checkpoint passes and is healthy."""
    return next(
        judgement
        for judgement in judged("the demo's")
        if judgement.outcomes[0].verdict == "PASS"
        and judgement.outcomes[0].checkpoint_id
        not in {finding.checkpoint_id for finding in judgement.findings}
    )


def barren() -> Judgement:
    """A cluster none of whose checkpoints is restorable, though Atlas has them all."""
    return next(
        one for one in judged("the demo's") if one.cluster.fail_count == one.cluster.triple_count
    )


def test_a_finding_that_is_missed_is_named() -> None:
    comparison = Comparison()
    judgement = changed(passing(), **{EXPECTED_FINDINGS: "no-parts"})
    triple = judgement.outcomes[0].checkpoint_id

    with pytest.raises(ProgramFault, match=f"{triple}: the rule no-parts does not object"):
        comparison.check(judgement)

    assert comparison.missed == 1
    assert comparison.recall is not None
    assert comparison.recall < 1


def test_a_finding_that_nobody_planted_is_named() -> None:
    comparison = Comparison()
    judgement = changed(barren(), **{EXPECTED_FINDINGS: ""})
    triple = judgement.outcomes[0].checkpoint_id

    with pytest.raises(ProgramFault, match=f"{triple}: the rule restorable-false objects"):
        comparison.check(judgement)

    assert (comparison.others, comparison.missed) == (1, 0)
    assert comparison.precision is not None
    assert comparison.precision < 1


def test_a_clusters_finding_is_compared_too() -> None:
    judgement = barren()
    findings = tuple(one for one in judgement.findings if one.checkpoint_id)
    hidden = msgspec.structs.replace(judgement, findings=findings)

    with pytest.raises(
        ProgramFault, match=r"cluster .*: the rule no-restorable-checkpoint does not"
    ):
        Comparison().check(hidden)


def test_a_shard_missing_at_the_newest_place_is_the_clusters_too() -> None:
    """It may come back or not: that is planted in the fleets, and no less expected."""
    shrunk = [
        judgement
        for name in FLEETS
        for judgement in judged(name)
        if "shards-gone" in {one.rule_id for one in judgement.findings}
    ]
    findings = tuple(one for one in shrunk[0].findings if one.rule_id != "shards-gone")
    hidden = msgspec.structs.replace(shrunk[0], findings=findings)

    with pytest.raises(ProgramFault, match=r"cluster .*: the rule shards-gone does not object"):
        Comparison().check(hidden)


CLUSTER_FINDINGS: list[tuple[list[tuple[str, list[str]]], set[str]]] = [
    ([("PASS", [])], set()),
    ([("FAIL", []), ("ABSENT", [])], {"no-restorable-checkpoint"}),
    ([("ABSENT", [])], {"no-restorable-checkpoint"}),
    ([("FAIL", []), ("INCONCLUSIVE", [])], set()),
    ([("PASS", []), ("FAIL", ["shard-missing"])], {"shards-gone"}),
    ([("PASS", []), ("FAIL", ["shard-missing"]), ("ABSENT", [])], {"shards-gone"}),
    ([("PASS", []), ("FAIL", ["shard-missing"]), ("INCONCLUSIVE", [])], set()),
    ([("PASS", []), ("FAIL", ["shard-missing"]), ("PASS", [])], set()),
    ([("FAIL", []), ("FAIL", ["shard-missing"])], {"no-restorable-checkpoint", "shards-gone"}),
]


@pytest.mark.parametrize(("checkpoints", "rule_ids"), CLUSTER_FINDINGS)
def test_what_the_simulator_expects_of_a_cluster(
    checkpoints: list[tuple[str, list[str]]], rule_ids: set[str]
) -> None:
    assert cluster_findings(checkpoints) == rule_ids


def test_a_wrong_verdict_is_named() -> None:
    with pytest.raises(ProgramFault, match="ends as PASS, the column expected_verdict wants FAIL"):
        Comparison().check(changed(passing(), **{EXPECTED: "FAIL"}))


def test_an_input_that_says_nothing_is_not_compared() -> None:
    comparison = Comparison()
    comparison.check(without(barren(), EXPECTED, EXPECTED_FINDINGS))
    comparison.check(without(barren(), EXPECTED_FINDINGS))

    assert comparison == Comparison()
    assert (comparison.precision, comparison.recall) == (None, None)


def test_the_line_tells_what_was_counted() -> None:
    assert str(Comparison(planted=4, found=3, others=1)) == (
        "planted 4 sicknesses: found 3, missed 1, others 1 (precision 0.75, recall 0.75)"
    )


def test_stories_name_rules_that_there_are() -> None:
    """They are written a second time, so a rule renamed would otherwise be missed here."""
    named = Counter(rule_id for story in STORIES.values() for rule_id in story.findings)

    assert set(named) == set(RULES) - NOT_JUDGED - {"no-restorable-checkpoint", "shards-gone"}
