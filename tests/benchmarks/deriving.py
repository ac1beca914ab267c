"""Derive alone: from a whole journal to everything published, timed from inside.

    python -m tests.benchmarks.deriving INPUT FOLDER REPEAT

One run collects, and its journal is copied before it derives. Then that journal is put where an
unfinished run would have left it, and a run goes on with it: it finds nothing left to ask. Only
what comes after asking is timed. The first run's is not: it also loads the libraries.

Prints one line of JSON a repetition: seconds of CPU, seconds, passes.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

from pipeline.audit import Audit, Watcher
from pipeline.auth import Credentials, Kind
from pipeline.loop import run_loop
from pipeline.settings import Settings
from pipeline.tables import only_write
from tests.benchmarks.lineup import CLIENT_ID, CLIENT_SECRET

_NAME = "derive"
_JOURNALS = f"{_NAME}/.work"


class Stopwatch(Watcher):
    """Keeps a copy of the journal's folder when all is asked, and what the clocks say then."""

    def __init__(self, work: Path, copy: Path) -> None:
        self._work = work
        self._copy = copy
        self.cpu_s = self.wall_s = 0.0

    def deriving(self) -> None:
        """Everything was asked."""
        if not self._copy.exists():
            shutil.copytree(self._work, self._copy)
        self.cpu_s, self.wall_s = time.process_time(), time.perf_counter()


def derive(source: str, output_dir: Path, copy: Path) -> dict[str, float]:
    """Run to the end; gives what it took from the moment on when everything was asked."""
    stopwatch = Stopwatch(output_dir / _JOURNALS, copy)
    settings = Settings(
        source=source,
        output_dir=output_dir,
        audit_name=_NAME,
        credentials=Credentials(Kind.SERVICE_ACCOUNT, CLIENT_ID, CLIENT_SECRET),
        base_url=os.environ["MONGODB_ATLAS_BASE_URL"],
    )
    published = run_loop(Audit(settings, watcher=stopwatch).run())
    return {
        "cpu_s": time.process_time() - stopwatch.cpu_s,
        "wall_s": time.perf_counter() - stopwatch.wall_s,
        "passes": published.summary.counts.pass_count,
    }


def main() -> None:
    """Collect once, derive as often as asked."""
    source, folder, repeat = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    copy = folder / "journal"
    only_write()  # as the command does
    derive(source, folder / "first", copy)
    for number in range(repeat):
        output_dir = folder / str(number)
        shutil.copytree(copy, output_dir / _JOURNALS)
        sys.stdout.write(json.dumps(derive(source, output_dir, copy)) + "\n")
        shutil.rmtree(output_dir)


if __name__ == "__main__":
    main()
