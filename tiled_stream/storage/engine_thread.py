"""A blocking engine in a thread of its own, behind a queue: what runs there never blocks the loop.

With one thread nothing overlaps, so that an engine needs no locks. What must stay true: a waiter that is cancelled does not tear
work in half (what began is finished, what waits in the queue is still done), an error goes to its waiter and never ends the
thread, and `close` finishes what was queued and joins (I9). No executor of the standard library: closing one without blocking
the loop takes another thread, which then stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, ParamSpec, TypeVar

from ..domain.errors import Unavailable

__all__ = ["EngineThread"]

P = ParamSpec("P")
T = TypeVar("T")


class EngineThread:
    """One named thread (or a few, for readers that may overlap), started by the first piece of work."""

    def __init__(self, name: str, *, threads: int = 1) -> None:
        self._name = name
        self._count = threads
        self._queue: SimpleQueue[_Job] = SimpleQueue()
        self._threads: list[Thread] = []
        # Guards starting and closing: `run` is called from the loop, but not always from the same one.
        self._lock = Lock()
        self._is_closed = False

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do `work` there and return what it returns or raise what it raises. `Unavailable` once closed.

        Cancelling the waiter does not cancel the work.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._put(_Job(lambda: work(*args, **kwargs), loop, answer, self._name))
        return await answer

    async def close(self) -> None:
        """Finish what was queued, then end the threads. Idempotent."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._is_closed = True
            threads, self._threads = self._threads, []
        if not threads:
            return
        ended = [loop.create_future() for _ in threads]
        for future in ended:
            self._queue.put(_Job(lambda: None, loop, future, self._name, is_last=True))
        # Also if the caller is cancelled meanwhile: the threads end by themselves.
        await asyncio.gather(*ended)
        for thread in threads:
            thread.join()

    def _put(self, job: _Job) -> None:
        with self._lock:
            if self._is_closed:
                raise Unavailable(f"{self._name} is closed.")
            self._queue.put(job)
            if len(self._threads) < self._count:
                # A daemon: an engine that was never closed must not keep the process from ending, and engines survive a kill.
                thread = Thread(target=self._work, name=f"{self._name} {len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _work(self) -> None:
        while True:
            job = self._queue.get()
            job.do()
            if job.is_last:
                return


class _Job:
    __slots__ = ("answer", "is_last", "loop", "name", "work")

    def __init__(
        self,
        work: Callable[[], Any],
        loop: asyncio.AbstractEventLoop,
        answer: asyncio.Future[Any],
        name: str,
        *,
        is_last: bool = False,
    ) -> None:
        self.work = work
        self.loop = loop
        self.answer = answer
        self.name = name
        self.is_last = is_last

    def do(self) -> None:
        """In the thread."""
        result: Any = None
        error: BaseException | None = None
        try:
            result = self.work()
        except BaseException as raised:  # noqa: BLE001 - a supervisor: the waiter raises it
            error = raised
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._tell, result, error)

    def _tell(self, result: Any, error: BaseException | None) -> None:
        """In the loop."""
        if not self.answer.done():
            if error is None:
                self.answer.set_result(result)
            else:
                self.answer.set_exception(error)
        elif error is not None:  # the waiter was cancelled: say it to whom it concerns, rather than to nobody
            self.loop.call_exception_handler({"message": f"{self.name}: work that nobody waits for failed", "exception": error})
