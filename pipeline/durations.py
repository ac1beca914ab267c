"""Durations as people write them: a whole number and s, m, h, d or w."""

import re
from datetime import timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

#: Far more than Atlas's age, and far less than what calendars can take away from today.
_LONGEST = timedelta(days=36_500)


def duration_of(text: str) -> timedelta:
    """Read a duration such as 90m, 36h, 7d or 2w.

    Raises `ValueError` that says what is wrong, also with one that reaches back to before there was
    Atlas.
    """
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text, re.ASCII)
    if found is None:
        raise ValueError(f"{text!r} is not a duration")
    duration = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if duration > _LONGEST:
        raise ValueError(f"{text!r} is longer than there has been Atlas")
    return duration


def as_duration(duration: timedelta) -> str:
    """Write whole seconds as `duration_of` reads them, in the largest unit that loses nothing.

    Weeks are written as days, and nothing at all as 0s.
    """
    for unit in "dhm":
        one = timedelta(**{_UNITS[unit]: 1})
        if duration and not duration % one:
            return f"{duration // one}{unit}"
    return f"{duration // timedelta(seconds=1)}s"


def in_units(duration: timedelta) -> str:
    """Write a duration exactly, in all its units: 4d 11h 53m 30.5s."""
    if duration < timedelta(0):
        return f"-{in_units(-duration)}"
    minutes, seconds = divmod(duration, timedelta(minutes=1))
    counts = {"d": minutes // 1440, "h": minutes // 60 % 24, "m": minutes % 60}
    said = [f"{count}{unit}" for unit, count in counts.items() if count]
    if seconds or not said:
        said.append(f"{seconds.total_seconds():.6f}".rstrip("0").rstrip(".") + "s")
    return " ".join(said)
