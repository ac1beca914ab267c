"""Rules about times: of the run that made a checkpoint, and of its tokens.

Published samples complete in the second in which they started; their tokens are dated as they
completed, and their `timestamp` lies up to 65 seconds before the start.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from pipeline.checkpoints import Checkpoint
from pipeline.durations import in_units
from pipeline.outcomes import moment
from pipeline.rules.listed import CLOCK_TOLERANCE, Listed, token_dates
from pipeline.rules.rule import MANUAL, PAGE, Objection, Objections, rule

_SAMPLES = "the samples that MongoDB publishes"
_IN_TIME = "no time later than its own reply"
_RUN = f"{PAGE}: started and completed are when the balancer stopped and restarted"

#: What a run time is compared with: how many others at least, how many times their median, and how
#: long it may be in any case.
_UNUSUAL_AMONG = 5
_UNUSUAL_TIMES = 10
_UNUSUAL_BEYOND = timedelta(minutes=10)


@rule("completed-missing", "no time of its completion is reported", "completed", source=_RUN)
def completed_missing(listed: Listed) -> Objections:
    """The balancer was not restarted, as far as Atlas says: it is not finished."""
    for place, checkpoint in listed.checkpoints:
        if checkpoint.completed is None:
            message = "no time of its completion is reported that can be read"
            yield Objection(place, message, "completed: no time", "a time")


@rule(
    "completed-before-started",
    "it completed before it started",
    "started",
    "completed",
    source=_RUN,
)
def completed_before_started(listed: Listed) -> Objections:
    """Equal is normal, before is not."""
    for place, run_time in listed.run_times:
        if run_time < timedelta():
            seen = f"{in_units(-run_time)} before"
            yield Objection(place, "it completed before it started", seen, "not before")


@rule(
    "run-time-too-long",
    "it took longer than the policy allows",
    "started",
    "completed",
    thresholds=("run_time",),
    source=_RUN,
)
def run_time_too_long(listed: Listed) -> Objections:
    """As long as the balancer stands still, chunks do not move."""
    limit = listed.thresholds.run_time
    if limit is None:
        return
    for place, run_time in listed.run_times:
        if run_time > limit:
            message = "the time from its start to its completion is longer than allowed"
            yield Objection(place, message, in_units(run_time), f"at most {in_units(limit)}")


@rule(
    "run-time-unusual",
    "it took much longer than the cluster's others",
    "started",
    "completed",
    source=f"{_SAMPLES}: they complete in the second in which they start",
)
def run_time_unusual(listed: Listed) -> Objections:
    """More than ten times the median of at least five others, and more than ten minutes.

    A median of fewer says little, and ten times it is no slow growth. Where runs take no second, as
    in the published samples, any time is many times the median: up to ten minutes a balancer may be
    waiting for a chunk that moves.
    """
    if len(listed.run_times) <= _UNUSUAL_AMONG:
        return
    ordered = sorted(run_time for _, run_time in listed.run_times)
    # The lower median of the others, of any that is longer than it; no shorter one is unusual.
    median = ordered[(len(ordered) - 2) // 2]
    limit = max(_UNUSUAL_BEYOND, _UNUSUAL_TIMES * median)
    for place, run_time in listed.run_times:
        if run_time > limit:
            message = "it took much longer than the cluster's other checkpoints"
            seen = f"{in_units(run_time)}, their median is {in_units(median)}"
            yield Objection(place, message, seen, f"at most {in_units(limit)}")


@rule(
    "token-spread",
    "its tokens were written too far apart",
    "parts[].tokenTimestamp.date",
    thresholds=("token_spread",),
    source=f"{MANUAL}: a token is written to every shard while the balancer stands still",
)
def token_spread(listed: Listed) -> Objections:
    """The further apart the tokens, the less the shards are of one moment.

    From the first to the last of those that have a date.
    """
    limit = listed.thresholds.token_spread
    if limit is None:
        return
    for token in listed.tokens:
        spread = token.last - token.first
        if spread > limit:
            message = "the tokens of its parts lie further apart than allowed"
            yield Objection(token.place, message, in_units(spread), f"at most {in_units(limit)}")


@rule(
    "token-distance",
    "a token is dated far from the moment it restores to",
    "timestamp",
    "parts[].tokenTimestamp.date",
    thresholds=("token_distance",),
    source=f"{_SAMPLES}: timestamp is up to 65 seconds before the tokens",
)
def token_distance(listed: Listed) -> Objections:
    """A restore replays up to the tokens: far from `timestamp`, it leads to another moment."""
    limit = listed.thresholds.token_distance
    if limit is None:
        return
    for place, timestamp, first, last in listed.tokens:
        if timestamp is None:
            continue
        distance = max(timestamp - first, last - timestamp)
        if distance > limit:
            message = "a token is dated further from its timestamp than allowed"
            yield Objection(place, message, in_units(distance), f"at most {in_units(limit)}")


@rule(
    "clock-in-future",
    "a time in it was still to come when Atlas answered",
    "started",
    "completed",
    "timestamp",
    "parts[].tokenTimestamp.date",
    source="the time at which the reply had arrived, and five minutes between two clocks",
)
def clock_in_future(listed: Listed) -> Objections:
    """A clock was wrong, so nobody knows which moment it restores to.

    Later than its own reply by more than five minutes, which two clocks may be apart. Whatever the
    policy makes of it, and where this is switched off as well, its `timestamp` is no restorable
    point of the cluster.
    """
    replied = [answer.fetched_at for answer in listed.answers if answer.fetched_at is not None]
    if not replied or not _has_later(listed, moment(min(replied)) + CLOCK_TOLERANCE):
        return
    for place, checkpoint in listed.checkpoints:
        at = listed.replied_at(place)
        latest = max(_times(checkpoint), default=None)
        if at is not None and latest is not None and latest > at + CLOCK_TOLERANCE:
            message = "a time in it lies in the future"
            yield Objection(place, message, latest.isoformat(), _IN_TIME)


def _has_later(listed: Listed, limit: datetime) -> bool:
    """Whether any time of the cluster is later; as a rule none is, and this is quick to see."""
    found = [checkpoint for _, checkpoint in listed.checkpoints]
    latest = [
        max([one.last for one in listed.tokens], default=limit),
        max([one.started for one in found if one.started], default=limit),
        max([one.completed for one in found if one.completed], default=limit),
        max([one.timestamp for one in found if one.timestamp], default=limit),
    ]
    return max(latest) > limit


def _times(checkpoint: Checkpoint) -> Iterator[datetime]:
    stated = (checkpoint.started, checkpoint.completed, checkpoint.timestamp)
    yield from (one for one in stated if one is not None)
    yield from token_dates(checkpoint)


RULES = (
    completed_missing,
    completed_before_started,
    run_time_too_long,
    run_time_unusual,
    token_spread,
    token_distance,
    clock_in_future,
)
