"""What the rules over a cluster judge: what its checkpoints came to, and when."""

from collections import Counter
from collections.abc import Collection
from datetime import datetime, timedelta
from itertools import pairwise
from operator import itemgetter

import msgspec

from pipeline.checkpoints import made_at
from pipeline.outcomes import Verdict, moment
from pipeline.policy import Thresholds
from pipeline.rules.listed import Listed


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster's listed checkpoints, judged.

    `points`: the moments that those which pass restore to, oldest first. `as_of`: the cluster's
    last reply. `unknown`: by their ids, when the inconclusive ones were made, oldest first: any of
    them may be restorable. `oldest`: when the first of all was made. `shards`: by its id, oldest
    first, which shards each checkpoint has; None where it may have any, which is so of those that
    are inconclusive or have a part without a name. Those without a shard are left out.
    """

    thresholds: Thresholds
    verdicts: Counter[Verdict]
    points: list[datetime]
    as_of: datetime | None
    unknown: list[datetime]
    oldest: datetime
    shards: list[tuple[str, frozenset[str] | None]]

    @property
    def gaps(self) -> list[tuple[datetime, datetime]]:
        """Each restorable point with the next."""
        return list(pairwise(self.points))

    @property
    def largest_gap(self) -> timedelta | None:
        """The longest time from one restorable point to the next; None with fewer than two."""
        return max([later - earlier for earlier, later in self.gaps], default=None)

    @property
    def age(self) -> timedelta | None:
        """How old the newest restorable point was at the last reply."""
        return self.as_of - self.points[-1] if self.points and self.as_of is not None else None


def standing(listed: Listed, verdicts: list[Verdict], untimed: Collection[int | None]) -> Standing:
    """Sum up a cluster.

    `verdicts` are its answers'; `untimed` are the places of those whose clocks were wrong.
    """
    answers = listed.answers
    replied = [answer.fetched_at for answer in answers if answer.fetched_at is not None]
    ids = [
        answer.ref.checkpoint_id
        for answer, verdict in zip(answers, verdicts, strict=True)
        if verdict is Verdict.INCONCLUSIVE
    ]
    return Standing(
        thresholds=listed.thresholds,
        verdicts=Counter(verdicts),
        points=_points(listed, verdicts, untimed),
        as_of=moment(max(replied)) if replied else None,
        unknown=[made_at(one) for one in sorted(ids)],
        oldest=made_at(min(answer.ref.checkpoint_id for answer in answers)),
        shards=_shards(listed, ids),
    )


def _shards(listed: Listed, inconclusive: list[str]) -> list[tuple[str, frozenset[str] | None]]:
    """Which shards the checkpoints have, by their ids, oldest first."""
    answers = listed.answers
    known = [(answers[place].ref.checkpoint_id, shards) for place, shards in listed.shards]
    unknown = [*inconclusive, *(answers[place].ref.checkpoint_id for place in listed.nameless)]
    return sorted([*known, *((one, None) for one in unknown)], key=itemgetter(0))


def _points(
    listed: Listed, verdicts: list[Verdict], untimed: Collection[int | None]
) -> list[datetime]:
    return sorted(
        checkpoint.timestamp
        for place, checkpoint in listed.checkpoints
        if verdicts[place] is Verdict.PASS
        and checkpoint.timestamp is not None
        and place not in untimed
    )
