"""The tables: their columns in order, and the flattening of checkpoints and parts into rows.

Each column is declared once, with its type, its unit, where its value comes from and what it means;
Arrow schemas are built from that. Order and types are a contract: `SCHEMA_VERSION` changes with
them. Schemas are always explicit: a column that is null one night must have the same type as the
night it is not.

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

from pipeline.atlas import Reply, read_reply
from pipeline.checkpoints import Checkpoint, CheckpointRef, TokenTimestamp
from pipeline.outcomes import Answer, Failure

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = "1"

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


class Column(NamedTuple):
    """One column.

    `source` is the API's attribute, where there is one; `distinct` says that hardly any value
    comes twice, so that a dictionary of them would only cost time.
    """

    name: str
    type: str
    meaning: str
    source: str = ""
    nullable: bool = True
    distinct: bool = False


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
        """The Arrow schema, with the schema version and the columns' meanings in its metadata."""
        return _schema(self)


@cache
def _schema(table: Table) -> pa.Schema:
    fields = [
        pa.field(
            column.name,
            _TYPES[column.type],
            nullable=column.nullable,
            metadata={"meaning": column.meaning, "source": column.source},
        )
        for column in table.columns
    ]
    return pa.schema(fields, metadata={"schema_version": SCHEMA_VERSION, "table": table.name})


@cache
def _own_schema(table: Table, left_out: int) -> pa.Schema:
    return pa.schema(list(table.schema)[left_out:])


def _required(name: str, kind: str, meaning: str, source: str = "") -> Column:
    return Column(name, kind, meaning, source, nullable=False)


RUN_COLUMNS = (
    _required("run_id", "string", "the run that published the row; sorts by its start"),
    _required("audit_name", "string", "the audit the run belongs to"),
    _required("audit_date", "date32", "the slice the run is labelled with"),
)
_CLUSTER_COLUMNS = (
    _required("group_id", "string", "project, 24 hexadecimal digits", "groupId of the path"),
    _required("cluster_name", "string", "cluster", "clusterName of the path"),
)
_CHECKPOINT_COLUMNS = (
    *_CLUSTER_COLUMNS,
    Column(
        "checkpoint_id",
        "string",
        "24 hexadecimal digits",
        "checkpointId of the path",
        nullable=False,
        distinct=True,
    ),
)
_REPLY_COLUMNS = (
    Column("fetched_at", "timestamp", "when the reply that counts had arrived", distinct=True),
    Column("reply_id", "int64", "that reply in evidence/replies", distinct=True),
    Column("reply_sha256", "string", "SHA-256 of its body, hexadecimal", distinct=True),
)


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
    (
        *RUN_COLUMNS,
        *_CHECKPOINT_COLUMNS,
        Column("cluster_id", "string", "the cluster, 24 hexadecimal digits", "clusterId"),
        Column("restorable", "bool", "Atlas can use it for a restore", "restorable"),
        Column("started_at", "timestamp", "the balancer stopped", "started"),
        Column("completed_at", "timestamp", "the balancer restarted", "completed"),
        Column("restore_point_at", "timestamp", "the moment a restore leads to", "timestamp"),
        _required("part_count", "int32", "parts", "parts"),
        _required("config_part_count", "int32", "parts of config servers", "parts[].typeName"),
        _required(
            "undiscovered_token_count",
            "int32",
            "parts whose token is not reported as discovered",
            "parts[].tokenDiscovered",
        ),
        Column(
            "token_spread_s",
            "float64",
            "seconds between the first and the last token; null with fewer than two dated tokens",
            "parts[].tokenTimestamp.date",
        ),
        _required("anomalies", "string", "departures from the API's documentation, by comma"),
        *_REPLY_COLUMNS,
    ),
    _checkpoint_columns,
)

PARTS = Table(
    "parts",
    "one row for each part of those checkpoints",
    (
        *RUN_COLUMNS,
        *_CHECKPOINT_COLUMNS,
        _required("part_index", "int32", "place in the answer, from 0"),
        Column("type_name", "string", "kind of host, unknown ones as they are", "typeName"),
        Column("replica_set_name", "string", "replica set", "replicaSetName"),
        Column("shard_name", "string", "shard; null for config servers", "shardName"),
        Column("token_discovered", "bool", "the token was seen", "tokenDiscovered"),
        Column("token_at", "timestamp", "oplog time of the token", "tokenTimestamp.date"),
        Column("token_increment", "int64", "order within that second", "tokenTimestamp.increment"),
    ),
    _part_columns,
)

OUTCOMES = Table(
    "outcomes",
    "one row for each triple: how it ended",
    (
        *RUN_COLUMNS,
        *_CHECKPOINT_COLUMNS,
        _required("verdict", "string", "PASS, FAIL, ABSENT or INCONCLUSIVE"),
        Column("excused_by", "string", "the waivers, by comma, or `retention`, that excuse it"),
        Column("failure_kind", "string", "why there is no checkpoint to judge"),
        Column("http_status", "int32", "the true status, inside an envelope where there was one"),
        Column("error_code", "string", "Atlas's own code", "errorCode"),
        Column("error_detail", "string", "Atlas's words, or ours", "detail, reason, parameters"),
        _required(
            "attempts", "int32", "requests for this triple alone, refusals (429) not counted"
        ),
        _required(
            "fetched_by",
            "string",
            "get, list (reply_id is a page of its list), or none: never asked",
        ),
        _required("input_line", "int64", "line of the input that named it first"),
        _required("labels", "string", "the line's other columns, JSON object of texts"),
        *_REPLY_COLUMNS,
    ),
    _fields,
)

CLUSTERS = Table(
    "clusters",
    "one row for each cluster of the input; restorable means PASS",
    (
        *RUN_COLUMNS,
        *_CLUSTER_COLUMNS,
        _required("verdict", "string", "the worst of its checkpoints', or FAIL by a cluster rule"),
        _required("triple_count", "int64", "distinct triples"),
        _required("pass_count", "int64", "of these PASS"),
        _required("fail_count", "int64", "of these FAIL"),
        _required("absent_count", "int64", "of these ABSENT"),
        _required("inconclusive_count", "int64", "of these INCONCLUSIVE"),
        Column("newest_restorable_at", "timestamp", "newest restore point that passed"),
        Column("rpo_age_s", "float64", "seconds from it to the cluster's last reply"),
        Column("rpo_limit_s", "float64", "what the policy allows; null without a limit"),
        Column("oldest_restorable_at", "timestamp", "oldest restore point that passed"),
        Column("largest_gap_s", "float64", "seconds, between neighbouring ones that passed"),
    ),
    _fields,
)

FINDINGS = Table(
    "findings",
    "one row for each objection of a rule",
    (
        *RUN_COLUMNS,
        *_CLUSTER_COLUMNS,
        Column("checkpoint_id", "string", "null in a finding on a cluster"),
        _required("scope", "string", "checkpoint or cluster"),
        _required("rule_id", "string", "the rule that objects"),
        _required("severity", "string", "critical, high, medium or low, by the policy"),
        _required("message", "string", "one sentence"),
        _required("observed", "string", "what the rule saw"),
        _required("expected", "string", "what it wanted to see"),
        _required("controls", "string", "controls it bears on, by semicolon"),
        Column("waiver_id", "string", "the waiver that excuses it"),
        Column("waiver_expires_at", "timestamp", "and when that ends"),
    ),
    _fields,
)

RUNS = Table(
    "runs",
    "one row: the run itself",
    (
        *RUN_COLUMNS,
        Column("parent_run_id", "string", "the run this one completes"),
        _required("started_at", "timestamp", "first start, also of a run that was resumed"),
        _required("finished_at", "timestamp", "when everything had been asked"),
        _required("tool_version", "string", "version of this program"),
        _required("schema_version", "string", "version of these tables"),
        _required("rules_version", "string", "version of the rules"),
        _required("base_url", "string", "address of Atlas"),
        _required("credential_id", "string", "who asked: an id, never a secret"),
        _required("input_sha256", "string", "SHA-256 of the CSV's text, hexadecimal"),
        _required("policy_sha256", "string", "SHA-256 of the policy's text, hexadecimal"),
        _required("line_count", "int64", "lines of the input but for the header and blank ones"),
        _required("triple_count", "int64", "distinct triples"),
        _required("duplicate_count", "int64", "lines that repeat a triple"),
        _required("bad_line_count", "int64", "lines that name no checkpoint"),
        _required("pass_count", "int64", "triples that ended in PASS"),
        _required("fail_count", "int64", "in FAIL"),
        _required("absent_count", "int64", "in ABSENT"),
        _required("inconclusive_count", "int64", "in INCONCLUSIVE"),
        _required(
            "excused_count", "int64", "of FAIL, ABSENT and INCONCLUSIVE, those that are excused"
        ),
        _required(
            "request_count",
            "int64",
            "requests sent by this run, without those of authentication; the replies that it takes "
            "over from the run it completes are not counted again",
        ),
        _required("refusal_count", "int64", "of these answered by 429"),
        _required(
            "complete",
            "bool",
            "no inconclusive triple but excused ones, no bad line, and no population that is "
            "smaller or older than it should be",
        ),
        _required(
            "exit_code",
            "int32",
            "how the run ended, whatever --exit-zero makes of it: 0, 1, 3 or 4",
        ),
    ),
)

TABLES = (CHECKPOINTS, PARTS, OUTCOMES, CLUSTERS, FINDINGS, RUNS)

REPLIES = Table(
    "replies",
    "evidence: one row for each request of the run, but for those of authentication; in a run that "
    "completes another also the replies that its definite answers rest on, under their old ids",
    (
        _required("run_id", "string", "the run"),
        _required("reply_id", "int64", "number in the order of arrival; unique in the run"),
        _required("purpose", "string", "checkpoint, list, preliminary, or limits"),
        Column("group_id", "string", "the triple it was asked for"),
        Column("cluster_name", "string", "the triple it was asked for"),
        Column("checkpoint_id", "string", "the triple it was asked for"),
        Column("path", "string", "path and query of the request", nullable=False, distinct=True),
        _required("sent_at", "timestamp", "this machine's clock"),
        _required("received_at", "timestamp", "this machine's clock, whole body read"),
        _required("http_status", "int32", "as on the wire; 0 when no head arrived"),
        Column("failure_kind", "string", "what it was read as; null for a good answer"),
        Column("trouble", "string", "what kept a whole answer from arriving"),
        _required("trouble_detail", "string", "in words; also that a secret was taken out of it"),
        _required("headers", "string", "the kept headers, JSON object"),
        Column(
            "body",
            "binary",
            "as received and decoded, but for secrets",
            nullable=False,
            distinct=True,
        ),
        Column(
            "body_sha256", "string", "SHA-256 of body, hexadecimal", nullable=False, distinct=True
        ),
    ),
)

FAILING = Table(
    "failing",
    "one row for each triple that ended in FAIL or ABSENT, excused or not, for the next run to go "
    "on from. As it rests on earlier runs, and not on this run's replies alone, it is no part of "
    "what is loaded into a warehouse",
    (
        *RUN_COLUMNS,
        *_CHECKPOINT_COLUMNS,
        _required(
            "failing_since",
            "date32",
            "audit date of the first of the consecutive nights in which it fails",
        ),
    ),
)

LOADS = Table(
    "loads",
    "in a warehouse only: one row for each time that a run was loaded into it",
    (
        *RUN_COLUMNS,
        _required("loaded_at", "timestamp", "when it was loaded, by the loading machine's clock"),
        _required("tool_version", "string", "version of the program that loaded it"),
        _required("schema_version", "string", "version of the tables that were loaded"),
        _required("manifest_sha256", "string", "SHA-256 of the run's manifest, hexadecimal"),
        Column("replaced_run_id", "string", "the run whose rows it replaced; null if none"),
        _required("refusals", "string", "why it would not have been loaded without being told to"),
        _required("row_count", "int64", "rows of all tables"),
    ),
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
        *_CHECKPOINT_COLUMNS,
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
        _frame(checkpoints.drop_columns([column.name for column in _REPLY_COLUMNS])),
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
