"""Asking for limits: which projects, how many at a time, and when it ends; in virtual time."""

import asyncio
from collections.abc import Callable

import pytest

from pipeline.atlas import Limits, Reply, Request
from pipeline.errors import CredentialsRefused
from pipeline.outcomes import FailureKind
from pipeline.quota import ask_limits, worth_asking
from tests.doubles import Notebook, error, limits, reply, trouble
from tests.virtual_time import now, run

PROJECTS = [f"{n:024x}" for n in range(1, 31)]
TOLD = Limits(1200.0, 500.0, 60.0)
REFUSED = error(403)


class Desk:
    """Answers by the project asked for; keeps who was asked, and how many at the same time."""

    def __init__(self, answer: Callable[[int], Reply], seconds: float = 0.1) -> None:
        self.asked: list[int] = []
        self.most = 0
        self._in_flight = 0
        self._answer = answer
        self._seconds = seconds

    async def send(self, request: Request) -> Reply:
        number = int(request.path.partition("groupId=")[2][:24], 16)
        self.asked.append(number)
        self._in_flight += 1
        self.most = max(self.most, self._in_flight)
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self._in_flight -= 1
        return self._answer(number)


def ask(desk: Desk, projects: list[str] = PROJECTS) -> tuple[dict[str, Limits], Notebook]:
    notebook = Notebook()
    return run(ask_limits(desk, notebook, projects)), notebook


def test_projects_with_many_requests_are_worth_it_the_largest_first() -> None:
    assert worth_asking({"a": 100, "b": 101, "c": 0, "d": 5000}) == ["d", "b"]


def test_every_project_is_asked_once_and_a_few_at_a_time() -> None:
    desk = Desk(lambda number: limits(capacity=number))
    told, notebook = ask(desk)

    assert told == {f"{n:024x}": Limits(float(n), 500.0, 60.0) for n in range(1, 31)}
    assert sorted(desk.asked) == list(range(1, 31))
    assert desk.most == 8
    assert notebook.kinds == [None] * 30
    assert set(notebook.purposes) == {"limits"}


def test_nobody_to_ask_about_is_no_question() -> None:
    desk = Desk(lambda _: limits())

    assert ask(desk, [])[0] == {}
    assert desk.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        error(401),
        error(403),
        error(404, "GROUP_NOT_FOUND"),
        reply(200, {"results": []}),
        reply(200),
    ],
)
def test_two_refusals_in_a_row_are_enough(answer: Reply) -> None:
    desk = Desk(lambda _: answer)

    assert ask(desk)[0] == {}
    assert desk.asked == [1, 2]


@pytest.mark.parametrize(
    "answer",
    [
        reply(404),
        error(404, "RESOURCE_NOT_FOUND"),
        error(404, "NO_SUCH_THING"),
        error(406),
        error(410),
        error(429),
        error(402),
        error(403, "IP_ADDRESS_NOT_ON_ACCESS_LIST"),
    ],
)
def test_what_is_said_of_all_projects_needs_no_second_one(answer: Reply) -> None:
    desk = Desk(lambda _: answer)
    told, notebook = ask(desk)

    assert told == {}
    assert desk.asked == [1]
    assert notebook.kinds != [None]


def test_one_project_that_is_refused_does_not_hide_the_others() -> None:
    """Its role may be missing there only; refusals that do not follow on each other are its own."""
    desk = Desk(lambda number: REFUSED if number in (1, 9, 20) else limits())
    told, _ = ask(desk)

    assert set(told.values()) == {TOLD}
    assert len(told) == 27


@pytest.mark.parametrize("fault", [error(500), trouble(FailureKind.CUT)])
def test_stray_faults_are_no_refusals(fault: Reply) -> None:
    desk = Desk(lambda number: fault if number % 3 else limits())
    told, notebook = ask(desk)

    assert len(told) == 10
    assert len(notebook.kinds) == 30


def test_what_was_told_in_time_counts() -> None:
    """Ten seconds for all: nobody waits longer for what is only a help."""

    async def main() -> tuple[dict[str, Limits], float]:
        begun = now()
        return await ask_limits(Desk(lambda _: limits(), 3.0), Notebook(), PROJECTS), now() - begun

    told, seconds = run(main())

    assert seconds == pytest.approx(10.0)
    assert len(told) == 1 + 8 + 8


def test_what_the_transport_raises_goes_through_and_nobody_is_left_behind() -> None:
    def answer(number: int) -> Reply:
        if number == 3:
            raise CredentialsRefused("revoked")
        return limits()

    desk = Desk(answer)

    async def main() -> None:
        with pytest.raises(CredentialsRefused, match="revoked"):
            await ask_limits(desk, Notebook(), PROJECTS)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())

    assert max(desk.asked) < len(PROJECTS)


def test_cancelling_is_heard_at_once() -> None:
    async def main() -> float:
        begun = now()
        asking = asyncio.create_task(ask_limits(Desk(lambda _: limits()), Notebook(), PROJECTS))
        await asyncio.sleep(0.15)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return now() - begun

    assert run(main()) == pytest.approx(0.15)
