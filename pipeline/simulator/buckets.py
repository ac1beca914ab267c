"""Token buckets as the server keeps them: one for each project, one token for each request.

Atlas documents the set "Legacy Backup" with a scope of one project, a capacity of 1200 and a refill
of 500 every 60 s. Its words say that the refill comes in whole steps; some recorded waits of zero
seconds fit only a continuous one. Nobody outside knows, so both shapes are here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Shape = Literal["stepped", "continuous"]
Form = Literal["RATE_LIMITED_TOKEN_BUCKET", "RATE_LIMITED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketRules:
    """How buckets behave.

    `refill_rate` tokens come every `refill_duration` seconds, up to `capacity`. `headers` says
    whether answers carry RateLimit-Limit and RateLimit-Remaining. `drain` is what other clients
    take, in tokens a second. `form` is the error code of a refusal. `overrides` are the rules of
    single projects by group id, taken whole.

    Raises ValueError where a bucket could never hold a token.
    """

    capacity: int = 1200
    refill_rate: int = 500
    refill_duration: float = 60.0
    shape: Shape = "stepped"
    headers: bool = True
    drain: float = 0.0
    form: Form = "RATE_LIMITED_TOKEN_BUCKET"
    overrides: Mapping[str, BucketRules] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the numbers."""
        if min(self.capacity, self.refill_rate) < 1 or self.refill_duration <= 0 or self.drain < 0:
            raise ValueError(
                "capacity, refill_rate and refill_duration are above zero, drain is not below"
            )

    @property
    def duration(self) -> int | float:
        """The refill duration as Atlas writes it: a whole number where it is one."""
        return int(self.refill_duration) if self.refill_duration % 1 == 0 else self.refill_duration

    def of(self, group_id: str) -> BucketRules:
        """Return the rules for one project."""
        return self.overrides.get(group_id, self)


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of asking for a token; `retry_after` is in whole seconds."""

    allowed: bool
    remaining: int
    retry_after: int
    rules: BucketRules


class Bucket:
    """One bucket, full at first."""

    def __init__(self, rules: BucketRules, now: float) -> None:
        self._rules = rules
        self._tokens = float(rules.capacity)
        self._since = now
        self._steps = 0
        self._seen = now

    def take(self, now: float) -> Taken:
        """Take a token if there is one."""
        self._advance(now)
        allowed = self._tokens >= 1
        if allowed:
            self._tokens -= 1
        wait = 0 if allowed else self._wait(now)
        return Taken(allowed, int(self._tokens), wait, self._rules)

    def _advance(self, now: float) -> None:
        """Let others spend up to now, then add what has been refilled since the last look."""
        spent = self._rules.drain * (now - self._seen)
        left = max(0.0, self._tokens - spent)
        self._tokens = min(float(self._rules.capacity), left + self._refilled(now))
        self._seen = now

    def _refilled(self, now: float) -> float:
        rules = self._rules
        if rules.shape == "continuous":
            return rules.refill_rate * (now - self._seen) / rules.refill_duration
        steps = int((now - self._since) // rules.refill_duration)
        new, self._steps = steps - self._steps, steps
        return float(new * rules.refill_rate)

    def _wait(self, now: float) -> int:
        """Return the advice: rounded up for steps, cut off for a stream, where 0 is often left."""
        rules = self._rules
        if rules.shape == "continuous":
            return int((1 - self._tokens) * rules.refill_duration / rules.refill_rate)
        until = self._since + (self._steps + 1) * rules.refill_duration - now
        return math.ceil(until)


class Buckets:
    """The buckets of one endpoint set, by scope: a group id, or a user."""

    def __init__(self, rules: BucketRules, clock: Callable[[], float]) -> None:
        self.rules = rules
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}

    def take(self, scope: str) -> Taken:
        """Take a token from the scope's bucket, which is filled when first asked for."""
        now = self._clock()
        bucket = self._buckets.get(scope)
        if bucket is None:
            bucket = self._buckets[scope] = Bucket(self.rules.of(scope), now)
        return bucket.take(now)


def refusal_parameters(path: str, taken: Taken) -> list[object]:
    """Return the `parameters` of a refusal, in the order that its form prescribes."""
    rules = taken.rules
    if rules.form == "RATE_LIMITED":
        return [path, rules.refill_rate, max(1, round(rules.refill_duration / 60))]
    return [path, taken.retry_after, rules.capacity, rules.refill_rate, rules.duration]
