"""What each resource of the API says about the fleet, as plain payloads.

Field names are those of the public reference; each resource is served in one version only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pipeline.simulator.answers import Answer, invalid, problem
from pipeline.simulator.buckets import BucketRules
from pipeline.simulator.instants import text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from pipeline.simulator.faults import FaultPlan
    from pipeline.simulator.fleet import Cluster, Fleet, Project
    from pipeline.simulator.stories import Story

VERSION = "2023-01-01"
RATE_LIMIT_VERSION = "2025-03-12"
PREFIX = "/api/atlas/v2"
CHECKPOINTS = f"{PREFIX}/groups/{{groupId}}/clusters/{{clusterName}}/backupCheckpoints"
RATE_LIMITS = f"{PREFIX}/rateLimits"

MAX_ITEMS = 500
DEFAULT_ITEMS = 100

DETAILS = {
    "CHECKPOINT_NOT_FOUND": "There is no such checkpoint of this cluster.",
    "INVALID_CHECKPOINT_ID": "This is not the id of a checkpoint.",
    "BACKUP_JOB_NOT_FOUND": "Backups are not enabled for this cluster.",
    "BACKUP_CONFIG_NOT_FOUND": "This cluster has no backup configuration.",
    "CLUSTER_NOT_FOUND": "There is no such cluster in this project.",
    "GROUP_NOT_FOUND": "There is no such project.",
}
"""What Atlas means by its codes, in the simulator's words: nobody should read details anyway."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: from where, how many, and whether to count them all."""

    number: int
    items: int
    counted: bool

    @property
    def start(self) -> int:
        """The place of its first item in the whole list."""
        return (self.number - 1) * self.items


def page_of(request: web.Request) -> Page | Answer:
    """Read the paging parameters, or return the refusal of the first that is wrong."""
    items = request.query.get("itemsPerPage", str(DEFAULT_ITEMS))
    number = request.query.get("pageNum", "1")
    if not items.isdecimal() or not 1 <= int(items) <= MAX_ITEMS:
        return invalid("itemsPerPage", items, f"a number from 1 to {MAX_ITEMS}")
    if not number.isdecimal() or int(number) < 1:
        return invalid("pageNum", number, "a number from 1 on")
    counted = request.query.get("includeCount", "true").lower() == "true"
    return Page(int(number), int(items), counted)


def missing(code: str, named: str) -> Answer:
    """Return the 404 of that code about what was named."""
    return problem(404, code, DETAILS[code], [named])


def told(story: Story, named: str) -> Answer:
    """Return the error by which a story is told."""
    return problem(story.status, story.error_code, DETAILS[story.error_code], [named])


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources over one fleet. `rules` are the buckets', which the rate limits describe.

    `moved` are the clusters, by group id and name, whose lists have shifted.
    """

    fleet: Fleet
    plan: FaultPlan
    rules: BucketRules
    inspection: BucketRules
    moved: set[tuple[str, str]] = field(default_factory=set)

    def status(self, request: web.Request) -> Answer:
        """Say that the API is there."""
        key = {"publicKey": "simulated", "accessList": [], "id": f"{self.fleet.seed:024x}"}
        payload = {
            "apiKey": key,
            "appName": "MongoDB Atlas",
            "build": "simulated",
            "links": [_self_link(request)],
            "throttling": False,
        }
        return Answer(200, payload, version=VERSION)

    def groups(self, request: web.Request) -> Answer:
        """List the projects."""
        page = page_of(request)
        if isinstance(page, Answer):
            return page
        chosen = self.fleet.projects[page.start : page.start + page.items]
        results = [_project(request, one) for one in chosen]
        return self._listing(request, page, results, len(self.fleet.projects))

    def clusters(self, request: web.Request) -> Answer:
        """List a project's clusters, those without backups too."""
        page, project = page_of(request), self._project(request)
        if isinstance(page, Answer):
            return page
        every = (*project.clusters, *project.idle)
        results = [_cluster(request, one) for one in every[page.start : page.start + page.items]]
        return self._listing(request, page, results, len(every))

    def schedule(self, request: web.Request) -> Answer:
        """Say how often a cluster is backed up, and for how long that is kept."""
        cluster = self._cluster(request)
        if isinstance(cluster, Answer):
            return cluster
        payload = {
            "clusterCheckpointIntervalMin": cluster.interval_s // 60,
            "clusterId": cluster.cluster_id,
            "dailySnapshotRetentionDays": 7,
            "groupId": cluster.group_id,
            "links": [_self_link(request)],
            "monthlySnapshotRetentionMonths": 12,
            "pointInTimeWindowHours": 24,
            "snapshotIntervalHours": 6,
            "snapshotRetentionDays": 2,
            "weeklySnapshotRetentionWeeks": 4,
        }
        return Answer(200, payload, version=VERSION)

    def checkpoint(self, request: web.Request) -> Answer:
        """Return one checkpoint, or the error that stands for it."""
        cluster = self._cluster(request)
        if isinstance(cluster, Answer):
            return cluster
        checkpoint_id = request.match_info["checkpointId"]
        found = self.fleet.checkpoint(cluster, checkpoint_id)
        if found is None:
            return missing("CHECKPOINT_NOT_FOUND", checkpoint_id)
        if not found.story.listed:
            return self._told(found.story, checkpoint_id)
        payload = {**self.fleet.body(found), "links": [_self_link(request)]}
        return Answer(200, payload, version=VERSION)

    def checkpoints(self, request: web.Request) -> Answer:
        """List a cluster's checkpoints, newest first.

        One on which a lasting fault lies is left out: only its own address shows what is wrong.
        """
        page, cluster = page_of(request), self._cluster(request)
        if isinstance(page, Answer):
            return page
        if isinstance(cluster, Answer):
            return cluster
        places = self.fleet.listed(cluster)
        key = (cluster.group_id, cluster.name)
        if page.number > 1:
            self.moved.add(key)
        shift = self.plan.page_shift if key in self.moved else 0
        start = max(0, page.start + shift)
        results = self._bodies(request, cluster, places[start : start + page.items])
        return self._listing(request, page, results, len(places) + self.plan.count_error)

    def rate_limits(self, request: web.Request) -> Answer:
        """Say what limits there are: the user's, and with `groupId` that project's."""
        page = page_of(request)
        if isinstance(page, Answer):
            return page
        if self.plan.rate_limits_refused:
            return problem(403, "ACCESS_FORBIDDEN", "The rate limits are not for you to see.")
        group_id = request.query.get("groupId")
        if group_id is not None and self.fleet.project(group_id) is None:
            return missing("GROUP_NOT_FOUND", group_id)
        sets = [_limit("Rate Limits Inspection", [RATE_LIMITS], self.inspection, "USER")]
        if group_id is not None:
            paths = [CHECKPOINTS, f"{CHECKPOINTS}/{{checkpointId}}"]
            sets.append(_limit("Legacy Backup", paths, self.rules.of(group_id), "GROUP"))
        name = request.query.get("name")
        named = [one for one in sets if name in (None, one["endpointSetName"])]
        shown = named[page.start : page.start + page.items]
        return self._listing(request, page, shown, len(named), version=RATE_LIMIT_VERSION)

    def _project(self, request: web.Request) -> Project:
        project = self.fleet.project(request.match_info["groupId"])
        if project is None:
            raise LookupError("a project is looked for before its resources are")
        return project

    def _cluster(self, request: web.Request) -> Cluster | Answer:
        """Return the cluster in the path, or the error that stands for it."""
        name = request.match_info["clusterName"]
        cluster = self.fleet.cluster(request.match_info["groupId"], name)
        if cluster is None:
            return missing("CLUSTER_NOT_FOUND", name)
        return cluster if cluster.ghost is None else told(cluster.ghost, name)

    def _told(self, story: Story, checkpoint_id: str) -> Answer:
        """Tell of a checkpoint that is not there.

        A story about a cluster or a project is told under another name or id; under this one the
        checkpoint is merely absent.
        """
        absent = story.error_code not in {"CHECKPOINT_NOT_FOUND", "INVALID_CHECKPOINT_ID"}
        return missing("CHECKPOINT_NOT_FOUND" if absent else story.error_code, checkpoint_id)

    def _bodies(
        self, request: web.Request, cluster: Cluster, places: Sequence[int]
    ) -> list[dict[str, Any]]:
        found = (self.fleet.at(cluster, place) for place in places)
        return [
            {**self.fleet.body(one), "links": [_link(request, "self", one.checkpoint_id)]}
            for one in found
            if one.checkpoint_id not in self.plan.checkpoints
        ]

    def _listing(
        self,
        request: web.Request,
        page: Page,
        results: list[dict[str, Any]],
        total: int,
        *,
        version: str = VERSION,
    ) -> Answer:
        payload: dict[str, Any] = {"links": _page_links(request, page, total), "results": results}
        if page.counted:
            payload["totalCount"] = max(0, total)
        return Answer(200, payload, version=version, listing=True)


def _origin(request: web.Request) -> str:
    return f"http://{request.host}"


def _self_link(request: web.Request) -> dict[str, str]:
    return {"href": f"{_origin(request)}{request.raw_path}", "rel": "self"}


def _link(request: web.Request, rel: str, below: str) -> dict[str, str]:
    path = request.rel_url.raw_path
    return {"href": f"{_origin(request)}{path}/{below}", "rel": rel}


def _page_links(request: web.Request, page: Page, total: int) -> list[dict[str, str]]:
    """Return the links of a page: itself, and its neighbours where there are any."""
    neighbours = {
        "previous": page.number - 1 if page.number > 1 else None,
        "next": page.number + 1 if page.start + page.items < total else None,
    }
    links = [_self_link(request)]
    for rel, number in neighbours.items():
        if number is not None:
            target = request.rel_url.update_query(pageNum=str(number))
            links.append({"href": f"{_origin(request)}{target}", "rel": rel})
    return links


def _project(request: web.Request, project: Project) -> dict[str, Any]:
    return {
        "clusterCount": len(project.clusters) + len(project.idle),
        "created": _created(project.group_id),
        "id": project.group_id,
        "links": [_link(request, "self", project.group_id)],
        "name": project.name,
        "orgId": "5111000000000000000000a1",
    }


def _cluster(request: web.Request, cluster: Cluster) -> dict[str, Any]:
    return {
        "backupEnabled": cluster.ghost is None,
        "clusterType": "SHARDED" if cluster.shards else "REPLICASET",
        "createDate": _created(cluster.cluster_id),
        "groupId": cluster.group_id,
        "id": cluster.cluster_id,
        "links": [_link(request, "self", cluster.name)],
        "mongoDBMajorVersion": "4.0",
        "name": cluster.name,
        "numShards": max(1, cluster.shards),
        "stateName": "IDLE",
    }


def _limit(
    name: str, paths: Sequence[str], rules: BucketRules, scope: Literal["GROUP", "USER"]
) -> dict[str, Any]:
    default = BucketRules() if scope == "GROUP" else rules
    return {
        "capacity": {"defaultValue": default.capacity, "value": rules.capacity},
        "endpointSetId": f"{name.replace(' ', '')}_{scope.lower()}",
        "endpointSetName": name,
        "endpoints": [{"method": "GET", "path": path} for path in paths],
        "refillDurationSeconds": {"defaultValue": default.duration, "value": rules.duration},
        "refillRate": {"defaultValue": default.refill_rate, "value": rules.refill_rate},
        "scope": scope,
    }


def _created(object_id: str) -> str:
    return text_of(int(object_id[:8], 16))
