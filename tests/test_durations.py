"""Durations as people write them, in both directions."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.durations import as_duration, duration_of


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


@given(st.integers(0, 999_999).map(lambda seconds: timedelta(seconds=seconds)))
def test_what_is_written_is_read_again(duration: timedelta) -> None:
    assert duration_of(as_duration(duration)) == duration
