"""A checkpoint as Atlas describes it, and the triple that names one.

Field names are Atlas's own, in snake case. Atlas promises none of them: "a field without a value
is left out", so everything but the triple is optional. Source: the reference page of the endpoint
"Return One Legacy Backup Checkpoint".
"""

from datetime import datetime
from enum import StrEnum

import msgspec


class CheckpointRef(msgspec.Struct, frozen=True, order=True):
    """A triple: what the input asks about. Sorts by project, cluster, checkpoint."""

    group_id: str
    cluster_name: str
    checkpoint_id: str

    def __str__(self) -> str:
        return f"{self.group_id}/{self.cluster_name}/{self.checkpoint_id}"


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


class TokenTimestamp(msgspec.Struct, frozen=True):
    """The oplog time of a part's checkpoint token: seconds, and the order within that second.

    The documented minimum of `increment` (1199145600) is a fault of the documentation, published
    samples hold 1, 2, 4 and 6: no rule reads it.
    """

    date: datetime | None = None
    increment: int | None = None


class Part(msgspec.Struct, frozen=True):
    """One shard, the config servers, or the one replica set of an unsharded cluster."""

    type_name: str | None = None
    replica_set_name: str | None = None
    shard_name: str | None = None
    token_discovered: bool | None = None
    token_timestamp: TokenTimestamp | None = None

    @property
    def is_config(self) -> bool:
        """Whether this part is the config servers', in either of its two forms."""
        return self.type_name in CONFIG_TYPES


class Checkpoint(msgspec.Struct, frozen=True):
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
        return sum(part.is_config for part in self.parts)

    @property
    def undiscovered_token_count(self) -> int:
        """How many parts do not report their token as discovered."""
        return sum(part.token_discovered is not True for part in self.parts)

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
        return (max(dates) - min(dates)).total_seconds()
