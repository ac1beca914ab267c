"""Any order of starts, kills, faults and changes: the laws hold for all that was ever published.

CHECKPOINT_AUDIT_TEST_HISTORIES=200 tries more of them.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pipeline.simulator import FaultPlan
from pipeline.simulator.faults import ProjectFault
from tests.durability import Books, Ended, Small, Starter, table, write_input
from tests.faultpoints import Fault, Lane, Mode

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks a process with threads")

HISTORIES = int(os.environ.get("CHECKPOINT_AUDIT_TEST_HISTORIES", "6"))
STEPS = 10

#: The codes under which a run is published.
PUBLISHED = {0, 1, 3, 4}

#: How a start may end that was broken: not at all, on a full disk, stopped, killed.
BROKEN = PUBLISHED | {73, 143, -9}

#: Main points of a start go up to about 150; beyond them nothing happens.
points = st.one_of(
    st.tuples(st.just(Lane.MAIN), st.integers(1, 160)),
    st.tuples(st.just(Lane.COMMITS), st.integers(1, 12)),
)


def plans(scene: Small) -> dict[str, FaultPlan]:
    """What may be wrong with Atlas, from nothing to all of a project."""
    first = scene.triples[0]
    return {
        "nothing": FaultPlan.none(),
        "one in vain": FaultPlan(checkpoints={first.checkpoint_id: "always-500"}),
        "one unreadable": FaultPlan(checkpoints={scene.triples[-1].checkpoint_id: "html-200"}),
        "half at first": FaultPlan(rate=0.5, kinds=("500", "reset", "cut-body", "cut-json")),
        "all refused": FaultPlan(projects={first.group_id: ProjectFault("refuses")}),
    }


class Histories(RuleBasedStateMachine):
    """The nights of one audit, each as it happens to go."""

    scene: ClassVar[Small]
    starter: ClassVar[Starter]

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.books = Books(self.folder / "out" / "nightly")
        self.expected = {t.checkpoint_id: t.expected_verdict for t in self.scene.triples}
        self.ended: Ended | None = None
        self.write(len(self.scene.triples))
        self.scene.atlas.play(FaultPlan.none())

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def write(self, count: int) -> None:
        self.input = write_input(self.folder / "nightly.csv", self.scene.triples[:count])

    def start(self, *args: str | Path, fault: Fault | None = None) -> Ended:
        self.ended = self.starter.start(
            *("run", *args, "--output-dir", self.folder / "out"),
            env=self.scene.atlas.env,
            fault=fault,
            set_up=["tests.durability:no_waits"],
        )
        return self.ended

    # --- what may happen ---

    @rule()
    def run(self) -> None:
        self.check_published(self.start(self.input))

    @rule()
    def run_fresh(self) -> None:
        """Begin anew, whatever there is."""
        before = set(self.books.runs)
        ended = self.start(self.input, "--fresh")
        self.check_published(ended)
        assert ended.run not in before

    @rule(day=st.sampled_from(["2026-01-01", "2026-11-20"]))
    def run_of_another_date(self, day: str) -> None:
        """Published, and not current where a later one is."""
        self.check_published(self.start(self.input, "--audit-date", day))

    @precondition(lambda self: self.books.current is not None)
    @rule()
    def complete(self) -> None:
        """Ask what is inconclusive again."""
        self.check_published(self.start("--complete", "nightly"))

    @rule(point=points, mode=st.sampled_from(list(Mode)), fresh=st.booleans())
    def run_broken(self, point: tuple[Lane, int], mode: Mode, fresh: bool) -> None:
        options = ["--fresh"] if fresh else []
        self.check_broken(self.start(self.input, *options, fault=Fault(*point, mode)))

    @precondition(lambda self: self.books.current is not None)
    @rule(point=points, mode=st.sampled_from(list(Mode)))
    def complete_broken(self, point: tuple[Lane, int], mode: Mode) -> None:
        self.check_broken(self.start("--complete", "nightly", fault=Fault(*point, mode)))

    @rule(data=st.data())
    def change_atlas(self, data: st.DataObject) -> None:
        known = plans(self.scene)
        self.scene.atlas.play(known[data.draw(st.sampled_from(sorted(known)), "wrong is")])

    @rule(count=st.sampled_from([8, 9, 10]))
    def change_input(self, count: int) -> None:
        self.write(count)

    # --- what must be ---

    @invariant()
    def laws(self) -> None:
        """Runs are whole, unchanged, and add up; pointers lead to them; no verdict is made up."""
        if not hasattr(self, "books"):
            return
        known = set(self.books.published)
        self.books.check()
        for run in self.books.runs:
            if run.name not in known:
                self.check_verdicts(run)

    def check_verdicts(self, run: Path) -> None:
        for row in table(run, "outcomes"):
            wanted = self.expected[row["checkpoint_id"]]
            assert row["verdict"] in {wanted, "INCONCLUSIVE"}

    def check_published(self, ended: Ended) -> None:
        assert ended.code in PUBLISHED, ended.err
        (row,) = table(ended.run, "runs")
        assert row["exit_code"] == ended.code
        assert self.books.current is not None
        assert self.books.current == self.books.link
        assert ended.run == self.books.current or "not current" in ended.err

    def check_broken(self, ended: Ended) -> None:
        assert ended.code in BROKEN, ended.err
        assert "Traceback" not in ended.err, ended.err
        assert (ended.code in PUBLISHED) == (ended.out != "") or ended.code == -9


def test_any_order(scene: Small, starter: Starter) -> None:
    Histories.scene, Histories.starter = scene, starter
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=STEPS,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
