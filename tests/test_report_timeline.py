"""The timeline: every reply of a run in one stretch of it, bounded whatever the run."""

import json
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outcomes import FailureKind, microseconds
from pipeline.report.timeline import MOST_BINS, Bin, Replies, Timeline

START = datetime(2026, 11, 20, 3, tzinfo=UTC)


class Reply(NamedTuple):
    received_at: int
    failure_kind: str | None
    headers: str


def reply(after: float, kind: str | None = None, **headers: str) -> Reply:
    """A reply so many seconds after the start."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(microseconds(START + timedelta(seconds=after)), kind, json.dumps(named))


def quota(limit: str, left: str) -> Reply:
    return reply(0, ratelimit_limit=limit, ratelimit_remaining=left)


def timeline(duration: float, *replies: Reply) -> Timeline:
    seen = Replies(START, START + timedelta(seconds=duration))
    seen.add(replies)
    return seen.timeline()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (None, Bin(good=1)),
        (FailureKind.CHECKPOINT_ABSENT, Bin(good=1)),
        (FailureKind.BACKUPS_ABSENT, Bin(good=1)),
        (FailureKind.THROTTLED, Bin(refused=1)),
        (FailureKind.UNREACHABLE, Bin(failed=1)),
        (FailureKind.PROJECT_REFUSED, Bin(failed=1)),
        ("a kind of a later version", Bin(failed=1)),
    ],
)
def test_what_a_reply_counts_as(kind: str | None, expected: Bin) -> None:
    assert timeline(0, reply(0, kind)).bins == (expected,)


def test_replies_come_in_any_order_and_land_in_their_stretch() -> None:
    drawn = timeline(599, reply(599), reply(0), reply(9.9), reply(10, FailureKind.THROTTLED))

    assert drawn.bin_s == 10
    assert len(drawn.bins) == 60
    assert drawn.bins[:2] == (Bin(good=2), Bin(refused=1))
    assert drawn.bins[-1] == Bin(good=1)
    assert drawn.outside_count == 0


def test_replies_of_another_time_are_counted_apart() -> None:
    """A run that completes another holds its replies; a clock may have been set back."""
    drawn = timeline(10, reply(-0.001), reply(10), reply(10.001))

    assert drawn.outside_count == 2
    assert sum(stretch.count for stretch in drawn.bins) == 1


@pytest.mark.parametrize(
    ("duration", "width"),
    [
        (0, 0.1),
        (5.9, 0.1),
        (6, 0.2),
        (59.9, 1),
        (3_599, 60),
        (86_399, 1_800),
        (60 * 43_200, 86_400),
        (200 * 86_400, 4 * 86_400),
    ],
)
def test_stretches_are_as_short_as_their_number_allows(duration: float, width: float) -> None:
    drawn = timeline(duration)

    assert drawn.bin_s == width
    assert 1 <= len(drawn.bins) <= MOST_BINS


@pytest.mark.parametrize(
    ("replies", "share"),
    [
        ([quota("1200", "300")], 0.25),
        ([quota("1200", "300"), quota("1200", "0"), quota("1200", "900")], 0.0),
        ([quota("500", "500")], 1.0),
        ([quota("500", "900")], 1.0),
        ([quota("0", "0")], None),
        ([quota("-1", "5")], None),
        ([quota("1200", "")], None),
        ([quota("9" * 400, "9" * 400)], None),
        ([quota("twelve", "٣")], None),
        ([reply(0, ratelimit_remaining="5")], None),
        ([reply(0, date="now")], None),
    ],
)
def test_the_least_share_left_is_what_headers_tell(
    replies: list[Reply], share: float | None
) -> None:
    assert timeline(0, *replies).bins[0].lowest_share == share


@given(
    duration=st.floats(0, 1e8),
    replies=st.lists(
        st.tuples(st.floats(-10, 1e8), st.sampled_from([None, *FailureKind])), max_size=30
    ),
)
def test_every_reply_is_counted_once_in_a_bounded_number_of_stretches(
    duration: float, replies: list[tuple[float, str | None]]
) -> None:
    drawn = timeline(duration, *(reply(after, kind) for after, kind in replies))

    assert len(drawn.bins) <= MOST_BINS
    assert sum(stretch.count for stretch in drawn.bins) + drawn.outside_count == len(replies)
