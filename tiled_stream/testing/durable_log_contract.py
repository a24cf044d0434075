"""What an engine promises beyond its own process: after closing and opening again everything stands where it stood.

    class TestMyLog(DurableLogContract):
        @pytest.fixture
        async def engine(self) -> AsyncIterator[LogEngine]: ...     # as `LogContract` says
        @pytest.fixture
        async def reopen(self) -> AsyncIterator[Reopen]: ...        # close the engine given, return one on the same data

What `reopen` returned is closed by the fixture.
"""

from __future__ import annotations

import pytest

from ..domain.errors import Gone, LeaseLost, Truncated, Unavailable
from ..domain.events import Draft, Record
from ..log.port import LogEngine
from .backlog_contract import all_states, claim_one, fill, nothing_persisted, settle_at
from .factories import draft, new_id
from .log_contract import LogContract, Reopen, every_event, sequences
from .retention_contract import KEEP_NOTHING

__all__ = ["DurableLogContract"]


class DurableLogContract(LogContract):
    """Subclasses provide `engine` and `reopen`."""

    @pytest.fixture
    async def reopen(self) -> Reopen:
        """Close an engine and open another on the same data."""
        raise NotImplementedError("give the fixture `reopen`")

    async def test_records_outlive_the_process(self, engine: LogEngine, reopen: Reopen) -> None:
        node = new_id()
        drafts = [Draft(event, 100.5 + n, bytes([n]) * n) for n, event in enumerate(every_event())]
        await engine.append(node, *drafts)
        epoch = engine.epoch
        engine = await reopen(engine)
        assert engine.epoch == epoch
        assert await engine.read(node, 0, epoch=epoch) == [Record(n, d.time, d.event, d.payload) for n, d in enumerate(drafts, 1)]
        assert sequences(await engine.read(node, 3, limit=2)) == [4, 5]  # I2

    async def test_sequences_rise_on(self, engine: LogEngine, reopen: Reopen) -> None:
        node = new_id()
        await fill(engine, node, 1, 2, 3)
        for turn in range(3):
            engine = await reopen(engine)
            assert (await engine.head(node)).sequence == 3 + turn
            assert (await engine.append(node, draft(), expected=3 + turn)).sequence == 4 + turn
        assert sequences(await engine.read(node, 0)) == [1, 2, 3, 4, 5, 6]

    async def test_the_backlog_outlives_the_process(self, engine: LogEngine, reopen: Reopen) -> None:
        owed, partly, clean = new_id(), new_id(), new_id()
        await fill(engine, partly, 1, time=10.0)
        await fill(engine, partly, 2, time=30.0)
        await fill(engine, owed, 1, 2, time=20.0)
        await fill(engine, clean, 1)
        await settle_at(engine, partly, 1)
        await settle_at(engine, clean, 1)
        engine = await reopen(engine)
        assert sorted(await engine.dirty()) == sorted([(owed, 2), (partly, 2)])
        lag = await engine.lag()
        assert (lag.nodes, lag.records, lag.oldest) == (2, 3, 20.0)
        assert (await claim_one(engine, partly)).after == 1
        await engine.wait_dirty()
        assert [lease.node for lease in await engine.claim("w", ttl=60.0, limit=9)] == [owed]

    async def test_a_head_outlives_all_its_records(self, engine: LogEngine, reopen: Reopen) -> None:
        node = new_id()
        await fill(engine, node, 1, 2)
        await settle_at(engine, node, 2)
        assert await engine.trim(KEEP_NOTHING, now=1e6) == 2
        engine = await reopen(engine)
        assert (await engine.head(node)).sequence == 2  # I1
        with pytest.raises(Truncated) as told:
            await engine.read(node, 0)
        assert told.value.first == 3
        assert (await engine.append(node, draft())).sequence == 3

    async def test_what_left_has_left(self, engine: LogEngine, reopen: Reopen) -> None:
        node = new_id()
        await fill(engine, node, 1, 2, 3)
        await settle_at(engine, node, 2)
        await engine.trim(KEEP_NOTHING, now=1e6)
        engine = await reopen(engine)
        with pytest.raises(Truncated) as told:
            await engine.read(node, 0)
        assert told.value.first == 3
        assert sequences(await engine.read(node, 2)) == [3]
        assert await settle_at(engine, node, 3)
        assert await engine.trim(KEEP_NOTHING, now=1e6) == 1

    async def test_a_floor_outlives_the_process(self, engine: LogEngine, reopen: Reopen) -> None:
        node = new_id()
        await fill(engine, node, 1, 2)
        await engine.append(node, draft(), floor=10)
        engine = await reopen(engine)
        assert sequences(await engine.read(node, 10)) == [11]
        with pytest.raises(Truncated) as told:
            await engine.read(node, 1)
        assert told.value.first == 11
        assert (await claim_one(engine, node)).after == 10

    async def test_gone_is_gone(self, engine: LogEngine, reopen: Reopen) -> None:
        node, never = new_id(), new_id()
        await fill(engine, node, 1)
        await engine.drop(node, never)
        engine = await reopen(engine)
        for gone in (node, never):
            with pytest.raises(Gone):
                await engine.append(gone, draft())
        assert await engine.dirty() == []

    async def test_a_lease_of_an_earlier_life_gives_no_right_now(self, engine: LogEngine, reopen: Reopen) -> None:
        node = new_id()
        await fill(engine, node, 1)
        old = await claim_one(engine, node, ttl=0.01)
        engine = await reopen(engine)
        await engine.wait_dirty()
        now = await claim_one(engine, node, worker="other")
        assert now.fence > old.fence
        with pytest.raises(LeaseLost):
            await engine.settle(old, 1)
        assert await engine.settle(now, 1)

    async def test_fences_outlive_the_process(self, engine: LogEngine, reopen: Reopen) -> None:
        node = new_id()
        await fill(engine, node, 1, 2)
        old = await claim_one(engine, node, worker="a")
        await engine.raise_fences(old.fence + 1000)
        await engine.release(old)
        engine = await reopen(engine)
        assert (await claim_one(engine, node, worker="b")).fence > old.fence + 1000

    async def test_reopened_nodes_outlive_the_process(self, engine: LogEngine, reopen: Reopen) -> None:
        node = new_id()
        await fill(engine, node, 1, 2, 3)
        await settle_at(engine, node, 3)
        assert await engine.reopen(node, 1) == 2
        engine = await reopen(engine)
        assert await engine.dirty() == [(node, 3)]
        state = (await all_states(engine))[node]
        assert (state.settled, state.first, state.head) == (1, 1, 3)
        assert (await claim_one(engine, node)).after == 1

    async def test_the_remembered_revision_outlives_the_process(self, engine: LogEngine, reopen: Reopen) -> None:
        await engine.remember(41)
        engine = await reopen(engine)
        assert await engine.remembered() == 41

    async def test_a_log_belongs_to_one_deployment(self, engine: LogEngine, reopen: Reopen) -> None:
        await engine.bind("first", nothing_persisted)
        engine = await reopen(engine)
        await engine.bind("first", nothing_persisted)
        with pytest.raises(Unavailable, match="belongs to"):
            await engine.bind("second", nothing_persisted)
