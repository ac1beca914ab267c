"""From measured numbers to what is printed: medians, spread, paired ratios, Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


class BenchmarkFailed(Exception):
    """Something that was to be measured did not do its work: there are no figures then."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of a number that was measured repeatedly, with the lowest and the highest."""

    median: float
    low: float
    high: float

    def text(self, digits: int) -> str:
        """Give it as `0.65 (0.63–0.67)`, or the number alone where there is but one."""
        low, middle, high = (f"{v:,.{digits}f}" for v in (self.low, self.median, self.high))
        return middle if self.low == self.high else f"{middle} ({low}–{high})"


def spread(values: Sequence[float]) -> Spread:
    """Sum up repeated measurements; there is at least one."""
    return Spread(median(values), min(values), max(values))


def paired_ratios(mine: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Divide round by round: what was measured one after the other had the same machine."""
    return [one / other for one, other in zip(mine, theirs, strict=True)]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Give a table in Markdown: names to the left, numbers to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report: Markdown to read, and the figures it was made of."""

    title: str
    text: str
    raw: list[dict[str, object]]
