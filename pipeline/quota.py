"""The limits of many projects, asked for before their checkpoints are.

A call costs the user's bucket one token (300, and 100 more every 60 s) and no project's anything.
It is worth that only where many requests follow, and worth little time: whoever is not told starts
from the documented numbers and learns.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping

from pipeline.atlas import Limits, limits_request, read_limits
from pipeline.fetch import Record, Transport
from pipeline.outcomes import Failure, FailureKind

log = logging.getLogger(__name__)

#: A project with no more requests than this is not asked about: the call would be over 1 % of them.
LIMITS_WORTH = 100

#: So many calls are under way at a time, once one was answered well.
_AT_ONCE = 8

#: No more than so long is spent on all of them. Seconds.
_PATIENCE = 10.0

#: What one project's answer says for every other as well. (A 404 that names the project does not.)
_SAME_FOR_ALL = frozenset(
    {
        FailureKind.NOT_FOUND,
        FailureKind.ENDPOINT_NOT_FOUND,
        FailureKind.NOT_ACCEPTABLE,
        FailureKind.GONE,
        FailureKind.THROTTLED,
        FailureKind.ACCESS_LIST,
        FailureKind.ACCOUNT_SUSPENDED,
    }
)

#: After so many refusals in a row no further project is expected to answer better.
_REFUSALS = 2


def worth_asking(counts: Mapping[str, int]) -> list[str]:
    """Of projects with so many requests each, those to ask about; the largest first."""
    worth = [group_id for group_id, count in counts.items() if count > LIMITS_WORTH]
    return sorted(worth, key=lambda group_id: -counts[group_id])


async def ask_limits(
    transport: Transport, record: Record, group_ids: Iterable[str]
) -> dict[str, Limits]:
    """Ask for the limits of projects, a few at a time; gives those that were told, by group id.

    Every reply is recorded under the purpose "limits". Refusals and silence raise nothing, they end
    the asking; what `transport` and `record` raise goes through.
    """
    asking = _Asking(transport, record, group_ids)
    await asking.run()
    return asking.told


class _Asking:
    """One round of questions; `told` fills as the answers come."""

    def __init__(self, transport: Transport, record: Record, group_ids: Iterable[str]) -> None:
        self.told: dict[str, Limits] = {}
        self._transport = transport
        self._record = record
        self._queue: Iterator[str] = iter(group_ids)
        self._refusals = 0
        self._is_over = False

    async def run(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE) as patience:
                await self._ask_all()
        except TimeoutError:
            if not patience.expired():
                raise
            log.warning("no more limits are asked for after %g s", _PATIENCE)

    async def _ask_all(self) -> None:
        """One after the other until one is answered well: a refusal is mostly everybody's."""
        await self._ask_on(until_told=True)
        workers = [asyncio.create_task(self._ask_on()) for _ in range(_AT_ONCE)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _ask_on(self, *, until_told: bool = False) -> None:
        while not self._is_over and not (until_told and self.told):
            group_id = next(self._queue, None)
            if group_id is None:
                return
            await self._ask(group_id)

    async def _ask(self, group_id: str) -> None:
        request = limits_request(group_id)
        reply = await self._transport.send(request)
        found = read_limits(reply)
        self._record("limits", request, reply, found.kind if isinstance(found, Failure) else None)
        if isinstance(found, Failure):
            self._note(found)
        else:
            self._refusals = 0
            self.told[group_id] = found

    def _note(self, failure: Failure) -> None:
        """End the asking where the rest would be refused too; a stray fault says nothing.

        An answer without the set's limits is no such fault: it is likely to come again.
        """
        if failure.is_transient and failure.kind is not FailureKind.UNREADABLE:
            return
        self._refusals += 1
        if self._is_over or not (self._refusals >= _REFUSALS or failure.kind in _SAME_FOR_ALL):
            return
        self._is_over = True
        log.warning(
            "rate limits are not told (%s); starting from the documented ones, and learning",
            " ".join(filter(None, (str(failure.http_status), failure.error_code))),
        )
