"""One triple → one outcome, or one question → one answer: ask, and ask again where that helps.

Two kinds of "again" are kept apart. A refusal (429) belongs to the project's token bucket: the
bucket holds the project, the request takes another turn, no attempt is spent. A transient fault (a
server error, a connection that broke, a body that cannot be read) is retried by tenacity with
growing waits, outside of any turn: nobody holds a slot while waiting.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import tenacity

from pipeline.atlas import Reply, Request, read_reply, request_for
from pipeline.checkpoints import Checkpoint, CheckpointRef
from pipeline.limits import Governor
from pipeline.outcomes import Failed, Failure, FailureKind, Fetched, Outcome

T = TypeVar("T")


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


def unrecorded(*_: Any, **__: Any) -> int:
    """Keep nothing: the `Record` of who has no use for replies later on."""
    return 0


class Item(msgspec.Struct, frozen=True):
    """A triple in the queue, and how many attempts it has cost so far."""

    triple_id: int
    ref: CheckpointRef
    attempts: int = 0


class Question(msgspec.Struct, Generic[T], frozen=True):
    """One request with what it is for: how its reply is read, and whose turn it needs.

    `queue` names what the governor holds and gives turns to: a project by its id, since its bucket
    pays, or any other name for requests that share their luck.
    """

    request: Request
    purpose: str
    read: Callable[[Reply], T | Failure]
    queue: str
    triple_id: int | None = None


class Asked(msgspec.Struct, Generic[T], frozen=True):
    """What came of a question, after so many attempts.

    `reply_id` names the reply that says so; None where none does (its queue was given up).
    """

    answer: T | Failure
    reply_id: int | None
    attempts: int


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
        return _outcome(await self.send(self._question(item), item.attempts))

    async def ask(self, item: Item) -> Outcome:
        """Ask for `item` once; refusals are waited out and do not count."""
        return _outcome(await self._send_once(self._question(item), item.attempts))

    async def send(self, question: Question[T], attempts: int = 0) -> Asked[T]:
        """Ask until there is a lasting answer or the attempts are used up.

        `attempts` were made before; they are counted, but do not bound these.
        """
        asked = await self._send_once(question, attempts)
        if self._retry.attempts == 1 or not _is_transient(asked):
            return asked
        return await self._send_again(question, asked)

    def _question(self, item: Item) -> Question[Checkpoint]:
        ref = item.ref
        request = request_for(ref, envelope=self._envelope)
        read = partial(read_reply, ref)
        return Question(request, "checkpoint", read, ref.group_id, item.triple_id)

    async def _send_once(self, question: Question[T], attempts: int) -> Asked[T]:
        refused: Asked[T] | None = None
        while True:
            turn = await self._governor.acquire(question.queue)
            if isinstance(turn, Failure):  # the queue was given up: its own refusal says more
                return refused or Asked(turn, None, attempts)
            reply = lesson = None
            try:
                reply = await self._transport.send(question.request)
                answer = question.read(reply)
                lesson = answer if isinstance(answer, Failure) else _GOOD
                kind = answer.kind if isinstance(answer, Failure) else None
                reply_id = self._record(
                    question.purpose, question.request, reply, kind, question.triple_id
                )
            finally:
                self._governor.release(turn, reply, lesson)
            if kind is not FailureKind.THROTTLED:
                return Asked(answer, reply_id, attempts + 1)
            refused = Asked(answer, reply_id, attempts)

    async def _send_again(self, question: Question[T], asked: Asked[T]) -> Asked[T]:
        last = asked

        async def again() -> Asked[T]:
            nonlocal last
            found = await self._send_once(question, last.attempts)
            if found.reply_id is not None:
                last = found  # else the queue was given up: this question's own answer says more
            return found

        await self._sleep(self._wait(1, asked))
        await tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._retry.attempts - 1),
            wait=lambda state: self._wait(state.attempt_number + 1, last),
            retry=tenacity.retry_if_result(_is_transient),
            retry_error_callback=lambda _: None,
            sleep=self._sleep,
        )(again)
        return last

    def _wait(self, failures: int, asked: Asked[T]) -> float:
        """Seconds to wait after so many failures in a row."""
        growing = min(self._retry.ceiling, self._retry.floor * 2.0 ** min(failures, 30))
        wait = max(self._retry.floor, growing * (1.0 - self._jitter() / 2))
        asked_for = asked.answer.retry_after if isinstance(asked.answer, Failure) else None
        return max(wait, min(asked_for or 0.0, self._retry.longest_retry_after))


#: Of a good answer the governor only wants to know that it was one.
_GOOD = Checkpoint()


def _outcome(asked: Asked[Checkpoint]) -> Outcome:
    if isinstance(asked.answer, Failure):
        return Failed(asked.answer, asked.reply_id, asked.attempts)
    if asked.reply_id is None:
        raise ValueError("a checkpoint comes with the reply that holds it")
    return Fetched(asked.answer, asked.reply_id, asked.attempts)


def _is_transient(asked: Asked[T]) -> bool:
    return isinstance(asked.answer, Failure) and asked.answer.is_transient
