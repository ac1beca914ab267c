"""Silence: what is a sign of life, when Atlas is called up, and when it is given up."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from pipeline.atlas import Reply
from pipeline.errors import AtlasUnavailable
from pipeline.outcomes import TRANSIENT_KINDS, Failure, FailureKind
from pipeline.silence import CALL_S, CALLS_S, PAUSE_S, SILENCE_S, Silence
from tests.doubles import MOMENT
from tests.virtual_time import now, run

K = FailureKind
START = 1000.0
DOWN = Failure(K.SERVER_ERROR, 503)


class Night:
    """A silence with somebody to call, who answers each call as it is told, after some seconds."""

    def __init__(self, answer: Callable[[float], Failure | None], takes: float = 0.0) -> None:
        self.silence = Silence(self._call, lambda: "3 of 5 are kept")
        self.calls: list[float] = []
        self._answer = answer
        self._takes = takes

    async def _call(self) -> Failure | None:
        self.calls.append(now() - START)
        await asyncio.sleep(self._takes)
        found = self._answer(now() - START)
        self.hear(found.kind if found else None)
        return found

    def hear(self, kind: FailureKind | None, after: float = 0.0) -> None:
        """A reply arrives that was waited for `after` seconds."""
        at = MOMENT + timedelta(seconds=now() - START)
        self.silence.hear(Reply(0, at - timedelta(seconds=after), at, {}, b""), kind)

    async def hears(self, *heard: tuple[float, FailureKind | None]) -> float:
        """Hear replies at their times, and watch; gives when Atlas was given up, or the end."""
        watching = asyncio.create_task(self.silence.watch())
        for at, kind in heard:
            await asyncio.sleep(START + at - now())
            self.hear(kind)
        try:
            await asyncio.wait_for(watching, 600)
        except TimeoutError:
            return float("inf")
        except AtlasUnavailable:
            return now() - START
        raise AssertionError("the watch has no other end")


def down(_: float) -> Failure:
    return DOWN


def up(_: float) -> None:
    return None


@pytest.mark.parametrize("kind", sorted(TRANSIENT_KINDS))
def test_failures_that_may_pass_are_no_sign_of_life(kind: FailureKind) -> None:
    """Half a minute after the first of them Atlas is called up; in vain: given up soon after."""
    night = Night(down)
    ended = run(night.hears((1, None), (2, kind), (9, kind), (28, kind)))

    assert night.calls == [32, 37, 42, 47, 52]
    assert ended == 2 + SILENCE_S + CALLS_S == 52


@pytest.mark.parametrize("kind", [None, *sorted(set(K) - TRANSIENT_KINDS)])
def test_every_other_reply_is_one(kind: FailureKind | None) -> None:
    night = Night(down)
    ended = run(night.hears((2, K.TIMED_OUT), (31, kind)))

    assert (night.calls, ended) == ([], float("inf"))


def test_one_answered_call_is_enough() -> None:
    """Until the failures have gone on for as long again."""
    night = Night(up)
    ended = run(night.hears((2, K.TIMED_OUT), (33, K.TIMED_OUT), (70, None)))

    assert (night.calls, ended) == ([32, 63], float("inf"))
    assert night.silence.outages == 0


def test_what_comes_back_between_two_calls_is_heard() -> None:
    """The next failure begins a silence of its own, with all the patience there is."""
    night = Night(down)
    ended = run(night.hears((2, K.TIMED_OUT), (50, None), (51, K.CUT)))

    assert night.calls == [32, 37, 42, 47, 81, 86, 91, 96, 101]
    assert ended == 51 + SILENCE_S + CALLS_S


def test_a_silence_that_begins_during_a_call_is_another_one() -> None:
    night = Night(down, takes=4)
    ended = run(night.hears((2, K.TIMED_OUT), (51, None), (51.5, K.CUT)))

    assert night.calls[-1] < ended
    assert ended >= 51.5 + SILENCE_S + CALLS_S


def test_calls_that_are_not_answered_are_waited_for_some_seconds() -> None:
    """All in all it stays below a minute."""
    night = Night(down, takes=3600)
    ended = run(night.hears((0, K.TIMED_OUT)))

    assert night.calls == [30, 30 + CALL_S + PAUSE_S]
    assert ended == 50


def test_what_a_failure_was_waited_for_was_silence_too() -> None:
    """Requests that were sent before the last sign of life count from there."""

    async def main() -> float:
        night = Night(down)
        watching = asyncio.create_task(night.silence.watch())
        await asyncio.sleep(20)
        night.hear(None)
        await asyncio.sleep(12)
        night.hear(K.TIMED_OUT, after=30)
        with pytest.raises(AtlasUnavailable, match="since 03:00:20 UTC"):
            await watching
        return now() - START

    assert run(main()) == 20 + SILENCE_S + CALLS_S


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_wall_clock_that_is_set_ends_nothing(hours: int) -> None:
    """Atlas may be called up at once, and is given up no sooner than otherwise."""

    async def main() -> float:
        night = Night(down)
        watching = asyncio.create_task(night.silence.watch())
        night.hear(K.TIMED_OUT, after=hours * 3600)
        with pytest.raises(AtlasUnavailable):
            await watching
        return now() - START

    assert run(main()) >= CALLS_S


def test_the_message_says_what_happened() -> None:
    async def main() -> None:
        night = Night(down)
        night.hear(K.CUT)
        await night.silence.watch()

    with pytest.raises(AtlasUnavailable) as raised:
        run(main())

    assert str(raised.value) == (
        "Atlas has not given a usable answer since 03:00:00 UTC (503); 3 of 5 are kept"
    )


@pytest.mark.parametrize(("back_at", "outages"), [(0.0, 0), (12.0, 1), (49.9, 1)])
def test_making_sure_waits_for_a_sign_of_life(back_at: float, outages: int) -> None:
    """Called up at once; tells whether Atlas was away."""

    async def main() -> tuple[bool, float]:
        night = Night(lambda at: None if at >= back_at else DOWN)
        watching = asyncio.create_task(night.silence.watch())
        night.hear(K.CUT)
        both = await asyncio.gather(night.silence.make_sure(), night.silence.make_sure())
        at = now() - START
        watching.cancel()
        assert both[0] == both[1]
        assert night.silence.outages == outages
        return both[0], at

    was_away, at = run(main())

    assert was_away == bool(outages)
    assert back_at <= at <= back_at + PAUSE_S


def test_making_sure_after_a_sign_of_life_calls_nobody() -> None:
    async def main() -> None:
        night = Night(down)
        assert not await night.silence.make_sure()
        night.hear(K.CUT)
        night.hear(None)
        assert not await night.silence.make_sure()
        assert not night.calls

    run(main())


def test_what_calling_raises_goes_through() -> None:
    def broken(_: float) -> None:
        raise OSError("a disk")

    async def main() -> None:
        night = Night(broken)
        night.hear(K.CUT)
        await night.silence.watch()

    with pytest.raises(OSError, match="a disk"):
        run(main())


def test_a_timeout_of_somebody_else_is_no_patience_at_its_end() -> None:
    def late(_: float) -> None:
        raise TimeoutError("not ours")

    async def main() -> None:
        night = Night(late)
        night.hear(K.CUT)
        await night.silence.watch()

    with pytest.raises(TimeoutError, match="not ours"):
        run(main())
