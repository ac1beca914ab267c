"""Nothing is lost and nothing half-done is seen, wherever a start fails or dies.

Each write, force to disk, rename and statement of a start is a numbered point (see `faultpoints`).
The walk goes through all of them: the start fails there, or is killed there, or is killed in the
middle of it; then the same command is started again. CHECKPOINT_AUDIT_TEST_POINTS=all walks
through every point also where the suite looks at some only.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, count, takewhile
from typing import NamedTuple

import pytest

from tests.durability import (
    EXPECTED,
    Books,
    Ended,
    Starter,
    Walker,
    fault_of,
    number_of,
    quick_folder,
    rows,
    small,
)
from tests.faultpoints import Fault, Lane, Mode, Point

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks a process with threads")

#: Workers that walk side by side, each with an Atlas and folders of its own.
WALKERS = 2

WHOLE_WALK = os.environ.get("CHECKPOINT_AUDIT_TEST_POINTS") == "all"


@pytest.fixture(scope="module")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Walker]]:
    with ExitStack() as stack:
        made = []
        for _ in range(WALKERS):
            folder = stack.enter_context(quick_folder())
            streams = tmp_path_factory.mktemp("streams")
            starter = stack.enter_context(Starter(streams))
            made.append(Walker(folder, stack.enter_context(small()), starter))
        yield made


class Case(NamedTuple):
    """A start that is broken at one point, from a state that has been prepared."""

    fault: Fault
    name: str


class Broken(NamedTuple):
    """How such a start ended, and what it left."""

    ended: Ended
    is_visible: bool
    has_journal: bool


def broken(walker: Walker, books: Books, case: Case) -> Broken:
    """Break a start; whatever happened, readers find whole runs and the end has its code."""
    ended = walker.start(case.fault)
    books.check()
    is_current = books.current == books.link == books.latest
    check_end(ended, Mode(case.fault.mode), is_current=is_current)
    return Broken(ended, len(books.runs) > 1, bool(books.journals))


def check_end(ended: Ended, mode: Mode, *, is_current: bool) -> None:
    if mode in {Mode.KILL, Mode.TORN}:
        assert ended.code == -9
        return
    assert "Traceback" not in ended.err, ended.err
    stopped = 143 if mode is Mode.STOP else 73
    assert ended.code in {EXPECTED, stopped}, ended.err
    assert f"exit {ended.code}: " in ended.err.splitlines()[-1]
    if ended.code == EXPECTED:
        assert is_current


def check_recovery(walker: Walker, books: Books, found: Broken) -> None:
    """The same command again completes; what was published is published once."""
    before = set(books.runs)
    ended = walker.start()
    assert ended.code == EXPECTED, ended.err
    books.check_settled()
    is_finished = found.is_visible and found.has_journal
    assert (ended.run in before) == is_finished
    assert set(books.runs) == before | {ended.run}
    assert books.current == ended.run
    assert rows(ended.run) == walker.wanted


def walk(walker: Walker, case: Case, *, asks_again: bool = True) -> str:
    """Break and recover once; gives what went wrong, or nothing."""
    try:
        books = walker.restore()
        asked = walker.asked()
        found = broken(walker, books, case)
        check_recovery(walker, books, found)
        if not asks_again and not found.is_visible:  # else the recovery was a run of its own
            assert not of_checkpoints(walker.asked() - asked)
    except AssertionError as error:
        return f"{case.fault.mode} at {case.fault.number}, {case.name}: {error}"
    return ""


def of_checkpoints(asked: Counter[str]) -> list[str]:
    return [path for path in asked if "/backupCheckpoints/" in path]


def walk_all(walkers: Sequence[Walker], cases: Sequence[Case], *, asks_again: bool = True) -> None:
    """Walk through all cases, shared out among the walkers; fails with all that went wrong."""

    def share(place: int) -> list[str]:
        mine = cases[place :: len(walkers)]
        return [walk(walkers[place], case, asks_again=asks_again) for case in mine]

    with ThreadPoolExecutor(len(walkers)) as pool:
        said = chain.from_iterable(pool.map(share, range(len(walkers))))
        wrong = [each for each in said if each]

    assert not wrong, "\n".join(wrong)


def cases(points: Sequence[Point], mode: Mode, *, every: int = 1) -> list[Case]:
    """Every point at which `mode` can be, or every so manieth; the committing thread's apart."""
    fit = [p for p in points if p.lane == Lane.MAIN and is_fit(p, mode)]
    step = 1 if WHOLE_WALK else every
    return [Case(fault_of(point, mode), point.name) for point in fit[::step]]


def is_fit(point: Point, mode: Mode) -> bool:
    if mode is Mode.TORN:
        return point.tears
    if mode is Mode.FAIL:
        return point.fails
    return mode is not Mode.FULL or point.fills


# --- a run beside a former one ---


@pytest.mark.parametrize("mode", [Mode.FAIL, Mode.KILL, Mode.TORN])
def test_every_point(walkers: list[Walker], mode: Mode) -> None:
    points = walkers[0].points()

    assert len(points) > 150
    walk_all(walkers, cases(points, mode))


@pytest.mark.parametrize("mode", [Mode.FULL, Mode.STOP])
def test_points_from_which_on_it_goes_wrong(walkers: list[Walker], mode: Mode) -> None:
    """A disk that stays full; a signal to stop."""
    walk_all(walkers, cases(walkers[0].points(), mode, every=12))


@pytest.mark.parametrize("mode", [Mode.FAIL, Mode.KILL])
def test_every_point_of_the_committing_thread(walkers: list[Walker], mode: Mode) -> None:
    """How many there are differs from start to start: until one ends before the point comes."""
    walker = walkers[0]

    def reached(number: int) -> bool:
        books = walker.restore()
        found = broken_commit(walker, books, Case(Fault(Lane.COMMITS, number, mode), "a commit"))
        return found is not None

    walked = list(takewhile(reached, count(1)))

    assert len(walked) >= 10


def broken_commit(walker: Walker, books: Books, case: Case) -> Broken | None:
    """Break and recover at a point of the committing thread; None where it was not reached."""
    ended = walker.start(case.fault)
    if not any(p.lane == Lane.COMMITS and p.number == case.fault.number for p in ended.points):
        return None
    books.check()
    check_end(ended, Mode(case.fault.mode), is_current=books.current == books.link == books.latest)
    found = Broken(ended, len(books.runs) > 1, bool(books.journals))
    check_recovery(walker, books, found)
    return found


# --- a run that was begun before ---


@pytest.fixture
def begun(walkers: list[Walker]) -> Iterator[Callable[..., list[Walker]]]:
    """Walkers whose run was begun and killed; afterwards they are as they were."""

    def begin(name: str, nth: int = 0) -> list[Walker]:
        for walker in walkers:
            walker.begin_and_kill(name, nth)
        return walkers

    yield begin
    for walker in walkers:
        walker.begin_anew()


@pytest.mark.parametrize("mode", [Mode.FAIL, Mode.KILL])
def test_opening_what_was_collected(begun: Callable[..., list[Walker]], mode: Mode) -> None:
    """A journal that cannot be gone on with now is gone on with later: nothing is asked twice."""
    walkers = begun("CREATE TEMP TABLE IF", 1)
    points = walkers[0].points()
    last = number_of(points, "CREATE TEMP TABLE IF")
    opening = [p for p in points if p.lane == Lane.MAIN and p.number <= last]

    walk_all(walkers, cases(opening, mode), asks_again=False)


@pytest.mark.parametrize("mode", [Mode.FAIL, Mode.KILL, Mode.TORN])
def test_finishing_what_is_visible(begun: Callable[..., list[Walker]], mode: Mode) -> None:
    """A run that was published and not yet pointed to is finished, not made again."""
    walkers = begun("open current.json")
    finishing = walkers[0].points()

    walk_all(walkers, cases(finishing, mode), asks_again=False)
