"""How far a run is: a live bar where stderr is a terminal, else a line now and then."""

import logging
import sys
import time

from pipeline.audit import Watcher
from pipeline.journal import Tally
from pipeline.outcomes import Failed, Outcome

log = logging.getLogger("pipeline")

#: Seconds between two lines about the progress where there is no terminal, and between two
#: updates of the bar where there is one.
_LINE_EVERY, _BAR_EVERY = 30.0, 0.1


class Lines(Watcher):
    """Progress as a line now and then."""

    def __init__(self) -> None:
        self._todo = 0
        self._done = 0
        self._failed = 0
        self._next_line = time.monotonic() + _LINE_EVERY

    def started(self, run_id: str, tally: Tally) -> None:
        """Say what will be asked."""
        self._todo, self._done = tally.triples, tally.answers
        before = f", {tally.answers:,} of them answered before" if tally.answers else ""
        log.info("run %s: %s triples%s", run_id, f"{tally.triples:,}", before)

    def settled(self, outcome: Outcome) -> None:
        """Count, and say so every half a minute."""
        self._done += 1
        self._failed += isinstance(outcome, Failed)
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_EVERY
            log.info("%s of %s answered", f"{self._done:,}", f"{self._todo:,}")


class Bar(Lines):
    """Progress as a live bar."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        super().__init__()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("asking Atlas", total=None, note="")

    def started(self, run_id: str, tally: Tally) -> None:
        """Show the bar."""
        super().started(run_id, tally)
        self._bar.update(self._task, total=self._todo, completed=self._done)
        self._bar.start()
        self._next_line = 0.0

    def settled(self, outcome: Outcome) -> None:
        """Move the bar, not more often than an eye can see."""
        self._done += 1
        self._failed += isinstance(outcome, Failed)
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _BAR_EVERY
            note = f"{self._failed:,} without a checkpoint" if self._failed else ""
            self._bar.update(self._task, completed=self._done, note=note)

    def deriving(self) -> None:
        """Say that the answers are all there."""
        self._bar.update(self._task, description="writing the tables", completed=self._done)

    def ended(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def watcher(*, no_progress: bool, quiet: bool, log_format: str = "text") -> Watcher:
    """Choose how to show the progress; among lines of JSON a bar has no place."""
    if quiet:
        return Watcher()
    if no_progress or log_format == "json":
        return Lines()
    return Bar() if sys.stderr.isatty() else Lines()
