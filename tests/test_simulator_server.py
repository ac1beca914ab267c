"""The simulated API over real HTTP: what it answers, and in which form."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from yarl import URL

from pipeline.simulator import BucketRules, Credentials, FaultPlan, Fleet, serve
from pipeline.simulator.stories import STORIES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pipeline.simulator.fleet import Triple
    from pipeline.simulator.server import Simulator

MEDIA = "application/vnd.atlas.2023-01-01+json"
HEADERS = {"Accept": MEDIA, "Authorization": f"Bearer {Credentials().access_token}"}
RATE_LIMIT_HEADERS = {"Accept": "application/vnd.atlas.2025-03-12+json"}
GROUPS = "/api/atlas/v2/groups"
GHOST = "0" * 24


@cache
def large() -> Fleet:
    """Return a fleet in which every story comes up."""
    return Fleet.seeded(projects=10, clusters=10, checkpoints=50)


@cache
def told() -> dict[str, Triple]:
    """Return a triple for every story."""
    return {triple.story: triple for triple in large().triples()}


def path(triple: Triple) -> str:
    return f"{list_path(triple)}/{triple.checkpoint_id}"


def list_path(triple: Triple) -> str:
    return f"{GROUPS}/{triple.group_id}/clusters/{triple.cluster_name}/backupCheckpoints"


@asynccontextmanager
async def running(
    fleet: Fleet | None = None, **options: Any
) -> AsyncIterator[tuple[Simulator, aiohttp.ClientSession]]:
    """Serve a fleet, with a client that is let in."""
    async with (
        serve(fleet or large(), **options) as simulator,
        aiohttp.ClientSession(simulator.base_url, headers=HEADERS) as client,
    ):
        yield simulator, client


async def asked(
    client: aiohttp.ClientSession, target: str, **headers: str
) -> tuple[aiohttp.ClientResponse, Any]:
    """Return a reply and its JSON."""
    async with client.get(target, headers=headers) as reply:
        return reply, await reply.json(content_type=None)


# ── one checkpoint ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", STORIES)
async def test_every_story_over_http(code: str) -> None:
    """A listed story is a 200 with its body and links; the others are their status and code."""
    triple, story = told()[code], STORIES[code]
    async with running() as (simulator, client):
        reply, body = await asked(client, path(triple))

        assert reply.status == story.status
        if story.listed:
            assert body["links"] == [{"href": simulator.base_url + path(triple), "rel": "self"}]
            assert reply.headers["Content-Type"] == f"{MEDIA};charset=utf-8"
        else:
            assert body["error"] == story.status
            assert body["errorCode"] == story.error_code
            assert reply.headers["Content-Type"] == "application/json"


async def test_an_unknown_checkpoint_is_not_found() -> None:
    """An id that no triple names is absent, and costs a token like a real one."""
    triple = large().triple(0)
    async with running() as (_, client):
        reply, body = await asked(client, f"{list_path(triple)}/{GHOST}")

        assert (reply.status, body["errorCode"]) == (404, "CHECKPOINT_NOT_FOUND")
        assert reply.headers["RateLimit-Remaining"] == "1199"


async def test_a_story_about_a_cluster_is_told_there_only() -> None:
    """Under its own cluster, the id of a checkpoint that was asked elsewhere is merely absent."""
    triple = told()["backups-not-enabled"]
    cluster = next(
        one
        for project in large().projects
        for one in project.clusters
        if large().checkpoint(one, triple.checkpoint_id) is not None
    )
    async with running() as (_, client):
        target = f"{GROUPS}/{cluster.group_id}/clusters/{cluster.name}/backupCheckpoints"
        _, body = await asked(client, f"{target}/{triple.checkpoint_id}")

        assert body["errorCode"] == "CHECKPOINT_NOT_FOUND"


@pytest.mark.parametrize(
    ("target", "field"),
    [
        (f"{GROUPS}/XYZ/clusters/c/backupCheckpoints/{GHOST}", "groupId"),
        (f"{GROUPS}/{GHOST.upper()}A/clusters/c/backupCheckpoints/{GHOST}", "groupId"),
        (f"{GROUPS}/{GHOST}/clusters/c/backupCheckpoints/12", "checkpointId"),
        (f"{GROUPS}/{GHOST}/clusters/c/backupCheckpoints/{GHOST}%0A", "checkpointId"),
        (f"{GROUPS}/{GHOST}/clusters/-c/backupCheckpoints/{GHOST}", "clusterName"),
        (f"{GROUPS}/{GHOST}/clusters/a%2Fb/backupCheckpoints", "clusterName"),
    ],
)
async def test_a_malformed_path_is_a_bad_request(target: str, field: str) -> None:
    """VALIDATION_ERROR names the field; its parameters mix types; no token is spent."""
    async with running() as (simulator, client):
        async with client.get(URL(simulator.base_url + target, encoded=True)) as reply:
            body = await reply.json()

        assert (reply.status, body["errorCode"]) == (400, "VALIDATION_ERROR")
        assert [one["field"] for one in body["badRequestDetail"]["fields"]] == [field]
        assert len({type(one) for one in body["parameters"]}) > 1


async def test_an_unknown_project_says_nothing_about_limits() -> None:
    """GROUP_NOT_FOUND comes without RateLimit headers."""
    async with running() as (_, client):
        reply, body = await asked(client, f"{GROUPS}/{GHOST}/clusters/c/backupCheckpoints/{GHOST}")

        assert (reply.status, body["errorCode"]) == (404, "GROUP_NOT_FOUND")
        assert "RateLimit-Limit" not in reply.headers


@pytest.mark.parametrize("target", ["/", "/api/atlas/v1.0/groups", f"{GROUPS}/{GHOST}/nothing"])
async def test_an_unknown_resource_is_not_found(target: str) -> None:
    """RESOURCE_NOT_FOUND, not a bare page of the server's."""
    async with running() as (_, client):
        reply, body = await asked(client, target)

        assert (reply.status, body["errorCode"]) == (404, "RESOURCE_NOT_FOUND")


# ── media types and forms ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (MEDIA, 200),
        ("application/vnd.atlas.2024-08-05+json", 200),
        ("application/vnd.atlas.2999-12-31+json", 200),
        (f"text/html, {MEDIA};q=0.5", 200),
        ("application/vnd.atlas.2022-12-31+json", 406),
        ("application/vnd.atlas.2023-02-30+json", 406),
        ("application/vnd.atlas.2023-1-1+json", 406),
        ("application/vnd.atlas+json", 406),
        ("application/json", 406),
        ("*/*", 406),
        ("", 406),
    ],
)
async def test_the_version_is_negotiated(accept: str, status: int) -> None:
    """The resource's date or a later one is served as the resource's; all else is 406."""
    async with running() as (_, client):
        reply, body = await asked(client, path(told()["healthy-sharded"]), Accept=accept)

        assert reply.status == status
        if status == 406:
            assert body["errorCode"] == "INVALID_VERSION_DATE"
        else:
            assert reply.headers["Content-Type"] == f"{MEDIA};charset=utf-8"


async def test_an_envelope_holds_status_and_content() -> None:
    """One entity is wrapped, and the HTTP status is 200."""
    triple = told()["healthy-sharded"]
    async with running() as (_, client):
        reply, body = await asked(client, f"{path(triple)}?envelope=true")

        assert (reply.status, body["status"]) == (200, 200)
        assert body["content"]["id"] == triple.checkpoint_id


async def test_an_envelope_holds_errors_too() -> None:
    """The true status of an error is inside; outside it is 200."""
    async with running() as (_, client):
        reply, body = await asked(client, f"{path(told()['absent'])}?envelope=true")

        assert (reply.status, body["status"]) == (200, 404)
        assert body["content"]["errorCode"] == "CHECKPOINT_NOT_FOUND"


async def test_an_enveloped_list_only_gains_its_status() -> None:
    """Results stay where they are."""
    async with running() as (_, client):
        _, body = await asked(client, f"{list_path(large().triple(0))}?envelope=true")

        assert body["status"] == 200
        assert body["results"]


async def test_an_envelope_does_not_hide_a_challenge() -> None:
    """A 401 stays a 401, or Digest would never begin."""
    async with running() as (_, client):
        reply, _ = await asked(client, f"{GROUPS}?envelope=true", Authorization="")

        assert reply.status == 401


async def test_pretty_is_indented() -> None:
    """The same JSON over several lines."""
    target = path(told()["healthy-sharded"])
    async with running() as (_, client):
        async with client.get(f"{target}?pretty=true") as pretty, client.get(target) as plain:
            indented, dense = await pretty.text(), await plain.text()

        assert indented.count("\n") > 10 > dense.count("\n")
        assert json.loads(indented)["parts"] == json.loads(dense)["parts"]


async def test_large_answers_are_compressed_for_who_asks() -> None:
    """A page is gzip to those who take it and plain to others; a small error is always plain."""
    target = list_path(told()["healthy-sharded"])
    async with running() as (_, client):
        packed, body = await asked(client, target, **{"Accept-Encoding": "gzip"})
        plain, same = await asked(client, target, **{"Accept-Encoding": "identity"})
        small, _ = await asked(client, path(told()["absent"]), **{"Accept-Encoding": "gzip"})

        assert packed.headers.get("Content-Encoding") == "gzip"
        assert "Content-Encoding" not in plain.headers
        assert "Content-Encoding" not in small.headers
        assert body == same


async def test_good_answers_announce_the_end() -> None:
    """Deprecation and Sunset are HTTP dates on good answers, and not on errors."""
    plan = FaultPlan(
        deprecated_on=datetime(2026, 1, 2, tzinfo=UTC), sunset_on=datetime(2027, 1, 2, tzinfo=UTC)
    )
    async with running(faults=plan) as (_, client):
        good, _ = await asked(client, path(told()["healthy-sharded"]))
        bad, _ = await asked(client, path(told()["absent"]))

        assert good.headers["Deprecation"] == "Fri, 02 Jan 2026 00:00:00 GMT"
        assert good.headers["Sunset"] == "Sat, 02 Jan 2027 00:00:00 GMT"
        assert "Sunset" not in bad.headers


# ── lists ────────────────────────────────────────────────────────────────────────────────────────


async def pages(client: aiohttp.ClientSession, target: str) -> list[Any]:
    """Follow rel=next from the first page to the last."""
    found = []
    following: str | None = target
    while following:
        _, body = await asked(client, following)
        found.append(body)
        links = {link["rel"]: link["href"] for link in body["links"]}
        following = links.get("next", "").partition(str(client._base_url).rstrip("/"))[2]
    return found


async def test_pages_make_up_the_list() -> None:
    """Every listed checkpoint comes once, newest first, with the body that its own address has."""
    triple = told()["absent"]
    listed = [
        one.checkpoint_id
        for one in large().triples()
        if (one.group_id, one.cluster_name) == (triple.group_id, triple.cluster_name)
        and STORIES[one.story].listed
        and one.story != "other-checkpoint"
    ]
    async with running() as (_, client):
        found = await pages(client, f"{list_path(triple)}?itemsPerPage=20&pageNum=1")
        results = [one for page in found for one in page["results"]]
        ids = [one["id"] for one in results if one["id"] in listed]
        _, alone = await asked(client, f"{list_path(triple)}/{listed[0]}")

        assert ids == listed
        assert len(found) == 3
        assert {page["totalCount"] for page in found} == {len(results)}
        assert results[[one["id"] for one in results].index(listed[0])] == alone


async def test_links_name_the_neighbours() -> None:
    """The first page has no previous one, the last no next one."""
    async with running() as (_, client):
        found = await pages(client, f"{list_path(large().triple(0))}?itemsPerPage=20")
        rels = [{link["rel"] for link in page["links"]} for page in found]

        assert rels == [{"self", "next"}, {"self", "previous", "next"}, {"self", "previous"}]


async def test_a_page_is_a_hundred_items_unless_asked() -> None:
    """`itemsPerPage` is 100 by default; a page beyond the end is empty."""
    fleet = Fleet.seeded(projects=1, clusters=1, checkpoints=130)
    target = list_path(fleet.triple(0))
    async with running(fleet) as (_, client):
        _, first = await asked(client, target)
        _, beyond = await asked(client, f"{target}?pageNum=9")

        assert len(first["results"]) == 100
        assert beyond["results"] == []


async def test_counting_is_optional() -> None:
    """Without `includeCount` there is no totalCount."""
    async with running() as (_, client):
        _, body = await asked(client, f"{list_path(large().triple(0))}?includeCount=false")

        assert "totalCount" not in body


@pytest.mark.parametrize(
    "query", ["itemsPerPage=0", "itemsPerPage=501", "itemsPerPage=x", "pageNum=0", "pageNum=-1"]
)
async def test_a_wrong_page_is_a_bad_request(query: str) -> None:
    """Pages hold 1 to 500 items and are numbered from 1."""
    async with running() as (_, client):
        for target in (GROUPS, list_path(large().triple(0))):
            reply, body = await asked(client, f"{target}?{query}")

            assert (reply.status, body["errorCode"]) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize(("shift", "difference"), [(1, -1), (-1, 1)])
async def test_pages_can_shift_while_they_are_read(shift: int, difference: int) -> None:
    """With a shift, an item between two pages is missed, or comes twice.

    Who asks for the first page again finds what has moved onto it.
    """
    target = f"{list_path(large().triple(0))}?itemsPerPage=40&pageNum="
    async with running() as (_, client):
        still = [(await asked(client, f"{target}{n}"))[1]["results"] for n in (1, 2)]
    async with running(faults=FaultPlan(page_shift=shift, count_error=5)) as (_, client):
        bodies = [(await asked(client, f"{target}{n}"))[1] for n in (1, 2)]
        moved = [body["results"] for body in bodies]
        again = (await asked(client, f"{target}1"))[1]["results"]

        assert [one["id"] for one in moved[0]] == [one["id"] for one in still[0]]
        assert len(moved[1]) - len(still[1]) == difference
        assert (again == moved[0]) is (shift < 0)
        assert again[0]["id"] == moved[0][max(0, shift)]["id"]
        assert bodies[0]["totalCount"] == sum(map(len, still)) + 5


async def test_projects_and_clusters_can_be_walked() -> None:
    """From the projects to the clusters to the checkpoints, everything of the fleet is found."""
    fleet = Fleet.seeded()
    seen = set()
    async with running(fleet) as (_, client):
        _, groups = await asked(client, f"{GROUPS}?itemsPerPage=500")
        for group in groups["results"]:
            _, clusters = await asked(client, f"{GROUPS}/{group['id']}/clusters")
            seen |= {(group["id"], one["name"]) for one in clusters["results"]}
            assert group["clusterCount"] == clusters["totalCount"]

    regular = {
        (one.group_id, one.cluster_name)
        for one in fleet.triples()
        if one.story not in {"cluster-not-found", "project-not-found"}
    }
    assert regular <= seen
    assert groups["totalCount"] == len(fleet.projects)


async def test_clusters_without_backups_are_there() -> None:
    """They are listed as clusters, and their checkpoints answer with an error of their own."""
    group_id = large().projects[0].group_id
    async with running() as (_, client):
        _, clusters = await asked(client, f"{GROUPS}/{group_id}/clusters")
        idle = [one["name"] for one in clusters["results"] if not one["backupEnabled"]]
        codes = set()
        for name in idle:
            base = f"{GROUPS}/{group_id}/clusters/{name}"
            for target in (f"{base}/backupCheckpoints", f"{base}/snapshotSchedule"):
                codes.add((await asked(client, target))[1]["errorCode"])

        assert codes == {"BACKUP_JOB_NOT_FOUND", "BACKUP_CONFIG_NOT_FOUND"}


async def test_the_schedule_says_the_interval() -> None:
    """Checkpoints are 15, 30 or 60 minutes apart, as the schedule says."""
    cluster = large().projects[0].clusters[0]
    async with running() as (_, client):
        target = f"{GROUPS}/{cluster.group_id}/clusters/{cluster.name}/snapshotSchedule"
        _, body = await asked(client, target)

        assert body["clusterCheckpointIntervalMin"] * 60 == cluster.interval_s
        assert body["clusterCheckpointIntervalMin"] in {15, 30, 60}


async def test_the_root_says_that_it_is_there() -> None:
    """The system status is a cheap way to see that credentials are good."""
    async with running() as (_, client):
        reply, body = await asked(client, "/api/atlas/v2")

        assert (reply.status, body["appName"]) == (200, "MongoDB Atlas")


# ── limits ───────────────────────────────────────────────────────────────────────────────────────


async def test_get_and_list_share_a_bucket() -> None:
    """Every answer but a refused credential and an unknown project counts the tokens left."""
    triple = large().triple(0)
    async with running() as (_, client):
        left = [
            (await asked(client, target))[0].headers["RateLimit-Remaining"]
            for target in (path(triple), list_path(triple), f"{list_path(triple)}/{GHOST}")
        ]

        assert left == ["1199", "1198", "1197"]


async def test_an_empty_bucket_refuses() -> None:
    """429 with Retry-After, the limit, and parameters that teach the whole bucket."""
    triple = large().triple(0)
    rules = BucketRules(capacity=1, refill_rate=2, refill_duration=60)
    async with running(buckets=rules, clock=lambda: 0.0) as (simulator, client):
        await asked(client, path(triple))
        reply, body = await asked(client, path(triple))

        assert (reply.status, body["errorCode"]) == (429, "RATE_LIMITED_TOKEN_BUCKET")
        assert body["parameters"] == [path(triple), 60, 1, 2, 60]
        assert reply.headers["Retry-After"] == "60"
        assert reply.headers["RateLimit-Limit"] == "1"
        assert reply.headers["RateLimit-Remaining"] == "0"
        assert simulator.requests[triple.group_id, 429] == 1


async def test_the_second_form_of_a_refusal() -> None:
    """RATE_LIMITED gives the path, the number and the minutes."""
    triple = large().triple(0)
    rules = BucketRules(capacity=1, form="RATE_LIMITED")
    async with running(buckets=rules) as (_, client):
        await asked(client, path(triple))
        _, body = await asked(client, path(triple))

        assert body["errorCode"] == "RATE_LIMITED"
        assert body["parameters"] == [path(triple), 500, 1]


async def test_headers_can_be_left_out() -> None:
    """Nothing is ever promised about RateLimit headers."""
    async with running(buckets=BucketRules(headers=False)) as (_, client):
        reply, _ = await asked(client, path(large().triple(0)))

        assert "RateLimit-Limit" not in reply.headers


async def test_the_rate_limits_tell_the_rules() -> None:
    """With a project and a name there is one set, with that project's values and the defaults."""
    group_id = large().projects[0].group_id
    rules = BucketRules(overrides={group_id: BucketRules(capacity=90, refill_rate=30)})
    async with running(buckets=rules) as (_, client):
        target = f"/api/atlas/v2/rateLimits?groupId={group_id}&name=Legacy%20Backup"
        reply, body = await asked(client, target, **RATE_LIMIT_HEADERS)

        (one,) = body["results"]
        assert (one["endpointSetName"], one["scope"]) == ("Legacy Backup", "GROUP")
        assert one["capacity"] == {"value": 90, "defaultValue": 1200}
        assert one["refillRate"] == {"value": 30, "defaultValue": 500}
        assert one["refillDurationSeconds"] == {"value": 60, "defaultValue": 60}
        assert reply.headers["RateLimit-Limit"] == "300"


async def test_the_rate_limits_have_a_version_of_their_own() -> None:
    """The checkpoints' date is too old for them."""
    async with running() as (_, client):
        reply, _ = await asked(client, "/api/atlas/v2/rateLimits")

        assert reply.status == 406


async def test_the_rate_limits_may_be_refused() -> None:
    """As with a role that may not see them."""
    async with running(faults=FaultPlan(rate_limits_refused=True)) as (_, client):
        reply, _ = await asked(client, "/api/atlas/v2/rateLimits", **RATE_LIMIT_HEADERS)

        assert reply.status == 403


async def test_the_rate_limits_know_the_projects() -> None:
    """A project that is not there has no limits; without one, the user's are told."""
    async with running() as (_, client):
        base = "/api/atlas/v2/rateLimits"
        _, strange = await asked(client, f"{base}?groupId={GHOST}", **RATE_LIMIT_HEADERS)
        _, own = await asked(client, base, **RATE_LIMIT_HEADERS)

        assert strange["errorCode"] == "GROUP_NOT_FOUND"
        assert [one["scope"] for one in own["results"]] == ["USER"]


# ── the server itself ────────────────────────────────────────────────────────────────────────────


async def test_requests_are_counted() -> None:
    """By project and status; what is about no project is under a dash."""
    triple = told()["healthy-sharded"]
    async with running() as (simulator, client):
        await asked(client, path(triple))
        await asked(client, f"{list_path(triple)}/{GHOST}")
        await asked(client, GROUPS)

        assert simulator.requests == {
            (triple.group_id, 200): 1,
            (triple.group_id, 404): 1,
            ("-", 200): 1,
        }


async def test_requests_in_flight_are_counted() -> None:
    """The most at once, by project and in all."""
    one, other = large().projects[:2]
    targets = [f"{GROUPS}/{project.group_id}/clusters" for project in (one, one, other)]
    async with running(latency=0.1) as (simulator, client):
        await asyncio.gather(*(asked(client, target) for target in targets))

        assert simulator.max_in_flight == {one.group_id: 2, other.group_id: 1}
        assert simulator.max_in_flight_total == 3


async def test_it_is_on_loopback_only() -> None:
    """Nobody else on the network can reach it."""
    async with running() as (simulator, _):
        assert simulator.base_url == f"http://127.0.0.1:{simulator.port}"


async def test_a_port_can_be_chosen() -> None:
    """And a port that is taken is an OSError."""
    async with running() as (simulator, _):
        with pytest.raises(OSError, match="address"):
            async with serve(large(), port=simulator.port):
                raise AssertionError


async def test_five_thousand_triples_are_answered() -> None:
    """Over HTTP every triple of a fleet of 5,000 is a 200 exactly if its story is listed."""
    waiting = iter(tuple(large().triples()))
    wrong: list[Triple] = []

    async def worker(client: aiohttp.ClientSession) -> None:
        for triple in waiting:
            async with client.get(path(triple)) as reply:
                await reply.read()
                if reply.status != STORIES[triple.story].status:
                    wrong.append(triple)

    async with running() as (simulator, client), asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(worker(client))

    assert wrong == []
    assert sum(simulator.requests.values()) == len(large())
