"""Every rule by its tables, and the laws that hold for all of them."""

import hashlib
import random
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checkpoints import CONFIG_TYPES, TYPE_NAMES, Checkpoint, Part
from pipeline.findings import judge
from pipeline.judgements import Judgement
from pipeline.outcomes import Answer, Verdict
from pipeline.policy import Thresholds, default_policy
from pipeline.rules import CHECKPOINT_RULES, CLUSTER_RULES, RULES, RULES_VERSION
from pipeline.rules.listed import Listed
from pipeline.rules.parts import _absences
from pipeline.rules.recovery import rpo_status
from pipeline.rules.rule import listing
from pipeline.rules.standing import Standing, standing
from tests.rulecases import (
    ABSENT,
    CASES,
    CONFIG,
    DAY,
    HOUR,
    MINUTE,
    NOON,
    OLD_CONFIG,
    STANDINGS,
    STATUSES,
    THROTTLED,
    A,
    B,
    Case,
    Found,
    Rulebook,
    StandingCase,
    answers_of,
    at,
    healthy,
    id_of,
    of,
    part,
    ran,
    shards,
    stands,
    token,
)

BOOK = Rulebook(RULES, Listed, Standing, standing, rpo_status, listing)
POLICY = msgspec.structs.replace(
    default_policy(),
    thresholds=Thresholds(
        rpo_age=6 * HOUR,
        gap=2 * HOUR,
        token_spread=MINUTE,
        token_distance=15 * MINUTE,
        run_time=HOUR,
        retention=DAY,
        min_restorable=2,
    ),
)


def judged(answers: list[Answer]) -> Judgement:
    return judge(answers, POLICY, NOON)


def accusations(judgement: Judgement) -> set[tuple[str | None, str]]:
    return {(one.checkpoint_id, one.rule_id) for one in judgement.findings}


# --- the tables ---------------------------------------------------------------------------------


def name(case: Case | StandingCase) -> str:
    return f"{case.rule_id}: {case.what}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_rules_over_checkpoints(case: Case) -> None:
    assert BOOK.objects(case) == case.objects


@pytest.mark.parametrize("case", STANDINGS, ids=name)
def test_rules_over_clusters(case: StandingCase) -> None:
    assert BOOK.objects_to_cluster(case) is case.objects


@pytest.mark.parametrize(("what", "status", "fields"), STATUSES)
def test_rpo_status(what: str, status: str, fields: dict[str, Any]) -> None:
    assert rpo_status(Standing(**fields)) is status


@pytest.mark.parametrize("rule_id", RULES)
def test_every_rule_has_a_passing_a_failing_and_a_boundary_case(rule_id: str) -> None:
    every: list[Case | StandingCase] = [*CASES, *STANDINGS]
    cases = [one for one in every if one.rule_id == rule_id]

    assert {case.kind for case in cases} == {"passes", "fails", "boundary"}
    assert not any(case.objects for case in cases if case.kind == "passes")
    assert all(case.objects for case in cases if case.kind == "fails")


@pytest.mark.parametrize("rule_id", RULES)
def test_every_rule_tells_what_it_reads_and_why(rule_id: str) -> None:
    rule = RULES[rule_id]

    assert rule.rule_id == rule_id
    assert rule.title
    assert rule.reads
    assert rule.source
    assert rule.judge.__doc__
    assert set(rule.thresholds) <= set(Thresholds.__struct_fields__)
    assert rule.scope == ("cluster" if rule in CLUSTER_RULES else "checkpoint")


def test_no_rule_reads_the_increment() -> None:
    """Its documented minimum is a fault of the documentation."""
    assert not any("increment" in field for rule in RULES.values() for field in rule.reads)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_a_rule_objects_to_a_checkpoint_once(case: Case) -> None:
    listed = Listed(case.answers, case.thresholds)
    for rule in CHECKPOINT_RULES:
        places = [objection.place for objection in rule.judge(listed)]

        assert len(places) == len(set(places))


# --- what is said -------------------------------------------------------------------------------

_ABC = shards("abc").parts
#: The sick one of three otherwise complete checkpoints, and what is said of it.
SAID: list[tuple[str, Checkpoint, str]] = [
    (
        "shard-missing",
        shards("b"),
        "shards of the checkpoints around it are not there: a, c | 1 shards | 3 shards",
    ),
    (
        "duplicate-part",
        healthy(parts=(*_ABC, A, OLD_CONFIG)),
        "parts are there more than once: a, rs-a, 2 config parts | 6 parts | each part once",
    ),
    (
        "duplicate-part",
        healthy(parts=(*_ABC, A)),
        "parts are there more than once: a, rs-a | 5 parts | each part once",
    ),
    (
        "unknown-part",
        healthy(parts=(part("a", type_name="MONGOS"), *shards("bc").parts)),
        "1 of 4 parts are of no documented kind | MONGOS | " + ", ".join(sorted(TYPE_NAMES)),
    ),
    (
        "token-not-discovered",
        healthy(
            parts=(
                part("a", token_discovered=False),
                part("b", shard_name=None, token_discovered=None),
                Part(),
            )
        ),
        (
            "3 of 3 parts lack a discovered token: a, rs-b, part 2 | "
            "tokenDiscovered: 1 false, 2 not reported | true in every part"
        ),
    ),
    (
        "no-parts",
        healthy(parts=()),
        "it has no parts that can be read | 0 parts | one for each shard and the config servers",
    ),
    (
        "no-parts",
        healthy(parts=(CONFIG,)),
        (
            "it has no part that holds data | 1 config parts | "
            "one for each shard and the config servers"
        ),
    ),
    (
        "completed-before-started",
        healthy(completed=at(-10)),
        "it completed before it started | 10m before | not before",
    ),
    (
        "token-distance",
        healthy(timestamp=at(-20)),
        "a token is dated further from its timestamp than allowed | 20m | at most 15m",
    ),
    (
        "clock-in-future",
        healthy(started=at(7), completed=at(8)),
        f"a time in it lies in the future | {at(8).isoformat()} | no time later than its own reply",
    ),
]
LISTS: list[tuple[list[str], str]] = [
    ([], ""),
    (["a", "b"], "a, b"),
    ([str(n) for n in range(10)], "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
    ([str(n) for n in range(11)], "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1 more"),
    (["x" * 101], "x" * 100),
]


_GAPS = [at(-200), at(-100), at(-90), NOON]
SAID_OF_CLUSTERS: list[tuple[str, dict[str, Any], str]] = [
    (
        "rpo-gap",
        stands(points=_GAPS, gap=HOUR),
        (
            "2 gaps between restorable points are longer than allowed, the longest from "
            f"{at(-200).isoformat()} to {at(-100).isoformat()} | 1h 40m | at most 1h"
        ),
    ),
    (
        "rpo-age",
        stands(points=_GAPS, rpo_age=HOUR, as_of=at(61)),
        (
            "the newest restorable point among those listed is older than allowed | "
            "1h 1m old | at most 1h"
        ),
    ),
    (
        "too-few-restorable",
        stands(2, 1, 1, min_restorable=3),
        (
            "fewer of the cluster's listed checkpoints are restorable than wanted | "
            "2 of 4 restorable | at least 3"
        ),
    ),
    (
        "shards-gone",
        stands(shards=["abc", "cab", None, "b", "bd"]),
        (
            f"shards that older checkpoints have are gone, since {id_of(at(-15))} of "
            f"{at(-15).isoformat()}: a, c | 2 shards | 4 shards"
        ),
    ),
    (
        "shards-gone",
        stands(shards=["xab", "ab", "b", "b", None, "b"]),
        (
            f"shards that older checkpoints have are gone, the first since {id_of(at(-60))} of "
            f"{at(-60).isoformat()}: x, a | 1 shards | 3 shards"
        ),
    ),
]


def said_of_cluster(book: Rulebook, rule_id: str, fields: dict[str, Any]) -> str:
    (one,) = book.rules[rule_id].judge(book.standing(**fields))
    return f"{one.message} | {one.observed} | {one.expected}"


def said(book: Rulebook, rule_id: str, sick: Checkpoint) -> str:
    answers = answers_of([shards("abc"), sick, shards("abc")])
    (one,) = book.rules[rule_id].judge(book.listed(answers, POLICY.thresholds))
    return f"{one.message} | {one.observed} | {one.expected}"


def told_wrongly(book: Rulebook) -> str | None:
    """The first sentence or list that a rulebook tells otherwise than it should."""
    wrong = [words for rule_id, sick, words in SAID if said(book, rule_id, sick) != words]
    wrong += [
        words
        for rule_id, fields, words in SAID_OF_CLUSTERS
        if said_of_cluster(book, rule_id, fields) != words
    ]
    wrong += [words for names, words in LISTS if book.listing(names, len(names)) != words]
    return wrong[0] if wrong else None


@pytest.mark.parametrize(("rule_id", "sick", "words"), SAID)
def test_a_finding_says_what_was_seen_and_what_was_wanted(
    rule_id: str, sick: Checkpoint, words: str
) -> None:
    assert said(BOOK, rule_id, sick) == words


@pytest.mark.parametrize(("rule_id", "fields", "words"), SAID_OF_CLUSTERS)
def test_a_finding_on_a_cluster_says_it_too(
    rule_id: str, fields: dict[str, Any], words: str
) -> None:
    assert said_of_cluster(BOOK, rule_id, fields) == words


@pytest.mark.parametrize(("names", "words"), LISTS)
def test_lists_of_names_are_bounded(names: list[str], words: str) -> None:
    assert listing(names, len(names)) == words


# --- what a cluster comes to --------------------------------------------------------------------


def summed_up(book: Rulebook) -> Any:
    """Answers in no order; of those that pass one has no point, and one a clock that was wrong."""
    points = [healthy(timestamp=at(minutes)) for minutes in (-1, -9, -5, -3)]
    found: list[Found] = [*points, THROTTLED, THROTTLED, healthy(timestamp=None), healthy()]
    replied = [NOON, at(3), None, NOON, at(2), at(1), NOON, NOON]
    ids = [id_of(at(minutes)) for minutes in (-5, -9, -7, -5, -6, -8, -5, -5)]
    listed = book.listed(answers_of(found, replied=replied, ids=ids), POLICY.thresholds)
    verdicts = [
        *[Verdict.PASS] * 2,
        Verdict.FAIL,
        Verdict.PASS,
        *[Verdict.INCONCLUSIVE] * 2,
        *[Verdict.PASS] * 2,
    ]
    return book.summed_up(listed, verdicts, untimed={7})


def summed_up_wrongly(book: Rulebook) -> str | None:
    """What of a cluster a rulebook sums up otherwise than it should."""
    case = summed_up(book)
    right = {
        "points": case.points == [at(-9), at(-3), at(-1)],
        "as_of": case.as_of == at(3),
        "unknown": case.unknown == [at(-8), at(-6)],
        "oldest": case.oldest == at(-9),
        "largest_gap": case.largest_gap == 6 * MINUTE,
        "age": case.age == 4 * MINUTE,
        "verdicts": case.verdicts[Verdict.INCONCLUSIVE] == 2,
        "replies": _without_replies(book).as_of is None,
    }
    right |= _shards_summed_up(book)
    return next((what for what, is_right in right.items() if not is_right), None)


def _shards_summed_up(book: Rulebook) -> dict[str, bool]:
    """Answers in no order; what has no shard is left out, and what may have any is not known."""
    by_set = of(part("a", shard_name=None), CONFIG)
    nameless = of(A, part("b", shard_name=None, replica_set_name=None))
    found: list[Found] = [shards("ab"), by_set, nameless, THROTTLED, ABSENT, of(CONFIG), of()]
    ids = [id_of(at(minutes)) for minutes in (-9, -4, -6, -5, -1, -2, -3)]
    listed = book.listed(answers_of(found, ids=ids), POLICY.thresholds)
    verdicts = [Verdict.PASS] * 3 + [Verdict.INCONCLUSIVE, Verdict.ABSENT] + [Verdict.FAIL] * 2
    alone = book.listed(answers_of([by_set, by_set], ids=ids[:2]), POLICY.thresholds)
    return {
        "shards": book.summed_up(listed, verdicts, untimed=()).shards
        == [
            (ids[0], frozenset("ab")),
            (ids[2], None),
            (ids[3], None),
            (ids[1], frozenset("a")),
        ],
        "shards named alike": book.summed_up(alone, [Verdict.PASS] * 2, untimed=()).shards
        == [(one, frozenset(["rs-a"])) for one in ids[:2]],
    }


def _without_replies(book: Rulebook) -> Any:
    listed = book.listed(answers_of([healthy()], replied=[None]), POLICY.thresholds)
    return book.summed_up(listed, [Verdict.PASS], untimed=())


def test_a_cluster_is_summed_up() -> None:
    assert summed_up_wrongly(BOOK) is None


# --- large clusters -----------------------------------------------------------------------------


class Counted(str):
    """A shard's name that counts how often any of them is looked up."""

    __slots__ = ()
    looked_up = 0

    def __hash__(self) -> int:
        Counted.looked_up += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)


@pytest.mark.parametrize("length", [250, 1000, 4000])
def test_missing_shards_are_found_in_one_pass(length: int) -> None:
    """Looks at each name a few times, however many checkpoints there are, and all miss one."""
    names = [Counted(letter) for letter in "abcd"]
    sets: list[frozenset[str]] = [
        frozenset(names[: 3 + (n in {0, length - 1})]) for n in range(length)
    ]
    Counted.looked_up = 0
    found = [(index, count, [*absent]) for index, count, absent in _absences(sets)]

    assert [index for index, _, _ in found] == [*range(1, length - 1)]
    assert {count for _, count, _ in found} == {1}
    assert Counted.looked_up <= 10 * len(names) * length


def steps(answers: list[Answer]) -> int:
    """How many steps of the interpreter it takes to judge a cluster."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        judged(answers)
    finally:
        sys.settrace(before)
    return count


LARGE: dict[str, list[Found]] = {
    "healthy": [healthy()],
    "one shard missing in every second": [shards("ab"), shards("a")],
    "another shard each time": [shards("abc"), shards("ab"), shards("bc"), shards("ca")],
    "half of them long": [ran(0), ran(99)],
    "half of them ahead of time": [healthy(), healthy(started=NOON + DAY, completed=NOON + DAY)],
    "half of them not known": [healthy(), THROTTLED],
    "half of them absent": [healthy(), ABSENT],
    "all of them sick": [healthy(restorable=False, parts=(A, A, part("b", type_name="MONGOS")))],
}


@pytest.mark.parametrize("what", LARGE)
def test_judging_takes_steps_in_proportion(what: str) -> None:
    """Four times the checkpoints take four times the steps, and not sixteen times."""
    few, many = (
        steps(answers_of([*LARGE[what] * (length // len(LARGE[what]))])) for length in (60, 240)
    )

    assert few > 0
    assert many < 5 * few


# --- laws ---------------------------------------------------------------------------------------

#: Changes that make a checkpoint sick, whatever it is, without touching what it shows of shards.
SICKNESSES: dict[str, dict[str, Any]] = {
    "restorable-false": {"restorable": False},
    "restorable-not-reported": {"restorable": None},
    "completed-missing": {"completed": None},
    "completed-before-started": {"completed": at(-10)},
    "run-time-too-long": {"completed": at(61)},
    "token-distance": {"timestamp": at(-60)},
    "clock-in-future": {"started": NOON + DAY},
    "token-not-discovered": {"parts": (A, part("b", token_discovered=None), CONFIG)},
    "token-spread": {"parts": (A, part("b", token_timestamp=token(at(9))), CONFIG)},
    "duplicate-part": {"parts": (A, B, B, CONFIG)},
    "unknown-part": {"parts": (A, B, CONFIG, part("b", type_name="MONGOS"))},
}
SICK = st.sampled_from(sorted(SICKNESSES))
REPLIED = NOON + HOUR
#: A cluster in which every rule can judge: many healthy ones, and a few that need not be.
CLUSTERS = st.lists(st.dictionaries(SICK, st.just(None), max_size=2), min_size=1, max_size=5)


def sick(codes: Any) -> Checkpoint:
    changes: dict[str, Any] = {}
    for code in sorted(codes):
        changes |= SICKNESSES[code]
    return healthy(**changes)


def cluster_of(sicknesses: list[Any]) -> list[Answer]:
    found: list[Found] = [*[healthy()] * 8, *map(sick, sicknesses), *[healthy()] * 4]
    return answers_of(found, replied=[REPLIED] * len(found))


@pytest.mark.parametrize("code", SICKNESSES)
def test_each_sickness_is_one(code: str) -> None:
    answers = cluster_of([{code: None}])
    found = {rule_id for _, rule_id in accusations(judged(answers))}

    assert code in found


@settings(max_examples=150, deadline=None)
@given(CLUSTERS, SICK, st.data())
def test_a_sickness_more_never_removes_anothers_finding(
    sicknesses: list[Any], code: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(sicknesses) - 1))
    more = [*sicknesses]
    more[place] = {code: None}
    one = cluster_of(sicknesses)[8 + place].ref.checkpoint_id
    before = {pair for pair in accusations(judged(cluster_of(sicknesses))) if pair[0] != one}
    after = {pair for pair in accusations(judged(cluster_of(more))) if pair[0] != one}

    assert {pair for pair in before if pair[0]} <= after


@settings(max_examples=150, deadline=None)
@given(CLUSTERS, st.randoms(use_true_random=False))
def test_the_order_of_answers_does_not_matter(sicknesses: list[Any], chance: random.Random) -> None:
    answers = [*cluster_of(sicknesses), *_others()]
    shuffled = [*answers]
    chance.shuffle(shuffled)
    one, other = judged(answers), judged(shuffled)

    assert set(one.findings) == set(other.findings)
    assert one.cluster == other.cluster
    assert one.rpo_status == other.rpo_status
    assert {each.checkpoint_id: each.verdict for each in one.outcomes} == {
        each.checkpoint_id: each.verdict for each in other.outcomes
    }


def _others() -> list[Answer]:
    """Answers that compare with the others': a shard missing, one absent, one not known."""
    found: list[Found] = [shards("a"), ABSENT, THROTTLED, ran(40), healthy()]
    ids = [id_of(at(minutes), 99) for minutes in (-20, -21, -22, -23, -24)]
    return answers_of(found, ids=ids, replied=[REPLIED] * len(found))


# --- the version --------------------------------------------------------------------------------


def fixed_clusters() -> Iterator[list[Answer]]:
    """Clusters drawn from one seed, each with a few sicknesses and failures: always the same."""
    chance = random.Random(20261120)
    for _ in range(400):
        health = chance.choice((0.2, 0.8, 0.95))
        found = [_fixed(chance, health) for _ in range(chance.randint(1, 12))]
        hours = chance.choice((0, 1, 12))
        ids = [id_of(at(-60 * chance.randint(0, 40)), number) for number in range(len(found))]
        yield answers_of(found, replied=[at(60 * hours)] * len(found), ids=ids)


def _fixed(chance: random.Random, health: float) -> Found:
    if chance.random() < health:
        return healthy(timestamp=at(-chance.randint(0, 3) * 4))
    if chance.random() < 0.2:
        return chance.choice((ABSENT, THROTTLED))
    kept = tuple(_fixed_part(chance, one) for one in (A, B, CONFIG) if chance.random() < 0.9)
    extra = (chance.choice(kept),) if kept and chance.random() < 0.1 else ()
    return Checkpoint(
        started=_fixed_time(chance),
        completed=_fixed_time(chance),
        timestamp=_fixed_time(chance),
        restorable=chance.choice((True, True, True, True, False, None)),
        parts=(*kept, *extra),
    )


def _fixed_time(chance: random.Random) -> Any:
    minutes = chance.choice((0, 0, 0, 0, 0, 1, 5, 6, 10, 11, 15, 16, 60, 61, -1, -15, -16, None))
    return None if minutes is None else at(minutes)


def _fixed_part(chance: random.Random, one: Part) -> Part:
    if chance.random() < 0.8:
        return one
    changes = chance.choice(
        (
            {"token_discovered": False},
            {"token_discovered": None},
            {"token_timestamp": token(at(chance.choice((1, 2, 16))))},
            {"token_timestamp": None},
            {"shard_name": None},
            {"replica_set_name": None},
            {"type_name": None},
            {"type_name": "MONGOS"},
            {"type_name": min(CONFIG_TYPES)},
        )
    )
    return msgspec.structs.replace(one, **changes)


def digest() -> str:
    """Of verdicts, findings and standings over the fixed clusters; words are no judgement."""
    terms = {name: msgspec.structs.replace(one, fails=True) for name, one in POLICY.rules.items()}
    policy = msgspec.structs.replace(POLICY, rules=terms, thresholds=_FIXED_THRESHOLDS)
    seen = hashlib.sha256()
    for answers in fixed_clusters():
        judgement = judge(answers, policy, NOON)
        findings = [(one.checkpoint_id, one.rule_id) for one in judgement.findings]
        verdicts = [outcome.verdict for outcome in judgement.outcomes]
        seen.update(msgspec.json.encode([verdicts, findings, judgement.cluster]))
    return seen.hexdigest()


#: Short enough for the fixed clusters to cross each of them, and to keep it.
_FIXED_THRESHOLDS = Thresholds(
    rpo_age=HOUR,
    gap=5 * MINUTE,
    token_spread=MINUTE,
    token_distance=15 * MINUTE,
    run_time=HOUR,
    retention=12 * HOUR,
    min_restorable=3,
)

#: What the rules of each version made of the fixed clusters.
DIGESTS = {
    "2": "49d47787f39f285f49af40a32b6ba9d55eb71a0caeb470068c10a97a391987d2",
    "3": "9755753c522494746ba8267fc2a52f5366f5b8a147b974de160924c922e1a97b",
}


def test_judgement_changes_with_the_version_alone() -> None:
    """Where this fails, a judgement has changed: count `RULES_VERSION` up, and add its digest.

    Never replace the digest of a version that was released: its runs are verified by it.
    """
    assert digest() == DIGESTS[RULES_VERSION]


def test_the_fixed_clusters_meet_every_rule() -> None:
    policy = msgspec.structs.replace(POLICY, thresholds=_FIXED_THRESHOLDS)
    found = {
        one.rule_id for answers in fixed_clusters() for one in judge(answers, policy, NOON).findings
    }

    assert found == set(RULES)


def test_thresholds_that_are_lifted_judge_nothing() -> None:
    """With no limit set, only the rules that need none object."""
    lifted = msgspec.structs.replace(POLICY, thresholds=Thresholds())
    found = {
        one.rule_id for answers in fixed_clusters() for one in judge(answers, lifted, NOON).findings
    }

    assert found == {rule_id for rule_id, rule in RULES.items() if not rule.thresholds}
