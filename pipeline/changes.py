"""What changed between two runs of one audit, told apart by who changed it.

Pure: both runs' triples in the order of their keys in, side by side; counts and the first few rows
of each kind out. Nothing is kept of a triple that is as it was.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from enum import StrEnum
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from pipeline.outcomes import Verdict

#: Rows of each kind that a run's summary shows, and the lines of `diff` unless told otherwise.
SHOWN_CHANGES = 50

#: What a stream is sorted by: project, cluster, and for a triple its checkpoint.
Key = tuple[str, ...]


class ChangeKind(StrEnum):
    """How a triple, or a cluster, stands to what it was in the run before; worst first.

    Failing is FAIL or ABSENT, whether or not something excuses it.
    """

    BECAME_UNRESTORABLE = "became_unrestorable"
    NEW = "new"
    STILL_FAILING = "still_failing"
    NEWLY_INCONCLUSIVE = "newly_inconclusive"
    RECOVERED = "recovered"
    DETERMINED = "determined"
    GONE = "gone"


class Cause(StrEnum):
    """Who made a triple's verdict another one: Atlas's answers, or the rules and the policy."""

    ATLAS = "atlas"
    RULES = "rules"


class Standing(NamedTuple):
    """How a triple ended in one run."""

    verdict: Verdict
    excused_by: str | None = None

    @property
    def is_failing(self) -> bool:
        """Whether it cannot be restored."""
        return self.verdict in FAILING

    @property
    def is_open(self) -> bool:
        """Whether it fails and nothing excuses that: what makes a run end with 1 or 4."""
        return self.is_failing and self.excused_by is None


class Change(msgspec.Struct, frozen=True):
    """One triple that is not as it was, or still failing.

    `before` and `after` are None where the triple was not part of that run; `since` is the audit
    date of the first of the consecutive runs in which it fails, or failed, ISO 8601.
    `excused_before` and `excused_by` name what excused it then and excuses it now. `rejudged` is
    what today's rules and policy make of the older run's answer, where that is not `before`.
    """

    kind: ChangeKind
    group_id: str
    cluster_name: str
    checkpoint_id: str
    before: Verdict | None
    after: Verdict | None
    cause: Cause = Cause.ATLAS
    since: str | None = None
    excused_before: str | None = None
    excused_by: str | None = None
    rejudged: Verdict | None = None

    @property
    def is_newly_open(self) -> bool:
        """Whether it is open and was not: it passed, was unknown, excused, or not there."""
        return _is_open(self.after, self.excused_by) and not _is_open(
            self.before, self.excused_before
        )


class ClusterChange(msgspec.Struct, frozen=True):
    """One cluster that is new, gone, or has another verdict, or still fails."""

    kind: ChangeKind
    group_id: str
    cluster_name: str
    before: Verdict | None
    after: Verdict | None


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What changed since an earlier run; `shown` are the first few of each kind, worst first.

    `rules_changed` says that rules or policy differ between the two: the older evidence was then
    judged by the newer ones (`is_rejudged`), or could not be, as `note` says.

    Every triple of either run is in `counts` or `unchanged`, once. Of `counts`, `open_counts` are
    open now and `by_rules` were caused by the rules. `newly_open` are triples, and
    `newly_open_findings` findings on clusters, that are open and were not.
    """

    since_run_id: str
    since_audit_date: str
    counts: dict[ChangeKind, int]
    by_rules: dict[ChangeKind, int]
    shown: tuple[Change, ...]
    left_out: int
    rules_changed: bool = False
    is_rejudged: bool = False
    note: str = ""
    unchanged: int = 0
    open_counts: dict[ChangeKind, int] = {}
    newly_open: int = 0
    newly_open_findings: int = 0
    cluster_counts: dict[ChangeKind, int] = {}
    clusters_unchanged: int = 0
    clusters_shown: tuple[ClusterChange, ...] = ()
    clusters_left_out: int = 0

    @property
    def has_newly_open(self) -> bool:
        """Whether something is open that was not."""
        return bool(self.newly_open or self.newly_open_findings)


FAILING = frozenset({Verdict.FAIL, Verdict.ABSENT})


def _is_open(verdict: Verdict | None, excused_by: str | None) -> bool:
    return verdict is not None and Standing(verdict, excused_by).is_open


def kind_of(before: Verdict | None, after: Verdict | None) -> ChangeKind | None:
    """Say what came of a verdict; None is "not part of that run", and the answer None "as it was".

    Every pair is in the table of docs/changes.md.
    """
    if before is None or after is None:
        return _came_or_went(before, after)
    if after in FAILING:
        is_still = before in FAILING
        return ChangeKind.STILL_FAILING if is_still else ChangeKind.BECAME_UNRESTORABLE
    if before is after:
        return None
    if after is Verdict.INCONCLUSIVE:
        return ChangeKind.NEWLY_INCONCLUSIVE
    return ChangeKind.RECOVERED if before in FAILING else ChangeKind.DETERMINED


def _came_or_went(before: Verdict | None, after: Verdict | None) -> ChangeKind | None:
    if before is None and after is None:
        return None
    return ChangeKind.NEW if before is None else ChangeKind.GONE


#: Kinds that say a verdict turned into another one.
TURNS = frozenset(
    {
        ChangeKind.BECAME_UNRESTORABLE,
        ChangeKind.NEWLY_INCONCLUSIVE,
        ChangeKind.RECOVERED,
        ChangeKind.DETERMINED,
    }
)


def cause_of(before: Verdict | None, rejudged: Verdict | None, after: Verdict | None) -> Cause:
    """Say who made `after` of `before`; `rejudged`: the older answer judged by today's rules.

    The rules did where they alone turn the verdict: today's judge the older answer otherwise, and
    from there to `after` nothing turned. `rejudged` is None where that is not known.
    """
    if rejudged is None or rejudged is before or kind_of(before, after) not in TURNS:
        return Cause.ATLAS
    return Cause.ATLAS if kind_of(rejudged, after) in TURNS else Cause.RULES


def side_by_side(*streams: Iterable[tuple[Key, Any]]) -> Iterator[tuple[Key, list[Any]]]:
    """Merge streams of (key, value), each sorted by key, into one of (key, value in each stream).

    A value is None where a stream does not have the key. Of each stream one item is held.
    """
    tagged = [_tagged(index, stream) for index, stream in enumerate(streams)]
    for key, found in groupby(merge(*tagged), key=itemgetter(0)):
        values: list[Any] = [None] * len(streams)
        for _, index, value in found:
            values[index] = value
        yield key, values


def _tagged(index: int, stream: Iterable[tuple[Key, Any]]) -> Iterator[tuple[Key, int, Any]]:
    """Name the stream of each item; the merge then never compares two values."""
    return ((key, index, value) for key, value in stream)


# --- counting -----------------------------------------------------------------------------------


class _FirstFew:
    """Keeps the first few of each kind, and of these the worst; all where `most` is 0."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[tuple[ChangeKind, int], list[Any]] = defaultdict(list)
        self._count = 0

    def add(self, kind: ChangeKind, rank: int, change: Any) -> None:
        """Keep one if there is room; those of a lower rank come first."""
        self._count += 1
        kept = self._kept[kind, rank]
        if not self._most or len(kept) < self._most:
            kept.append(change)

    def shown(self) -> tuple[Any, ...]:
        return tuple(change for kind in ChangeKind for change in self._of(kind))

    def _of(self, kind: ChangeKind) -> Sequence[Any]:
        ranks = sorted(rank for of, rank in self._kept if of is kind)
        found = [change for rank in ranks for change in self._kept[kind, rank]]
        return found[: self._most] if self._most else found

    def left_out(self, shown: int) -> int:
        return self._count - shown


#: The order within a kind: a verdict now, or of what is gone the verdict it had.
_RANKS = (Verdict.FAIL, Verdict.ABSENT, Verdict.INCONCLUSIVE, Verdict.PASS)


class ChangeCount:
    """Counts triples, clusters and findings on clusters that are given side by side."""

    def __init__(self, most: int = SHOWN_CHANGES) -> None:
        """`most`: rows of each kind that are kept; 0 keeps all."""
        self._counts: Counter[ChangeKind] = Counter()
        self._by_rules: Counter[ChangeKind] = Counter()
        self._open: Counter[ChangeKind] = Counter()
        self._clusters: Counter[ChangeKind] = Counter()
        self._rows, self._cluster_rows = _FirstFew(most), _FirstFew(most)
        self._unchanged = self._clusters_unchanged = 0
        self._newly_open = self._newly_open_findings = 0

    def add(
        self,
        key: Key,
        before: Standing | None,
        after: Standing | None,
        rejudged: Verdict | None = None,
        since: date | None = None,
    ) -> None:
        """Count a triple that is in either run; `since`: the night since which it fails or did."""
        was, now = before and before.verdict, after and after.verdict
        kind = kind_of(was, now)
        if kind is None:
            self._unchanged += 1
            return
        group_id, cluster_name, checkpoint_id = key
        change = Change(
            kind,
            group_id,
            cluster_name,
            checkpoint_id,
            was,
            now,
            cause_of(was, rejudged, now),
            since.isoformat() if since else None,
            before and before.excused_by,
            after and after.excused_by,
            None if rejudged is was else rejudged,
        )
        self._count(change)

    def _count(self, change: Change) -> None:
        kind = change.kind
        self._counts[kind] += 1
        self._by_rules[kind] += change.cause is Cause.RULES
        self._open[kind] += _is_open(change.after, change.excused_by)
        self._newly_open += change.is_newly_open
        rank = _rank(change.before, change.after) + (not change.is_newly_open) * len(_RANKS)
        self._rows.add(kind, rank, change)

    def add_cluster(self, key: Key, before: Verdict | None, after: Verdict | None) -> None:
        """Count a cluster that is in either run."""
        kind = kind_of(before, after)
        if kind is None:
            self._clusters_unchanged += 1
            return
        self._clusters[kind] += 1
        group_id, cluster_name = key
        change = ClusterChange(kind, group_id, cluster_name, before, after)
        self._cluster_rows.add(kind, _rank(before, after), change)

    def add_findings(self, before: frozenset[str], after: frozenset[str]) -> None:
        """Count the open findings on one cluster; both are ids of rules."""
        self._newly_open_findings += len(after - before)

    def changes(
        self,
        run_id: str,
        audit_date: str,
        *,
        rules_changed: bool = False,
        is_rejudged: bool = False,
        note: str = "",
    ) -> Changes:
        """Sum up, as what changed since the run `run_id`."""
        shown, clusters = self._rows.shown(), self._cluster_rows.shown()
        return Changes(
            since_run_id=run_id,
            since_audit_date=audit_date,
            counts=_by_kind(self._counts),
            by_rules=_by_kind(self._by_rules),
            shown=shown,
            left_out=self._rows.left_out(len(shown)),
            rules_changed=rules_changed,
            is_rejudged=is_rejudged,
            note=note,
            unchanged=self._unchanged,
            open_counts=_by_kind(self._open),
            newly_open=self._newly_open,
            newly_open_findings=self._newly_open_findings,
            cluster_counts=_by_kind(self._clusters),
            clusters_unchanged=self._clusters_unchanged,
            clusters_shown=clusters,
            clusters_left_out=self._cluster_rows.left_out(len(clusters)),
        )


def _by_kind(counted: Counter[ChangeKind]) -> dict[ChangeKind, int]:
    """Name every kind, so that readers need not know which were found."""
    return {kind: counted[kind] for kind in ChangeKind}


def _rank(before: Verdict | None, after: Verdict | None) -> int:
    verdict = before if after is None else after
    return _RANKS.index(verdict) if verdict is not None else len(_RANKS)
