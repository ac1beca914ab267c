"""What Atlas lists beyond an input: checkpoints that `discover` found and nobody asked about.

An audit of a list can be whole and still miss a cluster that was never put on it. Pure but for a
temporary database, in which a million of each fit without a place in memory.
"""

import gzip
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import IO, cast

import msgspec

from pipeline.checkpoints import CheckpointRef
from pipeline.errors import InputUnusable
from pipeline.intake import DISCOVERED_FILE, KeptInput
from pipeline.population import Beyond, BeyondCluster
from pipeline.published import AS_IT_WAS, PublishedRun
from pipeline.triples import BadLine, TripleReader

#: Clusters that are named; of the others there is the number.
SHOWN_CLUSTERS = 20

_TABLES = """
CREATE TABLE listed (
    group_id, cluster_name, checkpoint_id, PRIMARY KEY (group_id, cluster_name, checkpoint_id)
) WITHOUT ROWID;
CREATE TABLE asked (
    group_id, cluster_name, PRIMARY KEY (group_id, cluster_name)
) WITHOUT ROWID;
"""
_LIST = "INSERT OR IGNORE INTO listed VALUES (?, ?, ?)"
_ASK = "INSERT OR IGNORE INTO asked VALUES (?, ?)"
_TAKE = "DELETE FROM listed WHERE group_id = ? AND cluster_name = ? AND checkpoint_id = ?"
_SUM_UP = "SELECT count(*), count(DISTINCT group_id || '/' || cluster_name) FROM listed"
_CLUSTERS = """
SELECT group_id, cluster_name, count(*), max(checkpoint_id),
       (group_id, cluster_name) IN (SELECT group_id, cluster_name FROM asked) AS is_asked
FROM listed GROUP BY group_id, cluster_name ORDER BY is_asked, 3 DESC, 1, 2 LIMIT ?
"""


def find_beyond(discovered: KeptInput, asked: Iterable[CheckpointRef]) -> Beyond:
    """Compare what `discover` wrote with the triples that are `asked` about.

    Raises `InputUnusable` where the file has no header with the three columns.
    """
    with closing(sqlite3.connect("")) as db, gzip.open(discovered.path, "rb") as file:
        db.executescript(_TABLES)
        listed = _Listed(TripleReader(cast("IO[bytes]", file)))
        db.executemany(_LIST, listed)
        before = _number(db, "SELECT count(*) FROM listed")
        for ref in asked:
            db.execute(_TAKE, msgspec.structs.astuple(ref))
            db.execute(_ASK, (ref.group_id, ref.cluster_name))
        count, clusters = db.execute(_SUM_UP).fetchone()
        rows = db.execute(_CLUSTERS, (SHOWN_CLUSTERS,))
        shown = tuple(
            BeyondCluster(group_id, cluster, number, newest, bool(is_asked))
            for group_id, cluster, number, newest, is_asked in rows
        )
    return Beyond(
        source=discovered.source,
        sha256=discovered.sha256,
        listed_count=before,
        bad_line_count=listed.bad_lines,
        count=count,
        cluster_count=clusters,
        clusters=shown,
    )


def discovered_of(run: PublishedRun) -> KeptInput | None:
    """Give the list that a run was compared with, as it was called; None where there was none.

    Raises `InputUnusable` where the run's folder is not as it was published.
    """
    name = f"evidence/{DISCOVERED_FILE}"
    if not run.digest_of(name):
        return None
    path = run.file("summary.json")
    try:
        known = msgspec.json.decode(path.read_bytes(), type=_Told).beyond
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputUnusable(f"{path} cannot be read: {error}", hint=AS_IT_WAS) from error
    source = known.source or f"the list that {run.run_id} was compared with"
    return KeptInput(run.file(name), known.sha256, source)


class _Told(msgspec.Struct, frozen=True):
    """What is read of `summary.json`."""

    beyond: Beyond


class _Listed:
    """Keys of the lines that name a checkpoint; the others are counted."""

    def __init__(self, reader: TripleReader) -> None:
        self._reader = reader
        self.bad_lines = 0

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        for line in self._reader:
            if isinstance(line, BadLine):
                self.bad_lines += 1
            else:
                yield msgspec.structs.astuple(line.ref)


def _number(db: sqlite3.Connection, query: str) -> int:
    return int(db.execute(query).fetchone()[0])
