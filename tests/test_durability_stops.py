"""Overlapping starts, signals at every stage, and clocks that are set back."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.simulator import FaultPlan
from tests.durability import (
    EXPECTED,
    PROGRAM,
    Atlas,
    Books,
    Small,
    Starter,
    Walker,
    number_of,
    rows,
    small,
    write_input,
)
from tests.faultpoints import Fault, Lane, Mode
from tests.nights import Night

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks a process with threads")


@contextmanager
def running(
    atlas: Atlas, *args: str | Path, before: Sequence[str] = ()
) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        [*before, *PROGRAM, "run", *map(str, args), "--concurrency", "2"],
        env=atlas.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(there: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not there():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def slow() -> Iterator[Small]:
    """Every answer takes a third of a second."""
    with small() as scene, Atlas(scene.atlas.fleet, FaultPlan.none(), latency=0.3) as atlas:
        yield Small(atlas, FaultPlan.none(), scene.triples)


# --- two at once ---


def test_a_second_start_leaves_the_first_alone(slow: Small, tmp_path: Path) -> None:
    """75 at once, by whom; the first ends as if it had been alone."""
    source = write_input(tmp_path / "nightly.csv", slow.triples)
    books = Books(tmp_path / "out" / "nightly")
    args = (source, "--output-dir", tmp_path / "out")
    slow.atlas.asked.clear()
    with running(slow.atlas, *args) as first:
        wait_for(lambda: books.journals)
        first.send_signal(signal.SIGSTOP)
        for _ in range(2):
            with running(slow.atlas, *args) as second:
                _, err = second.communicate(timeout=60)
            assert second.returncode == 75
            assert f"process {first.pid} on " in err.splitlines()[-1]
            assert books.runs == []
        first.send_signal(signal.SIGCONT)
        _, err = first.communicate(timeout=60)

    assert first.returncode == EXPECTED, err
    books.check_settled()
    assert len(books.runs) == 1
    asked = [n for path, n in slow.atlas.asked.items() if "/backupCheckpoints/" in path]
    assert asked == [1] * len(slow.triples)
    starts = {each["attempt"]: each for each in books.attempts() if each["event"] == "start"}
    codes = [each["exit_code"] for each in books.attempts() if each["event"] == "end"]
    assert codes == [75, 75, EXPECTED]
    assert len(starts) == 3


# --- signals ---


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory, starter: Starter) -> Iterator[Walker]:
    with small() as scene:
        yield Walker(tmp_path_factory.mktemp("stops"), scene, starter)


#: A point of each stage, which one of that name, and how a start ends that is told to stop there.
#: Shortly before the run becomes visible, either may come first.
STAGES: dict[str, tuple[str, int, *tuple[int, ...]]] = {
    "before the lock": ("create lock", 0, 143),
    "reading": ("write input.csv.gz", 0, 143),
    "loading": ("INSERT INTO staged", 0, 143),
    "loaded": ("CREATE TEMP TABLE IF", 0, 143),
    "deriving": ("write unresolved.csv", 0, 143),
    "sealing": ("write manifest.json", 0, 143, EXPECTED),
    "publishing": ("rename 2", 0, EXPECTED),
    "pointing": ("symlink current", 0, EXPECTED),
    "tidying": ("unlink journal", -1, EXPECTED),
    "noting the end": ("unlink holder", 0, EXPECTED),
}


@linux
@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_at_each_stage(stage: str, walker: Walker) -> None:
    """Before the run is visible it ends with 143 and goes on later; then with the run's code."""
    name, nth, *codes = STAGES[stage]
    number = number_of(walker.points(), name, nth)
    books = walker.restore()
    former = books.current
    ended = walker.start(Fault(Lane.MAIN, number, Mode.STOP))

    assert ended.code in codes, ended.err
    assert "Traceback" not in ended.err
    assert f"exit {ended.code}: " in ended.err.splitlines()[-1]
    books.check()
    assert (books.current == former) == (ended.code == 143)
    finished = walker.start()
    assert finished.code == EXPECTED, finished.err
    books.check_settled()
    assert rows(finished.run) == walker.wanted


def test_a_signal_during_the_preliminary_call(slow: Small, tmp_path: Path) -> None:
    source = write_input(tmp_path / "nightly.csv", slow.triples)
    slow.atlas.asked.clear()
    with running(slow.atlas, source, "--output-dir", tmp_path / "out") as process:
        wait_for(slow.atlas.asked.total)
        process.terminate()
        _, err = process.communicate(timeout=60)

    assert process.returncode == 143, err
    assert not [path for path in slow.atlas.asked if "/backupCheckpoints/" in path]
    assert Books(tmp_path / "out" / "nightly").runs == []


def may_unshare() -> bool:
    tool = shutil.which("unshare")
    probe = [tool or "false", "--pid", "--fork", "true"]
    return subprocess.run(probe, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="this user may not make a PID namespace")
def test_a_signal_to_pid_1_before_there_is_a_loop(slow: Small, tmp_path: Path) -> None:
    """The first process of a container is told nothing by default: the program asks to be told."""
    unshare = ("unshare", "--pid", "--fork", "--kill-child")
    holder = tmp_path / "nightly" / ".work" / "holder"
    args = ("-", "--audit-name", "nightly", "--output-dir", tmp_path)
    with running(slow.atlas, *args, before=unshare) as process:
        wait_for(holder.exists)
        inner = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("utf-8").split()
        os.kill(int(inner[0]), signal.SIGTERM)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 143, err
    assert not holder.exists()


# --- clocks ---


@linux
def test_a_clock_that_was_set_back(night: Night) -> None:
    """A run goes on under the date it began with, and does not end before it began."""
    begun = night.run(set_up="tests.nights:killed_half_way")
    assert begun.code == -9
    ended = night.run(set_up="tests.durability:yesterday")

    assert ended.code in {1, EXPECTED}, ended.err
    assert "going on with the unfinished run" in ended.err
    night.books.check_settled()
    (run,) = night.books.runs
    manifest = json.loads((run / "manifest.json").read_bytes())
    assert manifest["finished_at"] >= manifest["started_at"]


@linux
def test_a_night_that_seems_to_be_the_one_before(night: Night) -> None:
    """With the clock set back a later run is dated earlier: published, and not current."""
    former = night.run()
    ended = night.run(set_up="tests.durability:yesterday")

    night.books.check_settled()
    assert len(night.books.runs) == 2
    assert night.books.current == former.run
    assert "not current" in ended.err
