"""Bodies that are too large for Redis: where they rest, when they go, and what is said when one is missing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.servers.redis import RedisServer, redis_server
from tiled_stream.domain.errors import BodyMissing, Conflict, Gone, Truncated, Unavailable
from tiled_stream.log import redis_claims
from tiled_stream.log.claims import Claims
from tiled_stream.log.port import Retention
from tiled_stream.log.redis import RedisLog
from tiled_stream.log.redis_connect import by_uri
from tiled_stream.testing.factories import draft, new_id

BIG = 1_000_000
KEEP_NOTHING = Retention(node_bytes=0, total_bytes=0, seconds=0.0)
KEEP_ALL = Retention(node_bytes=1 << 40, total_bytes=1 << 40, seconds=1e9)


def body(n: int, size: int = BIG) -> bytes:
    return random.Random(n).randbytes(size)


@contextlib.asynccontextmanager
async def opened(url: str, directory: Path, *, prefix: str = "claims", above: int = BIG) -> AsyncIterator[RedisLog]:
    log = RedisLog(by_uri(url), prefix=prefix, patience=0.5, claims=Claims(directory, above=above))
    await log.open()
    try:
        yield log
    finally:
        await log.close()


@pytest.fixture
async def log(redis_url: str, tmp_path: Path) -> AsyncIterator[RedisLog]:
    async with opened(redis_url, tmp_path / "claims", prefix=uuid4().hex) as log:
        yield log


def files(directory: Path) -> list[Path]:
    return sorted(path for path in (directory / "claims").rglob("*") if path.is_file())


async def settle(log: RedisLog, sequence: int) -> None:
    (lease,) = await log.claim("w", ttl=60)
    assert await log.settle(lease, sequence)


async def test_large_bodies_rest_in_files_and_are_read_like_others(log: RedisLog, tmp_path: Path) -> None:
    node = new_id()
    bodies = [body(0), b"small", body(1, BIG - 1), body(2, 3 * BIG), b""]
    await log.append(node, *(draft(1, each) for each in bodies))
    assert [record.payload for record in await log.read(node, 0)] == bodies
    assert sorted(path.stat().st_size for path in files(tmp_path)) == [BIG, 3 * BIG]
    assert {path.parent.name for path in files(tmp_path)} == {node}
    # A page is bounded by what the bodies weigh, not their tokens; headers need no file.
    assert [record.sequence for record in await log.read(node, 0, max_bytes=BIG + 1000)] == [1, 2]
    for path in files(tmp_path):
        path.unlink()
    assert [record.sequence for record in await log.read(node, 0, headers=True)] == [1, 2, 3, 4, 5]
    figures = await log.figures()
    assert (figures["tiled_stream_redis_claims_total"], figures["tiled_stream_redis_claimed_bytes_total"]) == (2, 4 * BIG)


async def test_redis_holds_tokens(tmp_path: Path) -> None:
    with redis_server() as server, server.client() as client:
        async with opened(server.url, tmp_path / "claims") as log:
            node = new_id()
            await log.append(node, draft(1, body(0)))
            before = client.info("memory")["used_memory"]
            for n in range(20):
                await log.append(node, draft(1, body(n)))
            assert client.info("memory")["used_memory"] - before < BIG
            assert len(files(tmp_path)) == 21


async def test_a_file_goes_with_its_record(log: RedisLog, tmp_path: Path) -> None:
    node, other = new_id(), new_id()
    for n in range(5):
        await log.append(node, draft(1, body(n)))
    await settle(log, 5)
    await log.append(other, draft(1, body(9)))
    assert await log.trim(KEEP_ALL, now=1.0) == 0
    assert len(files(tmp_path)) == 6
    # What is kept is counted with the bodies.
    assert await log.trim(Retention(node_bytes=2 * BIG + 10_000, total_bytes=1 << 40, seconds=1e9), now=1.0, nodes=[node]) == 3
    assert len(files(tmp_path)) == 3
    assert [record.payload for record in await log.read(node, 3)] == [body(3), body(4)]
    assert await log.trim(KEEP_NOTHING, now=1e12) == 2
    assert [path.parent.name for path in files(tmp_path)] == [other]  # not settled
    assert [record.payload for record in await log.read(other, 0)] == [body(9)]


async def test_a_refused_append_leaves_nothing(log: RedisLog, tmp_path: Path) -> None:
    node = new_id()
    await log.append(node, draft(1))
    with pytest.raises(Conflict):
        await log.append(node, draft(1, body(0)), expected=7)
    await log.drop(node)
    with pytest.raises(Gone):
        await log.append(node, draft(1, body(0)))
    assert files(tmp_path) == []


async def test_a_deleted_node_takes_its_bodies_along(log: RedisLog, tmp_path: Path) -> None:
    nodes = [new_id(), new_id()]
    for node in nodes:
        await log.append(node, draft(1, body(0)), draft(1, body(1)))
    await log.drop(nodes[0])
    assert {path.parent.name for path in files(tmp_path)} == {nodes[1]}


@pytest.mark.parametrize("loss", ["deleted", "cut short", "changed"])
async def test_a_body_that_is_missing_is_told_and_nothing_is_skipped(log: RedisLog, tmp_path: Path, loss: str) -> None:
    node = new_id()
    await log.append(node, draft(1, b"first"))
    await log.append(node, draft(1, body(0)))
    (path,) = files(tmp_path)
    if loss == "deleted":
        path.unlink()
    else:
        path.write_bytes(body(0)[: BIG // 2] if loss == "cut short" else body(1))
    assert [record.payload for record in await log.read(node, 0)] == [b"first"]
    with pytest.raises(BodyMissing, match="record 2 of node"):
        await log.read(node, 1)
    path.write_bytes(body(0))  # the disk is mounted again
    assert [record.payload for record in await log.read(node, 0)] == [b"first", body(0)]


async def test_a_record_that_leaves_while_it_is_read_is_announced(
    log: RedisLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = new_id()
    await log.append(node, draft(1, body(0)), draft(1, b"last"))
    await settle(log, 2)
    take = Claims.take

    async def too_late(self: Claims, of: str, token: str) -> bytes | None:
        await log.trim(Retention(node_bytes=1000, total_bytes=1 << 40, seconds=1e9), now=1.0, nodes=[node])
        return await take(self, of, token)

    monkeypatch.setattr(Claims, "take", too_late)
    with pytest.raises(Truncated):
        await log.read(node, 0)
    with pytest.raises(Truncated) as told:
        await log.read(node, 0)
    assert told.value.first == 2
    assert [record.payload for record in await log.read(node, 1)] == [b"last"]


async def test_a_disk_that_is_full_refuses_and_leaves_nothing(log: RedisLog, tmp_path: Path) -> None:
    node = new_id()
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BIG + 500, was[1]))  # the second body does not fit
    try:
        with pytest.raises(Unavailable, match="cannot be put away"):
            await log.append(node, draft(1, body(0)), draft(1, body(1, 2 * BIG)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    assert files(tmp_path) == []
    assert await log.read(node, 0) == []
    await log.append(node, draft(1, body(0)), draft(1, body(1, 2 * BIG)))
    assert len(await log.read(node, 0)) == 2


async def test_what_a_killed_process_left_goes_after_an_hour(
    log: RedisLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, stranger = new_id(), new_id()
    await log.append(node, draft(1, body(0)), draft(1, b"x" * 10))
    claims = Claims(tmp_path / "claims", above=BIG)
    left = [(node, await claims.keep(node, body(1))), (stranger, await claims.keep(stranger, body(2)))]
    fresh = await claims.keep(node, body(3))
    for of, token in left:
        os.utime(tmp_path / "claims" / of / token, (time.time() - 4000,) * 2)
    (named,) = set(files(tmp_path)) - {tmp_path / "claims" / of / t for of, t in [*left, (node, fresh)]}
    os.utime(named, (time.time() - 4000,) * 2)
    monkeypatch.setattr(redis_claims, "_SWEEP", 0.0)
    monkeypatch.setattr(redis_claims, "_PAGE", 1)
    await log.trim(KEEP_ALL, now=1.0)
    assert set(files(tmp_path)) == {named, tmp_path / "claims" / node / fresh}
    assert [record.payload for record in await log.read(node, 0)] == [body(0), b"x" * 10]


async def test_one_process_puts_away_and_another_fetches_and_lets_go(redis_url: str, tmp_path: Path) -> None:
    prefix, node = uuid4().hex, new_id()
    async with opened(redis_url, tmp_path / "claims", prefix=prefix) as here:
        await here.append(node, draft(1, body(0)))
    async with opened(redis_url, tmp_path / "claims", prefix=prefix) as there:
        assert [record.payload for record in await there.read(node, 0)] == [body(0)]
        await settle(there, 1)
        await there.trim(KEEP_NOTHING, now=1e12)
    assert files(tmp_path) == []


async def test_a_process_without_the_directory_says_so(redis_url: str, tmp_path: Path) -> None:
    prefix, node = uuid4().hex, new_id()
    async with opened(redis_url, tmp_path / "claims", prefix=prefix) as here:
        await here.append(node, draft(1, body(0)))
        log = RedisLog(by_uri(redis_url), prefix=prefix)
        await log.open()
        try:
            with pytest.raises(Unavailable, match="same directory of arrays"):
                await log.read(node, 0)
        finally:
            await log.close()


async def test_a_directory_that_comes_and_goes_stands_in_nobodys_way(tmp_path: Path) -> None:
    """The last body of a node takes the directory along, while others put bodies there."""
    claims, node = Claims(tmp_path / "claims", above=1), new_id()

    async def one(n: int) -> None:
        for _ in range(50):
            token = await claims.keep(node, bytes([n]))
            assert await claims.take(node, token) == bytes([n])
            await claims.drop([(node, token)])

    await asyncio.gather(*(one(n) for n in range(8)))
    assert files(tmp_path) == []


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@hypothesis_settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=30), keep=st.integers(0, 60), settled=st.floats(0, 1))
def test_files_are_those_of_the_retained_records(
    shared: RedisServer, tmp_path_factory: pytest.TempPathFactory, sizes: list[int], keep: int, settled: float
) -> None:
    """After any history: each retained large body has its file, and there is no other file."""
    directory = tmp_path_factory.mktemp("claims")

    async def run() -> None:
        async with opened(shared.url, directory / "claims", prefix=uuid4().hex, above=20) as log:
            node = new_id()
            for n, size in enumerate(sizes):
                await log.append(node, draft(1, bytes([n]) * size))
            watermark = round(settled * len(sizes))
            (lease,) = await log.claim("w", ttl=60)
            await log.settle(lease, watermark)
            gone = await log.trim(Retention(node_bytes=400 * keep, total_bytes=1 << 40, seconds=1e9), now=1.0)
            assert gone <= watermark
            retained = [bytes([n]) * size for n, size in enumerate(sizes)][gone:]
            assert [record.payload for record in await log.read(node, gone)] == retained
            assert sorted(path.read_bytes() for path in files(directory)) == sorted(b for b in retained if len(b) >= 20)
            await log.drop(node)
            assert files(directory) == []

    asyncio.run(run())
