"""The rows of a staged table with their keys: every key once, and in order (see `SORTED`)."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ProgramFault
from pipeline.quality.files import TableFile, fault
from pipeline.rules import RULES
from pipeline.tables import CHECKPOINTS, CLUSTERS, FAILING, FINDINGS, OUTCOMES, PARTS, REPLIES

#: Between the parts of a key: below every letter, so that keys sort as their parts would.
SEPARATOR = "\x00"

#: In the place of a checkpoint's id, of a cluster as a whole: after all of its checkpoints.
WHOLE = "~"

#: The key of replies to what was asked for no triple: before all others.
OF_NO_TRIPLE = SEPARATOR * 2


class Sorting(NamedTuple):
    """How a table is sorted: by the triple's key, and among rows of one key by `within`.

    `columns` are what else is read; `null` stands in the key for what is null.
    """

    columns: tuple[str, ...] = ()
    within: str = ""
    null: str = WHOLE


_ANSWER = ("reply_id", "reply_sha256", "fetched_at")
_COUNTS = ("triple_count", "pass_count", "fail_count", "absent_count", "inconclusive_count")

SORTED = {
    OUTCOMES.name: Sorting(("verdict", "excused_by", "failure_kind", "fetched_by", *_ANSWER)),
    CHECKPOINTS.name: Sorting(("part_count", *_ANSWER)),
    PARTS.name: Sorting(within="part_index"),
    CLUSTERS.name: Sorting(_COUNTS),
    FINDINGS.name: Sorting(("scope", "rule_id"), within="rule_id"),
    FAILING.name: Sorting(),
    REPLIES.name: Sorting(
        ("failure_kind", "body_sha256", "received_at"), within="reply_id", null=""
    ),
}

_KEY = ("group_id", "cluster_name", "checkpoint_id")


def readable(key: str) -> str:
    """Give a key as people write it."""
    return key.removesuffix(f"{SEPARATOR}{WHOLE}").strip(SEPARATOR).replace(SEPARATOR, "/")


def keys_of(rows: pa.Table, null: str = WHOLE) -> pa.ChunkedArray:
    """The keys of rows; those of clusters have no checkpoint's id."""
    parts = [rows[name] for name in _KEY if name in rows.column_names]
    last = [] if len(parts) == len(_KEY) else [WHOLE]
    return pc.binary_join_element_wise(
        *parts, *last, SEPARATOR, null_handling="replace", null_replacement=null
    )


def rows_of(file: TableFile, sorting: Sorting) -> Iterator[pa.Table]:
    """Give a table's rows with their `key`, at least once and perhaps none.

    Raises `ProgramFault` where a key is there twice, or the rows are not in order.
    """
    columns = dict.fromkeys((*_KEY, *sorting.columns, sorting.within))
    names = [name for name in file.table.names if name in columns]
    yield from _in_order(file, _keyed(file, names, sorting), sorting.within)


def _keyed(file: TableFile, names: list[str], sorting: Sorting) -> Iterator[pa.Table]:
    schema = pa.schema([file.table.schema.field(name) for name in names])
    read = (pa.Table.from_batches([batch]) for batch in file.read(names))
    for rows in chain([schema.empty_table()], read):
        yield rows.append_column("key", keys_of(rows, sorting.null))


def _in_order(file: TableFile, batches: Iterable[pa.Table], within: str) -> Iterator[pa.Table]:
    for rows, before, after in neighbours(batches):
        rises = pc.less(before["key"], after["key"])
        if within:
            is_same = pc.equal(before["key"], after["key"])
            rank, next_rank = _ranks(before, within), _ranks(after, within)
            rises = pc.or_(rises, pc.and_(is_same, pc.less(rank, next_rank)))
        if not _all(rises):
            raise _out_of_order(file, before, after, pc.index(rises, False).as_py(), within)
        yield rows


def _ranks(rows: pa.Table, within: str) -> pa.ChunkedArray:
    """What rows of one key are sorted by; rules as they are told, see `rules`."""
    column = rows[within]
    return pc.index_in(column, pa.array(RULES)) if within == "rule_id" else column


def _out_of_order(
    file: TableFile, before: pa.Table, after: pa.Table, row: int, within: str
) -> ProgramFault:
    names = ["key", within] if within else ["key"]
    first, second = (tuple(rows[name][row].as_py() for name in names) for rows in (before, after))
    said = " ".join([readable(second[0]), *(f"{within} {value}" for value in second[1:])]).strip()
    if first == second:
        return file.fault(f"{said} is there twice")
    return file.fault(f"the rows are not in order at {said}")


def neighbours(
    batches: Iterable[pa.Table],
) -> Iterator[tuple[pa.Table, pa.Table, pa.Table]]:
    """Give batches, and of each row in turn the one before it and the row itself."""
    last = None
    for rows in batches:
        joined = rows if last is None else pa.concat_tables([last, rows])
        yield rows, joined.slice(0, max(joined.num_rows - 1, 0)), joined.slice(1)
        last = joined.slice(max(joined.num_rows - 1, 0))


def last_of_keys(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Give only the last row of each key."""
    last = None
    for rows, before, after in neighbours(batches):
        yield before.filter(pc.not_equal(before["key"], after["key"]))
        last = rows.slice(rows.num_rows - 1) if rows.num_rows else last
    if last is not None:
        yield last


def whole_parts(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Pass parts on, with their number so far as `part_count`.

    Raises `ProgramFault` where the parts of a checkpoint are not numbered from 0 without a hole.
    """
    is_first, one = True, pa.scalar(1, pa.int32())
    for rows, before, after in neighbours(batches):
        if is_first and rows.num_rows:
            is_first = False
            _check_places(rows.slice(0, 1), pa.array([0], pa.int32()))
        follows = pc.equal(before["key"], after["key"])
        _check_places(after, pc.if_else(follows, pc.add(before["part_index"], one), 0))
        yield rows.append_column("part_count", pc.add(rows["part_index"], one))


def _check_places(parts: pa.Table, wanted: pa.Array) -> None:
    is_right = pc.equal(parts["part_index"], wanted)
    if not _all(is_right):
        row = pc.index(is_right, False).as_py()
        place = parts["part_index"][row].as_py()
        key = readable(parts["key"][row].as_py())
        raise fault(PARTS.name, f"part_index of {key} is {place}, wanted {wanted[row].as_py()}")


def _all(mask: pa.ChunkedArray) -> bool:
    return bool(pc.all(mask, min_count=0).as_py())
