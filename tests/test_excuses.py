"""Excuses: what waivers and the retention window take off, and that they never touch a verdict."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checkpoints import Checkpoint, CheckpointRef, Part
from pipeline.excuses import (
    WaiverState,
    WaiverUse,
    ends_at,
    excused,
    scope_of,
    state_of,
    waiver_notice,
    waiver_uses,
)
from pipeline.findings import judge
from pipeline.judgements import Cluster, Finding, Judgement, Outcome
from pipeline.outcomes import EXCUSABLE_KINDS, Answer, FailureKind, Verdict, microseconds
from pipeline.policy import Policy, RuleTerms, Scope, Severity, Thresholds, Waiver, read_policy

G = "5f" * 12
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)

RULES = {
    "no-parts": RuleTerms(Severity.CRITICAL),
    "restorable-false": RuleTerms(Severity.CRITICAL),
    "unknown-part": RuleTerms(Severity.LOW, fails=False),
    "no-restorable-checkpoint": RuleTerms(Severity.CRITICAL),
    "retention-not-reached": RuleTerms(Severity.LOW, fails=False),
}


def policy(*waivers: Waiver, **changes: Any) -> Policy:
    return Policy(text="", rules=RULES, waivers=waivers, **changes)


def waiver(waiver_id: str = "W-1", **changes: Any) -> Waiver:
    known: dict[str, Any] = {"expires_on": date(2027, 3, 31)}
    return Waiver(id=waiver_id, reason="r", owner="team", approver="a", **known | changes)


def id_of(number: int, made: datetime = NOON) -> str:
    """Give the id of a checkpoint made then."""
    return f"{int(made.timestamp()):08x}{number:016x}"


def outcome(
    verdict: Verdict,
    kind: FailureKind | None = None,
    *,
    number: int = 1,
    made: datetime = NOON,
    fetched_at: datetime | None = NOON,
    error_code: str | None = "SAID_BY_ATLAS",
) -> Outcome:
    return Outcome(
        G,
        "orders",
        id_of(number, made),
        verdict,
        excused_by=None,
        failure_kind=kind,
        http_status=None,
        error_code=error_code if kind else None,
        error_detail=None,
        attempts=1,
        fetched_by="get",
        input_line=2,
        labels="{}",
        fetched_at=None if fetched_at is None else microseconds(fetched_at),
        reply_id=1,
        reply_sha256="",
    )


def finding(rule_id: str, number: int | None = 1) -> Finding:
    return Finding(
        G,
        "orders",
        None if number is None else id_of(number),
        scope="checkpoint" if number else "cluster",
        rule_id=rule_id,
        severity="critical",
        message="it is so",
        observed="",
        expected="",
        controls="",
    )


def judgement(outcomes: Sequence[Outcome], *findings: Finding) -> Judgement:
    cluster = Cluster(G, "orders", Verdict.FAIL, len(outcomes), 0, 0, 0, 0, *[None] * 5)
    return Judgement(cluster, tuple(outcomes), findings)


def excuse_of(found: Judgement, terms: Policy, as_of: datetime = NOON) -> str | None:
    return excused(found, terms, as_of).outcomes[0].excused_by


ABSENT = judgement([outcome(Verdict.ABSENT, FailureKind.CHECKPOINT_ABSENT)])
FAILED = judgement([outcome(Verdict.FAIL)], finding("no-parts"))
FAILED_TWICE = judgement([outcome(Verdict.FAIL)], finding("no-parts"), finding("restorable-false"))


# --- findings and FAIL --------------------------------------------------------------------------


def test_without_waivers_and_retention_nothing_is_touched() -> None:
    assert excused(FAILED, policy(), NOON) is FAILED


def test_a_finding_is_waived_by_its_rule_and_its_fail_excused() -> None:
    found = excused(FAILED, policy(waiver(rules=("no-parts",))), NOON)

    assert found.findings[0].waiver_id == "W-1"
    assert found.findings[0].waiver_expires_at == datetime(2027, 4, 1, tzinfo=UTC)
    assert found.findings[0].message == "it is so"
    assert found.outcomes[0].excused_by == "W-1"
    assert found.waived == {"W-1": 1}


def test_a_fail_is_excused_only_when_every_failing_finding_is_waived() -> None:
    one, other = waiver("A", rules=("no-parts",)), waiver("B", rules=("restorable-false",))
    half = excused(FAILED_TWICE, policy(one), NOON)
    whole = excused(FAILED_TWICE, policy(one, other), NOON)

    assert [one.waiver_id for one in half.findings] == ["A", None]
    assert (half.outcomes[0].excused_by, half.waived) == (None, {})
    assert whole.outcomes[0].excused_by == "A, B"
    assert whole.waived == {"A": 1, "B": 1}


def test_of_two_waivers_the_first_is_named_and_once() -> None:
    both = waiver("A", rules=("no-parts", "restorable-false")), waiver("B", rules=("no-parts",))

    assert excuse_of(FAILED_TWICE, policy(*both)) == "A"


def test_a_finding_that_does_not_fail_need_not_be_waived() -> None:
    found = judgement([outcome(Verdict.FAIL)], finding("no-parts"), finding("unknown-part"))

    assert excuse_of(found, policy(waiver(rules=("no-parts",)))) == "W-1"
    assert excuse_of(found, policy(waiver(rules=("unknown-part",)))) is None


def test_a_finding_on_another_checkpoint_excuses_nothing_here() -> None:
    found = judgement([outcome(Verdict.FAIL, number=2)], finding("no-parts", number=1))

    assert excuse_of(found, policy(waiver(rules=("no-parts",)))) is None


def test_a_finding_on_a_cluster_is_waived_by_its_rule() -> None:
    found = judgement([outcome(Verdict.PASS)], finding("no-restorable-checkpoint", None))
    waived = excused(found, policy(waiver(rules=("no-restorable-checkpoint",))), NOON)

    assert waived.findings[0].waiver_id == "W-1"
    assert waived.outcomes == found.outcomes
    assert waived.waived == {"W-1": 1}


def test_a_waived_warning_is_marked_and_not_counted() -> None:
    """It was not open: no count of what is excused has lost anything by it."""
    warnings = finding("unknown-part"), finding("retention-not-reached", None)
    terms = policy(waiver(rules=("unknown-part", "retention-not-reached")))
    found = excused(judgement([outcome(Verdict.PASS)], *warnings), terms, NOON)

    assert [one.waiver_id for one in found.findings] == ["W-1", "W-1"]
    assert found.waived == {}


@pytest.mark.parametrize(
    ("changes", "excuse"),
    [
        ({}, "W-1"),
        ({"checkpoints": (id_of(1),)}, "W-1"),
        ({"checkpoints": (id_of(2),)}, None),
        ({"project": "5f*", "cluster": "ord?rs"}, "W-1"),
        ({"project": "60*"}, None),
        ({"cluster": "Orders"}, None),
    ],
)
def test_a_waiver_is_about_the_clusters_and_checkpoints_it_names(
    changes: dict[str, Any], excuse: str | None
) -> None:
    both = waiver(rules=("no-parts",), kinds=(FailureKind.CHECKPOINT_ABSENT,), **changes)

    assert excuse_of(FAILED, policy(both)) == excuse
    assert excuse_of(ABSENT, policy(both)) == excuse


def test_a_waiver_of_some_checkpoints_leaves_the_cluster_alone() -> None:
    found = judgement([outcome(Verdict.PASS)], finding("no-restorable-checkpoint", None))
    terms = policy(waiver(rules=("no-restorable-checkpoint",), checkpoints=(id_of(1),)))

    assert excused(found, terms, NOON).findings[0].waiver_id is None


# --- ABSENT and INCONCLUSIVE --------------------------------------------------------------------


@pytest.mark.parametrize("kind", FailureKind)
def test_of_what_has_no_checkpoint_only_atlas_own_word_is_excused(kind: FailureKind) -> None:
    """Even by a policy that was made in code, past all checks of the file."""
    absent = kind in (FailureKind.CHECKPOINT_ABSENT, FailureKind.BACKUPS_ABSENT)
    found = judgement([outcome(Verdict.ABSENT if absent else Verdict.INCONCLUSIVE, kind)])
    every = waiver(kinds=tuple(FailureKind))
    others = waiver(kinds=tuple(one for one in FailureKind if one is not kind))

    assert excuse_of(found, policy(every)) == ("W-1" if kind in EXCUSABLE_KINDS else None)
    assert excuse_of(found, policy(others)) is None


@pytest.mark.parametrize("kind", sorted(EXCUSABLE_KINDS))
def test_a_refusal_without_atlas_code_is_not_excused(kind: FailureKind) -> None:
    """A firewall in between answers 403 too; it has said nothing of the checkpoint."""
    found = judgement([outcome(Verdict.INCONCLUSIVE, kind, error_code=None)])

    assert excuse_of(found, policy(waiver(kinds=tuple(FailureKind)))) is None


def test_what_can_be_excused_is_a_short_list() -> None:
    assert {str(kind) for kind in EXCUSABLE_KINDS} == {
        "checkpoint_absent",
        "backups_absent",
        "cluster_not_found",
        "project_not_found",
        "project_refused",
    }


WEEK = policy(thresholds=Thresholds(retention=timedelta(days=7)))


@pytest.mark.parametrize(
    ("made", "excuse"),
    [
        (NOON - timedelta(days=7) - SECOND, "retention"),
        (NOON - timedelta(days=7), None),
        (NOON, None),
        (NOON + DAY, None),
        (datetime(2016, 1, 1, tzinfo=UTC), "retention"),
        (datetime(2016, 1, 1, tzinfo=UTC) - SECOND, None),
        (datetime(1970, 1, 1, tzinfo=UTC), None),
    ],
)
def test_an_absence_older_than_the_window_is_excused(made: datetime, excuse: str | None) -> None:
    """Exactly the window is within; an id from before there was Atlas is none."""
    found = judgement([outcome(Verdict.ABSENT, FailureKind.CHECKPOINT_ABSENT, made=made)])

    assert excuse_of(found, WEEK) == excuse


def test_the_window_is_counted_back_from_the_reply() -> None:
    """Not from the run's start: the evidence says the same in whatever year it is judged."""
    old = outcome(Verdict.ABSENT, FailureKind.CHECKPOINT_ABSENT, made=NOON, fetched_at=NOON + DAY)

    assert excuse_of(judgement([old]), WEEK, NOON + 365 * DAY) is None


def test_without_the_time_of_a_reply_the_window_excuses_nothing() -> None:
    old = outcome(Verdict.ABSENT, made=NOON - 99 * DAY, fetched_at=None)

    assert excuse_of(judgement([old]), WEEK) is None


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE])
def test_the_window_excuses_nothing_but_absences(verdict: Verdict) -> None:
    assert excuse_of(judgement([outcome(verdict, made=NOON - 99 * DAY)]), WEEK) is None


def test_the_window_is_the_one_of_the_cluster() -> None:
    found = judgement([outcome(Verdict.ABSENT, made=NOON - 10 * DAY)])
    month = Scope(cluster="orders", thresholds={"retention": timedelta(days=30)})
    none = Scope(cluster="orders", thresholds={"retention": None})

    assert excuse_of(found, WEEK) == "retention"
    assert excuse_of(found, msgspec.structs.replace(WEEK, scopes=(month,))) is None
    assert excuse_of(found, msgspec.structs.replace(WEEK, scopes=(none,))) is None


def test_what_the_window_excuses_rests_on_no_waiver() -> None:
    kind = FailureKind.CHECKPOINT_ABSENT
    terms = msgspec.structs.replace(WEEK, waivers=(waiver(kinds=(kind,)),))
    found = excused(judgement([outcome(Verdict.ABSENT, kind, made=NOON - 9 * DAY)]), terms, NOON)

    assert found.outcomes[0].excused_by == "retention"
    assert found.waived == {}


# --- the life of a waiver -----------------------------------------------------------------------

LAST_DAY = date(2026, 11, 20)
MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    ("as_of", "excuse"),
    [(NOON, "W-1"), (MIDNIGHT - SECOND, "W-1"), (MIDNIGHT, None), (MIDNIGHT + SECOND, None)],
)
def test_a_waiver_holds_through_its_last_day(as_of: datetime, excuse: str | None) -> None:
    both = waiver(rules=("no-parts",), kinds=(FailureKind.CHECKPOINT_ABSENT,), expires_on=LAST_DAY)

    assert excuse_of(FAILED, policy(both), as_of) == excuse
    assert excuse_of(ABSENT, policy(both), as_of) == excuse
    assert excuse_of(FAILED, policy(both), as_of.astimezone(_FAR_EAST)) == excuse


_FAR_EAST = datetime.fromisoformat("2026-11-20T00:00:00+14:00").tzinfo


def test_a_lapsed_waiver_comes_back_as_a_finding() -> None:
    found = excused(FAILED, policy(waiver(rules=("no-parts",), expires_on=LAST_DAY)), MIDNIGHT)

    assert found.findings[0].waiver_id is None
    assert found.findings[0].message == "it is so; waiver W-1 lapsed on 2026-11-20"
    assert found.outcomes[0].excused_by is None
    assert found.waived == {"W-1": 1}


def test_a_lapsed_waiver_counts_what_it_would_excuse_and_no_more() -> None:
    """Not what it would take another one for, and not what another one excuses."""
    lapsed = waiver("OLD", rules=("no-parts",), expires_on=LAST_DAY)
    renewed = waiver("NEW", rules=("no-parts",))
    other = waiver("OTHER", rules=("restorable-false",))

    assert excused(FAILED_TWICE, policy(lapsed), MIDNIGHT).waived == {}
    assert excused(FAILED_TWICE, policy(lapsed, other), MIDNIGHT).waived == {"OLD": 1}
    renewed_too = excused(FAILED, policy(lapsed, renewed), MIDNIGHT)
    assert renewed_too.waived == {"NEW": 1}
    assert renewed_too.findings[0].message == "it is so"


@pytest.mark.parametrize(
    ("left", "state"),
    [
        (14 * DAY + SECOND, WaiverState.IN_FORCE),
        (14 * DAY, WaiverState.LAPSES_SOON),
        (SECOND, WaiverState.LAPSES_SOON),
        (0 * DAY, WaiverState.LAPSED),
        (-DAY, WaiverState.LAPSED),
    ],
)
def test_the_state_of_a_waiver(left: timedelta, state: WaiverState) -> None:
    one = waiver()

    assert state_of(one, 14 * DAY, ends_at(one) - left) is state


def test_every_waiver_is_told_also_when_it_excuses_nothing() -> None:
    terms = policy(
        waiver("LATER", expires_on=date(2028, 1, 1), kinds=(FailureKind.CLUSTER_NOT_FOUND,)),
        waiver("SOON", expires_on=date(2026, 11, 26), rules=("no-parts",), cluster="orders"),
        waiver("NEXT", expires_on=date(2027, 1, 1), rules=("no-parts",), project="5f*"),
        waiver("LAPSED", expires_on=date(2026, 1, 1), rules=("no-parts", "unknown-part")),
    )
    uses = waiver_uses(terms, {"SOON": 3}, NOON)

    assert [(use.id, use.state, use.count) for use in uses] == [
        ("LAPSED", "lapsed", 0),
        ("SOON", "lapses_soon", 3),
        ("NEXT", "in_force", 0),
        ("LATER", "in_force", 0),
    ]
    assert [use.scope for use in uses] == [
        "rules no-parts, unknown-part",
        "rules no-parts; cluster orders",
        "rules no-parts; project 5f*",
        "kinds cluster_not_found",
    ]


def test_the_scope_of_a_waiver_is_bounded() -> None:
    ids = tuple(id_of(number) for number in range(5))
    said = scope_of(waiver(rules=("no-parts",), checkpoints=ids))

    few = scope_of(waiver(rules=("no-parts",), checkpoints=ids[:3]))

    assert said == f"rules no-parts; checkpoints {ids[0]}, {ids[1]}, {ids[2]} and 2 more"
    assert few == f"rules no-parts; checkpoints {ids[0]}, {ids[1]}, {ids[2]}"


def use(state: WaiverState, count: int, expires_on: date = date(2026, 11, 26)) -> WaiverUse:
    known = {"reason": "r", "owner": "team", "approver": "a", "scope": "s"}
    return WaiverUse(id="W-7", expires_on=expires_on, state=state, count=count, **known)


@pytest.mark.parametrize(
    ("found", "notice"),
    [
        (use(WaiverState.IN_FORCE, 3), ""),
        (use(WaiverState.LAPSED, 0), ""),
        (
            use(WaiverState.LAPSED, 1, date(2026, 11, 19)),
            "Waiver W-7 of team lapsed on 2026-11-19: 1 triple or cluster is open again.",
        ),
        (
            use(WaiverState.LAPSED, 1200, date(2026, 11, 19)),
            "Waiver W-7 of team lapsed on 2026-11-19: 1,200 triples or clusters are open again.",
        ),
        (
            use(WaiverState.LAPSES_SOON, 3),
            "Waiver W-7 of team lapses on 2026-11-26, in 6 days; it excuses 3 triples or clusters.",
        ),
        (
            use(WaiverState.LAPSES_SOON, 0, date(2026, 11, 21)),
            "Waiver W-7 of team lapses on 2026-11-21, tomorrow; it excuses nothing in this run.",
        ),
        (
            use(WaiverState.LAPSES_SOON, 1, date(2026, 11, 20)),
            "Waiver W-7 of team lapses on 2026-11-20, today; it excuses 1 triple or cluster.",
        ),
    ],
)
def test_what_is_to_be_decided_about_a_waiver(found: WaiverUse, notice: str) -> None:
    assert waiver_notice(found, NOON) == notice


# --- laws ---------------------------------------------------------------------------------------

RULE_IDS = st.sampled_from(list(RULES))
WAIVERS = st.builds(
    waiver,
    st.sampled_from(["A", "B", "C", "D"]),
    rules=st.lists(RULE_IDS, max_size=3).map(tuple),
    kinds=st.lists(st.sampled_from(FailureKind), max_size=8).map(tuple),
    cluster=st.sampled_from(["*", "orders", "users"]),
    checkpoints=st.lists(st.integers(0, 3).map(id_of), max_size=2).map(tuple),
    expires_on=st.sampled_from([date(2026, 11, 19), date(2026, 11, 20), date(2027, 1, 1)]),
)
POLICIES = st.builds(
    lambda waivers, retention, fails: Policy(
        text="",
        rules={rule_id: RuleTerms(Severity.LOW, fails=rule_id in fails) for rule_id in RULES},
        thresholds=Thresholds(retention=retention),
        waivers=tuple(waivers),
    ),
    st.lists(WAIVERS, max_size=4, unique_by=lambda one: one.id),
    st.sampled_from([None, DAY, 7 * DAY]),
    st.sets(RULE_IDS),
)
OUTCOMES = st.lists(
    st.builds(
        outcome,
        st.sampled_from(Verdict),
        st.sampled_from(FailureKind),
        number=st.integers(0, 3),
        made=st.sampled_from([NOON, NOON - 5 * DAY]),
    ),
    max_size=5,
)
FINDINGS = st.lists(st.builds(finding, RULE_IDS, st.none() | st.integers(0, 3)), max_size=5)
JUDGEMENTS = st.builds(lambda outcomes, found: judgement(outcomes, *found), OUTCOMES, FINDINGS)


@settings(max_examples=300, deadline=None)
@given(JUDGEMENTS, POLICIES)
def test_an_excuse_changes_nothing_but_itself(found: Judgement, terms: Policy) -> None:
    """No verdict, no row more or less; and of a finding only that it is waived, or why not."""
    after = excused(found, terms, NOON)

    assert [msgspec.structs.replace(one, excused_by=None) for one in after.outcomes] == list(
        found.outcomes
    )
    assert after.cluster == found.cluster
    for was, now in zip(found.findings, after.findings, strict=True):
        assert now.message.startswith(was.message)
        assert now.message == was.message or now.waiver_id is None
        bare = msgspec.structs.replace(
            now, waiver_id=None, waiver_expires_at=None, message=was.message
        )
        assert bare == was


@settings(max_examples=300, deadline=None)
@given(JUDGEMENTS, POLICIES)
def test_nothing_transient_is_ever_excused(found: Judgement, terms: Policy) -> None:
    for one in excused(found, terms, NOON).outcomes:
        if one.verdict is Verdict.INCONCLUSIVE and one.failure_kind not in EXCUSABLE_KINDS:
            assert one.excused_by is None
        if one.verdict is Verdict.PASS:
            assert one.excused_by is None


@settings(max_examples=300, deadline=None)
@given(JUDGEMENTS, POLICIES)
def test_only_waivers_in_force_excuse_and_every_use_is_counted(
    found: Judgement, terms: Policy
) -> None:
    after = excused(found, terms, NOON)
    lapsed = {one.id for one in terms.waivers if one.expires_on < NOON.date()}
    named = [
        *(i for one in after.outcomes if one.excused_by for i in one.excused_by.split(", ")),
        *(
            one.waiver_id
            for one in after.findings
            if one.waiver_id and one.checkpoint_id is None and terms.rules[one.rule_id].fails
        ),
    ]
    counted = {name: n for name, n in after.waived.items() if name not in lapsed}

    assert not lapsed & set(named)
    assert counted == {name: named.count(name) for name in set(named) - {"retention"}}


def test_what_is_judged_is_excused_too() -> None:
    ref = CheckpointRef(G, "orders", id_of(1))
    broken = Checkpoint(
        started=NOON, completed=NOON, timestamp=NOON, restorable=False, parts=(Part(),)
    )
    terms = read_policy(
        """
        [[waivers]]
        id = "W-7"
        reason = "r"
        owner = "o"
        approver = "a"
        expires = 2026-11-20
        rules = ["restorable-false", "token-not-discovered", "no-restorable-checkpoint"]
        """
    )
    found = judge([Answer(ref, 2, "{}", broken, 1, "get", microseconds(NOON))], terms, NOON)

    assert found.outcomes[0].verdict is Verdict.FAIL
    assert found.outcomes[0].excused_by == "W-7"
    assert {one.waiver_id for one in found.findings if terms.rules[one.rule_id].fails} == {"W-7"}
    assert found.waived == {"W-7": 2}
