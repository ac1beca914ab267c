"""One token bucket as seen from outside: how much of it is ours, how much is there, how it refills.

Atlas counts requests in token buckets: every request takes a token, `refill_rate` tokens come back
every `refill_duration` seconds, up to `capacity`. The set "Legacy Backup" has one bucket a project,
documented as 1200, 500 and 60 s; limits change without notice, can differ by customer, and other
programs spend from the same bucket. So the documented numbers are only where a bucket starts: the
resource that tells the limits, the headers of every answer and the words of a refusal correct it.

Pure: no clock, no event loop. All times are seconds on the caller's clock; a clock that steps back
is taken as standing still.
"""

import math

import msgspec

from pipeline.atlas import Limits
from pipeline.outcomes import Refusal
from pipeline.refill import DOCUMENTED, NO_WAIT, SHORTEST_HOLD, Refill, is_sane_limit

#: Atlas's advice for refusals in a row: wait much longer each time, with jitter. Seconds.
_REPEAT_WAITS = (10.0, 20.0, 40.0)

#: Jitter adds up to a tenth, and no more than this: a step that is over is lost time. Seconds.
_LONGEST_JITTER = 1.0

#: For so long an answer that is to tell how many tokens there are is waited for alone. Seconds.
ALONE_S = 1.5

#: The least that is believed of an assumed refill when refusals show that others spend it.
_LEAST_PACE = 1 / 16

#: So much longer than a token takes is waited before one request asks if there is one. Seconds.
_LONGEST_DOUBT = 4.0

#: What is taken at a time from a bucket that is full though it should not be: most stays in it.
_OVERFLOW = 1 / 8

_NEVER = float("-inf")


class Sent(msgspec.Struct, frozen=True):
    """A request as its bucket saw it leave: when, the how-manyth, and beside how many others."""

    at: float
    nth: int
    beside: int


class Rest:
    """Tells whether tokens have come back between two moments when nothing else was in flight.

    From one such moment to the next every answered request took a token, and others can only have
    taken more. If even the lowest sample shows more than is left then, there has been a refill.
    """

    def __init__(self) -> None:
        self._expected = self._lowest = math.inf

    def forget(self) -> None:
        """Begin anew: a step, or a refusal, has come between."""
        self._expected = self._lowest = math.inf

    def sample(self, remaining: int, in_flight: int) -> bool:
        """Note one answer's sample; tells whether tokens have come back since the last rest."""
        self._expected -= 1
        self._lowest = min(self._lowest, remaining)
        if in_flight:
            return False
        has_gained = self._lowest >= self._expected + 2  # one may be rounding
        self._expected, self._lowest = self._lowest, math.inf
        return has_gained


class TokenBucket:
    """What is known of one bucket, and how much of it is ours to spend.

    Three levels are kept. `own` is our share: it starts at `share` of the capacity and grows with
    `share` of the refill, whatever the server says. `known` is what the headers have shown to be
    there, less what was sent since, without any refill; None where answers have no such headers.
    `level` is the same with the refill that is assumed: a guess.

    A request needs a token of `own`. What is `known` is sent freely. Beyond that one request goes
    alone as soon as there should be a token, and the headers of its answer tell how many there
    really are: so a bucket that is drained, smaller or shared costs one refusal, not one a slot;
    and while the request is on its way nothing is lost, since tokens gather in the bucket. The
    first request to a bucket is such a one, and the first after a hold or a step. Where the
    headers do not tell, the guess is taken for true.
    """

    def __init__(self, now: float, *, share: float = 0.9) -> None:
        self.capacity = DOCUMENTED.capacity
        self.refill = Refill(now)
        self.share = share
        self.own = max(1.0, self.capacity * share)
        self.level = self.capacity
        self.known: float | None = 0.0
        self.held_until = _NEVER
        self._assumed = self.capacity
        self._largest = self.capacity
        self._pace = 1.0
        self._misled_at = _NEVER
        self._repeats = 0
        self._rest = Rest()
        self._clock, self._ahead = now, 0.0
        self._sent = self._sampled = 0
        self._sent_at = _NEVER

    @property
    def is_probing(self) -> bool:
        """Whether the last words were refusals: then there is one request at a time."""
        return self._repeats > 1

    def wait(self, now: float, in_flight: int = 0) -> float:
        """Seconds until the next request may be sent beside `in_flight` others; 0.0 means now."""
        now = self._advance(now)
        own = self.refill.wait(1.0 - self.own, self.share)
        wait = max(self.held_until - now, own, self._wait_for_level(now))
        if in_flight and self._is_guessing():
            wait = max(wait, self._sent_at + ALONE_S - now)
        return wait if wait > NO_WAIT else 0.0

    def take(self, now: float, in_flight: int = 0) -> Sent:
        """Spend one token; only after `wait` said 0.0."""
        now = self._advance(now)
        if in_flight and self._is_guessing():
            self.known = None  # the answer that should have told is late: the guess must do
        self.own -= 1.0
        self.level -= 1.0
        self._assumed -= 1.0
        self.known = None if self.known is None else self.known - 1.0
        self._recover(now)
        self._sent += 1
        self._sent_at = now
        return Sent(now, self._sent, in_flight)

    def answered(
        self, now: float, sent: Sent, limit: int | None, remaining: int | None, in_flight: int
    ) -> None:
        """Learn from an answer's headers; `in_flight` counts the project's other requests."""
        now = self._advance(now)
        if sent.at >= self.held_until:
            self._repeats = 0
        if limit is not None and self._learn_capacity(float(limit)):
            self.refill.scale(self.capacity)
        if remaining is not None and remaining <= self.capacity and limit != 0:
            self._learn_level(sent, remaining, in_flight)
        elif sent.nth > self._sampled:
            self._count_down(sent)

    def refused(self, now: float, sent: Sent, refusal: Refusal, jitter: float) -> None:
        """Hold the bucket as a 429 asks, longer each time it happens in a row.

        Requests sent before an earlier refusal arrived say nothing new. `jitter` is in [0, 1).
        """
        now = self._advance(now)
        self._learn(refusal)
        self._sampled = max(self._sampled, sent.nth)
        self.level = self.known = 0.0
        self._rest.forget()
        wait = refusal.retry_after or 0.0
        self._reshape(self.refill.see_wait(wait))
        if self.refill.step_at is not None:
            self._pace = 1.0  # a step is there or not
        hold = max(SHORTEST_HOLD, wait)
        if sent.at >= self.held_until:
            if self._repeats:
                hold = max(hold, _REPEAT_WAITS[min(self._repeats, len(_REPEAT_WAITS)) - 1])
            if wait < 1.0 and self.refill.step_at is None:
                self._slow_down(now)
            self._repeats += 1
        held = hold + jitter * min(hold / 10, _LONGEST_JITTER)
        self.held_until = max(self.held_until, now + held)

    def learn_limits(self, now: float, limits: Limits) -> None:
        """Take over what the resource for limits tells, where it makes sense."""
        self._advance(now)
        self._learn(Refusal(None, limits.capacity, limits.refill_rate, limits.refill_duration))

    def _advance(self, clock: float) -> float:
        """Move on to what the caller's clock shows; gives the time in here: it never steps back."""
        if clock == self._clock:  # one moment is looked at several times over
            return clock + self._ahead
        self._ahead += max(0.0, self._clock - clock)
        self._clock = clock
        now, stepped_at = clock + self._ahead, self.refill.stepped_at
        gained = self.refill.advance(now)
        if self.refill.stepped_at != stepped_at:
            self._rest.forget()
        self.own = min(self._most(), self.own + gained * self.share)
        self.level = min(self.capacity, self.level + gained * self._pace)
        self._assumed = min(self.capacity, self._assumed + gained)
        return now

    def _wait_for_level(self, now: float) -> float:
        """Guesses that were refused make the next ones wait longer, within bounds.

        One is not longer than the bucket takes to fill: what comes back after that is lost.
        """
        wait = self.refill.wait(1.0 - self.level, self._pace)
        if self._is_guessing() and self.refill.step_at is None:
            token, full = 1.0 / self.refill.per_second, self.capacity / self.refill.per_second
            wait = min(wait, self._sent_at + min(token + _LONGEST_DOUBT, full) - now)
        return wait

    def _slow_down(self, now: float) -> None:
        """Refused without advice, the guess was too high: the second time others must spend here.

        Once in the time of a refill may be rounding.
        """
        if now - self._misled_at < self.refill.duration:
            self._pace = max(_LEAST_PACE, self._pace / 2)
        self._misled_at = now

    def _recover(self, now: float) -> None:
        """Believe in the assumed refill again, twice as much with every refill that goes by."""
        refills = min(4.0, (now - self._sent_at) / self.refill.duration)
        self._pace = min(1.0, self._pace * 2.0**refills)

    def _is_guessing(self) -> bool:
        return self.known is not None and self.known < 1.0

    def _most(self) -> float:
        return max(1.0, self.capacity * self.share)

    def _learn_level(self, sent: Sent, remaining: int, in_flight: int) -> None:
        if self._rest.sample(remaining, in_flight) and self.refill.is_between_steps():
            self._reshape(self.refill.flow())
        if remaining >= self.capacity - 1:
            self._take_overflow()
        if sent.nth <= self._sampled:
            return  # answers overtake each other: the one that was sent last knows best
        self._sampled = sent.nth
        if sent.at < self.refill.stepped_at:
            return  # a step has come since; the level holds, and the next answer will tell
        in_order = float(remaining - (self._sent - sent.nth))
        at_least = in_order - sent.beside
        known = in_order if self.known is None else max(at_least, min(self.known, in_order))
        self.level = self.known = known

    def _count_down(self, sent: Sent) -> None:
        """Without headers the first fill is counted down; what comes after it can only be guessed.

        So where that ends one request goes alone, as it does where headers show an empty bucket.
        """
        self.known = None if sent.nth > self.capacity else self.capacity - self._sent

    def _take_overflow(self) -> None:
        """A full bucket spills what comes back: some of what is in it will be missed by nobody.

        Only where nobody told the refill, and where the one that is assumed (and one step more)
        could not have filled the bucket: then it is faster than that, and this follows it.
        """
        most = self._assumed + self.refill.rate
        if not self.refill.is_told and most < self.capacity - 1:
            self.own = max(self.own, self._most() * _OVERFLOW)

    def _reshape(self, twice: float) -> None:
        self.own -= twice * self.share

    def _learn(self, refusal: Refusal) -> None:
        self.refill.learn(refusal.refill_rate, refusal.refill_duration)
        if refusal.capacity is not None:
            self._learn_capacity(refusal.capacity)

    def _learn_capacity(self, capacity: float) -> bool:
        """Take over a capacity. One larger than any before was there, full, from the start."""
        if not is_sane_limit(capacity):
            return False
        new = max(0.0, capacity - self._largest)
        self.capacity, self._largest = capacity, max(capacity, self._largest)
        self.own = min(self._most(), self.own + new * self.share)
        self.level = min(capacity, self.level + new)
        self._assumed = min(capacity, self._assumed + new)
        return True
