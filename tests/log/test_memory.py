"""The log in memory where the contract does not look: a storage that is down for so long that memory would run out."""

from __future__ import annotations

import asyncio

import pytest

from tiled_stream.domain.errors import Unavailable
from tiled_stream.log.memory import MemoryLog
from tiled_stream.log.port import Retention
from tiled_stream.testing.factories import draft, new_id

KEEP_NOTHING = Retention(node_bytes=0, total_bytes=0, seconds=0.0)


async def test_it_refuses_before_memory_runs_out_and_goes_on_when_there_is_room() -> None:
    log, node = MemoryLog(max_bytes=1_000_000), new_id()
    for _ in range(10):
        await log.append(node, draft(1, bytes(100_000)))
    with pytest.raises(Unavailable, match="is full: storage does not keep up"):
        await log.append(node, draft(1))
    assert len(await log.read(node, 0, max_bytes=1 << 30)) == 10
    follower = asyncio.create_task(log.wait(node, 10))
    await asyncio.sleep(0)
    assert not follower.done()  # what was refused is told to nobody
    (lease,) = await log.claim("w", ttl=60)
    assert await log.settle(lease, 10)
    assert await log.trim(KEEP_NOTHING, now=1e9) == 10
    assert (await log.append(node, draft(1, bytes(100_000)))).sequence == 11
    await follower
    await log.close()
