"""What holds of the governor whatever the bucket: laws, and how long a run takes. Virtual time.

The server's side is the simulator's buckets. `ideal` is the time at which the quota, or our share
of it, allows the last request, if nothing but the quota took time.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.atlas import Limits, Reply, Request
from pipeline.fetch import Fetcher, Item
from pipeline.limits import Governor, Patience
from pipeline.outcomes import Fetched, Outcome
from pipeline.pool import Pool
from pipeline.simulator.buckets import BucketRules, Shape
from tests.doubles import Notebook, Player, Served, bucketed, group, hanging, queues
from tests.virtual_time import VirtualLoop, now, run

SHAPES: tuple[Shape, ...] = ("stepped", "continuous")

#: A hold is at least half a second, a wait told in whole seconds, jitter up to one more.
ROUNDING_S = 3.0


class Night:
    """What became of a run: when each triple was settled, and what was sent when."""

    def __init__(self, transport: Served, **asking: float) -> None:
        self.transport = transport
        self.settled: list[tuple[float, Item, Outcome]] = []
        self.governor = Governor(
            concurrency=int(asking.get("concurrency", 64)),
            share=asking.get("share", 1.0),
            patience=Patience(refused=1e9),
            jitter=lambda: 0.5,
        )

    async def play(self, counts: Mapping[str, int], told: BucketRules | None = None) -> None:
        """Fetch so many triples of each project (`p3`); `told`: the limits are readable."""
        begun = now()
        if told is not None:
            limits = Limits(told.capacity, told.refill_rate, told.refill_duration)
            for name in counts:
                self.governor.learn_limits(group(int(name[1:])), limits)

        async def settle(item: Item, outcome: Outcome) -> None:
            self.settled.append((now() - begun, item, outcome))

        fetcher = Fetcher(self.transport, self.governor, Notebook(), jitter=lambda: 0.5)
        await Pool(self.governor, settle).run(fetcher.fetch, queues(**counts))

    def span(self, *, without: int = -1) -> float:
        return max(at for at, item, _ in self.settled if item.ref.group_id != group(without))

    @property
    def refusals(self) -> int:
        return self.transport.statuses[429]

    def assert_all_fetched(self, counts: Mapping[str, int]) -> None:
        assert len(self.settled) == sum(counts.values())
        assert len({item.triple_id for _, item, _ in self.settled}) == len(self.settled)
        assert all(isinstance(outcome, Fetched) for _, _, outcome in self.settled)


def night(
    players: Mapping[str, Player],
    counts: Mapping[str, int],
    told: BucketRules | None = None,
    **asking: float,
) -> Night:
    played = Night(Served(**players), **asking)
    run(played.play(counts, told))
    return played


def ideal(count: int, rules: BucketRules, share: float = 1.0) -> float:
    """Seconds until so many requests have been allowed."""
    missing = max(0.0, count - max(1.0, share * rules.capacity))
    refills = missing / (share * rules.refill_rate)
    return rules.refill_duration * (math.ceil(refills) if rules.shape == "stepped" else refills)


def zipf(total: int, projects: int) -> dict[str, int]:
    """Sizes that fall as 1, 1/2, 1/3 …"""
    whole = sum(1 / n for n in range(1, projects + 1))
    return {f"p{n}": max(1, round(total / whole / n)) for n in range(1, projects + 1)}


@st.composite
def any_rules(draw: st.DrawFn) -> BucketRules:
    """A bucket that one refill does not overfill, nor our share of it our share."""
    capacity = draw(st.integers(10, 200))
    return BucketRules(
        capacity=capacity,
        refill_rate=draw(st.integers(5, capacity // 2)),
        refill_duration=draw(st.sampled_from([10.0, 30.0, 60.0])),
        shape=draw(st.sampled_from(SHAPES)),
        headers=draw(st.booleans()),
    )


RULES = any_rules()
LATENCIES = st.sampled_from([0.02, 0.1, 0.7, 2.0])


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────


@given(
    rules=RULES,
    count=st.integers(1, 300),
    share=st.sampled_from([0.25, 0.7, 1.0]),
    latency=LATENCIES,
)
@settings(max_examples=60, deadline=None)
def test_no_window_holds_more_than_our_share_of_capacity_and_refills(
    rules: BucketRules, count: int, share: float, latency: float
) -> None:
    """Whatever the shape: of a window's refills there is one more than whole durations in it."""
    played = night({"p1": bucketed(rules, latency)}, {"p1": count}, rules, share=share)
    sent = played.transport.sent[group(1)]

    for first in range(len(sent)):
        for last in range(first, len(sent), 5):
            refills = (sent[last] - sent[first]) // rules.refill_duration + 1
            most = max(1.0, share * rules.capacity) + share * refills * rules.refill_rate
            assert last - first + 1 <= most + 1


@given(
    rules=RULES,
    count=st.integers(1, 400),
    latency=st.sampled_from([0.02, 0.1, 1.0]),
    told=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_a_bucket_of_our_own_refuses_next_to_nothing(
    rules: BucketRules, count: int, latency: float, told: bool
) -> None:
    """One refusal shows the shape of the refill, unless a step takes little longer than a token.

    Where nothing tells that there are fewer tokens than documented, what is on its way when they
    are used up is refused too, once.
    """
    players = {"p1": bucketed(rules, latency)}
    played = night(players, {"p1": count}, rules if told else None, share=0.95)
    blind = 0 if told or rules.headers else 64
    hidden = played.span() // rules.refill_duration if rules.refill_rate < 10 else 0

    played.assert_all_fetched({"p1": count})
    assert played.refusals <= 4 + blind + hidden


@given(
    rules=RULES,
    count=st.integers(1, 400),
    share=st.sampled_from([0.3, 0.9, 1.0]),
    latency=LATENCIES,
)
@settings(max_examples=80, deadline=None)
def test_a_run_ends_within_one_refill_of_the_ideal(
    rules: BucketRules, count: int, share: float, latency: float
) -> None:
    """Beside what the slots and the way there and back take."""
    played = night({"p1": bucketed(rules, latency)}, {"p1": count}, rules, share=share)
    way = latency * (4 + count / 64)

    played.assert_all_fetched({"p1": count})
    assert played.span() <= ideal(count, rules, share) + rules.refill_duration + way + ROUNDING_S


@given(
    counts=st.lists(st.integers(1, 150), min_size=1, max_size=8),
    rules=RULES,
    drain=st.sampled_from([0.0, 0.01, 3.0]),
    latency=LATENCIES,
    concurrency=st.integers(1, 20),
)
@settings(max_examples=60, deadline=None)
def test_nobody_starves(
    counts: list[int], rules: BucketRules, drain: float, latency: float, concurrency: int
) -> None:
    """Every triple is fetched; and until a project has ended it is served again and again.

    Turns go round, so nobody waits for one longer than for a hold of 40 s, a refill, and a round
    of all the others.
    """
    rules = replace(rules, drain=drain)
    wanted = {f"p{n}": count for n, count in enumerate(counts)}
    players = {name: bucketed(rules, latency) for name in wanted}
    played = night(players, wanted, concurrency=concurrency)

    played.assert_all_fetched(wanted)
    longest = 50.0 + 2 * rules.refill_duration + latency * len(counts)
    for sent in played.transport.sent.values():
        assert all(later - earlier <= longest for earlier, later in pairwise([1000.0, *sent]))


class Watch:
    """Looks now and then whether a project idles that could send, beside a slot that is free."""

    def __init__(self, governor: Governor) -> None:
        self._governor = governor

    async def keep(self) -> None:
        while True:
            await asyncio.sleep(0.37)
            for _ in range(3):  # what is due at this very moment comes first
                await asyncio.sleep(0)
            self._look()

    def _look(self) -> None:
        governor = self._governor
        if governor.in_flight == governor.concurrency:
            return
        for project in governor._projects.values():
            may_send = project.in_flight < project.slots(governor.fair_slots)
            assert not (project.waiters and may_send and project.wait(now()) == 0.0)


@given(
    counts=st.lists(st.integers(1, 50), min_size=1, max_size=6),
    rules=RULES,
    latency=LATENCIES,
    concurrency=st.integers(1, 20),
)
@settings(max_examples=30, deadline=None)
def test_no_project_that_may_send_idles_beside_a_free_slot(
    counts: list[int], rules: BucketRules, latency: float, concurrency: int
) -> None:
    wanted = {f"p{n}": count for n, count in enumerate(counts)}

    async def main() -> None:
        transport = Served(**{name: bucketed(rules, latency) for name in wanted})
        played = Night(transport, concurrency=concurrency)
        watch = asyncio.create_task(Watch(played.governor).keep())
        await played.play(wanted)
        watch.cancel()
        await asyncio.wait({watch})
        assert watch.cancelled()

    run(main())


# ── a wrong guess ────────────────────────────────────────────────────────────────────────────────


def silenced(player: Player, *, headers: bool, body: bool, retry_after: bool) -> Player:
    """A server that leaves out what it could say of its limits."""

    async def quiet(request: Request) -> Reply:
        found = await player(request)
        kept = {
            name: value
            for name, value in found.headers.items()
            if (headers if name.startswith("ratelimit") else retry_after)
        }
        is_cut = found.status == 429 and not body
        return msgspec.structs.replace(found, headers=kept, body=b"" if is_cut else found.body)

    return quiet


#: What tells the limits, and so the only thing that is said about them.
SOURCES = {
    "resource": {"headers": False, "body": False, "retry_after": True},
    "headers": {"headers": True, "body": False, "retry_after": True},
    "bodies": {"headers": False, "body": True, "retry_after": False},
    "nothing": {"headers": False, "body": False, "retry_after": False},
}
TINY = {shape: BucketRules(capacity=120, refill_rate=50, shape=shape) for shape in SHAPES}
HUGE = {shape: BucketRules(capacity=12_000, refill_rate=5000, shape=shape) for shape in SHAPES}


def wrong_guess(rules: BucketRules, source: str, count: int) -> Night:
    player = silenced(bucketed(rules), **SOURCES[source])
    told = rules if source == "resource" else None
    played = night({"p1": player}, {"p1": count}, told)
    played.assert_all_fetched({"p1": count})
    return played


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("source", ["resource", "headers", "bodies"])
def test_a_guess_ten_times_too_high_is_recovered_from(source: str, shape: Shape) -> None:
    """The bucket has a tenth of what is documented: near the ideal time, next to no refusals.

    Only where no answer has headers, those on their way when the bucket is empty are refused.
    """
    played = wrong_guess(TINY[shape], source, 500)
    best = ideal(500, TINY[shape])

    assert played.span() <= best * 1.04 + ROUNDING_S
    assert played.refusals <= {"resource": 9, "headers": 15, "bodies": 66}[source]


@pytest.mark.parametrize("shape", SHAPES)
def test_refusals_that_say_nothing_are_recovered_from_too(shape: Shape) -> None:
    """Waits of 10, 20 and 40 s, as Atlas advises, are part of the price."""
    played = wrong_guess(TINY[shape], "nothing", 500)

    assert played.span() <= 1.5 * ideal(500, TINY[shape]) + 70
    assert played.refusals <= 150


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("source", ["resource", "headers"])
def test_a_guess_ten_times_too_low_is_recovered_from(source: str, shape: Shape) -> None:
    """Beside the time that 64 slots take for the last refill."""
    played = wrong_guess(HUGE[shape], source, 20_000)
    best = ideal(20_000, HUGE[shape])

    assert played.span() <= best * 1.04 + ROUNDING_S + 0.1 * 5000 / 64


@pytest.mark.parametrize("source", ["bodies", "nothing"])
def test_what_nobody_tells_cannot_be_learnt(source: str) -> None:
    """A bucket ten times larger without headers never refuses: the documented speed is kept."""
    played = wrong_guess(HUGE["continuous"], source, 2000)

    assert played.refusals == 0
    assert played.span() == pytest.approx(ideal(2000, BucketRules(shape="continuous")), abs=1.0)


def test_a_refill_ten_times_faster_than_documented_is_found() -> None:
    """The limit is as documented, no refusal ever tells more: but the bucket is always full."""
    rules = BucketRules(refill_rate=5000, shape="continuous")
    played = night({"p1": bucketed(rules)}, {"p1": 8000})

    assert played.span() <= 1.3 * ideal(8000, rules)


# ── refusals that mislead ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("advice", ["0", "", "a date", "59", "never"])
def test_whatever_refusals_advise_a_run_ends_within_a_refill_of_the_ideal(
    advice: str, shape: Shape
) -> None:
    """0 though it is a minute; nothing; a date; a minute though it is an eighth of a second."""
    rules = BucketRules(shape=shape)
    player = advising(bucketed(rules), advice)
    played = night({"p1": player}, {"p1": 3000}, share=1.0)

    played.assert_all_fetched({"p1": 3000})
    assert played.span() <= ideal(3000, rules) + 60.0 + ROUNDING_S
    assert played.refusals <= 40


def advising(player: Player, advice: str) -> Player:
    """Answers like `player`, but refuses with other words about the wait."""

    async def adviser(request: Request) -> Reply:
        found = await player(request)
        if found.status != 429:
            return found
        headers = {name: value for name, value in found.headers.items() if name != "retry-after"}
        if advice == "a date":
            until = found.received_at + timedelta(seconds=int(found.headers["retry-after"]))
            headers["retry-after"] = format_datetime(until, usegmt=True)
        elif advice:
            headers["retry-after"] = advice
        return msgspec.structs.replace(found, headers=headers)

    return adviser


# ── others who spend, others who hang ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_two_runs_spend_one_bucket(shape: Shape, share: float) -> None:
    """Neither knows of the other: together they are as quick as one, with few refusals."""
    rules = BucketRules(shape=shape)
    player = bucketed(rules)

    async def main() -> list[Night]:
        both = [Night(Served(p1=player), share=share) for _ in range(2)]
        await asyncio.gather(*(each.play({"p1": 1500}) for each in both))
        return both

    both = run(main())

    for each in both:
        each.assert_all_fetched({"p1": 1500})
    assert max(each.span() for each in both) <= ideal(3000, rules) + 60.0 + ROUNDING_S
    # Where the tokens run out, what either has on its way may be refused, once for each refill.
    assert sum(each.refusals for each in both) <= 2 * 64 * (1 + 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_250_projects_of_very_different_sizes(shape: Shape) -> None:
    """The largest decides how long it takes; nobody waits long for a first turn."""
    wanted = zipf(12_000, 250)
    rules = BucketRules(shape=shape)
    played = night({name: bucketed(rules) for name in wanted}, wanted, rules, share=0.98)

    played.assert_all_fetched(wanted)
    assert played.refusals <= 1
    assert max(sent[0] for sent in played.transport.sent.values()) - 1000.0 <= 1.0
    largest = max(wanted.values())
    assert played.span() <= ideal(largest, rules, 0.98) + 250 * 0.1


@pytest.mark.parametrize("hung", [1, 20])
def test_one_of_twenty_that_hangs_holds_no_more_than_its_quarter(hung: int) -> None:
    """For as long as others wait; and they end as if it had only taken the quarter away."""
    wanted = {**dict.fromkeys((f"p{n}" for n in range(1, 21)), 400), "p5": 300}
    played = night({f"p{hung}": hanging()}, wanted)
    busy = played.transport.sent[group(5)]

    assert played.span(without=hung) <= 0.1 * 19 * 400 / 48 * 1.1 + 2.0
    early = [at for at in played.transport.sent[group(hung)] if at <= busy[-1]]
    assert len(early) == 16


# ── clocks that jump ─────────────────────────────────────────────────────────────────────────────


@given(
    jumps=st.lists(
        st.tuples(st.floats(0.0, 20.0), st.floats(-300.0, 5000.0)), min_size=1, max_size=5
    ),
    shape=st.sampled_from(SHAPES),
    headers=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_a_run_survives_a_clock_that_jumps(
    jumps: list[tuple[float, float]], shape: Shape, headers: bool
) -> None:
    """Only ours jumps. The server's bucket refuses what it has not got, and that is learnt from."""
    rules = BucketRules(
        capacity=60, refill_rate=25, refill_duration=10, shape=shape, headers=headers
    )
    clock = Skewed()

    async def main() -> Night:
        transport = Served(
            p1=bucketed(rules, clock=clock.true), p2=bucketed(rules, clock=clock.true)
        )
        played = Night(transport)
        jumping = asyncio.create_task(clock.jump(jumps))
        await played.play({"p1": 150, "p2": 150}, rules)
        jumping.cancel()
        return played

    played = run(main())

    played.assert_all_fetched({"p1": 150, "p2": 150})
    assert played.refusals <= 40 * (1 + len(jumps))
    steps = sum(abs(jump) for _, jump in jumps)
    assert played.span() <= 60.0 + 60.0 * len(jumps) + steps


class Skewed:
    """The loop's clock, set to another time now and then; `true` goes on as if it were not."""

    def __init__(self) -> None:
        self._off = 0.0

    def true(self) -> float:
        return now() - self._off

    async def jump(self, jumps: list[tuple[float, float]]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        for after, seconds in jumps:
            await asyncio.sleep(after)
            loop.jump(seconds)
            self._off += seconds
