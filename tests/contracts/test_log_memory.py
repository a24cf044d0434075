"""The reference engine keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tiled_stream.log.memory import MemoryLog
from tiled_stream.log.port import LogEngine
from tiled_stream.testing.log_contract import LogContract


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def elapse(self, seconds: float) -> None:
        self.now += seconds


class TestMemoryLog(LogContract):
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def elapse(self, clock: Clock) -> Callable[[float], Awaitable[None]]:
        return clock.elapse

    @pytest.fixture
    async def engine(self, clock: Clock) -> AsyncIterator[LogEngine]:
        log = MemoryLog(monotonic=clock)
        await log.open()
        yield log
        await log.close()
