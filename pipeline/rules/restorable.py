"""Rules about whether Atlas can restore: `restorable`, and the token of every part."""

from collections.abc import Iterator

from pipeline.checkpoints import Checkpoint
from pipeline.rules.listed import Listed, shard_of
from pipeline.rules.rule import MANUAL, PAGE, Objection, Objections, listing, rule


@rule("restorable-false", "Atlas reports it as not restorable", "restorable", source=PAGE)
def restorable_false(listed: Listed) -> Objections:
    """Atlas itself says that it cannot restore from this checkpoint."""
    for place, checkpoint in listed.checkpoints:
        if checkpoint.restorable is False:
            message = "Atlas reports it as not restorable"
            yield Objection(place, message, "restorable: false", "true")


@rule(
    "restorable-not-reported",
    "Atlas does not say whether it is restorable",
    "restorable",
    source=f"{PAGE}: a field without a value is left out",
)
def restorable_not_reported(listed: Listed) -> Objections:
    """What Atlas does not say, nobody can rely on."""
    for place, checkpoint in listed.checkpoints:
        if checkpoint.restorable is None:
            message = "Atlas reports neither true nor false for restorable"
            yield Objection(place, message, "restorable: neither true nor false", "true")


@rule(
    "token-not-discovered",
    "the token of a part is not reported as discovered",
    "parts[].tokenDiscovered",
    source=f"{MANUAL}: a restore replays each oplog up to its token",
)
def token_not_discovered(listed: Listed) -> Objections:
    """A part whose token was not seen cannot be replayed to it, so there is no consistent cut."""
    for place, checkpoint in listed.checkpoints:
        count = checkpoint.undiscovered_token_count
        if count:
            silent = sum(part.token_discovered is None for part in checkpoint.parts)
            yield Objection(
                place,
                f"{count} of {len(checkpoint.parts)} parts lack a discovered token: "
                f"{listing(_undiscovered(checkpoint), count)}",
                f"tokenDiscovered: {count - silent} false, {silent} not reported",
                "true in every part",
            )


@rule(
    "restorable-contradicts-tokens",
    "Atlas calls it restorable, and a part's token not discovered",
    "restorable",
    "parts[].tokenDiscovered",
    source=f"{MANUAL}: a restore replays each oplog up to its token",
)
def restorable_contradicts_tokens(listed: Listed) -> Objections:
    """Both cannot be true. A token that is not spoken of contradicts nothing."""
    for place, checkpoint in listed.checkpoints:
        if checkpoint.restorable and False in [one.token_discovered for one in checkpoint.parts]:
            yield Objection(
                place,
                "Atlas reports it as restorable, and a token of it as not discovered",
                "restorable: true, tokenDiscovered: false",
                "no contradiction between the two",
            )


def _undiscovered(checkpoint: Checkpoint) -> Iterator[str]:
    return (
        shard_of(part) or f"part {index}"
        for index, part in enumerate(checkpoint.parts)
        if part.token_discovered is not True
    )


RULES = (
    restorable_false,
    restorable_not_reported,
    token_not_discovered,
    restorable_contradicts_tokens,
)
