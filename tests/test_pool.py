"""Many triples, a gentle stop, and what happens when something breaks; in virtual time."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import CredentialsRefused, OutputsUnwritable
from pipeline.fetch import Fetcher, Item
from pipeline.limits import Governor
from pipeline.outcomes import Failed, Failure, FailureKind, Outcome
from pipeline.pool import Pool
from tests.doubles import Notebook, Player, Served, always, error, group, hanging, items, queues
from tests.virtual_time import now, run

DONE = Failed(Failure(FailureKind.NOT_FOUND), 1, 1)


class Ledger:
    """Settles outcomes, counted by triple."""

    def __init__(self) -> None:
        self.settled: Counter[int] = Counter()

    async def __call__(self, item: Item, outcome: Outcome) -> None:
        self.settled[item.triple_id] += 1


class Night:
    """A pool with all that belongs to it."""

    def __init__(
        self,
        settle: Callable[[Item, Outcome], Awaitable[None]] | None = None,
        concurrency: int = 8,
        **players: Player,
    ) -> None:
        self.transport = Served(**players)
        self.governor = Governor(concurrency=concurrency)
        self.ledger = Ledger()
        self.pool = Pool(self.governor, settle or self.ledger)
        self.fetch = Fetcher(self.transport, self.governor, Notebook()).fetch

    async def run(self, **counts: int) -> None:
        await self.pool.run(self.fetch, queues(**counts))


@given(counts=st.lists(st.integers(0, 60), max_size=6), concurrency=st.integers(1, 12))
@settings(deadline=None, max_examples=50)
def test_every_item_is_settled_exactly_once(counts: list[int], concurrency: int) -> None:
    night = Night(concurrency=concurrency)
    wanted = {f"p{n}": count for n, count in enumerate(counts)}
    run(night.run(**wanted))

    assert night.ledger.settled == Counter(
        item.triple_id for n, count in enumerate(counts) for item in items(count, n)
    )


def test_an_empty_run_ends() -> None:
    run(Night().run())


def test_queues_are_read_a_little_at_a_time() -> None:
    """A million triples are not in memory: only as many are taken as may be worked on."""
    taken = 0

    def queue() -> Iterator[Item]:
        nonlocal taken
        for item in items(1000):
            taken += 1
            yield item

    async def main() -> None:
        night = Night(p1=hanging())
        running = asyncio.create_task(night.pool.run(night.fetch, {group(1): queue()}))
        await asyncio.sleep(1)
        running.cancel()
        await asyncio.wait({running})

    run(main())

    assert taken <= 2 * 8


# ── stop ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_stop_lets_requests_in_flight_end_and_begins_no_more() -> None:
    """What was answered is settled; the rest is left for the next start."""

    async def main() -> None:
        night = Night()
        running = asyncio.create_task(night.run(p1=100, p2=100))
        await asyncio.sleep(0.55)
        sent, before = night.transport.total, night.ledger.settled.total()
        in_flight = night.governor.in_flight
        night.pool.stop()
        await running

        assert in_flight
        assert night.transport.total == sent
        assert night.ledger.settled.total() == before + in_flight == sent
        assert night.pool.is_stopped

    run(main())


def test_a_stop_waits_no_longer_than_the_drain() -> None:
    """A container gets ten seconds; a hanging request is given up before they are over."""

    async def main() -> float:
        night = Night(p1=hanging(3600))
        running = asyncio.create_task(night.run(p1=100))
        await asyncio.sleep(1)
        begun = now()
        night.pool.stop()
        await running
        assert night.governor.in_flight == 0
        assert not night.ledger.settled
        return now() - begun

    assert run(main()) == pytest.approx(8.0)


def test_a_stop_does_not_wait_for_who_only_waits() -> None:
    """Triples between two attempts hold no request; the stop does not wait out their sleep."""

    async def main() -> float:
        night = Night(p1=always(error(503, retry_after="100")))
        running = asyncio.create_task(night.run(p1=4))
        await asyncio.sleep(1)
        begun = now()
        night.pool.stop()
        await running
        return now() - begun

    assert run(main()) == 0.0


def test_a_pool_that_was_stopped_asks_nothing() -> None:
    """The signal came before the first request: not one is sent."""
    night = Night()
    night.pool.stop()
    run(night.run(p1=10))

    assert night.transport.total == 0


# ── trouble ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("trouble", [OutputsUnwritable("disk full"), ValueError("a bug")])
def test_trouble_in_settle_ends_the_run_after_the_requests_in_flight(trouble: Exception) -> None:
    """Their answers are settled too where that works; then the first trouble is raised."""
    settled = 0

    async def settle(item: Item, _: Outcome) -> None:
        nonlocal settled
        settled += 1
        if settled == 10:
            raise trouble

    night = Night(settle)
    with pytest.raises(type(trouble), match=str(trouble)):
        run(night.run(p1=100, p2=100))

    # Eight are in flight at a time; a slot that is given back is given on at once.
    assert settled == night.transport.total
    assert 10 <= settled < 10 + 2 * 8
    assert night.governor.in_flight == 0


def test_the_first_trouble_is_the_one_that_is_raised() -> None:
    count = 0

    async def settle(item: Item, _: Outcome) -> None:
        nonlocal count
        count += 1
        raise ValueError(f"number {count}")

    with pytest.raises(ValueError, match=r"number 1$"):
        run(Night(settle).run(p1=50))

    assert count > 1


def test_trouble_in_asking_ends_the_run() -> None:
    """Credentials that were revoked, or a bug."""
    night = Night()

    async def ask(item: Item) -> Outcome:
        await asyncio.sleep(0.1)
        raise CredentialsRefused("revoked")

    with pytest.raises(CredentialsRefused):
        run(night.pool.run(ask, queues(p1=50, p2=50)))

    assert not night.ledger.settled


def test_something_cancelled_from_within_is_trouble_and_no_end() -> None:
    """A task that several wait for dies: the run must not look as if it had asked everything."""
    night = Night()

    async def ask(item: Item) -> Outcome:
        await asyncio.sleep(0.1)
        if item.triple_id % 10 == 5:
            raise asyncio.CancelledError
        return DONE

    with pytest.raises(RuntimeError, match="cancelled"):
        run(night.pool.run(ask, queues(p1=50)))


def test_cancelling_the_run_cancels_the_requests() -> None:
    async def main() -> None:
        night = Night(p1=hanging())
        running = asyncio.create_task(night.run(p1=50, p2=0))
        await asyncio.sleep(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

        assert night.governor.in_flight == 0
        assert sum(night.transport.in_flight.values()) == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_a_run_leaves_no_task_behind() -> None:
    async def main() -> None:
        await Night().run(p1=20, p2=20)

        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
