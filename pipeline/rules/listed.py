"""What rules judge: the answers of one cluster, and what several rules want to know of them.

Everything here is computed once for a cluster, when a rule first wants it, and takes a time in
proportion to what the answers hold: a cluster may have 100,000 checkpoints.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import NamedTuple

from pipeline.checkpoints import CONFIG_TYPES, Checkpoint, Part
from pipeline.outcomes import Answer, Failure, FailureKind, moment
from pipeline.policy import Thresholds

#: How far clocks may be apart, Atlas's and ours, before a time counts as in the future.
CLOCK_TOLERANCE = timedelta(minutes=5)


class Tokens(NamedTuple):
    """When a checkpoint's first and last dated tokens were written."""

    place: int
    timestamp: datetime | None
    first: datetime
    last: datetime


class Listed:
    """The answers of one cluster under its thresholds.

    `checkpoints` are those that were found, each with its place among the answers.
    """

    def __init__(self, answers: Sequence[Answer], thresholds: Thresholds) -> None:
        self.answers = answers
        self.thresholds = thresholds
        self.checkpoints = [
            (place, answer.found)
            for place, answer in enumerate(answers)
            if isinstance(answer.found, Checkpoint)
        ]

    @cached_property
    def kinds(self) -> list[list[str | None]]:
        """The `typeName` of every part of each of `checkpoints`."""
        return [[part.type_name for part in found.parts] for _, found in self.checkpoints]

    @cached_property
    def config_counts(self) -> list[int]:
        """How many config parts each of `checkpoints` has."""
        old, new = CONFIG_TYPES
        return [kinds.count(old) + kinds.count(new) for kinds in self.kinds]

    @cached_property
    def run_times(self) -> list[tuple[int, timedelta]]:
        """From `started` to `completed`, by place, where both are stated; below zero, if so."""
        return [
            (place, completed - started)
            for place, checkpoint in self.checkpoints
            if (started := checkpoint.started) is not None
            and (completed := checkpoint.completed) is not None
        ]

    @cached_property
    def tokens(self) -> list[Tokens]:
        """The tokens of each checkpoint that has dated ones."""
        return [
            Tokens(place, checkpoint.timestamp, *_ends(dates))
            for place, checkpoint in self.checkpoints
            if (dates := token_dates(checkpoint))
        ]

    @cached_property
    def absent(self) -> list[int]:
        """Places of the checkpoints that Atlas, by its own code, does not have."""
        return [
            place
            for place, answer in enumerate(self.answers)
            if isinstance(answer.found, Failure)
            and answer.found.kind is FailureKind.CHECKPOINT_ABSENT
        ]

    @cached_property
    def shards(self) -> list[tuple[int, frozenset[str]]]:
        """Which shards the checkpoints have, by place, oldest first.

        One that is named by its replica set here or there has one name. Without checkpoints that
        have no shard, or one without a name, which may be any of them.
        """
        found = [
            (place, frozenset(filter(None, names)))
            for place, names in self._shard_names
            if names and all(names)
        ]
        if len({shards for _, shards in found}) < 2:  # noqa: PLR2004 - two that differ
            return found
        return [(place, self._renamed(shards)) for place, shards in found]

    @cached_property
    def nameless(self) -> list[int]:
        """Places of the checkpoints that have a shard without a name, oldest first."""
        return [place for place, names in self._shard_names if not all(names)]

    @cached_property
    def _shard_names(self) -> list[tuple[int, list[str | None]]]:
        """How the parts that hold data are named, by place, oldest first.

        Ordered by id, which begins with the time of the start: `started` would say the same, but
        may be missing or wrong.
        """
        return [
            (place, _shard_names(checkpoint))
            for place, checkpoint in sorted(self.checkpoints, key=self._id)
        ]

    def _renamed(self, shards: frozenset[str]) -> frozenset[str]:
        return frozenset(self._names_by_set.get(shard, shard) for shard in shards)

    @cached_property
    def _names_by_set(self) -> dict[str, str]:
        """The names of shards by their replica sets."""
        return {
            part.replica_set_name: part.shard_name
            for _, checkpoint in self.checkpoints
            for part in checkpoint.parts
            if part.replica_set_name and part.shard_name
        }

    def replied_at(self, place: int) -> datetime | None:
        """When an answer had arrived."""
        at = self.answers[place].fetched_at
        return None if at is None else moment(at)

    def _id(self, found: tuple[int, Checkpoint]) -> str:
        return self.answers[found[0]].ref.checkpoint_id


def shard_of(part: Part) -> str | None:
    """Name the shard of a part; as a rule the replica set has the same name."""
    return part.shard_name or part.replica_set_name


def _shard_names(checkpoint: Checkpoint) -> list[str | None]:
    """Name the parts that hold data, as `shard_of` does."""
    return [
        part.shard_name or part.replica_set_name
        for part in checkpoint.parts
        if part.type_name not in CONFIG_TYPES
    ]


def token_dates(checkpoint: Checkpoint) -> list[datetime]:
    """Give the dates of the tokens that have one."""
    return [
        token.date
        for part in checkpoint.parts
        if (token := part.token_timestamp) is not None and token.date is not None
    ]


def _ends(dates: list[datetime]) -> tuple[datetime, datetime]:
    if dates.count(dates[0]) == len(dates):  # as a rule, and cheaper
        return dates[0], dates[0]
    return min(dates), max(dates)
