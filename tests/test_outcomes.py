"""Failure kinds: each belongs to exactly the sets that are meant, and to one verdict."""

import pytest

from pipeline.outcomes import (
    ABSENT_KINDS,
    RUN_ENDING_KINDS,
    TRANSIENT_KINDS,
    UNAVAILABLE_KINDS,
    UNSETTLED_KINDS,
    UNTOLD_KINDS,
    Failure,
    FailureKind,
    Verdict,
)

SETS = {
    "absent": ABSENT_KINDS,
    "transient": TRANSIENT_KINDS,
    "unavailable": UNAVAILABLE_KINDS,
    "unsettled": UNSETTLED_KINDS,
    "untold": UNTOLD_KINDS,
    "run-ending": RUN_ENDING_KINDS,
}
OUTAGE = {"transient", "unavailable", "unsettled"}
WITHDRAWN = {"unavailable", "unsettled"}
#: Every kind and the sets it belongs to, written down a second time.
BELONGS: dict[str, set[str]] = {
    "checkpoint_absent": {"absent"},
    "backups_absent": {"absent"},
    "cluster_not_found": set(),
    "project_not_found": set(),
    "endpoint_not_found": WITHDRAWN,
    "not_found": set(),
    "bad_request": set(),
    "unauthenticated": set(),
    "project_refused": set(),
    "account_suspended": {"run-ending"},
    "access_list": {"run-ending"},
    "not_acceptable": WITHDRAWN,
    "gone": WITHDRAWN,
    "unexpected_status": set(),
    "other_checkpoint": set(),
    "too_large": set(),
    "throttled": {"unsettled", "untold"},
    "server_error": OUTAGE,
    "unreachable": OUTAGE,
    "timed_out": OUTAGE,
    "cut": OUTAGE,
    "unreadable": OUTAGE,
    "not_asked": WITHDRAWN | {"untold"},
}


@pytest.mark.parametrize("kind", list(FailureKind))
def test_a_kind_belongs_to_exactly_its_sets(kind: FailureKind) -> None:
    assert {name for name, kinds in SETS.items() if kind in kinds} == BELONGS[kind]


@pytest.mark.parametrize("kind", list(FailureKind))
def test_only_atlas_own_word_is_an_absence_and_nothing_is_a_pass(kind: FailureKind) -> None:
    absent = kind in ("checkpoint_absent", "backups_absent")

    assert Failure(kind).verdict is (Verdict.ABSENT if absent else Verdict.INCONCLUSIVE)


@pytest.mark.parametrize("kind", list(FailureKind))
def test_what_is_transient_is_asked_again(kind: FailureKind) -> None:
    assert Failure(kind).is_transient is ("transient" in BELONGS[kind])


def test_a_refusal_is_the_buckets_business_and_no_retry() -> None:
    assert not Failure(FailureKind.THROTTLED).is_transient


def test_the_words_are_a_contract() -> None:
    """They stand in published tables and in journals that are gone on with."""
    assert [kind.value for kind in FailureKind] == list(BELONGS)
    assert [verdict.value for verdict in Verdict] == ["PASS", "FAIL", "ABSENT", "INCONCLUSIVE"]


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Failure(FailureKind.TIMED_OUT), "timed_out"),
        (Failure(FailureKind.CUT, None, None, "ended early"), "ended early"),
        (Failure(FailureKind.NOT_FOUND, 404, "NO_SUCH", "not there"), "404 NO_SUCH not there"),
    ],
)
def test_a_failure_says_what_was_said(failure: Failure, said: str) -> None:
    assert str(failure) == said
