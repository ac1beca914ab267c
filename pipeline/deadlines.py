"""Ends what takes too long: one timer for all, since a timer each costs as much as an answer.

All have the same time from their beginning, so the first to begin is the first that is due.
"""

import asyncio


class Deadlines:
    """Watches tasks that wait for an answer. For one event loop."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[asyncio.Task[object], float] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._timer: asyncio.Handle | None = None

    def begin(self) -> "asyncio.Task[object]":
        """Watch the current task from now on; gives it, for `end`."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be watched")
        at = self._due[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(at, self._look)
        return task

    def end(self, task: "asyncio.Task[object]") -> None:
        """Watch it no more; a cancellation that was met by another trouble is taken back."""
        self._due.pop(task, None)
        if task in self._late:
            self._late.discard(task)
            task.uncancel()

    def cancelled_by_us(self, task: "asyncio.Task[object]") -> bool:
        """Whether the cancellation that just reached `task` is this watch's, and nobody else's."""
        if task not in self._late:
            return False
        self._late.discard(task)
        return task.uncancel() == 0

    def _look(self) -> None:
        """Cancel who is late; look again when the next one would be."""
        loop, self._timer = asyncio.get_running_loop(), None
        now = loop.time()
        for task, at in self._due.items():
            if at > now:
                self._timer = loop.call_at(at, self._look)
                break
            if task not in self._late:
                self._late.add(task)
                task.cancel()
