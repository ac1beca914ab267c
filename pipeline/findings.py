"""Judging: one cluster's answers and a policy → verdicts, findings, and what excuses them."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from pipeline.excuses import excused
from pipeline.judgements import Cluster, Finding, Judgement, Outcome
from pipeline.outcomes import Answer, Failure, Verdict
from pipeline.policy import Policy
from pipeline.rules import CHECKPOINT_RULES, CLUSTER_RULES
from pipeline.rules.listed import Listed
from pipeline.rules.recovery import rpo_status
from pipeline.rules.rule import Case, Objection, Rule
from pipeline.rules.standing import Standing, standing
from pipeline.rules.times import clock_in_future

#: A cluster's verdict is the worst among its checkpoints'.
_WORST_FIRST = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ABSENT, Verdict.PASS)

#: What each rule objects to, by its id.
_Found = list[tuple[str, Objection]]


def judge(answers: Sequence[Answer], policy: Policy, as_of: datetime) -> Judgement:
    """Judge all answers of one cluster; there is at least one.

    `as_of`, an aware time, is when the run began: by it waivers lapse. Ages are counted back from
    the replies' own times.
    """
    ref = answers[0].ref
    listed = Listed(answers, policy.thresholds_of(ref.group_id, ref.cluster_name))
    found = sorted(_apply(CHECKPOINT_RULES, listed, policy), key=_place)
    failing = {one.place for rule_id, one in found if policy.rules[rule_id].fails}
    outcomes = [
        _outcome(answer, has_failed=place in failing) for place, answer in enumerate(answers)
    ]
    untimed = {one.place for one in clock_in_future.judge(listed)}  # whatever the policy asks
    case = standing(listed, [outcome.verdict for outcome in outcomes], untimed)
    against_cluster = _apply(CLUSTER_RULES, case, policy)
    has_failed = any(policy.rules[rule_id].fails for rule_id, _ in against_cluster)
    findings = [_finding(answers, *one, policy) for one in (*found, *against_cluster)]
    judgement = Judgement(
        _cluster(answers[0], case, has_failed=has_failed),
        tuple(outcomes),
        tuple(findings),
        rpo_status(case),
        policy.owner_of(ref.group_id, ref.cluster_name, _labels(answers[0])),
    )
    return excused(judgement, policy, as_of)


def _apply(rules: Iterable[Rule[Case]], case: Case, policy: Policy) -> _Found:
    """Give what the rules object to; those that the policy has switched off are not asked."""
    asked = [rule for rule in rules if policy.rules[rule.rule_id].enabled]
    return [(rule.rule_id, objection) for rule in asked for objection in rule.judge(case)]


def _place(found: tuple[str, Objection]) -> int:
    """Give the place of an objection to a checkpoint; the first for one to none."""
    return found[1].place or 0


def _labels(answer: Answer) -> dict[str, str]:
    return msgspec.json.decode(answer.labels, type=dict[str, str])


def _outcome(answer: Answer, *, has_failed: bool) -> Outcome:
    ref, found = answer.ref, answer.found
    failure = found if isinstance(found, Failure) else None
    verdict = Verdict.FAIL if has_failed else Verdict.PASS
    return Outcome(
        ref.group_id,
        ref.cluster_name,
        ref.checkpoint_id,
        failure.verdict if failure else verdict,
        None,
        failure.kind if failure else None,
        failure.http_status if failure else 200,
        failure.error_code if failure else None,
        failure.detail if failure else None,
        answer.attempts,
        answer.fetched_by,
        answer.input_line,
        answer.labels,
        answer.fetched_at,
        answer.reply_id,
        answer.reply_sha256,
    )


def _finding(
    answers: Sequence[Answer], rule_id: str, objection: Objection, policy: Policy
) -> Finding:
    terms = policy.rules[rule_id]
    place = objection.place
    ref = answers[place or 0].ref
    return Finding(
        ref.group_id,
        ref.cluster_name,
        None if place is None else ref.checkpoint_id,
        scope="cluster" if place is None else "checkpoint",
        rule_id=rule_id,
        severity=terms.severity,
        message=objection.message,
        observed=objection.observed,
        expected=objection.expected,
        controls="; ".join(terms.controls),
    )


def _cluster(first: Answer, case: Standing, *, has_failed: bool) -> Cluster:
    verdicts, points, limit = case.verdicts, case.points, case.thresholds.rpo_age
    worst = next(verdict for verdict in _WORST_FIRST if verdicts[verdict])
    age, largest_gap = case.age, case.largest_gap
    return Cluster(
        first.ref.group_id,
        first.ref.cluster_name,
        verdict=Verdict.FAIL if has_failed else worst,
        triple_count=verdicts.total(),
        pass_count=verdicts[Verdict.PASS],
        fail_count=verdicts[Verdict.FAIL],
        absent_count=verdicts[Verdict.ABSENT],
        inconclusive_count=verdicts[Verdict.INCONCLUSIVE],
        newest_restorable_at=points[-1] if points else None,
        rpo_age_s=None if age is None else age.total_seconds(),
        rpo_limit_s=None if limit is None else limit.total_seconds(),
        oldest_restorable_at=points[0] if points else None,
        largest_gap_s=None if largest_gap is None else largest_gap.total_seconds(),
    )
