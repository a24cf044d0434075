"""Whatever is done in whatever order: the engines and a model of lists and numbers agree."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings

from tiled_stream.log.local import LocalLog
from tiled_stream.log.memory import MemoryLog
from tiled_stream.log.port import LogEngine
from tiled_stream.log.redis import RedisLog
from tiled_stream.log.redis_connect import by_uri
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


class RedisMachine(LogMachine):
    """Each example has a prefix of its own in one server, which lives as long as this module."""

    is_durable = True

    def __init__(self) -> None:
        super().__init__()
        self.prefix = uuid4().hex

    async def make(self) -> LogEngine:
        return await self.make_again()

    async def make_again(self) -> LogEngine:
        return RedisLog(by_uri(_redis.url), prefix=self.prefix)


@pytest.fixture(scope="module", autouse=True)
def server(redis_url: str) -> None:
    """Test cases of a state machine take no fixtures: the URL is left where they find it."""
    _redis.url = redis_url


class _Redis:
    url = ""


_redis = _Redis()

TestMemoryMachine = MemoryMachine.TestCase
TestLocalMachine = LocalMachine.TestCase
TestLocalMachine.settings = settings(max_examples=40)
TestLocalFromFileMachine = LocalFromFileMachine.TestCase
TestLocalFromFileMachine.settings = settings(max_examples=30)
TestRedisMachine = RedisMachine.TestCase
TestRedisMachine.settings = settings(max_examples=40)
