"""The demo's input: some forty lines that show what an input can hold and a report can say.

The fleet's last two projects are left to the plan of faults of the demo: the last but one refuses,
the last is throttled for an hour, so what is asked of them stays inconclusive.
"""

from __future__ import annotations

import csv
import io
from itertools import islice
from typing import TYPE_CHECKING

from pipeline.simulator.chance import shuffled
from pipeline.simulator.fleet import COLUMNS, Fleet, Triple, cells
from pipeline.simulator.stories import STORIES

if TYPE_CHECKING:
    from collections.abc import Iterator

CAST = (
    ("healthy-sharded", 7),
    ("healthy-replica-set", 4),
    ("old-config-server", 1),
    ("unknown-fields", 1),
    ("unknown-type-name", 1),
    ("duplicated-part", 1),
    ("missing-shard", 1),
    ("wide-token-spread", 1),
    ("far-restore-point", 1),
    ("future-clock", 1),
    ("not-restorable", 2),
    ("contradiction", 1),
    ("token-undiscovered", 1),
    ("no-config-part", 1),
    ("completed-before-started", 1),
    ("absent", 3),
    ("backups-not-enabled", 1),
    ("cluster-not-found", 1),
    ("other-checkpoint", 1),
)
"""How many triples of which story to show, from the projects that are not in trouble.

Without those that are known only beside many others of their cluster, of which the sample has few;
a missing shard brings its two neighbours along.
"""

TROUBLED = 2
"""How many projects at the end of the fleet the demo's faults take."""

ASKED_OF_TROUBLED = 2

LOOKED_THROUGH = 10_000
"""How many triples of a fleet the sample is chosen from, at most."""


def sample_csv(fleet: Fleet) -> str:
    """Return the sample of a fleet as CSV text, header included.

    Bad lines (an id too short, an impossible cluster name, a column left off) expect no verdict;
    a duplicate, in whatever spelling, expects what the line before it does. Stories that a small
    fleet does not have are passed over.
    """
    lines: list[tuple[str, ...]] = [COLUMNS, *_asked(fleet)]
    first, second, third = lines[1], lines[2], lines[3]
    lines.insert(6, (*first[:2], first[2][:20], first[3], "", ""))
    lines.insert(11, first)
    lines.insert(16, (second[0], "orders prod!", *second[2:4], "", ""))
    lines.insert(21, ())
    lines.insert(26, (third[0], f" {third[1]} ", third[2].upper(), *third[3:]))
    lines.append((first[0], first[1]))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _asked(fleet: Fleet) -> list[tuple[str, ...]]:
    quiet = {one.group_id for one in fleet.projects[-TROUBLED:]}
    wanted = dict(CAST)
    chosen: list[Triple] = []
    # Shuffled, or else every healthy line would be of the first cluster.
    for triple in shuffled(tuple(islice(fleet.triples(), LOOKED_THROUGH)), fleet.seed, "sample"):
        if triple.group_id in quiet:
            continue
        if wanted.get(triple.story, 0):
            wanted[triple.story] -= 1
            chosen.append(triple)
    lonely = [triple for triple in chosen if STORIES[triple.story].beside_healthy]
    chosen += [one for triple in lonely for one in fleet.beside(triple) if one not in chosen]
    order = {code: place for place, (code, _) in enumerate(CAST)}
    chosen.sort(key=lambda triple: order[triple.story])
    return [cells(one, one.expected_verdict) for one in chosen] + [
        cells(one, "INCONCLUSIVE") for one in _of_troubled(fleet)
    ]


def _of_troubled(fleet: Fleet) -> Iterator[Triple]:
    for project in fleet.projects[-TROUBLED:]:
        first = project.clusters[0].first
        for place in range(ASKED_OF_TROUBLED):
            yield fleet.triple(first + place)
