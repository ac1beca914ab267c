"""A checkpoint as Atlas describes it, and the triple that names one.

Field names are Atlas's own, in snake case. Atlas promises none of them: "a field without a value
is left out", so everything but the triple is optional. Source: the reference page of the endpoint
"Return One Legacy Backup Checkpoint".
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Optional, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")

if TYPE_CHECKING:
    Stated: TypeAlias = Optional[T]  # noqa: UP045 - mypy takes `T | None` for no alias
else:

    class Stated:
        """What the API states, or leaves out: then it is None.

        To a decoder a null is not the same: it departs from the documentation.
        """

        def __class_getitem__(cls, kind: T) -> T:
            """Give what the attribute is where it is stated."""
            return kind


#: A time with a zone.
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class CheckpointRef(msgspec.Struct, frozen=True, order=True, gc=False):
    """A triple: what the input asks about. Sorts by project, cluster, checkpoint."""

    group_id: str
    cluster_name: str
    checkpoint_id: str

    def __str__(self) -> str:
        return f"{self.group_id}/{self.cluster_name}/{self.checkpoint_id}"


def made_at(checkpoint_id: str) -> datetime:
    """Tell when a checkpoint was made: the first four bytes of its id.

    It agrees with `started` in published samples, and dates an id that answers 404, too.
    """
    return datetime.fromtimestamp(int(checkpoint_id[:8], 16), UTC)


class Anomaly(StrEnum):
    """Where an answer departs from its own documentation. Recorded, never a reason to drop it."""

    NULL_VALUE = "null_value"
    WRONG_TYPE = "wrong_type"
    BAD_DATE = "bad_date"
    DATE_WITHOUT_ZONE = "date_without_zone"
    BAD_ID = "bad_id"
    ID_MISSING = "id_missing"
    UNKNOWN_FIELD = "unknown_field"
    UNKNOWN_TYPE_NAME = "unknown_type_name"


#: Values of `typeName` that the reference page lists; others survive as they are.
REPLICA_SET = "REPLICA_SET"
CONFIG_TYPES = frozenset({"CONFIG_SERVER", "CONFIG_SERVER_REPLICA_SET"})
TYPE_NAMES = CONFIG_TYPES | {REPLICA_SET}


class TokenTimestamp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The oplog time of a part's checkpoint token: seconds, and the order within that second.

    The documented minimum of `increment` (1199145600) is a fault of the documentation, published
    samples hold 1, 2, 4 and 6: no rule reads it.
    """

    date: Stated[Moment] = None
    increment: Stated[Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]] = None


class Part(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, gc=False):
    """One shard, the config servers, or the one replica set of an unsharded cluster."""

    type_name: Stated[str] = None
    replica_set_name: Stated[str] = None
    shard_name: Stated[str] = None
    token_discovered: Stated[bool] = None
    token_timestamp: Stated[TokenTimestamp] = None


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """What one 200 answer says. Times are aware and in UTC.

    `started`: the balancer stopped; `completed`: it was restarted; `timestamp`: the moment a
    restore leads to; `restorable`: whether Atlas can use the checkpoint for a restore.
    """

    id: str | None = None
    group_id: str | None = None
    cluster_id: str | None = None
    started: datetime | None = None
    completed: datetime | None = None
    timestamp: datetime | None = None
    restorable: bool | None = None
    parts: tuple[Part, ...] = ()
    anomalies: tuple[Anomaly, ...] = ()

    @property
    def config_part_count(self) -> int:
        """How many parts are config servers."""
        return sum([part.type_name in CONFIG_TYPES for part in self.parts])

    @property
    def undiscovered_token_count(self) -> int:
        """How many parts do not report their token as discovered."""
        return sum([part.token_discovered is not True for part in self.parts])

    @property
    def token_spread_s(self) -> float | None:
        """Seconds between the first and the last token; None with fewer than two dated tokens."""
        dates = [
            part.token_timestamp.date
            for part in self.parts
            if part.token_timestamp is not None and part.token_timestamp.date is not None
        ]
        if len(dates) < 2:  # noqa: PLR2004 - a spread needs two
            return None
        if dates.count(dates[0]) == len(dates):  # as a rule, and much cheaper
            return 0.0
        return (max(dates) - min(dates)).total_seconds()
