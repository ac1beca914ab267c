"""The benchmarks' own arithmetic, inputs and server. What they measure is nowhere asserted."""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path

import pytest

from pipeline.atlas import (
    Limits,
    Reply,
    limits_request,
    preliminary_request,
    read_limits,
    read_preliminary,
    read_reply,
    read_results,
    request_for,
)
from pipeline.checkpoints import Checkpoint, CheckpointRef
from pipeline.simulator.buckets import Bucket, BucketRules
from tests.benchmarks import limited
from tests.benchmarks.answers import CAPACITY, Atlas
from tests.benchmarks.figures import BenchmarkFailed, Spread, markdown, paired_ratios, spread
from tests.benchmarks.lineup import CONTENDERS, PLAIN_POOL
from tests.benchmarks.processes import measure, parted_cores, serving
from tests.benchmarks.scenarios import SCENARIOS, Scenario
from tests.benchmarks.server import Exchange
from tests.benchmarks.speed import run_once
from tests.benchmarks.triples import (
    CHECKPOINTS_A_CLUSTER,
    CLUSTERS_A_PROJECT,
    checkpoint_ids_of,
    triples,
    write_triples,
    zipf_sizes,
)
from tests.doubles import MOMENT

# --- figures ------------------------------------------------------------------------------------


def test_spread_is_of_all_rounds() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(median=2.0, low=1.0, high=3.0)
    assert spread([3.0, 1.0]).median == 2.0


def test_spread_is_written_with_its_bounds() -> None:
    """A single round has none."""
    assert spread([1200.4, 1000.0, 1300.0]).text(0) == "1,200 (1,000–1,300)"
    assert spread([0.654]).text(2) == "0.65"


def test_ratios_are_of_the_same_round() -> None:
    """A slow hour hits both: the ratio of medians would be 2/3 here, and mean nothing."""
    assert paired_ratios([1.0, 2.0, 6.0], [2.0, 4.0, 3.0]) == [0.5, 0.5, 2.0]


def test_ratios_need_pairs() -> None:
    with pytest.raises(ValueError, match="longer"):
        paired_ratios([1.0], [1.0, 2.0])


def test_tables_are_markdown() -> None:
    table = markdown(["", "s"], [["run", "1.0"], ["other", "2.0"]])

    assert table.splitlines() == ["|  | s |", "| --- | ---: |", "| run | 1.0 |", "| other | 2.0 |"]


@pytest.mark.parametrize("output", ["", "2 5", "1 6", "1"])
def test_who_did_not_do_the_work_has_no_figures(output: str) -> None:
    """Who only reads bodies counts no parts, and need not."""
    PLAIN_POOL.check("2 6", 2, 6)
    PLAIN_POOL.check("2", 2, 6)

    with pytest.raises(BenchmarkFailed):
        PLAIN_POOL.check(output, 2, 6)


# --- triples ------------------------------------------------------------------------------------


def test_triples_are_distinct_and_repeatable() -> None:
    count = CHECKPOINTS_A_CLUSTER * (CLUSTERS_A_PROJECT + 1) + 7
    made = list(triples(count))

    assert len(set(made)) == len(made) == count
    assert made == list(triples(count))
    assert made[:300] == list(triples(300))


def test_triples_go_project_by_project() -> None:
    made = list(triples(CHECKPOINTS_A_CLUSTER * CLUSTERS_A_PROJECT * 2))
    projects = [group_id for group_id, _, _ in made]

    assert projects == sorted(projects)
    assert set(Counter(projects).values()) == {CHECKPOINTS_A_CLUSTER * CLUSTERS_A_PROJECT}


def test_a_million_stay_within_bounds_of_atlas() -> None:
    """250 projects an organization, 25 clusters a project."""
    assert 250 * CLUSTERS_A_PROJECT * CHECKPOINTS_A_CLUSTER >= 1_000_000
    assert CLUSTERS_A_PROJECT <= 25


def test_file_holds_the_triples(tmp_path: Path) -> None:
    with write_triples(tmp_path / "triples.csv", 5).open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)

    assert header == ["project_id", "cluster_name", "checkpoint_id"]
    assert [tuple(row) for row in rows] == list(triples(5))


@pytest.mark.parametrize(("projects", "total"), [(20, 10_000), (3, 7), (1, 5)])
def test_zipf_sizes_sum_up_and_fall(projects: int, total: int) -> None:
    sizes = zipf_sizes(projects, total)

    assert sum(sizes) == total
    assert sizes == sorted(sizes, reverse=True)


def test_second_zipf_size_is_half_the_first() -> None:
    assert zipf_sizes(20, 10_000)[:2] == [2780, 1390]


# --- ideal makespan -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "stepped", "continuous"),
    [(1200, 0, 0), (1201, 60, 0.12), (1700, 60, 60), (1701, 120, 60.12), (2780, 240, 189.6)],
)
def test_ideal_is_when_the_quota_allows_the_last(
    size: int, stepped: float, continuous: float
) -> None:
    assert Scenario(name="", sizes=(5, size)).ideal_s == stepped
    assert Scenario(name="", sizes=(5, size), shape="continuous").ideal_s == pytest.approx(
        continuous
    )


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_nobody_beats_the_ideal(scenario: Scenario) -> None:
    """A client that looks a hundred times a second and takes all there is, from the simulator's."""
    rules = BucketRules(
        capacity=scenario.capacity,
        refill_rate=scenario.refill_rate,
        shape=scenario.shape,
        drain=scenario.drain,
    )
    finished = max(
        next(islice(_grants(Bucket(rules, 0.0)), size - 1, None)) for size in scenario.sizes
    )

    assert scenario.ideal_s <= finished <= scenario.ideal_s + 0.1


def _grants(bucket: Bucket) -> Iterator[float]:
    for tick in range(100_000):
        while bucket.take(tick / 100).allowed:
            yield tick / 100


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenarios_get_their_triples(scenario: Scenario, tmp_path: Path) -> None:
    """As many in each project as its size says, sorted, every one of them in the fleet."""
    fleet = limited.fleet_for(scenario)
    limited.write_triples(tmp_path / "triples.csv", fleet, scenario)
    with (tmp_path / "triples.csv").open(encoding="utf-8", newline="") as file:
        rows = [tuple(row) for row in csv.reader(file)][1:]

    assert rows == sorted(set(rows))
    assert sorted(Counter(row[0] for row in rows).values()) == sorted(scenario.sizes)
    assert {row[:2] for row in rows} <= {
        (project.group_id, cluster.name)
        for project in fleet.projects
        for cluster in project.clusters
    }


# --- measuring ----------------------------------------------------------------------------------


def test_contenders_are_measured_from_outside() -> None:
    """A whole process against the server in another one; what it asked is what the server saw."""
    with serving("server", environment=os.environ) as (base_url, _):
        measured = run_once(CONTENDERS[-1], base_url, 3, 0)

    assert (measured.triples, measured.requests) == (3, 3)
    assert min(measured.cpu_s, measured.wall_s, measured.peak_mib) > 0


def test_commands_that_fail_have_no_figures() -> None:
    """What they said last is in the error."""
    with pytest.raises(BenchmarkFailed, match=r"(?s)ended with 3.*out of luck"):
        measure(["sh", "-c", "echo out of luck >&2; exit 3"], os.environ)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="nothing is pinned here")
def test_cores_are_given_back() -> None:
    """While a server has a core of its own, this process keeps to another."""
    before = os.sched_getaffinity(0)
    with parted_cores() as core:
        mine = os.sched_getaffinity(0)

    assert {int(number) for number in core}.isdisjoint(mine)
    assert os.sched_getaffinity(0) == before


# --- the fast server ----------------------------------------------------------------------------


def _answer(path: str) -> Reply:
    """Ask the server's answers as the program's transport would read them."""
    response = Atlas().answer(f"GET {path} HTTP/1.1\r\nHost: localhost".encode())
    return _reply(response)


def _reply(response: bytes) -> Reply:
    head, _, body = response.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    fields = (line.split(": ", 1) for line in lines)
    headers = {name.lower(): text for name, text in fields}
    assert headers["content-length"] == str(len(body))
    return Reply(int(status.split()[1]), MOMENT, MOMENT, headers, body)


def _refs(count: int) -> Iterator[CheckpointRef]:
    return (CheckpointRef(*triple) for triple in triples(count))


def test_answers_are_healthy_checkpoints() -> None:
    """Nothing in them departs from the documentation, and they hold the ids that were asked for."""
    for ref in _refs(CHECKPOINTS_A_CLUSTER + 1):
        found = read_reply(ref, _answer(request_for(ref).path))

        assert isinstance(found, Checkpoint)
        assert not found.anomalies
        assert found.id == ref.checkpoint_id
        assert (len(found.parts), found.config_part_count) == (3, 1)
        assert found.undiscovered_token_count == 0
        assert found.started is not None
        assert found.timestamp is not None
        assert timedelta() <= found.started - found.timestamp < timedelta(seconds=66)


def test_answers_are_as_large_as_those_of_atlas() -> None:
    ref = next(_refs(1))

    assert 900 <= len(_answer(request_for(ref).path).body) <= 1400


def test_answers_say_that_nobody_is_limited() -> None:
    ref = next(_refs(1))
    headers = _answer(request_for(ref).path).headers
    limits = read_limits(_answer(limits_request(ref.group_id).path))

    assert int(headers["ratelimit-limit"]) == CAPACITY
    assert int(headers["ratelimit-remaining"]) == CAPACITY - 1
    assert limits == Limits(capacity=CAPACITY, refill_rate=CAPACITY, refill_duration=60)


def test_lists_hold_the_whole_cluster() -> None:
    """Page after page, the same documents as one by one, and a link to the next while there is."""
    ref = next(_refs(1))
    path = request_for(ref).path.rpartition("/")[0]
    pages = [_answer(f"{path}?itemsPerPage=150&pageNum={number}") for number in (1, 2)]
    results = [one for page in pages for one in _results(page)]

    assert [one["id"] for one in results] == list(checkpoint_ids_of(*_place(ref)))
    assert results[0] == json.loads(_answer(request_for(ref).path).body)
    assert [b'"next"' in page.body for page in pages] == [True, False]
    assert json.loads(pages[0].body)["totalCount"] == CHECKPOINTS_A_CLUSTER


def _results(page: Reply) -> list[dict[str, object]]:
    results = read_results(page)
    assert isinstance(results, list)
    return results


def _place(ref: CheckpointRef) -> tuple[str, str]:
    return ref.group_id, ref.cluster_name


def test_preliminary_call_is_answered() -> None:
    assert read_preliminary(_answer(preliminary_request().path)) is None


def test_unknown_paths_are_not_found() -> None:
    assert _answer("/elsewhere").status == 404


class _Wire:
    """The way back to a client."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


def _exchanged(*received: bytes) -> tuple[int, bytes]:
    """Give how many requests were answered, and the bytes, of what comes in pieces."""
    atlas, wire = Atlas(), _Wire()
    exchange = Exchange(atlas)
    exchange.connection_made(wire)  # type: ignore[arg-type]
    for data in received:
        exchange.data_received(data)
    return atlas.requests, wire.written


def test_requests_may_come_in_any_pieces() -> None:
    """Three in a row, one of them with a body that itself looks like a request's end."""
    post = b"POST /api/oauth/revoke HTTP/1.1\r\nContent-Length: 7\r\n\r\nab\r\n\r\nc"
    ref = next(_refs(1))
    get = f"GET {request_for(ref).path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    stream = get + post + get
    count, whole = _exchanged(stream)

    assert count == 3
    for cut in range(1, len(stream)):
        answered, written = _exchanged(stream[:cut], stream[cut:])
        assert answered == 3
        assert len(written) == len(whole)


def test_half_a_request_is_not_answered() -> None:
    assert _exchanged(b"GET /api/atlas/v2/groups HTTP/1.1\r\n") == (0, b"")
