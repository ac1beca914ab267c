"""Our standing with Atlas: whether it is reached, and whether it lets this run in.

All is told by the preliminary call, for one of the projects that the credential sees: it costs no
project's bucket anything. Whatever is the whole run's trouble rather than one project's is raised
here: no connection at all, credentials that are refused, an access list, a suspended account.
"""

import asyncio
import logging

from pipeline.atlas import preliminary_request, read_results
from pipeline.errors import AtlasUnavailable, AuditError, CredentialsRefused
from pipeline.fetch import Record, Transport
from pipeline.outcomes import RUN_ENDING_KINDS, Failure, FailureKind

log = logging.getLogger(__name__)

#: Waits before the preliminary call is made again at the start of a run, in seconds.
_WAITS = (1.0, 3.0)

#: For so many seconds in all it is waited for then, whatever a request may take elsewhere.
_PATIENCE = 25.0

#: For how long what it said counts for a project whose requests are answered 401. Seconds.
_COUNTS = 60.0

_UNREACHED = frozenset({FailureKind.UNREACHABLE, FailureKind.TIMED_OUT})


class Standing:
    """Asks how we stand. One for a run."""

    def __init__(self, transport: Transport, record: Record) -> None:
        self._transport = transport
        self._record = record
        self._known: dict[str, tuple[float, asyncio.Task[Failure | None]]] = {}

    async def check(self) -> None:
        """Make sure, before anything else is asked, that it can be.

        Raises `AtlasUnavailable` where Atlas is not reached after some tries, `CredentialsRefused`
        where it refuses us. Any other answer decides nothing: the list of projects may fail where a
        checkpoint does not.
        """
        failure = await self._ask_patiently()
        if failure is None:
            return
        if failure.kind in _UNREACHED:
            raise AtlasUnavailable(
                f"Atlas cannot be reached: {failure.detail}",
                hint="check network, proxy, --base-url and --ca-file; nothing was published",
            )
        if _ends_run(failure):
            raise _refused(failure)
        log.warning("the preliminary call was answered with %s; going on", failure)

    async def ask(self) -> Failure | None:
        """Make the call once; gives what failed. Raises `CredentialsRefused`."""
        failure = await self._ask()
        if failure is not None and _ends_run(failure):
            raise _refused(failure)
        return failure

    async def judge(self, group_id: str, failure: Failure) -> None:
        """Raise `CredentialsRefused` if a project's failure is in truth the whole run's.

        A project of another organization answers 401 in the same words as bad credentials do: the
        call, made again now and then for each such project, tells the two apart.
        """
        if failure.kind in RUN_ENDING_KINDS:
            raise _refused(failure)
        if failure.kind is FailureKind.UNAUTHENTICATED:
            standing = await self._beside(group_id)
            if standing is not None and _ends_run(standing):
                raise _refused(standing)

    def _beside(self, group_id: str) -> "asyncio.Task[Failure | None]":
        now = asyncio.get_running_loop().time()
        asked_at, standing = self._known.get(group_id, (float("-inf"), None))
        if standing is None or now - asked_at > _COUNTS:
            standing = asyncio.create_task(self._ask())
            self._known[group_id] = now, standing
        return standing

    async def _ask_patiently(self) -> Failure | None:
        detail = f"no whole answer within {_PATIENCE:g} s"
        failure: Failure | None = Failure(FailureKind.TIMED_OUT, detail=detail)
        try:
            async with asyncio.timeout(_PATIENCE) as patience:
                failure = await self._ask()
                for wait in _WAITS:
                    if failure is None or failure.kind not in _UNREACHED:
                        break
                    log.warning("Atlas is not reached; trying again in %g s", wait)
                    await asyncio.sleep(wait)
                    failure = await self._ask()
        except TimeoutError:
            if not patience.expired():
                raise
        return failure

    async def _ask(self) -> Failure | None:
        request = preliminary_request()
        reply = await self._transport.send(request)
        found = read_results(reply)  # what stands between us and Atlas may say 200 as well
        failure = found if isinstance(found, Failure) else None
        self._record("preliminary", request, reply, failure.kind if failure else None)
        return failure


def _ends_run(failure: Failure) -> bool:
    """Whether the call's failure is the whole run's."""
    return failure.kind is FailureKind.UNAUTHENTICATED or failure.kind in RUN_ENDING_KINDS


def _refused(failure: Failure) -> AuditError:
    hints = {
        FailureKind.ACCESS_LIST: "add this machine's address to the API access list in Atlas",
        FailureKind.ACCOUNT_SUSPENDED: "settle the account with MongoDB",
    }
    return CredentialsRefused(
        f"Atlas refuses this run: {failure}",
        hint=hints.get(failure.kind, "check the credentials, and whether they have expired")
        + "; then start the same command again",
    )
