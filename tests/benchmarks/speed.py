"""CPU, requests and memory of whole runs, against a server that nobody has to wait for."""

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.figures import Section, markdown, paired_ratios, spread
from tests.benchmarks.lineup import (
    CONTENDERS,
    PARTS_A_CHECKPOINT,
    PROGRAM,
    THIS_PROGRAM,
    Contender,
)
from tests.benchmarks.processes import measure, server_usage
from tests.benchmarks.triples import write_triples

#: More triples than that are asked for only by who is not slow.
SLOW_TRIPLES = 50_000

_CPU_COLUMNS = (
    "",
    "CPU s per 10,000",
    "checkpoints/s",
    "peak MiB",
    "start-up CPU s",
    "this program's CPU over its",
    "server busy",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one contender. `server_busy` is the server's CPU over the run's wall clock."""

    contender: str
    triples: int
    round: int
    cpu_s: float
    wall_s: float
    peak_mib: float
    server_busy: float
    requests: int


def run_once(
    contender: Contender, base_url: str, triples: int, round_: int, *options: str
) -> Measured:
    """Run a contender on a fresh input, check what it made, and say so on standard error."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        source = write_triples(Path(name) / "triples.csv", triples)
        output = Path(name) / "output"
        output.mkdir()
        before = server_usage(base_url)
        command = [*contender.command(source, output), *options]
        used, said = measure(command, contender.environment(base_url))
        contender.check(said, triples, triples * PARTS_A_CHECKPOINT)
    sys.stderr.write(f"{contender.name}, {triples:,} triples: {used.cpu_s:.2f} s of CPU\n")
    after = server_usage(base_url)
    return Measured(
        contender.name,
        triples,
        round_,
        used.cpu_s,
        used.wall_s,
        used.peak_mib,
        server_busy=(after.cpu_s - before.cpu_s) / used.wall_s,
        requests=after.requests - before.requests,
    )


# --- CPU --------------------------------------------------------------------------------------


def compare(base_url: str, triples: int, repeat: int) -> Section:
    """Run everybody in turn, `repeat` times, each with one triple and with all of them."""
    chosen = [one for one in CONTENDERS if not one.missing and _fits(one, triples)]
    measured = list(_in_turn(chosen, base_url, triples, repeat))
    return Section(
        f"{triples:,} triples",
        "\n\n".join([_cpu_table(measured, triples), *_left_out(triples)]),
        [asdict(one) for one in measured],
    )


def _fits(contender: Contender, triples: int) -> bool:
    return triples <= SLOW_TRIPLES or not contender.slow


def _left_out(triples: int) -> Iterator[str]:
    for contender in CONTENDERS:
        if contender.missing:
            yield f"{contender.name}: skipped, {', '.join(contender.missing)} not installed."
        elif not _fits(contender, triples):
            yield f"{contender.name}: left out above {SLOW_TRIPLES:,} triples."


def _in_turn(
    contenders: Sequence[Contender], base_url: str, triples: int, repeat: int
) -> Iterator[Measured]:
    for round_ in range(repeat):
        for contender in contenders:
            yield run_once(contender, base_url, 1, round_)
            yield run_once(contender, base_url, triples, round_)


def _cpu_table(measured: Iterable[Measured], triples: int) -> str:
    whole: dict[str, list[Measured]] = {}
    started: dict[str, list[Measured]] = {}
    for one in measured:
        (whole if one.triples == triples else started).setdefault(one.contender, []).append(one)
    mine = [one.cpu_s for one in whole[PROGRAM]]
    rows = (_cpu_row(name, runs, started[name], mine) for name, runs in whole.items())
    return markdown(_CPU_COLUMNS, rows)


def _cpu_row(
    name: str, runs: Sequence[Measured], started: Sequence[Measured], mine: Sequence[float]
) -> list[str]:
    ratios = paired_ratios(mine, [one.cpu_s for one in runs])
    return [
        name,
        spread([one.cpu_s / one.triples * 10_000 for one in runs]).text(2),
        spread([one.triples / one.wall_s for one in runs]).text(0),
        spread([one.peak_mib for one in runs]).text(0),
        spread([one.cpu_s for one in started]).text(2),
        "" if name == PROGRAM else spread(ratios).text(2),
        f"{spread([one.server_busy for one in runs]).median:.0%}",
    ]


# --- requests ---------------------------------------------------------------------------------


def count_requests(base_url: str, sizes: Sequence[int]) -> Section:
    """Count all requests, to whatever resource, of runs that ask the lists of whole clusters."""
    title = "Requests with --fetch list"
    said = measure([sys.executable, "-m", "pipeline", "run", "--help"], os.environ)[1]
    if "--fetch" not in said:
        return Section(title, "Not supported by this version.", [])
    measured = [run_once(THIS_PROGRAM, base_url, n, 0, "--fetch", "list") for n in sizes]
    rows = [
        [f"{one.triples:,}", f"{one.requests:,}", f"{one.requests / one.triples:.4f}"]
        for one in measured
    ]
    table = markdown(["triples", "requests", "requests a triple"], rows)
    return Section(title, table, [asdict(one) for one in measured])


# --- memory -----------------------------------------------------------------------------------


def grow(base_url: str, sizes: Sequence[int]) -> Section:
    """Run this program once on each of the sizes: what its peak does as the input grows."""
    measured = [run_once(THIS_PROGRAM, base_url, triples, 0) for triples in sizes]
    rows = [
        [f"{one.triples:,}", f"{one.peak_mib:,.0f}", f"{one.wall_s:,.0f}", f"{one.cpu_s:,.0f}"]
        for one in measured
    ]
    return Section(
        "Memory as the input grows",
        markdown(["triples", "peak MiB", "seconds", "CPU s"], rows),
        [asdict(one) for one in measured],
    )
