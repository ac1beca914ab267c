"""The rule over a cluster's shards: what was backed up should go on being so."""

from itertools import pairwise

from pipeline.checkpoints import made_at
from pipeline.rules.rule import MANUAL, Objection, Objections, listing, rule
from pipeline.rules.standing import Standing


@rule(
    "shards-gone",
    "its newest checkpoints lack shards that older ones have",
    "id",
    "parts[].shardName",
    "parts[].replicaSetName",
    "parts[].typeName",
    source=f"{MANUAL}: a checkpoint is of every shard and of the config servers",
    scope="cluster",
)
def shards_gone(standing: Standing) -> Objections:
    """A shard was removed, or it is no longer backed up: which of the two, the API does not say.

    It is in an older checkpoint, and in none from some moment on. That is told as long as one is
    listed that has it, and from the first that has it no more, to which `shard-missing` objects as
    well as long as that is the newest. Not judged where the newest of all is inconclusive, or has a
    part without a name: it may have the shard. Such a one farther back leaves open only since when:
    told is the first that is known to lack it. One that has no part that holds data is passed over.
    """
    if not standing.shards or standing.shards[-1][1] is None:
        return
    known = [(made, shards) for made, shards in standing.shards if shards is not None]
    gone = _gone(known)
    if gone:
        first = min(gone.values())
        since = "since" if len(set(gone.values())) < 2 else "the first since"  # noqa: PLR2004 - one
        names = sorted(gone, key=lambda name: (gone[name], name))
        yield Objection(
            None,
            f"shards that older checkpoints have are gone, {since} {first} of "
            f"{made_at(first).isoformat()}: {listing(names, len(names))}",
            f"{len(known[-1][1])} shards",
            f"{len(known[-1][1]) + len(gone)} shards",
        )


def _gone(known: list[tuple[str, frozenset[str]]]) -> dict[str, str]:
    """Which shards the newest lacks, each with the first checkpoint after the last that has it."""
    newest = known[-1][1]
    since: dict[str, str] = {}
    for (_, shards), (later, _) in pairwise(known):
        since |= dict.fromkeys(shards - newest, later)
    return since


RULES = (shards_gone,)
