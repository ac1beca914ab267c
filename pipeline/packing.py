"""How rows are stored in a journal: bodies compressed, and every row with a seal.

SQLite has sums in its log only; by a seal a wrong byte is told in any value.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final
from zlib import crc32

import msgspec
import zstandard

from pipeline.commits import Row

#: The dictionary does nearly all the work: higher levels take longer and save a twentieth.
_LEVEL = -1

#: What bodies of this API have in common, for the compressor: a body alone is too short to learn
#: from. It is stored with every journal, so that a later version may change it.
COMMON_BODY: Final = (
    b'{"error":404,"errorCode":"CHECKPOINT_NOT_FOUND","reason":"Not Found","parameters":[],'
    b'"detail":"","badRequestDetail":{"fields":[]}}{"clusterId":"","completed":"2026-01-01T00:00:00Z",'
    b'"groupId":"","id":"","links":[{"href":"https://cloud.mongodb.com/api/atlas/v2/groups/","rel":'
    b'"self"}],"parts":[{"replicaSetName":"-shard-0","shardName":"-shard-0","tokenDiscovered":false,'
    b'"tokenTimestamp":{"date":"2026-01-01T00:00:00Z","increment":1},"typeName":"CONFIG_SERVER"},'
    b'{"replicaSetName":"-config-0","tokenDiscovered":true,"tokenTimestamp":{"date":'
    b'"2026-01-01T00:00:00Z","increment":1},"typeName":"CONFIG_SERVER_REPLICA_SET"},'
    b'{"replicaSetName":"-shard-0","shardName":"-shard-0","tokenDiscovered":true,"tokenTimestamp":'
    b'{"date":"2026-01-01T00:00:00Z","increment":1},"typeName":"REPLICA_SET"}],"restorable":true,'
    b'"started":"2026-01-01T00:00:00Z","timestamp":"2026-01-01T00:00:00Z"}'
)


class Packer:
    """Compresses the bodies of a commit's replies together; adds sizes, digests and seals."""

    def __init__(self, dictionary: zstandard.ZstdCompressionDict, replies: str) -> None:
        """`replies` is the statement whose rows are replies, bodies last."""
        self._replies = replies
        self._compressor = zstandard.ZstdCompressor(_LEVEL, dict_data=dictionary)

    def __call__(self, statement: str, rows: Sequence[Row]) -> Sequence[Row]:
        """Give the rows as they are stored."""
        packed = self._packed(rows) if statement is self._replies else rows
        return [(*row, seal_of(row)) for row in packed]

    def _packed(self, rows: Sequence[Row]) -> Sequence[Row]:
        bodies = [row[-1] for row in rows]
        frames = self._compressor.multi_compress_to_buffer([*bodies, b"."])  # not all may be empty
        return [
            (*row[:-1], frames[n].tobytes(), len(body), hashlib.sha256(body).hexdigest())
            for n, (row, body) in enumerate(zip(rows, bodies, strict=True))
        ]


def seal_of(row: Sequence[Any]) -> int:
    """A sum by which a row is told from one that was changed since."""
    return crc32(msgspec.msgpack.encode(row))


def digest(db: sqlite3.Connection, queries: Iterable[str]) -> str:
    """The SHA-256 of all rows that some queries give, hexadecimal."""
    found = hashlib.sha256()
    for query in queries:
        for row in db.execute(query):
            found.update(msgspec.msgpack.encode(row))
    return found.hexdigest()


def dictionary_of(common: str) -> zstandard.ZstdCompressionDict:
    """Make the compressor's dictionary of what bodies have in common."""
    return zstandard.ZstdCompressionDict(common.encode(), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
