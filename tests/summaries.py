"""Summaries to make pages from: of a clean run, of one in trouble, of hostile text."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from pipeline.changes import Cause, Change, ChangeKind, Changes, ClusterChange
from pipeline.errors import MEANINGS, ExitCode
from pipeline.excuses import WaiverState, WaiverUse
from pipeline.judgements import Finding, RpoStatus
from pipeline.outcomes import FailureKind, Verdict
from pipeline.population import Beyond, BeyondCluster
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
from pipeline.report.tally import STATEMENTS
from pipeline.report.timeline import Bin, Timeline

GROUP = "5840e3b0e196714b215bb700"
START = datetime(2026, 11, 23, 3, 0, 0, tzinfo=UTC)
NONE = Rows((), 0)

#: Everything that a label, an error detail or a name may try.
HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "javascript:alert(1)",
    "[click](https://example.com)",
    "![x](https://example.com/x.png)",
    "https://example.com/a",
    "www.example.com",
    "@everyone",
    "someone@example.com",
    "#1",
    "GH-1",
    "a | b | c",
    "`rm -rf`",
    "**bold** _it_ ~~gone~~ <b>b</b>",
    "1. first",
    "# heading",
    "{{ summary }}{% raw %}",
    "line\nbreak\r\n\n# heading",
    "</td></tr></table>",
    "</style><script>alert(1)</script>",
    "\u202egnp.exe",
    "a\u200bb\ufeff\x00\x1b[31m",
    "\ud800",
)


def facts(**other: Any) -> RunFacts:
    known: dict[str, Any] = {
        "run_id": "20261123T030000Z-nightly-7f3a9c",
        "audit_name": "nightly",
        "audit_date": date(2026, 11, 23),
        "parent_run_id": None,
        "started_at": START,
        "finished_at": START + timedelta(seconds=754.5),
        "tool_version": "0.1.0",
        "schema_version": "7",
        "rules_version": "9",
        "base_url": "https://cloud.example.com",
        "credential_id": "mdb_sa_id_0123456789abcdef01234567",
        "input_source": "inputs/nightly.csv",
        "input_sha256": "ab" * 32,
        "policy_sha256": "cd" * 32,
        "line_count": 2_013,
        "triple_count": 2_001,
        "duplicate_count": 12,
        "bad_line_count": 0,
        "request_count": 2_345,
        "refusal_count": 67,
    }
    return RunFacts(**(known | other))


def clean(**other: Any) -> Summary:
    """A run in which everything passes."""
    counts = Counts(2_001, 2_001, 0, 0, 0)
    known: dict[str, Any] = {
        "summary_version": SUMMARY_VERSION,
        "run": facts(),
        "answer": "Yes",
        "headline": "2,001 of 2,001 checkpoints pass: and no rule objects.",
        "exit_code": 0,
        "exit_meaning": MEANINGS[ExitCode.COMPLETE],
        "complete": True,
        "population": "population: 2,001 triples from nightly.csv, supplied by the operator",
        "counts": counts,
        "excused_count": 0,
        "duration_s": 754.5,
        "laws": (Law("lines = triples + duplicates + bad lines", 2_013, 2_013),),
        "shortfalls": (),
        "notices": (),
        "projects": (ProjectCounts(2_001, 2_001, 0, 0, 0, GROUP, 3),),
        "clusters": (cluster(),),
        "clusters_left_out": 0,
        "failing": NONE,
        "absent": NONE,
        "inconclusive": NONE,
        "rules": (),
        "kinds": (),
        "cluster_findings": (),
        "cluster_findings_left_out": 0,
        "bad_lines": BadLines((), 0),
        "statements": STATEMENTS,
    }
    return Summary(**(known | other))


def cluster(**other: Any) -> ClusterRow:
    known: dict[str, Any] = {
        "group_id": GROUP,
        "cluster_name": "orders-prod",
        "verdict": Verdict.PASS,
        "triple_count": 31,
        "pass_count": 31,
        "fail_count": 0,
        "absent_count": 0,
        "inconclusive_count": 0,
        "newest_restorable_at": START - timedelta(hours=5),
        "rpo_age_s": 18_060.5,
        "rpo_limit_s": 21_600.0,
        "oldest_restorable_at": START - timedelta(days=30),
        "largest_gap_s": 97_184.0,
        "rpo_status": RpoStatus.WITHIN,
    }
    return ClusterRow(**(known | other))


def row(index: int, verdict: Verdict, reason: str, **labels: str) -> Row:
    return Row(GROUP, "orders-prod", f"{index:024x}", 5_000 + index, verdict, (reason,), labels)


def rows(verdict: Verdict, count: int, left_out: int = 0) -> Rows:
    shown = (row(i, verdict, f"reason {i}", owner=f"team {i}") for i in range(count))
    return Rows(tuple(shown), left_out)


def finding(index: int = 0, **other: Any) -> Finding:
    known: dict[str, Any] = {
        "group_id": GROUP,
        "cluster_name": f"cluster-{index}",
        "checkpoint_id": None,
        "scope": "cluster",
        "rule_id": "no-restorable-checkpoint",
        "severity": "critical",
        "message": "none is restorable",
        "observed": f"0 of {30 + index} restorable",
        "expected": "at least 1",
        "controls": "NIST SP 800-53 Rev. 5 CP-9",
    }
    return Finding(**(known | other))


def kind(failure: FailureKind, verdict: Verdict, count: int, excused: int = 0) -> KindCount:
    return KindCount(failure, verdict, count, *ADVICE[failure], excused)


def changes(text: str = "") -> Changes:
    """What changed since the night before, under other rules; `text` wherever there is text."""
    counts = {ChangeKind.BECAME_UNRESTORABLE: 3, ChangeKind.STILL_FAILING: 40}
    change = Change(
        ChangeKind.STILL_FAILING,
        text or GROUP,
        text or "orders-prod",
        text or "5f" * 12,
        Verdict.PASS,
        Verdict.FAIL,
        Cause.RULES,
        text or "2026-11-20",
    )
    turned = msgspec.structs.replace(change, kind=ChangeKind.BECAME_UNRESTORABLE)
    return Changes(
        since_run_id=text or "the-run-before",
        since_audit_date=text or "2026-11-22",
        counts=counts,
        by_rules={ChangeKind.BECAME_UNRESTORABLE: 1},
        shown=(change, turned),
        left_out=41,
        rules_changed=True,
        is_rejudged=True,
        note=text,
        open_counts={ChangeKind.STILL_FAILING: 37},
        unchanged=1_234,
        newly_open=3,
        newly_open_findings=1,
        clusters_shown=(
            ClusterChange(
                ChangeKind.RECOVERED, text or GROUP, text or "healed", Verdict.FAIL, Verdict.PASS
            ),
        ),
        clusters_left_out=1,
    )


def waiver(state: WaiverState, id_: str, expires_on: date, count: int, text: str = "") -> WaiverUse:
    return WaiverUse(
        id=text or id_,
        reason=text or "A reason.",
        owner=text or "the owner",
        approver=text or "the approver",
        expires_on=expires_on,
        scope=text or "orders-*",
        state=state,
        count=count,
    )


def beyond(text: str = "") -> Beyond:
    """What Atlas lists that the input does not name."""
    return Beyond(
        source=text or "discovered.csv",
        sha256="ef" * 32,
        listed_count=40,
        bad_line_count=0,
        count=9,
        cluster_count=2,
        clusters=(BeyondCluster(text or GROUP, text or "forgotten", 9, text or "ab" * 12, False),),
    )


def timeline() -> Timeline:
    """A run of three stretches, in the last of which nothing came."""
    bins = (Bin(10, 3, 2, 0.25), Bin(1, 0, 0, None), Bin())
    return Timeline(started_at=START, bin_s=0.1, bins=bins, outside_count=7)


def troubled(**other: Any) -> Summary:
    """A run with some of everything, and more of it than a page shows."""
    counts = Counts(2_001, 1_000, 600, 301, 100)
    rules = (
        RuleCount(
            "no-restorable-checkpoint",
            "critical",
            "cluster",
            "Nothing to restore this cluster from.",
            ("NIST SP 800-53 Rev. 5 CP-9",),
            231,
            waived_count=5,
            owners=(OwnerCount("team-a", 200), OwnerCount("", 20)),
            owners_left_out=11,
        ),
        RuleCount("restorable-false", "high", "checkpoint", "`restorable`: no.", ("",), 600),
    )
    known: dict[str, Any] = {
        "run": facts(bad_line_count=240, line_count=2_253, parent_run_id="earlier-run"),
        "answer": "No",
        "headline": "1,000 of 2,001 checkpoints pass; 600 fail.",
        "exit_code": 4,
        "exit_meaning": MEANINGS[ExitCode.OPEN_AND_INCOMPLETE],
        "complete": False,
        "counts": counts,
        "excused_count": 17,
        "excused": {Verdict.FAIL: 5, Verdict.ABSENT: 11, Verdict.INCONCLUSIVE: 1},
        "notices": ("The replies are from another day.",),
        "clusters": tuple(
            cluster(cluster_name=f"cluster-{i}", verdict=Verdict.FAIL, owner="team-of-the-cluster")
            for i in range(30)
        ),
        "clusters_left_out": 1_970,
        "failing": rows(Verdict.FAIL, 200, 400),
        "absent": rows(Verdict.ABSENT, 200, 101),
        "inconclusive": rows(Verdict.INCONCLUSIVE, 25, 75),
        "rules": rules,
        "kinds": (
            kind(FailureKind.CHECKPOINT_ABSENT, Verdict.ABSENT, 301, excused=11),
            kind(FailureKind.THROTTLED, Verdict.INCONCLUSIVE, 88),
            kind(FailureKind.PROJECT_REFUSED, Verdict.INCONCLUSIVE, 13, excused=1),
        ),
        "cluster_findings": tuple(finding(i) for i in range(200)),
        "cluster_findings_left_out": 31,
        "bad_lines": BadLines(tuple(f"line {i}, bad" for i in range(2, 202)), 40),
        "changes": changes(),
        "waivers": (
            waiver(WaiverState.LAPSED, "W-1", date(2026, 11, 22), 4),
            waiver(WaiverState.LAPSES_SOON, "W-2", date(2026, 11, 25), 2),
        ),
        "beyond": beyond(),
        "timeline": timeline(),
        "policy": PolicyFacts(
            name="strict",
            thresholds={"rpo_age": 21_600.0, "min_restorable": 2},
            scope_count=1,
            waiver_count=2,
        ),
    }
    return clean(**(known | other))


def hostile(text: str) -> Summary:
    """The same hostile text wherever the API, the CSV or the environment may put one."""
    shown = Row(text, text, text, 7, Verdict.FAIL, (text, text), {text: text, "owner": text})
    return troubled(
        run=facts(
            audit_name=text,
            base_url=text,
            credential_id=text,
            input_source=text,
            bad_line_count=1,
            parent_run_id=text,
        ),
        headline=text,
        population=text,
        shortfalls=(),
        notices=(text,),
        clusters=(cluster(cluster_name=text, group_id=text, verdict=Verdict.FAIL, owner=text),),
        projects=(ProjectCounts(1, 1, 0, 0, 0, text, 1),),
        failing=Rows((shown,), 0),
        absent=Rows((shown,), 0),
        inconclusive=Rows((shown,), 0),
        cluster_findings=(
            finding(cluster_name=text, group_id=text, message=text, observed=text, expected=text),
        ),
        bad_lines=BadLines((text,), 0),
        rules=(
            RuleCount("restorable-false", "high", "checkpoint", "A title.", (text,), 600),
            RuleCount(
                "no-restorable-checkpoint",
                "critical",
                "cluster",
                "A title.",
                (text,),
                1,
                owners=(OwnerCount(text, 1),),
            ),
        ),
        changes=changes(text),
        waivers=tuple(waiver(state, text, date(2026, 11, 22), 1, text) for state in WaiverState),
        beyond=beyond(text),
        policy=PolicyFacts(name=text, thresholds={}, scope_count=0, waiver_count=0),
    )
