"""SIGKILL at random moments, through the real command line: no row is lost, doubled or changed.

CHECKPOINT_AUDIT_TEST_KILLS=300 kills more often; CHECKPOINT_AUDIT_TEST_SEED chooses the moments.
What was done is printed (pytest -s).
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.commits import COMMIT_REPLIES
from pipeline.simulator import FaultPlan, Fleet
from tests.durability import PROGRAM, Atlas, Books, Rows, rows, write_input

KILLS = int(os.environ.get("CHECKPOINT_AUDIT_TEST_KILLS", "12"))
SEED = int(os.environ.get("CHECKPOINT_AUDIT_TEST_SEED", "7"))
CONCURRENCY = 32

#: What a start may take until it is killed, or has ended. Seconds.
PATIENCE_S = 120

#: A run is let alone after so many kills.
KILLS_A_RUN = 4

#: Some of the ways in which an ask goes wrong and its repetition does not.
PLAN = FaultPlan(rate=0.02, kinds=("500", "503", "reset", "cut-body", "cut-json", "empty-200"))

Kept = dict[int, tuple[Any, ...]]


class Night:
    """One audit of 2,400 triples, started and killed until it is published."""

    def __init__(self, folder: Path, atlas: Atlas, chance: random.Random) -> None:
        self._folder = folder
        self._atlas = atlas
        self._chance = chance
        self._input = write_input(folder / "nightly.csv", list(atlas.fleet.triples()))
        self.books = Books(folder / "out" / "nightly")
        self.duration = 1.0
        self.kills: Counter[str] = Counter()

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [
                *(*PROGRAM, "run", str(self._input), "--output-dir", str(self._folder / "out")),
                *("--concurrency", str(CONCURRENCY)),
            ],
            env={**self._atlas.env, "PYTHONFAULTHANDLER": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def undisturbed(self) -> Path:
        """A run that nothing happens to; gives its folder."""
        before = set(self.books.runs)
        began = time.monotonic()
        finish(self.start())
        self.duration = time.monotonic() - began
        self.books.check_settled()
        (run,) = set(self.books.runs) - before
        return run

    def disturbed(self, kills: int) -> Path:
        """A run that is killed up to so many times, then let alone; gives its folder."""
        before = set(self.books.runs)
        kept: Kept = {}
        for _ in range(kills):
            answered, asked = self._answered(), Counter(self._atlas.asked)
            assert answered <= set(asked)
            is_killed = self._kill_once()
            assert not answered & set(Counter(self._atlas.asked) - asked), "asked for again"
            self.books.check()
            is_visible = set(self.books.runs) != before
            if not is_killed or (is_visible and not self.books.journals):
                break  # over, at most what comes after the journal's removal is not done
            found = self._journalled()
            assert is_visible or is_within(kept, found)
            kept = found
        else:
            finish(self.start())
            self.books.check_settled()
        (run,) = set(self.books.runs) - before
        return run

    def _kill_once(self) -> bool:
        """Start and kill; False where the process had ended before."""
        process = self.start()
        moment = self._chance.choice((self._some_time, self._some_requests, self._publishing))()
        until = time.monotonic() + PATIENCE_S
        while process.poll() is None and not moment() and time.monotonic() < until:
            time.sleep(0.002)
        stage = self._stage()
        if time.monotonic() >= until:
            process.send_signal(signal.SIGABRT)  # it says where it is
            raise AssertionError(f"it does not go on: {stage}\n{process.communicate()[1]}")
        process.kill()
        _, err = process.communicate()
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 4, err
            return False
        self.kills[stage] += 1
        return True

    # --- when to kill: each gives a function that says whether it is time ---

    def _some_time(self) -> Callable[[], bool]:
        at = time.monotonic() + self._chance.uniform(0.0, self.duration)
        return lambda: time.monotonic() >= at

    def _some_requests(self) -> Callable[[], bool]:
        at = self._atlas.asked.total() + self._chance.randrange(len(self._atlas.fleet))
        return lambda: self._atlas.asked.total() >= at

    def _publishing(self) -> Callable[[], bool]:
        wait = self._chance.uniform(0.0, 0.4)
        seen: list[float] = []

        def is_time() -> bool:
            if not seen and list(self.books.path.glob(".work/stage-*")):
                seen.append(time.monotonic())
            return bool(seen) and time.monotonic() >= seen[0] + wait

        return is_time

    def _stage(self) -> str:
        """What is under way now, as far as the files say."""
        if list(self.books.path.glob(".work/stage-*")):
            return "publishing"
        if not self.books.journals:
            return "before or after the journal"
        is_visible = any(run.name not in self.books.published for run in self.books.runs)
        return "pointing" if is_visible else "collecting"

    def _answered(self) -> set[str]:
        """Paths of requests to which a journal that was left holds a lasting answer."""
        found: set[str] = set()
        for journal in self.books.journals:
            found |= {path for (path,) in read(journal, self._folder / "copy", ANSWERED).values()}
        return found

    def _journalled(self) -> Kept:
        """What a journal that was left holds: every reply, by its id."""
        found: Kept = {}
        for journal in self.books.journals:
            found |= read(journal, self._folder / "copy", REPLIES)
        return found


def is_within(kept: Kept, found: Kept) -> bool:
    """Whether all that was kept is there, as it was."""
    return all(found.get(reply_id) == row for reply_id, row in kept.items())


REPLIES = "SELECT id, triple_id, path, sent_at, received_at, status, sha256 FROM replies"

#: Checkpoints, and Atlas's word that there is none: nothing that a later start asks again.
ANSWERED = """
SELECT r.id, r.path FROM answers a JOIN replies r ON r.id = a.reply_id
WHERE a.kind IS NULL OR a.kind = 'checkpoint_absent'
"""


def read(journal: Path, copy: Path, query: str) -> Kept:
    """Rows by their ids, from a copy: to look into a journal would already mend it."""
    for suffix in ("", "-wal"):
        Path(f"{copy}{suffix}").unlink(missing_ok=True)
        if Path(f"{journal}{suffix}").exists():
            shutil.copyfile(f"{journal}{suffix}", f"{copy}{suffix}")
    with closing(sqlite3.connect(copy)) as db:
        tables = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'replies'").fetchone()
        return {row[0]: row[1:] for row in db.execute(query)} if tables[0] else {}


def finish(process: "subprocess.Popen[str]") -> None:
    _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err


@pytest.fixture
def night(tmp_path: Path) -> Iterator[tuple[Night, Atlas]]:
    fleet = Fleet.seeded(seed=3, projects=4, clusters=6, checkpoints=100)
    with Atlas(fleet, PLAN) as atlas:
        yield Night(tmp_path, atlas, random.Random(SEED)), atlas


def test_kills_at_random_moments(night: tuple[Night, Atlas]) -> None:
    """What was committed is not asked for again; a kill costs an interval's replies, on average.

    A single one may cost what the commit under way was to write, and what came in meanwhile.
    """
    audit, atlas = night
    wanted: Rows = rows(audit.undisturbed())
    once = sum(checkpoints(atlas).values())
    most, repeated, runs = 0, 0, 0
    while audit.kills.total() < KILLS:
        before = audit.kills.total()
        atlas.asked.clear()
        atlas.play(PLAN)
        run = audit.disturbed(min(KILLS_A_RUN, KILLS - before))

        assert rows(run) == wanted
        again = sum(checkpoints(atlas).values()) - once
        repeated, most, runs = repeated + again, max(most, again), runs + 1
        print(  # noqa: T201 - a proof's figures are for who asked for it
            f"{audit.kills.total()} kills over {runs} runs of {len(atlas.fleet)} triples: "
            f"{dict(audit.kills)}; {repeated} requests repeated, at most {most} in one run",
            flush=True,
        )

    assert audit.kills.total() == KILLS
    assert repeated <= KILLS * (COMMIT_REPLIES + CONCURRENCY)


def checkpoints(atlas: Atlas) -> Counter[str]:
    return Counter({p: n for p, n in atlas.asked.items() if "/backupCheckpoints/" in p})
