"""Replies as Atlas gives them, and transports that give them: small classes behind the one seam."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.atlas import Reply, Request
from pipeline.checkpoints import CheckpointRef
from pipeline.fetch import Item
from pipeline.journal import Answered, Journal, StoredReply
from pipeline.outcomes import FailureKind
from pipeline.simulator.buckets import BucketRules, Buckets, refusal_parameters

MOMENT = datetime(2026, 11, 20, 3, 0, 0, 123456, UTC)

#: The code that Atlas sends with a status, where it decides something.
CODES = {402: "ACCOUNT_SUSPENDED", 404: "CHECKPOINT_NOT_FOUND", 429: "RATE_LIMITED_TOKEN_BUCKET"}


def group(number: int) -> str:
    return f"{number:024x}"


def ref(number: int = 1, project: int = 1) -> CheckpointRef:
    return CheckpointRef(group(project), "orders", f"{number:024x}")


def items(count: int, project: int = 1) -> list[Item]:
    return [Item(project * 100_000 + n, ref(n, project)) for n in range(count)]


def queues(**counts: int) -> dict[str, Iterator[Item]]:
    """Queues for projects: `p3=5` is a queue of five items for project 3."""
    return {
        group(int(name[1:])): iter(items(count, int(name[1:]))) for name, count in counts.items()
    }


def answered(journal: Journal) -> list[Answered]:
    """Every triple of a journal in key order, as it is answered so far."""
    return [each for batch in journal.batches() for each in batch.answered]


def stored(journal: Journal) -> list[StoredReply]:
    """Every reply of a journal in the order of arrival."""
    of_triples = (each for batch in journal.batches() for each in batch.replies)
    return sorted([*journal.replies_of_no_triple(), *of_triples], key=lambda each: each.reply_id)


def reply(
    status: int = 200,
    document: Any = None,
    headers: dict[str, str] | None = None,
    trouble: FailureKind | None = None,
) -> Reply:
    body = b"" if document is None else json.dumps(document).encode()
    return Reply(status, MOMENT, MOMENT, headers or {}, body, trouble, "made up" if trouble else "")


def error(status: int, code: str | None = None, **headers: str) -> Reply:
    """An error in Atlas's form; headers with `_` for `-`."""
    document = {"error": status, "errorCode": code or CODES.get(status, "UNEXPECTED_ERROR")}
    return reply(status, document, {name.replace("_", "-"): text for name, text in headers.items()})


def trouble(kind: FailureKind) -> Reply:
    return reply(0, trouble=kind)


def refused(*parameters: Any, **headers: str) -> Reply:
    """A 429; `parameters` are retryAfter, capacity, refillRate and refillDurationSeconds."""
    document = {"error": 429, "errorCode": CODES[429], "parameters": ["/path", *parameters]}
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return reply(429, document if parameters else None, named)


def limits(capacity: float = 1200, rate: float = 500, duration: float = 60) -> Reply:
    """A project's rate limits as the resource tells them."""
    numbers = {"capacity": capacity, "refillRate": rate, "refillDurationSeconds": duration}
    values = {name: {"value": value, "defaultValue": 1} for name, value in numbers.items()}
    told = {"endpointSetName": "Legacy Backup", "scope": "GROUP", **values}
    return reply(200, {"results": [told]})


def good(request: Request, **headers: str) -> Reply:
    """The checkpoint that was asked for."""
    parts = request.path.partition("?")[0].split("/")
    document = {"id": parts[-1], "groupId": parts[5], "restorable": True, "parts": []}
    return reply(200, document, {name.replace("_", "-"): text for name, text in headers.items()})


class Scripted:
    """Answers requests in turn from a list; a callable makes its reply of the request."""

    def __init__(self, *replies: Reply | Callable[[Request], Reply] | Exception) -> None:
        self.replies = list(replies)
        self.sent: list[Request] = []

    async def send(self, request: Request) -> Reply:
        self.sent.append(request)
        await asyncio.sleep(0)
        found = self.replies.pop(0)
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, Reply) else found(request)


Player = Callable[[Request], Awaitable[Reply]]


class Served:
    """Answers each project in its own way; unnamed ones well, after a tenth of a second.

    Keeps when which project was sent something, and the most that were in flight.
    """

    def __init__(self, **players: Player) -> None:
        self.players = {group(int(name[1:])): player for name, player in players.items()}
        self.sent: dict[str, list[float]] = defaultdict(list)
        self.in_flight: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()

    async def send(self, request: Request) -> Reply:
        group_id = request.group_id
        self.sent[group_id].append(asyncio.get_running_loop().time())
        self.in_flight[group_id] += 1
        self.most[group_id] = max(self.most[group_id], self.in_flight[group_id])
        try:
            found = await self.players.get(group_id, self._well)(request)
        finally:
            self.in_flight[group_id] -= 1
        self.statuses[found.status] += 1
        return found

    async def _well(self, request: Request) -> Reply:
        await asyncio.sleep(0.1)
        return good(request)

    @property
    def total(self) -> int:
        return sum(map(len, self.sent.values()))


def hanging(seconds: float = 30.0) -> Player:
    """Never answers: the request times out."""

    async def player(request: Request) -> Reply:
        await asyncio.sleep(seconds)
        return trouble(FailureKind.TIMED_OUT)

    return player


def always(found: Reply, latency: float = 0.1) -> Player:
    async def player(request: Request) -> Reply:
        await asyncio.sleep(latency)
        return found

    return player


def bucketed(
    rules: BucketRules, latency: float = 0.1, clock: Callable[[], float] | None = None
) -> Player:
    """A project as the simulator's token bucket would have it, in virtual time or by `clock`."""
    buckets = Buckets(rules, clock or (lambda: asyncio.get_running_loop().time()))

    async def player(request: Request) -> Reply:
        await asyncio.sleep(latency / 2)
        taken = buckets.take(request.group_id)
        await asyncio.sleep(latency / 2)
        told = {
            "ratelimit_limit": str(taken.rules.capacity),
            "ratelimit_remaining": str(taken.remaining),
        }
        headers = told if taken.rules.headers else {}
        if taken.allowed:
            return good(request, **headers)
        parameters: Sequence[object] = refusal_parameters("/path", taken)
        document = {"error": 429, "errorCode": rules.form, "parameters": parameters}
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return reply(429, document, {**named, "retry-after": str(taken.retry_after)})

    return player


class Notebook:
    """A record that only numbers what it is told."""

    def __init__(self) -> None:
        self.kinds: list[FailureKind | None] = []
        self.purposes: list[str] = []
        self.triples: list[int | None] = []

    def __call__(
        self,
        purpose: str,
        request: Request,
        reply: Reply,
        kind: FailureKind | None,
        triple_id: int | None = None,
    ) -> int:
        self.kinds.append(kind)
        self.purposes.append(purpose)
        self.triples.append(triple_id)
        return len(self.kinds)
