"""An event loop whose clock jumps to the next timer: hours pass in milliseconds, in order.

It finds two faults that a real clock hides: everybody waits and no timer is set (a lost wake-up),
and a loop that goes round and round without the clock moving.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_ROUNDS_AT_ONE_MOMENT = 50_000


class _Jump(selectors.SelectSelector):
    """Instead of waiting, moves the clock; sockets are looked at but never waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        self._rounds += 1
        assert self._rounds < _ROUNDS_AT_ONE_MOMENT, "the loop is busy and the clock stands still"
        if events or timeout == 0:
            return events
        assert timeout is not None, "everybody waits for somebody else"
        self.now += max(0.0, timeout)
        self._rounds = 0
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop on virtual seconds. Nothing may run in an executor: its clock would not wait."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now

    def jump(self, seconds: float) -> None:
        """Set the clock forwards or back, as somebody does who corrects it."""
        self._jump.now += seconds


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    """Give the running loop's time."""
    return asyncio.get_running_loop().time()
