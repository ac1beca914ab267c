"""docs/warehouse.md, "With one command": its commands are run, and what it says is so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec

from pipeline.published import Current
from tests.durability import ROOT
from tests.warehouses import Made, held, wanted

PAGE = (ROOT / "docs" / "warehouse.md").read_text("utf-8")
SECTION = PAGE.partition("## With one command\n")[2].partition("\n## ")[0]


def test_the_commands_load(tmp_path: Path) -> None:
    """As they stand there, but for the folder, which is not ours to write to."""
    made = Made(tmp_path / "outputs", {"parts": 3, "outcomes": 10})
    current = Current(
        made.run_id, made.rows["runs"][0]["audit_date"], f"runs/{made.run_id}", "", 0, "1"
    )
    (tmp_path / "outputs/nightly/current.json").write_bytes(msgspec.json.encode(current))
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/checkpoint-audit"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipeline "$@"\n', "utf-8")
    program.chmod(0o755)
    lines = re.findall(r"^\$ (.*)$", SECTION, re.MULTILINE)
    script = "\n".join(lines).replace("/srv/audits", str(tmp_path))

    ended = subprocess.run(
        ["sh", "-euc", script],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert len(lines) == 2
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{made.run_id}\n"
    assert held(f"duckdb://{tmp_path}/warehouse.duckdb") == wanted(made)
