"""The summary of a run: what every report is made from, and what `summary.json` holds.

`tally` counts it while the run is derived. Its size is bounded, however large the run: lists hold
their first few rows and say how many are left out; the tables hold them all.
"""

from datetime import date, datetime

import msgspec

from pipeline.changes import Changes
from pipeline.excuses import WaiverUse
from pipeline.judgements import Cluster, Finding, RpoStatus
from pipeline.outcomes import FailureKind, Verdict
from pipeline.population import Beyond
from pipeline.report.timeline import Timeline

#: Changes when a field changes its meaning or goes; a new field alone does not change it.
SUMMARY_VERSION = 2


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run besides its judgements; also the first columns of `runs`."""

    run_id: str
    audit_name: str
    audit_date: date
    parent_run_id: str | None
    started_at: datetime
    finished_at: datetime
    tool_version: str
    schema_version: str
    rules_version: str
    base_url: str
    credential_id: str
    input_source: str
    input_sha256: str
    policy_sha256: str
    line_count: int
    triple_count: int
    duplicate_count: int
    bad_line_count: int
    request_count: int
    refusal_count: int


class Counts(msgspec.Struct):
    """Triples by verdict."""

    triple_count: int = 0
    pass_count: int = 0
    fail_count: int = 0
    absent_count: int = 0
    inconclusive_count: int = 0

    def add(self, cluster: Cluster) -> None:
        """Add the counts of one cluster."""
        for name in Counts.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(cluster, name))

    @property
    def judged_count(self) -> int:
        """Triples with a verdict; equals `triple_count`, or a law is broken."""
        return self.pass_count + self.fail_count + self.absent_count + self.inconclusive_count


class ProjectCounts(Counts):
    """Triples by verdict of one project."""

    group_id: str = ""
    cluster_count: int = 0

    def add_cluster(self, cluster: Cluster) -> None:
        """Add the counts of one of its clusters."""
        self.cluster_count += 1
        self.add(cluster)


class Row(msgspec.Struct, frozen=True):
    """One triple that a report names, with the reasons."""

    group_id: str
    cluster_name: str
    checkpoint_id: str
    input_line: int
    verdict: Verdict
    reasons: tuple[str, ...]
    labels: dict[str, str]


class Rows(msgspec.Struct, frozen=True):
    """The first few rows of a list, and how many more there are."""

    shown: tuple[Row, ...]
    left_out: int


class ClusterRow(Cluster, frozen=True):
    """A cluster as a report shows it: with how its age stands to the limit, and its owner."""

    rpo_status: RpoStatus = RpoStatus.NO_LIMIT
    owner: str = ""


class OwnerCount(msgspec.Struct, frozen=True):
    """Findings on one owner's clusters; the owner is empty where nobody is named."""

    owner: str
    count: int


class RuleCount(msgspec.Struct, frozen=True):
    """What one rule objected to, in all; `waived_count` of it is excused by a waiver.

    `fails`: by the policy it makes a FAIL, and is not only said beside a verdict.
    `owners` are those of the most findings; `owners_left_out` counts the findings of the others.
    """

    rule_id: str
    severity: str
    scope: str
    title: str
    controls: tuple[str, ...]
    count: int
    fails: bool = True
    waived_count: int = 0
    owners: tuple[OwnerCount, ...] = ()
    owners_left_out: int = 0


class KindCount(msgspec.Struct, frozen=True):
    """Why so many triples have no checkpoint, and what to do about it.

    `excused_count` of them are excused.
    """

    kind: FailureKind
    verdict: Verdict
    count: int
    meaning: str
    advice: str
    excused_count: int = 0


class BadLines(msgspec.Struct, frozen=True):
    """The first few bad lines as sentences, and how many more there are."""

    shown: tuple[str, ...]
    left_out: int


class Law(msgspec.Struct, frozen=True):
    """One equation that every run is checked against, with both its sides."""

    text: str
    left: int
    right: int

    @property
    def holds(self) -> bool:
        """Whether both sides are equal."""
        return self.left == self.right


class PolicyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The policy in short; its text is beside the evidence, its digest among the run's facts.

    `thresholds` are the general ones that are set, durations in seconds; `scope_count` are the
    entries that change them, or the owner, for some clusters.
    """

    name: str
    thresholds: dict[str, float]
    scope_count: int
    waiver_count: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a report says. Durations are in seconds."""

    summary_version: int
    run: RunFacts
    answer: str
    headline: str
    exit_code: int
    exit_meaning: str
    complete: bool
    population: str
    counts: Counts
    excused_count: int
    duration_s: float
    laws: tuple[Law, ...]
    shortfalls: tuple[str, ...] = ()
    notices: tuple[str, ...]
    projects: tuple[ProjectCounts, ...]
    clusters: tuple[ClusterRow, ...]
    clusters_left_out: int
    failing: Rows
    absent: Rows
    inconclusive: Rows
    rules: tuple[RuleCount, ...]
    kinds: tuple[KindCount, ...]
    cluster_findings: tuple[Finding, ...]
    cluster_findings_left_out: int
    bad_lines: BadLines
    statements: tuple[str, ...]
    changes: Changes | None = None
    waivers: tuple[WaiverUse, ...] = ()
    waivers_left_out: int = 0
    beyond: Beyond | None = None
    excused: dict[Verdict, int] = {}
    policy: PolicyFacts | None = None
    timeline: Timeline | None = None

    def excused_of(self, verdict: Verdict) -> int:
        """Triples of one verdict that are excused."""
        return self.excused.get(verdict, 0)
