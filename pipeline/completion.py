"""Completing a run: its definite answers are taken over, with the replies that they rest on.

All is read from the run's own folder, whose digests are checked first. Its outcomes and its
evidence are sorted by the triples' keys, and so are the triples of a journal that holds the same
input: everything is read side by side, a few rows at a time.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.checkpoints import CheckpointRef
from pipeline.errors import InputUnusable
from pipeline.journal import PAGES_AT_HAND, Journal, StoredReply, Taken
from pipeline.listing import read_page
from pipeline.outcomes import Failure, FailureKind, Verdict
from pipeline.published import AS_IT_WAS, PublishedRun

#: What is in memory at a time: rows, and fewer where these are larger together, in bytes. A reply
#: may have megabytes.
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 500, 8 * 1024 * 1024

_OF_AN_OUTCOME = (
    "group_id",
    "cluster_name",
    "checkpoint_id",
    "verdict",
    "reply_id",
    "failure_kind",
    "attempts",
    "fetched_by",
)


class _Definite(NamedTuple):
    """A triple of the new run with the answer that it has already."""

    triple_id: int
    ref: CheckpointRef
    reply_id: int
    kind: FailureKind | None
    attempts: int
    fetched_by: str


def take_answers(parent: PublishedRun, journal: Journal) -> int:
    """Lay the definite answers of `parent` into a journal that holds its input; gives their number.

    Raises `InputUnusable` where the run's folder is not as it was published.
    """
    journal.set_facts(taken_replies=str(_take_replies(parent, journal)))
    places = _Places(journal)
    count = 0
    for count, definite in enumerate(_definite(parent, journal), 1):
        item = places.of(definite) if definite.fetched_by == "list" else None
        _, _, reply_id, kind, attempts, fetched_by = definite
        journal.take_answer(definite.triple_id, Taken(reply_id, item, kind, attempts, fetched_by))
        if count % _ROWS_AT_ONCE == 0:
            journal.flush()
    journal.flush()
    return count


def _take_replies(parent: PublishedRun, journal: Journal) -> int:
    """Take the replies that definite answers rest on; gives their number."""
    pages = {each.reply_id for each in _definite(parent, journal) if each.fetched_by == "list"}
    single = (each for each in _definite(parent, journal) if each.fetched_by != "list")
    wanted = next(single, None)
    count, size = 0, 0
    for stored in _replies(parent):
        if stored.group_id is None and stored.reply_id in pages:
            journal.take(stored, None)
        elif wanted is not None and stored.reply_id == wanted.reply_id:
            journal.take(stored, wanted.triple_id)
            wanted = next(single, None)
        else:
            continue
        count, size = count + 1, size + len(stored.body)
        if count % _ROWS_AT_ONCE == 0 or size > _BYTES_AT_ONCE:
            journal.flush()
            size = 0
    if wanted is not None:
        raise InputUnusable(
            f"the evidence of {parent.run_id} lacks reply {wanted.reply_id}", hint=AS_IT_WAS
        )
    journal.flush()
    return count


def _definite(parent: PublishedRun, journal: Journal) -> Iterator[_Definite]:
    rows = zip(journal.triples(), _rows(parent, "outcomes", _OF_AN_OUTCOME), strict=True)
    for (triple_id, ref), (*key, verdict, reply_id, kind, attempts, fetched_by) in rows:
        if ref != CheckpointRef(*key):
            raise InputUnusable(
                f"the outcomes of {parent.run_id} are not those of its input", hint=AS_IT_WAS
            )
        if verdict != Verdict.INCONCLUSIVE:
            known = FailureKind(kind) if kind else None
            yield _Definite(triple_id, ref, reply_id, known, attempts, fetched_by)


def _replies(parent: PublishedRun) -> Iterator[StoredReply]:
    return map(StoredReply._make, _rows(parent, "evidence", StoredReply._fields))


def _rows(parent: PublishedRun, folder: str, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """Read some columns of a run's files, row by row; times as microseconds since 1970."""
    for path in parent.files(folder):
        if path.suffix == ".parquet":
            for batch in _batches(pq.ParquetFile(path), columns):
                yield from zip(*(_values(batch.column(name)) for name in columns), strict=True)


def _batches(file: pq.ParquetFile, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """Read a file's row groups, each so many rows at a time as their size allows."""
    for index in range(file.num_row_groups):
        group = file.metadata.row_group(index)
        fitting = _BYTES_AT_ONCE * group.num_rows // max(1, group.total_byte_size)
        rows = max(1, min(_ROWS_AT_ONCE, fitting))
        yield from file.iter_batches(rows, row_groups=[index], columns=columns)


def _values(column: pa.Array) -> list[Any]:
    values = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    return list(values.to_pylist())


class _Places:
    """Where in a page of a list its triples are."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._on_page = lru_cache(maxsize=PAGES_AT_HAND)(self._read)

    def of(self, definite: _Definite) -> int:
        """Give the place of a triple; raises `InputUnusable` where its page does not show it."""
        place = self._on_page(definite.reply_id).get(definite.ref.checkpoint_id)
        if place is None:
            raise InputUnusable(
                f"{definite.ref} is not in reply {definite.reply_id}", hint=AS_IT_WAS
            )
        return place

    def _read(self, reply_id: int) -> dict[str | None, int]:
        entries = read_page(self._journal.page(reply_id).reply())
        if isinstance(entries, Failure):
            return {}
        places: dict[str | None, int] = {}
        for entry in entries:  # of an id that a page shows twice the first one counted
            places.setdefault(entry.id, entry.index)
        return places
