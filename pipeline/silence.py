"""Silence: how long nothing useful has come from Atlas, and when that is an outage of all of it.

Every reply of a run is heard here. What decides something is a sign of life, a refusal (429) or a
404 no less than a checkpoint. Failures that may pass are none: no connection, no answer in time,
server errors, answers that are cut or cannot be read.

One project that is down fails in the very same way. So after some silence Atlas is called up with a
request that is about no project. If that is answered, Atlas is there, and the silence is that
project's own affair. Only where the calls fail too, again and again, the run is ended. Nothing is
concluded from quiet alone: a run that waits for token buckets hears nothing for a minute.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from pipeline.atlas import Reply
from pipeline.errors import AtlasUnavailable
from pipeline.outcomes import TRANSIENT_KINDS, Failure, FailureKind

log = logging.getLogger(__name__)

#: After so long a silence Atlas is called up. Seconds.
SILENCE_S = 30.0

#: For so long it is called up in vain before it is given up: no shorter outage ends a run. Both
#: together, and what it takes to end, stay below a minute. Seconds.
CALLS_S = 20.0

#: Between two calls. Seconds.
PAUSE_S = 5.0

#: One call is not waited for longer, whatever a request may take elsewhere. Seconds.
CALL_S = 10.0


class Silence:
    """Hears every reply of one run; `watch` ends the run when Atlas stays away."""

    def __init__(
        self, call: Callable[[], Awaitable[Failure | None]], kept: Callable[[], str]
    ) -> None:
        """`call` calls Atlas up, lets its reply be heard, and gives what failed.

        `kept` says what the run has so far, for the message of its end.
        """
        self.outages = 0
        self._call = call
        self._kept = kept
        self._lived_at = self._since = datetime.min.replace(tzinfo=UTC)
        self._life: asyncio.Event | None = None  # what this silence ends with; None: there is none
        self._call_due = asyncio.Event()
        self._call_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def hear(self, reply: Reply, kind: FailureKind | None) -> None:
        """Note a reply that was read as `kind`; None is a good answer."""
        if kind not in TRANSIENT_KINDS:
            self._lived_at = reply.received_at
            if self._life is not None:
                self._end(self._life)
        elif self._life is None:
            self._begin(reply)

    def _begin(self, reply: Reply) -> None:
        """The first failure: it may have waited half a minute, in which nothing else came either.

        Should the wall clock have been set meanwhile, the first call is early or late, no more.
        """
        loop = asyncio.get_running_loop()
        self._since = max(reply.sent_at, self._lived_at)
        waited = (reply.received_at - self._since) / timedelta(seconds=1)
        self._life = asyncio.Event()
        self._call_at = loop.time() + SILENCE_S - min(SILENCE_S, max(0.0, waited))
        self._timer = loop.call_at(self._call_at, self._call_due.set)

    def _end(self, life: asyncio.Event) -> None:
        life.set()
        self._life = None
        self._call_due.clear()
        if self._timer is not None:
            self._timer.cancel()

    async def make_sure(self) -> bool:
        """Have Atlas called up if the last replies were failures, and wait for a sign of life.

        Gives whether there was an outage, which is over then. For as long as one goes on this
        waits: it is `watch` that calls, and that gives Atlas up.
        """
        before = self.outages
        if self._life is not None:
            self._call_due.set()
            await self._life.wait()
        return self.outages > before

    async def watch(self) -> NoReturn:
        """Call Atlas up when a silence gets long.

        Raises `AtlasUnavailable` where it stays away; what calling raises goes through.
        """
        while True:
            await self._call_due.wait()
            self._call_due.clear()
            if self._life is not None:
                await self._call_until(self._life)

    async def _call_until(self, life: asyncio.Event) -> None:
        until = max(_now(), self._call_at) + CALLS_S
        calls = 0
        while not life.is_set():
            said = await self._call_once(min(CALL_S, max(PAUSE_S, until - _now())))
            if life.is_set():
                return
            if _now() >= until:
                raise self._unavailable(said)
            self.outages += not calls
            calls += 1
            log.warning("nothing useful comes from Atlas (%s); calling it up again", said)
            await asyncio.sleep(min(PAUSE_S, max(0.0, until - _now())))
        log.info("Atlas is back")

    async def _call_once(self, within: float) -> str:
        """Call, and wait for `within` seconds; gives what failed, in words."""
        try:
            async with asyncio.timeout(within) as patience:
                return str(await self._call())
        except TimeoutError:
            if not patience.expired():
                raise
            return f"no answer within {within:g} s"

    def _unavailable(self, said: str) -> AtlasUnavailable:
        since = f"{self._since:%H:%M:%S} UTC"
        return AtlasUnavailable(
            f"Atlas has not given a usable answer since {since} ({said}); {self._kept()}"
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
