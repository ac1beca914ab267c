"""Rules over a cluster: to which moments it can be restored, among those that were listed.

What is inconclusive may be restorable. So a rule is not judged where such a checkpoint could mend
what the rule objects to: it would be an objection to our ignorance. By its id it is known when an
inconclusive one was made, and that the moment it restores to is no later: `timestamp` was never
seen after `started`.
"""

from bisect import bisect_left
from datetime import datetime, timedelta

from pipeline.durations import in_units
from pipeline.judgements import RpoStatus
from pipeline.outcomes import Verdict
from pipeline.rules.rule import PAGE, Objection, Objections, rule
from pipeline.rules.standing import Standing

_POLICY = "the policy alone; the API states no such limit"
_MOMENT = f"{PAGE}: timestamp is the moment that a restore leads to"


@rule(
    "no-restorable-checkpoint",
    "none of the cluster's listed checkpoints is restorable",
    "restorable",
    source="what the other rules come to",
    scope="cluster",
)
def no_restorable_checkpoint(standing: Standing) -> Objections:
    """There is nothing to restore from. Not judged while one is inconclusive: it may be the one."""
    verdicts = standing.verdicts
    if not verdicts[Verdict.PASS] and not verdicts[Verdict.INCONCLUSIVE]:
        message = "none of the cluster's listed checkpoints is restorable"
        yield Objection(None, message, f"0 of {verdicts.total()} restorable", "at least 1")


@rule(
    "too-few-restorable",
    "fewer of the cluster's listed checkpoints are restorable than the policy wants",
    "restorable",
    thresholds=("min_restorable",),
    source=_POLICY,
    scope="cluster",
)
def too_few_restorable(standing: Standing) -> Objections:
    """Not judged while the inconclusive ones could make up for it; none at all is a rule's own."""
    passed, unknown = standing.verdicts[Verdict.PASS], standing.verdicts[Verdict.INCONCLUSIVE]
    wanted = standing.thresholds.min_restorable
    if passed and passed + unknown < wanted:
        yield Objection(
            None,
            "fewer of the cluster's listed checkpoints are restorable than wanted",
            f"{passed} of {standing.verdicts.total()} restorable",
            f"at least {wanted}",
        )


@rule(
    "rpo-age",
    "the newest restorable point among those listed is too old",
    "timestamp",
    "restorable",
    "id",
    thresholds=("rpo_age",),
    source=_MOMENT,
    scope="cluster",
)
def rpo_age(standing: Standing) -> Objections:
    """What has been written since that point would be lost.

    Not judged where a newer checkpoint is inconclusive and was made within the limit. An older one
    would not help, so its being inconclusive changes nothing. Checkpoints that pass and name no
    moment leave the cluster without a point that is known: that is objected to as well.
    """
    limit, age = standing.thresholds.rpo_age, standing.age
    if limit is None:
        return
    if age is not None and rpo_status(standing) is RpoStatus.EXCEEDED:
        message = "the newest restorable point among those listed is older than allowed"
        yield Objection(None, message, f"{in_units(age)} old", f"at most {in_units(limit)}")
    elif _passes_without_point(standing):
        message = "no restorable checkpoint among those listed says which moment it restores to"
        yield Objection(None, message, "no timestamp", f"one at most {in_units(limit)} old")


def rpo_status(standing: Standing) -> RpoStatus:
    """Tell how the newest restorable point stands to the policy's limit.

    Within the limit is known as soon as one point is: a newer one could only be better.
    """
    limit, age = standing.thresholds.rpo_age, standing.age
    if limit is None:
        return RpoStatus.NO_LIMIT
    if age is not None and age <= limit:
        return RpoStatus.WITHIN
    if _could_be_within(standing, limit):
        return RpoStatus.NOT_JUDGED
    return RpoStatus.NO_POINT if age is None else RpoStatus.EXCEEDED


def _could_be_within(standing: Standing, limit: timedelta) -> bool:
    """Whether an inconclusive checkpoint was made so late that it may keep the limit."""
    if standing.as_of is None:
        return True
    return bool(standing.unknown) and standing.as_of - standing.unknown[-1] <= limit


def _passes_without_point(standing: Standing) -> bool:
    passes = standing.verdicts[Verdict.PASS] > 0
    return passes and rpo_status(standing) is RpoStatus.NO_POINT


@rule(
    "rpo-gap",
    "two neighbouring restorable points lie too far apart",
    "timestamp",
    "restorable",
    "id",
    thresholds=("gap",),
    source=_MOMENT,
    scope="cluster",
)
def rpo_gap(standing: Standing) -> Objections:
    """Between the two there is no moment to restore to.

    A gap is not judged where an inconclusive checkpoint was made in it.
    """
    limit = standing.thresholds.gap
    if limit is None:
        return
    gaps = [
        (later - earlier, earlier, later)
        for earlier, later in standing.gaps
        if later - earlier > limit and not _is_made_between(standing.unknown, earlier, later)
    ]
    if gaps:
        longest, earlier, later = max(gaps)
        yield Objection(
            None,
            f"{len(gaps)} gaps between restorable points are longer than allowed, the longest "
            f"from {earlier.isoformat()} to {later.isoformat()}",
            in_units(longest),
            f"at most {in_units(limit)}",
        )


def _is_made_between(made: list[datetime], earlier: datetime, later: datetime) -> bool:
    """Whether one of the times, oldest first, lies between the two, or on one of them."""
    index = bisect_left(made, earlier)
    return index < len(made) and made[index] <= later


@rule(
    "retention-not-reached",
    "the oldest restorable point is too young for the retention",
    "timestamp",
    "restorable",
    "id",
    thresholds=("retention",),
    source=_POLICY,
    scope="cluster",
)
def retention_not_reached(standing: Standing) -> Objections:
    """The restorable points do not reach back as far as the policy wants them kept.

    Only where the list itself names checkpoints as old as that: a shorter list tells nothing about
    older ones. The oldest point may be younger than the window by the cluster's largest gap, for
    the one before it may have lain just outside. Not judged where an inconclusive checkpoint is
    older than the oldest point.
    """
    retention, as_of = standing.thresholds.retention, standing.as_of
    if retention is None or as_of is None or not standing.points:
        return
    start, oldest = as_of - retention, standing.points[0]
    if standing.oldest > start or (standing.unknown and standing.unknown[0] <= oldest):
        return
    if oldest - start > (standing.largest_gap or timedelta()):
        message = "the oldest restorable point among those listed is younger than the retention"
        yield Objection(None, message, oldest.isoformat(), f"about {start.isoformat()}")


RULES = (no_restorable_checkpoint, too_few_restorable, rpo_age, rpo_gap, retention_not_reached)
