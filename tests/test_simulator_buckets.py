"""Token buckets: what they give, what they refuse, and when they say to come back."""

from __future__ import annotations

import pytest

from pipeline.simulator import BucketRules
from pipeline.simulator.buckets import Buckets, Taken, refusal_parameters


class Clock:
    """A clock that stands until it is moved; seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def emptied(rules: BucketRules) -> tuple[Buckets, Clock]:
    """Return buckets whose "p" has given all that it held, and their clock."""
    clock = Clock()
    buckets = Buckets(rules, clock)
    assert all(buckets.take("p").allowed for _ in range(rules.capacity))
    return buckets, clock


def taken_at_once(buckets: Buckets, most: int = 10_000) -> int:
    """Return how many tokens there are to take now."""
    return next(n for n in range(most) if not buckets.take("p").allowed)


def test_a_full_bucket_gives_its_capacity() -> None:
    """The first answer leaves one less than the capacity, the last leaves none."""
    buckets = Buckets(BucketRules(capacity=3), Clock())

    assert [buckets.take("p").remaining for _ in range(3)] == [2, 1, 0]
    assert not buckets.take("p").allowed


def test_projects_do_not_share() -> None:
    """One project's spending leaves the other's bucket full."""
    buckets, _ = emptied(BucketRules(capacity=3))

    assert buckets.take("q").remaining == 2


def test_steps_come_whole() -> None:
    """Nothing a moment before the period is over, all of the refill at its end."""
    buckets, clock = emptied(BucketRules(capacity=10, refill_rate=4, refill_duration=60))
    clock.now += 59.9
    assert taken_at_once(buckets) == 0

    clock.now += 0.1
    assert taken_at_once(buckets) == 4


def test_steps_missed_are_made_up_for() -> None:
    """Two periods without a request bring two refills, never more than the capacity."""
    buckets, clock = emptied(BucketRules(capacity=10, refill_rate=4, refill_duration=60))
    clock.now += 120
    assert taken_at_once(buckets) == 8

    clock.now += 6000
    assert taken_at_once(buckets) == 10


def test_steps_say_how_long_they_take() -> None:
    """The advice is the time to the next step, rounded up, so that who follows it is served."""
    buckets, clock = emptied(BucketRules(capacity=10, refill_rate=4, refill_duration=60))
    clock.now += 12.5
    refused = buckets.take("p")
    assert refused.retry_after == 48

    clock.now += refused.retry_after
    assert buckets.take("p").allowed


def test_a_stream_flows() -> None:
    """Half a period brings half the refill."""
    rules = BucketRules(capacity=1200, refill_rate=500, shape="continuous")
    buckets, clock = emptied(rules)
    clock.now += 30

    assert taken_at_once(buckets) == 250


def test_a_stream_advises_zero_seconds() -> None:
    """The next token is 0.12 s away and the advice is cut to whole seconds: 0, as was recorded."""
    buckets, _ = emptied(BucketRules(shape="continuous"))
    refused = buckets.take("p")

    assert not refused.allowed
    assert refused.retry_after == 0


@pytest.mark.parametrize("shape", ["stepped", "continuous"])
def test_a_bucket_never_overflows(shape: str) -> None:
    """However long it is left alone, it holds its capacity."""
    rules = BucketRules(capacity=5, refill_rate=500, shape=shape)  # type: ignore[arg-type]
    buckets, clock = emptied(rules)
    clock.now += 1e6

    assert taken_at_once(buckets) == 5


def test_others_spend_too() -> None:
    """`drain` tokens a second are gone that nobody here asked for."""
    clock = Clock()
    buckets = Buckets(BucketRules(capacity=100, drain=2.0), clock)
    assert buckets.take("p").remaining == 99

    clock.now += 20
    assert buckets.take("p").remaining == 58


def test_others_cannot_spend_what_is_not_there() -> None:
    """A bucket drained dry is empty, not in debt."""
    clock = Clock()
    rules = BucketRules(capacity=100, refill_rate=10, refill_duration=60, drain=50.0)
    buckets = Buckets(rules, clock)
    buckets.take("p")
    clock.now += 60

    assert taken_at_once(buckets) == 10


def test_a_project_may_have_rules_of_its_own() -> None:
    """An override stands for the whole of the rules."""
    rules = BucketRules(overrides={"p": BucketRules(capacity=1, headers=False)})
    buckets = Buckets(rules, Clock())
    taken = buckets.take("p")

    assert taken.remaining == 0
    assert not taken.rules.headers
    assert buckets.take("q").remaining == 1199


@pytest.mark.parametrize(
    ("rules", "parameters"),
    [
        (BucketRules(), ["/x", 7, 1200, 500, 60]),
        (BucketRules(refill_duration=0.5), ["/x", 7, 1200, 500, 0.5]),
        (BucketRules(form="RATE_LIMITED", refill_duration=180), ["/x", 500, 3]),
    ],
)
def test_a_refusal_teaches_the_bucket(rules: BucketRules, parameters: list[object]) -> None:
    """Both forms give their numbers in order; a whole duration is written without a point."""
    taken = Taken(allowed=False, remaining=0, retry_after=7, rules=rules)

    assert refusal_parameters("/x", taken) == parameters


@pytest.mark.parametrize(
    "wrong", [{"capacity": 0}, {"refill_rate": 0}, {"refill_duration": 0.0}, {"drain": -1.0}]
)
def test_rules_must_make_a_bucket(wrong: dict[str, float]) -> None:
    """Numbers that no bucket can have are refused."""
    with pytest.raises(ValueError, match="above zero"):
        BucketRules(**wrong)  # type: ignore[arg-type]
