"""What a command says while it goes on: lines on stderr.

Results go to stdout; everything here goes to stderr. Lines of one kind are bounded in number, and
no line, nor a traceback, ever holds a secret that was announced with `hide`.
"""

import json
import logging
import os
import select
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import TracebackType

from pipeline import redaction
from pipeline.cells import visible

log = logging.getLogger("pipeline")

#: Lines of one kind that are shown.
_SHOWN = 20

#: Frames of a traceback that fit on a line.
_SHOWN_FRAMES = 6

_secrets = redaction.EVERY


def hide(secret: str) -> None:
    """Keep `secret` out of every line from now on; one of a few letters is in every text."""
    _secrets.add(secret)


def shown(text: str) -> str:
    """Give `text` as a line would show it: without secrets, and all on one line."""
    return _secrets.without_in(visible(text))


def _plain(trace: str) -> str:
    """Make the same visible in a traceback, which has many lines."""
    return "\n".join(map(visible, trace.split("\n")))


class _Text(logging.Formatter):
    """One line: the program's name and the message; warnings say that they are."""

    def __init__(self, *, one_line: bool = False) -> None:
        """`one_line` also folds tracebacks into the line."""
        super().__init__()
        self._one_line = one_line

    def format(self, record: logging.LogRecord) -> str:
        """Give the line, with its traceback if there is one."""
        level = "warning: " if record.levelno == logging.WARNING else ""
        line = f"checkpoint-audit: {level}{visible(record.getMessage())}"
        if record.exc_info and self._one_line:
            line += f"; raised at: {visible(_places(record.exc_info[2]))}"
        elif record.exc_info:
            line = f"{_plain(self.formatException(record.exc_info))}\n{line}"
        return _secrets.without_in(line)


def _places(trace: TracebackType | None) -> str:
    """Give the innermost lines of a traceback, from where it was raised outwards."""
    frames = traceback.extract_tb(trace)[-_SHOWN_FRAMES:]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))


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
        """Whether to show this record; the end of a command always is."""
        if _is_end(record):
            return True
        kind = f"{record.name} {record.msg}"
        self._seen[kind] += 1
        if self._seen[kind] == _SHOWN:
            record.msg, record.args = f"{record.getMessage()} (no more lines of this kind)", ()
        return self._seen[kind] <= _SHOWN


class _Quiet(logging.Filter):
    """Lets through how a command ended, where that is not 0, and what is said to be unquiet.

    Whatever else libraries have to say, they say it where it is not quiet.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show this record."""
        is_trouble = _is_end(record) and record.levelno > logging.INFO
        return is_trouble or getattr(record, "unquiet", False)


def _is_end(record: logging.LogRecord) -> bool:
    return "exit_code" in getattr(record, "fields", {})


def set_up(*, log_format: str = "text", quiet: bool = False) -> None:
    """Send to stderr, from now on, what this program says and what Python itself would print there.

    `quiet` lets only the end's trouble pass, and what is logged as `unquiet`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text(one_line=quiet))
    if quiet:
        handler.addFilter(_Quiet())
    handler.addFilter(_Bounded())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    threading.excepthook = _log_thread
    sys.unraisablehook = _log_unraisable


def wanted_by(argv: Sequence[str]) -> tuple[str, bool]:
    """Give the log format and whether to be quiet, where the command line was not understood."""
    is_json = "--log-format=json" in argv or ("--log-format", "json") in pairwise(argv)
    return "json" if is_json else "text", "--quiet" in argv


def _log_thread(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else "a thread"
    error = args.exc_value
    trace = (args.exc_type, error, args.exc_traceback) if error else None
    log.error("%s ended with %s", name, args.exc_type.__name__, exc_info=trace)


def _log_unraisable(args: "sys.UnraisableHookArgs") -> None:
    error = args.exc_value
    trace = (args.exc_type, error, args.exc_traceback) if error else None
    what = args.err_msg or "an exception was ignored"
    log.error("%s: %s", what, args.exc_type.__name__, exc_info=trace)


def say_end(
    code: int,
    message: str,
    *,
    hint: str = "",
    error: BaseException | None = None,
    is_notable: bool = False,
) -> None:
    """Say the last line: exit code, what happened, what to do.

    One that `is_notable` is said under --quiet after a 0 too.
    """
    if not logging.getLogger().handlers:
        log_format, quiet = wanted_by(sys.argv)
        set_up(log_format=log_format, quiet=quiet)
    text = _end_text(code, message, hint)
    level = logging.ERROR if code else logging.WARNING if is_notable else logging.INFO
    trace = (type(error), error, error.__traceback__) if error else None
    log.log(level, "%s", text, exc_info=trace, extra={"fields": {"exit_code": code, "hint": hint}})


def say_end_at_once(code: int, message: str, *, hint: str) -> None:
    """Say the last line of an end that is not 0 from within a signal handler.

    Whatever the signal came upon may hold the locks of logging and of the stream, so the line goes
    past both; and where nobody takes it, it is not waited for.
    """
    record = logging.LogRecord(
        log.name, logging.ERROR, __file__, 0, "%s", (_end_text(code, message, hint),), None
    )
    record.fields = {"exit_code": code, "hint": hint}
    handlers = logging.getLogger().handlers
    line = handlers[0].format(record) if handlers else record.getMessage()
    # A live bar has left the cursor behind it.
    start = "\n" if os.isatty(2) else ""
    try:
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"{start}{line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return  # nobody can be told


def _end_text(code: int, message: str, hint: str) -> str:
    return f"exit {code}: {message}" + (f"; what to do: {hint}" if hint else "")
