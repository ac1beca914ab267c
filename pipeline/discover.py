"""Discover: from the credential to the triples, by Atlas's own lists.

Projects are walked in the order of their ids, clusters by name, checkpoints newest first, so that
two walks over the same thing write the same lines. Rows are written as soon as those before them
are: one that waits for its list holds back the rows behind it, and only so many are asked ahead of
it. Every cluster is asked for its checkpoints, whatever its description says of backups.

A list of what to audit that is silently short is the worst that could come of this. Every place
that could not be listed therefore gets a line of its own, at the end, which names it and is no
triple: an audit of the CSV counts it as a bad line and ends as not complete. So does one of a CSV
that was cut short by a signal or an error; only what ends the process at once, as SIGKILL does,
leaves no line.
"""

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import msgspec

from pipeline.atlas import Reply, preliminary_request, read_preliminary
from pipeline.cells import csv_line, on_one_line
from pipeline.checkpoints import made_at
from pipeline.errors import AtlasUnavailable, AuditError, CredentialsRefused, OutputsUnwritable
from pipeline.fetch import Fetcher, Question
from pipeline.listing import Entry, Listing
from pipeline.outcomes import RUN_ENDING_KINDS, UNAVAILABLE_KINDS, Failure, FailureKind
from pipeline.triples import is_cluster_name, is_object_id

log = logging.getLogger(__name__)

T = TypeVar("T")

COLUMNS = (
    "project_id",
    "cluster_name",
    "checkpoint_id",
    "project_name",
    "mongodb_version",
    "started",
)

#: Projects, and clusters, that are asked about ahead of the one whose turn it is. What they hold
#: waits in memory.
_PROJECTS_AHEAD, _CLUSTERS_AHEAD = 16, 64

_UNREACHED = frozenset({FailureKind.UNREACHABLE, FailureKind.TIMED_OUT})


class Wanted(msgspec.Struct, frozen=True):
    """What to write of all that is found.

    `projects` are globs over id or name, `clusters` over the name; none means all. Checkpoints
    made at `since` or later, and before `until`, by the date in their ids; None is no bound.
    """

    projects: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    def has_project(self, project: "Project") -> bool:
        """Whether a glob, if there are any, matches its id or name."""
        return _matches(self.projects, project.id, project.name)

    def has_cluster(self, cluster: "Cluster") -> bool:
        """Whether a glob, if there are any, matches its name."""
        return _matches(self.clusters, cluster.name)

    def has_moment(self, made: datetime) -> bool:
        """Whether a checkpoint of that time is neither too old nor too new."""
        is_too_old = self.since is not None and made < self.since
        return not is_too_old and (self.until is None or made < self.until)


def _matches(globs: tuple[str, ...], *names: str) -> bool:
    return not globs or any(fnmatchcase(name, glob) for name in names for glob in globs)


class Project(NamedTuple):
    """A project that the credential sees."""

    id: str
    name: str


class Cluster(NamedTuple):
    """A cluster of a project; `version` is MongoDB's, as Atlas says it."""

    project: Project
    name: str
    version: str


class Unlisted(NamedTuple):
    """A place whose list could not be read: a project, or one cluster of it.

    Both names are empty for a project that the list of projects does not name.
    """

    group_id: str
    cluster_name: str
    failure: Failure

    def __str__(self) -> str:
        place = "/".join(filter(None, (self.group_id, self.cluster_name))) or "a project"
        return f"{place} ({on_one_line(str(self.failure))})"


class Found:
    """What a walk came upon so far. `listed` counts checkpoints, `written` those wanted."""

    def __init__(self) -> None:
        self.projects = self.projects_wanted = 0
        self.clusters = self.clusters_wanted = 0
        self.without_backups = self.without_checkpoints = 0
        self.listed = self.written = 0
        self.unlisted: list[Unlisted] = []

    def __str__(self) -> str:
        return (
            f"{self.projects:,} projects, {self.projects_wanted:,} of them wanted; "
            f"{self.clusters:,} clusters there, {self.clusters_wanted:,} of them wanted; "
            f"{self.without_backups:,} without legacy backups, {self.without_checkpoints:,} with "
            f"no checkpoint now; {self.listed:,} checkpoints, {self.written:,} of them wanted"
        )

    @property
    def reason(self) -> str:
        """Why nothing was written, where nothing was."""
        if not self.projects:
            return "the credential sees no project"
        if not self.projects_wanted:
            return f"none of {self.projects:,} projects matches --project"
        if not self.clusters:
            return f"there is no cluster in {self.projects_wanted:,} projects"
        if not self.clusters_wanted:
            return f"none of {self.clusters:,} clusters matches --cluster"
        if self.listed:
            return f"none of {self.listed:,} checkpoints is of the age asked for"
        return (
            f"of {self.clusters_wanted:,} clusters {self.without_backups:,} have no legacy "
            f"backups and {self.without_checkpoints:,} have them but no checkpoint now. {_WHY_FEW}"
        )


#: MongoDB's pages on legacy backups and on checkpoints.
_WHY_FEW = (
    "Legacy backups are closed to new clusters since March 2020, and only sharded clusters of "
    "feature compatibility version 4.0 or earlier make checkpoints"
)


class Discovery:
    """One walk. Rows go to `write` as text, with their line ends."""

    def __init__(self, fetcher: Fetcher, wanted: Wanted, write: Callable[[str], None]) -> None:
        self.found = Found()
        self._fetcher = fetcher
        self._wanted = wanted
        self._write = write

    async def run(self) -> Found:
        """Walk through everything.

        Raises `AtlasUnavailable` or `CredentialsRefused` where nothing could be listed, or no more.
        """
        projects = await self._projects()
        self._write(csv_line(COLUMNS))
        is_whole = False
        try:
            await self._walk(projects)
            is_whole = True
        finally:
            for place in sorted(self.found.unlisted, key=lambda one: one[:2]):
                self._write_bad(place.group_id, place.cluster_name, f"not listed: {place.failure}")
            if not is_whole:
                self._write_bad("", "", "the listing was cut short here")
        self._check_availability()
        return self.found

    # --- the three lists ---

    async def _projects(self) -> list[Project]:
        found, failure, odd = await self._list(Listing.projects(), "", _project)
        if failure is not None:
            raise _no_projects(failure)
        if odd is not None:
            self.found.unlisted.append(Unlisted("", "", odd))
        wanted = [project for project in found if self._wanted.has_project(project)]
        self.found.projects, self.found.projects_wanted = len(found), len(wanted)
        log.info("looking through %d of %d projects", len(wanted), len(found))
        return sorted(wanted)

    async def _walk(self, projects: list[Project]) -> None:
        async with aclosing(self._clusters(projects)) as clusters:
            jobs = (self._checkpoints(cluster) async for cluster in clusters)
            async with aclosing(_in_order(jobs, _CLUSTERS_AHEAD)) as found:
                async for rows in found:
                    self.found.written += len(rows)
                    self._write("".join(map(csv_line, rows)))

    async def _clusters(self, projects: list[Project]) -> AsyncGenerator[Cluster, None]:
        jobs = _each(self._clusters_of(project) for project in projects)
        async with aclosing(_in_order(jobs, _PROJECTS_AHEAD)) as found:
            async for clusters in found:
                for cluster in clusters:
                    yield cluster

    async def _clusters_of(self, project: Project) -> list[Cluster]:
        # A queue of their own: what holds a project's clusters list holds nothing else.
        found, failure, odd = await self._list(
            Listing.clusters(project.id),
            f"clusters of {project.id}",
            lambda entry: _cluster(project, entry),
        )
        if (trouble := failure or odd) is not None:
            self.found.unlisted.append(Unlisted(project.id, "", trouble))
        wanted = [cluster for cluster in found if self._wanted.has_cluster(cluster)]
        self.found.clusters += len(found)
        self.found.clusters_wanted += len(wanted)
        return sorted(wanted)

    async def _checkpoints(self, cluster: Cluster) -> list[tuple[str, ...]]:
        group_id = cluster.project.id
        found, failure, odd = await self._list(
            Listing.checkpoints(group_id, cluster.name), group_id, _checkpoint
        )
        trouble = odd or failure
        # Only where nothing at all was shown: a cluster can lose its backups meanwhile.
        if trouble is not None and trouble.kind is FailureKind.BACKUPS_ABSENT and not found:
            self.found.without_backups += 1
        elif trouble is not None:
            self.found.unlisted.append(Unlisted(group_id, cluster.name, trouble))
        elif not found:
            self.found.without_checkpoints += 1
        self.found.listed += len(found)
        return [
            (group_id, cluster.name, checkpoint_id, cluster.project.name, cluster.version, started)
            for checkpoint_id, started in sorted(found, reverse=True)
            if self._wanted.has_moment(made_at(checkpoint_id))
        ]

    async def _list(
        self, listing: Listing, queue: str, read: "Callable[[Entry], T | None]"
    ) -> tuple[list[T], Failure | None, Failure | None]:
        """Read one list: what there is of it, why not more, and the first item with no name."""
        found: list[T] = []
        odd: Failure | None = None
        while (request := listing.request) is not None:
            asked = await self._fetcher.send(Question(request, "list", listing.read, queue))
            if isinstance(asked.answer, Failure):
                await self._watch(asked.answer)
                return found, asked.answer, odd
            for entry in asked.answer:
                if (item := read(entry)) is not None:
                    found.append(item)
                else:
                    odd = odd or _nameless(entry)
        return found, listing.failure, odd

    # --- what stands against it ---

    async def _watch(self, failure: Failure) -> None:
        """Raise if this is the end of the credentials rather than of one place."""
        if failure.kind is FailureKind.UNAUTHENTICATED:
            standing = Question(preliminary_request(), "preliminary", _standing, "")
            asked = await self._fetcher.send(standing)
            if not isinstance(asked.answer, Failure):
                return  # this project's own 401: that of another organization, or of no role
            failure = asked.answer
        if failure.kind in RUN_ENDING_KINDS | {FailureKind.UNAUTHENTICATED}:
            raise _refused(failure)

    def _check_availability(self) -> None:
        """Nothing but outages: Atlas has gone since it listed the projects."""
        places = [place for place in self.found.unlisted if place.group_id]
        kinds = {place.failure.kind for place in places}
        listed = self.found.listed + self.found.without_backups + self.found.without_checkpoints
        if kinds and kinds <= UNAVAILABLE_KINDS and not listed:
            raise AtlasUnavailable(
                f"Atlas listed its projects and nothing else: {places[0]}",
                hint=_AGAIN,
            )

    def _write_bad(self, group_id: str, cluster_name: str, why: str) -> None:
        self._write(csv_line((group_id, cluster_name, on_one_line(why), "", "", "")))


async def _each(jobs: Iterator[T]) -> AsyncIterator[T]:
    for job in jobs:
        yield job


async def _in_order(
    jobs: AsyncIterator[Coroutine[Any, Any, T]], ahead: int
) -> AsyncGenerator[T, None]:
    """Run up to `ahead` jobs at once and give what they return in their own order.

    Each result comes as soon as those before it have come, whether there is a next job yet or not.
    None of the jobs goes on when this is closed.
    """
    running: deque[asyncio.Task[T]] = deque()
    room = asyncio.Semaphore(ahead)
    starting = asyncio.create_task(_start_next(jobs, room, running))
    try:
        while not starting.done() or starting.result():
            if starting.done():
                starting = asyncio.create_task(_start_next(jobs, room, running))
            await asyncio.wait({starting, *islice(running, 1)}, return_when=asyncio.FIRST_COMPLETED)
            while running and running[0].done():
                yield running.popleft().result()
                room.release()
        while running:
            yield await running.popleft()
    finally:
        left = [starting, *running]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _start_next(
    jobs: AsyncIterator[Coroutine[Any, Any, T]],
    room: asyncio.Semaphore,
    running: deque[asyncio.Task[T]],
) -> bool:
    """Start the next job as soon as there is room for it; gives whether there was one."""
    await room.acquire()
    job = await anext(jobs, None)
    if job is not None:
        running.append(asyncio.create_task(job))
    return job is not None


# --- items of the lists ---------------------------------------------------------------------------
#
# One contract: what the item names, or None where it names nothing that could be asked about.


def _project(entry: Entry) -> Project | None:
    if entry.id is None or not is_object_id(entry.id):
        return None
    return Project(entry.id, _text(_attributes(entry).get("name")))


def _cluster(project: Project, entry: Entry) -> Cluster | None:
    attributes = _attributes(entry)
    name = _text(attributes.get("name"))
    version = _text(attributes.get("mongoDBVersion") or attributes.get("mongoDBMajorVersion"))
    return Cluster(project, name, version) if is_cluster_name(name) else None


def _checkpoint(entry: Entry) -> tuple[str, str] | None:
    """A checkpoint's id, and when it was started as Atlas says it."""
    if entry.id is None or not is_object_id(entry.id):
        return None
    return entry.id, _text(_attributes(entry).get("started"))


def _attributes(entry: Entry) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(entry.raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    return on_one_line(value) if isinstance(value, str) else ""


def _nameless(entry: Entry) -> Failure:
    said = bytes(entry.raw)[:80].decode("utf-8", "replace")
    return Failure(FailureKind.UNREADABLE, 200, detail=f"an item that names nothing: {said}")


# --- where the rows go ----------------------------------------------------------------------------


@contextmanager
def writing(to: Path | None) -> Iterator[Callable[[str], None]]:
    """Give a function that writes text, in UTF-8, to the file `to` or to standard output.

    A file is written beside its place and moved there at the end: whoever reads it finds the old
    one or the whole new one. Raises `OutputsUnwritable`.
    """
    name, hint = (str(to), "check --to") if to else ("standard output", "check who reads it")
    with _output_errors(name, hint):
        if to is None:
            yield _writer(sys.stdout.buffer)
            return
        place = Path(os.path.realpath(to))  # other than Path.resolve, it takes links that loop
        if os.path.lexists(place) and not place.is_file():
            raise OutputsUnwritable(f"{to} is no regular file", hint="name another with --to")
        draft = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            with draft.open("wb") as file:
                yield _writer(file)
                os.fsync(file.fileno())
            draft.replace(place)
        finally:
            draft.unlink(missing_ok=True)


def _writer(file: IO[bytes]) -> Callable[[str], None]:
    def write(text: str) -> None:
        file.write(text.encode("utf-8", "backslashreplace"))
        file.flush()

    return write


@contextmanager
def _output_errors(name: str, hint: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputsUnwritable(f"{name} cannot be written: {error.strerror}", hint=hint) from error


# --- errors ---------------------------------------------------------------------------------------

_AGAIN = "start the same command again later"


def _standing(reply: Reply) -> bool | Failure:
    return read_preliminary(reply) or True


def _no_projects(failure: Failure) -> AuditError:
    if failure.kind in _UNREACHED:
        return AtlasUnavailable(
            f"Atlas cannot be reached: {failure.detail}",
            hint="check network, proxy, --base-url and --ca-file",
        )
    if failure.kind in UNAVAILABLE_KINDS | {FailureKind.THROTTLED}:
        return AtlasUnavailable(f"Atlas does not list its projects: {failure}", hint=_AGAIN)
    return _refused(failure)


def _refused(failure: Failure) -> AuditError:
    hints = {
        FailureKind.ACCESS_LIST: "add this machine's address to the API access list in Atlas",
        FailureKind.ACCOUNT_SUSPENDED: "settle the account with MongoDB",
    }
    hint = hints.get(failure.kind, "check the credentials, and whether they have expired")
    return CredentialsRefused(f"Atlas refuses this: {failure}", hint=hint)
