"""`attempts.jsonl`: one line for every start and every end, also of what published nothing."""

import logging
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pipeline.errors import AlreadyRunning, AuditError, exit_code_of
from pipeline.publication import Published
from pipeline.runs import AuditFolder

log = logging.getLogger(__name__)


class Attempt:
    """One start of an audit: its line, and the one for how it ended.

    `attempt` in both tells which belong together, since others may come between.
    """

    def __init__(self, folder: AuditFolder, source: str, now: Callable[[], datetime]) -> None:
        """`source` says what is audited."""
        self._folder = folder
        self._source = source
        self._now = now
        self._id = secrets.token_hex(4)
        self.run_id: str | None = None

    def started(self) -> None:
        """Note the start; raises `OutputsUnwritable` where that cannot be done."""
        self._note("start", source=self._source)

    def published(self, published: Published) -> None:
        """Note a run that was published, or was found to be."""
        self._note_quietly("end", **_facts(published))

    def finished(self, published: Published) -> None:
        """Note a run that an earlier start had left, and that this one published on its way."""
        self._note_quietly("finished", **_facts(published))

    def failed(self, error: BaseException) -> None:
        """Note that nothing was published."""
        known = {} if self.run_id is None else {"run_id": self.run_id}
        said = str(error) if isinstance(error, AuditError) else type(error).__name__
        code = exit_code_of(error)
        self._note_quietly("end", exit_code=code, published=False, **known, error=said)

    def refused(self, error: AlreadyRunning) -> None:
        """Note a start for which somebody else held the audit; these lines need no lock."""
        try:
            self.started()
        except AuditError as trouble:
            log.warning("the start of this run could not be noted: %s", trouble)
        self.failed(error)

    def _note_quietly(self, event: str, **facts: Any) -> None:
        """A run has ended as it has: that it cannot be noted changes nothing about it."""
        try:
            self._note(event, **facts)
        except AuditError as trouble:
            log.warning("the end of this run could not be noted: %s", trouble)

    def _note(self, event: str, **facts: Any) -> None:
        at = self._now().isoformat(timespec="seconds")
        self._folder.note(event=event, at=at, attempt=self._id, **facts)


def _facts(published: Published) -> dict[str, Any]:
    summary = published.summary
    return {
        "exit_code": summary.exit_code,
        "published": published.is_new,
        "run_id": summary.run.run_id,
        "manifest_sha256": published.manifest_sha256,
        "is_current": published.is_current,
    }
