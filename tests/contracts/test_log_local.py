"""The local engine keeps the contract, with everything in memory and with hardly anything in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tiled_stream.log.local import LocalLog
from tiled_stream.log.port import LogEngine
from tiled_stream.testing.durable_log_contract import DurableLogContract
from tiled_stream.testing.log_contract import Reopen


class TestLocalLog(DurableLogContract):
    def make(self, directory: Path) -> LocalLog:
        return LocalLog(directory / "log.db")

    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[LogEngine]:
        log = self.make(tmp_path)
        await log.open()
        yield log
        await log.close()

    @pytest.fixture
    async def reopen(self, tmp_path: Path) -> AsyncIterator[Reopen]:
        opened: list[LogEngine] = []

        async def again(engine: LogEngine) -> LogEngine:
            await engine.close()
            log = self.make(tmp_path)
            await log.open()
            opened.append(log)
            return log

        yield again
        for log in opened:
            await log.close()


class TestLocalLogFromFile(TestLocalLog):
    """Every record but the last is read from the file."""

    def make(self, directory: Path) -> LocalLog:
        return LocalLog(directory / "log.db", node_bytes=1, total_bytes=1, lazy_seconds=0.001)
