"""Who may send when: a token bucket and a queue for each project, and one cap over all.

Three rules decide who sends next:

- a project sends only when its bucket has a token, its share of the quota is not used up, and no
  refusal holds it (see `buckets`);
- no project holds more than a quarter of the slots while another one waits: one that hangs must
  not stop the rest;
- a project whose requests keep failing is held, probed with one request at a time, and given up
  after some probes: its remaining triples end at once, and inconclusive.

Time is the event loop's: a test that runs on a loop with virtual time sees no real waiting.
"""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable
from itertools import count

import msgspec

from pipeline.atlas import Limits, Reply, read_limit
from pipeline.buckets import Sent, TokenBucket
from pipeline.checkpoints import Checkpoint
from pipeline.outcomes import Failure, FailureKind, Refusal
from pipeline.refill import NO_WAIT


class Patience(msgspec.Struct, frozen=True):
    """How long a project that does not answer is waited for.

    `refused` seconds of refusals without a success in between; `failures` in a row before it is
    held; then a probe after each of `probe_waits` (seconds).
    """

    refused: float = 900.0
    failures: int = 10
    probe_waits: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0)


class Turn(msgspec.Struct, frozen=True):
    """The right to send one request for a project; give it back with `Governor.release`."""

    project: "Project"
    sent: Sent


class Project:
    """One project's bucket, queue and standing."""

    def __init__(self, bucket: TokenBucket, patience: Patience) -> None:
        self.bucket = bucket
        self.waiters: deque[asyncio.Future[Turn | Failure]] = deque()
        self.in_flight = 0
        self.closed: Failure | None = None
        self.queued = False
        self.asleep = 0
        self._patience = patience
        self._failures = 0
        self._probes = 0
        self._held_until = float("-inf")
        self._refused_since: float | None = None

    def wait(self, now: float) -> float:
        """Seconds until this project may send again; 0.0 means now."""
        held = self._held_until - now
        return max(held if held > NO_WAIT else 0.0, self.bucket.wait(now, self.in_flight))

    def slots(self, fair: int) -> int:
        """How many requests may be in flight: `fair`, or one while the project is being probed."""
        is_failing = self._failures >= self._patience.failures
        return 1 if is_failing or self.bucket.is_probing else fair

    def succeeded(self) -> None:
        """Any definite answer: the project is there, and no longer held for its failures."""
        self._failures = self._probes = 0
        self._held_until = float("-inf")
        self._refused_since = None

    def refused(self, now: float, sent: Sent, failure: Failure, jitter: float) -> None:
        """A 429: hold the bucket; give the project up when it has refused for too long."""
        self.bucket.refused(now, sent, failure.refusal or Refusal(), jitter)
        self._refused_since = now if self._refused_since is None else self._refused_since
        free_at = now + self.bucket.wait(now)
        if free_at - self._refused_since > self._patience.refused:
            self.closed = Failure(
                FailureKind.THROTTLED,
                detail="not asked: the project has refused every request and asks to wait "
                f"{free_at - now:.0f} s more, this run waits {self._patience.refused:.0f} s in all",
            )

    def failed(self, now: float, failure: Failure) -> None:
        """A transient failure: after several in a row hold and probe, after some probes give up."""
        self._failures += 1
        if self._failures < self._patience.failures or now < self._held_until:
            return
        if self._probes == len(self._patience.probe_waits):
            self.closed = Failure(
                FailureKind.NOT_ASKED,
                detail=f"not asked: the project's last {self._failures} requests failed, "
                f"the last with {failure.kind}: {failure.detail}",
            )
            return
        self._held_until = now + self._patience.probe_waits[self._probes]
        self._probes += 1

    def forgive(self) -> None:
        """Forget failures, as if they were those of another kind of request."""
        if self.closed is not None and self.closed.kind is FailureKind.NOT_ASKED:
            self.closed = None
        self._failures = self._probes = 0
        self._held_until = float("-inf")

    def reopen(self) -> None:
        """Allow a project that was given up for its failures one more probe."""
        if self.closed is not None and self.closed.kind is FailureKind.NOT_ASKED:
            self.closed = None
            self._probes = len(self._patience.probe_waits)
            self._failures = self._patience.failures


class Governor:
    """Gives out turns. One for a run; to be used on one event loop."""

    def __init__(
        self,
        *,
        concurrency: int = 64,
        share: float = 0.9,
        patience: Patience | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`concurrency`: requests in flight at most; `share`: of each quota, in (0, 1]."""
        self.concurrency = concurrency
        self.in_flight = 0
        self._share = share
        self._patience = patience or Patience()
        self._jitter = jitter
        self._projects: dict[str, Project] = {}
        self._ready: deque[Project] = deque()
        self._parked: list[Project] = []
        self._sleeping: list[tuple[float, int, Project]] = []
        self._waiting = 0
        self._serial = count(1)
        self._timer: asyncio.Handle | None = None
        self._timer_at: float | None = None
        self._soon: asyncio.Handle | None = None
        self._is_paused = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def fair_slots(self) -> int:
        """What one project may hold while others wait: a quarter."""
        return max(1, self.concurrency // 4)

    async def acquire(self, group_id: str) -> Turn | Failure:
        """Wait for a turn of this project; a failure says that it has been given up."""
        project = self._project(group_id)
        if project.closed is not None:
            return project.closed
        waiter: asyncio.Future[Turn | Failure] = asyncio.get_running_loop().create_future()
        self._waiting += not project.waiters
        project.waiters.append(waiter)
        self._queue(project)
        self._give_turns_soon()
        return await self._granted(project, waiter)

    async def _granted(
        self, project: Project, waiter: "asyncio.Future[Turn | Failure]"
    ) -> Turn | Failure:
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._withdraw(project, waiter)
            elif waiter.done() and isinstance(waiter.result(), Turn):
                self._end(project)  # granted and cancelled in the same step: nobody will release it
            raise

    def release(self, turn: Turn, reply: Reply | None, answer: Checkpoint | Failure | None) -> None:
        """Give a turn back and learn from what came of it; None where the request was cancelled."""
        project, now = turn.project, self._now()
        if reply is not None and answer is not None:
            self._learn(turn, now, reply, answer)
        self._end(project)

    def learn_limits(self, group_id: str, limits: Limits) -> None:
        """Begin with what Atlas tells of this project's bucket, instead of what is documented."""
        self._project(group_id).bucket.learn_limits(self._now(), limits)

    def at_once(self, group_id: str) -> float:
        """How many requests this project's bucket gives out now, as far as is known."""
        return self._project(group_id).bucket.own

    async def pause(self, within: float) -> None:
        """Give no more turns; wait until none is out, or for `within` seconds."""
        self._is_paused = True
        try:
            async with asyncio.timeout(within):
                await self._idle.wait()
        except TimeoutError:
            return

    def forgive(self, group_id: str) -> None:
        """Hold nothing against this project that failed so far; its bucket keeps what it knows."""
        self._project(group_id).forgive()

    def reopen(self) -> None:
        """Let every project that was given up for its failures be asked once more."""
        for project in self._projects.values():
            project.reopen()

    def _project(self, group_id: str) -> Project:
        if group_id not in self._projects:
            bucket = TokenBucket(self._now(), share=self._share)
            self._projects[group_id] = Project(bucket, self._patience)
        return self._projects[group_id]

    def _learn(self, turn: Turn, now: float, reply: Reply, answer: Checkpoint | Failure) -> None:
        project = turn.project
        if isinstance(answer, Failure) and answer.kind is FailureKind.THROTTLED:
            project.refused(now, turn.sent, answer, self._jitter())
        elif isinstance(answer, Failure) and answer.is_transient:
            project.failed(now, answer)
        else:
            project.succeeded()
            limit, remaining = read_limit(reply)
            project.bucket.answered(now, turn.sent, limit, remaining, project.in_flight - 1)
        if project.closed is not None:
            self._dismiss(project, project.closed)

    def _dismiss(self, project: Project, failure: Failure) -> None:
        """End the waiting of everyone who queues for a project that was given up."""
        while project.waiters:
            waiter = self._next_waiter(project)
            if not waiter.done():
                waiter.set_result(failure)

    def _next_waiter(self, project: Project) -> "asyncio.Future[Turn | Failure]":
        waiter = project.waiters.popleft()
        self._count_out(project)
        return waiter

    def _withdraw(self, project: Project, waiter: "asyncio.Future[Turn | Failure]") -> None:
        """Forget a waiter that was cancelled, unless somebody met it before."""
        if waiter in project.waiters:
            project.waiters.remove(waiter)
            self._count_out(project)
            self._give_turns()

    def _count_out(self, project: Project) -> None:
        """A project that no longer waits leaves its slots to the others."""
        if project.waiters:
            return
        self._waiting -= 1
        if self._waiting <= 1:
            self._ready.extend(self._parked)
            self._parked.clear()

    def _end(self, project: Project) -> None:
        project.in_flight -= 1
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()
        self._reconsider(project)
        self._give_turns()

    def _queue(self, project: Project) -> None:
        if not project.queued:
            project.queued = True
            self._ready.append(project)

    def _reconsider(self, project: Project) -> None:
        """Look again at a project that was full or asleep."""
        if project.asleep:
            project.asleep = 0  # its entry among the sleeping is now void
            self._ready.append(project)
        elif project in self._parked:
            self._parked.remove(project)
            self._ready.append(project)

    def _give_turns_soon(self) -> None:
        """Let everybody queue who comes at the same time: nobody is alone for being the first."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._give_turns)

    def _give_turns(self) -> None:
        """Hand out turns in rotation until the slots, or those who may send, are used up."""
        self._soon, now = None, self._now()
        self._wake(now)
        while self._ready and self.in_flight < self.concurrency and not self._is_paused:
            self._consider(self._ready.popleft(), now)
        self._set_timer()

    def _wake(self, now: float) -> None:
        while self._sleeping:
            at, serial, project = self._sleeping[0]
            is_void = project.asleep != serial
            if at > now + NO_WAIT and not is_void:
                return
            heapq.heappop(self._sleeping)
            if not is_void:
                project.asleep = 0
                self._ready.append(project)

    def _consider(self, project: Project, now: float) -> None:
        if not project.waiters:
            project.queued = False
        elif project.in_flight >= project.slots(
            self.fair_slots if self._waiting > 1 else self.concurrency
        ):
            self._parked.append(project)
        elif (wait := project.wait(now)) > 0.0:
            project.asleep = next(self._serial)
            heapq.heappush(self._sleeping, (now + wait, project.asleep, project))
        else:
            self._give(project, now)
            self._ready.append(project)

    def _give(self, project: Project, now: float) -> None:
        waiter = self._next_waiter(project)
        if waiter.done():  # cancelled, and has not had its step yet
            return
        sent = project.bucket.take(now, project.in_flight)
        project.in_flight += 1
        self.in_flight += 1
        self._idle.clear()
        waiter.set_result(Turn(project, sent))

    def _set_timer(self) -> None:
        at = self._sleeping[0][0] if self._sleeping and not self._is_paused else None
        if at == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        loop = asyncio.get_running_loop()
        self._timer = None if at is None else loop.call_at(at, self._wake_up)

    def _wake_up(self) -> None:
        """The timer's call; a loop of whole milliseconds may make it a little early."""
        self._timer = self._timer_at = None
        self._give_turns()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
