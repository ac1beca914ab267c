"""The journal of a run: begun with its input, or found again and gone on with.

A run that was stopped is found by what it is about: the audit's name, the input's digest, the base
URL, and the run that it completes, if any.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from pipeline import __version__
from pipeline.beyond import discovered_of
from pipeline.commits import usable
from pipeline.completion import take_answers
from pipeline.errors import (
    AuditError,
    ConfigurationWrong,
    InputMissing,
    InputUnusable,
    JournalDamaged,
)
from pipeline.intake import (
    DISCOVERED_FILE,
    KeptInput,
    changed_at,
    check_header,
    keep_input,
    load_input,
    printable,
)
from pipeline.journal import FORMAT, Journal
from pipeline.published import PublishedRun
from pipeline.runs import AuditFolder, copy_log_aside, new_run_id, remove_journal, set_aside
from pipeline.settings import Settings
from pipeline.wal import is_damaged

log = logging.getLogger(__name__)

_DISCOVER = "give a CSV that `discover --to FILE` wrote, or leave --discovered out"

T = TypeVar("T")

#: An unfinished run that is older is not gone on with unless its date is asked for.
_RESUMABLE = timedelta(hours=36)


class Unfinished:
    """Opens the journal of the run that `settings` describe; `now` is an aware time."""

    def __init__(self, settings: Settings, folder: AuditFolder, now: datetime) -> None:
        self._settings = settings
        self._folder = folder
        self._now = now

    def keep_input(self) -> KeptInput:
        """Copy the input into the audit's work folder, as `intake.keep_input` does."""
        settings = self._settings
        if settings.parent is None:
            return keep_input(settings.source, self._folder.work)
        source = settings.parent.file("evidence/input.csv.gz")
        kept = keep_input(str(source), self._folder.work)
        return msgspec.structs.replace(kept, source=settings.parent.manifest.input_source)

    def keep_discovered(self) -> KeptInput | None:
        """Copy what `discover` wrote likewise, or what the run to complete was compared with.

        None where there is neither. Raises what `keep_input` does, also for a file without the
        columns of a triple.
        """
        settings = self._settings
        if settings.discovered is not None:
            return _keep_discovered(settings.discovered, self._folder.work)
        found = discovered_of(settings.parent) if settings.parent is not None else None
        if found is None:
            return None
        kept = _keep_discovered(str(found.path), self._folder.work)
        return msgspec.structs.replace(kept, source=found.source)

    def open(self, kept: KeptInput) -> Journal:
        """Open the journal of this very run if it was begun, else a new one with the input.

        Raises what `keep_input` and `load_input` do.
        """
        path = self.path(kept)
        if self._settings.fresh:
            _throw_away(path)
        journal = self._found(path) if path.exists() else None
        if journal is None:
            self._say_what_is_left(path, kept.sha256)
            journal = self._begun(path, kept)
        return journal

    def path(self, kept: KeptInput) -> Path:
        """Give the journal's place.

        A date that is asked for is a run of its own, unless the run without one has that date.
        """
        settings = self._settings
        about = [settings.audit_name, kept.sha256, settings.base_url]
        if settings.parent is not None:
            return self._place(*about, settings.parent.run_id)
        plain = self._place(*about)
        if settings.audit_date is None:
            return plain
        dated = self._place(*about, settings.audit_date.isoformat())
        is_same = not dated.exists() and _date_of(plain) == settings.audit_date.isoformat()
        return plain if is_same else dated

    def _place(self, *about: str) -> Path:
        digest = hashlib.sha256("\n".join(about).encode()).hexdigest()
        return self._folder.work / f"{digest[:16]}.journal"

    def visible(self) -> list[tuple[Path, str]]:
        """Give the journals whose runs are published already, and these runs."""
        self._look_at_the_logs()
        found = self._of_others(None, lambda other: (other.path, other.fact("run_id")))
        return [(path, run_id) for path, run_id in found if (self._folder.runs / run_id).exists()]

    def _look_at_the_logs(self) -> None:
        """Before anything is opened: of a damaged log SQLite takes a part, and says nothing."""
        for path in self._folder.work.glob("*.journal"):
            with usable(path):
                is_wrong = is_damaged(path.with_name(f"{path.name}-wal"))
            if is_wrong:
                aside = copy_log_aside(path)
                log.warning("the log of the journal %s is damaged; a copy is %s", path, aside)
                log.warning("what was answered behind the damage is asked for again")

    # --- begun ---

    def _begun(self, path: Path, kept: KeptInput) -> Journal:
        remove_journal(path)  # what a removal that was broken off has left of one
        journal = Journal(path)
        try:
            load_input(kept, journal, strict=self._settings.strict)
            self._set_facts(journal, kept)
            journal.settle_log()  # so that damage to the log can cost replies only
        except BaseException:
            journal.close()
            remove_journal(path)
            raise
        return journal

    def _set_facts(self, journal: Journal, kept: KeptInput) -> None:
        """Say what the run is about; its id comes with the rest, and makes it a run."""
        settings, parent = self._settings, self._settings.parent
        taken = take_answers(parent, journal) if parent is not None else 0
        audit_date = settings.audit_date or self._now.date()
        before = self._folder.last_whole(audit_date)
        changed = changed_at(settings.source) if parent is None else None
        if settings.expected.max_age is not None and changed is None:
            raise ConfigurationWrong(
                f"the age of {kept.source} is not known: it is no regular file",
                hint="leave --max-input-age out, or name a file",
            )
        journal.set_facts(
            run_id=new_run_id(self._now, settings.audit_name),
            started_at=self._now.isoformat(),
            audit_date=audit_date.isoformat(),
            tool_version=__version__,
            credential_id=_everybody(parent, settings.credentials.id),
            input_source=kept.source,
            input_sha256=kept.sha256,
            base_url=settings.base_url,
            policy_sha256=settings.policy.sha256,
            parent_run_id=parent.run_id if parent is not None else "",
            taken_answers=str(taken),
            changed_at=changed.isoformat() if changed is not None else "",
            before_run=before.run_id if before is not None else "",
            was_complete="yes" if before is not None and before.manifest.complete else "",
            before=str(before.manifest.triple_count) if before is not None else "",
        )

    # --- found ---

    def _found(self, path: Path) -> Journal | None:
        """The journal at `path` if this run may go on with it; else it is put away, and said."""
        try:
            journal = Journal(path)
        except JournalDamaged as error:
            _say_set_aside(path, error)
            return None
        try:
            journal.check()
            reason = self._reason_to_start_anew(journal)
        except BaseException as error:
            journal.close()
            if not isinstance(error, JournalDamaged):
                raise
            _say_set_aside(path, error)
            return None
        if reason is None:
            self._say_going_on(journal)
            self._note_credential(journal)
            return journal
        said, is_run = _words(journal), bool(journal.fact("run_id"))
        journal.close()
        if is_run:
            remove_journal(path)
            log.warning("starting anew: %s, is not gone on with: %s", said, reason)
        else:
            log.warning(
                "starting anew, the journal is set aside as %s: %s", set_aside(path), reason
            )
        return None

    def _reason_to_start_anew(self, journal: Journal) -> str | None:
        asked_date = self._settings.audit_date
        if not journal.fact("run_id"):
            return "it holds no run: it was stopped while it read its input, or was damaged"
        if (self._folder.runs / journal.fact("run_id")).exists():
            return "it is published already"
        if journal.fact("format") != FORMAT:
            return f"version {journal.fact('tool_version')} journalled in another way"
        if date.fromisoformat(journal.fact("audit_date")) > self._now.date() + timedelta(days=1):
            return f"it is dated {journal.fact('audit_date')}, by a clock that was ahead"
        age = self._now - datetime.fromisoformat(journal.fact("started_at"))
        if asked_date is None and age > _RESUMABLE:
            return f"it was begun {age / timedelta(hours=1):.0f} hours ago"
        return None

    def _say_going_on(self, journal: Journal) -> None:
        log.info("going on with %s", _words(journal))
        begun_by = journal.fact("tool_version")
        if begun_by != __version__:
            log.warning("version %s began this run, %s goes on with it", begun_by, __version__)
        policy, known = self._settings.policy, journal.fact("policy_sha256")
        if known not in ("", policy.sha256):
            log.warning("begun under another policy, this run is judged by %r now", policy.name)

    def _note_credential(self, journal: Journal) -> None:
        """Name everybody who asked: a resumed run may go on with other credentials."""
        mine, before = self._settings.credentials.id, journal.fact("credential_id")
        if mine in before.split(", "):
            return
        if journal.tally().answers:
            log.warning("going on as %s what was begun as %s", mine, before)
            mine = f"{before}, {mine}"
        journal.set_facts(credential_id=mine)

    # --- the others ---

    def _say_what_is_left(self, path: Path, sha256: str) -> None:
        """A run that was begun with another input is not forgotten without a word."""

        def words(other: Journal) -> str:
            difference = self._difference(other, sha256)
            return f"{_words(other)}, is left unfinished: it was begun {difference}"

        for said in self._of_others(path, words, say=log.warning):
            log.warning("%s; it is kept for a week", said)

    def _difference(self, other: Journal, sha256: str) -> str:
        if other.fact("parent_run_id"):
            return f"to complete {other.fact('parent_run_id')}"
        if other.fact("base_url") != self._settings.base_url:
            return f"against {other.fact('base_url')}"
        if other.fact("input_sha256") != sha256:
            return f"before the input changed ({other.fact('input_source')})"
        return f"for {other.fact('audit_date')}"

    def parents(self, path: Path) -> frozenset[str]:
        """Give the runs that unfinished journals, but for the one at `path`, complete."""
        return frozenset(self._of_others(path, lambda other: other.fact("parent_run_id"))) - {""}

    def _of_others(
        self, path: Path | None, read: Callable[[Journal], T], say: Callable[..., None] = log.debug
    ) -> Iterator[T]:
        """Read something of every other journal of this audit that had read its input.

        One that cannot be read is said, and stops nobody: it may be of any other input.
        """
        for each in sorted(self._folder.work.glob("*.journal")):
            if each == path:
                continue
            try:
                with Journal(each) as other:
                    found = [read(other)] if other.fact("run_id") else []
            except AuditError as error:
                say("an unfinished run is left alone: %s", error)
            else:
                yield from found


def _keep_discovered(source: str, work: Path) -> KeptInput:
    """Copy what `discover` wrote; what is wrong with it is told of the option, not of the input."""
    try:
        kept = keep_input(source, work, DISCOVERED_FILE)
        check_header(kept)
    except (InputMissing, InputUnusable) as error:
        said = f"--discovered {printable(source)}: {error}"
        raise type(error)(said, hint=_DISCOVER) from error
    return kept


def _date_of(path: Path) -> str:
    """The date of the run that a journal holds; none where there is none, or it cannot be read."""
    if not path.exists():
        return ""
    try:
        with Journal(path) as journal:
            return journal.fact("audit_date")
    except AuditError:  # whoever opens it to go on with it says so
        return ""


def _everybody(parent: PublishedRun | None, mine: str) -> str:
    """Everybody whose answers a run holds."""
    before = parent.manifest.credential_id.split(", ") if parent is not None else []
    return ", ".join([*(each for each in before if each != mine), mine])


def _throw_away(path: Path) -> None:
    """Remove the journal of a run that is begun anew, and say what it held."""
    if not path.exists():
        return
    try:
        with Journal(path) as journal:
            said = _words(journal)
    except AuditError as error:
        said = str(error)
    remove_journal(path)
    log.warning("--fresh: thrown away: %s", said)


def _say_set_aside(path: Path, error: JournalDamaged) -> None:
    log.warning("starting anew, the journal is set aside as %s: %s", set_aside(path), error)


def _words(journal: Journal) -> str:
    tally = journal.tally()
    return (
        f"the unfinished run {journal.fact('run_id') or '(not quite begun)'}, "
        f"{tally.answers:,} of {tally.triples:,} triples answered"
    )
