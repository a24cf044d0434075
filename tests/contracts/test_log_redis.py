"""The Redis engine keeps the contract, on Valkey from pip and on Debian's redis-server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.servers.processes import missing
from tests.servers.redis import DEBIAN, redis_server
from tiled_stream.log.claims import Claims
from tiled_stream.log.port import LogEngine
from tiled_stream.log.redis import RedisLog
from tiled_stream.log.redis_connect import by_uri
from tiled_stream.testing.durable_log_contract import DurableLogContract
from tiled_stream.testing.log_contract import Reopen


class TestRedisLog(DurableLogContract):
    @pytest.fixture
    def url(self, redis_url: str) -> str:
        return redis_url

    @pytest.fixture
    def prefix(self) -> str:
        return uuid4().hex

    @pytest.fixture
    def claims(self) -> Claims | None:
        return None

    @pytest.fixture
    async def engine(self, url: str, prefix: str, claims: Claims | None) -> AsyncIterator[LogEngine]:
        log = RedisLog(by_uri(url), prefix=prefix, claims=claims)
        await log.open()
        yield log
        await log.close()

    @pytest.fixture
    async def reopen(self, url: str, prefix: str, claims: Claims | None) -> AsyncIterator[Reopen]:
        opened: list[LogEngine] = []

        async def again(engine: LogEngine) -> LogEngine:
            await engine.close()
            log = RedisLog(by_uri(url), prefix=prefix, claims=claims)
            await log.open()
            opened.append(log)
            return log

        yield again
        for log in opened:
            await log.close()


class TestRedisLogWithClaims(TestRedisLog):
    """Every body that is not empty rests in a file."""

    @pytest.fixture
    def claims(self, tmp_path: Path) -> Claims:
        return Claims(tmp_path / "claims", above=1)


@pytest.fixture(scope="module")
def debian() -> Iterator[str]:
    if DEBIAN is None:
        pytest.skip(missing("redis-server"))
    with redis_server(program=DEBIAN) as server:
        yield server.url


class TestRedisLogOnDebian(TestRedisLog):
    @pytest.fixture
    def url(self, debian: str) -> str:
        return debian
