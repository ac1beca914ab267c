"""`policy check` and `policy explain`, and what `run` says of a policy, as users meet them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.rules import RULES

ROOT = Path(__file__).parents[1]


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def command(*args: str | Path) -> Ended:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MONGODB_ATLAS_ACCESS_TOKEN": "none-of-any-use"}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, args)],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    file = tmp_path / "wrong.toml"
    file.write_text('[thresholds]\ngap = "9"\n[rules.no-part]\n\nname = 1\n')
    return file


def test_a_good_policy_is_one_line() -> None:
    ended = command("policy", "check", ROOT / "inputs/policy.toml")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("policy sample: 4 thresholds, 2 entries for clusters, ")
    assert ended.out.count("\n") == 1


def test_of_a_wrong_one_every_fault_is_a_line(wrong: Path) -> None:
    ended = command("policy", "check", wrong)

    assert ended.code == 78
    assert [line.partition(":")[0] for line in ended.out.splitlines()] == [
        "thresholds.gap (line 2)",
        "rules.no-part (line 3)",
    ]
    assert ended.err.splitlines()[-1].startswith(
        f"checkpoint-audit: exit 78: {wrong} has 2 faults; what to do: "
    )


def test_what_is_no_toml_is_one_fault(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[rules\n")
    ended = command("policy", "check", tmp_path / "x.toml")

    assert ended.code == 78
    assert ended.out.startswith("it is not TOML: ")
    assert " has 1 fault; " in ended.err


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    ended = command("policy", "check", tmp_path / "none.toml")

    assert (ended.code, ended.out) == (78, "")
    assert "none.toml cannot be read: No such file or directory; what to do: check" in ended.err


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    ended = command("policy", "check", "/dev/zero")

    assert ended.code == 78
    assert "has more than 4,194,304 bytes" in ended.err


def test_explain_tells_of_the_default_or_of_a_file() -> None:
    default = command("policy", "explain")
    sample = command("policy", "explain", ROOT / "inputs/policy.toml")

    assert default.code == sample.code == 0
    assert default.out.startswith("the default policy\n")
    assert "\n  gap: 26h (line " in sample.out
    assert "\n  gap: not judged (default)\n" in default.out


def test_explain_as_json() -> None:
    ended = command("policy", "explain", "--format", "json")

    assert [rule["rule_id"] for rule in json.loads(ended.out)["rules"]] == list(RULES)


def test_explain_refuses_a_wrong_policy(wrong: Path) -> None:
    ended = command("policy", "explain", wrong)

    assert (ended.code, ended.out) == (78, "")
    assert "thresholds.gap (line 2)" in ended.err
    assert "rules.no-part (line 3)" in ended.err


def test_a_run_is_not_begun_under_a_wrong_policy(wrong: Path, tmp_path: Path) -> None:
    """All faults stand in the last line; nothing is asked, nothing published."""
    triples = ROOT / "inputs/sample.csv"
    ended = command("run", triples, "--policy", wrong, "--output-dir", tmp_path / "outputs")

    assert ended.code == 78
    assert "thresholds.gap (line 2)" in ended.err.splitlines()[-1]
    assert "rules.no-part (line 3)" in ended.err.splitlines()[-1]
    assert not list(tmp_path.glob("outputs/*/runs/*"))


def test_policy_alone_shows_what_there_is() -> None:
    ended = command("policy")

    assert ended.code == 2
    assert "check" in ended.out + ended.err
    assert "explain" in ended.out + ended.err
