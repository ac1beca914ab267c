"""Deadlines, in virtual time: who is late is ended, exactly then, and nobody else is."""

import asyncio
from collections.abc import Awaitable

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.deadlines import Deadlines
from tests.virtual_time import now, run


async def watched(deadlines: Deadlines, work: Awaitable[object]) -> str:
    """What becomes of `work` under a deadline, as the transport uses it."""
    task = deadlines.begin()
    try:
        await work
    except asyncio.CancelledError:
        if not deadlines.cancelled_by_us(task):
            raise
        return f"late at {now():g}"
    except ConnectionError:
        return "broken"
    finally:
        deadlines.end(task)
    return f"done at {now():g}"


async def later(deadlines: Deadlines, start: float, length: float) -> str:
    await asyncio.sleep(start)
    return await watched(deadlines, asyncio.sleep(length))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=20))
def test_who_takes_longer_is_ended_and_nobody_else(jobs: list[tuple[int, int]]) -> None:
    """Whenever they began, and whoever ended before them; the moments are exact."""

    async def main() -> list[str]:
        deadlines = Deadlines(10.5)
        return await asyncio.gather(*(later(deadlines, *job) for job in jobs))

    assert run(main()) == [
        f"done at {1000 + start + length:g}"
        if length < 10.5
        else f"late at {1000 + start + 10.5:g}"
        for start, length in jobs
    ]


def test_a_task_may_be_watched_again() -> None:
    """A worker sends one request after the other; one that was late does not spoil the next."""

    async def main() -> list[str]:
        deadlines = Deadlines(10)
        lengths = (3, 30, 9, 30, 1)
        return [await watched(deadlines, asyncio.sleep(length)) for length in lengths]

    assert run(main()) == [
        "done at 1003",
        "late at 1013",
        "done at 1022",
        "late at 1032",
        "done at 1033",
    ]


def test_a_cancellation_from_outside_is_no_deadline() -> None:
    async def main() -> tuple[bool, int]:
        task = asyncio.create_task(watched(Deadlines(10), asyncio.sleep(30)))
        await asyncio.sleep(5)
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled(), task.cancelling()

    assert run(main()) == (True, 1)


def test_a_cancellation_at_the_very_deadline_is_the_stronger() -> None:
    """Or a run that is stopped would go on."""

    async def main() -> bool:
        task = asyncio.create_task(watched(Deadlines(10), asyncio.sleep(30)))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_at(now() + 10, task.cancel)
        await asyncio.wait({task})
        return task.cancelled()

    assert run(main())


def test_another_trouble_takes_the_cancellation_back() -> None:
    """What was cancelled broke while it ended: its task is not taken for cancelled afterwards."""

    async def breaking() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise ConnectionError from None

    async def main() -> tuple[str, int]:
        task = asyncio.current_task()
        assert task is not None
        return await watched(Deadlines(10), breaking()), task.cancelling()

    assert run(main()) == ("broken", 0)
