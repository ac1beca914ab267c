"""What a signal does while a command goes on."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

from pipeline.errors import Interrupted
from pipeline.talk import say_end_at_once

log = logging.getLogger(__name__)

T = TypeVar("T")


class Stopping:
    """What a signal does while a run goes on: the first stops it gently, the second at once.

    After the end it does nothing: the run is published or not, and its own exit code says which.
    (Not the loop's own handlers: they are gone when the loop closes, before the process ends.)
    A hangup is a signal like the others, unless nohup has it ignored.
    """

    def __init__(self, *, hint: str = Interrupted.hint) -> None:
        """`hint` says what to do after a stop at once."""
        self._hint = hint
        self._is_over = False
        self._seen = 0

    def begin(self, stop: Callable[[int], None]) -> None:
        """From here on a signal calls `stop` with its number."""
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def end(self) -> None:
        """From here on signals change nothing any more."""
        self._is_over = True

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._is_over:
            return
        if self._seen:
            said = "stopped at once by a second signal"
            say_end_at_once(128 + number, said, hint=self._hint)
            os._exit(128 + number)
        self._seen = number
        self._loop.call_soon_threadsafe(self._stop_gently)

    def _stop_gently(self) -> None:
        log.warning("stopping: waiting for what is under way; once more stops at once")
        self._stop(self._seen)


async def stoppable(work: Coroutine[Any, Any, T], *, hint: str) -> T:
    """Do `work`, which a signal cancels; raises `Interrupted` with `hint` then."""
    task = asyncio.create_task(work)
    numbers: list[int] = []

    def stop(number: int) -> None:
        numbers.append(number)
        task.cancel()

    stopping = Stopping(hint=hint)
    stopping.begin(stop)
    try:
        return await task
    except asyncio.CancelledError:
        if not numbers:
            raise
        raise Interrupted(numbers[0], hint=hint) from None
    finally:
        stopping.end()
