"""Derive alone, as a section: how many checkpoints a second, once all is collected."""

import json
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.figures import BenchmarkFailed, Section, markdown, spread
from tests.benchmarks.lineup import THIS_PROGRAM
from tests.benchmarks.processes import measure
from tests.benchmarks.triples import write_triples

_COLUMNS = ("triples", "checkpoints/s", "CPU s per 10,000", "peak MiB with collecting")


def derive_alone(base_url: str, triples: int, repeat: int) -> Section:
    """Collect once, then derive and publish `repeat` times from the same journal."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        source = write_triples(Path(name) / "triples.csv", triples)
        module = [sys.executable, "-m", "tests.benchmarks.deriving"]
        command = [*module, str(source), str(Path(name) / "output"), str(repeat)]
        used, said = measure(command, THIS_PROGRAM.environment(base_url))
    timed = [json.loads(line) for line in said.splitlines()]
    if any(one["passes"] != triples for one in timed):
        raise BenchmarkFailed(f"not all of {triples} triples passed: {said}")
    row = [
        f"{triples:,}",
        spread([triples / one["wall_s"] for one in timed]).text(0),
        spread([one["cpu_s"] / triples * 10_000 for one in timed]).text(2),
        f"{used.peak_mib:,.0f}",
    ]
    return Section("Derive alone, on one core", markdown(_COLUMNS, [row]), timed)
