"""The tables: their columns in order, and the flattening of checkpoints and parts into rows.

Each column is declared once, with its type, its unit, where its value comes from and what it means;
Arrow schemas are built from that. Order and types are a contract: `SCHEMA_VERSION` changes with
them. Schemas are always explicit: a column that is null one night must have the same type as the
night it is not.

`flatten` is the same flattening as a library: replies in, pandas frames out.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pyarrow as pa

from pipeline.atlas import Reply, read_reply
from pipeline.checkpoints import Checkpoint, CheckpointRef
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
    """One column: `source` is the API's attribute, where there is one."""

    name: str
    type: str
    meaning: str
    source: str = ""
    nullable: bool = True


class Table(NamedTuple):
    """A table: the columns every table begins with come first."""

    name: str
    meaning: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema, with the schema version and the columns' meanings in its metadata."""
        fields = [
            pa.field(
                column.name,
                _TYPES[column.type],
                nullable=column.nullable,
                metadata={"meaning": column.meaning, "source": column.source},
            )
            for column in self.columns
        ]
        return pa.schema(fields, metadata={"schema_version": SCHEMA_VERSION, "table": self.name})


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
    _required("checkpoint_id", "string", "24 hexadecimal digits", "checkpointId of the path"),
)
_REPLY_COLUMNS = (
    Column("fetched_at", "timestamp", "when the reply that counts had arrived"),
    Column("reply_id", "int64", "that reply in evidence/replies"),
    Column("reply_sha256", "string", "SHA-256 of its body as received, hexadecimal"),
)

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
)

OUTCOMES = Table(
    "outcomes",
    "one row for each triple: how it ended",
    (
        *RUN_COLUMNS,
        *_CHECKPOINT_COLUMNS,
        _required("verdict", "string", "PASS, FAIL, ABSENT or INCONCLUSIVE"),
        Column("excused_by", "string", "the waiver, or `retention`, that excuses it"),
        Column("failure_kind", "string", "why there is no checkpoint to judge"),
        Column("http_status", "int32", "the true status, inside an envelope where there was one"),
        Column("error_code", "string", "Atlas's own code", "errorCode"),
        Column("error_detail", "string", "Atlas's words, or ours", "detail, reason, parameters"),
        _required("attempts", "int32", "requests for this triple, refusals (429) not counted"),
        _required("fetched_by", "string", "get, or none if it was never asked"),
        _required("input_line", "int64", "line of the input that named it first"),
        _required("labels", "string", "the line's other columns, JSON object of texts"),
        *_REPLY_COLUMNS,
    ),
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
        _required("excused_count", "int64", "of FAIL and ABSENT, those that are excused"),
        _required("request_count", "int64", "requests sent, without those of authentication"),
        _required("refusal_count", "int64", "of these answered by 429"),
        _required("complete", "bool", "no inconclusive triple and no bad line"),
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
    "evidence: one row for each request of the run, but for those of authentication",
    (
        _required("run_id", "string", "the run"),
        _required("reply_id", "int64", "number in the order of arrival"),
        _required("purpose", "string", "checkpoint, preliminary, or limits"),
        Column("group_id", "string", "the triple it was asked for"),
        Column("cluster_name", "string", "the triple it was asked for"),
        Column("checkpoint_id", "string", "the triple it was asked for"),
        _required("path", "string", "path and query of the request"),
        _required("sent_at", "timestamp", "this machine's clock"),
        _required("received_at", "timestamp", "this machine's clock, whole body read"),
        _required("http_status", "int32", "as on the wire; 0 when no head arrived"),
        Column("failure_kind", "string", "what it was read as; null for a good answer"),
        Column("trouble", "string", "what kept a whole answer from arriving"),
        _required("trouble_detail", "string", "in words"),
        _required("headers", "string", "the kept headers, JSON object"),
        _required("body", "binary", "as received, after content decoding"),
        _required("body_sha256", "string", "SHA-256 of body, hexadecimal"),
    ),
)


# --- flattening ---------------------------------------------------------------------------------


def checkpoint_row(answer: Answer, checkpoint: Checkpoint) -> tuple[Any, ...]:
    """One row of `checkpoints`, without the run's columns."""
    return (
        *msgspec.structs.astuple(answer.ref),
        checkpoint.cluster_id,
        checkpoint.restorable,
        checkpoint.started,
        checkpoint.completed,
        checkpoint.timestamp,
        len(checkpoint.parts),
        checkpoint.config_part_count,
        checkpoint.undiscovered_token_count,
        checkpoint.token_spread_s,
        ",".join(checkpoint.anomalies),
        answer.fetched_at,
        answer.reply_id,
        answer.reply_sha256,
    )


def part_rows(ref: CheckpointRef, checkpoint: Checkpoint) -> Iterator[tuple[Any, ...]]:
    """The rows of `parts` of one checkpoint, without the run's columns."""
    for index, part in enumerate(checkpoint.parts):
        token = part.token_timestamp
        yield (
            *msgspec.structs.astuple(ref),
            index,
            part.type_name,
            part.replica_set_name,
            part.shard_name,
            part.token_discovered,
            token.date if token else None,
            token.increment if token else None,
        )


def to_arrow(
    schema: pa.Schema, constants: Sequence[Any], rows: Sequence[tuple[Any, ...]]
) -> pa.Table:
    """Build an Arrow table: `constants` fill the first columns, `rows` hold the others."""
    columns = list(zip(*rows, strict=True)) or [()] * (len(schema) - len(constants))
    arrays = [
        pa.repeat(pa.scalar(value, schema.field(index).type), len(rows))
        for index, value in enumerate(constants)
    ]
    arrays += [
        pa.array(column, field.type)
        for column, field in zip(columns, list(schema)[len(constants) :], strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


class Frames(NamedTuple):
    """Replies as pandas frames.

    `checkpoints` and `parts` have the columns of the published tables, but for the run's and the
    reply's own; `failures` has one row for each reply that holds no checkpoint. Whole numbers and
    booleans have pandas' types that know a missing value, so a type never hangs on the values.
    """

    checkpoints: "pd.DataFrame"
    parts: "pd.DataFrame"
    failures: "pd.DataFrame"


_FAILURE_COLUMNS = (
    *_CHECKPOINT_COLUMNS,
    Column("kind", "string", ""),
    Column("http_status", "int32", ""),
    Column("error_code", "string", ""),
    Column("detail", "string", ""),
)


def flatten(replies: Iterable[tuple[CheckpointRef, Reply | bytes]]) -> Frames:
    """Flatten replies into frames of checkpoints and parts.

    Each reply comes with the triple it answers; `bytes` are taken as the body of a 200 answer. No
    reply is dropped: one that holds no checkpoint, or one of another triple, is in `failures`.
    """
    checkpoints: list[tuple[Any, ...]] = []
    parts: list[tuple[Any, ...]] = []
    failures: list[tuple[Any, ...]] = []
    for ref, reply in replies:
        found = read_reply(ref, _as_reply(reply))
        key = msgspec.structs.astuple(ref)
        if isinstance(found, Failure):
            failures.append((*key, found.kind, found.http_status, found.error_code, found.detail))
        else:
            answer = Answer(ref, 0, "{}", found, attempts=1, fetched_by="get")
            checkpoints.append(checkpoint_row(answer, found)[: -len(_REPLY_COLUMNS)])
            parts.extend(part_rows(ref, found))
    own = len(RUN_COLUMNS)
    return Frames(
        _frame(CHECKPOINTS.columns[own : -len(_REPLY_COLUMNS)], checkpoints),
        _frame(PARTS.columns[own:], parts),
        _frame(_FAILURE_COLUMNS, failures),
    )


def _as_reply(reply: Reply | bytes) -> Reply:
    if isinstance(reply, Reply):
        return reply
    return Reply(200, _UNKNOWN_TIME, _UNKNOWN_TIME, body=reply)


def _frame(columns: Sequence[Column], rows: Sequence[tuple[Any, ...]]) -> "pd.DataFrame":
    schema = pa.schema([pa.field(column.name, _TYPES[column.type]) for column in columns])
    import pandas as pd

    nullable = {
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    frame: pd.DataFrame = to_arrow(schema, (), rows).to_pandas(types_mapper=nullable.get)
    return frame
