"""The simulator with one scenario's buckets, which the command line cannot ask for.

    python -m tests.benchmarks.limited NUMBER FILE

writes the scenario's triples to FILE, sorted by project, prints `listening on URL`, serves until
SIGTERM, and then prints how often which status was given for checkpoints, as JSON. Every checkpoint
is plainly healthy, so that nothing but the rate is at stake.
"""

import asyncio
import csv
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pipeline.simulator import BucketRules, Credentials, FaultPlan, Fleet, serve
from pipeline.simulator.fleet import Project, Triple
from pipeline.simulator.server import NOBODY
from pipeline.simulator.stories import HEALTHY
from tests.benchmarks.lineup import CLIENT_ID, CLIENT_SECRET, TOKEN
from tests.benchmarks.scenarios import REFILL_DURATION_S, SCENARIOS, Scenario
from tests.benchmarks.triples import COLUMNS

_CLUSTERS = 5
#: The fleet has checkpoints in plenty, since not all of them are healthy.
_PLENTY = 2
_HEALTHY = frozenset(story.code for story in HEALTHY)


def main() -> None:
    """Serve the scenario of that number."""
    asyncio.run(_serve(SCENARIOS[int(sys.argv[1])], Path(sys.argv[2])))


async def _serve(scenario: Scenario, path: Path) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    fleet = fleet_for(scenario)
    write_triples(path, fleet, scenario)
    plan = FaultPlan(rate_limits_refused=not scenario.readable)
    known = Credentials(client_id=CLIENT_ID, client_secret=CLIENT_SECRET, access_token=TOKEN)
    server = serve(fleet, faults=plan, buckets=_rules(scenario), credentials=known)
    async with server as simulator:
        _print(f"listening on {simulator.base_url}")
        await stopped.wait()
    statuses: Counter[int] = Counter()
    for (group_id, status), count in simulator.requests.items():
        if group_id != NOBODY:
            statuses[status] += count
    _print(json.dumps(statuses))


def fleet_for(scenario: Scenario) -> Fleet:
    """Make a fleet large enough for a scenario."""
    checkpoints = _PLENTY * max(scenario.sizes) // _CLUSTERS
    # One project more: the first one of a fleet may have a cluster without a healthy one.
    return Fleet.seeded(
        projects=len(scenario.sizes) + 1, clusters=_CLUSTERS, checkpoints=checkpoints
    )


def _rules(scenario: Scenario) -> BucketRules:
    return BucketRules(
        capacity=scenario.capacity,
        refill_rate=scenario.refill_rate,
        refill_duration=REFILL_DURATION_S,
        shape=scenario.shape,
        drain=scenario.drain,
    )


def write_triples(path: Path, fleet: Fleet, scenario: Scenario) -> None:
    """Write the first healthy triples of each project, as many as its size says."""
    chosen = sorted(
        (triple.group_id, triple.cluster_name, triple.checkpoint_id)
        for project, size in zip(fleet.projects[1:], scenario.sizes, strict=True)
        for triple in islice(_healthy(fleet, project), size)
    )
    if len(chosen) != sum(scenario.sizes):
        raise ValueError(f"the fleet has {len(chosen)} triples of {sum(scenario.sizes)}")
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *chosen])


def _healthy(fleet: Fleet, project: Project) -> Iterator[Triple]:
    for cluster in project.clusters:
        for place in range(cluster.count):
            triple = fleet.triple(cluster.first + place)
            if triple.story in _HEALTHY:
                yield triple


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
