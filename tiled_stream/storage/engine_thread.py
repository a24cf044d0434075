"""A blocking engine in a thread of its own, behind a queue: what runs there never blocks the loop, and never overlaps.

A waiter that is cancelled does not tear the work in half: what began is finished. `close` finishes what was queued (I9).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["EngineThread"]

P = ParamSpec("P")
T = TypeVar("T")


class EngineThread:
    """One named thread (or a few, for readers that may overlap)."""

    def __init__(self, name: str, *, threads: int = 1) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do `work` there and return what it returns or raise what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kwargs))

    async def close(self) -> None:
        """Finish what was queued, then end the thread. Idempotent."""
        await asyncio.to_thread(self._pool.shutdown, wait=True)
