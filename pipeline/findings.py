"""The rules: one cluster's answers and a policy → verdicts and findings.

A rule is a small pure function. One over a checkpoint takes it and gives what it objects to, or
None; one over a cluster takes all its answers with their verdicts. Every rule has an id, by which
the policy knows it, and names the attributes of the API that it reads.

What a checkpoint is good for (MongoDB's documentation of legacy backups): Atlas stops the balancer
of a sharded cluster and writes a token into the oplog of every shard and of the config servers; a
restore replays each oplog up to its token. A part without a token, or a shard set without its
config part, is no consistent cut.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import islice, pairwise
from typing import TypeVar

import msgspec

from pipeline.checkpoints import Checkpoint
from pipeline.outcomes import Answer, Failure, Verdict, moment
from pipeline.policy import Policy

Judged = TypeVar("Judged")

#: Changes with every change of judgement.
RULES_VERSION = "1"


class Finding(msgspec.Struct, frozen=True):
    """One objection of one rule; the fields are the columns of the table `findings`.

    `checkpoint_id` is None in a finding on a cluster.
    """

    group_id: str
    cluster_name: str
    checkpoint_id: str | None
    scope: str
    rule_id: str
    severity: str
    message: str
    observed: str
    expected: str
    controls: str
    waiver_id: str | None = None
    waiver_expires_at: datetime | None = None


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How one triple ended; the fields are the columns of the table `outcomes`."""

    group_id: str
    cluster_name: str
    checkpoint_id: str
    verdict: Verdict
    excused_by: str | None
    failure_kind: str | None
    http_status: int | None
    error_code: str | None
    error_detail: str | None
    attempts: int
    fetched_by: str
    input_line: int
    labels: str
    fetched_at: int | None
    reply_id: int | None
    reply_sha256: str | None


class Cluster(msgspec.Struct, frozen=True):
    """How one cluster stands; the fields are the columns of the table `clusters`.

    Restorable means PASS here: reported restorable, and no rule objects. Ages and gaps are in
    seconds; the age is counted back from the cluster's last reply.
    """

    group_id: str
    cluster_name: str
    verdict: Verdict
    triple_count: int
    pass_count: int
    fail_count: int
    absent_count: int
    inconclusive_count: int
    newest_restorable_at: datetime | None
    rpo_age_s: float | None
    rpo_limit_s: float | None
    oldest_restorable_at: datetime | None
    largest_gap_s: float | None


class Judgement(msgspec.Struct, frozen=True):
    """Everything the rules say about one cluster."""

    cluster: Cluster
    outcomes: tuple[Outcome, ...]
    findings: tuple[Finding, ...]


class Objection(msgspec.Struct, frozen=True):
    """What a rule objects to: a sentence, what it saw, what it wanted to see."""

    message: str
    observed: str
    expected: str


# --- rules over a checkpoint --------------------------------------------------------------------


def restorable_false(checkpoint: Checkpoint) -> Objection | None:
    """`restorable`: Atlas itself says that it cannot restore from this checkpoint."""
    if checkpoint.restorable is False:
        return Objection("Atlas reports it as not restorable", "restorable: false", "true")
    return None


def restorable_not_reported(checkpoint: Checkpoint) -> Objection | None:
    """`restorable`: Atlas does not say, so nobody can rely on it."""
    if checkpoint.restorable is None:
        message = "Atlas reports neither true nor false for restorable"
        return Objection(message, "restorable: neither true nor false", "true")
    return None


def token_not_discovered(checkpoint: Checkpoint) -> Objection | None:
    """`parts[].tokenDiscovered`: a part whose token was not seen cannot be replayed to it."""
    count = checkpoint.undiscovered_token_count
    if not count:
        return None
    silent = sum(part.token_discovered is None for part in checkpoint.parts)
    names = (
        part.shard_name or part.replica_set_name or f"part {index}"
        for index, part in enumerate(checkpoint.parts)
        if part.token_discovered is not True
    )
    return Objection(
        f"{count} of {len(checkpoint.parts)} parts lack a discovered token: {_listed(names)}",
        f"tokenDiscovered: {count - silent} false, {silent} not reported",
        "true in every part",
    )


def _listed(names: Iterable[str]) -> str:
    """The first few names; how many there are, and how long, is up to the answer."""
    names = iter(names)
    shown = [name[:_NAME_CHARS] for name in islice(names, _SHOWN_NAMES)]
    left_out = sum(1 for _ in names)
    return ", ".join(shown) + (f" and {left_out} more" if left_out else "")


_SHOWN_NAMES = 10
_NAME_CHARS = 100


def no_parts(checkpoint: Checkpoint) -> Objection | None:
    """`parts`: a checkpoint of nothing, or of the config servers alone."""
    config_parts = checkpoint.config_part_count
    if len(checkpoint.parts) > config_parts:
        return None
    wanted = "one for each shard and the config servers"
    if config_parts:
        return Objection("it has no part that holds data", f"{config_parts} config parts", wanted)
    return Objection("it has no parts that can be read", "0 parts", wanted)


def no_config_part(checkpoint: Checkpoint) -> Objection | None:
    """`parts[].typeName`: several shards without their config servers are no cluster."""
    shards = len(checkpoint.parts)
    if shards < 2 or checkpoint.config_part_count:  # noqa: PLR2004 - several means two
        return None
    return Objection(
        f"{shards} shards have no part of the config servers", "0 config parts", "1 config part"
    )


def completed_missing(checkpoint: Checkpoint) -> Objection | None:
    """`completed`: the balancer was not restarted, as far as Atlas says."""
    if checkpoint.completed is not None:
        return None
    message = "no time of its completion is reported that can be read"
    return Objection(message, "completed: no time", "a time")


def completed_before_started(checkpoint: Checkpoint) -> Objection | None:
    """`started`, `completed`: equal is normal, before is not."""
    started, completed = checkpoint.started, checkpoint.completed
    if started is None or completed is None or completed >= started:
        return None
    return Objection(
        "it completed before it started",
        f"completed {completed.isoformat()}",
        f"not before {started.isoformat()}",
    )


#: Rule id → rule. All of them lead to FAIL.
CHECKPOINT_RULES: dict[str, Callable[[Checkpoint], Objection | None]] = {
    "restorable-false": restorable_false,
    "restorable-not-reported": restorable_not_reported,
    "token-not-discovered": token_not_discovered,
    "no-parts": no_parts,
    "no-config-part": no_config_part,
    "completed-missing": completed_missing,
    "completed-before-started": completed_before_started,
}


# --- rules over a cluster -----------------------------------------------------------------------


def no_restorable_checkpoint(verdicts: Counter[Verdict]) -> Objection | None:
    """None of the listed checkpoints can be relied on: there is nothing to restore from.

    Not judged while one is inconclusive: it may be the one.
    """
    if verdicts[Verdict.PASS] or verdicts[Verdict.INCONCLUSIVE]:
        return None
    return Objection(
        "none of the cluster's listed checkpoints is restorable",
        f"0 of {verdicts.total()} restorable",
        "at least 1",
    )


#: Rule id → rule. All of them make the cluster fail.
CLUSTER_RULES: dict[str, Callable[[Counter[Verdict]], Objection | None]] = {
    "no-restorable-checkpoint": no_restorable_checkpoint,
}

RULE_IDS = (*CHECKPOINT_RULES, *CLUSTER_RULES)


# --- judging ------------------------------------------------------------------------------------

#: A cluster's verdict is the worst among its checkpoints'.
_WORST_FIRST = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ABSENT, Verdict.PASS)


def judge(answers: Sequence[Answer], policy: Policy) -> Judgement:
    """Judge all answers of one cluster; there is at least one."""
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
    return Judgement(cluster, tuple(outcomes), tuple(findings))


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
