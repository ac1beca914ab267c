"""The population: whether there are as many triples as there should be, and as new as they should.

A list that a broken export cut short would otherwise pass as a whole night: all of its few triples
are fine. Pure; what is known of the input and of earlier runs is given.
"""

from datetime import datetime, timedelta

import msgspec


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What whoever starts a run says about its input; None where nothing is said.

    `accept_drop`: that there are so many fewer triples than before is as it should be.
    """

    min_triples: int | None = None
    max_age: timedelta | None = None
    accept_drop: bool = False


class Population(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run's triples.

    `changed_at` is when the input was last changed (None: not known, as of standard input),
    `began_at` when the run began. `before` are the triples of `before_run`: the last complete run,
    or, not `was_complete`, the last one at all.
    """

    triples: int
    began_at: datetime
    changed_at: datetime | None = None
    before: int | None = None
    before_run: str = ""
    was_complete: bool = True


class BeyondCluster(msgspec.Struct, frozen=True):
    """A cluster with checkpoints that Atlas lists and the input does not name.

    `newest` is the largest of their ids, which begin with their time. `is_asked`: the input names
    some checkpoint of the cluster.
    """

    group_id: str
    cluster_name: str
    count: int
    newest: str
    is_asked: bool


class Beyond(msgspec.Struct, frozen=True, kw_only=True):
    """What `discover` had listed beyond the input.

    `source` and `sha256` are of the file it wrote, `listed_count` its checkpoints, and
    `bad_line_count` its lines that are none: places that could not be listed. `clusters` are the
    first few of `cluster_count`, those first of which the input names nothing.
    """

    source: str
    sha256: str
    listed_count: int
    bad_line_count: int
    count: int
    cluster_count: int
    clusters: tuple[BeyondCluster, ...]

    def __str__(self) -> str:
        listed = f"{self.source} lists {self.listed_count:,} checkpoints"
        unlisted = f"; {self.bad_line_count:,} of its lines are places that could not be listed"
        more = unlisted if self.bad_line_count else ""
        if not self.listed_count:
            return f"{self.source} lists nothing: no line of it names a checkpoint{more}."
        if not self.count:
            return f"{listed}, all of them in the input{more}."
        clusters = "1 cluster" if self.cluster_count == 1 else f"{self.cluster_count:,} clusters"
        return f"{listed}, {self.count:,} of them, of {clusters}, beyond the input{more}."


def shortfalls(population: Population, expected: Expected, allowed_drop: float) -> tuple[str, ...]:
    """Say in sentences why the population cannot be taken for whole; none where it can.

    `allowed_drop` is the share of the triples of that earlier run that may be gone.
    """
    said = (
        _too_few(population, expected),
        "" if expected.accept_drop else _dropped(population, allowed_drop),
        _too_old(population, expected),
    )
    return tuple(filter(None, said))


def _too_few(population: Population, expected: Expected) -> str:
    if expected.min_triples is None or population.triples >= expected.min_triples:
        return ""
    return (
        f"{_triples(population.triples)} in the input, {expected.min_triples:,} at least expected."
    )


def _dropped(population: Population, allowed_drop: float) -> str:
    before = population.before
    if before is None or before - population.triples <= allowed_drop * before:
        return ""
    compared = "the last complete run" if population.was_complete else "the run before"
    return (
        f"The population shrank: {_triples(population.triples)}, {before:,} in {compared} "
        f"{population.before_run}; a drop of more than {allowed_drop:.0%} needs --accept-drop."
    )


def _too_old(population: Population, expected: Expected) -> str:
    if expected.max_age is None or population.changed_at is None:
        return ""
    age = population.began_at - population.changed_at
    if age <= expected.max_age:
        return ""
    return (
        f"The input was last changed {population.changed_at:%Y-%m-%d %H:%M} UTC, "
        f"{_hours(age)} before the run began; {_hours(expected.max_age)} are allowed."
    )


def _triples(count: int) -> str:
    return f"{count:,} triple" if count == 1 else f"{count:,} triples"


def _hours(age: timedelta) -> str:
    return f"{age / timedelta(hours=1):,.1f} hours"
