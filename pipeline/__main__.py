"""The way in: signals first, then the command line; every ending gets its exit code here.

Nothing is imported before the signals are in place but the errors and the standard library, and
nothing is imported outside of the `try`: a broken installation must not end with Python's own 1.
"""

import io
import json
import os
import signal
import sys
import traceback
from itertools import pairwise
from types import FrameType
from typing import NoReturn


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
    # Explicitly: as PID 1 of a container, dying of a signal raised again would end with 0.
    sys.exit(code)


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
    try:
        from pipeline.errors import AuditError, exit_code_of
        from pipeline.talk import say_end

        code = exit_code_of(error)
        if not isinstance(error, AuditError):
            say_end(code, f"a fault of this program: {type(error).__name__}: {error}", error=error)
        else:
            say_end(code, str(error), hint=error.hint)
    except BaseException as broken:  # noqa: BLE001 - not even the words could be imported
        _say_broken(broken)
        return 70
    return code


def _say_broken(error: BaseException) -> None:
    """Say it without anything of this program, in one line where that is asked for."""
    why = f"{type(error).__name__}: {error}"
    text = f"exit 70: the installation is broken ({why}); reinstall it"
    if "--log-format=json" in sys.argv or ("--log-format", "json") in pairwise(sys.argv):
        text = json.dumps({"level": "error", "message": text, "exit_code": 70})
    else:
        if "--quiet" not in sys.argv:
            traceback.print_exception(error)
        text = f"checkpoint-audit: {text}"
    sys.stderr.write(text + "\n")


def _close_stdout() -> None:
    """Flush stdout; a reader who has gone, or a full disk, must not change the exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
