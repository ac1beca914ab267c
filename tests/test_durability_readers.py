"""Readers of another process, during hundreds of publications: nothing missing or mixed."""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from pipeline.published import Current
from pipeline.runs import AuditFolder
from tests.durability import ROOT

PUBLICATIONS = 300
NIGHT = date(2026, 11, 20)

#: Resolves the pointer once, and the link once, and reads all that they lead to, until it is told
#: to end. It imports nothing of the program: it is what a user would write.
READER = """
import hashlib, json, os, select, sys

folder, by = sys.argv[1:]
seen, wrong, rounds = [], [], 0

def resolved():
    if by == "link":
        return os.path.join(folder, os.readlink(os.path.join(folder, "current"))), None
    with open(os.path.join(folder, "current.json"), "rb") as file:
        pointer = json.load(file)
    return os.path.join(folder, pointer["path"]), pointer

def read(*parts):
    with open(os.path.join(*parts), "rb") as file:
        return file.read()

def look():
    run, pointer = resolved()
    name = os.path.basename(run)
    lines = read(run, "SHA256SUMS").decode().splitlines()
    sums = dict(reversed(line.split("  ")) for line in lines)
    found = {os.path.relpath(os.path.join(place, each), run)
             for place, _, names in os.walk(run) for each in names}
    assert found == {*sums, "SHA256SUMS"}, "files are missing, or too many"
    for each, digest in sums.items():
        data = read(run, each)
        assert hashlib.sha256(data).hexdigest() == digest, f"{each} is not what is listed"
        assert name.encode() in data, f"{each} is of another run"
    if pointer is not None:
        assert pointer["run_id"] == name
        assert pointer["manifest_sha256"] == sums["manifest.json"], "pointer and run differ"
    assert not seen or name >= seen[-1], "the current run went back"
    if not seen or name != seen[-1]:
        seen.append(name)

while not select.select([sys.stdin], [], [], 0)[0]:
    rounds += 1
    try:
        look()
    except (OSError, ValueError, AssertionError, KeyError) as error:
        wrong.append(repr(error))
print(json.dumps({"rounds": rounds, "seen": len(seen), "wrong": wrong}))
"""


def publish(folder: AuditFolder, number: int) -> None:
    """Publish a run of a dozen files, each of which names the run."""
    run_id = f"run-{number:04d}"
    staging = folder.stage(run_id)
    for table in range(10):
        staging.write(f"table-{table}/dt={NIGHT}/{table}.txt", f"{run_id}\n" * 500)
    staging.write("report.md", f"# {run_id}\n")
    digest = staging.seal({"run_id": run_id})
    folder.publish(staging, Current(run_id, NIGHT, f"runs/{run_id}", digest, 0, "1"))


def reader(folder: Path, by: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-I", "-c", READER, str(folder), by],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_who_resolves_once_never_sees_half_a_run(tmp_path: Path) -> None:
    """By the pointer and by the link, and never an earlier run after a later one."""
    folder = AuditFolder(tmp_path, "audit")
    folder.prepare()
    publish(folder, 0)
    readers = [reader(folder.path, by) for by in ("pointer", "link")]
    for number in range(1, PUBLICATIONS + 1):
        publish(folder, number)

    for process in readers:
        said: dict[str, Any] = json.loads(process.communicate("end\n", timeout=60)[0])
        assert said["wrong"] == []
        assert said["seen"] > 20
        assert said["rounds"] >= said["seen"]
