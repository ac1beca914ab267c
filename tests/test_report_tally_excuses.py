"""What excuses do to a run: how it ends, what it answers, and what it says about waivers."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from pipeline.checkpoints import Checkpoint, CheckpointRef, Part
from pipeline.findings import judge
from pipeline.outcomes import Answer, Failure, FailureKind, microseconds
from pipeline.policy import Policy, Waiver, default_policy
from pipeline.report.summary import RunFacts, Summary
from pipeline.report.tally import SHOWN_NOTICES, SHOWN_ROWS, Tally
from pipeline.rules import RULES_VERSION

Found = Checkpoint | Failure
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
PASSED = Checkpoint(
    started=NOON,
    completed=NOON,
    timestamp=NOON,
    restorable=True,
    parts=(Part("REPLICA_SET", "rs", token_discovered=True),),
)
FAILED = msgspec.structs.replace(PASSED, restorable=False)
ABSENT = Failure(FailureKind.CHECKPOINT_ABSENT, 404, "CHECKPOINT_NOT_FOUND")
HIDDEN = Failure(FailureKind.CLUSTER_NOT_FOUND, 404, "CLUSTER_NOT_FOUND")
THROTTLED = Failure(FailureKind.THROTTLED, 429)

KINDS = (FailureKind.CHECKPOINT_ABSENT, FailureKind.CLUSTER_NOT_FOUND)
BARREN = "no-restorable-checkpoint"


def waiver(waiver_id: str = "W-1", **changes: Any) -> Waiver:
    known: dict[str, Any] = {"expires_on": date(2027, 3, 31)}
    return Waiver(id=waiver_id, reason="r", owner="team", approver="a", **known | changes)


def policy(*waivers: Waiver, **changes: Any) -> Policy:
    return msgspec.structs.replace(default_policy(), waivers=waivers, **changes)


def summary_of(terms: Policy, found: Sequence[Found], bad_lines: int = 0) -> Summary:
    answers = [
        Answer(
            CheckpointRef("5f" * 12, "orders", f"{number:024x}"),
            input_line=number + 2,
            labels="{}",
            found=one,
            attempts=1,
            fetched_by="get",
            fetched_at=microseconds(NOON),
        )
        for number, one in enumerate(found)
    ]
    tally = Tally(terms)
    tally.add(judge(answers, terms, NOON))
    return tally.summary(facts(len(answers), bad_lines), ())


def facts(triples: int, bad_lines: int) -> RunFacts:
    return RunFacts(
        run_id="20261120T030000Z-nightly-7f3a9c",
        audit_name="nightly",
        audit_date=date(2026, 11, 20),
        parent_run_id=None,
        started_at=NOON,
        finished_at=NOON + timedelta(seconds=90),
        tool_version="1",
        schema_version="1",
        rules_version=RULES_VERSION,
        base_url="https://cloud.mongodb.com",
        credential_id="mdb_sa_id_1",
        input_source="triples.csv",
        input_sha256="ab" * 32,
        policy_sha256="cd" * 32,
        line_count=triples + bad_lines,
        triple_count=triples,
        duplicate_count=0,
        bad_line_count=bad_lines,
        request_count=triples,
        refusal_count=0,
    )


EVERYTHING = policy(waiver(rules=("restorable-false", BARREN), kinds=KINDS))
ONE_HIDDEN = "1 triple could not be determined (1 cluster_not_found)"

ENDS = [
    ([PASSED, FAILED], 0, 0, "Yes, with exceptions", "1 checkpoint fails, all excused."),
    ([PASSED, ABSENT], 0, 0, "Yes, with exceptions", "1 absent, all excused."),
    ([PASSED, HIDDEN], 0, 0, "Yes, with exceptions", f"{ONE_HIDDEN}, all excused."),
    (
        [FAILED],
        0,
        0,
        "Yes, with exceptions",
        "1 checkpoint fails, 1 cluster without a restorable checkpoint, all excused.",
    ),
    (
        [PASSED, HIDDEN, THROTTLED],
        0,
        3,
        "Not all known",
        ("2 triples could not be determined (1 cluster_not_found, 1 throttled), 1 triple excused."),
    ),
    (
        [PASSED, HIDDEN],
        1,
        3,
        "Not all known",
        f"{ONE_HIDDEN}, 1 input line could not be used, 1 triple excused.",
    ),
]


@pytest.mark.parametrize(("found", "bad_lines", "code", "answer", "end"), ENDS)
def test_what_is_excused_is_neither_open_nor_unknown(
    found: list[Found], bad_lines: int, code: int, answer: str, end: str
) -> None:
    summary = summary_of(EVERYTHING, found, bad_lines)

    assert (summary.exit_code, summary.answer) == (code, answer)
    assert summary.headline.endswith(f"; {end}")
    assert summary.complete is (code == 0)
    assert summary.excused_count == sum(one not in (PASSED, THROTTLED) for one in found)


@pytest.mark.parametrize(
    ("found", "code"),
    [([PASSED, FAILED], 1), ([PASSED, ABSENT], 1), ([PASSED, HIDDEN], 3), ([FAILED, HIDDEN], 4)],
)
def test_without_the_waiver_the_same_is_open_or_unknown(found: list[Found], code: int) -> None:
    summary = summary_of(policy(), found)

    assert (summary.exit_code, summary.excused_count, summary.waivers) == (code, 0, ())


def test_a_verdict_stays_what_it_is() -> None:
    found: list[Found] = [PASSED, FAILED, ABSENT, HIDDEN]

    assert summary_of(EVERYTHING, found).counts == summary_of(policy(), found).counts


def test_what_is_open_is_told_beside_what_is_excused() -> None:
    summary = summary_of(policy(waiver(kinds=KINDS)), [PASSED, FAILED, ABSENT])

    assert (summary.exit_code, summary.answer) == (1, "No")
    assert summary.headline.endswith("; 1 checkpoint fails, 1 absent, 1 triple excused.")


def test_a_finding_on_a_cluster_is_open_unless_it_is_a_warning() -> None:
    terms = policy(waiver(rules=("restorable-false",)))
    barren = terms.rules[BARREN]
    warning = msgspec.structs.replace(barren, fails=False)
    warned = msgspec.structs.replace(terms, rules=terms.rules | {BARREN: warning})

    assert summary_of(terms, [FAILED]).exit_code == 1
    assert summary_of(warned, [FAILED]).exit_code == 0
    assert [one.rule_id for one in summary_of(warned, [FAILED]).cluster_findings] == [BARREN]


def test_findings_that_fail_nothing_are_beside_a_yes() -> None:
    terms = policy()
    warning = msgspec.structs.replace(terms.rules["completed-missing"], fails=False)
    warned = msgspec.structs.replace(terms, rules=terms.rules | {"completed-missing": warning})
    unfinished = msgspec.structs.replace(PASSED, completed=None)
    summary = summary_of(warned, [PASSED, unfinished])

    assert (summary.exit_code, summary.answer) == (0, "Yes")
    assert summary.headline == (
        "2 of 2 checkpoints pass: Atlas reports them restorable; 1 finding beside."
    )


def test_a_rule_that_is_switched_off_is_not_asked() -> None:
    terms = policy()
    off = msgspec.structs.replace(terms.rules["completed-missing"], enabled=False)
    without = msgspec.structs.replace(terms, rules=terms.rules | {"completed-missing": off})
    unfinished = msgspec.structs.replace(PASSED, completed=None)

    assert [one.rule_id for one in summary_of(terms, [unfinished]).rules] == [
        "completed-missing",
        BARREN,
    ]
    assert summary_of(without, [unfinished]).rules == ()


# --- waivers ------------------------------------------------------------------------------------


def test_every_waiver_is_shown_also_when_everything_passes() -> None:
    terms = policy(
        waiver("LATER", rules=(BARREN,)),
        waiver("GONE", rules=(BARREN,), expires_on=date(2026, 11, 19)),
    )
    summary = summary_of(terms, [PASSED])

    assert [(use.id, use.state, use.count) for use in summary.waivers] == [
        ("GONE", "lapsed", 0),
        ("LATER", "in_force", 0),
    ]
    assert summary.notices == ()


def test_a_waiver_that_is_missed_and_one_about_to_lapse_are_noticed() -> None:
    terms = policy(
        waiver("GONE", rules=("restorable-false",), expires_on=date(2026, 11, 19)),
        waiver("SOON", kinds=KINDS, expires_on=date(2026, 11, 26)),
    )
    summary = summary_of(terms, [PASSED, FAILED, ABSENT, HIDDEN])

    assert summary.exit_code == 1
    assert summary.failing.shown[0].reasons == (
        "Atlas reports it as not restorable; waiver GONE lapsed on 2026-11-19",
    )
    assert summary.notices == (
        "Waiver GONE of team lapsed on 2026-11-19: 1 triple or cluster is open again.",
        "Waiver SOON of team lapses on 2026-11-26, in 6 days; it excuses 2 triples or clusters.",
    )


def test_waivers_and_their_notices_are_bounded() -> None:
    many = (
        waiver(f"W-{number:03}", rules=(BARREN,), expires_on=date(2026, 11, 21))
        for number in range(SHOWN_ROWS + 1)
    )
    gone = waiver("X", rules=("restorable-false",), expires_on=date(2026, 11, 19))
    summary = summary_of(policy(*many, gone), [PASSED, FAILED])

    assert (len(summary.waivers), summary.waivers_left_out) == (SHOWN_ROWS, 2)
    assert summary.waivers[0].id == "X"
    assert len(summary.notices) == SHOWN_NOTICES + 1
    assert (
        summary.notices[-1]
        == f"{SHOWN_ROWS + 2 - SHOWN_NOTICES} more waivers have lapsed or lapse soon."
    )


def test_exactly_as_many_notices_as_are_shown_leave_out_none() -> None:
    many = (
        waiver(f"W-{number:03}", rules=(BARREN,), expires_on=date(2026, 11, 21))
        for number in range(SHOWN_NOTICES)
    )

    assert len(summary_of(policy(*many), [PASSED]).notices) == SHOWN_NOTICES
