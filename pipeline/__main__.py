"""The way in: signals first, then the command line; every ending gets its exit code here.

Nothing is imported before the signals are in place but the errors and the standard library, and
nothing is imported outside of the `try`: a broken installation must not end with Python's own 1.
"""

import atexit
import io
import json
import os
import signal
import sys
import threading
import traceback
from datetime import UTC, datetime
from itertools import pairwise
from types import FrameType
from typing import NoReturn

#: The signal that was raised as `Interrupted`, if any.
_raised: list[int] = []


def main() -> NoReturn:
    """Run the command line and end the process with the code that belongs to how it went."""
    code = 70
    _open_streams()
    try:
        code = _run()
    except SystemExit as ending:
        code = _code_of(ending)
    except BaseException as error:  # noqa: BLE001 - the one boundary: whatever it is gets a code
        code = _say(error)
    _close_stdout()
    _end(code)


def _open_streams() -> None:
    """Give closed standard streams somewhere to go, and let no character be too much for them.

    A descriptor that stays closed would be given to the next file that is opened, and what is meant
    for the terminal would be written into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run() -> int:
    import pipeline.errors  # noqa: F401 - whole before a signal can want it

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Started by nohup, a terminal that goes ends nothing.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    # numpy comes with pyarrow, and its threads for algebra would only wait, busily.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from pipeline.cli import start

    return start()


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    from pipeline.errors import Interrupted

    _raised.append(number)
    raise Interrupted(number)


def _code_of(ending: SystemExit) -> int:
    """The code a command ended with; a reader who closed the pipe of `--help` is no failure."""
    if isinstance(ending.__context__, BrokenPipeError):
        return 0
    if ending.code is None:
        return 0
    return ending.code if isinstance(ending.code, int) else 70


def _say(error: BaseException) -> int:
    """Say on stderr, in one last line, what ended the run and what to do; gives the exit code."""
    _ignore_signals()
    try:
        from pipeline.errors import AuditError, Interrupted, exit_code_of

        if _raised and isinstance(error, ImportError):
            # An extension in C has made its own error of the signal that came while it began.
            error = Interrupted(_raised[0])
        if isinstance(error, KeyboardInterrupt):  # before the signals were in place
            error = Interrupted(signal.SIGINT)
        code = exit_code_of(error)
        if isinstance(error, Interrupted) and "pipeline.talk" not in sys.modules:
            # What was half imported when the signal came may never be imported again.
            _say_plainly(code, f"exit {code}: {error}; what to do: {error.hint}", error.hint)
            return code
        from pipeline.talk import say_end

        if isinstance(error, ImportError):
            why = f"{type(error).__name__}: {error}"
            say_end(code, f"the installation is broken ({why})", hint="reinstall it", error=error)
        elif not isinstance(error, AuditError):
            say_end(code, f"a fault of this program: {type(error).__name__}: {error}", error=error)
        else:
            say_end(code, str(error), hint=error.hint)
    except BaseException as broken:  # noqa: BLE001 - not even the words could be imported
        _say_broken(broken)
        return 70
    return code


def _ignore_signals() -> None:
    """From here on the end is known; one more signal must not end it in the middle of its words."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _say_broken(error: BaseException) -> None:
    """Say that not even the words of an end could be imported."""
    if not _is_json() and "--quiet" not in sys.argv:
        traceback.print_exception(error)
    why = f"{type(error).__name__}: {error}"
    _say_plainly(70, f"exit 70: the installation is broken ({why}); reinstall it", "reinstall it")


def _say_plainly(code: int, text: str, hint: str) -> None:
    """Say the last line as `talk` would, without it."""
    line = f"checkpoint-audit: {text}"
    if _is_json():
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        said = {"at": at, "level": "error", "message": text, "exit_code": code, "hint": hint}
        line = json.dumps(said)
    sys.stderr.write(line + "\n")


def _is_json() -> bool:
    return "--log-format=json" in sys.argv or ("--log-format", "json") in pairwise(sys.argv)


def _close_stdout() -> None:
    """Flush stdout; a reader who has gone, or a full disk, must not change the exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(code: int) -> NoReturn:
    """End the process, also where a thread of a library waits for what may never come.

    Python would wait for that thread, and no signal is heard any more. Explicitly, in any case: as
    PID 1 of a container, dying of a signal raised again would end with 0.
    """
    others = set(threading.enumerate()) - {threading.main_thread()}
    if any(not each.daemon for each in others):
        atexit._run_exitfuncs()  # noqa: SLF001 - folders for temporary files go then
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
