"""How tokens come back to a bucket: how many, how often, and whether in whole steps.

Whether a refill comes in whole steps or bit by bit is not documented clearly. It is taken to come
bit by bit until a refusal asks for a wait that only a step explains; then the steps are counted on.

Pure, as `buckets` is. Times are seconds on a clock that never steps back.
"""

import math

from pipeline.atlas import Limits

#: The documented bucket of the set "Legacy Backup" (scope: project).
DOCUMENTED = Limits(1200.0, 500.0, 60.0)

#: A limit outside of this is nonsense and is not learnt.
_SANE_LIMIT = (1.0, 1e6)
_SANE_DURATION = (0.1, 86_400.0)

#: A refill slower than that is nonsense too: one token in so many seconds.
_LONGEST_FOR_A_TOKEN = 60.0

#: No header makes a refill seem slower than that, in tokens a second: it tells the capacity only,
#: and one that is nonsense must not stall a project. Refusals tell what is slower.
_SLOWEST_BY_HEADER = 1.0

#: The least that a refusal holds a bucket. Seconds: Atlas has been seen to advise 0.
SHORTEST_HOLD = 0.5

#: A wait is a whole number of seconds, rounded up: two waits that differ by less mean one step.
_SAME_STEP = 2.0

#: Shorter waits, and smaller shares of a token, are rounding, and could be too short for a clock.
NO_WAIT = 1e-6

_NEVER = float("-inf")


class Refill:
    """How tokens come back: how many, how often, and whether in whole steps.

    `step_at` is when the next step comes, None while the refill is taken as continuous. `is_told`:
    Atlas itself has told the numbers, by the resource or in a refusal.
    """

    def __init__(self, now: float) -> None:
        self.rate, self.duration = DOCUMENTED.refill_rate, DOCUMENTED.refill_duration
        self.is_told = False
        self.step_at: float | None = None
        self.stepped_at = _NEVER
        self._at = self._begun = now

    @property
    def per_second(self) -> float:
        """Tokens a second, on the average."""
        return self.rate / self.duration

    def advance(self, now: float) -> float:
        """Move on to `now`; gives the tokens that have come back since."""
        elapsed, self._at = now - self._at, now
        if self.step_at is None:
            return elapsed * self.per_second
        if now < self.step_at:
            return 0.0
        steps = 1 + math.floor((now - self.step_at) / self.duration)
        self.step_at += steps * self.duration
        self.stepped_at = self.step_at - self.duration
        return steps * self.rate

    def wait(self, tokens: float, part: float = 1.0) -> float:
        """Seconds until `part` of what comes back makes so many tokens."""
        if tokens <= NO_WAIT:
            return 0.0
        if self.step_at is None:
            return tokens / (self.per_second * part)
        steps = math.ceil(tokens / (self.rate * part) - NO_WAIT)
        return self.step_at - self._at + (steps - 1) * self.duration

    def learn(self, rate: float | None, duration: float | None) -> None:
        """Take over what Atlas tells, unless it is nonsense."""
        if rate is not None and duration is not None and _is_sane_refill(rate, duration):
            self.rate, self.duration, self.is_told = rate, duration, True

    def scale(self, capacity: float) -> None:
        """Assume the documented proportion to a capacity that came without a refill."""
        if not self.is_told:
            assumed = DOCUMENTED.refill_rate * capacity / DOCUMENTED.capacity
            self.rate = max(assumed, _SLOWEST_BY_HEADER * self.duration)

    def see_wait(self, wait: float) -> float:
        """Judge the shape by what a refusal asks to wait; gives the tokens counted twice by that.

        Only a step explains a wait that is much longer than a token takes, and no longer than a
        whole refill. It is counted on from there only if Atlas has told how often it comes.
        """
        at = self._at + max(wait, SHORTEST_HOLD)
        token = max(1.0, 1.0 / self.per_second)
        is_long = 2 * token < wait <= self.duration + 1.0
        if (is_long and self.is_told) or (wait > 0 and self._is_near_step(at)):
            return self._change(at)
        return self.flow() if not is_long else 0.0

    def flow(self) -> float:
        """Take the refill as continuous; gives tokens as `see_wait` does, below zero here."""
        return self._change(None)

    def _change(self, step_at: float | None) -> float:
        """Tokens count as given up to now, or to the last step: what overlaps is given twice."""
        before = self._counted_to()
        self.step_at = step_at
        overlap = min(before - self._counted_to(), self._at - self._begun)
        return overlap * self.per_second

    def _counted_to(self) -> float:
        return self._at if self.step_at is None else self.step_at - self.duration

    def _is_near_step(self, at: float) -> bool:
        if self.step_at is None:
            return False
        return min(abs(at - self.step_at), abs(at - self.step_at + self.duration)) <= _SAME_STEP

    def is_between_steps(self) -> bool:
        """Whether the refill comes in steps, and none is near."""
        return self.step_at is not None and not self._is_near_step(self._at)


def is_sane(limits: Limits) -> bool:
    """Whether a project's limits may be meant at all: the same for all who are told them."""
    return is_sane_limit(limits.capacity) and _is_sane_refill(
        limits.refill_rate, limits.refill_duration
    )


def is_sane_limit(value: float) -> bool:
    """Whether so many requests may be a limit at all."""
    return _SANE_LIMIT[0] <= value <= _SANE_LIMIT[1]


def _is_sane_refill(rate: float, duration: float) -> bool:
    is_sane_duration = _SANE_DURATION[0] <= duration <= _SANE_DURATION[1]
    return is_sane_limit(rate) and is_sane_duration and duration / rate <= _LONGEST_FOR_A_TOKEN
