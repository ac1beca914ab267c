"""The benchmarks: `make bench`, or `python -m tests.benchmarks`.

Standard output gets Markdown, standard error what is going on. Figures are those of this machine at
this hour: compare the rows of one table, not tables of different days.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import derivation, loading, page, rates, speed, verification
from tests.benchmarks.figures import BenchmarkFailed, Section
from tests.benchmarks.machine import described, machine
from tests.benchmarks.processes import parted_cores, serving

#: Sections, and how many triples each takes where none are asked for. (Those of the rate scenarios
#: are their own.)
TRIPLES = {
    "cpu": [20_000, 100_000],
    "derive": [100_000],
    "list": [20_000],
    "load": [66_667, 333_334],  # of three parts each
    "memory": [20_000, 1_000_000],
    "page": [1_000_000],
    "rate": [],
    "verify": [100_000],
}


def main() -> None:
    """Measure what was asked for and print it."""
    # What is measured starts as an installed program does, which has its bytecode.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    asked = _arguments()
    facts = machine()
    _print(described(facts))
    done = []
    for name in asked.only or TRIPLES:
        for section in _sections(name, asked):
            _print(f"\n### {section.title}\n\n{section.text}")
            done.append({"section": name, "title": section.title, "figures": section.raw})
    if asked.json:
        asked.json.write_text(json.dumps({"machine": facts, "sections": done}, indent=1), "utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", action="append", choices=TRIPLES, help="a section; may be given repeatedly")
    add("--triples", action="append", type=int, help="how many; may be given repeatedly")
    add("--repeat", type=int, default=3, help="rounds of what is compared (default 3)")
    add("--with-plain", action="store_true", help="a plain pool on the rate scenarios, too")
    add("--json", type=Path, help="write the raw figures to this file")
    asked = parser.parse_args()
    if min([asked.repeat, *(n - 1 for n in asked.triples or ())]) < 1:
        parser.error("--repeat is at least 1, --triples at least 2: one is what start-up is")
    return asked


def _sections(name: str, asked: argparse.Namespace) -> Iterator[Section]:
    if name == "rate":
        yield rates.await_quotas(with_plain=asked.with_plain)
        return
    sizes = asked.triples or TRIPLES[name]
    if name == "page":
        for triples in sizes:
            yield page.open_page(triples, max(triples // 50, 1), asked.repeat)
        return
    if name == "load":  # a warehouse has the other core
        with serving("server", environment=os.environ) as (base_url, _):
            yield from (loading.load_run(base_url, triples, asked.repeat) for triples in sizes)
        return
    with (
        parted_cores() as core,
        serving("server", *core, environment=os.environ) as (base_url, _),
    ):
        yield from _fast_sections(name, base_url, sizes, asked.repeat)


def _fast_sections(name: str, base_url: str, sizes: list[int], repeat: int) -> Iterator[Section]:
    match name:
        case "memory":
            yield speed.grow(base_url, sizes)
        case "list":
            yield speed.count_requests(base_url, sizes)
        case "derive":
            for triples in sizes:
                yield derivation.derive_alone(base_url, triples, repeat)
        case "verify":
            for triples in sizes:
                yield verification.verify_runs(base_url, triples, repeat)
                yield verification.verify_runs(base_url, triples, repeat, "--fetch", "list")
        case "cpu":
            for triples in sizes:
                yield speed.compare(base_url, triples, repeat)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except BenchmarkFailed as failure:
        sys.exit(f"bench: {failure}")
