"""Durations as people write them, in both directions."""

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.durations import as_duration, duration_of, in_units


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0s", timedelta(0)),
        ("60s", timedelta(minutes=1)),
        ("90m", timedelta(hours=1.5)),
        ("36h", timedelta(hours=36)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(days=14)),
        ("36500d", timedelta(days=36_500)),
    ],
)
def test_what_is_a_duration(text: str, duration: timedelta) -> None:
    assert duration_of(text) == duration


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5h", "7 d", "1y", "٣h", "9999999d"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration_of(text)


def test_one_that_is_too_long() -> None:
    with pytest.raises(ValueError, match="longer than there has been Atlas"):
        duration_of("36501d")


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=61), "61s"),
        (timedelta(seconds=60), "1m"),
        (timedelta(hours=36), "36h"),
        (timedelta(weeks=2), "14d"),
    ],
)
def test_writing_takes_the_largest_unit_that_loses_nothing(duration: timedelta, text: str) -> None:
    assert as_duration(duration) == text


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(microseconds=1), "0.000001s"),
        (timedelta(seconds=59.5), "59.5s"),
        (timedelta(seconds=60), "1m"),
        (timedelta(seconds=61), "1m 1s"),
        (timedelta(hours=24), "1d"),
        (
            timedelta(days=4, hours=11, minutes=53, seconds=30, microseconds=919236),
            "4d 11h 53m 30.919236s",
        ),
        (timedelta(days=400, seconds=1), "400d 1s"),
        (timedelta(seconds=-90), "-1m 30s"),
    ],
)
def test_a_duration_in_all_its_units(duration: timedelta, text: str) -> None:
    assert in_units(duration) == text


@given(st.timedeltas(timedelta(0), timedelta(days=9999)))
def test_no_moment_of_a_duration_is_lost(duration: timedelta) -> None:
    seconds = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    total = sum(Decimal(part[:-1]) * seconds[part[-1]] for part in in_units(duration).split())

    assert total == Decimal(duration // timedelta(microseconds=1)) / 1_000_000


@given(st.integers(0, 999_999).map(lambda seconds: timedelta(seconds=seconds)))
def test_what_is_written_is_read_again(duration: timedelta) -> None:
    assert duration_of(as_duration(duration)) == duration
