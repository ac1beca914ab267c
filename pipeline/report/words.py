"""Words and figures as the pages write them: counts, times, durations, shares, text as it is."""

import re
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def visible(value: Any) -> Any:
    """Show characters that hide or reorder text as escapes, as Python's `repr` does."""
    if isinstance(value, Markup | int | float):
        return value
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def code(text: str) -> Markup:
    """Put text into a code span of Markdown, which nothing in it can leave.

    A backtick becomes a quote: chat programs do not know longer fences.
    """
    inside = visible(text).replace("`", "'").replace("|", "¦") or " "
    return Markup(f"`{inside}`")  # noqa: S704


def n(count: int) -> str:
    """Write a count: 12,345."""
    return f"{count:,}"


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: 1 line, 2 lines."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def moment(at: datetime) -> str:
    """Write a time in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def age(seconds: float) -> str:
    """Write a duration as people say it, in its two largest units."""
    if seconds < 0:
        return "minus " + age(-seconds)
    if round(seconds, 1) < _MINUTE:
        return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
    whole = round(seconds)
    days, hours, minutes = whole // _DAY, whole % _DAY // _HOUR, whole % _HOUR // _MINUTE
    if days:
        return f"{days:,} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % _MINUTE} s"


def exact(seconds: float) -> str:
    """Write a duration in seconds, to the millisecond."""
    return f"{seconds:,.3f}".rstrip("0").rstrip(".") + " s"


def share(part: int, whole: int) -> str:
    """Write a share in per cent; only all is 100 and only none is 0."""
    if part in (0, whole):
        return "100 %" if part else "0 %"
    return f"{min(max(100 * part / whole, 0.1), 99.9):.1f} %"


def sentence(text: str) -> str:
    """Begin with a capital."""
    return text[:1].upper() + text[1:]


def ticks(text: str) -> Markup:
    """Set what stands between backticks as code."""
    escaped = str(escape(visible(text)))
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped))  # noqa: S704


def clock(at: datetime, step: float) -> str:
    """Write when a stretch of `step` seconds begins: to its own precision, with the date."""
    digits = "%Y-%m-%d %H:%M" if step >= _MINUTE else "%H:%M:%S"
    tenths = f".{at.microsecond // 100_000}" if step < 1 else ""
    return f"{at.astimezone(UTC):{digits}}{tenths}"
