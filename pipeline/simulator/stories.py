"""What can be true of one checkpoint, and the verdict and findings that a sound audit has of it.

A story is planted by changing a healthy body, so a sick body differs from a healthy one in its
sickness alone. What is expected follows plain rules, written down here a second time and on purpose
without the auditing code; of thresholds, those of the default policy hold:

* FAIL: `restorable` is not true; a part's token is not reported as discovered; there are no parts;
  several shard parts come without a config part; a shard is not there that the checkpoints beside
  it have; `completed` is missing or lies before `started`; tokens lie more than a minute apart, or
  more than a quarter of an hour from `timestamp`; a time lies in the future.
* ABSENT: Atlas says by its own code that there is no such checkpoint, or no backup of the cluster.
* INCONCLUSIVE: the answer is not about the checkpoint that was asked for.
* PASS: everything else, however odd it looks; with a finding for a part twice or of a kind unknown,
  for a run of more than an hour, and for one of more than ten minutes beside others that took none.

What follows for a cluster from its checkpoints is told by `cluster_findings`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipeline.simulator.instants import seconds_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

Verdict = Literal["PASS", "FAIL", "ABSENT", "INCONCLUSIVE"]
Body = dict[str, Any]

CONFIG_TYPES = frozenset({"CONFIG_SERVER", "CONFIG_SERVER_REPLICA_SET"})
CENTURY_S = 100 * 365 * 86_400


@dataclass(frozen=True, slots=True)
class Story:
    """One thing that can be true of a checkpoint.

    `findings` are the ids of the rules that object. `plant` turns a healthy body into this story's.
    A story without one is told by an error instead: `status` and `error_code` say which.

    Where the story makes sense: `min_shards` is the least number of shards of a cluster (0: replica
    sets too), `min_checkpoints` of its checkpoints, and `beside_healthy` says that the checkpoints
    before and after it must be healthy, for a comparison with them.
    """

    code: str
    verdict: Verdict
    findings: frozenset[str] = frozenset()
    plant: Callable[[Body], None] | None = None
    min_shards: int = 0
    min_checkpoints: int = 0
    beside_healthy: bool = False
    status: int = 200
    error_code: str = ""

    @property
    def listed(self) -> bool:
        """Whether the list of the cluster's checkpoints has an entry for it."""
        return self.plant is not None


STORIES: dict[str, Story] = {}
"""Every story by its code."""


def _planted(
    verdict: Verdict,
    *findings: str,
    min_shards: int = 0,
    min_checkpoints: int = 0,
    beside_healthy: bool = False,
) -> Callable[..., Callable[[Body], None]]:
    """Enter the decorated change of a healthy body as a story named after the function."""

    def enter(plant: Callable[[Body], None]) -> Callable[[Body], None]:
        code = plant.__name__.replace("_", "-")
        where = (min_shards, min_checkpoints, beside_healthy)
        STORIES[code] = Story(code, verdict, frozenset(findings), plant, *where)
        return plant

    return enter


def _told_by_error(code: str, verdict: Verdict, status: int, error_code: str) -> None:
    STORIES[code] = Story(code, verdict, status=status, error_code=error_code)


def _config_part(body: Body) -> Body:
    return next(part for part in body["parts"] if part["typeName"] in CONFIG_TYPES)


def _shard_part(body: Body) -> Body:
    return next(part for part in body["parts"] if part["typeName"] not in CONFIG_TYPES)


# ── healthy, in every form that Atlas was seen to use ────────────────────────────────────────────


@_planted("PASS")
def healthy_replica_set(body: Body) -> None:
    """One part, its token discovered."""


@_planted("PASS", min_shards=1)
def healthy_sharded(body: Body) -> None:
    """Every shard and the config servers, every token discovered."""


@_planted("PASS", min_shards=1)
def old_config_server(body: Body) -> None:
    """The older form of the config part: another type, a host instead of a replica set."""
    part = _config_part(body)
    part["typeName"] = "CONFIG_SERVER"
    del part["replicaSetName"]
    part["hostId"] = "3f2a9c41d07be85512aa90c4e1d6b7f0"


@_planted("PASS", "unknown-part")
def unknown_type_name(body: Body) -> None:
    """A part of a kind that no reference names."""
    _shard_part(body)["typeName"] = "EMBEDDED_CONFIG_SHARD"


@_planted("PASS")
def unknown_fields(body: Body) -> None:
    """Fields that no reference names, in the checkpoint and in a part."""
    body["snapshotStoreId"] = "store-9"
    body["parts"][0]["oplogWindow"] = {"hours": 36, "exact": False, "sources": [None, 1, "two"]}


@_planted("PASS")
def null_fields(body: Body) -> None:
    """Fields without a value sent as null rather than left out."""
    body["clusterId"] = None
    body["timestamp"] = None
    body["parts"][0]["replicaSetName"] = None
    body["parts"][0]["tokenTimestamp"]["increment"] = None


@_planted("PASS")
def missing_fields(body: Body) -> None:
    """Fields that no verdict hangs on left out."""
    del body["clusterId"], body["timestamp"]
    body["parts"][0].pop("replicaSetName", None)
    del body["parts"][0]["tokenTimestamp"]["increment"]


@_planted("PASS")
def fractional_times(body: Body) -> None:
    """Times with fractions of a second, and one with an offset instead of Z."""
    body["started"] = body["started"].replace("Z", ".000Z")
    body["completed"] = body["completed"].replace("Z", ".250+00:00")


@_planted("PASS")
def wide_increment(body: Body) -> None:
    """An ordinal beyond the signed 32 bits of the reference; a BSON time has 32 without a sign."""
    body["parts"][0]["tokenTimestamp"]["increment"] = 4_294_967_295


@_planted("PASS", min_shards=1)
def hostile_names(body: Body) -> None:
    """Names that a spreadsheet would run and a careless page would execute.

    Of the config servers, for under another name a shard would be another shard.
    """
    _config_part(body)["replicaSetName"] = '=HYPERLINK("http://attacker.invalid","open")'
    _config_part(body)["shardName"] = "<script>alert(1)</script>"


# ── sicknesses that nobody can restore from ──────────────────────────────────────────────────────


@_planted("FAIL", "restorable-false")
def not_restorable(body: Body) -> None:
    """Atlas says that it cannot be restored."""
    body["restorable"] = False


@_planted("FAIL", "restorable-not-reported")
def restorable_missing(body: Body) -> None:
    """Atlas does not say whether it can be restored."""
    del body["restorable"]


@_planted("FAIL", "restorable-not-reported")
def restorable_null(body: Body) -> None:
    """Atlas says null where it should say whether it can be restored."""
    body["restorable"] = None


@_planted("FAIL", "restorable-false", "token-not-discovered")
def token_undiscovered(body: Body) -> None:
    """One part's token was not seen, and Atlas says that the whole cannot be restored."""
    body["parts"][-1]["tokenDiscovered"] = False
    body["restorable"] = False


@_planted("FAIL", "token-not-discovered", "restorable-contradicts-tokens")
def contradiction(body: Body) -> None:
    """One part's token was not seen, and Atlas calls the whole restorable all the same."""
    body["parts"][-1]["tokenDiscovered"] = False


@_planted("FAIL", "token-not-discovered")
def token_missing(body: Body) -> None:
    """One part says nothing about its token."""
    del body["parts"][-1]["tokenDiscovered"], body["parts"][-1]["tokenTimestamp"]


@_planted("FAIL", "token-not-discovered")
def token_null(body: Body) -> None:
    """One part says null about its token."""
    body["parts"][-1]["tokenDiscovered"] = None
    body["parts"][-1]["tokenTimestamp"] = None


@_planted("FAIL", "no-parts")
def no_parts(body: Body) -> None:
    """A checkpoint of nothing."""
    body["parts"] = []


@_planted("FAIL", "no-parts")
def parts_missing(body: Body) -> None:
    """No word about parts."""
    del body["parts"]


@_planted("FAIL", "no-config-part", min_shards=2)
def no_config_part(body: Body) -> None:
    """Several shards and no config servers: nothing says where the chunks were."""
    body["parts"].remove(_config_part(body))


@_planted("FAIL", "completed-missing")
def completed_missing(body: Body) -> None:
    """The balancer was never reported to run again."""
    del body["completed"]


@_planted("FAIL", "completed-before-started")
def completed_before_started(body: Body) -> None:
    """It ended ten minutes before it began."""
    body["completed"] = text_of(seconds_of(body["started"]) - 600)


@_planted("FAIL", "shard-missing", min_shards=2, beside_healthy=True)
def missing_shard(body: Body) -> None:
    """A shard that the cluster's other checkpoints have is not there."""
    body["parts"].remove(_shard_part(body))


@_planted("FAIL", "token-spread", min_shards=1)
def wide_token_spread(body: Body) -> None:
    """One shard's token was written ten minutes after the others'."""
    token = _shard_part(body)["tokenTimestamp"]
    token["date"] = text_of(seconds_of(token["date"]) + 600)


@_planted("FAIL", "token-distance")
def far_restore_point(body: Body) -> None:
    """The moment it restores to lies two hours before its tokens."""
    body["timestamp"] = text_of(seconds_of(body["timestamp"]) - 2 * 3600)


@_planted("FAIL", "clock-in-future")
def future_clock(body: Body) -> None:
    """Every time in it lies a century ahead of the id's own."""
    for field in ("started", "completed", "timestamp"):
        body[field] = text_of(seconds_of(body[field]) + CENTURY_S)
    for part in body["parts"]:
        token = part["tokenTimestamp"]
        token["date"] = text_of(seconds_of(token["date"]) + CENTURY_S)


# ── oddities: worth a finding, no reason to fail ─────────────────────────────────────────────────


@_planted("PASS", "duplicate-part", min_shards=1)
def duplicated_part(body: Body) -> None:
    """One shard is there twice."""
    body["parts"].append(copy.deepcopy(_shard_part(body)))


@_planted("PASS", "duplicate-part", min_shards=1)
def two_config_parts(body: Body) -> None:
    """The config servers are there twice, under two names."""
    second = copy.deepcopy(_config_part(body))
    second["replicaSetName"] += "-b"
    body["parts"].append(second)


@_planted("PASS", "unknown-part")
def nameless_part(body: Body) -> None:
    """A part tells neither its kind nor its replica set."""
    part = _shard_part(body)
    del part["typeName"], part["replicaSetName"]


@_planted("PASS", "run-time-too-long", "run-time-unusual", min_checkpoints=8)
def long_run_time(body: Body) -> None:
    """The balancer stood still for six hours."""
    body["completed"] = text_of(seconds_of(body["started"]) + 6 * 3600)


@_planted("PASS", "run-time-unusual", min_checkpoints=8)
def unusual_run_time(body: Body) -> None:
    """The balancer stood still for half an hour, which it never does in this cluster."""
    body["completed"] = text_of(seconds_of(body["started"]) + 1800)


# ── answers that are not about the checkpoint ────────────────────────────────────────────────────


@_planted("INCONCLUSIVE")
def other_checkpoint(body: Body) -> None:
    """A healthy answer under an id that nobody asked for, nor any triple names."""
    body["id"] = body["id"][:8] + body["id"][:7:-1]


_told_by_error("absent", "ABSENT", 404, "CHECKPOINT_NOT_FOUND")
_told_by_error("invalid-checkpoint-id", "ABSENT", 404, "INVALID_CHECKPOINT_ID")
_told_by_error("backups-not-enabled", "ABSENT", 400, "BACKUP_JOB_NOT_FOUND")
_told_by_error("backup-config-not-found", "ABSENT", 404, "BACKUP_CONFIG_NOT_FOUND")
_told_by_error("cluster-not-found", "INCONCLUSIVE", 404, "CLUSTER_NOT_FOUND")
_told_by_error("project-not-found", "INCONCLUSIVE", 404, "GROUP_NOT_FOUND")

HEALTHY = (STORIES["healthy-replica-set"], STORIES["healthy-sharded"])
NOT_RESTORABLE = STORIES["not-restorable"]

# An id that is not there any more is by far the most usual trouble with real inputs.
CYCLE: tuple[Story, ...] = (
    *(story for story in STORIES.values() if story not in HEALTHY),
    *[STORIES["absent"]] * 3,
    *[NOT_RESTORABLE] * 2,
)
"""The stories in the proportion in which a fleet's troubles are dealt out."""


def cluster_findings(checkpoints: Iterable[tuple[str, Collection[str]]]) -> frozenset[str]:
    """Return the rules that object to a cluster whose checkpoints, oldest first, end like this.

    Each is told by its verdict and the rules that object to it. By the default policy there are
    two: nothing is restorable, and nothing is left that may be; and the newest that is there lacks
    a shard, so that nobody knows whether the shard will come back.
    """
    every = list(checkpoints)
    there = [findings for verdict, findings in every if verdict != "ABSENT"]
    found = {
        "no-restorable-checkpoint": not {"PASS", "INCONCLUSIVE"}
        & {verdict for verdict, _ in every},
        "shards-gone": bool(there) and "shard-missing" in there[-1],
    }
    return frozenset(rule_id for rule_id, objects in found.items() if objects)
