"""How a run ends, for those who watch it from outside: its metrics, its healthcheck.

Every end of `run` passes through `watched`, which knows the final exit code, whether the run
published something, failed before it began, or was stopped. Only a command line that is not
understood ends before. An end before it is known which audit it is of is told to the healthcheck
alone: metrics and notes are an audit's.
"""

import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import AuditError, ExitCode, exit_code_of
from pipeline.metrics import write_metrics
from pipeline.pings import Pings, read_url, secrets_of, sender
from pipeline.runs import AuditFolder
from pipeline.talk import hide, shown

log = logging.getLogger(__name__)

#: Letters of the last line that a healthcheck is sent; it shows the first few.
_WORDS = 500


class Ending:
    """One run that is watched. Tell it what becomes known; how it ended is then told to others."""

    def __init__(self, folder: AuditFolder | None, metrics_file: Path | None) -> None:
        """`folder` is that of the audit; None as long as it is not known."""
        self.folder = folder
        self.pings: Pings | None = None
        self._metrics_file = metrics_file
        self._code: int = ExitCode.PROGRAM_FAULT
        self._words = ""
        self._is_noted = False

    def begin(self) -> None:
        """The audit is held by this run, which notes its start and end itself."""
        self._is_noted = True
        if self.pings is not None:
            self.pings.begin()

    def published(self, code: int, words: str) -> None:
        """A run is published; the process is to end with `code`."""
        self._code, self._words = code, words

    def failed(self, error: BaseException) -> None:
        """Nothing could be published."""
        self._code = exit_code_of(error)
        # What else a foreign error says may be anything.
        self._words = str(error) if isinstance(error, AuditError) else type(error).__name__

    def tell(self) -> None:
        """Tell everybody; from here on signals change nothing any more."""
        _ignore_signals()
        if self._code == ExitCode.ALREADY_RUNNING:
            return  # the run that holds the audit will tell how it ends
        if self.folder is not None:
            self._keep(self.folder)
        if self.pings is not None:
            self.pings.end(self._code, shown(f"exit {self._code}: {self._words}")[:_WORDS])

    def _keep(self, folder: AuditFolder) -> None:
        """Write down what belongs to the audit."""
        if not self._is_noted and folder.path.is_dir():
            self._note(folder)
        if self._metrics_file is not None:
            write_metrics(self._metrics_file, folder, datetime.now(UTC), self._code)

    def _note(self, folder: AuditFolder) -> None:
        """Note an end that came before the audit could note its start."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            folder.note(
                event="end", at=at, exit_code=self._code, published=False, error=self._words
            )
        except AuditError as trouble:
            log.warning("the end of this run could not be noted: %s", trouble)


@contextmanager
def watched(
    folder: AuditFolder | None, metrics_file: Path | None, environ: Mapping[str, str]
) -> Iterator[Ending]:
    """Watch a run of the audit in `folder`: whichever way the block ends, it is told.

    Where the audit is not known yet, `Ending.folder` is to be set once it is.

    Raises `ConfigurationWrong` for an address of a healthcheck that cannot be used.
    """
    ending = Ending(folder, metrics_file)
    try:
        ending.pings = _read_pings(environ)
        yield ending
    except BaseException as error:
        ending.failed(error)
        ending.tell()
        raise
    ending.tell()


def _read_pings(environ: Mapping[str, str]) -> Pings | None:
    url = read_url(environ)
    if url is None:
        return None
    for secret in secrets_of(url):
        hide(secret)
    return Pings(url, sender(url, environ))


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
