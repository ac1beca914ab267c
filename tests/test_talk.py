"""What is said on stderr: one line each, bounded in number, without secrets."""

import json
import logging
from collections.abc import Iterator

import pytest

from pipeline import talk
from pipeline.redaction import Secrets


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave the log and the hidden secrets as they were."""
    root = logging.getLogger()
    handlers, level, secrets = root.handlers[:], root.level, talk._secrets
    talk._secrets = Secrets()
    yield
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
