"""Option values as text."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.errors import ConfigurationWrong
from pipeline.options import (
    read_deadline,
    read_duration,
    read_folder,
    read_input_age,
    read_output_dir,
)


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


NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", None),
        ("90s", datetime(2026, 11, 20, 12, 1, 30, tzinfo=UTC)),
        ("90m", datetime(2026, 11, 20, 13, 30, tzinfo=UTC)),
        ("13:00Z", datetime(2026, 11, 20, 13, tzinfo=UTC)),
        ("12:00Z", datetime(2026, 11, 21, 12, tzinfo=UTC)),
        ("06:30+02:00", datetime(2026, 11, 21, 4, 30, tzinfo=UTC)),
        ("12:30-05:00", datetime(2026, 11, 20, 17, 30, tzinfo=UTC)),
        ("14:00+Europe/Berlin", datetime(2026, 11, 20, 13, tzinfo=UTC)),
        ("11:30-00:45", datetime(2026, 11, 20, 12, 15, tzinfo=UTC)),
    ],
)
def test_a_deadline(text: str, wanted: datetime | None) -> None:
    assert read_deadline(text, NOON) == wanted


def test_a_deadline_over_the_change_of_the_clocks() -> None:
    """Half past six is half past six, also on the night that is an hour longer."""
    evening = datetime(2026, 10, 24, 20, tzinfo=UTC)
    assert read_deadline("06:30+Europe/Berlin", evening) == datetime(
        2026, 10, 25, 5, 30, tzinfo=UTC
    )


@pytest.mark.parametrize(
    "text",
    [
        "06:30",
        "24:00Z",
        "6:30Z",
        "06:60Z",
        "06:30+25:00",
        "06:30+Nowhere/Atall",
        "06:30+../etc",
        "x",
    ],
)
def test_a_deadline_that_is_none(text: str) -> None:
    with pytest.raises(ConfigurationWrong, match="--deadline"):
        read_deadline(text, NOON)


@pytest.mark.parametrize(
    "text", ["06:30", "6:30", "6:30Z", "06:30+0200", "06:30UTC", "06:30z", "24:00Z", "06:30+25:00"]
)
def test_a_time_of_day_that_is_none_is_no_failed_duration(text: str) -> None:
    with pytest.raises(ConfigurationWrong, match="is not a time of day") as caught:
        read_deadline(text, NOON)

    assert "06:30+Europe/Berlin" in caught.value.hint


def test_standard_input_has_no_age() -> None:
    assert read_input_age("36h", "triples.csv") == timedelta(hours=36)
    with pytest.raises(ConfigurationWrong, match="no age"):
        read_input_age("36h", "-")


@pytest.mark.parametrize("text", ["gs://b/x", "S3://b/x", "s3:/b/x", "file:///srv/x"])
def test_an_address_of_another_kind_is_no_folder(text: str) -> None:
    """A folder called gs: would be written night by night, and nobody looks there."""
    with pytest.raises(ConfigurationWrong, match="of a kind that is not known"):
        read_output_dir(text)


@pytest.mark.parametrize("text", ["s3://b/x", "gs://b/x", "file:///srv/x"])
def test_an_address_is_no_folder_of_this_machine(text: str) -> None:
    with pytest.raises(ConfigurationWrong, match="a folder of this machine is wanted"):
        read_folder(text)


@pytest.mark.parametrize("text", ["outputs", "./gs:/x", "/srv/a:b/c", "C:/x"])
def test_a_folder_is_one(text: str) -> None:
    assert read_output_dir(text) == read_folder(text) == Path(text)
