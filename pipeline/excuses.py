"""Excuses: what a policy's waivers and its retention window take the weight off.

A verdict is what is true; an excuse is what someone decided. Pure: one cluster's judgement and the
policy in, the same judgement with `excused_by`, `waiver_id` and `waiver_expires_at` filled in out.

- A finding is waived by its rule, in the clusters (and of the checkpoints) that a waiver names.
- A FAIL is excused when every failing finding against the checkpoint is waived.
- An ABSENT is excused by the retention window, or by a waiver of its kind.
- An INCONCLUSIVE is excused by a waiver of its kind, if Atlas's own word stands behind that
  (`EXCUSABLE_KINDS`); what nobody could find out is never excused, whatever a policy says.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import NamedTuple

import msgspec

from pipeline.checkpoints import made_at
from pipeline.judgements import Finding, Judgement, Outcome
from pipeline.outcomes import EXCUSABLE_KINDS, Verdict, moment
from pipeline.policy import RETENTION, Policy, RuleTerms, Waiver

#: An id that dates from before there was Atlas was never a checkpoint's, and has no age.
_FIRST = datetime(2016, 1, 1, tzinfo=UTC)

#: Between the ids of waivers that excuse one triple together.
_AND = ", "


class WaiverState(StrEnum):
    """Whether a waiver still excuses anything; what wants a decision comes first."""

    LAPSED = "lapsed"
    LAPSES_SOON = "lapses_soon"
    IN_FORCE = "in_force"


class WaiverUse(msgspec.Struct, frozen=True, kw_only=True):
    """A waiver of the policy as a report shows it, with what it excuses in this run.

    `count` is of triples and of failing findings on clusters. Of a waiver that has lapsed it is
    what that would excuse, beside those that are in force.
    """

    id: str
    reason: str
    owner: str
    approver: str
    expires_on: date
    scope: str
    state: WaiverState
    count: int


class _Terms(NamedTuple):
    """What excuses in one cluster."""

    waivers: Sequence[Waiver]
    rules: Mapping[str, RuleTerms]
    retention: timedelta | None


def excused(judgement: Judgement, policy: Policy, as_of: datetime) -> Judgement:
    """Excuse what the policy excuses; `as_of` is the run's start, aware."""
    named = (judgement.cluster.group_id, judgement.cluster.cluster_name)
    waivers, retention = policy.waivers_of(*named), policy.thresholds_of(*named).retention
    if not waivers and retention is None:
        return judgement
    in_force = [waiver for waiver in waivers if as_of < ends_at(waiver)]
    lapsed = {waiver.id: waiver for waiver in waivers if waiver not in in_force}
    found = _excused(judgement, _Terms(in_force, policy.rules, retention))
    if not lapsed:
        return msgspec.structs.replace(found, waived=_counted(_rests(found, policy.rules)))
    terms = _Terms([*in_force, *lapsed.values()], policy.rules, retention)
    return _reopened(found, _excused(judgement, terms), lapsed, policy.rules)


def ends_at(waiver: Waiver) -> datetime:
    """Give the moment from which a waiver excuses nothing: the end of its last day, UTC."""
    return datetime.combine(waiver.expires_on + timedelta(days=1), time(), UTC)


def _excused(judgement: Judgement, terms: _Terms) -> Judgement:
    findings = tuple(_waived(finding, terms.waivers) for finding in judgement.findings)
    failing: defaultdict[str | None, list[Finding]] = defaultdict(list)
    for finding in findings:
        if terms.rules[finding.rule_id].fails:
            failing[finding.checkpoint_id].append(finding)
    outcomes = tuple(
        _borne(outcome, _excuse(outcome, failing.get(outcome.checkpoint_id, ()), terms))
        for outcome in judgement.outcomes
    )
    return msgspec.structs.replace(judgement, findings=findings, outcomes=outcomes)


def _waived(finding: Finding, waivers: Sequence[Waiver]) -> Finding:
    for waiver in waivers:
        if finding.rule_id in waiver.rules and _covers(waiver, finding.checkpoint_id):
            return msgspec.structs.replace(
                finding, waiver_id=waiver.id, waiver_expires_at=ends_at(waiver)
            )
    return finding


def _covers(waiver: Waiver, checkpoint_id: str | None) -> bool:
    return not waiver.checkpoints or checkpoint_id in waiver.checkpoints


def _borne(outcome: Outcome, excuse: str | None) -> Outcome:
    return msgspec.structs.replace(outcome, excused_by=excuse) if excuse else outcome


def _excuse(outcome: Outcome, failing: Sequence[Finding], terms: _Terms) -> str | None:
    match outcome.verdict:
        case Verdict.PASS:
            return None
        case Verdict.FAIL:
            return _by_findings(failing)
        case Verdict.ABSENT:
            # First, as it needs nobody's decision: the triple does not rest on a waiver beside it.
            is_outlived = _is_outlived(outcome, terms.retention)
            return RETENTION if is_outlived else _by_kind(outcome, terms.waivers)
        case Verdict.INCONCLUSIVE:
            return _by_kind(outcome, terms.waivers)


def _by_findings(failing: Sequence[Finding]) -> str | None:
    ids = [finding.waiver_id for finding in failing if finding.waiver_id is not None]
    return _AND.join(dict.fromkeys(ids)) if ids and len(ids) == len(failing) else None


def _by_kind(outcome: Outcome, waivers: Sequence[Waiver]) -> str | None:
    kind = outcome.failure_kind
    if kind not in EXCUSABLE_KINDS or outcome.error_code is None:  # a proxy's refusal has no code
        return None
    ids = (w.id for w in waivers if kind in w.kinds and _covers(w, outcome.checkpoint_id))
    return next(ids, None)


def _is_outlived(outcome: Outcome, retention: timedelta | None) -> bool:
    """Whether the id's own date lies before the window that is counted back from the reply."""
    if retention is None or outcome.fetched_at is None:
        return False
    made = made_at(outcome.checkpoint_id)
    return _FIRST <= made < moment(outcome.fetched_at) - retention


# --- waivers that have lapsed, and how much rests on each ----------------------------------------


def _reopened(
    found: Judgement,
    before: Judgement,
    lapsed: Mapping[str, Waiver],
    rules: Mapping[str, RuleTerms],
) -> Judgement:
    """Say of findings that a lapsed waiver would waive; `before`: as if none had lapsed."""
    findings = tuple(
        _told(now, lapsed.get(then.waiver_id or ""))
        for now, then in zip(found.findings, before.findings, strict=True)
    )
    rests = [
        now or tuple(waiver_id for waiver_id in then if waiver_id in lapsed)
        for now, then in zip(_rests(found, rules), _rests(before, rules), strict=True)
    ]
    return msgspec.structs.replace(found, findings=findings, waived=_counted(rests))


def _told(finding: Finding, lapsed: Waiver | None) -> Finding:
    if lapsed is None:
        return finding
    said = f"{finding.message}; waiver {lapsed.id} lapsed on {lapsed.expires_on}"
    return msgspec.structs.replace(finding, message=said)


def _rests(judgement: Judgement, rules: Mapping[str, RuleTerms]) -> Iterator[tuple[str, ...]]:
    """Give what each triple, and each failing finding on the cluster, is excused by."""
    for outcome in judgement.outcomes:
        yield tuple(outcome.excused_by.split(_AND)) if outcome.excused_by else ()
    for finding in judgement.findings:
        if finding.checkpoint_id is None and rules[finding.rule_id].fails:
            yield (finding.waiver_id,) if finding.waiver_id else ()


def _counted(rests: Iterable[tuple[str, ...]]) -> dict[str, int]:
    counts = Counter(waiver_id for ids in rests for waiver_id in ids)
    del counts[RETENTION]
    return dict(counts)


# --- what a report says about waivers -----------------------------------------------------------


def state_of(waiver: Waiver, announce: timedelta, as_of: datetime) -> WaiverState:
    """Tell how a waiver stands at an aware time; it is announced `announce` before its end."""
    left = ends_at(waiver) - as_of
    if left <= timedelta(0):
        return WaiverState.LAPSED
    return WaiverState.LAPSES_SOON if left <= announce else WaiverState.IN_FORCE


def waiver_uses(policy: Policy, counts: Mapping[str, int], as_of: datetime) -> list[WaiverUse]:
    """Give all waivers of a policy, used or not: lapsed ones first, then by their ends."""
    uses = [
        WaiverUse(
            id=waiver.id,
            reason=waiver.reason,
            owner=waiver.owner,
            approver=waiver.approver,
            expires_on=waiver.expires_on,
            scope=scope_of(waiver),
            state=state_of(waiver, policy.announce, as_of),
            count=counts.get(waiver.id, 0),
        )
        for waiver in policy.waivers
    ]
    states = list(WaiverState)
    return sorted(uses, key=lambda use: (states.index(use.state), use.expires_on, use.id))


def scope_of(waiver: Waiver) -> str:
    """Say what a waiver is about."""
    said = [
        f"rules {', '.join(waiver.rules)}" if waiver.rules else "",
        f"kinds {', '.join(waiver.kinds)}" if waiver.kinds else "",
        f"project {waiver.project}" if waiver.project != "*" else "",
        f"cluster {waiver.cluster}" if waiver.cluster != "*" else "",
        f"checkpoints {', '.join(waiver.checkpoints[:_SHOWN_IDS])}" if waiver.checkpoints else "",
    ]
    left_out = len(waiver.checkpoints) - _SHOWN_IDS
    return "; ".join(filter(None, said)) + (f" and {left_out} more" if left_out > 0 else "")


#: Checkpoints that the scope of a waiver names.
_SHOWN_IDS = 3


def waiver_notice(use: WaiverUse, as_of: datetime) -> str:
    """Say what is to be decided about a waiver; nothing where that is nothing."""
    number = "1 triple or cluster" if use.count == 1 else f"{use.count:,} triples or clusters"
    if use.state is WaiverState.LAPSED and use.count:
        is_open = "is open again" if use.count == 1 else "are open again"
        return f"Waiver {use.id} of {use.owner} lapsed on {use.expires_on}: {number} {is_open}."
    if use.state is WaiverState.LAPSES_SOON:
        rests = f"it excuses {number}" if use.count else "it excuses nothing in this run"
        when = _in_days((use.expires_on - as_of.astimezone(UTC).date()).days)
        return f"Waiver {use.id} of {use.owner} lapses on {use.expires_on}, {when}; {rests}."
    return ""


def _in_days(days: int) -> str:
    return ("today", "tomorrow")[days] if days < 2 else f"in {days} days"  # noqa: PLR2004 - words
