"""What is said on stderr: one line each, bounded in number, without secrets."""

import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress

import pytest

from pipeline import talk
from pipeline.redaction import Secrets


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave the log, what Python prints, and the hidden secrets as they were."""
    root = logging.getLogger()
    handlers, level, secrets = root.handlers[:], root.level, talk._secrets
    hooks = threading.excepthook, sys.unraisablehook
    talk._secrets = Secrets()
    yield
    threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(capture=False)
    root.handlers[:], talk._secrets = handlers, secrets
    root.setLevel(level)
    talk.log.setLevel(logging.NOTSET)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_hidden(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also one that JSON would escape, and also in a traceback."""
    secret = 'pass"wo\\rd'
    talk.hide(secret)
    talk.set_up(log_format=log_format)
    try:
        int(secret)
    except ValueError as error:
        talk.say_end(70, f"found {secret}", error=error)
    said = capsys.readouterr().err

    assert "[secret]" in said
    assert "pass" not in said


def test_a_short_secret_does_not_spoil_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    talk.hide("x")
    talk.set_up()
    talk.say_end(3, "next")

    assert capsys.readouterr().err == "checkpoint-audit: exit 3: next\n"


def test_nobody_forges_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Text from Atlas may hold line ends and terminal codes; they are made visible."""
    talk.set_up()
    talk.say_end(77, "refused\ncheckpoint-audit: exit 0: Yes\x1b[31m\u202e")
    said = capsys.readouterr().err

    assert len(said.splitlines()) == 1
    assert "\\n" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nothing_steers_a_terminal(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor turns what is read round; C1 codes are terminal codes too, and JSON leaves them be."""
    text = "a\x1b[31m b\x9b31m c\u202e d\u2028 e\x7f f\r g"
    talk.set_up(log_format=log_format)
    talk.say_end(70, text, error=ValueError(text))
    said = capsys.readouterr().err

    assert all(character.isprintable() or character == "\n" for character in said)
    if log_format == "json":
        assert text in json.loads(said)["message"]
        assert text in json.loads(said)["traceback"]


def test_lines_of_one_kind_are_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    talk.set_up()
    for number in range(100):
        talk.log.warning("again %d", number)
    talk.log.warning("another")
    lines = capsys.readouterr().err.splitlines()

    assert len(lines) == talk._SHOWN + 1
    assert lines[-2].endswith("(no more lines of this kind)")
    assert lines[-1] == "checkpoint-audit: warning: another"


def test_json_has_fields(capsys: pytest.CaptureFixture[str]) -> None:
    talk.set_up(log_format="json")
    talk.say_end(69, "no answer", hint="wait")
    line = json.loads(capsys.readouterr().err)

    assert (line["exit_code"], line["hint"], line["level"]) == (69, "wait", "error")
    assert line["message"] == "exit 69: no answer; what to do: wait"


def test_quiet_says_nothing_of_a_good_end(capsys: pytest.CaptureFixture[str]) -> None:
    talk.set_up(quiet=True)
    talk.log.warning("a notice")
    talk.say_end(0, "Yes")
    talk.say_end(1, "No")

    assert capsys.readouterr().err == "checkpoint-audit: exit 1: No\n"


def test_the_end_is_said_however_much_came_before(capsys: pytest.CaptureFixture[str]) -> None:
    """Notices are of the same kind as the last line; they must not use up its place."""
    talk.set_up()
    for number in range(100):
        talk.log.warning("%s", f"a notice {number}")
    talk.say_end(3, "Not all known")

    assert capsys.readouterr().err.splitlines()[-1] == "checkpoint-audit: exit 3: Not all known"


def speak_out_of_turn() -> None:
    """What libraries and Python itself print on stderr, each in its own way."""

    def fail() -> None:
        raise RuntimeError("in a thread")

    class Unraisable:
        def __del__(self) -> None:
            raise RuntimeError("while it goes")

    logging.getLogger("asyncio").error("Task exception was never retrieved")
    logging.getLogger("aiohttp.client").warning("a library warns")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("a warning of Python", RuntimeWarning, stacklevel=1)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    Unraisable()


def test_quiet_silences_everybody(capsys: pytest.CaptureFixture[str]) -> None:
    talk.set_up(quiet=True)
    speak_out_of_turn()
    talk.log.error("the metrics file cannot be written", extra={"unquiet": True})
    talk.say_end(0, "Yes")

    assert capsys.readouterr().err == "checkpoint-audit: the metrics file cannot be written\n"


def test_every_line_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever says it: one object a line, with tracebacks inside."""
    talk.set_up(log_format="json")
    speak_out_of_turn()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    assert len(lines) == 5
    assert ["traceback" in line for line in lines] == [False, False, False, True, True]
    assert "in a thread" in lines[3]["traceback"]


def test_a_quiet_traceback_is_on_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    talk.set_up(quiet=True)
    try:
        int("not a number")
    except ValueError as error:
        talk.say_end(70, "a fault of this program", error=error)
    said = capsys.readouterr().err

    assert len(said.splitlines()) == 1
    assert "; raised at: test_talk.py:" in said
    assert said.endswith(" test_a_quiet_traceback_is_on_the_line\n")


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["run", "x.csv"], ("text", False)),
        (["run", "--quiet"], ("text", True)),
        (["run", "--log-format", "json"], ("json", False)),
        (["run", "--log-format=json", "--quiet"], ("json", True)),
        (["run", "--log-format", "text", "json"], ("text", False)),
    ],
)
def test_what_a_wrong_command_line_wants(argv: list[str], wanted: tuple[str, bool]) -> None:
    assert talk.wanted_by(argv) == wanted


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_end_in_a_signal_handler_waits_for_nobody(
    log_format: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Another thread holds the log: a line by the usual way would wait for it, for ever."""
    talk.hide("topsecret")
    talk.set_up(log_format=log_format, quiet=True)
    (handler,) = logging.getLogger().handlers
    has, done = threading.Event(), threading.Event()

    def hold() -> None:
        with handler.lock:  # type: ignore[union-attr]
            has.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    has.wait()
    try:
        talk.say_end_at_once(130, "stopped: topsecret", hint="go on")
    finally:
        done.set()
        thread.join()
    said = capfd.readouterr().err
    message = "exit 130: stopped: [secret]; what to do: go on"

    if log_format == "text":
        assert said == f"checkpoint-audit: {message}\n"
    else:
        found = json.loads(said)
        assert (found["message"], found["exit_code"], found["hint"]) == (message, 130, "go on")


def test_an_end_in_a_signal_handler_does_not_wait_for_a_reader() -> None:
    """Standard error is a pipe that is full, and nobody reads it."""
    talk.set_up()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    before = os.dup(2)
    os.dup2(writer, 2)
    try:
        talk.say_end_at_once(130, "stopped", hint="go on")
    finally:
        os.dup2(before, 2)
        for descriptor in (before, reader, writer):
            os.close(descriptor)
