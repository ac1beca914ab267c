"""The rule about what is not there although it should be."""

from pipeline.checkpoints import made_at
from pipeline.rules.listed import CLOCK_TOLERANCE, Listed
from pipeline.rules.rule import Objection, Objections, rule


@rule(
    "absent-inside-retention",
    "Atlas has no such checkpoint, though its id is younger than the retention",
    "id",
    thresholds=("retention",),
    source="an ObjectId begins with the seconds of its making, in samples those of started",
)
def absent_inside_retention(listed: Listed) -> Objections:
    """It should not be gone yet: the id's own date lies inside the retention window.

    The window is counted back from the reply that says so. Where it is the cluster that has no
    backups, no checkpoint is spoken of. An id from the future was never inside.
    """
    retention = listed.thresholds.retention
    if retention is None:
        return
    for place in listed.absent:
        at = listed.replied_at(place)
        made = made_at(listed.answers[place].ref.checkpoint_id)
        if at is not None and at - retention <= made <= at + CLOCK_TOLERANCE:
            yield Objection(
                place,
                "Atlas does not have it, though the policy wants it kept that long",
                f"absent, {at - made} old",
                f"kept for {retention}",
            )


RULES = (absent_inside_retention,)
