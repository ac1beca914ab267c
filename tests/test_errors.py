"""What stops a run: each error has its exit code and says what to do."""

import signal

import pytest

from pipeline import errors
from pipeline.errors import MEANINGS, AuditError, ExitCode, Interrupted

CODES = {
    "InputUnusable": 65,
    "InputMissing": 66,
    "AtlasUnavailable": 69,
    "ProgramFault": 70,
    "OutputsUnwritable": 73,
    "JournalDamaged": 73,
    "LoadRefused": 74,
    "AlreadyRunning": 75,
    "CredentialsRefused": 77,
    "ConfigurationWrong": 78,
}
TREE = [kind for kind in vars(errors).values() if isinstance(kind, type)]
ERRORS = {kind.__name__: kind for kind in TREE if issubclass(kind, AuditError)}


def test_each_error_has_the_exit_code_that_is_promised() -> None:
    codes = {
        name: int(kind.exit_code)
        for name, kind in ERRORS.items()
        if name not in ("AuditError", "Interrupted")
    }

    assert codes == CODES


def test_the_drawn_tree_names_every_error() -> None:
    assert errors.__doc__ is not None
    for name, code in CODES.items():
        (line,) = [line for line in errors.__doc__.splitlines() if f" {name} " in line]

        assert str(code) in line


def test_an_unnamed_trouble_is_the_programs_fault() -> None:
    """Python's own 1 would read as "complete, something is open"."""
    assert AuditError("?").exit_code == 70


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
    ids=["hup", "int", "term"],
)
def test_a_signal_ends_with_its_own_code(number: int, code: int) -> None:
    assert Interrupted(number).code == code


def test_the_numbers_are_the_promised_ones() -> None:
    assert [int(code) for code in ExitCode] == [
        *(0, 1, 2, 3, 4),
        *(65, 66, 69, 70, 73, 74, 75, 77, 78),
        *(129, 130, 143),
    ]


def test_exactly_the_codes_of_published_runs_have_a_meaning() -> None:
    assert set(MEANINGS) == {0, 1, 3, 4}


def test_a_hint_of_its_own_goes_before_the_errors() -> None:
    assert errors.InputMissing("x").hint == errors.InputMissing.hint != ""
    assert errors.InputMissing("x", hint="look there").hint == "look there"
    assert str(errors.InputMissing("x", hint="look there")) == "x"


@pytest.mark.parametrize("name", [name for name in CODES if name != "ConfigurationWrong"])
def test_every_error_knows_what_to_do(name: str) -> None:
    assert ERRORS[name].hint
