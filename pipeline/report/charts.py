"""The charts of the page as rectangles: geometry only, in the units of an SVG's own box."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from math import ceil

import msgspec

from pipeline.outcomes import Verdict
from pipeline.report.summary import Counts
from pipeline.report.timeline import Bin, Timeline

#: A segment of a bar is at least this wide, in per cent: one of a million must be seen.
_LEAST_WIDTH = 1.5

#: What there is of a kind is at least this high, in per cent, for the same reason.
_LEAST_HEIGHT = 2.0

#: The part of its stretch that a bar of a timeline takes up.
_BAR_WIDTH = 0.8

#: What came back → the tone in which it is drawn, from the ground up.
_TONES = {"good": "pass", "refused": "inconclusive", "failed": "fail"}


def spans(counts: Counts) -> list[tuple[str, float, float]]:
    """Give the segments of a bar of verdicts: name, start and width, in per cent of the bar."""
    known = {verdict.lower(): getattr(counts, f"{verdict.lower()}_count") for verdict in Verdict}
    total = counts.triple_count or 1
    widths = {name: max(100 * c / total, _LEAST_WIDTH) for name, c in known.items() if c}
    scale, start, segments = 100 / (sum(widths.values()) or 1), 0.0, []
    for name, width in widths.items():
        segments.append((name, round(start, 2), round(width * scale, 2)))
        start += width * scale
    return segments


class Rect(msgspec.Struct, frozen=True):
    """A rectangle; x and width in stretches of the timeline, y and height in per cent."""

    tone: str
    x: float
    y: float
    width: float
    height: float


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """A timeline to be drawn, told in words, and as rows of a table.

    `most` is how many answers the highest bar stands for; `quota` is empty where no answer told of
    any.
    """

    width: int
    most: int
    answers: tuple[Rect, ...]
    quota: tuple[Rect, ...]
    label: str
    quota_label: str
    key: tuple[tuple[str, str], ...]
    rows: tuple[tuple[datetime, Bin], ...]


def chart(timeline: Timeline) -> Chart:
    """Draw a timeline."""
    bins = timeline.bins
    most = max(stretch.count for stretch in bins)
    counts = {kind: sum(getattr(stretch, kind) for stretch in bins) for kind in _TONES}
    said = tuple((tone, f"{counts[kind]:,} {kind}") for kind, tone in _TONES.items())
    shares = [stretch.lowest_share for stretch in bins if stretch.lowest_share is not None]
    starts = (timeline.started_at + timedelta(seconds=timeline.bin_s * i) for i in range(len(bins)))
    return Chart(
        width=len(bins),
        most=most,
        answers=tuple(rect for i, stretch in enumerate(bins) for rect in _stack(i, stretch, most)),
        quota=tuple(
            _quota(i, stretch) for i, stretch in enumerate(bins) if stretch.lowest_share is not None
        ),
        label=f"Answers by when they came: {', '.join(words for _, words in said)}",
        quota_label=f"The least that was left of a project’s quota: {portion(min(shares))}"
        if shares
        else "",
        key=said,
        rows=tuple(zip(starts, bins, strict=True)),
    )


def portion(share: float) -> str:
    """Write a share from 0 to 1 in whole per cent; what is more than nothing is not 0."""
    return f"{ceil(100 * share)} %"


def _stack(index: int, stretch: Bin, most: int) -> Iterator[Rect]:
    """Stack the kinds of one stretch; all of them together are no higher than the box."""
    counts = {tone: getattr(stretch, kind) for kind, tone in _TONES.items()}
    heights = {tone: max(100 * c / most, _LEAST_HEIGHT) for tone, c in counts.items() if c}
    scale = min(1.0, 100 / (sum(heights.values()) or 1))
    ground = 100.0
    for tone, height in heights.items():
        ground -= height * scale
        yield _rect(tone, index, max(ground, 0.0), height * scale)


def _quota(index: int, stretch: Bin) -> Rect:
    """Draw what was left; that it was nothing is drawn too, for it is not the same as not told."""
    height = max(100 * (stretch.lowest_share or 0.0), 2 * _LEAST_HEIGHT)
    return _rect("left" if stretch.lowest_share else "inconclusive", index, 100 - height, height)


def _rect(tone: str, index: int, y: float, height: float) -> Rect:
    left = index + (1 - _BAR_WIDTH) / 2
    return Rect(tone, round(left, 2), round(y, 2), _BAR_WIDTH, round(height, 2))
