"""What every engine promises of `trim`: settled records may leave, oldest first; what is owed never does (I6).

`LogContract` runs these too; see there for the fixtures. What an engine counts as the bytes of a record beside its payload is its
own affair, so bounds here are bounds and not numbers.
"""

from __future__ import annotations

import pytest

from ..domain.errors import Truncated
from ..log.port import LogEngine, Retention
from .backlog_contract import fill, settle_at
from .factories import draft, new_id

__all__ = ["KEEP_ALL", "KEEP_NOTHING", "RetentionContract"]

KEEP_ALL = Retention(node_bytes=1 << 40, total_bytes=1 << 40, seconds=1e9)
KEEP_NOTHING = Retention(node_bytes=0, total_bytes=0, seconds=0.0)


class RetentionContract:
    """See `LogContract`."""

    async def test_only_settled_records_leave(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2, 3, 4)
        assert await engine.trim(KEEP_NOTHING, now=1e6) == 0
        await settle_at(engine, node, 3)
        assert await engine.trim(KEEP_NOTHING, now=1e6) == 3
        assert [r.sequence for r in await engine.read(node, 3)] == [4]  # I6
        with pytest.raises(Truncated) as told:
            await engine.read(node, 2)
        assert told.value.first == 4

    async def test_a_log_that_all_records_have_left_goes_on(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2)
        await settle_at(engine, node, 2)
        assert await engine.trim(KEEP_NOTHING, now=1e6) == 2
        assert (await engine.head(node)).sequence == 2  # I1
        assert await engine.read(node, 2) == []
        with pytest.raises(Truncated) as told:
            await engine.read(node, 0)
        assert told.value.first == 3
        assert (await engine.append(node, draft())).sequence == 3
        assert [r.sequence for r in await engine.read(node, 2)] == [3]

    async def test_what_the_policy_allows_stays(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2, time=100.0)
        await settle_at(engine, node, 2)
        assert await engine.trim(KEEP_ALL, now=200.0) == 0
        assert [r.sequence for r in await engine.read(node, 0)] == [1, 2]

    async def test_old_records_leave(self, engine: LogEngine) -> None:
        node = new_id()
        for n in range(1, 6):
            await fill(engine, node, n, time=100.0 * n)
        await settle_at(engine, node, 5)
        policy = Retention(node_bytes=1 << 40, total_bytes=1 << 40, seconds=250.0)
        assert await engine.trim(policy, now=600.0) == 3  # those of 100, 200 and 300
        assert [r.sequence for r in await engine.read(node, 3)] == [4, 5]

    async def test_a_node_keeps_so_many_bytes(self, engine: LogEngine) -> None:
        big, small = new_id(), new_id()
        await fill(engine, big, *range(1, 21), payload=bytes(10_000))
        await fill(engine, small, 1, 2, payload=bytes(10_000))
        await settle_at(engine, big, 20)
        await settle_at(engine, small, 2)
        policy = Retention(node_bytes=100_000, total_bytes=1 << 40, seconds=1e9)
        left = await engine.trim(policy, now=1.0)
        assert 10 <= left <= 15  # payloads alone make it ten; bookkeeping may count too
        assert [r.sequence for r in await engine.read(big, left)] == list(range(left + 1, 21))
        assert len(await engine.read(small, 0)) == 2

    async def test_all_nodes_together_keep_so_many_bytes(self, engine: LogEngine) -> None:
        nodes = [new_id() for _ in range(4)]
        for turn in range(5):
            for place, node in enumerate(nodes):
                await fill(engine, node, turn, time=100.0 * turn + place, payload=bytes(10_000))
        for node in nodes[:3]:
            await settle_at(engine, node, 5)
        policy = Retention(node_bytes=1 << 40, total_bytes=150_000, seconds=1e9)
        left = await engine.trim(policy, now=1.0)
        assert 5 <= left <= 9
        # The oldest first, wherever they are: the nodes lose one after the other. What is not settled stays (I6).
        expected = [len([n for n in range(left) if n % 3 == place]) for place in range(3)] + [0]
        for node, gone in zip(nodes, expected, strict=True):
            assert [r.sequence for r in await engine.read(node, gone)] == list(range(gone + 1, 6))

    async def test_trimming_some_nodes_spares_the_others(self, engine: LogEngine) -> None:
        chosen, other = new_id(), new_id()
        for node in (chosen, other):
            await fill(engine, node, 1, 2)
            await settle_at(engine, node, 2)
        assert await engine.trim(KEEP_NOTHING, now=1e6, nodes=[chosen, new_id()]) == 2
        assert len(await engine.read(other, 0)) == 2
