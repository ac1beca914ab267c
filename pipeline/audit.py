"""One run from end to end: input → journal → replies → tables, findings, report → published.

This module joins the stages and decides nothing that one of them could decide. What a run has
collected is in its journal, which a later start goes on with (see `unfinished`).
"""

import asyncio
import logging
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from pipeline.attempts import Attempt
from pipeline.auth import Credentials
from pipeline.collect import Collector
from pipeline.errors import (
    AlreadyRunning,
    ConfigurationWrong,
    InputMissing,
    InputUnusable,
    Interrupted,
    JournalDamaged,
    OutputsUnwritable,
)
from pipeline.intake import KeptInput, printable
from pipeline.journal import Journal, Tally
from pipeline.judgements import Judgement
from pipeline.outcomes import Outcome
from pipeline.policy import Policy
from pipeline.pool import DRAIN_S
from pipeline.population import Population, shortfalls
from pipeline.publication import Published, Publisher, read_published
from pipeline.published import address_of
from pipeline.reach import Reach, reached
from pipeline.runs import remove_journal, set_aside
from pipeline.settings import Settings
from pipeline.staging import writing
from pipeline.stored import audit_folder
from pipeline.terms import unmet
from pipeline.unfinished import Unfinished

log = logging.getLogger(__name__)

#: What is kept free before a deadline to publish in: seconds, and triples published in a second.
#: A quarter to an eighth of what it takes as a rule; a deadline should hold on a slow disk too.
_PUBLISHING_S, _PUBLISHED_A_SECOND = 5.0, 4000.0

#: Bytes that a triple takes in the journal (measured: 800) and in the published run (600), and what
#: there is besides: SQLite's log, the reports.
_JOURNAL_BYTES, _PUBLISHED_BYTES, _SPARE_BYTES = 1000, 800, 8_000_000


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
        self._folder = audit_folder(
            settings.output_dir, settings.audit_name, settings.work_dir, self._check_signal
        )
        self._attempt = Attempt(self._folder, _source(settings), now)
        self._publisher = Publisher(settings, self._folder, self._see, now)
        self._signal: int | None = None
        self._is_expired = False
        self._kept = ""
        self._untold: tuple[Published, ...] = ()
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
            self._attempt.refused(error)
            raise

    async def _run_noted(self) -> Published:
        self._attempt.started()
        try:
            self._locked()
            published = await self._run_locked()
        except BaseException as error:
            self._attempt.failed(error)
            raise
        self._attempt.published(published)
        return published

    async def _run_locked(self) -> Published:
        unfinished = Unfinished(self._settings, self._folder, self._now())
        finished = self._finish_what_is_visible(unfinished)
        self._untold = tuple(each for each in finished.values() if not self._is_tonights(each))
        for each in self._untold:
            self._attempt.finished(each)
        try:
            published = await self._publish_asked(unfinished, finished)
        except BaseException:
            self._say_untold()
            raise
        return msgspec.structs.replace(published, untold=self._untold)

    def _say_untold(self) -> None:
        """Say how the runs of other dates ended that were left, as no last line will name them."""
        for each in self._untold:
            log.warning(
                "%s, which an earlier start has left, is published: exit %d: %s: %s",
                each.address,
                each.summary.exit_code,
                each.summary.answer,
                each.summary.headline,
                extra={"unquiet": True},
            )

    async def _publish_asked(
        self, unfinished: Unfinished, finished: dict[Path, Published]
    ) -> Published:
        kept, discovered = unfinished.keep_input(), unfinished.keep_discovered()
        told = finished.get(unfinished.path(kept))
        published = self._published_already(told, discovered)
        if published is None:
            published = await self._publish_one(unfinished, kept, discovered)
        with self._unless_published():
            for each in filter(None, (kept, discovered)):
                each.path.unlink(missing_ok=True)
        return published

    def _finish_what_is_visible(self, unfinished: Unfinished) -> dict[Path, Published]:
        """Finish every run of this audit that died when all but its tidying was done."""
        finished = {}
        for path, run_id in unfinished.visible():
            try:
                finished[path] = self._publisher.finish(run_id)
            except (InputMissing, InputUnusable) as error:  # somebody has laid hands on it
                log.warning("run %s cannot be finished: %s", run_id, error)
            else:
                remove_journal(path)
        return finished

    def _published_already(
        self, told: Published | None, discovered: KeptInput | None
    ) -> Published | None:
        """The run that is asked for, where there is nothing left to do; else it is said why not.

        `told` is the one that an earlier start of this command died of telling, if it did.
        """
        if told is not None and (self._settings.fresh or not self._is_tonights(told)):
            told = None
        for found in filter(None, (told, self._nothing_to_complete())):
            run_id = found.summary.run.run_id
            lacking = "; ".join(unmet(found, self._settings, discovered))
            if not lacking:
                self._attempt.run_id = run_id
                return found
            log.warning("%s is not what is asked for: %s; another is published", run_id, lacking)
        return None

    def _is_tonights(self, published: Published) -> bool:
        asked_date = self._settings.audit_date or self._now().date()
        return published.summary.run.audit_date == asked_date

    def _nothing_to_complete(self) -> Published | None:
        """The run that is to be completed, where none of its triples is inconclusive."""
        parent, current = self._settings.parent, self._folder.current()
        if parent is None:
            return None
        found = read_published(parent.path)
        if found.summary.counts.inconclusive_count:
            return None
        log.info("nothing to complete: no triple of %s is inconclusive", parent.run_id)
        is_current = current is not None and current.run_id == parent.run_id
        address = address_of(self._settings.output_dir, parent.path)
        return msgspec.structs.replace(found, address=address, is_current=is_current, is_new=False)

    async def _publish_one(
        self, unfinished: Unfinished, kept: KeptInput, discovered: KeptInput | None
    ) -> Published:
        self._say_unsigned()
        with unfinished.open(kept) as journal:
            self._begun()
            self._attempt.run_id = journal.fact("run_id")
            published = await self._collect_and_publish(journal, kept, discovered)
        left = {each.summary.run.run_id for each in self._untold}
        self._publisher.keep(unfinished.parents(journal.path) | left)
        # Last: with its journal gone, a run that nobody was told of is not known to be one.
        with self._unless_published():
            remove_journal(journal.path)
        return published

    def _say_unsigned(self) -> None:
        """A signature is not taken over: nobody but its key's owner can sign what is new."""
        parent = self._settings.parent
        if parent is not None and parent.signed_by and self._settings.signer is None:
            log.warning(
                "%s is signed with the key %s; the run that completes it is not signed: "
                "give --sign-key again",
                parent.run_id,
                parent.signed_by,
            )

    @contextmanager
    def _unless_published(self) -> Iterator[None]:
        """A run that is published stays so, whether or not what is left of it can be tidied up."""
        try:
            with writing(self._folder.work):
                yield
        except OutputsUnwritable as error:
            log.warning("what is not needed any more is left to the next start: %s", error)

    async def _collect_and_publish(
        self, journal: Journal, kept: KeptInput, discovered: KeptInput | None
    ) -> Published:
        policy = self._settings.policy
        tally, said = journal.tally(), self._shortfalls(journal, policy)
        self._watcher.started(journal.fact("run_id"), tally)
        for shortfall in said:
            log.warning("%s", shortfall)
        self._folder.check_room(_room(tally))
        try:
            await self._collect_until_the_end(journal)
            self._watcher.deriving()
            published = await asyncio.to_thread(
                self._publisher.publish, journal, kept, discovered, said
            )
        except JournalDamaged as error:
            journal.close()
            aside = set_aside(journal.path)
            raise JournalDamaged(f"{error}; it is set aside as {aside}") from error
        if self._settings.deadline is not None and self._now() > self._settings.deadline:
            log.warning("published after the deadline, for all that was left to do so in time")
        return published

    def _shortfalls(self, journal: Journal, policy: Policy) -> tuple[str, ...]:
        """Why the population cannot be taken for whole, by what was known when the run began.

        The input of a run that is completed is what it was.
        """
        if self._settings.parent is not None:
            return self._settings.parent.manifest.shortfalls
        changed, before = journal.fact("changed_at"), journal.fact("before")
        population = Population(
            triples=journal.tally().triples,
            began_at=datetime.fromisoformat(journal.fact("started_at")),
            changed_at=datetime.fromisoformat(changed) if changed else None,
            before=int(before) if before else None,
            before_run=journal.fact("before_run"),
            was_complete=bool(journal.fact("was_complete")),
        )
        return shortfalls(population, self._settings.expected, policy.population.allowed_drop)

    async def _collect_until_the_end(self, journal: Journal) -> None:
        """Collect, as far as a signal or the deadline lets; only a signal is raised."""
        left = self._time_to_ask(journal.tally())
        journal.set_facts(not_asked="")
        self._collecting = asyncio.create_task(self._collect(journal))
        loop = asyncio.get_running_loop()
        timer = None if left is None else loop.call_later(left, self._expire)
        try:
            await self._collecting
        except asyncio.CancelledError:
            if self._signal is None and not self._is_expired:
                raise
        finally:
            if timer is not None:
                timer.cancel()
        self._kept = journal.tally().kept
        self._check_signal()
        if self._is_expired:
            self._give_up(journal)
        else:
            self._kept = "all that was to be asked is answered and kept"

    def _time_to_ask(self, tally: Tally) -> float | None:
        """Seconds until what is left to the deadline is needed for publishing; None: for ever.

        Raises `ConfigurationWrong` where nothing can be asked before, and nothing was.
        """
        deadline = self._settings.deadline
        if deadline is None:
            return None
        needed = DRAIN_S + _PUBLISHING_S + tally.triples / _PUBLISHED_A_SECOND
        left = (deadline - self._now()).total_seconds() - needed
        if left <= 0 and not tally.answers:
            raise ConfigurationWrong(
                f"--deadline {deadline:%Y-%m-%d %H:%M:%S} UTC leaves no time to ask for anything: "
                f"{needed:.0f} s before it are kept to publish {tally.triples:,} triples",
                hint="give a later one, or none",
            )
        return max(0.001, left)

    def _expire(self) -> None:
        """Stop asking: there is just time to publish what was answered."""
        self._is_expired = True
        if self._collector is not None:
            self._collector.expire()
        elif self._collecting is not None:
            self._collecting.cancel()

    def _give_up(self, journal: Journal) -> None:
        left = journal.give_up("not asked before the deadline")
        journal.set_facts(not_asked=str(left))
        log.warning("the deadline is near: %s triples were not asked", f"{left:,}")

    def _check_signal(self) -> None:
        if self._signal is not None:
            raise Interrupted(self._signal, kept=self._kept)

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


def _source(settings: Settings) -> str:
    parent = settings.parent
    return printable(settings.source) if parent is None else f"run {parent.run_id}"


def _room(tally: Tally) -> int:
    """Bytes that journalling what is left, and publishing all of it, will take."""
    left = tally.triples - tally.answers
    return _SPARE_BYTES + left * _JOURNAL_BYTES + tally.triples * _PUBLISHED_BYTES
