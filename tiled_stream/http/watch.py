"""One timer that watches many sends: cheaper than a timeout a message.

It cancels the task it was entered in when a send has made no progress for too long; `fired` tells that cancellation from others.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["SendWatch"]


class SendWatch:
    """`begin()` before each send, `end()` when waiting for something else. `seconds` is what one send may take."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        # When the send that is under way began; None: nothing is being sent.
        self._since: float | None = None
        self._handle: asyncio.TimerHandle | None = None
        self.fired = False

    def __enter__(self) -> SendWatch:
        self._task = asyncio.current_task()
        self._handle = self._loop.call_later(self._seconds, self._look)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def begin(self) -> None:
        """A send begins; the one before, if any, is done."""
        self._since = self._loop.time()

    def end(self) -> None:
        """Nothing is being sent."""
        self._since = None

    def _look(self) -> None:
        waited = 0.0 if self._since is None else self._loop.time() - self._since
        if waited < self._seconds:
            self._handle = self._loop.call_later(self._seconds - waited, self._look)
            return
        self.fired = True
        if self._task is not None:
            self._task.cancel()
