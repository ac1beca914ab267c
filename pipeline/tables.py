"""The tables: the flattening of checkpoints and parts into rows, and their Arrow schemas.

What each column is, is declared in `columns`. Schemas are always explicit: a column that is null
one night must have the same type as the night it is not.

`flatten` is the same flattening as a library: replies in, pandas frames out.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pyarrow as pa

from pipeline import columns
from pipeline.atlas import Reply, read_reply
from pipeline.checkpoints import Checkpoint, CheckpointRef, TokenTimestamp
from pipeline.columns import CHECKPOINT_COLUMNS, REPLY_COLUMNS, RUN_COLUMNS, SCHEMA_VERSION, Column
from pipeline.outcomes import Answer, Failure

if TYPE_CHECKING:
    import pandas as pd

#: Stands in for the times of a reply that is given as a bare body; no frame shows it.
_UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)

_TYPES = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "date32": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "binary": pa.binary(),
}


#: What the rows of some items are, column by column: lists of values, or Arrow arrays.
Columns = Sequence[Any]


def transposed(rows: Sequence[Sequence[Any]]) -> Columns:
    """Turn rows into columns; none at all where there are no rows."""
    return list(zip(*rows, strict=True))


def _fields(structs: Sequence[msgspec.Struct]) -> Columns:
    """Columns of structs whose fields are the columns."""
    return transposed([msgspec.structs.astuple(struct) for struct in structs])


class Table(NamedTuple):
    """A table.

    The columns that every table begins with come first: they have one value in a whole run.
    `flatten` turns items (rows, unless the table says otherwise) into the other columns.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    flatten: Callable[[Sequence[Any]], Columns] = transposed

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema, with the schema version and what each column is in its metadata."""
        return _schema(self)


@cache
def _schema(table: Table) -> pa.Schema:
    fields = [
        pa.field(
            column.name,
            _TYPES[column.type],
            nullable=column.nullable,
            metadata=column.metadata,
        )
        for column in table.columns
    ]
    return pa.schema(fields, metadata={"schema_version": SCHEMA_VERSION, "table": table.name})


@cache
def _own_schema(table: Table, left_out: int) -> pa.Schema:
    return pa.schema(list(table.schema)[left_out:])


# --- flattening ---------------------------------------------------------------------------------


def _checkpoint_columns(answers: Sequence[Answer]) -> Columns:
    """The columns of `checkpoints`; every answer holds one."""
    found = [checkpoint_of(answer) for answer in answers]
    return [
        *_keys([answer.ref for answer in answers]),
        [checkpoint.cluster_id for checkpoint in found],
        [checkpoint.restorable for checkpoint in found],
        [checkpoint.started for checkpoint in found],
        [checkpoint.completed for checkpoint in found],
        [checkpoint.timestamp for checkpoint in found],
        [len(checkpoint.parts) for checkpoint in found],
        [checkpoint.config_part_count for checkpoint in found],
        [checkpoint.undiscovered_token_count for checkpoint in found],
        [checkpoint.token_spread_s for checkpoint in found],
        [",".join(checkpoint.anomalies) for checkpoint in found],
        [answer.fetched_at for answer in answers],
        [answer.reply_id for answer in answers],
        [answer.reply_sha256 for answer in answers],
    ]


def _part_columns(answers: Sequence[Answer]) -> Columns:
    """The columns of `parts`, of answers that hold a checkpoint each."""
    every = [checkpoint_of(answer).parts for answer in answers]
    parts = [part for parts in every for part in parts]
    tokens = [part.token_timestamp or _NO_TOKEN for part in parts]
    owners = pa.array([owner for owner, parts in enumerate(every) for _ in parts], pa.int32())
    keys = _keys([answer.ref for answer in answers])
    return [
        *(pa.array(key, pa.string()).take(owners) for key in keys),
        [index for parts in every for index in range(len(parts))],
        [part.type_name for part in parts],
        [part.replica_set_name for part in parts],
        [part.shard_name for part in parts],
        [part.token_discovered for part in parts],
        [token.date for token in tokens],
        [token.increment for token in tokens],
    ]


_NO_TOKEN = TokenTimestamp()


def _keys(refs: Sequence[CheckpointRef]) -> tuple[list[str], list[str], list[str]]:
    return (
        [ref.group_id for ref in refs],
        [ref.cluster_name for ref in refs],
        [ref.checkpoint_id for ref in refs],
    )


def checkpoint_of(answer: Answer) -> Checkpoint:
    """The checkpoint that an answer holds; which of them hold one is known before."""
    if not isinstance(answer.found, Checkpoint):
        raise TypeError(f"{answer.ref} was not answered with a checkpoint")
    return answer.found


# --- the tables ---------------------------------------------------------------------------------

CHECKPOINTS = Table(
    "checkpoints",
    "one row for each triple with verdict PASS or FAIL: what Atlas says of the checkpoint",
    columns.CHECKPOINTS,
    _checkpoint_columns,
)

PARTS = Table(
    "parts",
    "one row for each part of those checkpoints",
    columns.PARTS,
    _part_columns,
)

OUTCOMES = Table(
    "outcomes",
    "one row for each triple: how it ended",
    columns.OUTCOMES,
    _fields,
)

CLUSTERS = Table(
    "clusters",
    "one row for each cluster of the input; restorable means PASS",
    columns.CLUSTERS,
    _fields,
)

FINDINGS = Table(
    "findings",
    "one row for each objection of a rule",
    columns.FINDINGS,
    _fields,
)

RUNS = Table(
    "runs",
    "one row: the run itself",
    columns.RUNS,
)

TABLES = (CHECKPOINTS, PARTS, OUTCOMES, CLUSTERS, FINDINGS, RUNS)

REPLIES = Table(
    "replies",
    "evidence: one row for each request of the run, but for those of authentication; in a run that "
    "completes another also the replies that its definite answers rest on, under their old ids",
    columns.REPLIES,
)

FAILING = Table(
    "failing",
    "one row for each triple that ended in FAIL or ABSENT, excused or not, for the next run to go "
    "on from. As it rests on earlier runs, and not on this run's replies alone, it is no part of "
    "what is loaded into a warehouse",
    columns.FAILING,
)

LOADS = Table(
    "loads",
    "in a warehouse only: one row for each time that a run was loaded into it",
    columns.LOADS,
)


# --- Arrow and pandas ----------------------------------------------------------------------------


def to_arrow(table: Table, constants: Sequence[Any], items: Sequence[Any]) -> pa.Table:
    """Build an Arrow table of items: `constants` are the values of its first columns."""
    return complete(table, constants, own_columns(table, len(constants), items))


def own_columns(table: Table, left_out: int, items: Sequence[Any]) -> pa.Table:
    """Build the Arrow table of items without its first `left_out` columns."""
    schema = _own_schema(table, left_out)
    columns = table.flatten(items) if items else [()] * len(schema)
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, kind)
        for column, kind in zip(columns, schema.types, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def complete(table: Table, constants: Sequence[Any], own: pa.Table) -> pa.Table:
    """Put the columns before `own` that hold one value each."""
    schema = table.schema
    first = [
        pa.repeat(pa.scalar(value, schema.field(index).type), own.num_rows)
        for index, value in enumerate(constants)
    ]
    return pa.Table.from_arrays([*first, *own.columns], schema=schema)


class _NoPandas:
    """Finds every module but one."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> None:
        """Say that there is no pandas; leave the others to who comes next."""
        if name == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def only_write() -> None:
    """Set pyarrow up for a process that only writes tables, and ends with its command.

    pyarrow imports pandas at its first array if it can: a quarter of a second and 50 MiB, of no use
    here, so it is kept from it (and `flatten` gives no frames afterwards). Of its memory pools the
    default one gives pages back, to fetch them again at once: a seventh of the time.
    """
    with suppress(NotImplementedError):  # not every build of pyarrow has this pool
        pa.set_memory_pool(pa.jemalloc_memory_pool())
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(finder)


class Frames(NamedTuple):
    """Replies as pandas frames.

    `checkpoints` and `parts` have the columns of the published tables, but for the run's and the
    reply's own; `failures` has one row for each reply that holds no checkpoint. Whole numbers and
    booleans have pandas' types that know a missing value, so a type never hangs on the values.
    """

    checkpoints: "pd.DataFrame"
    parts: "pd.DataFrame"
    failures: "pd.DataFrame"


_FAILURES = Table(
    "failures",
    "",
    (
        *CHECKPOINT_COLUMNS,
        Column("kind", "string", ""),
        Column("http_status", "int32", ""),
        Column("error_code", "string", ""),
        Column("detail", "string", ""),
    ),
)


def flatten(replies: Iterable[tuple[CheckpointRef, Reply | bytes]]) -> Frames:
    """Flatten replies into frames of checkpoints and parts.

    Each reply comes with the triple it answers; `bytes` are taken as the body of a 200 answer. No
    reply is dropped: one that holds no checkpoint, or one of another triple, is in `failures`.
    """
    answers: list[Answer] = []
    failures: list[tuple[Any, ...]] = []
    for ref, reply in replies:
        found = read_reply(ref, _as_reply(reply))
        if isinstance(found, Failure):
            key = msgspec.structs.astuple(ref)
            failures.append((*key, found.kind, found.http_status, found.error_code, found.detail))
        else:
            answers.append(Answer(ref, 0, "{}", found, attempts=1, fetched_by="get"))
    own = len(RUN_COLUMNS)
    checkpoints = own_columns(CHECKPOINTS, own, answers)
    return Frames(
        _frame(checkpoints.drop_columns([column.name for column in REPLY_COLUMNS])),
        _frame(own_columns(PARTS, own, answers)),
        _frame(own_columns(_FAILURES, 0, failures)),
    )


def _as_reply(reply: Reply | bytes) -> Reply:
    if isinstance(reply, Reply):
        return reply
    return Reply(200, _UNKNOWN_TIME, _UNKNOWN_TIME, body=reply)


def _frame(arrow: pa.Table) -> "pd.DataFrame":
    import pandas as pd

    nullable = {
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    frame: pd.DataFrame = arrow.to_pandas(types_mapper=nullable.get)
    return frame
