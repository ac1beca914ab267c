"""Bounds how long a library may wait, and lets signals be heard while it does so in C."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, Generic, TypeVar

#: What each thing that is left to do after a signal may take. Seconds.
_LEFT_S = 10

#: What anything may take that no time is set for: whoever starts a load every night, finds the one
#: before it ended. Seconds.
_LONGEST_S = 6 * 3600

#: How often who waits looks for signals. Seconds.
_HEARS_S = 0.2

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

T = TypeVar("T")


class Stoppable:
    """Does things one by one; the first signal stops what is under way, as its handler wants.

    Later ones are not heard: they would only keep from being done what leaves all as it was. What
    is done then is bounded in time instead.
    """

    def __init__(self) -> None:
        self._is_stopping = False

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Hear the first signal alone, for as long as the context lasts."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        found = {number: signal.getsignal(number) for number in _SIGNALS}
        handlers = {number: each for number, each in found.items() if callable(each)}
        try:
            for number, handler in handlers.items():
                signal.signal(number, partial(self._hear, handler))
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _hear(
        self, handler: Callable[[int, FrameType | None], Any], number: int, frame: FrameType | None
    ) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            handler(number, frame)

    def do(self, work: Callable[[], T], end: Callable[["Doing[T]"], None] | None = None) -> T:
        """Do `work` in a thread of its own, and give what it gives.

        Where a signal's handler raises meanwhile, `end` has to see to it that the work ends;
        without it the thread is left alone. Raises what the handler or the work raises, and
        `TimeoutError` where the work has taken too long.
        """
        doing = Doing(work)
        try:
            doing.begin()
            return doing.result(_LEFT_S if self._is_stopping else _LONGEST_S)
        except BaseException:
            if doing.is_under_way() and end is not None:
                end(doing)
            raise


@contextmanager
def limited() -> Iterator[None]:
    """Raise `TimeoutError` where what is done in the context takes longer than anything may.

    It is done in the main thread, and hears signals; in another one there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(*_: object) -> None:
        raise TimeoutError(f"not done in {_LONGEST_S / 3600:g} hours")

    found = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, _LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, found)


class Doing(Generic[T]):
    """Work in a thread, which nobody waits for when the process ends, as a pool's would be.

    A handler may raise between any two steps of who waits: so there are bare locks alone, and none
    is held by him. (A `Future` has one that would stay locked.)
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._claim = threading.Lock()
        self._lasts = threading.Lock()
        self._lasts.acquire()
        self._found: list[T] = []
        self._error: BaseException | None = None
        self.is_done = False

    def begin(self) -> None:
        """Begin it."""
        threading.Thread(target=self._do, daemon=True).start()

    def _do(self) -> None:
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._found.append(self._work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is wanted
            self._error = error
        self.is_done = True
        self._lasts.release()

    def is_under_way(self) -> bool:
        """Say whether it has begun and not ended; what has not begun will not begin any more."""
        return not self._claim.acquire(blocking=False) and not self.is_done

    def wait(self, seconds: float) -> bool:
        """Wait until it is done; says whether it is."""
        end = time.monotonic() + seconds
        while not self.is_done and time.monotonic() < end:
            # The system may give a signal to another thread, which does not wake this one.
            self._lasts.acquire(timeout=_HEARS_S)
        return self.is_done

    def result(self, seconds: float) -> T:
        """Give what it gives; raises what it raises, or `TimeoutError`."""
        if not self.wait(seconds):
            raise TimeoutError("no answer in time")
        if self._error is not None:
            raise self._error
        return self._found[0]
