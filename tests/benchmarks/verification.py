"""Verifying a published run, as a section: both its questions, from the command line."""

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.figures import Section, markdown, spread
from tests.benchmarks.lineup import THIS_PROGRAM
from tests.benchmarks.processes import measure
from tests.benchmarks.triples import write_triples


def verify_runs(base_url: str, triples: int, repeat: int, *options: str) -> Section:
    """Publish a run with `options` once, then verify it `repeat` times."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        source = write_triples(Path(name) / "triples.csv", triples)
        environment = THIS_PROGRAM.environment(base_url)
        command = [*THIS_PROGRAM.command(source, Path(name) / "output"), *options]
        _, said = measure(command, environment)
        run = said.strip().rpartition("\n")[2]
        verify = [sys.executable, "-m", "pipeline", "verify", run]
        measured = [measure(verify, environment)[0] for _ in range(repeat)]
    row = [
        f"{triples:,}",
        spread([one.wall_s for one in measured]).text(1),
        spread([one.cpu_s for one in measured]).text(1),
        f"{max(one.peak_mib for one in measured):,.0f}",
    ]
    table = markdown(["triples", "seconds", "CPU s", "peak MiB"], [row])
    title = " ".join(["Verify a run", *options])
    return Section(title, table, [asdict(one) for one in measured])
