"""The seeded fleet: projects, clusters and checkpoints that exist nowhere else.

A fleet holds its projects and clusters; checkpoints are made when asked for, from the seed and
their place, so that a fleet of a million costs no more memory than its clusters do.

The checkpoint at place `i` of a cluster was started `i` intervals before the newest, up to
`JITTER_S` seconds early. An id's first four bytes are that time, which leads from the id back to
the place without an index.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from pipeline.simulator.chance import draw, hex_text, object_id, shuffled
from pipeline.simulator.instants import text_of
from pipeline.simulator.stories import (
    CYCLE,
    HEALTHY,
    NOT_RESTORABLE,
    STORIES,
    Body,
    Story,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

AS_OF = datetime(2026, 11, 20, 3, tzinfo=UTC)
COLUMNS = (
    "project_id",
    "cluster_name",
    "checkpoint_id",
    "owner",
    "expected_verdict",
    "expected_findings",
)

JITTER_S = 60
INTERVALS_S = (900, 1800, 3600)
"""How often Atlas makes checkpoints: every 15, 30 or 60 minutes."""

TROUBLE_EVERY = 10
"""One checkpoint in so many has a story that is not plainly healthy."""

BARREN_FROM = 12
"""From so many clusters on, a fleet has one that cannot be restored to any point."""

SHARDS = (0, 0, 1, 2, 2, 3, 3, 4, 6, 12)
"""Numbers of shards to draw a cluster's from; 0 is a replica set."""

WORDS = (
    "orders", "billing", "ledger", "search", "profiles", "inventory",
    "payments", "events", "catalog", "sessions", "claims", "telemetry",
)  # fmt: skip
STAGES = ("prod", "eu", "staging", "archive")
OWNERS = ("team-payments", "team-commerce", "data-platform", "team-search", "sre-core", "risk")

GHOSTS = {
    "backups-not-enabled": "scratch",
    "backup-config-not-found": "restored",
    "cluster-not-found": "retired",
}
"""Stories that are about the cluster, and the name under which each project has such a cluster."""


@dataclass(frozen=True, slots=True)
class Triple:
    """One line of an input: which checkpoint, and what a sound audit will say about it.

    `expected_findings` are rules over the checkpoint, by their ids.
    """

    group_id: str
    cluster_name: str
    checkpoint_id: str
    expected_verdict: Verdict
    story: str
    owner: str
    expected_findings: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster.

    `shards` is 0 for a replica set. `newest` is the Unix time of the newest checkpoint before
    jitter, `first` the place of that checkpoint among all of the fleet. A cluster with a `ghost`
    story has no backups and answers everything about them with that story's error.
    """

    group_id: str
    name: str
    cluster_id: str
    shards: int
    interval_s: int
    newest: int
    first: int
    count: int
    barren: bool = False
    ghost: Story | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """One project: its clusters, those without backups, and who owns it."""

    group_id: str
    name: str
    owner: str
    ghost_id: str
    clusters: tuple[Cluster, ...]
    idle: tuple[Cluster, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint that somebody may ask for, there or not."""

    cluster: Cluster
    place: int
    checkpoint_id: str
    started: int
    story: Story


class Expecting(Protocol):
    """Whatever knows better than the fleet what will come of a triple: a plan of faults."""

    def expected(self, triple: Triple) -> str:
        """Return the verdict to expect."""
        ...


@dataclass(frozen=True)
class Fleet:
    """An organization's projects, all drawn from one seed."""

    seed: int
    projects: tuple[Project, ...]
    _projects: dict[str, Project] = field(repr=False, compare=False)
    _clusters: dict[tuple[str, str], Cluster] = field(repr=False, compare=False)

    @classmethod
    def seeded(
        cls,
        seed: int = 7,
        projects: int = 6,
        clusters: int = 3,
        checkpoints: int = 12,
        *,
        as_of: datetime = AS_OF,
    ) -> Fleet:
        """Make a fleet of `projects` by `clusters` by `checkpoints` triples.

        The same arguments make the same fleet everywhere. `as_of` is the moment just after the
        newest checkpoint. Raises ValueError for sizes below one.
        """
        if min(projects, clusters, checkpoints) < 1:
            raise ValueError("a fleet needs at least one project, one cluster and one checkpoint")
        builder = _Builder(seed, clusters, checkpoints, int(as_of.timestamp()))
        barren = clusters - 1 if projects * clusters >= BARREN_FROM else None
        made = tuple(builder.project(p, barren if p == 0 else None) for p in range(projects))
        return cls(seed, made, {one.group_id: one for one in made}, _index(made))

    @classmethod
    def demo(cls) -> Fleet:
        """Make the fleet of the demo and of `inputs/sample.csv`: five projects, 1,500 triples."""
        return cls.seeded(seed=7, projects=5, clusters=5, checkpoints=60)

    def __len__(self) -> int:
        """Return the number of triples."""
        newest = self.projects[-1].clusters[-1]
        return newest.first + newest.count

    def project(self, group_id: str) -> Project | None:
        """Return a project, or None when there is none of that id."""
        return self._projects.get(group_id)

    def cluster(self, group_id: str, name: str) -> Cluster | None:
        """Return a cluster, with or without backups, or None."""
        return self._clusters.get((group_id, name))

    def checkpoint(self, cluster: Cluster, checkpoint_id: str) -> Checkpoint | None:
        """Return the checkpoint of that id, or None when no triple names it.

        One that is told by an error (an absent one) is returned too: its story says which error.
        """
        started = int(checkpoint_id[:8], 16)
        place = (cluster.newest - started) // cluster.interval_s
        if not 0 <= place < cluster.count:
            return None
        found = self.at(cluster, place)
        return found if found.checkpoint_id == checkpoint_id else None

    def at(self, cluster: Cluster, place: int) -> Checkpoint:
        """Return the checkpoint at a place of its cluster; 0 is the newest."""
        key = cluster.first + place
        jitter = draw(JITTER_S, self.seed, "jitter", key)
        started = cluster.newest - place * cluster.interval_s - jitter
        made_id = object_id(started, self.seed, "checkpoint", key)
        return Checkpoint(cluster, place, made_id, started, self._story(cluster, key))

    def listed(self, cluster: Cluster) -> list[int]:
        """Return the places whose checkpoints the list endpoint knows, newest first."""
        return [i for i in range(cluster.count) if self._story(cluster, cluster.first + i).listed]

    def body(self, checkpoint: Checkpoint) -> Body:
        """Return what Atlas answers for a listed checkpoint, without links."""
        body = self._healthy_body(checkpoint)
        if checkpoint.story.plant is not None:
            checkpoint.story.plant(body)
        return body

    def triple(self, number: int) -> Triple:
        """Return one triple by its place among all of the fleet."""
        per_project = len(self) // len(self.projects)
        project = self.projects[number // per_project]
        cluster = project.clusters[number % per_project // project.clusters[0].count]
        return self._triple(project, cluster, number - cluster.first)

    def beside(self, triple: Triple) -> list[Triple]:
        """Return the triples of its cluster just before and after one, of those there are."""
        cluster = self._clusters[triple.group_id, triple.cluster_name]
        found = self.checkpoint(cluster, triple.checkpoint_id)
        places = () if found is None else (found.place - 1, found.place + 1)
        return [self.triple(cluster.first + one) for one in places if 0 <= one < cluster.count]

    def triples(self) -> Iterator[Triple]:
        """Go through every triple, project by project, cluster by cluster, newest first."""
        for project in self.projects:
            for cluster in project.clusters:
                for place in range(cluster.count):
                    yield self._triple(project, cluster, place)

    def write_triples(self, file: TextIO, plan: Expecting | None = None) -> int:
        """Write every triple as CSV under `COLUMNS` and return their number.

        With a plan of faults, its expectations are written instead of the fleet's own.
        """
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for triple in self.triples():
            verdict = triple.expected_verdict if plan is None else plan.expected(triple)
            writer.writerow(cells(triple, verdict))
        return len(self)

    def _triple(self, project: Project, cluster: Cluster, place: int) -> Triple:
        checkpoint = self.at(cluster, place)
        story = checkpoint.story
        strange = story.code == "project-not-found"
        return Triple(
            group_id=project.ghost_id if strange else project.group_id,
            cluster_name=GHOSTS.get(story.code, cluster.name),
            checkpoint_id=checkpoint.checkpoint_id,
            expected_verdict=story.verdict,
            story=story.code,
            owner=project.owner,
            expected_findings=story.findings,
        )

    def _story(self, cluster: Cluster, key: int) -> Story:
        """Choose the story of the checkpoint at place `key` of the fleet.

        Troubles are dealt like cards, one to each run of `TROUBLE_EVERY`, so that a fleet that is
        large enough has every one of them.
        """
        if cluster.barren:
            return NOT_RESTORABLE
        if self._is_healthy(key):
            return HEALTHY[cluster.shards > 0]
        dealt, card = divmod(key // TROUBLE_EVERY, len(CYCLE))
        story = _deal(self.seed, dealt)[card]
        return story if self._fits(story, cluster, key) else NOT_RESTORABLE

    def _is_healthy(self, key: int) -> bool:
        """Whether the checkpoint at a place of the fleet is dealt no trouble."""
        block, place = divmod(key, TROUBLE_EVERY)
        return place != draw(TROUBLE_EVERY, self.seed, "trouble", block)

    def _fits(self, story: Story, cluster: Cluster, key: int) -> bool:
        """Whether a story makes sense at place `key` of the fleet, which lies in the cluster."""
        if story.min_shards > cluster.shards or story.min_checkpoints > cluster.count:
            return False
        return not story.beside_healthy or self._lies_between(cluster, key)

    def _lies_between(self, cluster: Cluster, key: int) -> bool:
        """Whether the checkpoint is not the oldest, and those just before and after are healthy."""
        is_newest, is_oldest = key == cluster.first, key == cluster.first + cluster.count - 1
        return (
            not is_oldest and self._is_healthy(key + 1) and (is_newest or self._is_healthy(key - 1))
        )

    def _healthy_body(self, checkpoint: Checkpoint) -> Body:
        cluster, key = checkpoint.cluster, checkpoint.cluster.first + checkpoint.place
        started = text_of(checkpoint.started)
        lead = draw(66, self.seed, "lead", key)
        return {
            "clusterId": cluster.cluster_id,
            "completed": started,
            "groupId": cluster.group_id,
            "id": checkpoint.checkpoint_id,
            "parts": list(shuffled(self._parts(cluster, started, key), self.seed, "order", key)),
            "restorable": True,
            "started": started,
            "timestamp": text_of(checkpoint.started - lead),
        }

    def _parts(self, cluster: Cluster, date: str, key: int) -> tuple[Body, ...]:
        stem = f"atlas-{cluster.cluster_id[-6:]}"

        def part(type_name: str, replica_set_name: str) -> Body:
            increment = (1, 2, 4, 6)[draw(4, self.seed, "increment", key, replica_set_name)]
            return {
                "replicaSetName": replica_set_name,
                "tokenDiscovered": True,
                "tokenTimestamp": {"date": date, "increment": increment},
                "typeName": type_name,
            }

        if not cluster.shards:
            return (part("REPLICA_SET", f"{stem}-shard-0"),)
        shards = [part("REPLICA_SET", f"{stem}-shard-{n}") for n in range(cluster.shards)]
        for shard in shards:
            shard["shardName"] = shard["replicaSetName"]
        return (*shards, part("CONFIG_SERVER_REPLICA_SET", f"{stem}-config-0"))


@dataclass(frozen=True, slots=True)
class _Builder:
    """Draws projects and clusters of one size."""

    seed: int
    clusters: int
    checkpoints: int
    as_of: int

    def project(self, number: int, barren: int | None) -> Project:
        """Draw a project; `barren` is the number of its cluster without a restorable point."""
        made = self.as_of - 86_400 * (3000 + draw(1000, self.seed, "project", number))
        group_id = object_id(made, self.seed, "project", number)
        first = number * self.clusters
        return Project(
            group_id=group_id,
            name=f"{WORDS[number % len(WORDS)]}-{number:03d}",
            owner=OWNERS[number % len(OWNERS)],
            ghost_id=object_id(made, self.seed, "ghost", number),
            clusters=tuple(
                self._cluster(group_id, first, place, barren=place == barren)
                for place in range(self.clusters)
            ),
            idle=tuple(
                self._idle(group_id, code, name, made)
                for code, name in GHOSTS.items()
                if code != "cluster-not-found"
            ),
        )

    def _cluster(self, group_id: str, first: int, place: int, *, barren: bool) -> Cluster:
        number = first + place
        interval = INTERVALS_S[draw(3, self.seed, "interval", number)]
        age = draw(interval - JITTER_S, self.seed, "age", number)
        return Cluster(
            group_id=group_id,
            name=_cluster_name(place, draw(len(WORDS), self.seed, "word", group_id)),
            cluster_id=object_id(int(group_id[:8], 16) + 60, self.seed, "cluster", number),
            shards=SHARDS[draw(len(SHARDS), self.seed, "shards", number)],
            interval_s=interval,
            newest=self.as_of - age,
            first=number * self.checkpoints,
            count=self.checkpoints,
            barren=barren,
        )

    def _idle(self, group_id: str, code: str, name: str, made: int) -> Cluster:
        made_id = f"{made + 60:08x}{hex_text(16, self.seed, code, group_id)}"
        story = STORIES[code]
        return Cluster(group_id, name, made_id, 0, 3600, self.as_of, 0, 0, ghost=story)


def cells(triple: Triple, verdict: str) -> tuple[str, ...]:
    """Return a triple's CSV cells in the order of `COLUMNS`.

    Where the verdict is another than the fleet's own, nothing is learned, and no finding expected.
    """
    findings = triple.expected_findings if verdict == triple.expected_verdict else ()
    names = (triple.group_id, triple.cluster_name, triple.checkpoint_id, triple.owner)
    return (*names, verdict, ";".join(sorted(findings)))


def _cluster_name(place: int, shift: int) -> str:
    """Name a cluster; every third name holds an underscore, as real ones may."""
    round_, word = divmod(place, len(WORDS))
    joint = "_" if place % 3 == 1 else "-"
    name = f"{WORDS[(word + shift) % len(WORDS)]}{joint}{STAGES[round_ % len(STAGES)]}"
    return name if round_ < len(STAGES) else f"{name}{joint}{round_}"


def _index(projects: tuple[Project, ...]) -> dict[tuple[str, str], Cluster]:
    return {
        (cluster.group_id, cluster.name): cluster
        for project in projects
        for cluster in (*project.clusters, *project.idle)
    }


@lru_cache(maxsize=64)
def _deal(seed: int, dealt: int) -> tuple[Story, ...]:
    return shuffled(CYCLE, seed, "deal", dealt)
