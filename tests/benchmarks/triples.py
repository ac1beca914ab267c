"""Triples for the benchmarks: as many as wanted, the same every time, none kept in memory.

Project, cluster and checkpoint can be told from a triple again, so that a server can list a cluster
without knowing the file. Projects and clusters stay within Atlas's bounds (250 projects an
organization, 25 clusters a project) up to a million triples.
"""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

CHECKPOINTS_A_CLUSTER = 200
CLUSTERS_A_PROJECT = 20

COLUMNS = ("project_id", "cluster_name", "checkpoint_id")

_FIRST_PROJECT = 0x5F000000
_NEWEST = int(datetime(2026, 11, 20, 3, tzinfo=UTC).timestamp())
_INTERVAL_S = 3600


def group_id(project: int) -> str:
    """Give the id of the project of that number, from 0."""
    return f"{_FIRST_PROJECT + project:08x}{_digits('project', project)}"


def cluster_name(cluster: int) -> str:
    """Give the name of a project's cluster of that number, from 0."""
    return f"cluster-{cluster:02d}"


def checkpoint_ids(project: int, cluster: int) -> Iterator[str]:
    """Give the ids of a cluster's checkpoints, newest first; each begins with its own time."""
    first = (project * CLUSTERS_A_PROJECT + cluster) * CHECKPOINTS_A_CLUSTER
    for place in range(CHECKPOINTS_A_CLUSTER):
        started = _NEWEST - place * _INTERVAL_S
        yield f"{started:08x}{_digits('checkpoint', first + place)}"


def checkpoint_ids_of(group_id: str, cluster_name: str) -> Iterator[str]:
    """Give the same by the names that stand in a path."""
    project = int(group_id[:8], 16) - _FIRST_PROJECT
    return checkpoint_ids(project, int(cluster_name.rpartition("-")[2]))


def triples(count: int) -> Iterator[tuple[str, str, str]]:
    """Give the first `count` triples, project by project, cluster by cluster."""
    clusters = -(-count // CHECKPOINTS_A_CLUSTER)
    for number in range(clusters):
        project, cluster = divmod(number, CLUSTERS_A_PROJECT)
        left = count - number * CHECKPOINTS_A_CLUSTER
        place = group_id(project), cluster_name(cluster)
        for _, checkpoint_id in zip(range(left), checkpoint_ids(project, cluster), strict=False):
            yield *place, checkpoint_id


def write_triples(path: Path, count: int) -> Path:
    """Write the first `count` triples as CSV; gives the path."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(triples(count))
    return path


def zipf_sizes(projects: int, total: int) -> list[int]:
    """Share `total` triples among projects, the n-th getting 1/n of the first's, largest first.

    What rounding leaves over goes to the first ones, so that the sum is exact.
    """
    harmonic = sum(1 / rank for rank in range(1, projects + 1))
    sizes = [int(total / harmonic / rank) for rank in range(1, projects + 1)]
    for rank in range(total - sum(sizes)):
        sizes[rank] += 1
    return sizes


def _digits(kind: str, number: int) -> str:
    """Sixteen hexadecimal digits that compress as badly as those of real ids do."""
    return blake2b(f"{kind}/{number}".encode(), digest_size=8).hexdigest()
