"""The page on evidence: a third party checks a run by just its commands, without this program."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.published import PublishedRun
from pipeline.signing import Signer
from tests.recorded import Recorder, of_every_kind, ref

PAGE = (Path(__file__).parents[1] / "docs/evidence.md").read_text("utf-8")
BLOCKS = re.findall(r"<!-- tested.*? -->\n```(\w+)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ")
    for language, block in BLOCKS
    if language == "console"
    for line in block.splitlines()
]
(SCRIPT,) = [block for language, block in BLOCKS if language == "python"]
SUMS, SIGNER, WHOLE, LISTED, COMPARED = COMMANDS


@pytest.fixture
def run(tmp_path: Path) -> PublishedRun:
    """A signed run, and beside it who may sign."""
    key = tmp_path / "key"
    options = ("-t", "ed25519", "-N", "", "-C", "test", "-f", key)
    subprocess.run(["ssh-keygen", "-q", *options], check=True)
    recorder = Recorder(tmp_path / "outputs", signer=Signer(key))
    made = recorder.publish(of_every_kind(), pages=[[ref(1, 3), ref(2, 3)]])
    allowed = made.path.parent / "allowed_signers"
    allowed.write_text(f"auditor@example.com {key.with_suffix('.pub').read_text()}")
    return made


def code_of(command: str, run: PublishedRun) -> int:
    return subprocess.run(
        ["sh", "-ec", command], cwd=run.path, check=False, capture_output=True
    ).returncode


def test_an_untouched_run_passes_every_command(run: PublishedRun) -> None:
    assert [code_of(command, run) for command in COMMANDS] == [0] * 5


def test_each_command_finds_what_it_is_for(run: PublishedRun) -> None:
    (run.path / "more.txt").write_text("more")
    assert [code_of(command, run) for command in COMMANDS] == [0, 0, 0, 0, 1]
    (run.path / "report.md").write_text("changed")
    assert code_of(SUMS, run) == 1
    (run.path / "manifest.json").write_text("{}")
    assert code_of(SIGNER, run) != 0
    assert code_of(WHOLE, run) != 0


def test_the_script_re_performs_the_outcomes(run: PublishedRun) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=run.path, check=True, capture_output=True, text=True
    )
    said = {tuple(line.split()) for line in done.stdout.splitlines()}

    assert (ref(4).checkpoint_id, "FAIL", "False") in said
    assert (ref(1).checkpoint_id, "PASS", "True") in said
