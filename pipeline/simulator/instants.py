"""Times as Atlas writes them: ISO 8601 in UTC, whole seconds, a Z."""

from __future__ import annotations

import calendar
import time

FORM = "%Y-%m-%dT%H:%M:%SZ"


def text_of(seconds: int) -> str:
    """Write Unix seconds the way Atlas does."""
    return time.strftime(FORM, time.gmtime(seconds))


def seconds_of(text: str) -> int:
    """Read what `text_of` wrote, as Unix seconds."""
    return calendar.timegm(time.strptime(text, FORM))
