"""What every engine promises if catalog, storage or log were lost or restored: fences, `reopen`, `states`, `remember`.

`LogContract` runs these too; see there for the fixtures, and `backlog_contract` for the rest of the port.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from ..domain.errors import Gone, LeaseLost
from ..log.port import LogEngine, NodeState
from .backlog_contract import LONG, PATIENCE, SHORT, Elapse, all_states, claim_one, claim_when_dirty, fill, settle_at, waits
from .factories import draft, new_id
from .retention_contract import KEEP_NOTHING

__all__ = ["RestoreContract"]


class RestoreContract:
    """See `LogContract`."""

    # -------------------------------------------------------------- fences

    async def test_fence_stays_while_one_worker_leases_again(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2, 3)
        first = await claim_one(engine, node, worker="a")
        await engine.release(first)
        second = await claim_one(engine, node, worker="a")
        await engine.settle(second, 2)
        third = await claim_one(engine, node, worker="a")
        await engine.settle(third, 3)  # clean
        await fill(engine, node, 4)
        fourth = await claim_one(engine, node, worker="a")
        assert {first.fence, second.fence, third.fence, fourth.fence} == {first.fence}

    async def test_fence_grows_with_each_other_worker(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2, 3, 4)
        fences = []
        for worker in ("a", "b", "a", "a", "b"):
            lease = await claim_one(engine, node, worker=worker)
            fences.append(lease.fence)
            await engine.settle(lease, min(lease.after + 1, 3))
        assert fences[0] < fences[1] < fences[2] == fences[3] < fences[4]

    async def test_fence_stays_if_the_lease_ran_out_and_was_not_taken(self, engine: LogEngine, elapse: Elapse) -> None:
        node = new_id()
        await fill(engine, node, 1)
        first = await claim_one(engine, node, worker="a", ttl=SHORT)
        await elapse(SHORT * 1.5)
        assert (await claim_one(engine, node, worker="a")).fence == first.fence

    async def test_fence_is_above_those_of_earlier_logs(self, engine: LogEngine) -> None:
        before = time.time_ns() // 1000
        node = new_id()
        await fill(engine, node, 1)
        # A log that began a minute ago could not have given as many.
        assert (await claim_one(engine, node)).fence > before - 60_000_000

    async def test_raised_fences_apply_to_the_same_worker_too(self, engine: LogEngine) -> None:
        node, other = new_id(), new_id()
        await fill(engine, node, 1)
        await fill(engine, other, 1)
        first = await claim_one(engine, node, worker="a")
        await engine.release(first)
        above = first.fence + 1_000_000
        await engine.raise_fences(above)
        await engine.raise_fences(above - 10)
        second = await claim_one(engine, node, worker="a")
        assert second.fence > above
        await engine.release(second)
        assert (await claim_one(engine, node, worker="a")).fence == second.fence
        assert (await claim_one(engine, other, worker="b")).fence > above

    async def test_settled_lease_gives_no_right_until_the_node_is_leased_again(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2)
        lease = await claim_one(engine, node)
        await engine.settle(lease, 1)
        with pytest.raises(LeaseLost):
            await engine.settle(lease, 2)
        with pytest.raises(LeaseLost):
            await engine.renew(lease, ttl=LONG)

    # -------------------------------------------------------------- reopen

    async def test_reopened_records_are_pending_again(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, time=100.0)
        await fill(engine, node, 2, time=200.0)
        await fill(engine, node, 3, 4, time=300.0)
        await settle_at(engine, node, 4)
        assert await engine.reopen(node, 1) == 2
        assert await engine.dirty() == [(node, 4)]
        lag = await engine.lag()
        assert (lag.nodes, lag.records, lag.oldest) == (1, 3, 200.0)
        reader = await waits(engine.reached(node, 3))
        assert not reader.done()
        assert await engine.trim(KEEP_NOTHING, now=1e6, nodes=[node]) == 1  # I6
        lease = await claim_one(engine, node)
        assert (lease.after, lease.head) == (1, 4)
        assert await engine.settle(lease, 4)
        async with asyncio.timeout(PATIENCE):
            await reader
        assert await engine.dirty() == []
        assert (await engine.lag()).records == 0
        assert (await engine.append(node, draft())).sequence == 5

    async def test_reopening_voids_the_lease_in_force(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2, 3)
        await settle_at(engine, node, 2)
        lease = await claim_one(engine, node, worker="a")
        assert await engine.reopen(node, 0) == 1
        with pytest.raises(LeaseLost):
            await engine.renew(lease, ttl=LONG)
        again = await claim_one(engine, node, worker="a")
        assert (again.after, again.head) == (0, 3)
        assert again.fence > lease.fence
        with pytest.raises(LeaseLost):
            await engine.settle(lease, 3)
        lag = await engine.lag()
        assert (lag.nodes, lag.records) == (1, 3)

    async def test_reopening_gives_back_what_is_retained_and_no_more(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2, 3)
        await settle_at(engine, node, 3)
        assert await engine.trim(KEEP_NOTHING, now=1e6, nodes=[node]) == 3
        assert await engine.reopen(node, 1) == 4  # 2 and 3 are lost
        assert await engine.dirty() == []
        await fill(engine, node, 4, 5)
        await settle_at(engine, node, 5)
        assert await engine.reopen(node, 1) == 4
        lease = await claim_one(engine, node)
        assert (lease.after, lease.head) == (3, 5)
        assert (await engine.lag()).records == 2

    async def test_reopening_above_the_watermark_changes_nothing(self, engine: LogEngine) -> None:
        node, never, gone = new_id(), new_id(), new_id()
        await fill(engine, node, 1, 2, 3)
        await settle_at(engine, node, 2)
        lease = await claim_one(engine, node)
        assert await engine.reopen(node, 2) == 3
        assert await engine.reopen(node, 3) == 4
        assert await engine.reopen(node, 7) == 4
        assert await engine.reopen(never, 5) == 1
        assert await engine.dirty() == [(node, 3)]
        assert await engine.settle(lease, 3)
        await fill(engine, gone, 1)
        await engine.drop(gone)
        with pytest.raises(Gone):
            await engine.reopen(gone, 0)

    async def test_reopening_wakes_the_persister(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1)
        await settle_at(engine, node, 1)
        async with asyncio.timeout(PATIENCE):
            persister = await waits(claim_when_dirty(engine))
            await engine.reopen(node, 0)
            assert (await persister).node == node

    # ------------------------------------------------------ states, remember

    async def test_states_of_all_nodes(self, engine: LogEngine) -> None:
        pending, trimmed, empty, gone = (new_id() for _ in range(4))
        for node in (pending, trimmed, empty, gone):
            await fill(engine, node, 1, 2, 3)
        await settle_at(engine, trimmed, 2)
        await settle_at(engine, empty, 3)
        await engine.trim(KEEP_NOTHING, now=1e6)
        await engine.drop(gone)
        retained = {pending: NodeState(pending, 0, 1, 3), trimmed: NodeState(trimmed, 2, 3, 3)}
        assert await all_states(engine) == retained
        assert await all_states(engine, retained=False) == retained | {empty: NodeState(empty, 3, 4, 3)}

    async def test_states_of_many_nodes_come_in_pages(self, engine: LogEngine) -> None:
        nodes = [new_id() for _ in range(2500)]
        await asyncio.gather(*(engine.append(node, draft()) for node in nodes))
        pages = [page async for page in engine.states(retained=False)]
        assert len(pages) > 1
        assert {state.node for page in pages for state in page} == set(nodes)
        assert set(await all_states(engine)) == set(nodes)

    async def test_the_highest_revision_is_remembered(self, engine: LogEngine) -> None:
        assert await engine.remembered() == 0
        for revision in (3, 7, 5):
            await engine.remember(revision)
        assert await engine.remembered() == 7
