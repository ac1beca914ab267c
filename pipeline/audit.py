"""One run from end to end: input → journal → replies → tables, findings, report → published.

This module joins the stages and decides nothing that one of them could decide. What a run has
collected is in its journal; a run that was stopped is found again by what it is about: the audit's
name, the input's digest, the base URL.
"""

import asyncio
import getpass
import hashlib
import logging
import os
import platform
import secrets
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from pipeline import __version__
from pipeline.atlas import API_VERSION
from pipeline.auth import Credentials
from pipeline.collect import Asking, Collector
from pipeline.derive import derive
from pipeline.errors import AlreadyRunning, AuditError, Interrupted
from pipeline.findings import RULES_VERSION, Judgement
from pipeline.intake import KeptInput, keep_input, load_input, printable
from pipeline.journal import FORMAT, Journal, Tally
from pipeline.outcomes import Outcome
from pipeline.policy import Policy, default_policy
from pipeline.reach import Reach, reached
from pipeline.report import Summary
from pipeline.report.summary import RunFacts
from pipeline.runs import AuditFolder, Current, remove_journal
from pipeline.staging import sha256_of
from pipeline.tables import SCHEMA_VERSION

log = logging.getLogger(__name__)

#: An unfinished run that is older is not gone on with unless its date is asked for.
_RESUMABLE = timedelta(hours=36)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one run is asked to do. `source` is a path, or `-` for standard input.

    `audit_date` None: today in UTC, or the date of the unfinished run that is gone on with.
    """

    source: str
    output_dir: Path
    audit_name: str
    credentials: Credentials
    base_url: str
    audit_date: date | None = None
    ca_file: Path | None = None
    proxy: str | None = None
    timeout: float = 30.0
    asking: Asking = Asking()
    fresh: bool = False
    strict: bool = False


class Published(msgspec.Struct, frozen=True):
    """A published run: its folder, summary, manifest's digest, and whether it is current."""

    path: Path
    summary: Summary
    manifest_sha256: str
    is_current: bool


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

    async def _run_locked(self) -> Published:
        kept = keep_input(self._settings.source, self._folder.work)
        with self._journal(kept) as journal:
            self._run_id = journal.fact("run_id")
            self._begun()
            if (self._folder.runs / journal.fact("run_id")).exists():
                published = self._finish(journal.fact("run_id"))
            else:
                published = await self._collect_and_publish(journal, kept)
        remove_journal(journal.path)
        kept.path.unlink(missing_ok=True)
        return published

    async def _collect_and_publish(self, journal: Journal, kept: KeptInput) -> Published:
        self._watcher.started(journal.fact("run_id"), journal.tally())
        self._collecting = asyncio.create_task(self._collect(journal))
        try:
            await self._collecting
        except asyncio.CancelledError:
            self._check_signal()
            raise
        self._check_signal()
        self._watcher.deriving()
        return await asyncio.to_thread(self._publish, journal, kept, default_policy())

    def _check_signal(self) -> None:
        if self._signal is not None:
            raise Interrupted(self._signal)

    def _see(self, judgement: Judgement | None) -> None:
        self._check_signal()
        if judgement is not None:
            self._judged(judgement)

    # --- the journal ---

    def _journal(self, kept: KeptInput) -> Journal:
        """Open the journal of this very run if it was begun, else a new one with the input."""
        settings = self._settings
        about = f"{settings.audit_name}\n{kept.sha256}\n{settings.base_url}"
        path = self._folder.work / f"{hashlib.sha256(about.encode()).hexdigest()[:16]}.journal"
        if settings.fresh:
            remove_journal(path)
        if path.exists() and (journal := self._unfinished(path)) is not None:
            self._note_credential(journal)
            return journal
        journal = Journal(path)
        try:
            load_input(kept, journal, strict=settings.strict)
        except BaseException:
            journal.close()
            remove_journal(path)
            raise
        started_at = self._now()
        run_id = _run_id(started_at, settings.audit_name)
        audit_date = settings.audit_date or started_at.date()
        journal.set_facts(
            run_id=run_id,
            started_at=started_at.isoformat(),
            audit_date=audit_date.isoformat(),
            tool_version=__version__,
            credential_id=settings.credentials.id,
        )
        return journal

    def _note_credential(self, journal: Journal) -> None:
        """Name everybody who asked: a resumed run may go on with other credentials."""
        mine, before = self._settings.credentials.id, journal.fact("credential_id")
        if mine in before.split(", "):
            return
        if journal.tally().answers:
            log.warning("going on as %s what was begun as %s", mine, before)
            mine = f"{before}, {mine}"
        journal.set_facts(credential_id=mine)

    def _unfinished(self, path: Path) -> Journal | None:
        """The journal at `path` if this run may go on with it; else it is set aside, and said."""
        try:
            journal = Journal(path)
            reason = self._reason_to_start_anew(journal)
        except AuditError as error:
            aside = path.with_suffix(".damaged")
            path.replace(aside)
            remove_journal(path)
            log.warning("starting anew, the journal is set aside as %s: %s", aside, error)
            return None
        if reason is None:
            log.info("going on with the unfinished run %s", journal.fact("run_id"))
            return journal
        journal.close()
        remove_journal(path)
        log.warning("an unfinished run is not gone on with: %s", reason)
        return None

    def _reason_to_start_anew(self, journal: Journal) -> str | None:
        asked_date = self._settings.audit_date
        if not journal.fact("run_id"):
            return "it had not read its input"
        if journal.fact("format") != FORMAT or journal.fact("tool_version") != __version__:
            return f"it was begun by version {journal.fact('tool_version')}"
        if asked_date is not None and journal.fact("audit_date") != asked_date.isoformat():
            return f"it is dated {journal.fact('audit_date')}"
        age = self._now() - datetime.fromisoformat(journal.fact("started_at"))
        if asked_date is None and age > _RESUMABLE:
            return f"it was begun {age.days * 24 + age.seconds // 3600} hours ago"
        return None

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

    def _publish(self, journal: Journal, kept: KeptInput, policy: Policy) -> Published:
        facts = self._facts(journal, kept, policy)
        staging = self._folder.stage(facts.run_id)
        try:
            summary = derive(journal, policy, facts, staging, self._see)
            staging.copy("evidence/input.csv.gz", kept.path)
            staging.write("evidence/policy.toml", policy.text)
            digest = staging.seal(self._manifest(facts))
            self._check_signal()
        except BaseException:
            staging.discard()
            raise
        is_current = self._folder.publish(staging, _current(summary, digest))
        return Published(self._folder.runs / facts.run_id, summary, digest, is_current)

    def _finish(self, run_id: str) -> Published:
        """Finish what died after its run had become visible, and before all else was done."""
        log.info("run %s is published already; finishing", run_id)
        path = self._folder.runs / run_id
        digest = sha256_of(path / "manifest.json")
        summary = msgspec.json.decode((path / "summary.json").read_bytes(), type=Summary)
        is_current = self._folder.point(_current(summary, digest))
        return Published(path, summary, digest, is_current)

    def _facts(self, journal: Journal, kept: KeptInput, policy: Policy) -> RunFacts:
        tally = journal.tally()
        return RunFacts(
            run_id=journal.fact("run_id"),
            audit_name=self._settings.audit_name,
            audit_date=date.fromisoformat(journal.fact("audit_date")),
            parent_run_id=None,
            started_at=datetime.fromisoformat(journal.fact("started_at")),
            finished_at=self._now(),
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

    def _manifest(self, facts: RunFacts) -> dict[str, Any]:
        previous = self._folder.current()
        return {
            "manifest_version": 1,
            **msgspec.to_builtins(facts),
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


def _run_id(started_at: datetime, audit_name: str) -> str:
    return f"{started_at:%Y%m%dT%H%M%SZ}-{audit_name}-{secrets.token_hex(3)}"


def _operator() -> str:
    """Who runs this, as the host reports; in a container there may be no such name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
