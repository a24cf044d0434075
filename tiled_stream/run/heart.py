"""How long the event loop keeps its callers waiting: what a timer comes late, the worst of the last minute."""

from __future__ import annotations

import asyncio
import time
from collections import deque

__all__ = ["Heart"]

_BEAT_SECONDS = 0.5
_BEATS = 120


class Heart:
    """Beats on the loop that started it."""

    def __init__(self) -> None:
        self._late: deque[float] = deque(maxlen=_BEATS)
        self._beating: asyncio.Task[None] | None = None

    @property
    def lag(self) -> float:
        """Seconds that a beat came late, at worst, in the last minute."""
        return max(self._late, default=0.0)

    def start(self) -> None:
        """Begin to beat."""
        self._beating = asyncio.create_task(self._beat(), name="heart")

    async def stop(self) -> None:
        """Stop. Idempotent."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])

    async def _beat(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_BEAT_SECONDS)
            self._late.append(max(0.0, time.monotonic() - before - _BEAT_SECONDS))
