"""What a run will cost: the estimate's laws, the input it is made of, the limits it asks for."""

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.atlas import Limits, Reply
from pipeline.errors import AtlasUnavailable, CredentialsRefused, InputMissing, InputUnusable
from pipeline.outcomes import FailureKind
from pipeline.plan import (
    Clusters,
    Pace,
    Plan,
    Read,
    as_json,
    as_text,
    bucket_seconds,
    make_plan,
    read_input,
    tell_limits,
)
from pipeline.refill import DOCUMENTED
from tests.doubles import Scripted, error, group, reply, trouble
from tests.virtual_time import run

LIMITS = st.builds(
    Limits,
    capacity=st.floats(1, 1e5),
    refill_rate=st.floats(1, 1e5),
    refill_duration=st.floats(0.1, 3600),
)
PACES = st.builds(Pace, st.integers(1, 1024), st.floats(0.01, 1.0))
COUNTS = st.lists(st.lists(st.integers(1, 5_000), min_size=1, max_size=5), min_size=1, max_size=8)


def found(*projects: tuple[int, ...], bad_lines: int = 0) -> Read:
    """An input whose projects have clusters of so many triples."""
    triples = sum(map(sum, projects))
    return Read(
        source="in.csv",
        sha256="5f" * 32,
        line_count=triples + bad_lines,
        triple_count=triples,
        duplicate_count=0,
        bad_line_count=bad_lines,
        bad_lines=("line 2, column cluster: ''; wanted: a name",) * min(bad_lines, 10),
        projects=tuple(Clusters(group(n), counts) for n, counts in enumerate(projects)),
    )


def plan(*projects: tuple[int, ...], pace: Pace | None = None, **told: Limits) -> Plan:
    limits = {group(int(name[1:])): one for name, one in told.items()}
    return make_plan(found(*projects), limits, pace or Pace())


# --- the estimate ---------------------------------------------------------------------------------


def test_what_a_full_bucket_holds_is_sent_at_once() -> None:
    """1,080 of the documented 1,200 are ours at 90 %."""
    assert bucket_seconds(1_080, DOCUMENTED, 0.9) == 0
    assert bucket_seconds(1_080 + 450, DOCUMENTED, 0.9) == pytest.approx(60)
    assert bucket_seconds(1_200 + 500, DOCUMENTED, 1.0) == pytest.approx(60)


def test_the_slowest_bucket_bounds_a_run() -> None:
    made = plan((1_080,), (10_080,), (5,))

    assert made.by_get.request_count == 11_165
    assert (made.by_get.bound_by, made.by_get.bound_project_id) == ("bucket", group(1))
    assert made.by_get.expected_s == pytest.approx(9_000 / 450 * 60 + 0.2)
    assert [one.project_id for one in made.projects][:1] == [group(1)]


def test_many_small_projects_are_bound_by_the_answers() -> None:
    """640 requests, 64 at a time, 0.2 s each."""
    made = plan(*[(64,)] * 10)

    assert (made.by_get.bound_by, made.by_get.bound_project_id) == ("latency", None)
    assert made.by_get.expected_s == 2.0


def test_a_project_alone_has_all_the_slots() -> None:
    """Beside others it has a quarter: 4 rounds become 16."""
    alone, beside = plan((256,)), plan((256,), (1,))

    assert alone.by_get.expected_s == pytest.approx(0.8)
    assert beside.by_get.expected_s == pytest.approx(3.2)
    assert beside.by_get.bound_project_id == group(0)


def test_lists_are_taken_where_they_need_fewer_requests() -> None:
    """500 of a cluster in one request; a single one by its own."""
    made = plan((500, 1, 1))

    assert made.by_get.request_count == 502
    assert made.by_list.request_count == 3


@pytest.mark.parametrize(("count", "requests"), [(200, 1), (500, 1), (976, 2), (1_000, 3)])
def test_a_list_is_read_until_it_has_shown_everything(count: int, requests: int) -> None:
    """No page is counted that would only show where the list ends."""
    assert plan((count,)).by_list.request_count == requests


def test_pages_of_a_list_wait_for_one_another() -> None:
    assert plan((1_000,)).by_list.expected_s == pytest.approx(3 * 0.2)


def test_a_limit_that_was_told_counts() -> None:
    made = plan((1_000,), (1_000,), p1=Limits(100.0, 10.0, 1.0))

    assert made.told_count == 1
    assert made.projects[0].bucket.source == "told"
    assert made.projects[1].bucket.source == "documented"
    assert made.projects[0].by_get.expected_s == pytest.approx((1_000 - 90) / 9 + 0.2, abs=0.1)


@given(COUNTS, LIMITS, PACES)
def test_no_plan_promises_less_than_its_bounds(
    counts: list[list[int]], limits: Limits, pace: Pace
) -> None:
    """Neither than any bucket allows, nor than the slots do; and no list costs more than gets."""
    projects = found(*map(tuple, counts))
    made = make_plan(projects, {one.group_id: limits for one in projects.projects}, pace)

    for total in (made.by_get, made.by_list):
        assert total.expected_s >= math.ceil(total.request_count / pace.concurrency) * 0.2 - 1e-9
    for project in made.projects:
        for cost in (project.by_get, project.by_list):
            assert cost.expected_s >= bucket_seconds(cost.request_count, limits, pace.max_share)
        assert project.by_list.request_count <= project.by_get.request_count
        assert project.by_get.expected_s <= made.by_get.expected_s
        assert project.by_list.expected_s <= made.by_list.expected_s
    assert made.by_get.request_count == made.triple_count


@given(COUNTS, LIMITS, PACES, st.data())
def test_more_triples_never_take_less_time(
    counts: list[list[int]], limits: Limits, pace: Pace, data: st.DataObject
) -> None:
    more = [list(clusters) for clusters in counts]
    more[data.draw(st.integers(0, len(more) - 1))][0] += data.draw(st.integers(1, 5_000))
    told = {group(n): limits for n in range(len(counts))}
    before = make_plan(found(*map(tuple, counts)), told, pace)
    after = make_plan(found(*map(tuple, more)), told, pace)

    assert after.by_get.expected_s >= before.by_get.expected_s
    assert after.by_get.request_count > before.by_get.request_count


# --- the input ------------------------------------------------------------------------------------


def test_the_input_is_read_as_a_run_reads_it(tmp_path: Path) -> None:
    """Duplicates and bad lines are counted, clusters told apart."""
    path = tmp_path / "in.csv"
    lines = [
        "project_id,cluster_name,checkpoint_id",
        *(f"{group(1)},orders,{n:024x}" for n in range(3)),
        f"{group(1)},archive,{7:024x}",
        f"{group(1)}, orders ,{1:024X}",
        *(f"{group(2)},orders,{n}" for n in range(12)),
    ]
    path.write_text("\n".join(lines), "utf-8")
    read = read_input(str(path))

    assert (read.line_count, read.triple_count) == (17, 4)
    assert (read.duplicate_count, read.bad_line_count, len(read.bad_lines)) == (1, 12, 10)
    assert read.projects == (Clusters(group(1), (1, 3)),)
    assert "line 7, column checkpoint_id: '0'" in read.bad_lines[0]


def test_an_input_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\n", "utf-8")
    with pytest.raises(InputUnusable):
        read_input(str(tmp_path / "in.csv"))
    with pytest.raises(InputMissing):
        read_input(str(tmp_path / "none.csv"))


# --- the limits -----------------------------------------------------------------------------------


def told(capacity: Any, rate: Any = 50, duration: Any = 6) -> Reply:
    values = {"capacity": capacity, "refillRate": rate, "refillDurationSeconds": duration}
    limit = {name: {"value": value, "defaultValue": 1} for name, value in values.items()}
    named = {"endpointSetName": "Legacy Backup", "scope": "GROUP", **limit}
    return reply(200, {"results": [named]})


GREETED = reply(200, {"results": []})


def asked(*replies: Reply, sizes: tuple[int, ...] = (101, 5_000)) -> dict[str, Limits]:
    return run(tell_limits(Scripted(GREETED, *replies), found(*((size,) for size in sizes))))


def test_the_larger_projects_are_asked_about_first() -> None:
    assert asked(told(10), told(20)) == {
        group(1): Limits(10.0, 50.0, 6.0),
        group(0): Limits(20.0, 50.0, 6.0),
    }


def test_a_small_project_is_not_worth_a_request() -> None:
    assert asked(sizes=(1, 100)) == {}


@pytest.mark.parametrize("refusal", [error(403), error(429), error(404), error(406)])
def test_a_refusal_is_everybodys(refusal: Reply) -> None:
    """The second one in a row, if the first may be that project's."""
    assert asked(refusal, refusal) == {}


@pytest.mark.parametrize(
    "stray",
    [
        *(error(500), error(404, "GROUP_NOT_FOUND"), reply(200), told(0)),
        *(told(2e6), told(10, rate=2e6), told(10, duration=0.05), told(10, rate=1, duration=61)),
    ],
)
def test_a_stray_fault_is_that_projects(stray: Reply) -> None:
    """As are limits that a run would not take over either."""
    assert asked(stray, told(20)) == {group(0): Limits(20.0, 50.0, 6.0)}


@pytest.mark.parametrize(
    ("greeting", "error_class"),
    [
        (error(401), CredentialsRefused),
        (error(403, "IP_ADDRESS_NOT_ON_ACCESS_LIST"), CredentialsRefused),
        (error(402), CredentialsRefused),
        (trouble(FailureKind.UNREACHABLE), AtlasUnavailable),
        (error(503), AtlasUnavailable),
    ],
)
def test_nobody_is_let_in(greeting: Reply, error_class: type[Exception]) -> None:
    with pytest.raises(error_class) as caught:
        run(tell_limits(Scripted(greeting), found((500,))))

    assert "--no-ask" in getattr(caught.value, "hint", "")


# --- how it is shown ------------------------------------------------------------------------------


def test_json_has_everything() -> None:
    made = make_plan(found(*[(n,) for n in range(1, 60)], bad_lines=2), {}, Pace(8, 0.5))
    document = json.loads(as_json(made))

    assert len(document["projects"]) == document["project_count"] == 59
    assert document["by_get"]["expected_s"] == made.by_get.expected_s
    assert document["projects"][0]["bucket"]["refill_duration_s"] == 60.0
    assert (document["concurrency"], document["max_share"]) == (8, 0.5)


@pytest.mark.parametrize("projects", [1, 20, 21, 250])
def test_text_fits_a_terminal(projects: int) -> None:
    """80 columns, whatever the numbers, and never more than twenty projects."""
    made = make_plan(found(*[(400_000, 9_999)] * projects, bad_lines=12), {}, Pace(1024, 0.01))
    lines = as_text(made).splitlines()

    assert max(map(len, lines)) <= 80
    assert sum(line.startswith(group(0)[:20]) for line in lines) == min(projects, 20)
    assert ("more, none of them slower" in lines[-1]) is (projects > 20)
    assert "         and 2 more" in lines


def test_a_long_bad_line_is_shortened() -> None:
    read = msgspec.structs.replace(found((1,)), bad_line_count=2, bad_lines=("x" * 71, "y" * 72))
    shown = as_text(make_plan(read, {}, Pace())).splitlines()

    assert " " * 9 + "x" * 71 in shown
    assert " " * 9 + "y" * 70 + "…" in shown


def test_no_name_begins_a_line_of_its_own() -> None:
    told = found((1,), bad_lines=1)
    lying = msgspec.structs.replace(told, source="x\ny", bad_lines=("x\u2028y",))
    shown = as_text(make_plan(lying, {}, Pace())).splitlines()

    assert not [line for line in shown if line.startswith("y")]


@pytest.mark.parametrize(
    ("count", "said"), [(1, "1s"), (1_080 + 450, "1m01s"), (1_080 + 450 * 125, "2h05m")]
)
def test_durations_are_rounded_up(count: int, said: str) -> None:
    row = next(line for line in as_text(plan((count,))).splitlines() if "--fetch get" in line)

    assert f" {said} " in row
