"""The timeline of a run: what came back in each stretch of it, and how much quota was left.

Every reply of a run passes by, in any order, so one costs little and what is kept is bounded.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Protocol

import msgspec

from pipeline.atlas import read_count
from pipeline.outcomes import ABSENT_KINDS, FailureKind, microseconds

#: Stretches of a timeline, at most: bars that a phone can still show.
MOST_BINS = 60

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0

#: How long a stretch may be, in seconds; from a day on, whole days.
_WIDTHS = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(minutes * _MINUTE for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * _HOUR for hours in (1, 2, 3, 6, 12)),
)


class Kind(StrEnum):
    """What a reply was to the run."""

    GOOD = "good"
    REFUSED = "refused"
    FAILED = "failed"


#: What a reply was read as → its kind; whatever is not here failed. That a checkpoint is absent is
#: an answer as good as any.
_KINDS: dict[str | None, Kind] = {
    None: Kind.GOOD,
    **dict.fromkeys(ABSENT_KINDS, Kind.GOOD),
    FailureKind.THROTTLED: Kind.REFUSED,
}


class Bin(msgspec.Struct, frozen=True):
    """What came back in one stretch of the run.

    `good`: an answer that settles something; `refused`: by a rate limit; `failed`: everything else,
    silence too. `lowest_share` is the least that any answer said to be left of its token bucket,
    from 0 to 1 (`RateLimit-Remaining` of `RateLimit-Limit`); None where none said it.
    """

    good: int = 0
    refused: int = 0
    failed: int = 0
    lowest_share: float | None = None

    @property
    def count(self) -> int:
        """All that came back."""
        return self.good + self.refused + self.failed


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """A run in stretches of `bin_s` seconds, from `started_at` on.

    `outside_count` are replies from before or after: those of the run that this one completes, or
    of a clock that was set.
    """

    started_at: datetime
    bin_s: float
    bins: tuple[Bin, ...]
    outside_count: int = 0


class Received(Protocol):
    """What is asked of a reply: its time in microseconds, what it was read as, its headers as JSON.

    As `journal.StoredReply` has them.
    """

    @property
    def received_at(self) -> int:
        """Microseconds since 1970, UTC."""

    @property
    def failure_kind(self) -> str | None:
        """What it was read as when it arrived; None: a good answer."""

    @property
    def headers(self) -> str:
        """The kept headers: JSON text, names in lower case."""


class _Quota(msgspec.Struct, rename={"limit": "ratelimit-limit", "left": "ratelimit-remaining"}):
    """The two headers of a stored reply that tell of its token bucket."""

    limit: str = ""
    left: str = ""


_QUOTA = msgspec.json.Decoder(_Quota)

#: The same few numbers come again and again.
_count = lru_cache(maxsize=4096)(read_count)


class Replies:
    """Counts the replies of a run by the time they came."""

    def __init__(self, started_at: datetime, finished_at: datetime) -> None:
        """Both aware; the run is whole between them."""
        duration = (finished_at - started_at).total_seconds()
        self._started_at = started_at
        self._width = _width(duration)
        self._micros = self._width * 1_000_000
        self._first = microseconds(started_at)
        self._last = microseconds(finished_at)
        self._counts: Counter[tuple[int, Kind]] = Counter()
        self._shares: dict[int, float] = {}
        self._outside = 0

    def add(self, replies: Iterable[Received]) -> None:
        """Count some replies."""
        for reply in replies:
            if self._first <= reply.received_at <= self._last:
                self._add(reply)
            else:
                self._outside += 1

    def _add(self, reply: Received) -> None:
        index = int((reply.received_at - self._first) / self._micros)
        self._counts[index, _KINDS.get(reply.failure_kind, Kind.FAILED)] += 1
        share = _share(reply.headers)
        if share is not None and share < self._shares.get(index, 2.0):
            self._shares[index] = share

    def timeline(self) -> Timeline:
        """Sum up; the last stretch is the one in which the last reply can have come."""
        last = int((self._last - self._first) / self._micros)
        return Timeline(
            started_at=self._started_at,
            bin_s=self._width,
            bins=tuple(map(self._bin, range(last + 1))),
            outside_count=self._outside,
        )

    def _bin(self, index: int) -> Bin:
        good, refused, failed = (self._counts[index, kind] for kind in Kind)
        return Bin(good, refused, failed, self._shares.get(index))


def _width(duration: float) -> float:
    """Give the shortest stretch of which no more than `MOST_BINS` hold all of the run."""
    fits = (width for width in _WIDTHS if duration < width * MOST_BINS)
    return next(fits, _DAY * (duration // (_DAY * MOST_BINS) + 1))


def _share(headers: str) -> float | None:
    """Give what is left of the bucket, from 0 to 1; None where it is not said, or is nonsense."""
    if '"ratelimit-remaining"' not in headers:
        return None
    quota = _QUOTA.decode(headers)
    limit, left = _count(quota.limit), _count(quota.left)
    return min(left / limit, 1.0) if limit and left is not None else None
