"""A run that is published already is taken for what is asked for only where it is that."""

import signal
import subprocess
from pathlib import Path

import pytest

from pipeline.published import read_run
from tests.durability import Ended, write_input
from tests.nights import NO_FAULTS, Night, facts, summary

POLICY = 'name = "stricter"\n[thresholds]\nrpo_age = "1m"\n'


@pytest.fixture
def options(night: Night, tmp_path: Path) -> dict[str, Path]:
    """A value for each of the options that say what a run is to be published with."""
    key, policy, listed = tmp_path / "key", tmp_path / "stricter.toml", tmp_path / "listed.csv"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    policy.write_text(POLICY, "utf-8")
    write_input(listed, night.scene.triples)
    return {"--policy": policy, "--sign-key": key, "--discovered": listed}


SAID = {
    "--policy": "it is judged by another policy than 'stricter'",
    "--sign-key": "it is not signed",
    "--discovered": "it is not compared with",
}

each_option = pytest.mark.parametrize("option", SAID)


def has(run: Path, option: str) -> bool:
    """Whether a run was published with what such an option asks for."""
    found = read_run(run)
    return {
        "--policy": found.manifest.policy_name == "stricter",
        "--sign-key": bool(found.signed_by),
        "--discovered": summary(run)["beyond"] is not None,
    }[option]


def refused(ended: Ended, run: Path, option: str) -> bool:
    """Whether it is said, once, why a run is not taken."""
    lines = [line for line in ended.err.splitlines() if "is not what is asked for" in line]
    return len(lines) == 1 and run.name in lines[0] and SAID[option] in lines[0]


def visible(night: Night, *more: str | Path) -> Path:
    """A run that was killed just past the step that makes it visible."""
    killed = night.run(*more, set_up="tests.nights:killed_before_pointing")
    assert killed.code == -signal.SIGKILL
    (run,) = night.books.runs
    return run


@each_option
def test_a_visible_run_that_lacks_what_is_asked_for_is_not_taken(
    option: str, night: Night, options: dict[str, Path]
) -> None:
    first = visible(night)
    ended = night.run(option, options[option])

    assert refused(ended, first, option)
    assert ended.run != first
    assert has(ended.run, option)
    assert night.books.runs == sorted([first, ended.run])
    assert night.books.current == ended.run
    night.books.check_settled()


def test_the_exit_code_is_that_of_the_policy_asked_for(
    night: Night, options: dict[str, Path]
) -> None:
    """A night with nothing open by the default is not told as such under a stricter one."""
    night.write(3)  # those that pass
    first = visible(night)
    ended = night.run("--policy", options["--policy"])

    assert (summary(first)["exit_code"], ended.code) == (3, 4)  # the input has a bad line


def test_a_visible_run_with_all_that_is_asked_for_is_taken(
    night: Night, options: dict[str, Path]
) -> None:
    asked = [part for option in options.items() for part in option]
    first = visible(night, *asked)
    before = night.asked
    ended = night.run(*asked)

    assert ended.run == first
    assert night.asked == before
    night.books.check_settled()


@each_option
def test_what_a_run_has_beyond_what_is_asked_for_is_no_reason(
    option: str, night: Night, options: dict[str, Path]
) -> None:
    """But for the policy: one is always asked for, if only the default."""
    first = visible(night, option, options[option])

    assert (night.run().run == first) == (option != "--policy")


def test_a_signature_by_another_key_is_not_the_one_asked_for(
    night: Night, options: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    first = visible(night, "--sign-key", other)
    ended = night.run("--sign-key", options["--sign-key"])

    assert f"it is signed by {read_run(first).signed_by}" in ended.err
    assert ended.run != first


# --- a run to complete ---


@each_option
def test_a_whole_run_is_published_anew_with_what_it_lacks(
    option: str, night: Night, options: dict[str, Path]
) -> None:
    first = night.run()
    before = night.asked
    ended = night.start("--complete", "nightly", option, options[option])

    assert refused(ended, first.run, option)
    assert ended.run != first.run
    assert has(ended.run, option)
    assert facts(ended.run)["parent_run_id"] == first.run.name
    assert night.asked == before
    assert night.books.current == ended.run
    night.books.check_settled()


@each_option
def test_a_whole_run_that_has_what_is_asked_for_stays(
    option: str, night: Night, options: dict[str, Path]
) -> None:
    first = night.run(option, options[option])

    for asked in ((), (option, options[option])):
        ended = night.start("--complete", "nightly", *asked)
        assert (ended.code, ended.run) == (first.code, first.run)


def test_completing_a_signed_run_without_a_key_is_said(
    night: Night, options: dict[str, Path]
) -> None:
    night.down(0)
    first = night.run("--sign-key", options["--sign-key"])
    night.atlas.play(NO_FAULTS)
    ended = night.start("--complete", "nightly")
    key = read_run(first.run).signed_by

    assert "`run --complete nightly --sign-key FILE`" in first.err.splitlines()[-1]
    assert f"{first.run.name} is signed with the key {key}; the run that completes it is not" in (
        ended.err
    )
    assert not has(ended.run, "--sign-key")


def test_completing_a_signed_run_with_a_key_is_not(night: Night, options: dict[str, Path]) -> None:
    night.down(0)
    night.run("--sign-key", options["--sign-key"])
    night.atlas.play(NO_FAULTS)
    ended = night.start("--complete", "nightly", "--sign-key", options["--sign-key"])

    assert "is signed with the key" not in ended.err
    assert has(ended.run, "--sign-key")
