"""Many triples → a stream of outcomes: workers for each project, gentle stop, cancellation.

Each project has a queue of its own and a few workers that take from it. Workers wait for turns of
the governor, so that many of them cost nothing; they are bounded by the slots a project may use,
not by the number of triples.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from pipeline.limits import Governor

#: What a stop grants to the requests in flight. Seconds.
DRAIN_S = 8.0

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Stage(NamedTuple):
    """A queue with what is done with each of its items, by so many workers at most."""

    work: Callable[[Any], Awaitable[None]]
    queue: Iterator[Any]
    workers: int | None = None


class Pool(Generic[Item, Outcome]):
    """Runs `ask` over queues of items and hands every outcome to `settle`.

    An exception from `settle` (or a bug in `ask`) ends the run: work in flight is let finish as for
    `stop`, then the exception is raised from `run`.
    """

    def __init__(
        self,
        governor: Governor,
        settle: Callable[[Item, Outcome], Awaitable[None]],
        *,
        drain_s: float = DRAIN_S,
    ) -> None:
        self._governor = governor
        self._settle = settle
        self._drain_s = drain_s
        self._stopping = asyncio.Event()
        self._trouble: Exception | None = None

    def stop(self) -> None:
        """Take no more work. `run` returns once the requests in flight have ended."""
        self._stopping.set()

    @property
    def is_stopped(self) -> bool:
        """Whether work may have been left undone."""
        return self._stopping.is_set()

    async def run(
        self, ask: Callable[[Item], Awaitable[Outcome]], queues: Mapping[str, Iterator[Item]]
    ) -> None:
        """Work off `queues`, one a project. Queues are read a little at a time."""

        async def work(item: Item) -> None:
            await self._settle(item, await ask(item))

        await self.run_chains(
            {group_id: iter([Stage(work, queue)]) for group_id, queue in queues.items()}
        )

    async def run_chains(self, chains: Mapping[str, "Iterator[Stage]"]) -> None:
        """Work off the stages of each project, one after the other, whatever the others are at.

        A stage is taken from its chain when the one before it is done.
        """
        if self.is_stopped:
            return
        slots = self._governor.concurrency if len(chains) == 1 else self._governor.fair_slots
        running = [
            asyncio.create_task(self._go_through(stages, 2 * slots)) for stages in chains.values()
        ]
        stopping: asyncio.Future[Any] = asyncio.create_task(self._stopping.wait())
        everyone: asyncio.Future[Any] = asyncio.gather(*running)
        try:
            await asyncio.wait({everyone, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not everyone.done():
                await self._governor.pause(self._drain_s)
        finally:
            stopping.cancel()
            for chain in running:
                chain.cancel()
            await asyncio.gather(*running, everyone, stopping, return_exceptions=True)
        if self._trouble is not None:
            raise self._trouble

    async def _go_through(self, stages: "Iterator[Stage]", most: int) -> None:
        try:
            for stage in stages:
                workers = min(most, stage.workers or most)
                await asyncio.gather(*(self._work(stage) for _ in range(workers)))
                if self.is_stopped:
                    return
        except Exception as trouble:  # noqa: BLE001 - a stage that could not be taken
            self._end_with(trouble)

    async def _work(self, stage: "Stage") -> None:
        try:
            for item in stage.queue:
                await stage.work(item)
                if self.is_stopped:
                    return
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            self._end_with(RuntimeError("something that a request waited for was cancelled"))
        except Exception as trouble:  # noqa: BLE001 - raised again by `run`, once the rest is safe
            self._end_with(trouble)

    def _end_with(self, trouble: Exception) -> None:
        self._trouble = self._trouble or trouble
        self.stop()


def is_cancelled() -> bool:
    """Whether somebody cancelled the current task, rather than what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
