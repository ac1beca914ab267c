"""The contract of the tables: every column in order, with what a reader has to know of it.

Each column is declared once: its type, its unit, what null means, where its value comes from, what
it means, and which values it may have. The Parquet files' metadata, the pages in docs/, the SQL of
the warehouses and dbt's tests are made from this. Order, types and nullability are fixed for a
schema version. Values of an enumeration may become more with a version of the program, which is no
new schema: a reader has to expect some that it does not know.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pipeline.checkpoints import CONFIG_TYPES, REPLICA_SET, Anomaly
from pipeline.errors import MEANINGS
from pipeline.outcomes import FailureKind, FetchBy, Verdict
from pipeline.policy import RETENTION, Severity
from pipeline.rules import RULES

#: The version of order, types and nullability.
SCHEMA_VERSION = "1"


@dataclass(frozen=True, eq=False)
class Values:
    """What a column may hold.

    `meanings` has every value, with a word on it unless that is told elsewhere; `separator` stands
    between several in one cell; of an open enumeration the values are those that are known.
    """

    name: str
    meanings: Mapping[str, str]
    separator: str = ""
    is_open: bool = False


class Column(NamedTuple):
    """One column.

    `source` is the API's attribute, where there is one; `distinct` says that hardly any value
    comes twice, so that a dictionary of them would only cost time; `null` is what null means, empty
    where there is none.
    """

    name: str
    type: str
    meaning: str
    source: str = ""
    nullable: bool = True
    distinct: bool = False
    unit: str = ""
    null: str = ""
    values: Values | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """What the field of a Parquet file says of it; always the same keys."""
        return {
            "meaning": self.meaning,
            "source": self.source,
            "unit": self.unit,
            "null": self.null,
            "values": ",".join(self.values.meanings) if self.values else "",
        }


# --- enumerations -------------------------------------------------------------------------------


def _listed(kind: type[StrEnum]) -> dict[str, str]:
    return {str(value): "" for value in kind}


VERDICT = Values(
    "verdict",
    {
        Verdict.PASS: "Atlas reports it restorable, and no rule of the policy objects",
        Verdict.FAIL: "a rule of the policy says so",
        Verdict.ABSENT: "Atlas says, by its own error code, that there is none",
        Verdict.INCONCLUSIVE: "what is true could not be learned; neither a pass nor an absence",
    },
)
FAILURE_KIND = Values("failure_kind", _listed(FailureKind))
TROUBLE = Values(
    "trouble",
    {
        FailureKind.UNREACHABLE: "no connection, or one that was closed before the answer",
        FailureKind.TIMED_OUT: "no whole answer in time",
        FailureKind.CUT: "the body ended early or could not be decompressed",
        FailureKind.UNREADABLE: "the answer was not HTTP",
        FailureKind.TOO_LARGE: "the body was larger than any checkpoint's",
    },
)
SEVERITY = Values("severity", _listed(Severity))
ANOMALIES = Values(
    "anomalies",
    {
        Anomaly.NULL_VALUE: "null where the documentation leaves an attribute out",
        Anomaly.WRONG_TYPE: "a value of another type than the documented one; read as left out",
        Anomaly.BAD_DATE: "a text that is no date; read as left out",
        Anomaly.DATE_WITHOUT_ZONE: "a date without a zone; taken for UTC",
        Anomaly.BAD_ID: "an id that is not 24 hexadecimal digits",
        Anomaly.ID_MISSING: "the answer does not say which checkpoint it is about",
        Anomaly.UNKNOWN_FIELD: "an attribute that is not documented",
        Anomaly.UNKNOWN_TYPE_NAME: "a typeName that is not documented",
    },
    separator=",",
)
RULE_ID = Values("rule_id", {rule_id: rule.title for rule_id, rule in RULES.items()})
SCOPE = Values(
    "scope",
    {
        "checkpoint": "the rule objects to one checkpoint; checkpoint_id names it",
        "cluster": "it objects to the cluster; checkpoint_id is null",
    },
)
FETCHED_BY = Values(
    "fetched_by",
    {
        FetchBy.GET: "a request for this triple",
        FetchBy.LIST: "a page of its cluster's list; reply_id is that page",
        "none": "never asked",
    },
)
PURPOSE = Values(
    "purpose",
    {
        "checkpoint": "one checkpoint",
        "list": "a page of a cluster's list of checkpoints",
        "preliminary": "whether Atlas is there and lets us in",
        "limits": "the rate limits of a project",
    },
)
EXIT_CODE = Values("exit_code", {str(int(code)): words for code, words in MEANINGS.items()})
TYPE_NAME = Values(
    "type_name",
    {REPLICA_SET: "a shard, or the one replica set of an unsharded cluster"}
    | dict.fromkeys(sorted(CONFIG_TYPES), "the config servers"),
    is_open=True,
)
EXCUSED_BY = Values(
    "excused_by",
    {RETENTION: "an ABSENT whose id is older than the policy's retention window"},
    separator=", ",
    is_open=True,
)

#: Every enumeration, as the dictionary tells them.
ENUMERATIONS = (
    VERDICT,
    SEVERITY,
    SCOPE,
    RULE_ID,
    FAILURE_KIND,
    TROUBLE,
    ANOMALIES,
    TYPE_NAME,
    EXCUSED_BY,
    FETCHED_BY,
    PURPOSE,
    EXIT_CODE,
)


# --- columns that several tables have -----------------------------------------------------------

_UTC = "UTC, microseconds"


def _required(
    name: str,
    kind: str,
    meaning: str,
    source: str = "",
    *,
    unit: str = "",
    values: Values | None = None,
    distinct: bool = False,
) -> Column:
    unit = unit or (_UTC if kind == "timestamp" else "")
    return Column(
        name, kind, meaning, source, nullable=False, distinct=distinct, unit=unit, values=values
    )


def _optional(
    name: str,
    kind: str,
    meaning: str,
    source: str = "",
    *,
    null: str,
    unit: str = "",
    values: Values | None = None,
    distinct: bool = False,
) -> Column:
    unit = unit or (_UTC if kind == "timestamp" else "")
    return Column(
        name, kind, meaning, source, distinct=distinct, unit=unit, null=null, values=values
    )


def _count(name: str, meaning: str, unit: str, kind: str = "int64", source: str = "") -> Column:
    return _required(name, kind, meaning, source, unit=unit)


_NOT_SAID = "Atlas does not say, or says it unreadably: see anomalies"

RUN_COLUMNS = (
    _required("run_id", "string", "the run that published the row; sorts by its start"),
    _required("audit_name", "string", "the audit the run belongs to"),
    _required("audit_date", "date32", "the slice the run is labelled with", unit="day"),
)
CLUSTER_COLUMNS = (
    _required("group_id", "string", "project, 24 hexadecimal digits", "groupId of the path"),
    _required("cluster_name", "string", "cluster", "clusterName of the path"),
)
CHECKPOINT_COLUMNS = (
    *CLUSTER_COLUMNS,
    _required(
        "checkpoint_id",
        "string",
        "24 hexadecimal digits",
        "checkpointId of the path",
        distinct=True,
    ),
)
_NO_REPLY = "no reply counts: never asked, or the project was given up"
REPLY_COLUMNS = (
    _optional(
        "fetched_at",
        "timestamp",
        "when the reply that counts had arrived",
        null=_NO_REPLY,
        distinct=True,
    ),
    _optional("reply_id", "int64", "that reply in evidence/replies", null=_NO_REPLY, distinct=True),
    _optional(
        "reply_sha256",
        "string",
        "SHA-256 of its body, hexadecimal",
        null=_NO_REPLY,
        distinct=True,
    ),
)


# --- the tables' columns ------------------------------------------------------------------------

CHECKPOINTS = (
    *RUN_COLUMNS,
    *CHECKPOINT_COLUMNS,
    _optional(
        "cluster_id", "string", "the cluster, 24 hexadecimal digits", "clusterId", null=_NOT_SAID
    ),
    _optional("restorable", "bool", "Atlas can use it for a restore", "restorable", null=_NOT_SAID),
    _optional("started_at", "timestamp", "the balancer stopped", "started", null=_NOT_SAID),
    _optional("completed_at", "timestamp", "the balancer restarted", "completed", null=_NOT_SAID),
    _optional(
        "restore_point_at",
        "timestamp",
        "the moment a restore leads to",
        "timestamp",
        null=_NOT_SAID,
    ),
    _count("part_count", "parts", "parts", "int32", "parts"),
    _count("config_part_count", "parts of config servers", "parts", "int32", "parts[].typeName"),
    _count(
        "undiscovered_token_count",
        "parts whose token is not reported as discovered",
        "parts",
        "int32",
        "parts[].tokenDiscovered",
    ),
    _optional(
        "token_spread_s",
        "float64",
        "from the first to the last token",
        "parts[].tokenTimestamp.date",
        unit="seconds",
        null="fewer than two dated tokens",
    ),
    _required(
        "anomalies",
        "string",
        "departures from the API's documentation, by comma; empty where there is none",
        values=ANOMALIES,
    ),
    *REPLY_COLUMNS,
)

PARTS = (
    *RUN_COLUMNS,
    *CHECKPOINT_COLUMNS,
    _required("part_index", "int32", "place in the answer, from 0", "parts"),
    _optional(
        "type_name",
        "string",
        "kind of host, unknown ones as they are",
        "parts[].typeName",
        null=_NOT_SAID,
        values=TYPE_NAME,
    ),
    _optional(
        "replica_set_name", "string", "replica set", "parts[].replicaSetName", null=_NOT_SAID
    ),
    _optional(
        "shard_name",
        "string",
        "shard",
        "parts[].shardName",
        null="the part is config servers; else Atlas does not say",
    ),
    _optional(
        "token_discovered",
        "bool",
        "the token was seen",
        "parts[].tokenDiscovered",
        null=f"{_NOT_SAID}; counted as not discovered",
    ),
    _optional(
        "token_at",
        "timestamp",
        "oplog time of the token",
        "parts[].tokenTimestamp.date",
        null=_NOT_SAID,
    ),
    _optional(
        "token_increment",
        "int64",
        "order within that second",
        "parts[].tokenTimestamp.increment",
        null=_NOT_SAID,
    ),
)

OUTCOMES = (
    *RUN_COLUMNS,
    *CHECKPOINT_COLUMNS,
    _required("verdict", "string", "how the triple ended", values=VERDICT),
    _optional(
        "excused_by",
        "string",
        "the waivers, by comma, or `retention`, that excuse it",
        null="nothing excuses it, or it is a PASS",
        values=EXCUSED_BY,
    ),
    _optional(
        "failure_kind",
        "string",
        "why there is no checkpoint to judge",
        null="there is one: PASS or FAIL",
        values=FAILURE_KIND,
    ),
    _optional(
        "http_status",
        "int32",
        "the true status, inside an envelope where there was one",
        null="no answer came",
    ),
    _optional(
        "error_code",
        "string",
        "Atlas's own code",
        "errorCode",
        null="no error, or an answer without a code of Atlas's",
    ),
    _optional(
        "error_detail",
        "string",
        "Atlas's words, or ours",
        "detail, reason, parameters",
        null="there is a checkpoint: PASS or FAIL",
    ),
    _count(
        "attempts",
        "requests for this triple alone, refusals (429) not counted",
        "requests",
        "int32",
    ),
    _required("fetched_by", "string", "what answered it", values=FETCHED_BY),
    _required("input_line", "int64", "line of the input that named it first", unit="line, from 1"),
    _required("labels", "string", "the line's other columns, JSON object of texts"),
    *REPLY_COLUMNS,
)

_NONE_PASSED = "none of its checkpoints passed, or none of those says its restore point"
CLUSTERS = (
    *RUN_COLUMNS,
    *CLUSTER_COLUMNS,
    _required(
        "verdict",
        "string",
        "the worst of its checkpoints', or FAIL by a cluster rule",
        values=VERDICT,
    ),
    _count("triple_count", "distinct triples", "triples"),
    _count("pass_count", "of these PASS", "triples"),
    _count("fail_count", "of these FAIL", "triples"),
    _count("absent_count", "of these ABSENT", "triples"),
    _count("inconclusive_count", "of these INCONCLUSIVE", "triples"),
    _optional(
        "newest_restorable_at", "timestamp", "newest restore point that passed", null=_NONE_PASSED
    ),
    _optional(
        "rpo_age_s",
        "float64",
        "from it to the cluster's last reply",
        unit="seconds",
        null=_NONE_PASSED,
    ),
    _optional(
        "rpo_limit_s",
        "float64",
        "what the policy allows",
        unit="seconds",
        null="the policy sets no limit",
    ),
    _optional(
        "oldest_restorable_at", "timestamp", "oldest restore point that passed", null=_NONE_PASSED
    ),
    _optional(
        "largest_gap_s",
        "float64",
        "largest gap between neighbouring restore points that passed",
        unit="seconds",
        null="fewer than two restore points passed",
    ),
)

FINDINGS = (
    *RUN_COLUMNS,
    *CLUSTER_COLUMNS,
    _optional(
        "checkpoint_id", "string", "24 hexadecimal digits", null="the finding is on a cluster"
    ),
    _required("scope", "string", "what the rule objects to", values=SCOPE),
    _required("rule_id", "string", "the rule that objects", values=RULE_ID),
    _required("severity", "string", "how bad it is, by the policy", values=SEVERITY),
    _required("message", "string", "one sentence"),
    _required("observed", "string", "what the rule saw"),
    _required("expected", "string", "what it wanted to see"),
    _required("controls", "string", "controls it bears on, by semicolon; empty where none"),
    _optional("waiver_id", "string", "the waiver that excuses it", null="no waiver excuses it"),
    _optional("waiver_expires_at", "timestamp", "and when that ends", null="no waiver excuses it"),
)

RUNS = (
    *RUN_COLUMNS,
    _optional("parent_run_id", "string", "the run this one completes", null="it completes none"),
    _required("started_at", "timestamp", "first start, also of a run that was resumed"),
    _required("finished_at", "timestamp", "when everything had been asked"),
    _required("tool_version", "string", "version of this program"),
    _required("schema_version", "string", "version of these tables"),
    _required("rules_version", "string", "version of the rules"),
    _required("base_url", "string", "address of Atlas"),
    _required("credential_id", "string", "who asked: an id, never a secret"),
    _required("input_sha256", "string", "SHA-256 of the CSV's text, hexadecimal"),
    _required("policy_sha256", "string", "SHA-256 of the policy's text, hexadecimal"),
    _count("line_count", "lines of the input but for the header and blank ones", "lines"),
    _count("triple_count", "distinct triples", "triples"),
    _count("duplicate_count", "lines that repeat a triple", "lines"),
    _count("bad_line_count", "lines that name no checkpoint", "lines"),
    _count("pass_count", "triples that ended in PASS", "triples"),
    _count("fail_count", "in FAIL", "triples"),
    _count("absent_count", "in ABSENT", "triples"),
    _count("inconclusive_count", "in INCONCLUSIVE", "triples"),
    _count("excused_count", "of FAIL, ABSENT and INCONCLUSIVE, those that are excused", "triples"),
    _count(
        "request_count",
        "requests sent by this run, without those of authentication; the replies that it takes "
        "over from the run it completes are not counted again",
        "requests",
    ),
    _count("refusal_count", "of these answered by 429", "requests"),
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
        values=EXIT_CODE,
    ),
)

_OF_NONE = "asked for no triple alone"
REPLIES = (
    _required("run_id", "string", "the run"),
    _required("reply_id", "int64", "number in the order of arrival; unique in the run"),
    _required("purpose", "string", "what was asked for", values=PURPOSE),
    _optional("group_id", "string", "the triple it was asked for", null=_OF_NONE),
    _optional("cluster_name", "string", "the triple it was asked for", null=_OF_NONE),
    _optional("checkpoint_id", "string", "the triple it was asked for", null=_OF_NONE),
    _required("path", "string", "path and query of the request", distinct=True),
    _required("sent_at", "timestamp", "this machine's clock"),
    _required("received_at", "timestamp", "this machine's clock, whole body read"),
    _required("http_status", "int32", "as on the wire; 0 when no head arrived"),
    _optional(
        "failure_kind",
        "string",
        "what it was read as",
        null="a good answer",
        values=FAILURE_KIND,
    ),
    _optional(
        "trouble",
        "string",
        "what kept a whole answer from arriving",
        null="a whole answer arrived",
        values=TROUBLE,
    ),
    _required("trouble_detail", "string", "in words; also that a secret was taken out of it"),
    _required("headers", "string", "the kept headers, JSON object"),
    _required("body", "binary", "as received and decoded, but for secrets", distinct=True),
    _required("body_sha256", "string", "SHA-256 of body, hexadecimal", distinct=True),
)

FAILING = (
    *RUN_COLUMNS,
    *CHECKPOINT_COLUMNS,
    _required(
        "failing_since",
        "date32",
        "audit date of the first of the consecutive nights in which it fails",
        unit="day",
    ),
)

LOADS = (
    *RUN_COLUMNS,
    _required(
        "loaded_at",
        "timestamp",
        "when it was loaded, by the loading machine's clock, or by the warehouse's where the SQL "
        "of `schema` loaded it",
    ),
    _required("tool_version", "string", "version of the program that loaded it or made the SQL"),
    _required("schema_version", "string", "version of the tables that were loaded"),
    _required(
        "manifest_sha256",
        "string",
        "SHA-256 of the run's manifest, hexadecimal; empty where the SQL of `schema` loaded it, "
        "which sees no manifest",
    ),
    _optional(
        "replaced_run_id",
        "string",
        "the run whose rows it replaced",
        null="nothing was there of the slice",
    ),
    _required(
        "refusals",
        "string",
        "why it would not have been loaded without being told to; empty where nothing spoke "
        "against it",
    ),
    _count("row_count", "rows of all tables", "rows"),
)
