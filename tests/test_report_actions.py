"""What a report says is to be done."""

from datetime import date

import pytest

from pipeline.excuses import WaiverState
from pipeline.report.actions import Action, actions_of
from tests.summaries import clean, waiver

LAST_DAY = date(2026, 11, 25)


def told(state: WaiverState, count: int) -> list[Action]:
    return list(actions_of(clean(waivers=(waiver(state, "W-2", LAST_DAY, count),))))


@pytest.mark.parametrize(
    ("state", "count", "so"),
    [
        (WaiverState.LAPSES_SOON, 2, "Lapses on 2026-11-25"),
        (WaiverState.LAPSES_SOON, 0, "Lapses on 2026-11-25"),
        (WaiverState.LAPSED, 2, "Lapsed on 2026-11-25"),
    ],
)
def test_a_waiver_that_wants_a_decision_is_something_to_do(
    state: WaiverState, count: int, so: str
) -> None:
    (action,) = told(state, count)

    assert (action.count, action.so, action.section) == ("Waiver W-2", so, "waivers")
    assert action.who == "Owner: the owner"


def test_of_many_waivers_the_first_few_are_named() -> None:
    uses = [waiver(WaiverState.LAPSES_SOON, f"W-{number}", LAST_DAY, 1) for number in range(200)]
    found = list(actions_of(clean(waivers=tuple(uses))))

    assert [action.count for action in found] == [
        "Waiver W-0",
        "Waiver W-1",
        "Waiver W-2",
        "197 more waivers",
    ]


@pytest.mark.parametrize(("state", "count"), [(WaiverState.IN_FORCE, 2), (WaiverState.LAPSED, 0)])
def test_one_that_wants_none_is_not(state: WaiverState, count: int) -> None:
    assert told(state, count) == []
