"""The tally: counts that obey the laws, an answer in a word, lists that are bounded."""

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checkpoints import Checkpoint, CheckpointRef, Part
from pipeline.errors import ExitCode, ProgramFault
from pipeline.findings import judge
from pipeline.judgements import Judgement, RpoStatus
from pipeline.outcomes import Answer, Failure, FailureKind, Verdict, microseconds
from pipeline.policy import default_policy
from pipeline.report.advice import ADVICE
from pipeline.report.summary import OwnerCount, RuleCount, RunFacts, Summary
from pipeline.report.tally import (
    LABEL_CHARS,
    REASON_CHARS,
    SHOWN_CLUSTERS,
    SHOWN_LABELS,
    SHOWN_NOTICES,
    SHOWN_OWNERS,
    SHOWN_ROWS,
    STATEMENTS,
    Tally,
)
from pipeline.rules import RULES, RULES_VERSION
from pipeline.triples import BadLine, Fault

G = "5f" * 12
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
POLICY = default_policy()

PASSED = Checkpoint(
    started=NOON,
    completed=NOON,
    timestamp=NOON,
    restorable=True,
    parts=(Part("REPLICA_SET", token_discovered=True),),
)
FAILED = msgspec.structs.replace(PASSED, restorable=False)
ABSENT = Failure(FailureKind.CHECKPOINT_ABSENT, 404, "CHECKPOINT_NOT_FOUND", "None.")
UNKNOWN = Failure(FailureKind.THROTTLED, 429, "RATE_LIMITED", "Too often.")
BAD_LINE = BadLine(9, (Fault("cluster_name", ".", "letters"),))
Found = Checkpoint | Failure


def judged(
    found: Iterable[Found],
    *,
    group_id: str = G,
    cluster: str = "orders",
    fetched_at: datetime | None = NOON,
) -> Judgement:
    answers = [
        Answer(
            CheckpointRef(group_id, cluster, f"{number:024x}"),
            input_line=number + 2,
            labels='{"team": "red"}',
            found=one,
            attempts=1,
            fetched_by="get",
            fetched_at=None if fetched_at is None else microseconds(fetched_at),
        )
        for number, one in enumerate(found)
    ]
    return judge(answers, POLICY, NOON)


def tally_of(*judgements: Judgement) -> Tally:
    tally = Tally(POLICY)
    for judgement in judgements:
        tally.add(judgement)
    return tally


def facts(tally: Tally, **changes: Any) -> RunFacts:
    """Give facts that fit `tally`."""
    triples = tally.counts.triple_count
    duplicates, bad = changes.get("duplicate_count", 0), changes.get("bad_line_count", 0)
    known: dict[str, Any] = {
        "run_id": "20261120T030000Z-nightly-7f3a9c",
        "audit_name": "nightly",
        "audit_date": date(2026, 11, 20),
        "parent_run_id": None,
        "started_at": NOON,
        "finished_at": NOON + timedelta(seconds=90.5),
        "tool_version": "1",
        "schema_version": "1",
        "rules_version": RULES_VERSION,
        "base_url": "https://cloud.mongodb.com",
        "credential_id": "mdb_sa_id_1",
        "input_source": "triples.csv",
        "input_sha256": "ab" * 32,
        "policy_sha256": "cd" * 32,
        "line_count": triples + duplicates + bad,
        "triple_count": triples,
        "duplicate_count": duplicates,
        "bad_line_count": bad,
        "request_count": triples,
        "refusal_count": 0,
    }
    return RunFacts(**known | changes)


def summary_of(
    *judgements: Judgement, bad_lines: Iterable[BadLine] = (), **changes: Any
) -> Summary:
    tally = tally_of(*judgements)
    return tally.summary(facts(tally, **changes), bad_lines)


def excused(judgement: Judgement) -> Judgement:
    """Let a waiver excuse everything that can be excused."""
    replace = msgspec.structs.replace
    return replace(
        judgement,
        outcomes=tuple(
            replace(one, excused_by="w-1") if one.verdict in ("FAIL", "ABSENT") else one
            for one in judgement.outcomes
        ),
        findings=tuple(replace(one, waiver_id="w-1") for one in judgement.findings),
    )


# --- laws ---------------------------------------------------------------------------------------


def test_the_laws_are_printed_with_both_their_sides() -> None:
    cluster = judged([PASSED, FAILED, ABSENT, UNKNOWN])
    laws = summary_of(cluster, duplicate_count=2, bad_line_count=3).laws

    assert [(law.text, law.left, law.right, law.holds) for law in laws] == [
        ("lines = triples + duplicates + bad lines", 9, 9, True),
        ("triples = pass + fail + absent + inconclusive", 4, 4, True),
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"line_count": 5}, "lines = triples .*: 5 is not 4"),
        ({"line_count": 3}, "lines = triples .*: 3 is not 4"),
        ({"duplicate_count": 1, "line_count": 4}, "lines = triples .*: 4 is not 5"),
        ({"bad_line_count": 1, "line_count": 4}, "lines = triples .*: 4 is not 5"),
        ({"triple_count": 5, "line_count": 5}, "triples = pass .*: 5 is not 4"),
        ({"triple_count": 3, "line_count": 3}, "triples = pass .*: 3 is not 4"),
    ],
)
def test_a_broken_law_is_the_programs_fault(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ProgramFault, match=words) as caught:
        summary_of(judged([PASSED, FAILED, ABSENT, UNKNOWN]), **changes)

    assert caught.value.exit_code == 70


def test_a_triple_without_a_verdict_breaks_a_law() -> None:
    judgement = judged([PASSED, FAILED])
    cluster = msgspec.structs.replace(judgement.cluster, fail_count=0)

    with pytest.raises(ProgramFault, match="2 is not 1"):
        summary_of(msgspec.structs.replace(judgement, cluster=cluster))


# --- the exit code ------------------------------------------------------------------------------

ENDS: list[tuple[list[Found], int, int]] = [
    ([PASSED], 0, 0),
    ([PASSED, FAILED], 0, 1),
    ([PASSED, ABSENT], 0, 1),
    ([FAILED, ABSENT], 0, 1),
    ([PASSED, UNKNOWN], 0, 3),
    ([UNKNOWN], 0, 3),
    ([PASSED], 1, 3),
    ([PASSED, UNKNOWN], 1, 3),
    ([PASSED, FAILED, UNKNOWN], 0, 4),
    ([PASSED, ABSENT, UNKNOWN], 0, 4),
    ([PASSED, FAILED], 1, 4),
    ([ABSENT], 1, 4),
]


@pytest.mark.parametrize(("found", "bad_lines", "code"), ENDS)
def test_how_a_run_ends(found: list[Found], bad_lines: int, code: int) -> None:
    summary = summary_of(judged(found), bad_line_count=bad_lines)

    assert summary.exit_code == code
    assert summary.complete is (code in (0, 1))
    assert summary.exit_meaning


@pytest.mark.parametrize(
    ("found", "bad_lines", "code"),
    [
        ([PASSED, FAILED, ABSENT], 0, 0),
        ([FAILED, ABSENT], 0, 0),
        ([PASSED, FAILED, UNKNOWN], 0, 3),
        ([PASSED, ABSENT], 1, 3),
    ],
)
def test_what_is_excused_is_not_open(found: list[Found], bad_lines: int, code: int) -> None:
    """A waiver changes how the run ends, and no verdict."""
    summary = summary_of(excused(judged(found)), bad_line_count=bad_lines)
    verdicts = judged(found).cluster

    assert summary.exit_code == code
    assert summary.counts.fail_count == verdicts.fail_count
    assert summary.excused_count == verdicts.fail_count + verdicts.absent_count


def test_a_cluster_finding_alone_is_open() -> None:
    """Every checkpoint of it may be excused: nothing to restore it from is another matter."""
    judgement = excused(judged([FAILED]))
    findings = tuple(msgspec.structs.replace(one, waiver_id=None) for one in judgement.findings)

    assert summary_of(msgspec.structs.replace(judgement, findings=findings)).exit_code == 1


# --- the answer ---------------------------------------------------------------------------------

HEADLINES: list[tuple[list[Found], int, str, str]] = [
    ([PASSED], 0, "Yes", "1 of 1 checkpoint passes: Atlas reports them restorable, and no rule"),
    ([PASSED] * 1200, 0, "Yes", "1,200 of 1,200 checkpoints pass: Atlas reports them restorable"),
    ([PASSED, FAILED], 0, "No", "1 of 2 checkpoints passes; 1 checkpoint fails."),
    ([PASSED, PASSED, FAILED, FAILED], 0, "No", "2 of 4 checkpoints pass; 2 checkpoints fail."),
    (
        [FAILED],
        0,
        "No",
        "0 of 1 checkpoint passes; 1 checkpoint fails, 1 cluster without a restorable checkpoint.",
    ),
    (
        [PASSED] * 2 + [ABSENT] * 1100,
        0,
        "No",
        "2 of 1,102 checkpoints pass; 1,100 absent.",
    ),
    (
        [PASSED, UNKNOWN],
        0,
        "Not all known",
        "1 of 2 checkpoints passes; 1 triple could not be determined (1 throttled).",
    ),
    (
        [UNKNOWN],
        0,
        "Nothing known",
        "0 of 1 checkpoint passes; 1 triple could not be determined (1 throttled).",
    ),
    (
        [PASSED, PASSED],
        2,
        "Not all known",
        "2 of 2 checkpoints pass; 2 input lines could not be used.",
    ),
    (
        [PASSED, PASSED, FAILED, ABSENT, UNKNOWN, UNKNOWN],
        1,
        "No",
        (
            "2 of 6 checkpoints pass; 1 checkpoint fails, 1 absent, 2 triples could not be "
            "determined (2 throttled), 1 input line could not be used."
        ),
    ),
]


@pytest.mark.parametrize(("found", "bad_lines", "answer", "headline"), HEADLINES)
def test_the_answer_in_a_word_and_a_sentence(
    found: list[Found], bad_lines: int, answer: str, headline: str
) -> None:
    summary = summary_of(judged(found), bad_line_count=bad_lines)

    assert summary.answer == answer
    assert summary.headline.startswith(headline)


def test_the_answer_says_when_everything_open_is_excused() -> None:
    summary = summary_of(excused(judged([PASSED, PASSED, FAILED, ABSENT])))

    assert summary.answer == "Yes, with exceptions"
    assert summary.headline == (
        "2 of 4 checkpoints pass; 1 checkpoint fails, 1 absent, all excused."
    )


def test_excused_findings_beside_unknown_triples_are_not_a_yes() -> None:
    assert summary_of(excused(judged([PASSED, FAILED, UNKNOWN]))).answer == "Not all known"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([PASSED, FAILED, ABSENT, UNKNOWN]), min_size=1, max_size=6),
    st.integers(0, 1),
    st.booleans(),
)
def test_the_answer_and_the_exit_code_never_disagree(
    found: list[Found], bad_lines: int, is_excused: bool
) -> None:
    """Yes is a 0 and nothing else, whatever the mixture."""
    judgement = excused(judged(found)) if is_excused else judged(found)
    summary = summary_of(judgement, bad_line_count=bad_lines)
    answers = {0: {"Yes"}, 1: {"No"}, 3: {"Not all known", "Nothing known"}, 4: {"No"}}

    assert summary.answer.partition(",")[0] in answers[summary.exit_code]


# --- what it lists ------------------------------------------------------------------------------


def test_a_summary_counts_projects_clusters_rules_and_kinds() -> None:
    other = "0" * 24
    summary = summary_of(
        judged([PASSED, FAILED, UNKNOWN]),
        judged([ABSENT, ABSENT], cluster="users"),
        judged([PASSED], group_id=other),
    )

    assert summary.counts.triple_count == 6
    assert [(p.group_id, p.cluster_count, p.triple_count) for p in summary.projects] == [
        (other, 1, 1),
        (G, 2, 5),
    ]
    assert [(rule.rule_id, rule.count) for rule in summary.rules] == [
        ("restorable-false", 1),
        ("no-restorable-checkpoint", 1),
    ]
    assert [(kind.kind, kind.verdict, kind.count) for kind in summary.kinds] == [
        ("checkpoint_absent", "ABSENT", 2),
        ("throttled", "INCONCLUSIVE", 1),
    ]
    assert (summary.kinds[0].meaning, summary.kinds[0].advice) == ADVICE[ABSENT.kind]
    assert summary.duration_s == 90.5
    assert summary.statements == STATEMENTS
    assert "supplied by the operator" in summary.population


def test_a_rule_is_told_with_its_controls() -> None:
    (rule, _) = summary_of(judged([FAILED])).rules
    terms = POLICY.rules["restorable-false"]

    assert (rule.severity, rule.scope, rule.controls) == (
        "critical",
        "checkpoint",
        terms.controls,
    )
    assert rule.title == RULES["restorable-false"].title


def test_a_rule_without_controls_has_none() -> None:
    judgement = judged([FAILED])
    findings = tuple(msgspec.structs.replace(one, controls="") for one in judgement.findings)
    summary = summary_of(msgspec.structs.replace(judgement, findings=findings))

    assert [rule.controls for rule in summary.rules] == [(), ()]


def test_rows_tell_the_reasons_and_the_labels() -> None:
    both = msgspec.structs.replace(FAILED, parts=())
    silent = Failure(FailureKind.NOT_ASKED)
    summary = summary_of(judged([PASSED, both, ABSENT, UNKNOWN, silent]))
    (failing,), (absent,), (unknown, unasked) = (
        rows.shown for rows in (summary.failing, summary.absent, summary.inconclusive)
    )

    assert failing.reasons == (
        "Atlas reports it as not restorable",
        "it has no parts that can be read",
    )
    assert absent.reasons == ("checkpoint_absent (404): CHECKPOINT_NOT_FOUND None.",)
    assert unknown.reasons == ("throttled (429): RATE_LIMITED Too often.",)
    assert unasked.reasons == ("not_asked",)
    assert (failing.input_line, failing.labels) == (3, {"team": "red"})


def test_reasons_stay_with_their_own_cluster() -> None:
    """Ids of checkpoints are no keys over all clusters."""
    one, two = judged([FAILED]), judged([PASSED], cluster="users")
    summary = summary_of(one, two)

    assert [row.cluster_name for row in summary.failing.shown] == ["orders"]


def test_clusters_stand_worst_first() -> None:
    found: dict[str, list[Found]] = {
        "a": [PASSED],
        "b": [PASSED, ABSENT],
        "c": [PASSED, UNKNOWN],
        "d": [PASSED, FAILED],
        "e": [PASSED, FAILED],
    }
    summary = summary_of(*(judged(one, cluster=name) for name, one in found.items()))

    assert [cluster.cluster_name for cluster in summary.clusters] == ["d", "e", "c", "b", "a"]


# --- bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [-1, 0, 1, 300])
def test_of_rows_the_first_are_shown_and_the_rest_is_counted(more: int) -> None:
    count = SHOWN_ROWS + more
    found: list[Found] = [*[FAILED] * count, *[ABSENT] * count, *[UNKNOWN] * count]
    summary = summary_of(judged(found))

    for rows in (summary.failing, summary.absent, summary.inconclusive):
        assert len(rows.shown) == min(count, SHOWN_ROWS)
        assert rows.left_out == max(0, more)
    assert summary.failing.shown[0].input_line == 2


def test_rows_that_pass_are_never_kept() -> None:
    tally = tally_of(judged([PASSED] * 10))

    assert tally._rows[Verdict.PASS].kept == []


def test_of_clusters_the_worst_are_shown_and_the_rest_is_counted() -> None:
    """However late the failing ones come."""
    tally = Tally(POLICY)
    late = {SHOWN_CLUSTERS + 500, 3 * SHOWN_CLUSTERS - 1}
    for number in range(3 * SHOWN_CLUSTERS):
        tally.add(judged([FAILED if number in late else PASSED], cluster=f"c{number:05}"))

        assert len(tally._clusters) <= 2 * SHOWN_CLUSTERS
    summary = tally.summary(facts(tally), ())

    assert [cluster.cluster_name for cluster in summary.clusters] == [
        *(f"c{number:05}" for number in sorted(late)),
        *(f"c{number:05}" for number in range(SHOWN_CLUSTERS - 2)),
    ]
    assert summary.clusters_left_out == 2 * SHOWN_CLUSTERS
    assert summary.counts.triple_count == 3 * SHOWN_CLUSTERS


def test_of_cluster_findings_the_first_are_shown_and_the_rest_is_counted() -> None:
    clusters = [judged([ABSENT], cluster=f"c{number:05}") for number in range(SHOWN_ROWS + 7)]
    summary = summary_of(*clusters)

    assert len(summary.cluster_findings) == SHOWN_ROWS
    assert summary.cluster_findings_left_out == 7
    assert f"{SHOWN_ROWS + 7} clusters without a restorable checkpoint" in summary.headline


@pytest.mark.parametrize("more", [0, 5])
def test_of_bad_lines_the_first_are_shown_and_the_rest_is_counted(more: int) -> None:
    count = SHOWN_ROWS + more
    summary = summary_of(judged([PASSED]), bad_lines=[BAD_LINE] * count, bad_line_count=count)

    assert summary.bad_lines.left_out == more
    assert summary.bad_lines.shown == ("line 9, column cluster_name: '.'; wanted: letters",) * (
        SHOWN_ROWS
    )


def test_bad_lines_are_not_read_to_the_end() -> None:
    def endless() -> Iterable[BadLine]:
        while True:
            yield BAD_LINE

    summary = summary_of(judged([PASSED]), bad_lines=endless(), bad_line_count=10**6)

    assert summary.bad_lines.left_out == 10**6 - SHOWN_ROWS


def test_a_notice_is_said_once_and_there_are_not_too_many() -> None:
    tally = tally_of(judged([PASSED]))
    for number in range(SHOWN_NOTICES):
        tally.notice(f"notice {number}")
        tally.notice("notice 0")
    said = [f"notice {number}" for number in range(SHOWN_NOTICES)]

    assert list(tally.summary(facts(tally), ()).notices) == said

    tally.notice("one more")

    assert list(tally.summary(facts(tally), ()).notices) == [
        *said,
        "There were more notices than these.",
    ]


# --- the label and the clock --------------------------------------------------------------------

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("moment", "is_noticed"),
    [
        (MIDNIGHT - DAY - INSTANT, True),
        (MIDNIGHT - DAY, False),
        (MIDNIGHT, False),
        (MIDNIGHT + 2 * DAY - INSTANT, False),
        (MIDNIGHT + 2 * DAY, True),
        (None, False),
    ],
)
def test_replies_far_from_the_label_are_noticed(moment: datetime | None, is_noticed: bool) -> None:
    """More than a day before the day that labels them, or after it."""
    summary = summary_of(judged([PASSED], fetched_at=moment))

    assert bool(summary.notices) is is_noticed


def test_the_notice_tells_the_first_and_the_last_reply() -> None:
    summary = summary_of(
        judged([PASSED], fetched_at=MIDNIGHT + 3 * DAY, cluster="a"),
        judged([PASSED], fetched_at=MIDNIGHT, cluster="b"),
        judged([PASSED], fetched_at=MIDNIGHT + DAY, cluster="c"),
    )
    (notice,) = summary.notices

    assert notice == (
        "The run is labelled 2026-11-20, but its replies are from "
        "2026-11-20 00:00 to 2026-11-23 00:00 UTC."
    )


# --- as a document ------------------------------------------------------------------------------


def test_a_summary_is_json_that_reads_back_the_same() -> None:
    found: list[Found] = [PASSED, FAILED, ABSENT, UNKNOWN]
    summary = summary_of(judged(found), bad_lines=[BAD_LINE], bad_line_count=1)

    assert msgspec.json.decode(msgspec.json.encode(summary), type=Summary) == summary


def test_only_codes_of_published_runs_are_given() -> None:
    codes = {summary_of(judged(found), bad_line_count=bad).exit_code for found, bad, _ in ENDS}

    assert codes == {
        ExitCode.COMPLETE,
        ExitCode.OPEN,
        ExitCode.INCOMPLETE,
        ExitCode.OPEN_AND_INCOMPLETE,
    }


# --- what a page is told besides counts ---


def test_findings_are_counted_by_owner_and_the_rest_together() -> None:
    """A column that names owners may hold anything: five are named, the others are counted."""
    owned = [
        msgspec.structs.replace(judged([FAILED], cluster=f"c-{n}"), owner=f"team-{min(n, 7)}")
        for n in range(10)
    ]
    rule = rules(summary_of(*owned))["restorable-false"]

    assert rule.owners[0] == OwnerCount("team-7", 3)
    assert len(rule.owners) == SHOWN_OWNERS
    assert sum(one.count for one in rule.owners) + rule.owners_left_out == rule.count == 10


def test_waived_findings_and_rules_that_fail_nothing_are_told_apart() -> None:
    judgement = judged([FAILED, FAILED])
    first, *others = judgement.findings
    waived = msgspec.structs.replace(first, waiver_id="W-1")
    softened = {**POLICY.rules}
    softened["restorable-false"] = msgspec.structs.replace(
        softened["restorable-false"], fails=False
    )
    tally = Tally(msgspec.structs.replace(POLICY, rules=softened))
    tally.add(msgspec.structs.replace(judgement, findings=(waived, *others)))
    rule = rules(tally.summary(facts(tally), ()))["restorable-false"]

    assert (rule.count, rule.waived_count, rule.fails) == (2, 1, False)


def test_among_clusters_of_one_verdict_those_without_a_point_come_first() -> None:
    statuses = [RpoStatus.WITHIN, RpoStatus.NOT_JUDGED, RpoStatus.EXCEEDED, RpoStatus.NO_POINT]
    clusters = [
        msgspec.structs.replace(judged([PASSED], cluster=status), rpo_status=status, owner="o")
        for status in statuses
    ]
    shown = summary_of(*clusters).clusters

    assert [cluster.rpo_status for cluster in shown] == statuses[::-1]
    assert {cluster.owner for cluster in shown} == {"o"}


def test_text_of_others_is_cut_and_its_end_is_seen() -> None:
    """The tables have all of it; a summary has as much as a page can bear."""
    wide = {f"{n}{'k' * 300}": "v" * 300 for n in range(50)}
    failure = Failure(FailureKind.CHECKPOINT_ABSENT, 404, "CODE", "d" * 1000)
    judgement = judged([failure])
    outcome = msgspec.structs.replace(judgement.outcomes[0], labels=json.dumps(wide))
    told = msgspec.structs.replace(judgement, outcomes=(outcome,), owner="o" * 300)
    summary = summary_of(told)
    (row,) = summary.absent.shown

    assert len(row.labels) == SHOWN_LABELS
    assert {len(text) for pair in row.labels.items() for text in pair} == {LABEL_CHARS}
    assert [len(reason) for reason in row.reasons] == [REASON_CHARS]
    assert row.reasons[0].endswith("d…")
    assert len(summary.clusters[0].owner) == LABEL_CHARS


def test_the_policy_is_told_in_short() -> None:
    thresholds = msgspec.structs.replace(POLICY.thresholds, rpo_age=timedelta(hours=6), gap=None)
    tally = Tally(msgspec.structs.replace(POLICY, name="strict", thresholds=thresholds))
    told = tally.summary(facts(tally), ()).policy

    assert told is not None
    assert told.name == "strict"
    assert told.thresholds["rpo_age"] == 21_600.0
    assert "gap" not in told.thresholds


def rules(summary: Summary) -> dict[str, RuleCount]:
    return {rule.rule_id: rule for rule in summary.rules}
