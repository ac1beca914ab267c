"""Advice: nobody is left alone with a failure kind."""

import pytest

from pipeline.outcomes import FailureKind
from pipeline.report.advice import ADVICE


def test_every_failure_kind_has_advice_and_nothing_else_does() -> None:
    assert set(ADVICE) == set(FailureKind)


@pytest.mark.parametrize("kind", list(FailureKind))
def test_advice_says_what_it_means_and_what_to_do(kind: FailureKind) -> None:
    """Parts of sentences: no capital unless a name begins it, no full stop."""
    meaning, advice = ADVICE[kind]

    assert meaning
    assert advice
    assert not (meaning + advice).endswith(".")
    assert meaning != advice


def test_no_two_kinds_mean_the_same() -> None:
    assert len({meaning for meaning, _ in ADVICE.values()}) == len(FailureKind)
