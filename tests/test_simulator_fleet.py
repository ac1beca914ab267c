"""The seeded fleet: the same for everybody, and telling the stories that it says it tells."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections import Counter
from datetime import datetime
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from pipeline.simulator import FaultPlan, Fleet, sample_csv
from pipeline.simulator.fleet import COLUMNS, Triple
from pipeline.simulator.instants import seconds_of
from pipeline.simulator.stories import STORIES

ROOT = Path(__file__).parent.parent
CONFIG = {"CONFIG_SERVER", "CONFIG_SERVER_REPLICA_SET"}
HEALTHY_STORY = "healthy-sharded"
YEAR_S = 365 * 86_400
VERDICTS = {"PASS", "FAIL", "ABSENT", "INCONCLUSIVE"}


@cache
def large() -> Fleet:
    """Return a fleet in which every story comes up."""
    return Fleet.seeded(projects=10, clusters=10, checkpoints=50)


@cache
def triples() -> tuple[Triple, ...]:
    """Return the triples of the large fleet."""
    return tuple(large().triples())


def body_of(fleet: Fleet, triple: Triple) -> dict[str, Any]:
    cluster = fleet.cluster(triple.group_id, triple.cluster_name)
    assert cluster is not None
    found = fleet.checkpoint(cluster, triple.checkpoint_id)
    assert found is not None
    return fleet.body(found)


def judged(body: dict[str, Any], triple: Triple) -> str:
    """Judge a body by the plain rules, written here once more."""
    if body["id"] != triple.checkpoint_id:
        return "INCONCLUSIVE"
    parts = body.get("parts") or []
    shards = [part for part in parts if part.get("typeName") not in CONFIG]
    dates = [
        seconds_of(part["tokenTimestamp"]["date"]) for part in parts if part.get("tokenTimestamp")
    ]
    far = dates if body.get("timestamp") else []
    ill = (
        body.get("restorable") is not True
        or not parts
        or any(part.get("tokenDiscovered") is not True for part in parts)
        or (len(shards) > 1 and len(shards) == len(parts))
        or not body.get("completed")
        or body["completed"] < body["started"]
        or {part["shardName"] for part in shards if "shardName" in part} < shards_of(triple)
        or any(ahead_of(body["id"], moment) > 50 * YEAR_S for moment in moments(body))
        or max(dates, default=0) - min(dates, default=0) > 60
        or any(abs(date - seconds_of(body["timestamp"])) > 900 for date in far)
    )
    return "FAIL" if ill else "PASS"


def shards_of(triple: Triple) -> set[str]:
    """The shards that the triple's cluster has: those of all its checkpoints together."""
    return {
        part["shardName"]
        for body in healthy_bodies(triple.group_id, triple.cluster_name)
        for part in body["parts"]
        if "shardName" in part
    }


@cache
def healthy_bodies(group_id: str, cluster_name: str) -> list[dict[str, Any]]:
    return [
        body_of(large(), one)
        for one in triples()
        if (one.group_id, one.cluster_name, one.story) == (group_id, cluster_name, HEALTHY_STORY)
    ]


def moments(body: dict[str, Any]) -> list[str]:
    """Every time that a body states, but for those of tokens."""
    return [body[name] for name in ("started", "completed", "timestamp") if body.get(name)]


def ahead_of(checkpoint_id: str, moment: str) -> float:
    """Seconds; times may have fractions, and an offset instead of Z."""
    return datetime.fromisoformat(moment).timestamp() - int(checkpoint_id[:8], 16)


def test_same_arguments_make_the_same_fleet() -> None:
    """Two fleets of the same arguments have the same triples and bodies; another seed has not."""
    one, two, other = Fleet.seeded(), Fleet.seeded(), Fleet.seeded(seed=8)

    assert list(one.triples()) == list(two.triples())
    assert list(one.triples()) != list(other.triples())


def test_another_process_makes_the_same_fleet() -> None:
    """Nothing hangs on a process's own hash seed."""
    program = (
        "import sys; from pipeline.simulator import Fleet; Fleet.seeded().write_triples(sys.stdout)"
    )
    there = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    here = io.StringIO()
    Fleet.seeded().write_triples(here)

    assert there == [here.getvalue()] * 2


def test_the_default_fleet_never_changes() -> None:
    """A triple written down once stays true, for people keep inputs."""
    first = Fleet.seeded().triple(0)

    assert (first.group_id, first.cluster_name, first.checkpoint_id) == (
        "5840e3b0e196714b215bb700",
        "catalog-prod",
        "6affb4e9fe8de31550a83c8d",
    )


def test_every_story_is_told_in_a_large_fleet() -> None:
    """5,000 triples are enough for every story there is."""
    told = {triple.story for triple in triples()}

    assert told == set(STORIES)


def test_most_checkpoints_are_healthy() -> None:
    """Between 85 and 95 in 100 tell a healthy story, and the barren cluster is one of the rest."""
    stories = Counter(triple.story for triple in triples())
    healthy = stories["healthy-sharded"] + stories["healthy-replica-set"]

    assert 0.85 <= healthy / stories.total() <= 0.95


@pytest.mark.parametrize("code", [code for code, story in STORIES.items() if story.listed])
def test_a_body_tells_its_story(code: str) -> None:
    """What the plain rules say about a body is what its triple expects."""
    fleet = large()
    told = [triple for triple in triples() if triple.story == code][:20]

    assert told
    assert [judged(body_of(fleet, one), one) for one in told] == [
        one.expected_verdict for one in told
    ]


def test_sick_bodies_differ_from_healthy_ones() -> None:
    """Every planted story but the healthy ones changes a body."""
    fleet = large()
    changed = {
        triple.story
        for triple in triples()
        if STORIES[triple.story].listed
        and not triple.story.startswith("healthy")
        and _is_changed(fleet, triple)
    }
    planted = {code for code, story in STORIES.items() if story.listed}

    assert changed == planted - {"healthy-sharded", "healthy-replica-set"}


def _is_changed(fleet: Fleet, triple: Triple) -> bool:
    cluster = fleet.cluster(triple.group_id, triple.cluster_name)
    assert cluster is not None
    found = fleet.checkpoint(cluster, triple.checkpoint_id)
    assert found is not None
    return fleet.body(found) != fleet._healthy_body(found)


def test_healthy_bodies_look_like_published_samples() -> None:
    """It starts at its id's time and ends at once, and restores to at most 65 s before."""
    fleet = Fleet.seeded()
    for triple in fleet.triples():
        if not triple.story.startswith("healthy"):
            continue
        body = body_of(fleet, triple)
        started = seconds_of(body["started"])

        assert started == int(body["id"][:8], 16)
        assert body["completed"] == body["started"]
        assert 0 <= started - seconds_of(body["timestamp"]) <= 65
        for part in body["parts"]:
            assert part["tokenTimestamp"]["date"] == body["completed"]
            assert part["tokenTimestamp"]["increment"] in {1, 2, 4, 6}


def test_parts_fit_their_cluster() -> None:
    """A replica set has one part; a sharded cluster has its shards and one config part, 2 to 13."""
    fleet = large()
    for triple in triples():
        if triple.story == "healthy-replica-set":
            (part,) = body_of(fleet, triple)["parts"]
            assert part["typeName"] == "REPLICA_SET"
        if triple.story == "healthy-sharded":
            parts = body_of(fleet, triple)["parts"]
            cluster = fleet.cluster(triple.group_id, triple.cluster_name)
            assert cluster is not None
            assert 2 <= len(parts) == cluster.shards + 1 <= 13
            assert sum(part["typeName"] in CONFIG for part in parts) == 1


def test_one_cluster_has_nothing_restorable() -> None:
    """A fleet of some size has a cluster all of whose checkpoints are not restorable."""
    by_cluster = groupby(Fleet.seeded().triples(), key=lambda one: (one.group_id, one.cluster_name))
    barren = [key for key, ones in by_cluster if {one.story for one in ones} == {"not-restorable"}]

    assert len(barren) == 1


def test_no_triple_is_there_twice() -> None:
    """Ids are unique over the whole fleet, and so is the id that another answer comes under."""
    fleet = large()
    ids = [triple.checkpoint_id for triple in triples()]
    others = [
        body_of(fleet, triple)["id"] for triple in triples() if triple.story == "other-checkpoint"
    ]

    assert len(set(ids)) == len(ids) == len(fleet)
    assert others
    assert not set(ids) & set(others)


def test_some_cluster_names_hold_an_underscore() -> None:
    """Real names do, beyond the reference's pattern."""
    names = {triple.cluster_name for triple in Fleet.seeded().triples()}

    assert any("_" in name for name in names)
    assert any("_" not in name for name in names)


def test_a_triple_is_found_by_its_number() -> None:
    """`triple(n)` is the n-th of `triples()`."""
    fleet = Fleet.seeded()

    assert [fleet.triple(n) for n in range(len(fleet))] == list(fleet.triples())


def test_a_million_checkpoints_are_not_held() -> None:
    """A fleet of a million is made at once, and its last checkpoint is found by its id alone."""
    fleet = Fleet.seeded(projects=250, clusters=25, checkpoints=160)
    last = fleet.triple(len(fleet) - 1)

    assert len(fleet) == 1_000_000
    assert body_of(fleet, last)["id"] == last.checkpoint_id


@pytest.mark.parametrize("checkpoint_id", ["0" * 24, "f" * 24])
def test_an_id_from_nowhere_is_not_found(checkpoint_id: str) -> None:
    """An id whose time lies outside a cluster's checkpoints names none of them."""
    fleet = Fleet.seeded()

    assert fleet.checkpoint(fleet.projects[0].clusters[0], checkpoint_id) is None


def test_an_id_of_the_right_time_alone_is_not_found() -> None:
    """The time leads to a place; the rest of the id must be right too."""
    fleet = Fleet.seeded()
    real = fleet.triple(0).checkpoint_id

    assert fleet.checkpoint(fleet.projects[0].clusters[0], real[:8] + "0" * 16) is None


def test_a_fleet_cannot_be_empty() -> None:
    """Sizes below one are refused."""
    with pytest.raises(ValueError, match="at least one"):
        Fleet.seeded(clusters=0)


def test_written_triples_carry_the_plans_expectations() -> None:
    """`write_triples` writes one line a triple, and asks the plan for its verdict."""
    fleet = Fleet.seeded()
    plan = FaultPlan.nightly(fleet, seed=3)
    file = io.StringIO()

    assert fleet.write_triples(file, plan) == len(fleet)

    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert tuple(rows[0]) == COLUMNS
    assert [row["expected_verdict"] for row in rows] == [
        plan.expected(triple) for triple in fleet.triples()
    ]
    assert [row["expected_findings"] for row in rows] == [
        ";".join(sorted(triple.expected_findings))
        if plan.expected(triple) == triple.expected_verdict
        else ""
        for triple in fleet.triples()
    ]


# ── the sample ───────────────────────────────────────────────────────────────────────────────────


def sample_rows() -> list[list[str]]:
    return list(csv.reader(io.StringIO(sample_csv(Fleet.demo()))))[1:]


def good_rows() -> list[list[str]]:
    return [row for row in sample_rows() if len(row) == len(COLUMNS) and row[4]]


def test_the_sample_in_the_repository_is_the_demos() -> None:
    """`inputs/sample.csv` is what `sample_csv(Fleet.demo())` returns."""
    kept = (ROOT / "inputs" / "sample.csv").read_text(encoding="utf-8")

    assert kept == sample_csv(Fleet.demo())


def test_the_sample_shows_every_verdict() -> None:
    """All four verdicts, and inconclusive ones of at least three projects."""
    rows = good_rows()
    unclear = {row[0] for row in rows if row[4] == "INCONCLUSIVE"}

    assert {row[4] for row in rows} == VERDICTS
    assert {one.group_id for one in Fleet.demo().projects[-2:]} < unclear


def test_the_sample_expects_what_fleet_and_plan_do() -> None:
    """Every good line's verdict is the plan's for that triple."""
    plan = FaultPlan.demo()
    expected = {
        (one.group_id, one.cluster_name, one.checkpoint_id): plan.expected(one)
        for one in Fleet.demo().triples()
    }

    for group_id, cluster_name, checkpoint_id, _owner, verdict, _findings in good_rows():
        assert expected[group_id, cluster_name.strip(), checkpoint_id.lower()] == verdict


def test_the_sample_expects_the_findings_of_each_story() -> None:
    """Where the demo's faults hide a triple, none; and each sickness of the sample has some."""
    planted = {
        (one.group_id, one.cluster_name, one.checkpoint_id): one.expected_findings
        for one in Fleet.demo().triples()
    }
    expecting = 0
    for group_id, cluster_name, checkpoint_id, _owner, verdict, findings in good_rows():
        named = {name for name in findings.split(";") if name}
        expecting += bool(named)
        if verdict in {"PASS", "FAIL"}:
            assert named == planted[group_id, cluster_name.strip(), checkpoint_id.lower()]
        else:
            assert not named

    assert expecting >= 10


def test_a_missing_shard_of_the_sample_has_its_neighbours() -> None:
    """Without them nobody could tell that it is missing."""
    fleet, asked = Fleet.demo(), {row[2].lower() for row in good_rows()}
    lonely = [one for one in fleet.triples() if one.story == "missing-shard"]
    sampled = [one for one in lonely if one.checkpoint_id in asked]

    assert sampled
    for triple in sampled:
        assert {one.checkpoint_id for one in fleet.beside(triple)} <= asked


@pytest.mark.parametrize("code", [code for code, one in STORIES.items() if one.beside_healthy])
def test_a_comparison_has_something_to_compare_with(code: str) -> None:
    """Such a story is told between two healthy checkpoints, or beside one at the newest place."""
    told = [triple for triple in triples() if triple.story == code]

    assert told
    for triple in told:
        assert {one.story for one in large().beside(triple)} == {HEALTHY_STORY}


def test_no_story_is_told_in_a_cluster_too_small_for_it() -> None:
    small = Fleet.seeded(seed=5, projects=20, clusters=25, checkpoints=3)
    told = {triple.story for triple in small.triples()}

    assert len(told) > 20
    assert not told & {code for code, story in STORIES.items() if story.min_checkpoints > 3}


def test_the_sample_has_lines_to_stumble_over() -> None:
    """Three bad lines, a blank one, and two triples that are there before, one spelt otherwise."""
    bad = [row for row in sample_rows() if row and (len(row) < len(COLUMNS) or not row[4])]
    asked = [(row[0], row[1].strip(), row[2].lower()) for row in good_rows()]

    assert len(bad) == 3
    assert sample_rows().count([]) == 1
    assert len(asked) - len(set(asked)) == 2
    assert any(row[2].isupper() for row in good_rows())
