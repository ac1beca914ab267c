"""The rules: each small and pure, with its own id, and the attributes of the API that it reads.

A rule over a checkpoint takes it and gives what it objects to, or None; one over a cluster takes
all its answers with their verdicts.

What a checkpoint is good for (MongoDB's documentation of legacy backups): Atlas stops the balancer
of a sharded cluster and writes a token into the oplog of every shard and of the config servers; a
restore replays each oplog up to its token. A part without a token, or a shard set without its
config part, is no consistent cut.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice

import msgspec

from pipeline.checkpoints import Checkpoint
from pipeline.outcomes import Verdict

#: Changes with every change of judgement.
RULES_VERSION = "2"


class Objection(msgspec.Struct, frozen=True):
    """What a rule objects to: a sentence, what it saw, what it wanted to see."""

    message: str
    observed: str
    expected: str


# --- rules over a checkpoint --------------------------------------------------------------------


def restorable_false(checkpoint: Checkpoint) -> Objection | None:
    """`restorable`: Atlas itself says that it cannot restore from this checkpoint."""
    if checkpoint.restorable is False:
        return Objection("Atlas reports it as not restorable", "restorable: false", "true")
    return None


def restorable_not_reported(checkpoint: Checkpoint) -> Objection | None:
    """`restorable`: Atlas does not say, so nobody can rely on it."""
    if checkpoint.restorable is None:
        message = "Atlas reports neither true nor false for restorable"
        return Objection(message, "restorable: neither true nor false", "true")
    return None


def token_not_discovered(checkpoint: Checkpoint) -> Objection | None:
    """`parts[].tokenDiscovered`: a part whose token was not seen cannot be replayed to it."""
    count = checkpoint.undiscovered_token_count
    if not count:
        return None
    silent = sum(part.token_discovered is None for part in checkpoint.parts)
    names = (
        part.shard_name or part.replica_set_name or f"part {index}"
        for index, part in enumerate(checkpoint.parts)
        if part.token_discovered is not True
    )
    return Objection(
        f"{count} of {len(checkpoint.parts)} parts lack a discovered token: {_listed(names)}",
        f"tokenDiscovered: {count - silent} false, {silent} not reported",
        "true in every part",
    )


def _listed(names: Iterable[str]) -> str:
    """The first few names; how many there are, and how long, is up to the answer."""
    names = iter(names)
    shown = [name[:_NAME_CHARS] for name in islice(names, _SHOWN_NAMES)]
    left_out = sum(1 for _ in names)
    return ", ".join(shown) + (f" and {left_out} more" if left_out else "")


_SHOWN_NAMES = 10
_NAME_CHARS = 100


def no_parts(checkpoint: Checkpoint) -> Objection | None:
    """`parts`: a checkpoint of nothing, or of the config servers alone."""
    config_parts = checkpoint.config_part_count
    if len(checkpoint.parts) > config_parts:
        return None
    wanted = "one for each shard and the config servers"
    if config_parts:
        return Objection("it has no part that holds data", f"{config_parts} config parts", wanted)
    return Objection("it has no parts that can be read", "0 parts", wanted)


def no_config_part(checkpoint: Checkpoint) -> Objection | None:
    """`parts[].typeName`: several shards without their config servers are no cluster."""
    shards = len(checkpoint.parts)
    if shards < 2 or checkpoint.config_part_count:  # noqa: PLR2004 - several means two
        return None
    return Objection(
        f"{shards} shards have no part of the config servers", "0 config parts", "1 config part"
    )


def completed_missing(checkpoint: Checkpoint) -> Objection | None:
    """`completed`: the balancer was not restarted, as far as Atlas says."""
    if checkpoint.completed is not None:
        return None
    message = "no time of its completion is reported that can be read"
    return Objection(message, "completed: no time", "a time")


def completed_before_started(checkpoint: Checkpoint) -> Objection | None:
    """`started`, `completed`: equal is normal, before is not."""
    started, completed = checkpoint.started, checkpoint.completed
    if started is None or completed is None or completed >= started:
        return None
    return Objection(
        "it completed before it started",
        f"completed {completed.isoformat()}",
        f"not before {started.isoformat()}",
    )


#: Rule id → rule. All of them lead to FAIL.
CHECKPOINT_RULES: dict[str, Callable[[Checkpoint], Objection | None]] = {
    "restorable-false": restorable_false,
    "restorable-not-reported": restorable_not_reported,
    "token-not-discovered": token_not_discovered,
    "no-parts": no_parts,
    "no-config-part": no_config_part,
    "completed-missing": completed_missing,
    "completed-before-started": completed_before_started,
}


# --- rules over a cluster -----------------------------------------------------------------------


def no_restorable_checkpoint(verdicts: Counter[Verdict]) -> Objection | None:
    """None of the listed checkpoints can be relied on: there is nothing to restore from.

    Not judged while one is inconclusive: it may be the one.
    """
    if verdicts[Verdict.PASS] or verdicts[Verdict.INCONCLUSIVE]:
        return None
    return Objection(
        "none of the cluster's listed checkpoints is restorable",
        f"0 of {verdicts.total()} restorable",
        "at least 1",
    )


#: Rule id → rule. All of them make the cluster fail.
CLUSTER_RULES: dict[str, Callable[[Counter[Verdict]], Objection | None]] = {
    "no-restorable-checkpoint": no_restorable_checkpoint,
}

RULE_IDS = (*CHECKPOINT_RULES, *CLUSTER_RULES)
