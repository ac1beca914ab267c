"""The simulator's HTTP server: the order in which a request is judged, and who is counting.

A request passes, in this order: faults of the whole run, credentials, the media type, the form of
its path, the project, the project's own faults, the token bucket, faults of this one ask, and only
then the resource.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import format_datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from pipeline.simulator.answers import Answer, invalid, negotiate, problem, render
from pipeline.simulator.buckets import BucketRules, Buckets, Taken
from pipeline.simulator.credentials import Credentials
from pipeline.simulator.entrance import REVOKE_PATH, TOKEN_PATH, Entrance
from pipeline.simulator.faults import FaultPlan, ProjectFault, Troubles
from pipeline.simulator.resources import (
    CHECKPOINTS,
    PREFIX,
    RATE_LIMIT_VERSION,
    RATE_LIMITS,
    VERSION,
    Resources,
    missing,
)
from pipeline.simulator.sabotage import (
    Scene,
    play,
    rate_headers,
    throttled,
    unavailable,
    withdrawn,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from pipeline.simulator.faults import Lasting, RunWide, Transient
    from pipeline.simulator.fleet import Fleet

Returned = TypeVar("Returned")
Response = web.StreamResponse
Handler = Callable[[web.Request], Awaitable[Returned]]

HOST = "127.0.0.1"
NO_ANSWER = 0
"""The status under which a request without an answer (reset, hung, gone) is counted."""

NOBODY = "-"
"""Stands for the group id where a request is about no project."""

LAST_WORDS_S = 0.05
"""How long a handler may go on when the server stops; hanging ones would go on for ever."""

OBJECT_ID = "^([a-f0-9]{24})$"
PATTERNS = {
    "groupId": OBJECT_ID,
    # The reference leaves the underscore out; the rules for naming clusters do not.
    "clusterName": "^[a-zA-Z0-9][a-zA-Z0-9_-]*$",
    "checkpointId": OBJECT_ID,
}

INSPECTION_RULES = BucketRules(capacity=300, refill_rate=100)
"""The rate-limit resource has a bucket of its own, by user."""


@dataclass(frozen=True, slots=True)
class Route:
    """One resource: its path, version, and whether it spends the project's or the user's tokens."""

    path: str
    reply: Callable[[web.Request], Answer]
    version: str = VERSION
    bucket: str = ""


class Simulator:
    """A running simulator: where it is, and what it has seen.

    requests: a count by (group id or "-", HTTP status; 0 where there was no answer). faults: a
    count by kind of what was played. max_in_flight: the most requests at once, by group id.
    """

    def __init__(self, entrance: Entrance) -> None:
        self.port = 0
        self.requests: Counter[tuple[str, int]] = Counter()
        self.faults: Counter[str] = Counter()
        self.max_in_flight: Counter[str] = Counter()
        self.max_in_flight_total = 0
        self._in_flight: Counter[str] = Counter()
        self._entrance = entrance

    @property
    def base_url(self) -> str:
        """What to give to `--base-url`."""
        return f"http://{HOST}:{self.port}"

    @property
    def live_tokens(self) -> int:
        """The service account's tokens that are alive."""
        return self._entrance.tokens.live

    @property
    def tokens_created(self) -> int:
        """How many tokens were handed out."""
        return self._entrance.tokens.created

    @property
    def tokens_revoked(self) -> int:
        """How many tokens were given back."""
        return self._entrance.tokens.revoked

    def arrive(self, scope: str) -> None:
        """Count a request in."""
        self._in_flight[scope] += 1
        self.max_in_flight[scope] = max(self.max_in_flight[scope], self._in_flight[scope])
        self.max_in_flight_total = max(self.max_in_flight_total, self._in_flight.total())

    def leave(self, scope: str, status: int) -> None:
        """Count a request out."""
        self._in_flight[scope] -= 1
        self.requests[scope, status] += 1


@dataclass(frozen=True, slots=True)
class Atlas:
    """Judges requests and answers them.

    `buckets` are "project" and "user"; `latency` is the seconds that every answer takes; `notices`
    are headers of good answers; `watch` is told the path of every request.
    """

    resources: Resources
    entrance: Entrance
    troubles: Troubles
    seen: Simulator
    buckets: Mapping[str, Buckets]
    latency: float
    notices: Mapping[str, str]
    watch: Callable[[str], None]

    def application(self) -> web.Application:
        """Return the aiohttp application with every route."""
        app = web.Application()
        for route in self._routes():
            app.router.add_get(route.path, self._counted(partial(self._judge, route)))
        app.router.add_post(TOKEN_PATH, self._counted(self.entrance.give_token))
        app.router.add_post(REVOKE_PATH, self._counted(self.entrance.take_token))
        unknown = partial(self._judge, Route("", _unknown))
        app.router.add_route("*", "/{tail:.*}", self._counted(unknown))
        return app

    def _routes(self) -> tuple[Route, ...]:
        told = self.resources
        group = f"{PREFIX}/groups/{{groupId}}"
        schedule = f"{group}/clusters/{{clusterName}}/snapshotSchedule"
        return (
            Route(PREFIX, told.status),
            Route(f"{PREFIX}/groups", told.groups),
            Route(f"{group}/clusters", told.clusters),
            Route(schedule, told.schedule, bucket="project"),
            Route(CHECKPOINTS, told.checkpoints, bucket="project"),
            Route(f"{CHECKPOINTS}/{{checkpointId}}", told.checkpoint, bucket="project"),
            Route(RATE_LIMITS, told.rate_limits, RATE_LIMIT_VERSION, bucket="user"),
        )

    def _counted(self, answering: Handler[Response | None]) -> Handler[Response]:
        """Count requests in and out around a handler, answered or not."""

        async def handler(request: web.Request) -> Response:
            scope = _scope(request)
            self.watch(request.path)
            self.seen.arrive(scope)
            status = NO_ANSWER
            try:
                response = await answering(request)
                status = NO_ANSWER if response is None else response.status
            finally:
                self.seen.leave(scope, status)
            # Nobody is left to read what stands for no answer; aiohttp wants something.
            return web.Response() if response is None else response

        return handler

    async def _judge(self, route: Route, request: web.Request) -> Response | None:
        """Answer one API request; None where there is no answer."""
        if self.latency:
            await asyncio.sleep(self.latency)
        early = self._turned_away(route, request)
        if early is not None:
            return render(request, early, enveloped=False)
        refusal = self._misdirected(request) or await self._withheld(request)
        if refusal is not None:
            return render(request, refusal)
        taken = self._take(route, request)
        if taken is not None and not taken.allowed:
            return render(request, throttled(request.path, taken, str(taken.retry_after)))
        return await self._answer(route, request, taken)

    async def _answer(
        self, route: Route, request: web.Request, taken: Taken | None
    ) -> Response | None:
        """Answer a request that nothing stands in the way of, spoiled if the plan says so."""
        answer = route.reply(request)
        headers = dict(answer.headers) if taken is None else rate_headers(taken)
        notices = self.notices if answer.version else {}
        answer = replace(answer, headers={**headers, **notices})
        kind = self._fault(request)
        if kind is None:
            return render(request, answer)
        self.seen.faults[kind] += 1
        return await play(kind, Scene(request, answer, taken, self.troubles.plan))

    def _turned_away(self, route: Route, request: web.Request) -> Answer | None:
        """Return what is said before a resource is looked for, or None."""
        run_wide = self.troubles.plan.run_wide
        if run_wide is not None:
            self.seen.faults[run_wide] += 1
            return _stopped(run_wide, request.remote or HOST)
        refusal = self.entrance.refusal(request)
        if refusal is not None:
            return refusal
        if self.troubles.strays():
            self.seen.faults["stray-401"] += 1
            return self.entrance.unauthorized()
        return negotiate(request.headers.get("Accept", ""), route.version)

    def _misdirected(self, request: web.Request) -> Answer | None:
        """Return what is wrong with the path: its form, or a project that is not there."""
        for name, pattern in PATTERNS.items():
            value = request.match_info.get(name)
            if value is not None and re.fullmatch(pattern, value) is None:
                return invalid(name, value, pattern)
        group_id = request.match_info.get("groupId")
        if group_id is None or self.resources.fleet.project(group_id) is not None:
            return None
        return missing("GROUP_NOT_FOUND", group_id)

    async def _withheld(self, request: web.Request) -> Answer | None:
        """Return how the project's own fault answers, or None; a hanging one takes its time."""
        group_id = request.match_info.get("groupId", "")
        found = self.troubles.of_project(group_id)
        if found is None:
            return None
        fault, left = found
        self.seen.faults[fault.kind] += 1
        if fault.kind != "hangs":
            return self._refused(fault, group_id, request.path)
        await (asyncio.Event().wait() if left is None else asyncio.sleep(left))
        return None

    def _refused(self, fault: ProjectFault, group_id: str, path: str) -> Answer:
        match fault.kind:
            case "refuses":
                return problem(403, "ACCESS_FORBIDDEN", "This project is not for you.", [group_id])
            case "unauthorized":
                detail = "You have no role in this project."
                return problem(401, "USER_UNAUTHORIZED", detail, [group_id])
            case "throttled":
                advice = fault.retry_after
                rules = self.resources.rules.of(group_id)
                taken = Taken(allowed=False, remaining=0, retry_after=advice or 0, rules=rules)
                return throttled(path, taken, None if advice is None else str(advice))
        return unavailable(fault.retry_after)

    def _take(self, route: Route, request: web.Request) -> Taken | None:
        """Take a token for a request, or return None for a resource without a bucket."""
        if not route.bucket:
            return None
        return self.buckets[route.bucket].take(_scope(request))

    def _fault(self, request: web.Request) -> Transient | Lasting | None:
        """Return the fault of this ask: a checkpoint's lasting one before a passing one."""
        checkpoint_id = request.match_info.get("checkpointId", "")
        lasting = self.troubles.plan.checkpoints.get(checkpoint_id)
        return lasting or self.troubles.of_path(request.raw_path)


@asynccontextmanager
async def serve(
    fleet: Fleet,
    *,
    faults: FaultPlan | None = None,
    buckets: BucketRules | None = None,
    credentials: Credentials | None = None,
    port: int = 0,
    latency: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    watch: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Simulator]:
    """Serve a fleet on the loopback interface for as long as the context lasts.

    Left out, `faults` is no faults, `buckets` the documented limits, `credentials` the built-in
    ones. `port` 0 takes any free one. `latency` is the seconds that every answer takes. `clock`
    returns seconds and never goes back; it moves the buckets, lifetimes and faults that pass, but
    nothing waits by it. `watch` is told the path of every request as it arrives, refused ones too.

    Leaving the context ends requests that hang. Raises OSError when the port is taken.
    """
    plan = faults or FaultPlan.none()
    entrance = Entrance(credentials or Credentials(), clock, plan.revoke_after)
    resources = Resources(fleet, plan, buckets or BucketRules(), INSPECTION_RULES)
    seen = Simulator(entrance)
    atlas = Atlas(
        resources=resources,
        entrance=entrance,
        troubles=Troubles(plan, clock),
        seen=seen,
        buckets={
            "project": Buckets(resources.rules, clock),
            "user": Buckets(resources.inspection, clock),
        },
        latency=latency,
        watch=watch,
        notices={
            name: format_datetime(moment.astimezone(UTC), usegmt=True)
            for name, moment in plan.notices.items()
        },
    )
    # Handlers are cancelled when their client goes away, or hanging ones would count as in flight.
    runner = web.AppRunner(
        atlas.application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=LAST_WORDS_S,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        seen.port = runner.addresses[0][1]
        yield seen
    finally:
        await runner.cleanup()


def _unknown(request: web.Request) -> Answer:
    return problem(404, "RESOURCE_NOT_FOUND", "There is no such resource.", [request.path])


def _scope(request: web.Request) -> str:
    return request.match_info.get("groupId", NOBODY)


def _stopped(kind: RunWide, address: str) -> Answer:
    """Return what everything is answered while the whole run is in trouble."""
    match kind:
        case "account_suspended":
            return problem(402, "ACCOUNT_SUSPENDED", "The account is suspended.")
        case "access_list":
            detail = f"{address} may not use this API."
            return problem(403, "IP_ADDRESS_NOT_ON_ACCESS_LIST", detail, [address])
        case "withdrawn":
            return withdrawn()
        case "maintenance":
            return unavailable(None)
