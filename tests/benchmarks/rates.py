"""How near to the ideal makespan a run comes when the quota decides, and at how many refusals.

All scenarios run at the same time, each against a simulator of its own: they are nearly always
waiting. Each begins a little after the one before, so that they neither burst nor publish together.
The makespan is the whole process's, from its start to everything published.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.figures import Section, markdown
from tests.benchmarks.lineup import PLAIN_POOL, THIS_PROGRAM, Contender
from tests.benchmarks.processes import measure, serving
from tests.benchmarks.scenarios import SCENARIOS

_OPTIONS = ("--max-share", "0.98")

_APART_S = 5.0

_COLUMNS = ("", "triples", "ideal s", "makespan s", "over ideal", "refusals per 1,000")
_GOOD, _REFUSED = "200", "429"


@dataclass(frozen=True, slots=True)
class Makespan:
    """One scenario's run. `answers` counts checkpoints given, `refusals` 429s."""

    scenario: str
    contender: str
    triples: int
    ideal_s: float
    makespan_s: float
    answers: int
    refusals: int


def await_quotas(*, with_plain: bool) -> Section:
    """Run every scenario; `with_plain` also sends a plain pool, which would not read limits."""
    pairs = [(number, THIS_PROGRAM) for number in range(len(SCENARIOS))]
    if with_plain:
        readable = (number for number, one in enumerate(SCENARIOS) if one.readable)
        pairs += [(number, PLAIN_POOL) for number in readable]
    with ThreadPoolExecutor(len(pairs)) as pool:
        measured = list(pool.map(_run, *zip(*pairs, strict=True)))
    return Section(
        f"Makespan against the documented quota ({' '.join(_OPTIONS)})",
        markdown(_COLUMNS, [_row(one) for one in measured]),
        [asdict(one) for one in measured],
    )


def _run(number: int, contender: Contender) -> Makespan:
    """Run one contender on one scenario, from a full bucket on."""
    time.sleep(number * _APART_S)
    scenario = SCENARIOS[number]
    triples = sum(scenario.sizes)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        source, output = Path(name) / "triples.csv", Path(name) / "output"
        output.mkdir()
        server = serving("limited", str(number), str(source), environment=os.environ)
        with server as (base_url, process):
            options = _OPTIONS if contender is THIS_PROGRAM else ()
            command = [*contender.command(source, output), *options]
            used, said = measure(command, contender.environment(base_url))
            statuses = _statuses(process)
        contender.check(said, triples)
    return Makespan(
        scenario.name,
        contender.name,
        triples,
        scenario.ideal_s,
        used.wall_s,
        statuses.get(_GOOD, 0),
        statuses.get(_REFUSED, 0),
    )


def _statuses(process: subprocess.Popen[str]) -> dict[str, int]:
    """End a simulator and read what it counted."""
    process.terminate()
    counted: dict[str, int] = json.loads(process.communicate()[0])
    return counted


def _row(one: Makespan) -> Sequence[str]:
    is_ours = one.contender == THIS_PROGRAM.name
    return (
        one.scenario if is_ours else f"{one.scenario}; {one.contender}",
        f"{one.triples:,}",
        f"{one.ideal_s:.1f}",
        f"{one.makespan_s:.1f}",
        f"{one.makespan_s / one.ideal_s:.3f}",
        f"{one.refusals / one.answers * 1000:,.2f}",
    )
