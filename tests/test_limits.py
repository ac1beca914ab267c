"""Token buckets, turns and breakers, all in virtual time."""

import asyncio
import itertools
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.atlas import Reply, Request
from pipeline.checkpoints import Checkpoint
from pipeline.fetch import Fetcher, Item, Retry
from pipeline.limits import Governor, Patience, Project, Turn
from pipeline.outcomes import Failed, Failure, FailureKind, Fetched, Outcome, Refusal
from pipeline.pool import Pool
from pipeline.simulator.buckets import BucketRules, Form, Shape
from tests.doubles import (
    Notebook,
    Player,
    Served,
    always,
    bucketed,
    error,
    good,
    group,
    hanging,
    queues,
    refused,
    reply,
    trouble,
)
from tests.virtual_time import now, run

Settled = list[tuple[float, Item, Outcome]]
THROTTLED = FailureKind.THROTTLED
FAILING = Failure(FailureKind.SERVER_ERROR, 500)
REFUSED = Failure(THROTTLED, 429, refusal=Refusal(1.0))
OK = reply(200)
FOUND = Checkpoint()


def half() -> float:
    return 0.5


async def work(
    transport: Served,
    counts: dict[str, int],
    *,
    attempts: int = 5,
    share: float = 0.9,
    patience: Patience | None = None,
    concurrency: int = 64,
) -> Settled:
    """Fetch `counts` (p3=5: five triples of project 3) through the real pool; give what came."""
    governor = Governor(concurrency=concurrency, share=share, patience=patience, jitter=half)
    fetcher = Fetcher(transport, governor, Notebook(), retry=Retry(attempts), jitter=half)
    settled: Settled = []

    async def settle(item: Item, outcome: Outcome) -> None:
        settled.append((now() - begun, item, outcome))

    begun = now()
    await Pool(governor, settle).run(fetcher.fetch, queues(**counts))
    assert_at_rest(governor)
    return settled


def assert_at_rest(governor: Governor) -> None:
    """Nothing is held or waited for once everybody has gone."""
    assert governor.in_flight == 0
    assert governor._waiting == 0
    assert all(not each.in_flight and not each.waiters for each in governor._projects.values())


def makespan(settled: Settled, *, without: int = 0) -> float:
    """Seconds until the last triple of any other project than `without` was settled."""
    return max(at for at, item, _ in settled if item.ref.group_id != group(without))


def kinds(settled: Settled, project: int) -> list[FailureKind | None]:
    return [
        outcome.failure.kind if isinstance(outcome, Failed) else None
        for _, item, outcome in settled
        if item.ref.group_id == group(project)
    ]


# ── whole projects against a bucket ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", ["stepped", "continuous"])
@pytest.mark.parametrize("headers", [True, False])
@pytest.mark.parametrize("drain", [0.0, 4.0])
@pytest.mark.parametrize("form", ["RATE_LIMITED_TOKEN_BUCKET", "RATE_LIMITED"])
def test_every_triple_is_fetched_from_either_shape_of_bucket(
    shape: Shape, headers: bool, drain: float, form: Form
) -> None:
    """With and without headers, with others who spend: few refusals, and nothing left behind."""
    rules = BucketRules(shape=shape, headers=headers, drain=drain, form=form)
    transport = Served(p1=bucketed(rules))
    settled = run(work(transport, {"p1": 1800}))

    assert sorted(item.triple_id for _, item, _ in settled) == [100_000 + n for n in range(1800)]
    assert set(kinds(settled, 1)) == {None}
    # One refusal shows that the refill comes in steps; a continuous one is never overtaken.
    assert transport.statuses[429] <= (shape == "stepped")


@pytest.mark.parametrize("share", [0.9, 0.3])
def test_a_project_is_sent_no_more_than_our_share(share: float) -> None:
    """In every window of a whole run: share × (capacity + refill)."""
    transport = Served(p1=bucketed(BucketRules(capacity=100, refill_rate=60, shape="continuous")))
    settled = run(work(transport, {"p1": 300}, share=share))

    sent = transport.sent[group(1)]
    assert len(settled) == 300
    # The first header tells that the capacity is 100; what was on its way before it came is more.
    for first in range(64, len(sent), 7):
        for last in range(first, len(sent)):
            window = sent[last] - sent[first]
            assert last - first <= share * (100 + window * 500 / 60) + 1e-6


def test_a_very_slow_bucket_is_waited_for() -> None:
    """Five tokens and one every 10 s: nobody gives up, no attempt is spent on refusals."""
    rules = BucketRules(capacity=5, refill_rate=1, refill_duration=10, shape="stepped")
    settled = run(work(Served(p1=bucketed(rules)), {"p1": 40}))

    assert set(kinds(settled, 1)) == {None}
    assert {outcome.attempts for _, _, outcome in settled} == {1}


def lying(**headers: str) -> Player:
    """Answers well, but every third time refuses in nonsense; every header is nonsense."""
    asked = 0

    async def player(request: Request) -> Reply:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.1)
        if asked % 3 == 0:
            return refused(-1, 0, -5, 0, retry_after="0", **headers)
        return good(request, **headers)

    return player


@pytest.mark.parametrize(
    "headers",
    [
        {"ratelimit_limit": "0", "ratelimit_remaining": "0"},
        {"ratelimit_limit": "-5", "ratelimit_remaining": "-5"},
        {"ratelimit_limit": "999999999", "ratelimit_remaining": "999999999"},
        {"ratelimit_limit": "1", "ratelimit_remaining": "0"},
        {"ratelimit_limit": "many", "ratelimit_remaining": "few"},
    ],
)
def test_nonsense_headers_stall_nobody(headers: dict[str, str]) -> None:
    """200 triples within ten minutes, whatever the answers say about limits."""
    settled = run(work(Served(p1=lying(**headers)), {"p1": 200}))

    assert kinds(settled, 1) == [None] * 200
    assert makespan(settled) < 600


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    capacity=st.integers(1, 50),
    rate=st.integers(1, 50),
    shape=st.sampled_from(["stepped", "continuous"]),
    headers=st.booleans(),
    concurrency=st.integers(1, 20),
)
@settings(max_examples=40, deadline=None)
def test_whatever_the_limits_everything_is_sent_in_the_end(
    counts: list[int], capacity: int, rate: int, shape: Shape, headers: bool, concurrency: int
) -> None:
    rules = BucketRules(capacity=capacity, refill_rate=rate, shape=shape, headers=headers)
    transport = Served(**{f"p{n}": bucketed(rules) for n in range(len(counts))})
    wanted = {f"p{n}": count for n, count in enumerate(counts)}
    patience = Patience(refused=1e9)
    settled = run(work(transport, wanted, concurrency=concurrency, patience=patience))

    assert len(settled) == sum(counts)
    assert all(isinstance(outcome, Fetched) for _, _, outcome in settled)


# ── one project beside others ────────────────────────────────────────────────────────────────────

OTHERS = {f"p{n}": 150 for n in range(1, 7)}


@pytest.fixture(scope="module")
def undisturbed() -> float:
    """How long six projects take among themselves."""
    return makespan(run(work(Served(), OTHERS)))


@pytest.mark.parametrize(
    ("player", "ends"),
    [
        (hanging(), FailureKind.TIMED_OUT),
        (always(refused(3600, 1200, 500, 60, retry_after="3600")), THROTTLED),
        (always(refused(5, 1200, 500, 60, retry_after="5")), THROTTLED),
        (always(refused()), THROTTLED),
        (always(error(503)), FailureKind.SERVER_ERROR),
    ],
)
def test_a_project_in_trouble_does_not_slow_the_others(
    player: Player, ends: FailureKind, undisturbed: float
) -> None:
    """It may take a quarter of the slots for a while, but no more than that."""
    settled = run(work(Served(p9=player), {**OTHERS, "p9": 150}))

    assert makespan(settled, without=9) <= undisturbed * 4 / 3 + 0.2
    assert all(set(kinds(settled, int(name[1:]))) == {None} for name in OTHERS)
    assert set(kinds(settled, 9)) <= {ends, THROTTLED, FailureKind.NOT_ASKED}
    assert ends in kinds(settled, 9)


def for_a_while(seconds: float, found: Reply) -> Player:
    """Gives `found` for so long from the first request on, then answers well."""
    began: list[float] = []

    async def player(request: Request) -> Reply:
        began.append(now())
        await asyncio.sleep(0.1)
        return found if now() - began[0] < seconds else good(request)

    return player


def test_a_project_that_refuses_for_half_a_minute_is_waited_for(undisturbed: float) -> None:
    """It holds itself only, spends no attempt, and ends as well as the others."""
    transport = Served(p9=for_a_while(30, refused(1, 1200, 500, 60, retry_after="1")))
    settled = run(work(transport, {**OTHERS, "p9": 50}))

    assert makespan(settled, without=9) <= undisturbed * 4 / 3 + 0.2
    assert kinds(settled, 9) == [None] * 50
    assert {outcome.attempts for _, _, outcome in settled} == {1}
    assert makespan(settled) < 90


@pytest.mark.parametrize("hung", [1, 9])
def test_a_hanging_project_holds_a_quarter_while_others_wait(hung: int) -> None:
    """Whether it comes first or last: who comes first is not alone for that."""
    transport = Served(**{f"p{hung}": hanging()})
    settled = run(work(transport, {"p1": 1000, "p5": 1000, "p9": 1000}))

    # Nothing of the hanging project ends before 30 s, so what was sent is what is held.
    ended, begun = makespan(settled, without=hung), transport.sent[group(5)][0]
    assert ended < 30
    assert sum(at < begun + ended - 0.2 for at in transport.sent[group(hung)]) == 16


# ── turns ────────────────────────────────────────────────────────────────────────────────────────


async def turns(governor: Governor, group_id: str, count: int) -> list["asyncio.Task[Any]"]:
    """Queue up for so many turns, and let everybody queue."""
    waiting = [asyncio.create_task(governor.acquire(group_id)) for _ in range(count)]
    await settle_down()
    return waiting


async def opened(concurrency: int = 64, *names: str, **patience: Any) -> Governor:
    """A governor after the first request to each project: the others need not wait for it."""
    governor = Governor(concurrency=concurrency, jitter=lambda: 0.0, patience=Patience(**patience))
    for name in names:
        turn = await governor.acquire(name)
        assert isinstance(turn, Turn)
        governor.release(turn, OK, FOUND)
    return governor


def granted(tasks: Sequence["asyncio.Task[Any]"]) -> list[Turn]:
    return [each.result() for each in tasks if each.done() and isinstance(each.result(), Turn)]


async def settle_down() -> None:
    """Let everything happen that needs no time."""
    for _ in range(5):
        await asyncio.sleep(0)


async def dismiss(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_project_alone_has_all_slots() -> None:
    async def main() -> None:
        governor = await opened(8, "a")
        tasks = await turns(governor, "a", 20)

        assert len(granted(tasks)) == 8
        await dismiss(tasks)

    run(main())


def test_beside_others_a_project_has_a_quarter() -> None:
    """What it held before they came it keeps until it gives it back."""

    async def main() -> None:
        governor = await opened(8, "a", "b")
        first = await turns(governor, "a", 20)
        second = await turns(governor, "b", 20)
        for turn in granted(first):
            governor.release(turn, OK, FOUND)
        await settle_down()

        assert len(granted(first)) == 8 + 2
        assert len(granted(second)) == 2
        await dismiss([*first, *second])

    run(main())


@pytest.mark.parametrize("concurrency", [1, 2, 3])
def test_with_few_slots_everybody_still_has_one(concurrency: int) -> None:
    settled = run(work(Served(), {"p1": 5, "p2": 5, "p3": 5}, concurrency=concurrency))

    assert len(settled) == 15


@pytest.mark.parametrize("way", ["answered", "cancelled", "given up"])
def test_when_the_others_stop_waiting_their_slots_go_to_who_is_left(way: str) -> None:
    """At once, not when the next request ends: that may hang for half a minute."""

    async def main() -> None:
        governor = await opened(8, "a", "b", failures=1, probe_waits=())
        second = await turns(governor, "b", 10 if way == "answered" else 20)
        first = await turns(governor, "a", 20)
        one, *rest = granted(second)
        for turn in rest:
            governor.release(turn, OK, FOUND)
        await settle_down()
        assert (len(granted(first)), governor.in_flight) == (2, 4)
        if way == "cancelled":
            await dismiss(second[-11:])
        elif way == "given up":
            governor.release(one, OK, FAILING)
        else:
            governor.release(one, OK, FOUND)
        await settle_down()

        assert governor.in_flight == 8
        await dismiss([*first, *second])

    run(main())


def test_turns_go_round() -> None:
    """With one slot and three projects, nobody is passed over."""

    async def main() -> list[str]:
        governor, order = Governor(concurrency=1), []

        async def ask(name: str) -> None:
            turn = await governor.acquire(name)
            assert isinstance(turn, Turn)
            order.append(name)
            await asyncio.sleep(1)
            governor.release(turn, OK, FOUND)

        async with asyncio.TaskGroup() as tasks:
            for name in "aaaabbbbcccc":
                tasks.create_task(ask(name))
        return order

    order = run(main())

    assert all(set(order[start : start + 3]) == set("abc") for start in (3, 6))
    assert sorted(order) == list("aaaabbbbcccc")


def test_a_refused_project_is_probed_with_one_request() -> None:
    """After the hold one request finds out; only its answer lets the others follow."""

    async def main() -> None:
        governor = await opened(8, "a")
        tasks = await turns(governor, "a", 20)
        turn, *rest = granted(tasks)
        governor.release(turn, OK, REFUSED)
        for each in rest:
            governor.release(each, None, None)
        await asyncio.sleep(0.9)
        assert len(granted(tasks)) == 8

        await asyncio.sleep(0.2)
        assert len(granted(tasks)) == 9

        governor.release(granted(tasks)[-1], OK, FOUND)
        await settle_down()
        assert len(granted(tasks)) == 17
        await dismiss(tasks)

    run(main())


def test_good_news_wake_a_project_up() -> None:
    """It sleeps for want of tokens; a later answer says that there are some after all."""

    async def main() -> float:
        governor = await opened(64, "a")
        first, second, *waiting = await turns(governor, "a", 100)
        for turn, left in ((first.result(), 0), (second.result(), 500)):
            told = {"ratelimit-limit": "1200", "ratelimit-remaining": str(left)}
            governor.release(turn, reply(200, headers=told), FOUND)
            await settle_down()
        begun = now()
        await waiting[62]
        await dismiss(waiting)
        return now() - begun

    assert run(main()) == 0.0


def test_what_is_on_its_way_counts_as_spent() -> None:
    """Five tokens left and seven requests that may not have arrived: nothing is sent on top."""

    async def main() -> None:
        governor = await opened(8, "a")
        tasks = await turns(governor, "a", 20)
        told = {"ratelimit-limit": "1200", "ratelimit-remaining": "5"}
        governor.release(granted(tasks)[0], reply(200, headers=told), FOUND)
        await settle_down()

        assert len(granted(tasks)) == 8
        await dismiss(tasks)

    run(main())


def test_pause_gives_no_more_turns_and_waits_for_the_rest() -> None:
    async def main() -> None:
        governor = await opened(2, "a")
        tasks = await turns(governor, "a", 5)
        held = granted(tasks)
        pausing = asyncio.create_task(governor.pause(60))
        begun = now()
        for turn in held:
            await asyncio.sleep(1)
            assert not pausing.done()
            governor.release(turn, OK, FOUND)
        await pausing

        assert now() - begun == pytest.approx(2)
        assert len(granted(tasks)) == 2
        await dismiss(tasks)
        assert_at_rest(governor)

    run(main())


def test_pause_does_not_wait_for_ever() -> None:
    async def main() -> float:
        governor = Governor()
        await governor.acquire("a")
        begun = now()
        await governor.pause(8)
        return now() - begun

    assert run(main()) == pytest.approx(8)


def test_a_held_project_does_not_wake_up_into_a_run_that_is_over() -> None:

    async def main() -> None:
        governor = Governor()
        turn = await governor.acquire("a")
        assert isinstance(turn, Turn)
        governor.release(turn, OK, REFUSED)
        tasks = await turns(governor, "a", 1)
        await governor.pause(8)
        await asyncio.sleep(600)

        assert not granted(tasks)
        await dismiss(tasks)

    run(main())


# ── the breaker ──────────────────────────────────────────────────────────────────────────────────


def test_failures_in_a_row_lead_to_probes_and_then_to_an_end() -> None:
    """After the tenth a probe 5, 10, 20 and 40 s later, one at a time; then nobody is asked."""
    transport = Served(p1=always(error(500), latency=0.0))
    settled = run(work(transport, {"p1": 400}, attempts=1, concurrency=4))

    sent = transport.sent[group(1)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(sent)]
    # Three more are on their way when the tenth failure is told.
    assert [gap for gap in gaps if gap > 1] == [pytest.approx(wait) for wait in (5, 10, 20, 40)]
    assert 14 <= len(sent) <= 17
    assert kinds(settled, 1).count(FailureKind.SERVER_ERROR) == len(sent)
    assert kinds(settled, 1).count(FailureKind.NOT_ASKED) == 400 - len(sent)


def test_who_was_not_asked_is_told_why() -> None:
    settled = run(work(Served(p1=always(error(503))), {"p1": 200}, attempts=1))
    told = [each for _, _, each in settled if isinstance(each, Failed) and each.reply_id is None]

    assert told
    assert "not asked" in told[0].failure.detail
    assert "server_error" in told[0].failure.detail
    assert {each.attempts for each in told} == {0}


def test_a_success_forgets_the_failures() -> None:
    """Nine failures, a success, nine failures: never held."""

    async def main() -> float:
        governor = Governor()
        begun = now()
        nine: list[Checkpoint | Failure] = [FAILING] * 9
        for answer in [*nine, FOUND, *nine]:
            turn = await governor.acquire("a")
            assert isinstance(turn, Turn)
            governor.release(turn, OK, answer)
        await governor.acquire("a")
        return now() - begun

    assert run(main()) == 0.0


def test_a_success_ends_the_hold() -> None:
    """An answer to a slow request shows that the project is there: no need to wait for a probe."""

    async def main() -> float:
        governor = Governor()
        slow, *quick = [await governor.acquire("a") for _ in range(11)]
        begun = now()
        for turn in quick:
            assert isinstance(turn, Turn)
            governor.release(turn, OK, FAILING)
        waiting = (await turns(governor, "a", 1))[0]
        assert not waiting.done()
        assert isinstance(slow, Turn)
        governor.release(slow, OK, FOUND)
        await waiting
        return now() - begun

    assert run(main()) == 0.0


def closed(governor: Governor) -> Failure | None:
    return governor._project("a").closed


async def give_up(governor: Governor) -> None:
    """Fail until the project is given up."""
    while True:
        turn = await governor.acquire("a")
        if isinstance(turn, Failure):
            return
        governor.release(turn, OK, FAILING)


def test_a_reopened_project_is_asked_once() -> None:
    """One failure closes it again; one answer lets everybody follow."""

    async def main() -> None:
        governor = Governor(concurrency=8)
        await give_up(governor)
        governor.reopen()
        tasks = await turns(governor, "a", 5)
        assert len(granted(tasks)) == 1

        governor.release(granted(tasks)[0], OK, FAILING)
        await settle_down()
        assert closed(governor) is not None
        assert [isinstance(each.result(), Failure) for each in tasks] == [False] + [True] * 4

        governor.reopen()
        tasks = await turns(governor, "a", 5)
        governor.release(granted(tasks)[0], OK, FOUND)
        await settle_down()
        assert len(granted(tasks)) == 5

    run(main())


def test_a_refusal_that_outlasts_our_patience_gives_the_project_up() -> None:
    """Retry-After 3600 is not waited for when 900 s are all that a run waits."""

    async def main() -> None:
        governor = Governor()
        turn = await governor.acquire("a")
        tasks = await turns(governor, "a", 3)
        assert isinstance(turn, Turn)
        long = Failure(THROTTLED, 429, refusal=Refusal(3600.0))
        governor.release(turn, OK, long)
        for each in granted(tasks):
            governor.release(each, None, None)
        ended = await governor.acquire("a")

        assert isinstance(ended, Failure)
        assert ended.kind is THROTTLED
        governor.reopen()
        assert isinstance(await governor.acquire("a"), Failure)

    run(main())


def test_who_is_cancelled_as_the_project_is_given_up_is_left_alone() -> None:
    async def main() -> None:
        governor = Governor(concurrency=1, patience=Patience(failures=1, probe_waits=()))
        tasks = await turns(governor, "a", 3)
        tasks[1].cancel()
        governor.release(granted(tasks)[0], OK, FAILING)
        await settle_down()

        assert tasks[1].cancelled()
        assert isinstance(tasks[2].result(), Failure)
        assert_at_rest(governor)

    run(main())


def test_refusals_without_end_are_waited_for_a_quarter_of_an_hour() -> None:
    transport = Served(p1=always(refused(1, 1200, 500, 60, retry_after="1")))
    settled = run(work(transport, {"p1": 30}))

    assert set(kinds(settled, 1)) == {THROTTLED}
    assert 800 < makespan(settled) <= 900


def test_a_success_renews_the_patience() -> None:
    """A project that refuses for 800 s, answers once and refuses again is not given up."""

    async def main() -> None:
        governor = Governor(jitter=lambda: 0.0)
        long = Failure(THROTTLED, 429, refusal=Refusal(500.0))
        for answer in (long, FOUND, long, FOUND, long):
            turn = await governor.acquire("a")
            assert isinstance(turn, Turn)
            governor.release(turn, OK, answer)

        assert closed(governor) is None

    run(main())


def test_a_stray_failure_among_good_answers_holds_nobody() -> None:
    """Every fifth request fails: all triples are fetched in the end, and quickly."""
    asked = 0

    async def player(request: Request) -> Reply:
        nonlocal asked
        asked += 1
        failing = asked % 5 == 0
        await asyncio.sleep(0.1)
        return trouble(FailureKind.CUT) if failing else good(request)

    settled = run(work(Served(p1=player), {"p1": 300}))

    assert kinds(settled, 1) == [None] * 300
    assert makespan(settled) < 10


# ── no slot, no waiter, no wake-up is ever lost ──────────────────────────────────────────────────

ANSWERS = st.sampled_from([FOUND, FOUND, FAILING, REFUSED, Failure(THROTTLED, 429), None])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("acquire"), st.sampled_from("abc")),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("cancel at once"), st.integers(0, 50)),
        st.tuples(st.just("release"), st.integers(0, 50), ANSWERS),
        st.tuples(st.just("wait"), st.floats(0, 30)),
        st.tuples(st.just("reopen")),
    ),
    max_size=60,
)


class Crowd:
    """People who queue, change their minds, and give back what they got."""

    def __init__(self, concurrency: int) -> None:
        patience = Patience(refused=60, failures=3, probe_waits=(2.0, 4.0))
        self.governor = Governor(concurrency=concurrency, patience=patience, jitter=half)
        self.tasks: list[asyncio.Task[Any]] = []
        self.held: list[Turn] = []

    async def play(self, steps: list[tuple[Any, ...]]) -> None:
        for name, *told in steps:
            await self._step(name, told)
            self._check()
        await self._go_home()

    async def _step(self, name: str, told: list[Any]) -> None:
        match name:
            case "acquire":
                self.tasks.append(asyncio.create_task(self._queue(told[0])))
                await asyncio.sleep(0)
            case "cancel" if self.tasks:
                self.tasks[told[0] % len(self.tasks)].cancel()
            case "cancel at once" if self.held and self.tasks:
                # A turn is given and its taker cancelled before he has had a step.
                self.governor.release(self.held.pop(), OK, FOUND)
                self.tasks[told[0] % len(self.tasks)].cancel()
                await settle_down()
            case "release" if self.held:
                turn = self.held.pop(told[0] % len(self.held))
                self.governor.release(turn, OK if told[1] else None, told[1])
            case "wait":
                await asyncio.sleep(told[0])
            case "reopen":
                self.governor.reopen()

    async def _queue(self, name: str) -> None:
        turn = await self.governor.acquire(name)
        if isinstance(turn, Turn):
            self.held.append(turn)

    def _check(self) -> None:
        governor = self.governor
        projects = governor._projects.values()
        assert governor.in_flight == sum(each.in_flight for each in projects)
        assert 0 <= governor.in_flight <= governor.concurrency
        assert governor._waiting == sum(bool(each.waiters) for each in projects)
        for each in projects:
            assert self._places(each) == each.queued
            assert each.queued or not each.waiters

    def _places(self, project: Project) -> int:
        """In how many queues a project stands: in one, if at all."""
        governor = self.governor
        return (
            governor._ready.count(project) + governor._parked.count(project) + bool(project.asleep)
        )

    async def _go_home(self) -> None:
        """Everybody answers well from now on: then nobody waits in vain."""
        while self.held or not all(each.done() for each in self.tasks):
            while self.held:
                self.governor.release(self.held.pop(), OK, FOUND)
            await asyncio.sleep(1)
            self._check()
        assert_at_rest(self.governor)


@given(steps=STEPS, concurrency=st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost_whatever_happens(steps: list[tuple[Any, ...]], concurrency: int) -> None:
    run(Crowd(concurrency).play(steps))


def test_cancelling_a_whole_run_gives_everything_back() -> None:
    """Requests in flight and queues alike; nothing is sent after the cancellation."""

    async def main() -> None:
        transport = Served(p1=hanging(), p2=hanging())
        governor = Governor(concurrency=8)
        fetcher = Fetcher(transport, governor, Notebook())

        async def settle(_: Item, __: Outcome) -> None:
            pass

        pool = asyncio.create_task(
            Pool(governor, settle).run(fetcher.fetch, queues(p1=50, p2=50, p3=50))
        )
        await asyncio.sleep(2)
        sent = transport.total
        pool.cancel()
        await asyncio.wait({pool})

        assert pool.cancelled()
        assert transport.total == sent
        assert_at_rest(governor)

    run(main())


def test_the_loop_itself_notices_a_lost_wake_up() -> None:
    """The net under all these tests: who waits for nobody is not waited for."""

    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(AssertionError, match="everybody waits"):
        _finish(main())


def _finish(main: Coroutine[Any, Any, None]) -> None:
    run(main)
