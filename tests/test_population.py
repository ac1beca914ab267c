"""The population: what makes it too small or too old to be taken for whole."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.population import Expected, Population, shortfalls

NIGHT = datetime(2026, 11, 20, 3, tzinfo=UTC)


def population(
    triples: int = 100, age: timedelta | None = None, before: int | None = None
) -> Population:
    return Population(
        triples=triples,
        began_at=NIGHT,
        changed_at=None if age is None else NIGHT - age,
        before=before,
        before_run="run-1",
    )


def said(of: Population, allowed_drop: float = 0.2, **expected: object) -> tuple[str, ...]:
    return shortfalls(of, Expected(**expected), allowed_drop)  # type: ignore[arg-type]


def test_nothing_is_expected_of_a_first_run() -> None:
    assert said(population(1)) == ()


@pytest.mark.parametrize(("triples", "is_whole"), [(99, False), (100, True), (101, True)])
def test_fewer_than_expected(triples: int, is_whole: bool) -> None:
    found = said(population(triples), min_triples=100)
    assert (found == ()) is is_whole
    assert is_whole or found == ("99 triples in the input, 100 at least expected.",)


@pytest.mark.parametrize(
    ("before", "triples", "is_whole"),
    [
        (100, 80, True),
        (100, 79, False),
        (100, 500, True),
        (5, 4, True),
        (5, 3, False),
        (1, 1, True),
    ],
)
def test_a_drop_of_more_than_a_fifth(before: int, triples: int, is_whole: bool) -> None:
    assert (said(population(triples, before=before)) == ()) is is_whole


@pytest.mark.parametrize(
    ("allowed", "is_whole"), [(0.0, False), (0.49, False), (0.5, True), (1.0, True)]
)
def test_the_policy_says_how_much_may_be_gone(allowed: float, is_whole: bool) -> None:
    assert (said(population(50, before=100), allowed) == ()) is is_whole


def test_a_drop_says_what_it_is_compared_with() -> None:
    [sentence] = said(population(1, before=1000))
    assert sentence == (
        "The population shrank: 1 triple, 1,000 in the last complete run run-1; a drop of more "
        "than 20% needs --accept-drop."
    )


def test_a_drop_can_be_accepted_and_nothing_else_with_it() -> None:
    assert said(population(10, before=100), accept_drop=True) == ()
    assert len(said(population(10, before=100), accept_drop=True, min_triples=11)) == 1


@pytest.mark.parametrize(("age", "is_whole"), [(35.9, True), (36, True), (36.1, False), (-5, True)])
def test_an_input_that_is_too_old(age: float, is_whole: bool) -> None:
    found = said(population(age=timedelta(hours=age)), max_age=timedelta(hours=36))
    assert (found == ()) is is_whole


def test_the_age_of_an_input_that_has_none_is_not_judged() -> None:
    assert said(population(age=None), max_age=timedelta(hours=1)) == ()


def test_everything_is_said() -> None:
    short = population(10, timedelta(days=3), before=100)
    found = said(short, min_triples=20, max_age=timedelta(hours=36))
    assert [sentence.split()[0] for sentence in found] == ["10", "The", "The"]
    assert found[2] == (
        "The input was last changed 2026-11-17 03:00 UTC, 72.0 hours before the run began; "
        "36.0 hours are allowed."
    )
