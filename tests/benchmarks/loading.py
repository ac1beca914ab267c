"""Loading a published run into each warehouse, as a section: the whole command, start-up included.

PostgreSQL runs on this machine, on the same cores; its own time is no part of the CPU's.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.figures import Section, markdown, spread
from tests.benchmarks.lineup import THIS_PROGRAM
from tests.benchmarks.processes import Usage, measure
from tests.benchmarks.triples import write_triples
from tests.postgres import running

_COLUMNS = ("parts", "rows", "into", "seconds", "CPU s", "peak MiB")


def load_run(base_url: str, triples: int, repeat: int) -> Section:
    """Publish a run once, then load it `repeat` times into a new warehouse of each kind."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        source = write_triples(folder / "triples.csv", triples)
        environment = THIS_PROGRAM.environment(base_url)
        _, said = measure(THIS_PROGRAM.command(source, folder / "output"), environment)
        run = Path(said.strip().rpartition("\n")[2])
        parts, rows = _rows(run, "parts"), _rows(run)
        measured = dict(_measured(run, folder, environment, repeat))
    text = markdown(_COLUMNS, [_row(parts, rows, *each) for each in measured.items()])
    raw = [{"into": into, **asdict(one)} for into, used in measured.items() for one in used]
    return Section("Load a run", text, raw)


def _rows(run: Path, table: str = "*") -> int:
    import pyarrow.parquet as pq

    files = run.glob(f"{table}/dt=*/*.parquet")
    return sum(pq.read_metadata(file).num_rows for file in files if file.parts[-3] != "failing")


def _measured(
    run: Path, folder: Path, environment: Mapping[str, str], repeat: int
) -> Iterator[tuple[str, list[Usage]]]:
    files = [f"duckdb://{folder}/{number}.duckdb" for number in range(repeat)]
    yield "DuckDB", [_load(run, url, environment) for url in files]
    with running() as server:
        databases = [server.new_database() for _ in range(repeat)]
        yield "PostgreSQL", [_load(run, url, environment) for url in databases]


def _load(run: Path, url: str, environment: Mapping[str, str]) -> Usage:
    # From the fast server, which is at a loopback address.
    command = [sys.executable, "-m", "pipeline", "load", str(run), "--replace-anyway"]
    return measure(command, {**environment, "CHECKPOINT_AUDIT_WAREHOUSE_URL": url})[0]


def _row(parts: int, rows: int, into: str, used: list[Usage]) -> list[str]:
    return [
        f"{parts:,}",
        f"{rows:,}",
        into,
        spread([one.wall_s for one in used]).text(1),
        spread([one.cpu_s for one in used]).text(1),
        f"{max(one.peak_mib for one in used):,.0f}",
    ]
