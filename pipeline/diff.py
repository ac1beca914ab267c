"""Two published runs compared, for people and for programs."""

from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial

import msgspec

from pipeline.cells import on_one_line
from pipeline.changes import Cause, Change, ChangeKind, Changes, ClusterChange
from pipeline.comparison import compare, published_side
from pipeline.derive import rejudge
from pipeline.errors import InputUnusable
from pipeline.evidence import policy_of
from pipeline.judgements import Judgement
from pipeline.policy import Policy
from pipeline.published import PublishedRun
from pipeline.rules import RULES_VERSION


class ComparedRun(msgspec.Struct, frozen=True):
    """One of the two runs, as the head of the comparison names it."""

    run_id: str
    audit_name: str
    audit_date: date
    rules_version: str
    policy_sha256: str
    complete: bool | None
    exit_code: int | None


class Diff(msgspec.Struct, frozen=True):
    """Two runs and what changed from the one to the other."""

    older: ComparedRun
    newer: ComparedRun
    changes: Changes

    @property
    def warnings(self) -> list[str]:
        """What makes the comparison another one than was perhaps wanted."""
        older, newer = self.older, self.newer
        return [
            *(["the two are runs of different audits"] * (older.audit_name != newer.audit_name)),
            *(["OLD is of a later night than NEW"] * (older.audit_date > newer.audit_date)),
        ]


def make_diff(older: PublishedRun, newer: PublishedRun, limit: int) -> Diff:
    """Compare two published runs; `limit`: rows of each kind, 0 for all.

    Raises `InputUnusable` where a table of either cannot be read, `ConfigurationWrong` where this
    version does not understand the newer one's policy.
    """
    policy = policy_of(newer)
    changes = compare(
        older,
        published_side(newer),
        partial(_rejudge, newer, policy),
        most=limit,
    )
    return Diff(_compared(older), _compared(newer), changes)


def _rejudge(newer: PublishedRun, policy: Policy, older: PublishedRun) -> Iterator[Judgement]:
    """Judge the older evidence as the newer was judged, which takes the rules that it was by."""
    version = newer.manifest.rules_version
    if version != RULES_VERSION:
        raise InputUnusable(
            f"{newer.run_id} was judged by rules {version}, and this version has {RULES_VERSION}",
        )
    yield from rejudge(older, policy)


def _compared(run: PublishedRun) -> ComparedRun:
    told = run.manifest
    return ComparedRun(*(getattr(told, name) for name in ComparedRun.__struct_fields__))


# --- showing ------------------------------------------------------------------------------------


def as_json(diff: Diff) -> str:
    """Give it as JSON."""
    return msgspec.json.format(msgspec.json.encode(diff), indent=2).decode() + "\n"


def as_text(diff: Diff) -> str:
    """Give it for a terminal: both runs, counts by kind, then the rows of each kind."""
    blocks = [
        _head(diff),
        _counts(diff.changes),
        *_rows(diff.changes),
        *_cluster_rows(diff.changes),
    ]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _head(diff: Diff) -> list[str]:
    lines = [
        f"{name}  {run.audit_date}  {on_one_line(run.run_id)}  "
        f"rules {on_one_line(run.rules_version)}  policy {on_one_line(run.policy_sha256[:8])}"
        for name, run in (("older", diff.older), ("newer", diff.newer))
    ]
    return [*lines, _who(diff.changes)]


def _who(changes: Changes) -> str:
    if not changes.rules_changed:
        return "both were judged by the same rules under the same policy"
    if changes.is_rejudged:
        return (
            "rules or policy changed: the older evidence was judged again by the newer ones, and "
            f"{sum(changes.by_rules.values()):,} changes are the rules'"
        )
    return f"rules or policy changed; {on_one_line(changes.note)}"


def _counts(changes: Changes) -> list[str]:
    head = f"{'':20}{'triples':>12}{'open':>12}{'by rules':>12}{'clusters':>12}"
    lines = [
        f"{kind:20}{changes.counts[kind]:>12,}{changes.open_counts[kind]:>12,}"
        f"{changes.by_rules[kind]:>12,}{changes.cluster_counts[kind]:>12,}"
        for kind in ChangeKind
    ]
    unchanged = f"{'unchanged':20}{changes.unchanged:>12,}{'':24}{changes.clusters_unchanged:>12,}"
    newly = (
        f"newly open: {changes.newly_open:,} of the triples, "
        f"{changes.newly_open_findings:,} findings on clusters"
    )
    return [head, *lines, unchanged, newly]


def _rows(changes: Changes) -> Iterator[list[str]]:
    for kind in ChangeKind:
        shown = [_row(change) for change in changes.shown if change.kind is kind]
        yield from _block(f"{kind}", shown, changes.counts[kind])


def _cluster_rows(changes: Changes) -> Iterator[list[str]]:
    for kind in ChangeKind:
        shown = [_cluster_row(change) for change in changes.clusters_shown if change.kind is kind]
        yield from _block(f"clusters {kind}", shown, changes.cluster_counts[kind])


def _block(title: str, shown: Sequence[str], count: int) -> Iterator[list[str]]:
    """Give a block with a title; none at all where there is nothing to show."""
    left_out = count - len(shown)
    more = [f"  and {left_out:,} more; --limit 0 shows all"] if left_out else []
    if count:
        yield [f"{title}: {count:,}", *shown, *more]


def _row(change: Change) -> str:
    name = f"{change.group_id}/{change.cluster_name}/{change.checkpoint_id}"
    again = f"today's rules make the older answer {change.rejudged}" if change.rejudged else ""
    said = (
        f"since {change.since}" if change.since else "",
        f"excused by {change.excused_by}" if change.excused_by else "",
        f"was excused by {change.excused_before}" if change.excused_before else "",
        "by the rules" if change.cause is Cause.RULES else again,
    )
    return _turned(change, name, ", ".join(filter(None, said)))


def _cluster_row(change: ClusterChange) -> str:
    return _turned(change, f"{change.group_id}/{change.cluster_name}", "")


def _turned(change: Change | ClusterChange, name: str, said: str) -> str:
    turn = on_one_line(f"{change.before or '-'} -> {change.after or '-'}")
    return f"  {turn:28}{on_one_line(name)}  {on_one_line(said)}".rstrip()
