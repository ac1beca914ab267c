"""Judging: one cluster's answers and a policy → verdicts, findings, and what excuses them."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TypeVar

from pipeline.checkpoints import Checkpoint
from pipeline.excuses import excused
from pipeline.judgements import Cluster, Finding, Judgement, Outcome
from pipeline.outcomes import Answer, Failure, Verdict, moment
from pipeline.policy import Policy
from pipeline.rules import CHECKPOINT_RULES, CLUSTER_RULES, Objection

Judged = TypeVar("Judged")

#: A cluster's verdict is the worst among its checkpoints'.
_WORST_FIRST = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ABSENT, Verdict.PASS)


def judge(answers: Sequence[Answer], policy: Policy, as_of: datetime) -> Judgement:
    """Judge all answers of one cluster; there is at least one.

    `as_of`, an aware time, is when the run began: by it waivers lapse. Ages are counted back from
    the replies' own times.
    """
    objections = [_object_to_checkpoint(answer) for answer in answers]
    outcomes = [_outcome(*pair) for pair in zip(answers, objections, strict=True)]
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    findings = [
        _finding(answer, answer.ref.checkpoint_id, rule_id, objection, policy)
        for answer, found in zip(answers, objections, strict=True)
        for rule_id, objection in found.items()
    ]
    against_cluster = _apply(CLUSTER_RULES, verdicts)
    findings += [
        _finding(answers[0], None, rule_id, objection, policy)
        for rule_id, objection in against_cluster.items()
    ]
    cluster = _cluster(answers, outcomes, verdicts, has_failed=bool(against_cluster))
    return excused(Judgement(cluster, tuple(outcomes), tuple(findings)), policy, as_of)


def _object_to_checkpoint(answer: Answer) -> dict[str, Objection]:
    if isinstance(answer.found, Failure):
        return {}
    return _apply(CHECKPOINT_RULES, answer.found)


def _apply(
    rules: dict[str, Callable[[Judged], Objection | None]], judged: Judged
) -> dict[str, Objection]:
    return {
        rule_id: objection
        for rule_id, rule in rules.items()
        if (objection := rule(judged)) is not None
    }


def _outcome(answer: Answer, objections: dict[str, Objection]) -> Outcome:
    ref, found = answer.ref, answer.found
    failure = found if isinstance(found, Failure) else None
    verdict = Verdict.FAIL if objections else Verdict.PASS
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
    answer: Answer, checkpoint_id: str | None, rule_id: str, objection: Objection, policy: Policy
) -> Finding:
    terms = policy.rules[rule_id]
    return Finding(
        answer.ref.group_id,
        answer.ref.cluster_name,
        checkpoint_id,
        scope="checkpoint" if checkpoint_id else "cluster",
        rule_id=rule_id,
        severity=terms.severity,
        message=objection.message,
        observed=objection.observed,
        expected=objection.expected,
        controls="; ".join(terms.controls),
    )


def _cluster(
    answers: Sequence[Answer],
    outcomes: Sequence[Outcome],
    verdicts: Counter[Verdict],
    *,
    has_failed: bool,
) -> Cluster:
    points = sorted(
        answer.found.timestamp
        for answer, outcome in zip(answers, outcomes, strict=True)
        if outcome.verdict is Verdict.PASS
        and isinstance(answer.found, Checkpoint)
        and answer.found.timestamp is not None
    )
    as_of = max((answer.fetched_at for answer in answers if answer.fetched_at), default=None)
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(points)]
    worst = next(verdict for verdict in _WORST_FIRST if verdicts[verdict])
    return Cluster(
        answers[0].ref.group_id,
        answers[0].ref.cluster_name,
        verdict=Verdict.FAIL if has_failed else worst,
        triple_count=len(answers),
        pass_count=verdicts[Verdict.PASS],
        fail_count=verdicts[Verdict.FAIL],
        absent_count=verdicts[Verdict.ABSENT],
        inconclusive_count=verdicts[Verdict.INCONCLUSIVE],
        newest_restorable_at=points[-1] if points else None,
        rpo_age_s=(moment(as_of) - points[-1]).total_seconds() if points and as_of else None,
        rpo_limit_s=None,
        oldest_restorable_at=points[0] if points else None,
        largest_gap_s=max(gaps, default=None),
    )
