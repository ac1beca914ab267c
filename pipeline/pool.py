"""Many triples → a stream of outcomes: workers for each project, gentle stop, cancellation.

Each project has a queue of its own and a few workers that take from it. Workers wait for turns of
the governor, so that many of them cost nothing; they are bounded by the slots a project may use,
not by the number of triples.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from pipeline.limits import Governor

#: What a stop grants to the requests in flight. Seconds.
DRAIN_S = 8.0

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


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
        if self.is_stopped:
            return
        slots = self._governor.concurrency if len(queues) == 1 else self._governor.fair_slots
        workers = [
            asyncio.create_task(self._work(ask, queue))
            for queue in queues.values()
            for _ in range(2 * slots)
        ]
        stopping: asyncio.Future[Any] = asyncio.create_task(self._stopping.wait())
        everyone: asyncio.Future[Any] = asyncio.gather(*workers)
        try:
            await asyncio.wait({everyone, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not everyone.done():
                await self._governor.pause(self._drain_s)
        finally:
            stopping.cancel()
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, everyone, stopping, return_exceptions=True)
        if self._trouble is not None:
            raise self._trouble

    async def _work(self, ask: Callable[[Item], Awaitable[Outcome]], queue: Iterator[Item]) -> None:
        try:
            for item in queue:
                await self._settle(item, await ask(item))
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
