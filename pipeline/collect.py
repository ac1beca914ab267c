"""Collect: ask Atlas for everything the journal still lacks, and journal every reply.

What ends a whole run is told by `standing` (no connection at all, credentials that Atlas refuses,
an access list, a suspended account) and `silence` (Atlas went away), or is a journal that cannot be
written. Everything else is an outcome of one triple.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import msgspec

from pipeline.atlas import Reply, Request
from pipeline.errors import AtlasUnavailable
from pipeline.fetch import Fetcher, Item, Retry, Transport
from pipeline.journal import Journal
from pipeline.limits import Governor
from pipeline.outcomes import (
    TRANSIENT_KINDS,
    UNAVAILABLE_KINDS,
    Failed,
    Failure,
    FailureKind,
    FetchBy,
    Outcome,
)
from pipeline.pool import Pool, Stage, is_cancelled
from pipeline.quota import ask_limits, worth_asking
from pipeline.silence import Silence
from pipeline.standing import Standing
from pipeline.sweep import Sweeper, clusters

#: Lists of one project that are read at a time; each holds a cluster's triples in memory.
_SWEEPERS = 4

#: What a page of a list answers, taken low: by lists a project costs so many times fewer requests.
_TRIPLES_A_PAGE = 250

#: How often a disk that stalls is looked at again. Seconds.
_BEHIND_S = 0.1

#: What is asked once more at the end.
_ASKED_AGAIN = TRANSIENT_KINDS | {FailureKind.NOT_ASKED, FailureKind.UNAUTHENTICATED}

#: And again if Atlas was away meanwhile, up to so many times in all: outages may go on and on.
_TIMES_AGAIN = 3


class Asking(msgspec.Struct, frozen=True):
    """How to ask: slots, share of each project's quota, retries, whether answers are wrapped.

    `by` lists: triples of one cluster are answered from its list, where that needs fewer requests.
    By `auto`, in projects that have more triples than their bucket gives out at once.
    """

    concurrency: int = 64
    max_share: float = 0.9
    retry: Retry = Retry()
    envelope: bool = False
    by: FetchBy = FetchBy.GET


class _Unhurried:
    """Sends nothing while the journal's disk stalls, or the answers would fill the memory."""

    def __init__(self, transport: Transport, journal: Journal) -> None:
        self._transport = transport
        self._journal = journal

    def send(self, request: Request) -> Coroutine[Any, Any, Reply]:
        if self._journal.is_behind:
            return self._send_later(request)
        return self._transport.send(request)

    async def _send_later(self, request: Request) -> Reply:
        while self._journal.is_behind:  # noqa: ASYNC110 - the thread that writes knows no loop
            await asyncio.sleep(_BEHIND_S)
        return await self._transport.send(request)


class Collector:
    """Asks for all that is pending in a journal. One for a run."""

    def __init__(
        self,
        transport: Transport,
        journal: Journal,
        asking: Asking,
        settled: Callable[[Outcome], None],
    ) -> None:
        """`settled` is told every outcome, for who watches the progress."""
        self._transport = transport
        self._journal = journal
        self._settled = settled
        self._governor = Governor(concurrency=asking.concurrency, share=asking.max_share)
        self._fetcher = Fetcher(
            _Unhurried(transport, journal),
            self._governor,
            self._record,
            retry=asking.retry,
            envelope=asking.envelope,
        )
        self._by = asking.by
        self._pool = Pool(self._governor, self._settle)
        self._sweeper = Sweeper(self._fetcher, self._settle, self._watch_list)
        self._standing = Standing(transport, self._record)
        self._silence = Silence(self._standing.ask, self._kept)
        self._step: asyncio.Task[Any] | None = None
        self._is_expired = False

    def stop(self) -> None:
        """Ask nothing more; `run` returns when the requests in flight have ended.

        It waits for these no longer than the pool's drain, whatever the run is at.
        """
        self._pool.stop()
        if self._step is not None:
            self._step.cancel()

    def expire(self) -> None:
        """Stop, since the time is up: what was answered is to be published as it is."""
        self._is_expired = True
        self.stop()

    async def run(self) -> None:
        """Ask until every triple has an answer, or as far as a stop lets.

        Nothing is asked where nothing is open. Raises what ends the run; the journal then holds
        everything that was answered before. After a stop it returns as at the end, and raises
        nothing for Atlas being away: who stopped it knows that not everything was asked. Where the
        time was up it does, if all that was asked was in vain.
        """
        if not self._has_open():
            return
        work = asyncio.create_task(self._collect())
        watch = asyncio.create_task(self._silence.watch())
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if self._pool.is_stopped:
                await asyncio.wait({work})
        finally:
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)
        await (watch if work.cancelled() else work)
        self._journal.flush()
        if self._is_expired or not self._pool.is_stopped:
            self._check_availability()

    def _has_open(self) -> bool:
        return bool(self._journal.pending_counts() or self._journal.failing(_ASKED_AGAIN))

    async def _collect(self) -> None:
        await self._unless_stopped(self._prepare())
        await self._pool.run_chains(self._chains())
        await self._unless_stopped(self._silence.make_sure())
        for _ in range(_TIMES_AGAIN):
            before = self._silence.outages
            await self._ask_again()
            if self._silence.outages == before:
                return

    async def _ask_again(self) -> None:
        if self._pool.is_stopped:
            return
        self._governor.reopen()
        await self._pool.run(self._fetcher.ask, self._journal.failing(_ASKED_AGAIN))
        await self._unless_stopped(self._silence.make_sure())

    async def _unless_stopped(self, step: Coroutine[Any, Any, object]) -> None:
        """Do what needs no draining: a stop ends it at once."""
        self._step = asyncio.create_task(step)
        if self._pool.is_stopped:
            self._step.cancel()
        try:
            await self._step
        except asyncio.CancelledError:
            if not self._pool.is_stopped or is_cancelled():
                raise

    async def _prepare(self) -> None:
        await self._standing.check()
        counts = self._journal.pending_counts()
        if self._by is FetchBy.LIST:
            counts = {group_id: count // _TRIPLES_A_PAGE for group_id, count in counts.items()}
        worth = worth_asking(counts)
        told = await ask_limits(self._transport, self._record, worth)
        for group_id, limits in told.items():
            self._governor.learn_limits(group_id, limits)

    def _chains(self) -> dict[str, Iterator[Stage]]:
        """What is done for each project: its lists where they are worth it, then what is left."""
        listed = {} if self._by is FetchBy.GET else self._journal.pending()
        counts = {} if self._by is FetchBy.GET else self._journal.pending_counts()
        return {
            group_id: self._stages(group_id, counts.get(group_id, 0), listed.get(group_id), items)
            for group_id, items in self._journal.pending().items()
        }

    def _stages(
        self, group_id: str, count: int, listed: Iterator[Item] | None, singly: Iterator[Item]
    ) -> Iterator[Stage]:
        is_long = count > self._governor.at_once(group_id)
        if listed is not None and (self._by is FetchBy.LIST or is_long):
            yield Stage(self._sweeper.sweep, clusters(listed), _SWEEPERS)
            self._governor.forgive(group_id)  # what is wrong with lists may not be with the rest
            self._journal.flush()  # or what was answered would be asked for again
        yield Stage(self._fetch, singly)

    async def _fetch(self, item: Item) -> None:
        await self._settle(item, await self._fetcher.fetch(item))

    # --- what ends a run ---

    def _record(
        self,
        purpose: str,
        request: Request,
        reply: Reply,
        kind: FailureKind | None,
        triple_id: int | None = None,
    ) -> int:
        self._silence.hear(reply, kind)
        return self._journal.record(purpose, request, reply, kind, triple_id)

    def _kept(self) -> str:
        self._journal.flush()
        return self._journal.tally().kept

    async def _settle(self, item: Item, outcome: Outcome) -> None:
        if isinstance(outcome, Failed):
            await self._standing.judge(item.ref.group_id, outcome.failure)
        self._journal.settle(item, outcome)
        self._settled(outcome)

    async def _watch_list(self, item: Item, failure: Failure) -> bool:
        """Look at a page that failed; gives whether that was an outage of Atlas, which is over."""
        await self._standing.judge(item.ref.group_id, failure)
        return failure.is_transient and await self._silence.make_sure()

    def _check_availability(self) -> None:
        """Nothing but outages: then nothing is known of any triple, and nothing is published."""
        kinds = self._journal.kinds()
        if not kinds.keys() <= UNAVAILABLE_KINDS:  # a checkpoint's kind is None
            return
        said = ", ".join(f"{count} × {kind}" for kind, count in kinds.items())
        said = said or "no answer came before the deadline"
        raise AtlasUnavailable(f"Atlas answered nothing that this run asked: {said}")
