"""Plan: what a run of an input will cost, and what bounds it, before a checkpoint is asked for.

The estimate is pure. It takes every bucket as full, spent by nobody else, refilled all the time
rather than in steps, and every answer as good; so it is what a run can hope for. What it never does
is promise less than the buckets allow.
"""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec

from pipeline.atlas import Limits, preliminary_request, read_preliminary
from pipeline.cells import visible
from pipeline.errors import AtlasUnavailable, CredentialsRefused
from pipeline.fetch import Transport, unrecorded
from pipeline.intake import keep_input, load_input
from pipeline.journal import Journal
from pipeline.listing import page_count
from pipeline.outcomes import RUN_ENDING_KINDS, Failure, FailureKind
from pipeline.quota import ask_limits, worth_asking
from pipeline.refill import DOCUMENTED, is_sane

log = logging.getLogger(__name__)

#: How long one answer is taken to last, in seconds. Nine in ten recorded ones took no longer, half
#: of them less than 0.1.
LATENCY_S = 0.2

_SHOWN_PROJECTS, _SHOWN_BAD_LINES = 20, 10
_COLUMNS = 80


class Pace(msgspec.Struct, frozen=True):
    """How a run would be told to ask: slots, and share of each project's limit."""

    concurrency: int = 64
    max_share: float = 0.9


class Clusters(msgspec.Struct, frozen=True):
    """One project of an input: how many triples each of its clusters has."""

    group_id: str
    triple_counts: tuple[int, ...]


class Read(msgspec.Struct, frozen=True):
    """An input as it was read; `bad_lines` are the first few, in words."""

    source: str
    sha256: str
    line_count: int
    triple_count: int
    duplicate_count: int
    bad_line_count: int
    bad_lines: tuple[str, ...]
    projects: tuple[Clusters, ...]


# --- the plan: the names are those of the JSON, seconds end in `_s` -------------------------------


class Bucket(msgspec.Struct, frozen=True):
    """A project's bucket: capacity in requests, so many back every `refill_duration_s`."""

    capacity: float
    refill_rate: float
    refill_duration_s: float
    source: Literal["told", "documented"]


class Cost(msgspec.Struct, frozen=True):
    """Requests, and how long they take.

    `bound_by` says why not less: the bucket gives no more, or answers take their time.
    """

    request_count: int
    expected_s: float
    bound_by: Literal["bucket", "latency"]


class ProjectPlan(msgspec.Struct, frozen=True):
    """One project: what it costs by single gets, and by lists where those need fewer requests.

    How many checkpoints Atlas lists is not known before asking: as many as the input names, it is
    taken. A list is read until it has shown these, not to its end.
    """

    project_id: str
    triple_count: int
    cluster_count: int
    bucket: Bucket
    by_get: Cost
    by_list: Cost


class Total(msgspec.Struct, frozen=True):
    """All projects together. `bound_project_id` names the one that ends last, if it is one."""

    request_count: int
    expected_s: float
    bound_by: Literal["bucket", "latency"]
    bound_project_id: str | None


class Plan(msgspec.Struct, frozen=True):
    """What a run of this input costs. `projects` begin with the slowest."""

    input: str
    input_sha256: str
    line_count: int
    triple_count: int
    duplicate_count: int
    bad_line_count: int
    bad_lines: tuple[str, ...]
    project_count: int
    cluster_count: int
    told_count: int
    concurrency: int
    max_share: float
    latency_s: float
    by_get: Total
    by_list: Total
    projects: tuple[ProjectPlan, ...]


# --- the estimate ---------------------------------------------------------------------------------


def make_plan(found: Read, told: Mapping[str, Limits], pace: Pace) -> Plan:
    """Estimate what a run of `found` takes; `told` are limits by project, where Atlas told them."""
    # A project alone has all the slots; beside others, a quarter.
    slots = pace.concurrency if len(found.projects) == 1 else max(1, pace.concurrency // 4)
    projects = [
        _plan_project(one, told.get(one.group_id), pace.max_share, slots) for one in found.projects
    ]
    return Plan(
        input=found.source,
        input_sha256=found.sha256,
        line_count=found.line_count,
        triple_count=found.triple_count,
        duplicate_count=found.duplicate_count,
        bad_line_count=found.bad_line_count,
        bad_lines=found.bad_lines,
        project_count=len(projects),
        cluster_count=sum(project.cluster_count for project in projects),
        told_count=sum(project.bucket.source == "told" for project in projects),
        concurrency=pace.concurrency,
        max_share=pace.max_share,
        latency_s=LATENCY_S,
        by_get=_total({one.project_id: one.by_get for one in projects}, pace.concurrency),
        by_list=_total({one.project_id: one.by_list for one in projects}, pace.concurrency),
        projects=tuple(sorted(projects, key=lambda one: (-one.by_get.expected_s, one.project_id))),
    )


def _plan_project(
    project: Clusters, told: Limits | None, max_share: float, slots: int
) -> ProjectPlan:
    limits = told or DOCUMENTED
    pages = [page_count(count) for count in project.triple_counts]
    return ProjectPlan(
        project_id=project.group_id,
        triple_count=sum(project.triple_counts),
        cluster_count=len(project.triple_counts),
        bucket=Bucket(
            limits.capacity,
            limits.refill_rate,
            limits.refill_duration,
            "told" if told else "documented",
        ),
        by_get=_cost(sum(project.triple_counts), 1, limits, max_share, slots),
        by_list=_cost(sum(pages), max(pages), limits, max_share, slots),
    )


def _cost(requests: int, in_a_row: int, limits: Limits, max_share: float, slots: int) -> Cost:
    """One project's cost; `in_a_row` requests wait for one another, as pages of one list do."""
    by_bucket = bucket_seconds(requests, limits, max_share) + LATENCY_S
    by_latency = max(in_a_row, math.ceil(requests / slots)) * LATENCY_S
    if by_bucket > by_latency:
        return Cost(requests, _tenths(by_bucket), "bucket")
    return Cost(requests, _tenths(by_latency), "latency")


def bucket_seconds(requests: int, limits: Limits, max_share: float) -> float:
    """Seconds until the last of so many requests may be sent, from a full bucket on."""
    at_once = max(1.0, limits.capacity * max_share)
    rate = limits.refill_rate / limits.refill_duration * max_share
    return max(0.0, (requests - at_once) / rate)


def _tenths(seconds: float) -> float:
    """Round up to a tenth: more digits would claim too much."""
    return math.ceil(round(seconds * 10, 6)) / 10


def _total(costs: Mapping[str, Cost], concurrency: int) -> Total:
    """All projects go on at the same time: the slowest bounds them, or else the slots do."""
    requests = sum(cost.request_count for cost in costs.values())
    by_slots = _tenths(math.ceil(requests / concurrency) * LATENCY_S)
    project_id = max(costs, key=lambda one: (costs[one].expected_s, one))
    slowest = costs[project_id]
    if slowest.expected_s < by_slots:
        return Total(requests, by_slots, "latency", None)
    return Total(requests, slowest.expected_s, slowest.bound_by, project_id)


# --- what the estimate is of ----------------------------------------------------------------------


def read_input(source: str) -> Read:
    """Read an input as a run does; `-` is standard input.

    Raises `InputMissing` or `InputUnusable`.
    """
    with TemporaryDirectory(prefix="checkpoint-audit-") as folder:
        kept = keep_input(source, Path(folder))
        with Journal(Path(folder) / "plan.journal") as journal:
            load_input(kept, journal, strict=False)
            tally = journal.tally()
            return Read(
                source=kept.source,
                sha256=kept.sha256,
                line_count=int(journal.fact("line_count")),
                triple_count=tally.triples,
                duplicate_count=tally.duplicates,
                bad_line_count=tally.bad_lines,
                bad_lines=tuple(map(str, islice(journal.bad_lines(), _SHOWN_BAD_LINES))),
                projects=_projects(journal),
            )


def _projects(journal: Journal) -> tuple[Clusters, ...]:
    return tuple(
        Clusters(group_id, tuple(Counter(item.ref.cluster_name for item in items).values()))
        for group_id, items in sorted(journal.pending().items())
    )


async def tell_limits(transport: Transport, found: Read) -> dict[str, Limits]:
    """Ask Atlas for the limits of the larger projects; gives those that it told, by project.

    Raises `CredentialsRefused` or `AtlasUnavailable` when Atlas lets nobody ask anything.
    """
    failure = read_preliminary(await transport.send(preliminary_request()))
    if failure is not None:
        _check(failure)
    sizes = {one.group_id: sum(one.triple_counts) for one in found.projects}
    told = await ask_limits(transport, unrecorded, worth_asking(sizes))
    return {group_id: limits for group_id, limits in told.items() if is_sane(limits)}


def _check(failure: Failure) -> None:
    if failure.kind in RUN_ENDING_KINDS | {FailureKind.UNAUTHENTICATED}:
        raise CredentialsRefused(
            f"Atlas refuses to be asked for its limits: {failure}",
            hint="check the credentials, or plan with the documented limits: --no-ask",
        )
    if failure.is_transient:
        raise AtlasUnavailable(
            f"Atlas cannot be asked for its limits: {failure}",
            hint="check network, proxy, --base-url and --ca-file, or plan without: --no-ask",
        )
    log.warning("the preliminary call was answered with %s; going on", failure)


# --- how it is shown ------------------------------------------------------------------------------


def as_json(plan: Plan) -> str:
    """The whole plan as a JSON document."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=2).decode()


def as_text(plan: Plan) -> str:
    """The plan for people; of many projects only the slowest.

    Fits 80 columns unless the input's name is long: bad lines are shortened to that.
    """
    return "\n".join(map(visible, [*_head(plan), "", *_totals(plan), "", *_table(plan)]))


def _head(plan: Plan) -> Sequence[str]:
    hidden = plan.bad_line_count - len(plan.bad_lines)
    faults = f"{plan.duplicate_count:,} duplicates + {plan.bad_line_count:,} bad lines"
    share = f"{plan.max_share:.0%} of each limit"
    source = "" if plan.told_count == plan.project_count else ", else as documented (*)"
    return [
        f"input    {plan.input}",
        f"         {plan.line_count:,} lines = {plan.triple_count:,} triples + {faults}",
        *(_shortened(f"         {line}") for line in plan.bad_lines),
        *([f"         and {hidden:,} more"] if hidden else []),
        f"asked    {plan.project_count:,} projects, {plan.cluster_count:,} clusters",
        f"pace     {plan.concurrency} requests at once, {plan.latency_s:g} s each; {share}",
        f"limits   told for {plan.told_count:,} of {plan.project_count:,} projects{source}",
    ]


def _shortened(line: str) -> str:
    return line if len(line) <= _COLUMNS else f"{line[: _COLUMNS - 1]}…"


def _totals(plan: Plan) -> Sequence[str]:
    rows = (("--fetch get", plan.by_get), ("--fetch list", plan.by_list))
    return [
        f"{'':12} {'requests':>11} {'expected':>9}  bound by",
        *(
            f"{name:12} {total.request_count:>11,} {_duration(total.expected_s):>9}  "
            f"{_bound(total, plan)}"
            for name, total in rows
        ),
        "(by list: if Atlas lists as many checkpoints of a cluster as the input names)",
    ]


def _bound(total: Total, plan: Plan) -> str:
    if total.bound_by == "bucket":
        return f"rate limit of {total.bound_project_id}"
    return f"answers of {plan.latency_s:g} s, {plan.concurrency} at once"


def _table(plan: Plan) -> Sequence[str]:
    shown = plan.projects[:_SHOWN_PROJECTS]
    hidden = len(plan.projects) - len(shown)
    return [
        f"{'project':24} {'triples':>9} {'clusters':>8} {'limit':>17} {'by get':>8} {'by list':>8}",
        *map(_row, shown),
        *([f"and {hidden:,} more, none of them slower"] if hidden else []),
    ]


def _row(project: ProjectPlan) -> str:
    bucket = project.bucket
    limit = f"{bucket.capacity:,g} + {bucket.refill_rate:,g}/{bucket.refill_duration_s:g}s"
    mark = " " if bucket.source == "told" else "*"
    return (
        f"{project.project_id:24} {project.triple_count:>9,} {project.cluster_count:>8,} "
        f"{limit:>16}{mark} {_duration(project.by_get.expected_s):>8} "
        f"{_duration(project.by_list.expected_s):>8}"
    )


def _duration(seconds: float) -> str:
    whole = math.ceil(seconds)
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours:,}h{minutes % 60:02}m"
    return f"{minutes}m{whole % 60:02}s" if minutes else f"{whole}s"
