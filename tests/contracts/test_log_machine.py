"""Whatever is done in whatever order: the engines and a model of lists and numbers agree."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings

from tiled_stream.log.local import LocalLog
from tiled_stream.log.memory import MemoryLog
from tiled_stream.log.port import LogEngine
from tiled_stream.testing.log_machine import LogMachine


class MemoryMachine(LogMachine):
    async def make(self) -> LogEngine:
        return MemoryLog()


class LocalMachine(LogMachine):
    is_durable = True
    node_bytes = 4 << 20

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="log-machine-"))

    async def make(self) -> LogEngine:
        return await self.make_again()

    async def make_again(self) -> LogEngine:
        return LocalLog(self.directory / "log.db", node_bytes=self.node_bytes, lazy_seconds=0.0)

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.directory)


class LocalFromFileMachine(LocalMachine):
    node_bytes = 0


TestMemoryMachine = MemoryMachine.TestCase
TestLocalMachine = LocalMachine.TestCase
TestLocalMachine.settings = settings(max_examples=40)
TestLocalFromFileMachine = LocalFromFileMachine.TestCase
TestLocalFromFileMachine.settings = settings(max_examples=30)
