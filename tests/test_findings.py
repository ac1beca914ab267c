"""The rules: what each objects to, and what a cluster's checkpoints come to together."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checkpoints import Checkpoint, CheckpointRef, Part
from pipeline.columns import RUN_COLUMNS
from pipeline.findings import judge
from pipeline.judgements import Cluster, Finding, Judgement, Outcome
from pipeline.outcomes import Answer, Failure, FailureKind, Verdict, microseconds
from pipeline.policy import Policy, Scope, default_policy, read_policy
from pipeline.rules import RULES
from pipeline.tables import CLUSTERS, FINDINGS, OUTCOMES

G = "5f" * 12
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
POLICY = default_policy()
FAILING = {rule_id for rule_id, terms in POLICY.rules.items() if terms.fails}

SHARD = Part("REPLICA_SET", "rs", "shard-0", token_discovered=True)
OTHER = Part("REPLICA_SET", "rs-1", "shard-1", token_discovered=True)
CONFIG = Part("CONFIG_SERVER_REPLICA_SET", "config", token_discovered=True)
OLD_CONFIG = Part("CONFIG_SERVER", token_discovered=True)
UNTYPED = Part(token_discovered=True)
HEALTHY = Checkpoint(
    started=NOON, completed=NOON, timestamp=NOON, restorable=True, parts=(SHARD, OTHER, CONFIG)
)
INSTANT = timedelta(microseconds=1)


def changed(**changes: Any) -> Checkpoint:
    return msgspec.structs.replace(HEALTHY, **changes)


def told(value: bool | None) -> Part:
    return msgspec.structs.replace(SHARD, token_discovered=value)


def answers(*found: Checkpoint | Failure) -> list[Answer]:
    """Give one cluster's answers, a minute apart."""
    return [
        Answer(
            CheckpointRef(G, "orders", f"{number:024x}"),
            input_line=number + 2,
            labels="{}",
            found=one,
            attempts=1,
            fetched_by="get",
            fetched_at=microseconds(NOON + timedelta(minutes=number)),
            reply_id=number,
            reply_sha256="ab" * 32,
        )
        for number, one in enumerate(found)
    ]


def judged(*found: Checkpoint | Failure) -> Judgement:
    return judge(answers(*found), POLICY, NOON)


def rules_against(checkpoint: Checkpoint) -> set[str]:
    """Ids of the rules that object, those over the cluster left out."""
    return {one.rule_id for one in judged(checkpoint).findings if one.scope == "checkpoint"}


# --- rules over a checkpoint --------------------------------------------------------------------

CASES: list[tuple[str, Checkpoint, set[str]]] = [
    ("healthy, sharded", HEALTHY, set()),
    ("healthy, a replica set", changed(parts=(SHARD,)), set()),
    ("not restorable", changed(restorable=False), {"restorable-false"}),
    ("not said whether restorable", changed(restorable=None), {"restorable-not-reported"}),
    (
        "a contradiction",
        changed(parts=(told(False), CONFIG)),
        {"token-not-discovered", "restorable-contradicts-tokens"},
    ),
    ("a token not spoken of", changed(parts=(told(None), CONFIG)), {"token-not-discovered"}),
    (
        "the config servers' token not seen",
        changed(parts=(SHARD, msgspec.structs.replace(CONFIG, token_discovered=False))),
        {"token-not-discovered", "restorable-contradicts-tokens"},
    ),
    ("a token without a time", changed(parts=(told(True), CONFIG)), set()),
    ("no parts", changed(parts=()), {"no-parts"}),
    ("config servers alone", changed(parts=(CONFIG,)), {"no-parts"}),
    (
        "config servers alone, twice",
        changed(parts=(CONFIG, OLD_CONFIG)),
        {"no-parts", "duplicate-part"},
    ),
    ("one shard without config servers", changed(parts=(SHARD,)), set()),
    ("one shard with config servers", changed(parts=(SHARD, CONFIG)), set()),
    ("two shards without config servers", changed(parts=(SHARD, OTHER)), {"no-config-part"}),
    (
        "two parts of no known type",
        changed(parts=(UNTYPED, UNTYPED)),
        {"no-config-part", "unknown-part"},
    ),
    ("two shards, older config server", changed(parts=(SHARD, OTHER, OLD_CONFIG)), set()),
    ("not completed", changed(completed=None), {"completed-missing"}),
    ("neither started nor completed", changed(started=None, completed=None), {"completed-missing"}),
    ("completed as it started", changed(completed=NOON), set()),
    ("completed an instant later", changed(completed=NOON + INSTANT), set()),
    ("completed before", changed(completed=NOON - INSTANT), {"completed-before-started"}),
    ("start not known", changed(started=None), set()),
    ("restore point not known", changed(timestamp=None), set()),
    ("restore point before the start", changed(timestamp=NOON - timedelta(seconds=65)), set()),
    (
        "nothing known",
        Checkpoint(),
        {"restorable-not-reported", "no-parts", "completed-missing"},
    ),
    (
        "a contradiction and more",
        changed(
            parts=(told(False), msgspec.structs.replace(OTHER, token_discovered=None)),
            completed=NOON - INSTANT,
        ),
        {
            "token-not-discovered",
            "restorable-contradicts-tokens",
            "no-config-part",
            "completed-before-started",
        },
    ),
    ("a shard twice", changed(parts=(SHARD, SHARD, CONFIG)), {"duplicate-part"}),
    (
        "a token not seen",
        changed(parts=(told(False), CONFIG), restorable=False),
        {"restorable-false", "token-not-discovered"},
    ),
]


@pytest.mark.parametrize(("what", "checkpoint", "rule_ids"), CASES)
def test_rules_over_a_checkpoint(what: str, checkpoint: Checkpoint, rule_ids: set[str]) -> None:
    (outcome,) = judged(checkpoint).outcomes

    assert rules_against(checkpoint) == rule_ids, what
    assert outcome.verdict is (Verdict.FAIL if rule_ids & FAILING else Verdict.PASS)


@pytest.mark.parametrize("fails", [True, False])
def test_the_policy_says_which_rules_fail(fails: bool) -> None:
    """Where a rule does not fail, what it objects to is a finding beside a PASS."""
    terms = {name: msgspec.structs.replace(one, fails=fails) for name, one in POLICY.rules.items()}
    policy = msgspec.structs.replace(POLICY, rules=terms)
    for _, checkpoint, rule_ids in CASES:
        judgement = judge(answers(checkpoint), policy, NOON)
        wanted = Verdict.FAIL if rule_ids and fails else Verdict.PASS

        assert judgement.outcomes[0].verdict is wanted
        assert rule_ids <= {one.rule_id for one in judgement.findings}
        assert judgement.cluster.verdict is wanted


def test_findings_come_in_the_order_of_the_checkpoints() -> None:
    """The table is sorted by checkpoint; those on the cluster come last."""
    completed = changed(completed=None)
    found = judged(changed(restorable=False), completed, changed(restorable=False)).findings

    assert [(one.checkpoint_id, one.rule_id) for one in found] == [
        (f"{0:024x}", "restorable-false"),
        (f"{1:024x}", "completed-missing"),
        (f"{2:024x}", "restorable-false"),
        (None, "no-restorable-checkpoint"),
    ]


@pytest.mark.parametrize("terms", [{}, {"fails": False}, {"enabled": False}])
def test_times_in_the_future_make_no_restorable_point(terms: dict[str, bool]) -> None:
    """Whatever the policy makes of them: nobody knows which moment they mean."""
    later = NOON + timedelta(days=1)
    ahead = answers(HEALTHY, changed(timestamp=later))
    cluster = judge(ahead, with_terms("clock-in-future", **terms), NOON).cluster

    assert cluster.pass_count == (2 if terms else 1)
    assert cluster.newest_restorable_at == NOON


def test_a_clock_that_is_not_judged_hides_no_old_point() -> None:
    """The one point that is known is too old, whatever a checkpoint from the future says."""
    scope = Scope(cluster="ord*", thresholds={"rpo_age": timedelta(days=1)})
    policy = with_terms("clock-in-future", enabled=False)
    policy = msgspec.structs.replace(policy, scopes=(scope,))
    years = timedelta(days=3650)
    ahead = changed(started=NOON + years, completed=NOON + years, timestamp=NOON + years)
    judgement = judge(answers(at(-240), ahead), policy, NOON)

    assert (judgement.rpo_status, judgement.cluster.verdict) == ("exceeded", "FAIL")
    assert judgement.cluster.rpo_age_s == 240 * 3600 + 60
    assert [one.rule_id for one in judgement.findings] == ["rpo-age"]


def with_terms(rule_id: str, **changes: bool) -> Policy:
    """The default policy with one rule's terms changed."""
    terms = msgspec.structs.replace(POLICY.rules[rule_id], **changes)
    return msgspec.structs.replace(POLICY, rules={**POLICY.rules, rule_id: terms})


def test_a_shard_that_drops_out_and_stays_out_is_told() -> None:
    """Each checkpoint passes, as a shard may have been removed; the cluster's finding names it."""
    before, since = changed(parts=(SHARD, OTHER, CONFIG)), changed(parts=(SHARD, CONFIG))
    judgement = judged(*[before] * 12, *[since] * 12)
    (finding,) = judgement.findings

    assert (judgement.cluster.verdict, judgement.cluster.pass_count) == ("PASS", 24)
    assert (finding.rule_id, finding.scope, finding.severity) == ("shards-gone", "cluster", "high")
    assert f"since {12:024x} of" in finding.message
    assert finding.message.endswith(": shard-1")


@pytest.mark.parametrize("kind", list(FailureKind))
def test_a_newer_one_that_is_not_known_may_have_the_shard(kind: FailureKind) -> None:
    """An absent one has nothing any more."""
    judgement = judged(HEALTHY, *[changed(parts=(SHARD, CONFIG))] * 2, Failure(kind))
    is_told = "shards-gone" in {one.rule_id for one in judgement.findings}

    assert is_told is (Failure(kind).verdict is Verdict.ABSENT)


def test_a_cluster_has_its_own_thresholds_and_an_owner() -> None:
    hour = timedelta(hours=1)
    scope = Scope(cluster="ord*", owner="red", thresholds={"rpo_age": hour})
    policy = msgspec.structs.replace(POLICY, scopes=(scope,))
    fit = judge(answers(at(-1)), policy, NOON)
    late = judge(answers(at(-1), at(-1)), policy, NOON)

    assert (fit.owner, fit.rpo_status, fit.cluster.rpo_limit_s) == ("red", "within", 3600.0)
    assert (late.rpo_status, late.cluster.verdict) == ("exceeded", "FAIL")
    assert [one.rule_id for one in late.findings] == ["rpo-age"]


def test_the_owner_may_stand_in_the_input() -> None:
    (answer,) = answers(HEALTHY)
    answer = msgspec.structs.replace(answer, labels='{"team": "red"}')
    policy = msgspec.structs.replace(POLICY, owner_label="team")

    assert judge([answer], policy, NOON).owner == "red"


def test_a_finding_says_what_was_seen_and_names_the_parts() -> None:
    parts = (told(False), Part(replica_set_name="rs-1"), Part(), CONFIG)
    found = judged(changed(parts=parts)).findings
    (finding,) = [one for one in found if one.rule_id == "token-not-discovered"]

    assert finding.message == "3 of 4 parts lack a discovered token: shard-0, rs-1, part 2"
    assert finding.observed == "tokenDiscovered: 1 false, 2 not reported"
    assert finding.expected == "true in every part"


def test_what_a_finding_says_is_bounded() -> None:
    """How many parts there are, and how long their names, is up to the answer."""
    parts = tuple(Part(shard_name=f"{number}" * 1000) for number in range(5000))
    found = judged(changed(parts=parts, restorable=False)).findings

    assert found[1].message.endswith(" and 4990 more")
    assert all(len(one.message) < 1200 for one in found)
    assert all(len(one.observed) < 1200 for one in found)


# --- the rule over a cluster --------------------------------------------------------------------

PASSED, FAILED = HEALTHY, changed(restorable=False)
ABSENT = Failure(FailureKind.CHECKPOINT_ABSENT, 404, "CHECKPOINT_NOT_FOUND")
UNKNOWN = Failure(FailureKind.THROTTLED, 429)
RULE = "no-restorable-checkpoint"
CLUSTER_CASES: list[tuple[list[Checkpoint | Failure], str, bool]] = [
    ([PASSED], "PASS", False),
    ([PASSED, ABSENT], "ABSENT", False),
    ([PASSED, UNKNOWN], "INCONCLUSIVE", False),
    ([PASSED, ABSENT, UNKNOWN], "INCONCLUSIVE", False),
    ([PASSED, FAILED], "FAIL", False),
    ([PASSED, FAILED, ABSENT, UNKNOWN], "FAIL", False),
    ([FAILED], "FAIL", True),
    ([ABSENT], "FAIL", True),
    ([FAILED, ABSENT], "FAIL", True),
    ([UNKNOWN], "INCONCLUSIVE", False),
    ([ABSENT, UNKNOWN], "INCONCLUSIVE", False),
    ([FAILED, UNKNOWN], "FAIL", False),
]


@pytest.mark.parametrize(("found", "verdict", "objects"), CLUSTER_CASES)
def test_a_cluster_needs_one_that_passes(
    found: list[Checkpoint | Failure], verdict: str, objects: bool
) -> None:
    """Not judged while one is inconclusive: it may be the one."""
    judgement = judged(*found)
    against_cluster = [one for one in judgement.findings if one.scope == "cluster"]

    assert judgement.cluster.verdict == verdict
    assert [one.rule_id for one in against_cluster] == ([RULE] if objects else [])
    assert all(one.checkpoint_id is None for one in against_cluster)


@pytest.mark.parametrize("kind", list(FailureKind))
def test_no_failure_is_a_pass_or_a_fail(kind: FailureKind) -> None:
    judgement = judged(Failure(kind, 404, "CODE", "words"))
    (outcome,) = judgement.outcomes

    assert outcome.verdict is Failure(kind).verdict
    assert (outcome.failure_kind, outcome.http_status) == (kind, 404)
    assert (outcome.error_code, outcome.error_detail) == ("CODE", "words")
    assert not [one for one in judgement.findings if one.scope == "checkpoint"]


# --- what is told of a cluster ------------------------------------------------------------------


def at(hours: float, **changes: Any) -> Checkpoint:
    return changed(timestamp=NOON + timedelta(hours=hours), **changes)


def test_a_cluster_tells_its_restorable_points() -> None:
    """Of those that pass; the age counts back from the last reply, also a failure's."""
    points = (at(-1), at(-9), at(-2), at(5, restorable=False), changed(timestamp=None), UNKNOWN)
    cluster = judged(*points).cluster

    assert cluster.newest_restorable_at == NOON - timedelta(hours=1)
    assert cluster.oldest_restorable_at == NOON - timedelta(hours=9)
    assert cluster.largest_gap_s == 7 * 3600
    assert cluster.rpo_age_s == 3600 + 5 * 60
    assert cluster.rpo_limit_s is None


def test_one_restorable_point_has_no_gap() -> None:
    cluster = judged(at(0)).cluster

    assert (cluster.largest_gap_s, cluster.rpo_age_s) == (None, 0.0)


@pytest.mark.parametrize("found", [FAILED, ABSENT, UNKNOWN, changed(timestamp=None)])
def test_without_a_restorable_point_nothing_is_told_of_it(found: Checkpoint | Failure) -> None:
    cluster = judged(found).cluster

    assert cluster.newest_restorable_at is cluster.oldest_restorable_at is None
    assert cluster.rpo_age_s is cluster.largest_gap_s is None


def test_without_the_time_of_a_reply_there_is_no_age() -> None:
    (answer,) = answers(HEALTHY)
    cluster = judge([msgspec.structs.replace(answer, fetched_at=None)], POLICY, NOON).cluster

    assert (cluster.newest_restorable_at, cluster.rpo_age_s) == (NOON, None)


def test_an_outcome_keeps_what_is_known_of_its_answer() -> None:
    (answer,) = answers(HEALTHY)
    answer = msgspec.structs.replace(answer, attempts=3, labels='{"team": "red"}')
    (outcome,) = judge([answer], POLICY, NOON).outcomes

    assert outcome == Outcome(
        G,
        "orders",
        f"{0:024x}",
        verdict=Verdict.PASS,
        excused_by=None,
        failure_kind=None,
        http_status=200,
        error_code=None,
        error_detail=None,
        attempts=3,
        fetched_by="get",
        input_line=2,
        labels='{"team": "red"}',
        fetched_at=microseconds(NOON),
        reply_id=0,
        reply_sha256="ab" * 32,
    )


def test_the_policy_says_what_a_finding_is_worth() -> None:
    text = POLICY.text.replace(
        '[rules.restorable-false]\nseverity = "critical"',
        '[rules.restorable-false]\nseverity = "low"',
    )
    (finding, _) = judge(answers(FAILED), read_policy(text), NOON).findings

    assert finding.severity == "low"
    assert finding.controls == "; ".join(POLICY.rules["restorable-false"].controls)
    assert (finding.waiver_id, finding.waiver_expires_at) == (None, None)


def test_the_ids_of_rules_are_a_contract() -> None:
    assert tuple(RULES) == (
        "restorable-false",
        "restorable-not-reported",
        "token-not-discovered",
        "restorable-contradicts-tokens",
        "no-parts",
        "no-config-part",
        "shard-missing",
        "duplicate-part",
        "unknown-part",
        "completed-missing",
        "completed-before-started",
        "run-time-too-long",
        "run-time-unusual",
        "token-spread",
        "token-distance",
        "clock-in-future",
        "absent-inside-retention",
        "no-restorable-checkpoint",
        "too-few-restorable",
        "rpo-age",
        "rpo-gap",
        "retention-not-reached",
        "shards-gone",
    )


@pytest.mark.parametrize(
    ("struct", "table"), [(Finding, FINDINGS), (Outcome, OUTCOMES), (Cluster, CLUSTERS)]
)
def test_fields_are_the_tables_columns(struct: Any, table: Any) -> None:
    """Rows are made of the fields in their order; a field out of place would land elsewhere."""
    assert struct.__struct_fields__ == table.names[len(RUN_COLUMNS) :]


# --- laws ---------------------------------------------------------------------------------------

MOMENTS = st.datetimes(timezones=st.just(UTC))
PARTS = st.builds(
    Part,
    type_name=st.sampled_from([None, "REPLICA_SET", "CONFIG_SERVER", "MONGOS"]),
    shard_name=st.none() | st.text(max_size=3),
    token_discovered=st.sampled_from([True, True, True, False, None]),
)
CHECKPOINTS = st.builds(
    Checkpoint,
    started=st.none() | MOMENTS,
    completed=st.none() | MOMENTS,
    timestamp=st.none() | MOMENTS,
    restorable=st.sampled_from([True, True, True, False, None]),
    parts=st.lists(PARTS, max_size=4).map(tuple),
)
FAILURES = st.builds(Failure, st.sampled_from(FailureKind))
FOUND = st.lists(st.just(HEALTHY) | CHECKPOINTS | FAILURES, min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(FOUND)
def test_one_verdict_a_triple_and_counts_that_add_up(found: list[Checkpoint | Failure]) -> None:
    asked = answers(*found)
    judgement = judge(asked, POLICY, NOON)
    verdicts = Counter(outcome.verdict for outcome in judgement.outcomes)
    cluster = judgement.cluster

    assert [one.checkpoint_id for one in judgement.outcomes] == [
        one.ref.checkpoint_id for one in asked
    ]
    assert cluster.triple_count == len(found) == verdicts.total()
    assert verdicts == Counter(
        {
            Verdict.PASS: cluster.pass_count,
            Verdict.FAIL: cluster.fail_count,
            Verdict.ABSENT: cluster.absent_count,
            Verdict.INCONCLUSIVE: cluster.inconclusive_count,
        }
    )


@settings(max_examples=200, deadline=None)
@given(FOUND)
def test_a_checkpoint_fails_if_and_only_if_a_finding_says_why(
    found: list[Checkpoint | Failure],
) -> None:
    judgement = judged(*found)
    accused = {
        one.checkpoint_id
        for one in judgement.findings
        if one.scope == "checkpoint" and one.rule_id in FAILING
    }

    assert accused == {
        one.checkpoint_id for one in judgement.outcomes if one.verdict is Verdict.FAIL
    }


@settings(max_examples=200, deadline=None)
@given(CHECKPOINTS, PARTS, st.sampled_from([False, None]), st.integers(0, 4))
def test_a_token_more_that_is_not_discovered_never_helps(
    checkpoint: Checkpoint, part: Part, said: bool | None, place: int
) -> None:
    """Monotone: neither a further part without a token nor a token lost leads to PASS."""
    lost = msgspec.structs.replace(part, token_discovered=said)
    parts = checkpoint.parts
    further = msgspec.structs.replace(checkpoint, parts=(*parts[:place], lost, *parts[place:]))
    instead = msgspec.structs.replace(checkpoint, parts=(*parts[:place], lost, *parts[place + 1 :]))

    assert judged(further).outcomes[0].verdict is Verdict.FAIL
    assert judged(instead).outcomes[0].verdict is Verdict.FAIL


@settings(max_examples=100, deadline=None)
@given(CHECKPOINTS, FOUND)
def test_what_is_found_alone_is_found_among_others(
    checkpoint: Checkpoint, others: list[Checkpoint | Failure]
) -> None:
    """Others show that a shard is missing, or that a run time is unusual; they excuse nothing."""
    alone = rules_of(judged(checkpoint))
    among = rules_of(judged(checkpoint, *others))

    assert among - {"shard-missing", "run-time-unusual"} == alone


def rules_of(judgement: Judgement) -> set[str]:
    """Ids of the rules that object to the first checkpoint."""
    first = judgement.outcomes[0].checkpoint_id
    return {one.rule_id for one in judgement.findings if one.checkpoint_id == first}


@settings(max_examples=100, deadline=None)
@given(FOUND)
def test_judging_twice_gives_the_same(found: list[Checkpoint | Failure]) -> None:
    assert judged(*found) == judged(*found)
