"""Rules about the parts: a sharded cluster is every shard and one part of the config servers."""

from collections import Counter
from collections.abc import Iterator

from pipeline.checkpoints import TYPE_NAMES, Checkpoint, Part
from pipeline.rules.listed import Listed
from pipeline.rules.rule import MANUAL, PAGE, Objection, Objections, listing, rule

_EVERY_SHARD = f"{MANUAL}: a checkpoint is of every shard and of the config servers"


@rule("no-parts", "it has no part that holds data", "parts", "parts[].typeName", source=PAGE)
def no_parts(listed: Listed) -> Objections:
    """A checkpoint of nothing, or of the config servers alone."""
    wanted = "one for each shard and the config servers"
    for (place, checkpoint), count in zip(listed.checkpoints, listed.config_counts, strict=True):
        if len(checkpoint.parts) == count:
            message = "it has no part that holds data" if count else _NONE_READ
            yield Objection(place, message, f"{count} config parts" if count else "0 parts", wanted)


_NONE_READ = "it has no parts that can be read"


@rule(
    "no-config-part",
    "several shards have no part of the config servers",
    "parts[].typeName",
    source=_EVERY_SHARD,
)
def no_config_part(listed: Listed) -> Objections:
    """Several shards without their config servers are no cluster: nothing says where data lies."""
    for (place, checkpoint), count in zip(listed.checkpoints, listed.config_counts, strict=True):
        shards = len(checkpoint.parts)
        if not count and shards > 1:
            message = f"{shards} shards have no part of the config servers"
            yield Objection(place, message, "0 config parts", "1 config part")


@rule(
    "shard-missing",
    "a shard is not there that checkpoints before and after it have",
    "id",
    "parts[].shardName",
    "parts[].replicaSetName",
    "parts[].typeName",
    source=_EVERY_SHARD,
)
def shard_missing(listed: Listed) -> Objections:
    """A shard that an earlier checkpoint of the cluster has and a later one, and this one has not.

    The newest has no later one: it lacks what the one just before it has. Of shards that were added
    or removed nothing is concluded, so the oldest lacks nothing. What has a part without a name is
    not judged, and neither is what has no part that holds data.
    """
    sets = [shards for _, shards in listed.shards]
    if len(set(sets)) < 2:  # noqa: PLR2004 - two that differ
        return
    for index, count, names in _absences(sets):
        yield Objection(
            listed.shards[index][0],
            f"shards of the checkpoints around it are not there: {listing(names, count)}",
            f"{len(sets[index])} shards",
            f"{len(sets[index]) + count} shards",
        )


def _absences(sets: list[frozenset[str]]) -> Iterator[tuple[int, int, Iterator[str]]]:
    """Which of the sets, oldest first, lack how many shards, and their names.

    One pass with the shards that were there and will be again, for their number may be large.
    """
    last = {shard: index for index, shards in enumerate(sets) for shard in shards}
    last |= dict.fromkeys(sets[-2], len(sets))  # which the newest should have too
    expected: dict[str, None] = {}
    for index, shards in enumerate(sets):
        count = len(expected) - sum(shard in expected for shard in shards)
        if count:
            yield index, count, (one for one in expected if one not in shards)
        for shard in [one for one in shards if last[one] == index]:
            expected.pop(shard, None)
        new = [one for one in shards if last[one] > index and one not in expected]
        expected |= dict.fromkeys(sorted(new))


@rule(
    "duplicate-part",
    "a shard, a replica set or the config servers are there twice",
    "parts[].shardName",
    "parts[].replicaSetName",
    "parts[].typeName",
    source=f"{PAGE}: a part is one shard, the config servers, or the one replica set",
)
def duplicate_part(listed: Listed) -> Objections:
    """Which of the two a restore would take, nothing says."""
    for (place, checkpoint), configs in zip(listed.checkpoints, listed.config_counts, strict=True):
        if configs < 2 and _differ(checkpoint):  # noqa: PLR2004 - one is what there should be
            continue
        twice = [name for name, count in _named(checkpoint).items() if count > 1]
        if configs > 1:
            twice.append(f"{configs} config parts")
        if twice:
            message = f"parts are there more than once: {listing(twice, len(twice))}"
            yield Objection(place, message, f"{len(checkpoint.parts)} parts", "each part once")


def _differ(checkpoint: Checkpoint) -> bool:
    """Whether no two parts share a name or its absence: as a rule, and quick to see."""
    parts = checkpoint.parts
    return len({one.replica_set_name for one in parts}) == len(parts) and len(
        {one.shard_name for one in parts}
    ) == len(parts)


def _named(checkpoint: Checkpoint) -> Counter[str]:
    """How often each name is a shard's, or a replica set's, whichever is more."""
    parts = checkpoint.parts
    shards = Counter(one.shard_name for one in parts if one.shard_name)
    return shards | Counter(one.replica_set_name for one in parts if one.replica_set_name)


@rule(
    "unknown-part",
    "a part is of a kind that nobody documents, or of none that can be told",
    "parts[].typeName",
    "parts[].replicaSetName",
    source=f"{PAGE}: the values of typeName",
)
def unknown_part(listed: Listed) -> Objections:
    """A kind that Atlas has added since, or a part that names neither its kind nor its set."""
    for (place, checkpoint), every in zip(listed.checkpoints, listed.kinds, strict=True):
        if TYPE_NAMES.issuperset(every):
            continue
        kinds = [kind for part in checkpoint.parts if (kind := _strange_kind(part))]
        if kinds:
            message = f"{len(kinds)} of {len(checkpoint.parts)} parts are of no documented kind"
            yield Objection(place, message, listing(kinds, len(kinds)), _KINDS)


_KINDS = ", ".join(sorted(TYPE_NAMES))


def _strange_kind(part: Part) -> str | None:
    """Name what kind a part is where nobody documents it; None where it is known or can be."""
    if not part.type_name:
        return None if part.replica_set_name else "neither typeName nor replicaSetName"
    return None if part.type_name in TYPE_NAMES else part.type_name


RULES = (no_parts, no_config_part, shard_missing, duplicate_part, unknown_part)
