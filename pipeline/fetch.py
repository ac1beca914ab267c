"""One triple → one outcome: ask, and ask again where that helps.

Two kinds of "again" are kept apart. A refusal (429) belongs to the project's token bucket: the
bucket holds the project, the request takes another turn, no attempt is spent. A transient fault (a
server error, a connection that broke, a body that cannot be read) is retried by tenacity with
growing waits, outside of any turn: nobody holds a slot while waiting.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import tenacity

from pipeline.atlas import Reply, Request, read_reply, request_for
from pipeline.checkpoints import CheckpointRef
from pipeline.limits import Governor
from pipeline.outcomes import Failed, Failure, FailureKind, Fetched, Outcome


class Transport(Protocol):
    """The seam between this program and Atlas: one request in, one reply out, nothing raised.

    What goes wrong on the way is a `Reply` with its `trouble` set.
    """

    async def send(self, request: Request) -> Reply:
        """Send `request` and read the whole answer."""
        ...


class Record(Protocol):
    """Where every reply goes before anyone acts on it; gives the reply's id."""

    def __call__(
        self,
        purpose: str,
        request: Request,
        reply: Reply,
        kind: FailureKind | None,
        triple_id: int | None = None,
    ) -> int:
        """Keep one reply, asked for `purpose`, read as `kind` (None: a good answer)."""
        ...


class Item(msgspec.Struct, frozen=True):
    """A triple in the queue, and how many attempts it has cost so far."""

    triple_id: int
    ref: CheckpointRef
    attempts: int = 0


class Retry(msgspec.Struct, frozen=True):
    """How transient faults are asked again. Waits are in seconds.

    The wait doubles from `floor` up to `ceiling`, of which a random share of up to a half is taken
    off, and is never shorter than a Retry-After of up to `longest_retry_after`.
    """

    attempts: int = 5
    floor: float = 0.5
    ceiling: float = 30.0
    longest_retry_after: float = 120.0


class Fetcher:
    """Fetches triples through one transport, under one governor, into one record."""

    def __init__(
        self,
        transport: Transport,
        governor: Governor,
        record: Record,
        *,
        retry: Retry | None = None,
        envelope: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`envelope` asks Atlas to wrap its answers; `sleep` and `jitter` are for tests."""
        self._transport = transport
        self._governor = governor
        self._record = record
        self._retry = retry or Retry()
        self._envelope = envelope
        self._sleep = sleep
        self._jitter = jitter

    async def fetch(self, item: Item) -> Outcome:
        """Ask for `item` until there is a lasting answer or the attempts are used up."""
        outcome = await self.ask(item)
        if self._retry.attempts == 1 or not _is_transient(outcome):
            return outcome
        return await self._ask_again(item, outcome)

    async def ask(self, item: Item) -> Outcome:
        """Ask for `item` once; refusals are waited out and do not count."""
        request = request_for(item.ref, envelope=self._envelope)
        refused: Failed | None = None
        while True:
            turn = await self._governor.acquire(item.ref.group_id)
            if isinstance(turn, Failure):  # the project was given up: its own refusal says more
                return refused or Failed(turn, None, item.attempts)
            reply = answer = None
            try:
                reply = await self._transport.send(request)
                answer = read_reply(item.ref, reply)
                kind = answer.kind if isinstance(answer, Failure) else None
                reply_id = self._record("checkpoint", request, reply, kind, item.triple_id)
            finally:
                self._governor.release(turn, reply, answer)
            if not isinstance(answer, Failure):
                return Fetched(answer, reply_id, item.attempts + 1)
            if answer.kind is not FailureKind.THROTTLED:
                return Failed(answer, reply_id, item.attempts + 1)
            refused = Failed(answer, reply_id, item.attempts)

    async def _ask_again(self, item: Item, outcome: Outcome) -> Outcome:
        last = outcome

        async def again() -> Outcome:
            nonlocal last
            found = await self.ask(msgspec.structs.replace(item, attempts=last.attempts))
            if found.reply_id is not None:
                last = found  # else the project was given up: this triple's own answer says more
            return found

        await self._sleep(self._wait(1, outcome))
        await tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._retry.attempts - 1),
            wait=lambda state: self._wait(state.attempt_number + 1, last),
            retry=tenacity.retry_if_result(_is_transient),
            retry_error_callback=lambda _: None,
            sleep=self._sleep,
        )(again)
        return last

    def _wait(self, failures: int, outcome: Outcome) -> float:
        """Seconds to wait after so many failures in a row."""
        growing = min(self._retry.ceiling, self._retry.floor * 2.0 ** min(failures, 30))
        wait = max(self._retry.floor, growing * (1.0 - self._jitter() / 2))
        asked = outcome.failure.retry_after if isinstance(outcome, Failed) else None
        return max(wait, min(asked or 0.0, self._retry.longest_retry_after))


def _is_transient(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed) and outcome.failure.is_transient
