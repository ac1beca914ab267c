"""One bucket: what is sent, what is learnt from headers and refusals, and what a clock may do."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.atlas import Limits
from pipeline.buckets import ALONE_S, Sent, TokenBucket
from pipeline.outcomes import Refusal

LIMITS = Limits(1200.0, 500.0, 60.0)


def burst(bucket: TokenBucket, at: float) -> int:
    """Send as many as may go now, each when the one before was answered without headers."""
    sent = 0
    while bucket.wait(at) == 0.0:
        bucket.take(at)
        sent += 1
    return sent


def flight(bucket: TokenBucket, at: float, most: int = 2000) -> list[Sent]:
    """Send as many as may be on their way at the same time."""
    sent: list[Sent] = []
    while len(sent) < most and bucket.wait(at, len(sent)) == 0.0:
        sent.append(bucket.take(at, len(sent)))
    return sent


def ask(bucket: TokenBucket, at: float, limit: int | None, remaining: int | None) -> None:
    """Send one request, and have it answered with these headers at once."""
    bucket.answered(at, bucket.take(at), limit, remaining, 0)


def refuse(
    bucket: TokenBucket, at: float, refusal: Refusal, *, sent_at: float | None = None
) -> None:
    sent = bucket.take(at if sent_at is None else sent_at)
    bucket.refused(at, sent, refusal, 0.0)


def stepped(share: float = 1.0) -> TokenBucket:
    """A bucket that was emptied at 0 s and has told that 500 tokens come in steps, at 50 s."""
    bucket = TokenBucket(0.0, share=share)
    ask(bucket, 0.0, 1200, 1199)
    for one in flight(bucket, 0.0):
        bucket.answered(0.0, one, 1200, 1200 - one.nth, 0)
    bucket.own = max(bucket.own, 1.0)
    refuse(bucket, 0.0, Refusal(50.0, 1200.0, 500.0, 60.0))
    return bucket


# ── the start ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("share", "sent"), [(1.0, 1200), (0.9, 1080), (0.5, 600), (0.0001, 1)])
def test_a_bucket_starts_with_the_documented_limit_and_our_share_of_it(
    share: float, sent: int
) -> None:
    """Even a share of less than one token is one token: else a project would stand for ever."""
    assert burst(TokenBucket(0.0, share=share), 0.0) == sent


def test_a_spent_bucket_waits_for_our_share_of_the_refill() -> None:
    """500 tokens in 60 s, of which nine tenths are ours: one in 60 / 450 s."""
    bucket = TokenBucket(0.0, share=0.9)
    burst(bucket, 0.0)

    assert bucket.wait(0.0) == pytest.approx(60 / 450)
    assert burst(bucket, 60.0) == 450


def test_limits_that_are_told_before_the_start_are_where_a_bucket_starts() -> None:
    bucket = TokenBucket(0.0, share=0.5)
    bucket.learn_limits(0.0, Limits(120.0, 60.0, 30.0))

    assert burst(bucket, 0.0) == 60
    assert burst(bucket, 30.0) == 30


def test_larger_limits_that_are_told_are_there_at_once() -> None:
    bucket = TokenBucket(0.0, share=1.0)
    bucket.learn_limits(0.0, Limits(12_000.0, 5000.0, 60.0))

    assert burst(bucket, 0.0) == 12_000


def test_the_first_request_goes_alone() -> None:
    """Its answer tells how many there are; one that is late is not waited for."""
    bucket = TokenBucket(0.0, share=1.0)
    (first,) = flight(bucket, 0.0)
    assert bucket.wait(0.0, 1) == pytest.approx(ALONE_S)
    assert bucket.wait(ALONE_S, 1) == 0.0

    bucket.answered(0.1, first, 1200, 30, 0)
    assert len(flight(bucket, 0.1)) == 30


def test_when_the_first_answer_is_late_the_others_follow() -> None:
    bucket = TokenBucket(0.0, share=1.0)
    bucket.take(0.0)
    bucket.take(ALONE_S, 1)

    assert len(flight(bucket, ALONE_S, most=64)) == 64


def test_without_headers_the_first_fill_is_sent_freely_and_then_one_goes_alone() -> None:
    """What was there is counted down; that more has come back by then is only assumed."""
    bucket = TokenBucket(0.0, share=1.0)
    ask(bucket, 0.0, None, None)
    sent = flight(bucket, 30.0)
    assert len(sent) == 1199

    for one in sent:
        bucket.answered(30.0, one, None, None, 1)
    assert bucket.wait(30.1, 1) > 0.0
    assert bucket.wait(30.1, 0) == 0.0


# ── levels ───────────────────────────────────────────────────────────────────────────────────────


@given(
    share=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    steps=st.lists(
        st.tuples(
            st.floats(0, 400),
            st.sampled_from([None, 600, 1200]),
            st.sampled_from([None, 0, 300, 1100, 1200]),
        ),
        max_size=12,
    ),
)
@settings(deadline=None)
def test_no_window_holds_more_than_our_share(
    share: float, steps: list[tuple[float, int | None, int | None]]
) -> None:
    """In every window at most share × (capacity + refill), also where the headers swing."""
    bucket, at, sent = TokenBucket(0.0, share=share), 0.0, [(0.0, 0)]
    bucket.learn_limits(0.0, LIMITS)
    for seconds, limit, remaining in steps:
        sent.append((at, burst(bucket, at)))
        if bucket.wait(at) == 0.0:
            ask(bucket, at, limit, remaining)
            sent.append((at, 1))
        at += seconds

    for first in range(len(sent)):
        for last in range(first, len(sent)):
            window = sent[last][0] - sent[first][0]
            most = max(1.0, share * 1200) + share * window * 500 / 60
            assert sum(count for _, count in sent[first : last + 1]) <= most + 1e-6


def test_a_larger_limit_is_there_from_the_start() -> None:
    """A customer's override of 3000 is found in the first header, and may be used at once."""
    bucket = TokenBucket(0.0, share=1.0)
    ask(bucket, 0.0, 3000, 2999)

    assert burst(bucket, 0.0) == 2999


def test_a_smaller_limit_holds_from_now_on() -> None:
    bucket = TokenBucket(0.0, share=0.5)
    ask(bucket, 0.0, 100, 99)

    assert burst(bucket, 0.0) == 50
    assert burst(bucket, 1e6) == 50


def test_a_limit_without_a_refill_is_taken_to_have_the_documented_proportion() -> None:
    """5/12 of the capacity a minute; but a header alone slows nobody below one a second."""
    rates = {}
    for limit in (12_000, 144, 12):
        bucket = TokenBucket(0.0)
        ask(bucket, 0.0, limit, limit - 1)
        rates[limit] = bucket.refill.per_second

    assert rates == {12_000: pytest.approx(5000 / 60), 144: pytest.approx(1.0), 12: 1.0}


@pytest.mark.parametrize("limit", [120, 12_000])
def test_a_refill_that_was_told_is_not_assumed(limit: int) -> None:
    bucket = TokenBucket(0.0)
    bucket.learn_limits(0.0, Limits(1200.0, 77.0, 60.0))
    ask(bucket, 0.0, limit, limit - 1)

    assert bucket.refill.rate == 77.0


def test_headers_tell_what_others_have_spent() -> None:
    """Of 700 left, ten are for our requests that are still on their way."""
    bucket = TokenBucket(0.0, share=1.0)
    ask(bucket, 0.0, 1200, 1199)
    first = flight(bucket, 0.0, most=11)[0]
    bucket.answered(0.0, first, 1200, 700, 10)

    assert len(flight(bucket, 0.0)) == 690


def test_an_older_sample_says_nothing() -> None:
    """Answers overtake each other: the one that was sent last knows best."""
    bucket = TokenBucket(0.0, share=1.0)
    ask(bucket, 0.0, 1200, 1199)
    older, newer = flight(bucket, 0.0, most=2)
    bucket.answered(0.0, newer, 1200, 300, 1)
    bucket.answered(0.0, older, 1200, 900, 0)

    assert len(flight(bucket, 0.0)) == 300


def test_requests_may_overtake_each_other_on_their_way_there() -> None:
    """The later request came first: its answer shows more than is left, the earlier one's less."""
    bucket = TokenBucket(0.0, share=1.0)
    ask(bucket, 0.0, 1200, 12)
    earlier, later = flight(bucket, 0.0, most=2)
    bucket.answered(0.0, earlier, 1200, 10, 1)
    bucket.answered(0.0, later, 1200, 11, 0)

    assert bucket.known == 10


def test_what_is_not_known_is_asked_by_one_request() -> None:
    """There should be a token again after 0.12 s, but others may have had it."""
    bucket = TokenBucket(0.0, share=1.0)
    ask(bucket, 0.0, 1200, 0)
    assert bucket.wait(0.0) == pytest.approx(0.12)
    assert len(flight(bucket, 1.0)) == 1

    bucket.answered(1.0, Sent(1.0, 2, 0), 1200, 7, 0)
    assert len(flight(bucket, 1.0)) == 7


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


def test_a_refusal_teaches_the_whole_bucket() -> None:
    bucket = TokenBucket(0.0, share=1.0)
    refuse(bucket, 0.0, Refusal(1.5, 100.0, 10.0, 20.0))

    assert (bucket.capacity, bucket.refill.per_second) == (100.0, 0.5)
    assert bucket.wait(0.0) == pytest.approx(2.0)  # one token, at a half a second


@pytest.mark.parametrize(
    ("retry_after", "held"), [(None, 0.5), (0.0, 0.5), (0.2, 0.5), (30.0, 30.0), (5000.0, 5000.0)]
)
def test_retry_after_is_the_least_that_is_waited(retry_after: float | None, held: float) -> None:
    """0 has been seen in the wild; missing or 0 there is a shortest hold."""
    bucket = TokenBucket(0.0)
    refuse(bucket, 0.0, Refusal(retry_after))

    assert bucket.wait(0.0) == held


def test_refusals_in_a_row_are_waited_out_longer_each_time() -> None:
    """10, 20, 40 s as Atlas advises; what was sent before a refusal came says nothing new."""
    bucket, at, waits = TokenBucket(0.0), 0.0, []
    for _ in range(5):
        late = bucket.take(at - 0.5)
        refuse(bucket, at, Refusal(1.0))
        bucket.refused(at, late, Refusal(1.0), 0.0)
        waits.append(bucket.wait(at))
        at += waits[-1]

    assert waits == [1.0, 10.0, 20.0, 40.0, 40.0]


@pytest.mark.parametrize(("asked", "added"), [(5.0, 0.25), (100.0, 0.5)])
def test_jitter_adds_up_to_a_tenth_and_to_a_second(asked: float, added: float) -> None:
    """Half of it here. A step that has come is not slept through."""
    bucket = TokenBucket(0.0)
    bucket.refused(0.0, bucket.take(0.0), Refusal(asked), 0.5)

    assert bucket.wait(0.0) == pytest.approx(asked + added)


def test_after_refusals_in_a_row_only_an_answer_to_a_later_request_ends_the_probing() -> None:
    bucket = TokenBucket(0.0)
    early = bucket.take(0.5)
    found = []
    for at in (1.0, 12.0):
        refuse(bucket, at, Refusal(10.0))
        found.append(bucket.is_probing)
    bucket.answered(13.0, early, 1200, 100, 0)
    found.append(bucket.is_probing)
    ask(bucket, 40.0, 1200, 100)

    assert [*found, bucket.is_probing] == [False, True, True, False]


def test_what_is_refused_without_advice_is_guessed_more_carefully() -> None:
    """Once may be rounding; then others take what comes back. Later it is trusted again."""
    bucket, at, waits = TokenBucket(0.0, share=1.0), 0.0, []
    for _ in range(5):
        ask(bucket, at, 1200, 0)
        waits.append(bucket.wait(at))
        refuse(bucket, at, Refusal(0.0))
        at += bucket.wait(at)
    ask(bucket, at + 600, 1200, 0)

    assert waits == pytest.approx([0.12, 0.12, 0.24, 0.48, 0.96], rel=0.3)
    assert bucket.wait(at + 600) == pytest.approx(0.12)


# ── the shape of the refill ──────────────────────────────────────────────────────────────────────


def test_a_wait_that_only_a_step_explains_is_counted_on_from() -> None:
    """Nothing before the step; then one alone, and when it is answered the whole refill."""
    bucket = stepped()
    assert bucket.wait(0.0) == pytest.approx(50.0)
    (scout,) = flight(bucket, 50.0)
    bucket.answered(50.0, scout, 1200, 499, 0)
    rest = flight(bucket, 50.0)
    for one in rest:
        bucket.answered(50.1, one, 1200, 500 - (one.nth - scout.nth + 1), 0)

    assert len(rest) == 499
    assert bucket.wait(51.0) == pytest.approx(59.0)


def test_our_share_comes_in_steps_too() -> None:
    bucket = stepped(share=0.5)
    bucket.own = 0.0

    assert bucket.wait(0.0) == pytest.approx(50.0)
    assert burst(bucket, 50.0) == 250
    assert burst(bucket, 109.0) == 0
    assert burst(bucket, 110.0) == 250


def test_what_our_share_has_gained_before_is_not_given_again_with_the_step() -> None:
    """40 s of a continuous refill, and then the step for the whole minute."""
    bucket = TokenBucket(0.0, share=0.5)
    burst(bucket, 0.0)
    burst(bucket, 40.0)
    refuse(bucket, 40.0, Refusal(20.0, 1200.0, 500.0, 60.0))

    bucket.wait(60.0)
    # 600 and 166 were sent, one was refused: of 600 and a whole step of 250 that leaves
    assert bucket.own == pytest.approx(83)


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(50.0),
        Refusal(1.0, 1200.0, 500.0, 60.0),
        Refusal(0.0, 1200.0, 500.0, 60.0),
        Refusal(300.0, 1200.0, 500.0, 60.0),
        Refusal(5.0, 5.0, 1.0, 10.0),
    ],
)
def test_other_refusals_make_no_steps(refusal: Refusal) -> None:
    """Nobody told how often they come; or one token takes as long; or no refill takes so long."""
    bucket = TokenBucket(0.0)
    refuse(bucket, 0.0, refusal)

    assert bucket.refill.step_at is None


def test_a_step_that_is_late_is_counted_on_from_where_it_comes() -> None:
    """The request at the expected step is refused for one second more, not for a minute."""
    bucket = stepped()
    ask(bucket, 50.0, 1200, 0)
    bucket.own = 0.0
    refuse(bucket, 110.0, Refusal(1.0, 1200.0, 500.0, 60.0))

    assert bucket.wait(110.0) == pytest.approx(1.0)
    assert bucket.refill.step_at == pytest.approx(111.0)
    bucket.wait(111.0)
    assert bucket.own == pytest.approx(500 + 500 / 60 - 1)  # our share is not given twice


def test_an_answer_from_before_the_step_does_not_hide_it() -> None:
    """It was sent at 109 s, when nothing was left, and has come at 110.5 s: ask anew, at once."""
    bucket = stepped()
    ask(bucket, 50.0, 1200, 1)
    late = bucket.take(109.0)
    assert bucket.wait(110.5) == 0.0
    bucket.answered(110.5, late, 1200, 0, 0)

    assert bucket.wait(110.5) == 0.0
    assert len(flight(bucket, 110.5)) == 1


@pytest.mark.parametrize("wait", [0.0, 1.0])
def test_a_short_wait_between_steps_shows_that_there_are_none(wait: float) -> None:
    bucket = stepped()
    ask(bucket, 50.0, 1200, 499)
    refuse(bucket, 80.0, Refusal(wait, 1200.0, 500.0, 60.0))

    assert bucket.refill.step_at is None
    assert bucket.wait(80.0) <= 1.0


def test_tokens_that_come_between_steps_show_that_there_are_none() -> None:
    """Seen at rest: nothing else is in flight, and more is left than can be."""
    bucket = stepped()
    (scout,) = flight(bucket, 50.0)
    bucket.answered(50.0, scout, 1200, 499, 0)
    for left in (498, 497, 505):
        assert bucket.refill.step_at is not None
        ask(bucket, 55.0, 1200, left)

    assert bucket.refill.step_at is None


def test_the_step_itself_is_no_such_sign() -> None:
    """It may come a little before it is expected: waits are told in whole seconds, rounded up."""
    bucket = stepped()
    ask(bucket, 50.0, 1200, 499)
    ask(bucket, 108.5, 1200, 498)
    ask(bucket, 109.5, 1200, 997)

    assert bucket.refill.step_at == pytest.approx(110.0)


# ── a refill that is faster than assumed ─────────────────────────────────────────────────────────


def play(rate: float, seconds: float, *, share: float, told: bool) -> int:
    """Send what may be sent to a continuous bucket of 1200, answered at once; tells how many."""
    bucket, tokens, sent, at = TokenBucket(0.0, share=share), 1200.0, 0, 0.0
    if told:
        bucket.learn_limits(0.0, LIMITS)
    while at < seconds:
        if bucket.wait(at) == 0.0 and tokens >= 1.0:
            tokens -= 1.0
            ask(bucket, at, 1200, int(tokens))
            sent += 1
        at, tokens = at + 0.01, min(1200.0, tokens + rate * 0.01)
    return sent


def test_a_bucket_that_is_always_full_is_followed_upward() -> None:
    """5000 a minute, where 500 are assumed: what overflows is ours."""
    assert play(5000 / 60, 120.0, share=1.0, told=False) > 0.8 * (1200 + 120 * 5000 / 60)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_one_that_refills_as_assumed_is_no_such_bucket(share: float) -> None:
    """With a share of less than all it fills up again, and our share is still what we send."""
    assert play(500 / 60, 400.0, share=share, told=False) <= share * (1200 + 400 * 500 / 60) + 1


def test_who_was_told_the_refill_keeps_to_it() -> None:
    assert play(5000 / 60, 60.0, share=0.9, told=True) <= 0.9 * (1200 + 500) + 1


# ── nonsense, and clocks ─────────────────────────────────────────────────────────────────────────

NUMBERS = st.one_of(
    st.none(), st.sampled_from([0.0, -1.0, 1.0, 0.01, 1e6, 1e9, 1e300]), st.floats(-1e9, 1e9)
)


@given(
    tellings=st.lists(
        st.tuples(st.floats(0, 100), NUMBERS, NUMBERS, NUMBERS, st.integers(0, 10**9)), max_size=8
    )
)
def test_nonsense_never_stalls_a_bucket(tellings: list[tuple[float, Any, Any, Any, int]]) -> None:
    """Whatever limits are told, a token comes within a minute for each that was spent."""
    bucket, at, spent = TokenBucket(0.0), 0.0, 0
    for seconds, capacity, rate, duration, count in tellings:
        at += seconds
        refuse(bucket, at, Refusal(0.0, capacity, rate, duration))
        ask(bucket, at, count, count // 2)
        spent += 2
        for _ in range(3):
            spent += bucket.wait(at) == 0.0
            if bucket.wait(at) == 0.0:
                bucket.take(at)

    longest = max(40.0, 60.0 * (1 + spent)) / bucket.share
    assert bucket.wait(at) <= longest
    assert bucket.wait(at + longest) == 0.0


@pytest.mark.parametrize("limit", [0, 1_000_001, 10**9])
def test_a_nonsense_limit_takes_its_remaining_with_it(limit: int) -> None:
    bucket = TokenBucket(0.0, share=1.0)
    ask(bucket, 0.0, limit, 0 if limit == 0 else limit)

    assert len(flight(bucket, 0.0)) == 1199


def test_a_refill_that_no_run_could_wait_for_is_not_learnt() -> None:
    bucket = TokenBucket(0.0)
    refuse(bucket, 0.0, Refusal(1.0, 1200.0, 1.0, 86_400.0))
    bucket.learn_limits(0.0, Limits(1200.0, 0.0, 60.0))

    assert bucket.refill.per_second == pytest.approx(500 / 60)


def test_a_clock_that_stands_or_steps_back_gives_nothing_away() -> None:
    bucket = TokenBucket(1000.0, share=1.0)
    burst(bucket, 1000.0)

    assert burst(bucket, 1000.0) == 0
    assert burst(bucket, 400.0) == 0
    assert burst(bucket, 400.0 + 60.0) == 500


def test_a_clock_that_steps_back_does_not_lengthen_a_hold() -> None:
    """Nor the way to the next step."""
    bucket = stepped()
    bucket.wait(20.0)
    assert bucket.wait(-5000.0) == pytest.approx(30.0)

    assert bucket.wait(-5000.0 + 30.0) == 0.0


@given(
    jumps=st.lists(st.one_of(st.floats(-1e6, 1e6), st.floats(0, 100)), min_size=1, max_size=12),
    in_steps=st.booleans(),
    share=st.sampled_from([0.3, 1.0]),
)
@settings(deadline=None)
def test_no_jump_gives_more_than_a_capacity_or_stalls(
    jumps: list[float], in_steps: bool, share: float
) -> None:
    """Forwards a full bucket at most, backwards nothing; then a refill for each refill's time."""
    bucket, at = stepped(share) if in_steps else TokenBucket(0.0, share=share), 0.0
    for jump in jumps:
        at += jump
        assert burst(bucket, at) <= max(1.0, 1200 * share)

    longest = max(60.0, 60.0 / (500 * share)) + 1e-3
    assert bucket.wait(at) <= longest
    assert burst(bucket, at + longest) >= 1
