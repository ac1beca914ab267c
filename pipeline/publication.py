"""Publishing: what a journal holds → tables, reports, manifest → a run that is there, and current.

Everything is derived into a staging folder and becomes visible in one step. What was killed after
that step is finished by the next start.
"""

import getpass
import logging
import os
import platform
from collections.abc import Callable, Sequence
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from pipeline import __version__
from pipeline.atlas import API_VERSION
from pipeline.beyond import find_beyond
from pipeline.changes import Changes
from pipeline.columns import SCHEMA_VERSION
from pipeline.comparison import compare, staged_side, write_failing
from pipeline.derive import derive, rejudge
from pipeline.digests import sha256_of
from pipeline.errors import AuditError, InputMissing, InputUnusable
from pipeline.evidence import BASE_POLICY_FILE, POLICY_FILE
from pipeline.intake import DISCOVERED_FILE, KeptInput
from pipeline.journal import Journal
from pipeline.judgements import Judgement
from pipeline.policy import Policy
from pipeline.published import AS_IT_WAS, Current, read_run
from pipeline.quality import check_tables
from pipeline.report import Summary, Tally
from pipeline.report.summary import RunFacts
from pipeline.rules import RULES_VERSION
from pipeline.runs import AuditFolder
from pipeline.settings import Settings
from pipeline.staging import Staging, writing

log = logging.getLogger(__name__)


class Published(msgspec.Struct, frozen=True):
    """A published run: its folder, address, summary, manifest's digest, and whether it is current.

    What is published in a store of objects has its address there, and in `path` a copy.
    `is_new`: that this start published it. `untold` are runs of other dates that an earlier start
    had left and this one published on its way: nobody was told of them.
    """

    path: Path
    address: str
    summary: Summary
    manifest_sha256: str
    is_current: bool
    is_new: bool = True
    untold: "tuple[Published, ...]" = ()


def read_published(path: Path) -> Published:
    """Read a run that was published before; it is taken for current.

    Raises `InputUnusable` where its summary cannot be read.
    """
    try:
        summary = msgspec.json.decode((path / "summary.json").read_bytes(), type=Summary)
        digest = sha256_of(path / "manifest.json")
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputUnusable(f"the run in {path} cannot be read: {error}", hint=AS_IT_WAS) from error
    return Published(path, str(path), summary, digest, is_current=True)


class Publisher:
    """Publishes the runs of one audit."""

    def __init__(
        self,
        settings: Settings,
        folder: AuditFolder,
        see: Callable[[Judgement | None], None],
        now: Callable[[], datetime],
    ) -> None:
        """`see` is shown every judgement, and None now and then; it may raise to stop."""
        self._settings = settings
        self._folder = folder
        self._see = see
        self._now = now

    def publish(
        self,
        journal: Journal,
        kept: KeptInput,
        discovered: KeptInput | None,
        said: tuple[str, ...],
    ) -> Published:
        """Derive and publish a run.

        `discovered` is what `discover` had listed; `said` are the shortfalls of the population.

        Raises an `AuditError` when nothing could be published, and what `see` raises.
        """
        policy = self._settings.policy
        facts = self._facts(journal, kept, policy)
        staging = self._folder.stage(facts.run_id)
        try:
            tally = Tally(policy, said)
            notices = _notices(journal)
            for notice in notices:
                tally.notice(notice)
            if discovered is not None:
                tally.beyond = find_beyond(discovered, (ref for _, ref in journal.triples()))
                staging.copy(f"evidence/{DISCOVERED_FILE}", discovered.path)
            changes = partial(self._changes, facts, tally)
            summary = derive(journal, policy, facts, staging, tally, self._see, changes)
            staging.copy("evidence/input.csv.gz", kept.path)
            write_policy(policy, staging)
            check_tables(staging.path, facts)
            digest = self._seal(staging, self._manifest(summary, policy, notices))
            self._see(None)
        except BaseException:
            staging.discard()
            raise
        current = _current(summary, digest)
        is_current = self._folder.publish(staging, current, facts.parent_run_id)
        path, address = self._folder.runs / facts.run_id, self._folder.address_of(facts.run_id)
        return Published(path, address, summary, digest, is_current)

    def _seal(self, staging: Staging, manifest: dict[str, Any]) -> str:
        """Seal a run, and sign it where that is asked for; gives its manifest's digest."""
        signer = self._settings.signer
        if signer is None:
            return staging.seal(manifest)
        signed = {**manifest, "signature": msgspec.to_builtins(signer.signature)}
        digest = staging.seal(signed)
        with writing(staging.path):
            signer.sign(staging.path / "manifest.json")
        return digest

    def _changes(self, facts: RunFacts, tally: Tally, staging: Staging) -> Changes | None:
        """Compare a staged run with last night's; that this cannot be done is noticed, no more."""
        policy = self._settings.policy
        newer = staged_side(staging, facts, policy)
        try:
            run = self._folder.previous_to(facts.audit_date)
            write_failing(staging, newer, facts.audit_name, run)
            if run is None:
                return None
            return compare(
                run,
                newer,
                partial(rejudge, policy=policy),
                tick=lambda: self._see(None),
            )
        except (InputMissing, InputUnusable) as error:
            tally.notice(f"What changed since the previous run is not known: {error}.")
            write_failing(staging, newer, facts.audit_name, None)
            return None

    def finish(self, run_id: str) -> Published:
        """Finish what died after its run had become visible, and before all else was done."""
        run = read_run(self._folder.runs / run_id)
        log.info("run %s was left by an earlier start; finishing", run_id)
        self._folder.finish(run_id)
        found, known = read_published(run.path), self._folder.current()
        previous = run.manifest.previous and run.manifest.previous.run_id
        # What was published meanwhile for the same night stays current.
        is_due = (
            known is None
            or known.run_id in (previous, run_id)
            or known.audit_date < run.manifest.audit_date
        )
        current = _current(found.summary, found.manifest_sha256)
        is_current = is_due and self._folder.point(current, run.manifest.parent_run_id)
        return msgspec.structs.replace(
            found, address=self._folder.address_of(run_id), is_current=is_current
        )

    def keep(self, spared: frozenset[str]) -> None:
        """Remove old runs but `spared`, as the settings say.

        That this cannot be done does not undo what was published.
        """
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

    def _manifest(self, summary: Summary, policy: Policy, notices: Sequence[str]) -> dict[str, Any]:
        previous = self._folder.current()
        return {
            **manifest_of(summary, policy, notices),
            "previous": previous
            and {"run_id": previous.run_id, "manifest_sha256": previous.manifest_sha256},
        }


def write_policy(policy: Policy, staging: Staging) -> None:
    """Keep a policy, and the default which it is laid over: another version has another one."""
    staging.write(POLICY_FILE, policy.text)
    if policy.base_text:
        staging.write(BASE_POLICY_FILE, policy.base_text)


def manifest_of(summary: Summary, policy: Policy, notices: Sequence[str]) -> dict[str, Any]:
    """Give what the manifest of any run says, but for the run before it.

    `notices` say how the run came about: no reply tells that.
    """
    return {
        "manifest_version": 1,
        **msgspec.to_builtins(summary.run),
        "policy_name": policy.name,
        "complete": summary.complete,
        "shortfalls": summary.shortfalls,
        "notices": notices,
        "exit_code": summary.exit_code,
        "api_version": API_VERSION,
        "host": platform.node(),
        "operator": _operator(),
    }


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
    not_asked = int(journal.fact("not_asked") or 0)
    said = (
        f"Completes {parent}: {int(taken):,} answers are from its evidence." if parent else "",
        f"{not_asked:,} triples were not asked before the deadline." if not_asked else "",
    )
    return list(filter(None, said))


def _operator() -> str:
    """Who runs this, as the host reports; in a container there may be no such name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
