"""Excuses: what a policy's waivers and its retention window take the weight off.

A verdict is what is true; an excuse is what someone decided. Pure: one cluster's judgement and the
policy in, the same judgement with `excused_by`, `waiver_id` and `waiver_expires_at` filled in out.
"""

from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum

import msgspec

from pipeline.judgements import Finding, Judgement
from pipeline.policy import Policy, Waiver


class WaiverState(StrEnum):
    """Whether a waiver still excuses anything."""

    IN_FORCE = "in_force"
    LAPSES_SOON = "lapses_soon"
    LAPSED = "lapsed"


class WaiverUse(msgspec.Struct, frozen=True, kw_only=True):
    """A waiver of the policy as a report shows it, with what it excuses in this run.

    Of one that has lapsed, `count` is what it would excuse.
    """

    id: str
    reason: str
    owner: str
    approver: str
    expires_on: date
    scope: str
    state: WaiverState
    count: int


def excused(judgement: Judgement, policy: Policy, as_of: datetime) -> Judgement:
    """Excuse what the policy excuses; `as_of` is the run's start, aware."""
    cluster = judgement.cluster
    waivers = [
        waiver
        for waiver in policy.waivers_of(cluster.group_id, cluster.cluster_name)
        if as_of.date() <= waiver.expires_on
    ]
    if not waivers:
        return judgement
    findings = tuple(_waived(finding, waivers) for finding in judgement.findings)
    return msgspec.structs.replace(judgement, findings=findings)


def _waived(finding: Finding, waivers: list[Waiver]) -> Finding:
    for waiver in waivers:
        if finding.rule_id in waiver.rules:
            ends = datetime.combine(waiver.expires_on + timedelta(days=1), time(), UTC)
            return msgspec.structs.replace(finding, waiver_id=waiver.id, waiver_expires_at=ends)
    return finding
