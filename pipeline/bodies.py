"""A body → a checkpoint: typed where it is as documented, leniently where it is not.

Two readers, which agree wherever both give a checkpoint. `read_documented` decodes a body straight
into typed values, several times faster, and gives nothing unless everything is as the reference
page says. `read_checkpoint` takes any decoded document, keeps what can be kept and notes each
departure as an anomaly.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from pipeline.checkpoints import (
    TYPE_NAMES,
    Anomaly,
    Checkpoint,
    CheckpointRef,
    Moment,
    Part,
    Stated,
    TokenTimestamp,
)

T = TypeVar("T")

#: The most parts that are taken for a checkpoint's: far more than shards in any cluster (by the
#: page on Atlas's service limits, more than 70 want help from support). Millions fit into one body,
#: and the checkpoints of a cluster are in memory together when they are judged.
MAX_PARTS = 1000

_OBJECT_ID = re.compile(r"[a-f0-9]{24}")
_INT64 = range(-(2**63), 2**63)


# --- bodies as documented -----------------------------------------------------------------------


class _Document(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """A checkpoint as the reference page has it; anything else does not decode."""

    id: Stated[str] = None
    group_id: Stated[str] = None
    cluster_id: Stated[str] = None
    started: Stated[Moment] = None
    completed: Stated[Moment] = None
    timestamp: Stated[Moment] = None
    restorable: Stated[bool] = None
    parts: tuple[Part, ...] = ()
    links: msgspec.Raw = msgspec.Raw()


_documents = msgspec.json.Decoder(_Document)


def read_documented(ref: CheckpointRef, body: bytes) -> Checkpoint | None:
    """Read a body that is just as documented and about `ref`.

    None says nothing about the body but that it has to be read leniently.
    """
    try:
        found = _documents.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if found.id != ref.checkpoint_id or found.group_id != ref.group_id:
        return None
    if len(found.parts) > MAX_PARTS:
        return None
    if found.cluster_id is not None and not _is_object_id(found.cluster_id):
        return None
    dates = (found.started, found.completed, found.timestamp)
    if not all(map(_is_utc, dates)) or not _are_known(found.parts):
        return None
    ids = (found.id, found.group_id, found.cluster_id)
    return Checkpoint(*ids, *dates, found.restorable, found.parts)


@lru_cache(maxsize=1024)
def _is_object_id(text: str) -> bool:
    return _OBJECT_ID.fullmatch(text) is not None


def _is_utc(moment: datetime | None) -> bool:
    return moment is None or moment.tzinfo is UTC


def _are_known(parts: Iterable[Part]) -> bool:
    """Whether all types are documented ones, and all dates in UTC."""
    for part in parts:
        if part.type_name not in _KNOWN_TYPE_NAMES:
            return False
        token = part.token_timestamp
        if token is not None and token.date is not None and token.date.tzinfo is not UTC:
            return False
    return True


_KNOWN_TYPE_NAMES = TYPE_NAMES | {None}


# --- any document -------------------------------------------------------------------------------
#
# One contract for all readers below: take a mapping and a name, return the value if it has the
# documented type, else None; note in `seen` what departs from the documentation. A value that is
# left out is no anomaly (the reference page announces that), a null is.

_CHECKPOINT_FIELDS = frozenset(
    {"id", "groupId", "clusterId", "started", "completed", "timestamp", "restorable", "parts"}
)
_PART_FIELDS = frozenset(
    {"typeName", "replicaSetName", "shardName", "tokenDiscovered", "tokenTimestamp"}
)
_TOKEN_FIELDS = frozenset({"date", "increment"})

_Seen = dict[Anomaly, None]  # an ordered set


def read_checkpoint(document: Mapping[str, Any]) -> Checkpoint:
    """Read the attributes of one checkpoint leniently: nothing it holds can make this raise."""
    seen: _Seen = {}
    _note_unknown(document, _CHECKPOINT_FIELDS | {"links"}, seen)
    if document.get("id") is None:
        seen[Anomaly.ID_MISSING] = None
    checkpoint = Checkpoint(
        id=_read_id(document, "id", seen),
        group_id=_read_id(document, "groupId", seen),
        cluster_id=_read_id(document, "clusterId", seen),
        started=_read_date(document, "started", seen),
        completed=_read_date(document, "completed", seen),
        timestamp=_read_date(document, "timestamp", seen),
        restorable=_read_value(document, "restorable", bool, seen),
        parts=tuple(
            _read_part(part, seen) for part in _read_value(document, "parts", list, seen) or ()
        ),
    )
    return msgspec.structs.replace(checkpoint, anomalies=tuple(seen))


def _read_part(document: Any, seen: _Seen) -> Part:
    if not isinstance(document, dict):
        seen[Anomaly.WRONG_TYPE] = None
        return Part()
    _note_unknown(document, _PART_FIELDS, seen)
    type_name = _read_value(document, "typeName", str, seen)
    if type_name is not None and type_name not in TYPE_NAMES:
        seen[Anomaly.UNKNOWN_TYPE_NAME] = None
    return Part(
        type_name=type_name,
        replica_set_name=_read_value(document, "replicaSetName", str, seen),
        shard_name=_read_value(document, "shardName", str, seen),
        token_discovered=_read_value(document, "tokenDiscovered", bool, seen),
        token_timestamp=_read_token(document, seen),
    )


def _read_token(document: Mapping[str, Any], seen: _Seen) -> TokenTimestamp | None:
    token = _read_value(document, "tokenTimestamp", dict, seen)
    if token is None:
        return None
    _note_unknown(token, _TOKEN_FIELDS, seen)
    return TokenTimestamp(
        date=_read_date(token, "date", seen), increment=_read_increment(token, seen)
    )


def _read_increment(token: Mapping[str, Any], seen: _Seen) -> int | None:
    value = _read_value(token, "increment", int, seen)
    if value is None:
        return None
    if isinstance(value, bool) or value not in _INT64:
        seen[Anomaly.WRONG_TYPE] = None
        return None
    return value


def _note_unknown(document: Mapping[str, Any], known: frozenset[str], seen: _Seen) -> None:
    if not document.keys() <= known:
        seen[Anomaly.UNKNOWN_FIELD] = None


def _read_value(document: Mapping[str, Any], name: str, kind: type[T], seen: _Seen) -> T | None:
    value = document.get(name)
    if isinstance(value, kind):
        return value
    if value is not None:
        seen[Anomaly.WRONG_TYPE] = None
    elif name in document:
        seen[Anomaly.NULL_VALUE] = None
    return None


def _read_id(document: Mapping[str, Any], name: str, seen: _Seen) -> str | None:
    value = _read_value(document, name, str, seen)
    if value is not None and not _OBJECT_ID.fullmatch(value):
        seen[Anomaly.BAD_ID] = None
    return value.lower() if value is not None else None


def _read_date(document: Mapping[str, Any], name: str, seen: _Seen) -> datetime | None:
    """ISO 8601 with a zone, in UTC; without a zone it is taken as UTC, as the page documents."""
    value = _read_value(document, name, str, seen)
    if value is None:
        return None
    try:
        moment = _parse_date(value)
        if moment.tzinfo is None:
            seen[Anomaly.DATE_WITHOUT_ZONE] = None
            return moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        seen[Anomaly.BAD_DATE] = None
        return None


def _parse_date(text: str) -> datetime:
    """As the typed reader parses it where that can; else any form of ISO 8601."""
    try:
        return msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return datetime.fromisoformat(text)
