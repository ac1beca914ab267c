"""Option values as text."""

from datetime import timedelta

import pytest

from pipeline.errors import ConfigurationWrong
from pipeline.options import read_duration


@pytest.mark.parametrize(
    ("text", "hours"), [("90m", 1.5), ("36h", 36), ("7d", 168), ("2w", 336), ("0h", 0)]
)
def test_durations(text: str, hours: float) -> None:
    assert read_duration("--x", text) == timedelta(hours=hours)


def test_no_duration_is_none() -> None:
    assert read_duration("--x", "") is None


@pytest.mark.parametrize("text", ["7", "d", "-1d", "1.5h", "7 d", "1y", "٣h", "9999999d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigurationWrong, match="--newer-than") as caught:
        read_duration("--newer-than", text)

    assert "36h" in caught.value.hint


@pytest.mark.parametrize("text", ["999999d", "999999w", "36501d"])
def test_a_duration_from_before_there_was_atlas(text: str) -> None:
    """None that a calendar could not take away from today."""
    with pytest.raises(ConfigurationWrong, match="longer than there has been Atlas") as caught:
        read_duration("--newer-than", text)

    assert caught.value.hint
