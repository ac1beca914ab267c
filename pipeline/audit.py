"""One run from end to end: input → journal → replies → tables, findings, report → published.

This module joins the stages and decides nothing that one of them could decide. What a run has
collected is in its journal, which a later start goes on with (see `unfinished`).
"""

import asyncio
import getpass
import logging
import os
import platform
import secrets
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec

from pipeline import __version__
from pipeline.atlas import API_VERSION
from pipeline.auth import Credentials
from pipeline.collect import Collector
from pipeline.derive import derive
from pipeline.errors import (
    AlreadyRunning,
    AuditError,
    InputUnusable,
    Interrupted,
    JournalDamaged,
)
from pipeline.findings import RULES_VERSION, Judgement
from pipeline.intake import KeptInput, printable
from pipeline.journal import Journal, Tally
from pipeline.outcomes import Outcome
from pipeline.policy import Policy, default_policy
from pipeline.pool import DRAIN_S
from pipeline.population import Population, shortfalls
from pipeline.published import Current, sha256_of
from pipeline.reach import Reach, reached
from pipeline.report import Summary
from pipeline.report import Tally as ReportTally
from pipeline.report.summary import RunFacts
from pipeline.runs import AuditFolder, remove_journal, set_aside
from pipeline.settings import Settings
from pipeline.tables import SCHEMA_VERSION
from pipeline.unfinished import Unfinished

log = logging.getLogger(__name__)

#: What is kept free before a deadline to publish in: seconds, and triples published in a second.
#: A quarter to an eighth of what it takes as a rule; a deadline should hold on a slow disk too.
_PUBLISHING_S, _PUBLISHED_A_SECOND = 5.0, 4000.0

#: Bytes that a triple takes in the journal (measured: 800) and in the published run (600), and what
#: there is besides: SQLite's log, the reports.
_JOURNAL_BYTES, _PUBLISHED_BYTES, _SPARE_BYTES = 1000, 800, 8_000_000


class Published(msgspec.Struct, frozen=True):
    """A published run: its folder, summary, manifest's digest, and whether it is current."""

    path: Path
    summary: Summary
    manifest_sha256: str
    is_current: bool


def read_published(path: Path) -> Published:
    """Read a run that was published before; it is taken for current.

    Raises `InputUnusable` where its summary cannot be read.
    """
    try:
        summary = msgspec.json.decode((path / "summary.json").read_bytes(), type=Summary)
        digest = sha256_of(path / "manifest.json")
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputUnusable(f"the run in {path} cannot be read: {error}") from error
    return Published(path, summary, digest, is_current=True)


class Watcher:
    """Is told how a run goes on. This one does nothing; the command line shows a bar."""

    def started(self, run_id: str, tally: Tally) -> None:
        """All lines of the input are read; `tally.answers` were answered before."""

    def settled(self, outcome: Outcome) -> None:
        """One triple has its answer."""

    def deriving(self) -> None:
        """Everything was asked."""

    def ended(self) -> None:
        """The run is over, whichever way."""


class Audit:
    """One run. `stop` may be called from a signal handler while `run` is under way."""

    def __init__(
        self,
        settings: Settings,
        *,
        watcher: Watcher | None = None,
        reread: Callable[[], Credentials] | None = None,
        locked: Callable[[], None] = lambda: None,
        begun: Callable[[], None] = lambda: None,
        judged: Callable[[Judgement], None] = lambda _: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`reread` reads the credentials again; `now` is the wall clock, aware.

        `locked` is called once this run holds the audit. `begun` is called once the input is read
        and `stop` can be heard: until then a signal handler has to raise. `judged` sees each
        cluster's judgement before anything is published, and may raise.
        """
        self._settings = settings
        self._watcher = watcher or Watcher()
        self._reread = reread
        self._locked = locked
        self._begun = begun
        self._judged = judged
        self._now = now
        self._folder = AuditFolder(settings.output_dir, settings.audit_name)
        self._attempt = secrets.token_hex(4)
        self._run_id: str | None = None
        self._signal: int | None = None
        self._is_expired = False
        self._collector: Collector | None = None
        self._collecting: asyncio.Task[None] | None = None

    def stop(self, signal_number: int) -> None:
        """Stop gently: let requests in flight end, keep the journal, raise `Interrupted`."""
        self._signal = signal_number
        if self._collector is not None:
            self._collector.stop()
        elif self._collecting is not None:
            self._collecting.cancel()

    async def run(self) -> Published:
        """Run and publish.

        Raises an `AuditError` when nothing could be published; what was answered is kept.
        """
        self._folder.prepare()
        started = self._now().isoformat(timespec="seconds")
        try:
            with self._folder.lock(f"process {os.getpid()} on {platform.node()} since {started}"):
                self._folder.clean()
                return await self._run_noted()
        except AlreadyRunning as error:
            self._note_refused(error)
            raise

    async def _run_noted(self) -> Published:
        self._note_start()
        try:
            self._locked()
            published = await self._run_locked()
        except BaseException as error:
            self._note_end(error)
            raise
        self._note_published(published)
        return published

    def _source(self) -> str:
        parent = self._settings.parent
        return printable(self._settings.source) if parent is None else f"run {parent.run_id}"

    async def _run_locked(self) -> Published:
        if (whole := self._nothing_to_complete()) is not None:
            return whole
        unfinished = Unfinished(self._settings, self._folder, self._now())
        kept = unfinished.keep_input()
        published = None
        while published is None:
            published = await self._publish_one(unfinished, kept)
        kept.path.unlink(missing_ok=True)
        return published

    def _nothing_to_complete(self) -> Published | None:
        """The run that is to be completed, where none of its triples is inconclusive."""
        parent, current = self._settings.parent, self._folder.current()
        if parent is None:
            return None
        found = read_published(parent.path)
        if found.summary.counts.inconclusive_count:
            return None
        self._run_id = parent.run_id
        log.info("nothing to complete: no triple of %s is inconclusive", parent.run_id)
        is_current = current is not None and current.run_id == parent.run_id
        return msgspec.structs.replace(found, is_current=is_current)

    async def _publish_one(self, unfinished: Unfinished, kept: KeptInput) -> Published | None:
        """Publish this run; None where that was an earlier night's, and this one is still to come.

        That one died when all but its tidying was done.
        """
        with unfinished.open(kept) as journal:
            self._begun()
            self._run_id = journal.fact("run_id")
            is_visible = (self._folder.runs / self._run_id).exists()
            is_tonights = journal.fact("audit_date") == self._audit_date().isoformat()
            if is_visible:
                published = self._finish(journal)
            else:
                published = await self._collect_and_publish(journal, kept)
        remove_journal(journal.path)
        self._keep(unfinished.parents(journal.path))
        return None if is_visible and not is_tonights else published

    def _audit_date(self) -> date:
        return self._settings.audit_date or self._now().date()

    async def _collect_and_publish(self, journal: Journal, kept: KeptInput) -> Published:
        policy = default_policy()
        tally, said = journal.tally(), self._shortfalls(journal, policy)
        self._watcher.started(journal.fact("run_id"), tally)
        for shortfall in said:
            log.warning("%s", shortfall)
        self._folder.check_room(_room(tally))
        try:
            await self._collect_until_the_end(journal)
            self._watcher.deriving()
            return await asyncio.to_thread(self._publish, journal, kept, policy, said)
        except JournalDamaged as error:
            journal.close()
            aside = set_aside(journal.path)
            raise JournalDamaged(f"{error}; it is set aside as {aside}") from error

    def _shortfalls(self, journal: Journal, policy: Policy) -> tuple[str, ...]:
        """Why the population cannot be taken for whole, by what was known when the run began."""
        changed, before = journal.fact("changed_at"), journal.fact("before")
        population = Population(
            triples=journal.tally().triples,
            began_at=datetime.fromisoformat(journal.fact("started_at")),
            changed_at=datetime.fromisoformat(changed) if changed else None,
            before=int(before) if before else None,
            before_run=journal.fact("before_run"),
        )
        return shortfalls(population, self._settings.expected, policy.population.allowed_drop)

    async def _collect_until_the_end(self, journal: Journal) -> None:
        """Collect, as far as a signal or the deadline lets; only a signal is raised."""
        self._collecting = asyncio.create_task(self._collect(journal))
        timer = self._expire_in_time(journal.tally())
        try:
            await self._collecting
        except asyncio.CancelledError:
            self._check_signal()
            if not self._is_expired:
                raise
        finally:
            if timer is not None:
                timer.cancel()
        self._check_signal()
        if self._is_expired:
            self._give_up(journal)

    def _expire_in_time(self, tally: Tally) -> asyncio.TimerHandle | None:
        """Stop asking when what is left to the deadline is needed for publishing."""
        deadline = self._settings.deadline
        if deadline is None:
            return None
        left = (deadline - self._now()).total_seconds()
        needed = DRAIN_S + _PUBLISHING_S + tally.triples / _PUBLISHED_A_SECOND
        return asyncio.get_running_loop().call_later(max(0.0, left - needed), self._expire)

    def _expire(self) -> None:
        """Stop asking: there is just time to publish what was answered."""
        self._is_expired = True
        if self._collector is not None:
            self._collector.expire()
        elif self._collecting is not None:
            self._collecting.cancel()

    def _give_up(self, journal: Journal) -> None:
        left = journal.give_up("not asked before the deadline")
        log.warning("the deadline is near: %s triples were not asked", f"{left:,}")

    def _check_signal(self) -> None:
        if self._signal is not None:
            raise Interrupted(self._signal)

    def _see(self, judgement: Judgement | None) -> None:
        self._check_signal()
        if judgement is not None:
            self._judged(judgement)

    # --- collecting ---

    async def _collect(self, journal: Journal) -> None:
        settings = self._settings
        run_id = journal.fact("run_id")
        reach = Reach(
            command=f"{settings.audit_name}; {run_id}",
            base_url=settings.base_url,
            credentials=settings.credentials,
            reread=self._reread,
            timeout=settings.timeout,
            ca_file=settings.ca_file,
            proxy=settings.proxy,
        )
        async with reached(reach) as transport:
            self._collector = Collector(transport, journal, settings.asking, self._watcher.settled)
            await self._collector.run()

    # --- publishing ---

    def _publish(
        self, journal: Journal, kept: KeptInput, policy: Policy, said: tuple[str, ...]
    ) -> Published:
        facts = self._facts(journal, kept, policy)
        staging = self._folder.stage(facts.run_id)
        try:
            tally = ReportTally(said)
            for notice in _notices(journal):
                tally.notice(notice)
            summary = derive(journal, policy, facts, staging, tally, self._see)
            staging.copy("evidence/input.csv.gz", kept.path)
            staging.write("evidence/policy.toml", policy.text)
            digest = staging.seal(self._manifest(summary))
            self._check_signal()
        except BaseException:
            staging.discard()
            raise
        current = _current(summary, digest)
        is_current = self._folder.publish(staging, current, facts.parent_run_id)
        return Published(self._folder.runs / facts.run_id, summary, digest, is_current)

    def _finish(self, journal: Journal) -> Published:
        """Finish what died after its run had become visible, and before all else was done."""
        run_id = journal.fact("run_id")
        log.info("run %s is published already; finishing", run_id)
        found = read_published(self._folder.runs / run_id)
        current = _current(found.summary, found.manifest_sha256)
        is_current = self._folder.point(current, found.summary.run.parent_run_id)
        return msgspec.structs.replace(found, is_current=is_current)

    def _keep(self, spared: frozenset[str]) -> None:
        """Remove old runs; that this cannot be done does not undo what was published."""
        if self._settings.keep is None:
            return
        try:
            removed = self._folder.keep(self._settings.keep, self._now(), spared)
        except AuditError as error:
            log.warning("old runs could not be removed: %s", error)
        else:
            if removed:
                log.info("removed, as --keep says: %s", ", ".join(removed))

    def _facts(self, journal: Journal, kept: KeptInput, policy: Policy) -> RunFacts:
        tally = journal.tally()
        started_at = datetime.fromisoformat(journal.fact("started_at"))
        return RunFacts(
            run_id=journal.fact("run_id"),
            audit_name=self._settings.audit_name,
            audit_date=date.fromisoformat(journal.fact("audit_date")),
            parent_run_id=journal.fact("parent_run_id") or None,
            started_at=started_at,
            finished_at=max(self._now(), started_at),  # a clock may be set back
            tool_version=__version__,
            schema_version=SCHEMA_VERSION,
            rules_version=RULES_VERSION,
            base_url=self._settings.base_url,
            credential_id=journal.fact("credential_id"),
            input_source=kept.source,
            input_sha256=kept.sha256,
            policy_sha256=policy.sha256,
            line_count=int(journal.fact("line_count")),
            triple_count=tally.triples,
            duplicate_count=tally.duplicates,
            bad_line_count=tally.bad_lines,
            request_count=tally.requests,
            refusal_count=tally.refusals,
        )

    def _manifest(self, summary: Summary) -> dict[str, Any]:
        previous = self._folder.current()
        return {
            "manifest_version": 1,
            **msgspec.to_builtins(summary.run),
            "complete": summary.complete,
            "exit_code": summary.exit_code,
            "api_version": API_VERSION,
            "host": platform.node(),
            "operator": _operator(),
            "previous": previous
            and {"run_id": previous.run_id, "manifest_sha256": previous.manifest_sha256},
        }

    # --- attempts.jsonl ---

    def _note(self, event: str, **facts: Any) -> None:
        """Add a line; `attempt` tells which start an end belongs to, others may come between."""
        at = self._now().isoformat(timespec="seconds")
        self._folder.note(event=event, at=at, attempt=self._attempt, **facts)

    def _note_start(self) -> None:
        self._note("start", source=printable(self._settings.source))

    def _note_published(self, published: Published) -> None:
        """What is published stays so: that its end cannot be noted changes nothing about it."""
        summary = published.summary
        try:
            self._note(
                "end",
                exit_code=summary.exit_code,
                published=True,
                run_id=summary.run.run_id,
                manifest_sha256=published.manifest_sha256,
                is_current=published.is_current,
            )
        except AuditError as trouble:
            log.warning("the end of this run could not be noted: %s", trouble)

    def _note_end(self, error: BaseException) -> None:
        known = {} if self._run_id is None else {"run_id": self._run_id}
        said = str(error) if isinstance(error, AuditError) else type(error).__name__
        try:
            self._note("end", exit_code=exit_code_of(error), published=False, **known, error=said)
        except AuditError as trouble:
            log.warning("the end of this run could not be noted: %s", trouble)

    def _note_refused(self, error: AlreadyRunning) -> None:
        """Note a start for which somebody else held the audit; these lines need no lock."""
        try:
            self._note_start()
        except AuditError as trouble:
            log.warning("the start of this run could not be noted: %s", trouble)
        self._note_end(error)


def exit_code_of(error: BaseException) -> int:
    """Give the exit code that an error ends the process with."""
    if isinstance(error, Interrupted):
        return error.code
    return error.exit_code if isinstance(error, AuditError) else AuditError.exit_code


def _current(summary: Summary, manifest_sha256: str) -> Current:
    facts = summary.run
    return Current(
        facts.run_id,
        facts.audit_date,
        f"runs/{facts.run_id}",
        manifest_sha256,
        summary.exit_code,
        facts.schema_version,
    )


def _notices(journal: Journal) -> list[str]:
    """What the report says of how the run came about."""
    parent, taken = journal.fact("parent_run_id"), journal.fact("taken_answers")
    return [f"Completes {parent}: {int(taken):,} answers are from its evidence."] if parent else []


def _room(tally: Tally) -> int:
    """Bytes that journalling what is left, and publishing all of it, will take."""
    left = tally.triples - tally.answers
    return _SPARE_BYTES + left * _JOURNAL_BYTES + tally.triples * _PUBLISHED_BYTES


def _operator() -> str:
    """Who runs this, as the host reports; in a container there may be no such name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
