"""What a run says while it goes on: lines on stderr, and a live bar where that is a terminal.

Results go to stdout; everything here goes to stderr. Lines of one kind are bounded in number, and
no line, nor a traceback, ever holds a secret that was announced with `hide`.
"""

import json
import logging
import sys
import time
from collections import Counter
from datetime import UTC, datetime

from pipeline import redaction
from pipeline.audit import Watcher
from pipeline.journal import Tally
from pipeline.outcomes import Failed, Outcome

log = logging.getLogger("pipeline")

#: Lines of one kind that are shown.
_SHOWN = 20

#: Seconds between two lines about the progress where there is no terminal, and between two
#: updates of the bar where there is one.
_LINE_EVERY, _BAR_EVERY = 30.0, 0.1

_secrets = redaction.EVERY


def hide(secret: str) -> None:
    """Keep `secret` out of every line from now on; one of a few letters is in every text."""
    _secrets.add(secret)


def _on_one_line(text: str) -> str:
    """Make visible what would break the line or steer a terminal; some of it comes from Atlas."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _plain(trace: str) -> str:
    """Make the same visible in a traceback, which has many lines."""
    return "\n".join(map(_on_one_line, trace.split("\n")))


class _Text(logging.Formatter):
    """One line: the program's name and the message; warnings say that they are."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line, with its traceback if there is one."""
        level = "warning: " if record.levelno == logging.WARNING else ""
        lines = [f"checkpoint-audit: {level}{_on_one_line(record.getMessage())}"]
        if record.exc_info:
            lines.insert(0, _plain(self.formatException(record.exc_info)))
        return _secrets.without_in("\n".join(lines))


class _Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the object, with the fields that the record brings along."""
        fields = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        line = json.dumps(
            {
                name: _secrets.without_in(value) if isinstance(value, str) else value
                for name, value in fields.items()
            },
            ensure_ascii=False,
            default=str,
        )
        return "".join(c if c.isprintable() else _escaped(c) for c in line)


def _escaped(character: str) -> str:
    """In JSON: what JSON itself would leave as it is may still steer a terminal."""
    return json.dumps(character)[1:-1]


class _Bounded(logging.Filter):
    """Lets the first few lines of each kind through; the last of them says so."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show this record."""
        kind = f"{record.name} {record.msg}"
        self._seen[kind] += 1
        if self._seen[kind] == _SHOWN:
            record.msg, record.args = f"{record.getMessage()} (no more lines of this kind)", ()
        return self._seen[kind] <= _SHOWN


def set_up(*, log_format: str = "text", quiet: bool = False) -> None:
    """Send this program's log to stderr, from now on; `quiet` lets only the end's trouble pass."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    handler.addFilter(_Bounded())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log.setLevel(logging.ERROR if quiet else logging.INFO)


def say_end(code: int, message: str, *, hint: str = "", error: BaseException | None = None) -> None:
    """Say the last line: exit code, what happened, what to do."""
    if not logging.getLogger().handlers:
        set_up()
    text = f"exit {code}: {message}" + (f"; what to do: {hint}" if hint else "")
    level = logging.ERROR if code else logging.INFO
    trace = (type(error), error, error.__traceback__) if error else None
    log.log(level, "%s", text, exc_info=trace, extra={"fields": {"exit_code": code, "hint": hint}})


class Lines(Watcher):
    """Progress as a line now and then."""

    def __init__(self) -> None:
        self._todo = 0
        self._done = 0
        self._failed = 0
        self._next_line = time.monotonic() + _LINE_EVERY

    def started(self, run_id: str, tally: Tally) -> None:
        """Say what will be asked."""
        self._todo, self._done = tally.triples, tally.answers
        before = f", {tally.answers:,} of them answered before" if tally.answers else ""
        log.info("run %s: %s triples%s", run_id, f"{tally.triples:,}", before)

    def settled(self, outcome: Outcome) -> None:
        """Count, and say so every half a minute."""
        self._done += 1
        self._failed += isinstance(outcome, Failed)
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_EVERY
            log.info("%s of %s answered", f"{self._done:,}", f"{self._todo:,}")


class Bar(Lines):
    """Progress as a live bar."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        super().__init__()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("asking Atlas", total=None, note="")

    def started(self, run_id: str, tally: Tally) -> None:
        """Show the bar."""
        super().started(run_id, tally)
        self._bar.update(self._task, total=self._todo, completed=self._done)
        self._bar.start()
        self._next_line = 0.0

    def settled(self, outcome: Outcome) -> None:
        """Move the bar, not more often than an eye can see."""
        self._done += 1
        self._failed += isinstance(outcome, Failed)
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _BAR_EVERY
            note = f"{self._failed:,} without a checkpoint" if self._failed else ""
            self._bar.update(self._task, completed=self._done, note=note)

    def deriving(self) -> None:
        """Say that the answers are all there."""
        self._bar.update(self._task, description="writing the tables", completed=self._done)

    def ended(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def watcher(*, no_progress: bool, quiet: bool) -> Watcher:
    """Choose how to show the progress."""
    if quiet or no_progress:
        return Watcher() if quiet else Lines()
    return Bar() if sys.stderr.isatty() else Lines()
