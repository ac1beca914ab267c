"""Nights of one small audit through the real command line, and what can happen to them.

The fixtures are in conftest.
"""

import json
import os
import signal
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.simulator import FaultPlan, Fleet
from pipeline.simulator.fleet import Checkpoint, Cluster
from pipeline.simulator.stories import STORIES, Story
from tests.durability import Books, Ended, Small, Starter, table, write_input

NO_FAULTS = FaultPlan.none()


@dataclass(frozen=True)
class Changed(Fleet):
    """A fleet of which some checkpoints have another story than `before`."""

    before: Fleet
    stories: dict[str, Story]

    @classmethod
    def of(cls, before: Fleet, stories: dict[str, Story]) -> "Changed":
        index = before._projects, before._clusters
        return cls(before.seed, before.projects, *index, before, stories)

    def at(self, cluster: Cluster, place: int) -> Checkpoint:
        found = super().at(cluster, place)
        story = self.stories.get(found.checkpoint_id)
        return found if story is None else replace(found, story=story)


class Night:
    """One audit, called nightly, and how to start it."""

    def __init__(self, folder: Path, scene: Small, starter: Starter) -> None:
        self.out = folder / "outputs"
        self.atlas = scene.atlas
        self.scene = scene
        self.input = folder / "nightly.csv"
        self.write(len(scene.triples))
        self._starter = starter
        if isinstance(scene.atlas.fleet, Changed):
            scene.atlas.fleet = scene.atlas.fleet.before
        scene.atlas.play(NO_FAULTS)
        scene.atlas.asked.clear()

    @property
    def books(self) -> Books:
        return Books(self.out / "nightly")

    def write(self, count: int) -> None:
        """Let the input have so many of the triples, and one bad line."""
        write_input(self.input, self.scene.triples[:count])

    def start(
        self, *options: str | Path, set_up: str = "", env: dict[str, str] | None = None
    ) -> Ended:
        return self._starter.start(
            *("run", "--output-dir", self.out, *options),
            env={**self.atlas.env, **(env or {})},
            set_up=["tests.durability:no_waits", *filter(None, set_up.split(","))],
        )

    def run(self, *options: str | Path, set_up: str = "") -> Ended:
        return self.start(self.input, *options, set_up=set_up)

    def say(self, command: str, *args: str | Path) -> Ended:
        """Start a command that reads what was published."""
        return self._starter.start(command, *args, "--output-dir", self.out, env=self.atlas.env)

    def become(self, **stories: str) -> None:
        """Let Atlas tell other stories of some triples from now on: `t3="absent"`, by their place.

        What was told of the others before is forgotten.
        """
        fleet = self.atlas.fleet
        before = fleet.before if isinstance(fleet, Changed) else fleet
        told = {
            self.scene.triples[int(name[1:])].checkpoint_id: STORIES[code]
            for name, code in stories.items()
        }
        self.atlas.fleet = Changed.of(before, told)
        self.atlas.play(NO_FAULTS)

    def down(self, triple: int, kind: str = "always-500") -> None:
        """Let one checkpoint be in trouble."""
        found = self.scene.triples[triple].checkpoint_id
        self.atlas.play(FaultPlan(checkpoints={found: kind}))  # type: ignore[dict-item]

    @property
    def asked(self) -> int:
        """Requests for checkpoints."""
        return sum(n for path, n in self.atlas.asked.items() if "/backupCheckpoints/" in path)


def facts(run: Path) -> dict[str, Any]:
    (row,) = table(run, "runs")
    return row


def summary(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "summary.json").read_bytes())
    return read


# --- what happens in a start that is not to end well ---


def put(owner: object, name: str, value: object) -> None:
    setattr(owner, name, value)


def killed_half_way() -> None:
    """A kill when half of the triples are answered, and these are committed."""
    from pipeline.journal import Journal

    settle = Journal.settle

    def counting(journal: Journal, *answer: Any) -> None:
        settle(journal, *answer)
        journal.flush()
        if journal.tally().answers == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    put(Journal, "settle", counting)


def killed_before_publishing() -> None:
    from pipeline.publication import Publisher

    put(Publisher, "publish", lambda *_: os.kill(os.getpid(), signal.SIGKILL))


def bent_summary() -> None:
    """A summary that says something else than the tables."""
    from pipeline.staging import Staging

    write = Staging.write

    def bend(staging: Staging, name: str, content: str | bytes) -> None:
        if name == "summary.json":
            content = json.dumps({**json.loads(content), "excused_count": 99})
        write(staging, name, content)

    put(Staging, "write", bend)


def killed_before_pointing() -> None:
    from pipeline.runs import AuditFolder

    put(AuditFolder, "_point", lambda *_: os.kill(os.getpid(), signal.SIGKILL))


def killed_before_tidying() -> None:
    import pipeline.audit

    put(pipeline.audit, "remove_journal", lambda _: os.kill(os.getpid(), signal.SIGKILL))


def killed_while_old_runs_go() -> None:
    from pipeline.publication import Publisher

    put(Publisher, "keep", lambda *_: os.kill(os.getpid(), signal.SIGKILL))


def two_days_later() -> None:
    _clock(timedelta(days=2))


def in_three_days() -> None:
    _clock(timedelta(days=3))


def tomorrow() -> None:
    _clock(timedelta(days=1))


def _clock(later: timedelta) -> None:
    from pipeline.audit import Audit

    begin = Audit.__init__

    def set_clock(audit: Audit, *args: Any, **more: Any) -> None:
        begin(audit, *args, **more, now=lambda: datetime.now(UTC) + later)

    put(Audit, "__init__", set_clock)


def slow_clock() -> None:
    """Replies arrive two hours before they were sent, by the clock of the machine."""
    from pipeline.transport import HttpTransport

    begin = HttpTransport.__init__

    def set_clock(transport: HttpTransport, *args: Any, **more: Any) -> None:
        begin(transport, *args, **more, wall=lambda: datetime.now(UTC) - timedelta(hours=2))

    put(HttpTransport, "__init__", set_clock)


def of_another_version() -> None:
    import pipeline.unfinished

    put(pipeline.unfinished, "__version__", "9.9.9")


def of_another_format() -> None:
    import pipeline.unfinished

    put(pipeline.unfinished, "FORMAT", "99")


def no_room() -> None:
    import shutil

    put(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))


def half_done(night: Night) -> None:
    assert night.run(set_up="tests.nights:killed_half_way").code == -signal.SIGKILL
