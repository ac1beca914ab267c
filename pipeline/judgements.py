"""What a judgement is made of: outcomes, findings and the standing of a cluster.

The fields are the columns of the tables of the same names.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from pipeline.outcomes import Verdict


class RpoStatus(StrEnum):
    """How the age of a cluster's newest restorable point stands to the policy's limit."""

    WITHIN = "within"
    EXCEEDED = "exceeded"
    NO_LIMIT = "no_limit"
    NO_POINT = "no_point"
    NOT_JUDGED = "not_judged"


class Finding(msgspec.Struct, frozen=True):
    """One objection of one rule; the fields are the columns of the table `findings`.

    `checkpoint_id` is None in a finding on a cluster.
    """

    group_id: str
    cluster_name: str
    checkpoint_id: str | None
    scope: str
    rule_id: str
    severity: str
    message: str
    observed: str
    expected: str
    controls: str
    waiver_id: str | None = None
    waiver_expires_at: datetime | None = None


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How one triple ended; the fields are the columns of the table `outcomes`."""

    group_id: str
    cluster_name: str
    checkpoint_id: str
    verdict: Verdict
    excused_by: str | None
    failure_kind: str | None
    http_status: int | None
    error_code: str | None
    error_detail: str | None
    attempts: int
    fetched_by: str
    input_line: int
    labels: str
    fetched_at: int | None
    reply_id: int | None
    reply_sha256: str | None


class Cluster(msgspec.Struct, frozen=True):
    """How one cluster stands; the fields are the columns of the table `clusters`.

    Restorable means PASS here: reported restorable, and no rule fails it. Ages and gaps are in
    seconds; the age is counted back from the cluster's last reply.
    """

    group_id: str
    cluster_name: str
    verdict: Verdict
    triple_count: int
    pass_count: int
    fail_count: int
    absent_count: int
    inconclusive_count: int
    newest_restorable_at: datetime | None
    rpo_age_s: float | None
    rpo_limit_s: float | None
    oldest_restorable_at: datetime | None
    largest_gap_s: float | None


class Judgement(msgspec.Struct, frozen=True):
    """Everything the rules say about one cluster; `owner` as the policy has it, or empty.

    `waived`: id of a waiver → how many triples, and failing findings on the cluster, it excuses; of
    a waiver that has lapsed, how many it would.
    """

    cluster: Cluster
    outcomes: tuple[Outcome, ...]
    findings: tuple[Finding, ...]
    rpo_status: RpoStatus = RpoStatus.NO_LIMIT
    owner: str = ""
    waived: dict[str, int] = {}
