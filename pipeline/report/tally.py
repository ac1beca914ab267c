"""Counting: judgements as they come, a cluster at a time, into the summary of a run.

`Tally` keeps counts, and of rows only the first few. `Tally.summary` sums up.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta

import msgspec

from pipeline.changes import Changes
from pipeline.errors import MEANINGS, ExitCode, ProgramFault
from pipeline.excuses import WaiverUse, waiver_notice, waiver_uses
from pipeline.judgements import Finding, Judgement, RpoStatus
from pipeline.judgements import Outcome as JudgedOutcome
from pipeline.outcomes import FailureKind, Verdict, moment
from pipeline.policy import Policy, Thresholds
from pipeline.population import Beyond
from pipeline.report.advice import ADVICE
from pipeline.report.summary import (
    SUMMARY_VERSION,
    BadLines,
    ClusterRow,
    Counts,
    KindCount,
    Law,
    OwnerCount,
    PolicyFacts,
    ProjectCounts,
    Row,
    Rows,
    RuleCount,
    RunFacts,
    Summary,
)
from pipeline.report.timeline import Timeline
from pipeline.report.words import plural
from pipeline.rules import RULES
from pipeline.triples import BadLine

#: How many rows a report shows of each list; what is left out is counted.
SHOWN_ROWS = 200
SHOWN_CLUSTERS = 1000
SHOWN_NOTICES = 20
SHOWN_OWNERS = 5

#: What is kept of text that the API or the input chose the length of. The tables have all of it.
SHOWN_LABELS = 6
LABEL_CHARS = 100
SHOWN_REASONS = 5
REASON_CHARS = 400

#: Owners that are counted for each rule: a column of the input that names them may hold anything.
_MOST_OWNERS = 1000

_SHOWN_KINDS = 3

#: What a report must say rather than imply.
STATEMENTS = (
    "PASS means that Atlas reports the checkpoint as restorable and no rule fails it.",
    "No restore was tested: the API cannot show that one was.",
    "SOC 2 (TSC 2017) A1.3 and NIST SP 800-53 Rev. 5 CP-9(2) ask for a restore test: this is none.",
    "The population is the input as supplied; checkpoints it does not name were not looked at.",
    "Prepared by the entity that runs the audit; not an independent examination.",
)


class _Shown:
    """Keeps the first few of many."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: list[Row] = []
        self.count = 0

    def rows(self) -> Rows:
        return Rows(tuple(self.kept), self.count - len(self.kept))


class Tally:
    """Counts judgements; one for a run.

    `policy` is the one they were judged by. `shortfalls` say why its population cannot be taken for
    whole: such a run is not complete.
    """

    def __init__(self, policy: Policy, shortfalls: tuple[str, ...] = ()) -> None:
        self.policy = policy
        self.shortfalls = shortfalls
        self.changes: Changes | None = None
        self.beyond: Beyond | None = None
        self.timeline: Timeline | None = None
        self.counts = Counts()
        self.excused_count = 0
        self.open_count = 0
        self.unknown_count = 0
        self.failing_clusters: Counter[str] = Counter()
        self._rests: Counter[str] = Counter()
        self._projects: dict[str, ProjectCounts] = {}
        self._clusters: list[ClusterRow] = []
        self._cluster_count = 0
        self._rows = {verdict: _Shown(SHOWN_ROWS) for verdict in Verdict}
        self._kinds: Counter[tuple[Verdict, str]] = Counter()
        self._excused_kinds: Counter[tuple[Verdict, str]] = Counter()
        self._excused: Counter[Verdict] = Counter()
        self._rules: Counter[str] = Counter()
        self._waived: Counter[str] = Counter()
        self._owners: dict[str, Counter[str]] = {}
        self._examples: dict[str, Finding] = {}
        self._cluster_findings: list[Finding] = []
        self.cluster_finding_count = 0
        self._first_reply: int | None = None
        self._last_reply: int | None = None
        self._notices: dict[str, None] = {}
        self._has_more_notices = False

    def add(self, judgement: Judgement) -> None:
        """Count one cluster's judgement."""
        cluster = judgement.cluster
        self.counts.add(cluster)
        project = self._projects.setdefault(
            cluster.group_id, ProjectCounts(group_id=cluster.group_id)
        )
        project.add_cluster(cluster)
        self._add_cluster(judgement)
        reasons = self._add_findings(judgement.findings, judgement.owner)
        self._rows[Verdict.PASS].count += cluster.pass_count
        for outcome in judgement.outcomes:
            if outcome.verdict is not Verdict.PASS:
                self._add_outcome(outcome, reasons.get(outcome.checkpoint_id, ()))
        self._rests.update(judgement.waived)
        self._note_times([o.fetched_at for o in judgement.outcomes if o.fetched_at is not None])

    def notice(self, text: str) -> None:
        """Keep something that concerns the whole run; said once however often it is noticed."""
        if text in self._notices or len(self._notices) < SHOWN_NOTICES:
            self._notices[text] = None
        else:
            self._has_more_notices = True

    @property
    def unknown_kinds(self) -> str:
        """Why triples could not be determined, in numbers, the most frequent first."""
        kinds = [
            f"{count:,} {kind}"
            for (verdict, kind), count in self._kinds.most_common()
            if verdict is Verdict.INCONCLUSIVE
        ]
        return ", ".join([*kinds[:_SHOWN_KINDS], *(["…"] if len(kinds) > _SHOWN_KINDS else [])])

    @property
    def finding_count(self) -> int:
        """How many findings there are, whatever they lead to."""
        return self._rules.total()

    def _add_cluster(self, judgement: Judgement) -> None:
        """Keep clusters with trouble before those without."""
        self._cluster_count += 1
        owner = _cut(judgement.owner, LABEL_CHARS)
        known = msgspec.structs.asdict(judgement.cluster)
        self._clusters.append(ClusterRow(**known, rpo_status=judgement.rpo_status, owner=owner))
        if len(self._clusters) > 2 * SHOWN_CLUSTERS:
            self._clusters = _worst_first(self._clusters)[:SHOWN_CLUSTERS]

    def _add_findings(self, findings: Iterable[Finding], owner: str) -> dict[str, tuple[str, ...]]:
        """Count findings; gives the reasons by checkpoint."""
        reasons: dict[str, tuple[str, ...]] = {}
        for finding in findings:
            self._rules[finding.rule_id] += 1
            self._waived[finding.rule_id] += finding.waiver_id is not None
            self._add_owner(finding.rule_id, _cut(owner, LABEL_CHARS))
            self._examples.setdefault(finding.rule_id, finding)
            if finding.checkpoint_id is None:
                self._add_cluster_finding(finding)
            else:
                before = reasons.get(finding.checkpoint_id, ())
                reasons[finding.checkpoint_id] = (*before, finding.message)
        return reasons

    def _add_owner(self, rule_id: str, owner: str) -> None:
        owners = self._owners.setdefault(rule_id, Counter())
        if owner in owners or len(owners) < _MOST_OWNERS:
            owners[owner] += 1

    def _add_cluster_finding(self, finding: Finding) -> None:
        self.cluster_finding_count += 1
        if self.policy.rules[finding.rule_id].fails:
            self.failing_clusters[finding.rule_id] += 1
            self.open_count += finding.waiver_id is None
        if len(self._cluster_findings) < SHOWN_ROWS:
            self._cluster_findings.append(finding)

    def _add_outcome(self, outcome: JudgedOutcome, reasons: tuple[str, ...]) -> None:
        """Count what is no PASS, and keep the first few."""
        if outcome.failure_kind is not None:
            kind = outcome.verdict, outcome.failure_kind
            self._kinds[kind] += 1
            self._excused_kinds[kind] += outcome.excused_by is not None
        self._excused[outcome.verdict] += outcome.excused_by is not None
        self.excused_count += outcome.excused_by is not None
        if outcome.excused_by is None:
            is_unknown = outcome.verdict is Verdict.INCONCLUSIVE
            self.unknown_count += is_unknown
            self.open_count += not is_unknown
        shown = self._rows[outcome.verdict]
        shown.count += 1
        if len(shown.kept) < shown.most:
            shown.kept.append(_row(outcome, reasons))

    def _note_times(self, times: Sequence[int]) -> None:
        """Keep the times of the first and the last reply."""
        if times:
            self._first_reply = min(self._first_reply or times[0], *times)
            self._last_reply = max(self._last_reply or times[0], *times)

    # --- the end ---

    def exit_code(self, bad_line_count: int) -> ExitCode:
        """How the run ends: by what nothing excuses."""
        is_incomplete = bool(self.unknown_count or bad_line_count or self.shortfalls)
        if self.open_count:
            return ExitCode.OPEN_AND_INCOMPLETE if is_incomplete else ExitCode.OPEN
        return ExitCode.INCOMPLETE if is_incomplete else ExitCode.COMPLETE

    def summary(self, facts: RunFacts, bad_lines: Iterable[BadLine]) -> Summary:
        """Sum up.

        Raises `ProgramFault` when a law does not hold: then no number can be relied on.
        """
        laws = self._laws(facts)
        for law in laws:
            if not law.holds:
                raise ProgramFault(f"a law is broken: {law.text}: {law.left} is not {law.right}")
        exit_code = self.exit_code(facts.bad_line_count)
        clusters = _worst_first(self._clusters)[:SHOWN_CLUSTERS]
        answer, headline = _headline(self, facts)
        uses = waiver_uses(self.policy, self._rests, facts.started_at)
        return Summary(
            summary_version=SUMMARY_VERSION,
            run=facts,
            answer=answer,
            headline=headline,
            exit_code=exit_code,
            exit_meaning=MEANINGS[exit_code],
            complete=exit_code in (ExitCode.COMPLETE, ExitCode.OPEN),
            population=f"population: {plural(facts.triple_count, 'triple')} from "
            f"{facts.input_source}, supplied by the operator",
            counts=self.counts,
            excused_count=self.excused_count,
            duration_s=(facts.finished_at - facts.started_at).total_seconds(),
            laws=laws,
            shortfalls=self.shortfalls,
            notices=(
                *self.shortfalls,
                *([str(self.beyond)] if self.beyond is not None else []),
                *self._date_notices(facts.audit_date),
                *_waiver_notices(uses, facts.started_at),
                *self._said_notices(),
            ),
            projects=tuple(self._projects[group_id] for group_id in sorted(self._projects)),
            clusters=tuple(clusters),
            clusters_left_out=self._cluster_count - len(clusters),
            failing=self._rows[Verdict.FAIL].rows(),
            absent=self._rows[Verdict.ABSENT].rows(),
            inconclusive=self._rows[Verdict.INCONCLUSIVE].rows(),
            rules=tuple(self._rule_count(rule_id) for rule_id, _ in self._rules.most_common()),
            kinds=tuple(self._kind_count(*pair) for pair, _ in self._kinds.most_common()),
            cluster_findings=tuple(self._cluster_findings),
            cluster_findings_left_out=self.cluster_finding_count - len(self._cluster_findings),
            bad_lines=_bad_lines(bad_lines, facts.bad_line_count),
            statements=STATEMENTS,
            changes=self.changes,
            beyond=self.beyond,
            waivers=tuple(uses[:SHOWN_ROWS]),
            waivers_left_out=max(0, len(uses) - SHOWN_ROWS),
            excused=dict(+self._excused),
            policy=_policy_facts(self.policy),
            timeline=self.timeline,
        )

    def _laws(self, facts: RunFacts) -> tuple[Law, ...]:
        return (
            Law(
                "lines = triples + duplicates + bad lines",
                facts.line_count,
                facts.triple_count + facts.duplicate_count + facts.bad_line_count,
            ),
            Law(
                "triples = pass + fail + absent + inconclusive",
                facts.triple_count,
                self.counts.judged_count,
            ),
        )

    def _rule_count(self, rule_id: str) -> RuleCount:
        example = self._examples[rule_id]
        return RuleCount(
            rule_id,
            example.severity,
            example.scope,
            RULES[rule_id].title,
            tuple(filter(None, example.controls.split("; "))),
            self._rules[rule_id],
            self.policy.rules[rule_id].fails,
            self._waived[rule_id],
            *self._owners_of(rule_id),
        )

    def _owners_of(self, rule_id: str) -> tuple[tuple[OwnerCount, ...], int]:
        """Give the owners of the most findings of a rule, and how many findings are others'."""
        most = self._owners[rule_id].most_common(SHOWN_OWNERS)
        shown = tuple(OwnerCount(owner, count) for owner, count in most)
        return shown, self._rules[rule_id] - sum(one.count for one in shown)

    def _kind_count(self, verdict: Verdict, kind: str) -> KindCount:
        meaning, advice = ADVICE[FailureKind(kind)]
        pair = verdict, kind
        count, excused = self._kinds[pair], self._excused_kinds[pair]
        return KindCount(FailureKind(kind), verdict, count, meaning, advice, excused)

    def _said_notices(self) -> list[str]:
        more = ["There were more notices than these."] if self._has_more_notices else []
        return [*self._notices, *more]

    def _date_notices(self, audit_date: date) -> list[str]:
        """Replies more than a day away from the date that labels them."""
        if self._first_reply is None or self._last_reply is None:
            return []
        start = datetime.combine(audit_date, time(), UTC)
        first, last = moment(self._first_reply), moment(self._last_reply)
        if first >= start - timedelta(days=1) and last < start + timedelta(days=2):
            return []
        replies = f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
        return [f"The run is labelled {audit_date}, but its replies are from {replies}."]


def _worst_first(clusters: Iterable[ClusterRow]) -> list[ClusterRow]:
    """Sort by verdict; among equals, what has no restorable point or too old a one goes first."""
    return sorted(
        clusters,
        key=lambda c: (
            _VERDICTS.index(c.verdict),
            _STATUSES.index(c.rpo_status),
            c.group_id,
            c.cluster_name,
        ),
    )


#: Rule over clusters → what is so of clusters that fail by it.
_ON_CLUSTERS = {
    "no-restorable-checkpoint": "without a restorable checkpoint",
    "too-few-restorable": "with too few restorable checkpoints",
    "rpo-age": "beyond the RPO",
    "rpo-gap": "with too long a gap",
    "retention-not-reached": "short of the retention",
}

_VERDICTS = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ABSENT, Verdict.PASS)
_STATUSES = (
    RpoStatus.NO_POINT,
    RpoStatus.EXCEEDED,
    RpoStatus.NOT_JUDGED,
    RpoStatus.NO_LIMIT,
    RpoStatus.WITHIN,
)


def _row(outcome: JudgedOutcome, reasons: tuple[str, ...]) -> Row:
    if outcome.failure_kind is not None:
        said = " ".join(filter(None, (outcome.error_code, outcome.error_detail)))
        status = f" ({outcome.http_status})" if outcome.http_status else ""
        reasons = (": ".join(filter(None, (f"{outcome.failure_kind}{status}", said))),)
    labels = {
        _cut(name, LABEL_CHARS): _cut(value, LABEL_CHARS)
        for name, value in msgspec.json.decode(outcome.labels, type=dict[str, str]).items()
    }
    return Row(
        outcome.group_id,
        outcome.cluster_name,
        outcome.checkpoint_id,
        outcome.input_line,
        outcome.verdict,
        tuple(_cut(reason, REASON_CHARS) for reason in reasons[:SHOWN_REASONS]),
        dict(list(labels.items())[:SHOWN_LABELS]),
    )


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"


def _policy_facts(policy: Policy) -> PolicyFacts:
    """Give the policy in short, its durations in seconds."""
    terms = {name: getattr(policy.thresholds, name) for name in Thresholds.__struct_fields__}
    return PolicyFacts(
        name=policy.name,
        thresholds={
            name: value.total_seconds() if isinstance(value, timedelta) else value
            for name, value in terms.items()
            if value is not None
        },
        scope_count=len(policy.scopes),
        waiver_count=len(policy.waivers),
    )


def _bad_lines(bad_lines: Iterable[BadLine], count: int) -> BadLines:
    shown = tuple(str(bad_line) for bad_line, _ in zip(bad_lines, range(SHOWN_ROWS), strict=False))
    return BadLines(shown, count - len(shown))


def _waiver_notices(uses: Iterable[WaiverUse], as_of: datetime) -> list[str]:
    """Say which waivers want a decision: lapsed ones that are missed, and those about to lapse."""
    said = list(filter(None, (waiver_notice(use, as_of) for use in uses)))
    more = len(said) - SHOWN_NOTICES
    return [
        *said[:SHOWN_NOTICES],
        *([f"{more} more waivers have lapsed or lapse soon."] if more > 0 else []),
    ]


def _headline(tally: Tally, facts: RunFacts) -> tuple[str, str]:
    """Answer "can these checkpoints be trusted?" in a word and a sentence."""
    counts, short = tally.counts, " ".join(tally.shortfalls)
    said = ", ".join(_troubles(tally, facts))
    passes = "passes" if 1 in (counts.pass_count, counts.triple_count) else "pass"
    of = f"{counts.pass_count:,} of {plural(counts.triple_count, 'checkpoint')} {passes}"
    if not (tally.open_count or tally.unknown_count or facts.bad_line_count or short):
        return _yes(tally, of, said)
    excused = f", {plural(tally.excused_count, 'triple')} excused" if tally.excused_count else ""
    is_nothing_known = counts.inconclusive_count == counts.triple_count
    unknown = "Nothing known" if is_nothing_known else "Not all known"
    answer = "No" if tally.open_count else unknown
    return answer, _sentences(short, f"{of}; {said}{excused}." if said else f"{of}.")


def _yes(tally: Tally, of: str, said: str) -> tuple[str, str]:
    """Answer where nothing is open and all is known."""
    if said:
        return "Yes, with exceptions", f"{of}; {said}, all excused."
    warnings = tally.finding_count
    beside = f"; {plural(warnings, 'finding')} beside" if warnings else ", and no rule objects"
    return "Yes", f"{of}: Atlas reports them restorable{beside}."


def _troubles(tally: Tally, facts: RunFacts) -> list[str]:
    """Say what does not pass, excused or not."""
    counts = tally.counts
    unknown, bad = counts.inconclusive_count, facts.bad_line_count
    fails = "fails" if counts.fail_count == 1 else "fail"
    said = [
        f"{plural(counts.fail_count, 'checkpoint')} {fails}" if counts.fail_count else "",
        f"{counts.absent_count:,} absent" if counts.absent_count else "",
        *_cluster_troubles(tally),
        f"{plural(unknown, 'triple')} could not be determined ({tally.unknown_kinds})"
        if unknown
        else "",
        f"{plural(bad, 'input line')} could not be used" if bad else "",
    ]
    return list(filter(None, said))


def _cluster_troubles(tally: Tally) -> list[str]:
    """Say what whole clusters fail by, in the rules' own order."""
    return [
        f"{plural(count, 'cluster')} {_ON_CLUSTERS.get(rule_id, f'failing by {rule_id}')}"
        for rule_id in RULES
        if (count := tally.failing_clusters[rule_id])
    ]


def _sentences(*said: str) -> str:
    return " ".join(filter(None, said))
