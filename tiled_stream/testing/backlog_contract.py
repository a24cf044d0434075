"""What every engine promises as a `Backlog`: who owes what, and who may persist it. (What may leave: `retention_contract`.)

`LogContract` runs these too; see there for the fixtures. The tests know the port's docstrings and nothing of the engine: what a
hint may do early is never forbidden here, and bytes of bookkeeping are the engine's own affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest

from ..domain.errors import LeaseLost
from ..domain.nodes import NodeId
from ..log.port import Lease, LogEngine, NodeState
from .factories import draft, new_id

__all__ = [
    "LONG",
    "PATIENCE",
    "SHORT",
    "BacklogContract",
    "Elapse",
    "all_states",
    "claim_one",
    "claim_when_dirty",
    "fill",
    "nothing_persisted",
    "settle_at",
    "waits",
]

T = TypeVar("T")

#: Far longer than anything here should take; what is not there by then never comes.
PATIENCE = 20.0
#: A lease that nobody outlives, and one that runs out in a test.
LONG = 600.0
SHORT = 0.25

Elapse = Callable[[float], Awaitable[None]]


async def fill(engine: LogEngine, node: NodeId, *values: int, time: float = 0.0, payload: bytes = b"") -> None:
    """Append one record for each value."""
    for value in values:
        await engine.append(node, draft(value, payload, time=time))


async def claim_one(engine: LogEngine, node: NodeId, *, worker: str = "w", ttl: float = LONG) -> Lease:
    """A lease of this very node; others that were claimed on the way are given back."""
    leases = await engine.claim(worker, ttl=ttl, limit=10_000)
    for lease in leases:
        if lease.node != node:
            await engine.release(lease)
    [mine] = [lease for lease in leases if lease.node == node]
    return mine


async def settle_at(engine: LogEngine, node: NodeId, watermark: int) -> bool:
    """Claim the node and settle it there."""
    return await engine.settle(await claim_one(engine, node), watermark)


async def all_states(engine: LogEngine, *, retained: bool = True) -> dict[NodeId, NodeState]:
    """What `states` gives, by node; each page must hold something."""
    found: dict[NodeId, NodeState] = {}
    async for page in engine.states(retained=retained):
        assert page
        found |= {state.node: state for state in page}
    return found


async def nothing_persisted(nodes: Sequence[NodeId]) -> list[int]:
    """A catalog that knows of no node, for `bind`."""
    return [0] * len(nodes)


async def claim_when_dirty(engine: LogEngine) -> Lease:
    """A lease of the first node that can be claimed; waits for one."""
    while True:
        await engine.wait_dirty()
        leases = await engine.claim("persister", ttl=LONG)
        if leases:
            return leases[0]
        await asyncio.sleep(0)


async def waits(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start it, and give it every chance to get where it waits."""
    task = asyncio.create_task(coroutine, name="waits")
    await asyncio.sleep(0.02)
    return task


class BacklogContract:
    """See `LogContract`."""

    @pytest.fixture
    def elapse(self) -> Elapse:
        """Let so many seconds pass. Override it for an engine whose clock the tests hold."""
        return asyncio.sleep

    # --------------------------------------------------------------- claim

    async def test_a_clean_log_has_nothing_to_claim(self, engine: LogEngine) -> None:
        assert await engine.claim("w", ttl=LONG, limit=10) == []
        assert await engine.dirty() == []
        lag = await engine.lag()
        assert (lag.nodes, lag.records, lag.oldest) == (0, 0, None)

    async def test_a_lease_says_where_the_node_stands(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2, 3)
        [lease] = await engine.claim("worker-7", ttl=LONG)
        assert (lease.node, lease.worker, lease.head, lease.after) == (node, "worker-7", 3, 0)
        await engine.settle(lease, 2)
        [again] = await engine.claim("worker-8", ttl=LONG)
        assert (again.worker, again.head, again.after) == ("worker-8", 3, 2)

    async def test_a_node_is_leased_once_at_a_time(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1)
        assert len(await engine.claim("a", ttl=LONG, limit=10)) == 1
        assert await engine.claim("b", ttl=LONG, limit=10) == []
        await fill(engine, node, 2)  # more to do does not make it free
        assert await engine.claim("b", ttl=LONG, limit=10) == []

    async def test_concurrent_claims_share_no_node(self, engine: LogEngine) -> None:
        nodes = [new_id() for _ in range(40)]
        for node in nodes:
            await fill(engine, node, 1)
        claims = await asyncio.gather(*(engine.claim(f"w{n}", ttl=LONG, limit=6) for n in range(10)))
        assert sorted(lease.node for leases in claims for lease in leases) == sorted(nodes)
        assert max(map(len, claims)) <= 6

    async def test_longest_dirty_first(self, engine: LogEngine) -> None:
        nodes = [new_id() for _ in range(5)]
        for node in nodes:
            await fill(engine, node, 1)
        await fill(engine, nodes[0], 2)  # how much is owed does not matter
        assert [lease.node for lease in await engine.claim("w", ttl=LONG, limit=3)] == nodes[:3]
        assert [lease.node for lease in await engine.claim("w", ttl=LONG, limit=3)] == nodes[3:]

    async def test_wanted_ones_first(self, engine: LogEngine) -> None:
        nodes = [new_id() for _ in range(4)]
        for node in nodes:
            await fill(engine, node, 1)
        reader = await waits(engine.reached(nodes[2], 1))
        leases = await engine.claim("w", ttl=LONG, limit=2)
        assert [lease.node for lease in leases] == [nodes[2], nodes[0]]
        await engine.settle(leases[0], 1)
        async with asyncio.timeout(PATIENCE):
            await reader

    async def test_nobody_wants_what_a_reader_gave_up(self, engine: LogEngine) -> None:
        first, second = new_id(), new_id()
        await fill(engine, first, 1)
        await fill(engine, second, 1)
        reader = await waits(engine.reached(second, 1))
        reader.cancel()
        await asyncio.wait([reader])
        await asyncio.sleep(0.02)
        assert [lease.node for lease in await engine.claim("w", ttl=LONG)] == [first]

    # ------------------------------------------------------ renew, release

    async def test_the_lease_of_a_dead_worker_runs_out(self, engine: LogEngine, elapse: Elapse) -> None:
        node = new_id()
        await fill(engine, node, 1)
        dead = await claim_one(engine, node, worker="dead", ttl=SHORT)
        assert await engine.claim("other", ttl=LONG) == []
        await elapse(SHORT * 1.5)
        taken = await claim_one(engine, node, worker="other")
        assert taken.fence > dead.fence
        with pytest.raises(LeaseLost):
            await engine.renew(dead, ttl=LONG)
        with pytest.raises(LeaseLost):
            await engine.settle(dead, 1)
        assert await engine.dirty() == [(node, 1)]  # nothing changed
        await engine.release(dead)  # and this does not take it from the other
        assert await engine.claim("third", ttl=LONG) == []
        assert await engine.settle(taken, 1)

    async def test_a_renewed_lease_holds_on(self, engine: LogEngine, elapse: Elapse) -> None:
        node = new_id()
        await fill(engine, node, 1)
        lease = await claim_one(engine, node, ttl=SHORT)
        await engine.renew(lease, ttl=LONG)
        await elapse(SHORT * 1.5)
        assert await engine.claim("other", ttl=LONG) == []
        assert await engine.settle(lease, 1)

    async def test_a_lease_that_ran_out_is_lost_only_to_somebody(self, engine: LogEngine, elapse: Elapse) -> None:
        node = new_id()
        await fill(engine, node, 1, 2)
        lease = await claim_one(engine, node, ttl=SHORT)
        await elapse(SHORT * 1.5)
        await engine.renew(lease, ttl=LONG)
        assert await engine.claim("other", ttl=LONG) == []
        assert await engine.settle(lease, 2)

    async def test_a_released_node_can_be_claimed_again_at_once(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1)
        lease = await claim_one(engine, node, worker="a")
        await engine.release(lease)
        again = await claim_one(engine, node, worker="b")
        assert again.fence > lease.fence
        with pytest.raises(LeaseLost):
            await engine.settle(lease, 1)
        assert await engine.settle(again, 1)

    async def test_a_release_can_ask_for_a_pause(self, engine: LogEngine, elapse: Elapse) -> None:
        node = new_id()
        await fill(engine, node, 1)
        await engine.release(await claim_one(engine, node), delay=SHORT)
        assert await engine.claim("w", ttl=LONG) == []
        await elapse(SHORT * 1.5)
        assert [lease.node for lease in await engine.claim("w", ttl=LONG)] == [node]

    async def test_release_never_raises(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1)
        lease = await claim_one(engine, node)
        await engine.release(lease)
        await engine.release(lease)
        await engine.release(Lease(new_id(), "w", 1, 1))
        await engine.drop(node)
        await engine.release(lease)

    # -------------------------------------------------------------- settle

    async def test_settled_at_the_head_is_clean(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2)
        assert await settle_at(engine, node, 2) is True
        assert await engine.dirty() == []
        assert await engine.claim("w", ttl=LONG) == []
        await fill(engine, node, 3)
        lease = await claim_one(engine, node)
        assert (lease.after, lease.head) == (2, 3)

    async def test_settled_below_the_head_is_owed_still(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2, 3)
        assert await settle_at(engine, node, 0) is False
        lease = await claim_one(engine, node)
        await fill(engine, node, 4)
        assert await engine.settle(lease, 3) is False
        assert await engine.dirty() == [(node, 4)]
        assert await settle_at(engine, node, 4) is True

    async def test_the_watermark_never_goes_back_nor_passes_the_head(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2, 3)
        await settle_at(engine, node, 2)
        lease = await claim_one(engine, node)
        for wrong in (1, 4, -1):
            with pytest.raises(ValueError, match="watermark"):  # I4
                await engine.settle(lease, wrong)
        assert await engine.dirty() == [(node, 3)]
        assert await engine.settle(lease, 3) is True

    async def test_a_dropped_node_has_no_lease(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1)
        lease = await claim_one(engine, node)
        await engine.drop(node)
        with pytest.raises(LeaseLost):
            await engine.settle(lease, 1)
        with pytest.raises(LeaseLost):
            await engine.renew(lease, ttl=LONG)
        assert await engine.claim("w", ttl=LONG) == []

    # ------------------------------------------------- reached, wait_dirty

    async def test_what_owes_nothing_is_reached_at_once(self, engine: LogEngine) -> None:
        clean, gone = new_id(), new_id()
        await fill(engine, clean, 1)
        await settle_at(engine, clean, 1)
        await fill(engine, gone, 1)
        await engine.drop(gone)
        async with asyncio.timeout(PATIENCE):
            for node in (clean, gone, new_id()):
                await engine.reached(node, 1)
                await engine.reached(node, 99)

    async def test_reached_means_settled(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2, 3)
        second, third = await waits(engine.reached(node, 2)), await waits(engine.reached(node, 3))
        async with asyncio.timeout(PATIENCE):
            await engine.reached(node, 0)
            await settle_at(engine, node, 1)
            await asyncio.sleep(0.05)
            assert not second.done()
            await settle_at(engine, node, 2)
            await second
            await asyncio.sleep(0.05)
            assert not third.done()
            await settle_at(engine, node, 3)
            await third

    async def test_any_number_of_readers_reach(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1)
        readers = [await waits(engine.reached(node, 1)) for _ in range(10)]
        for reader in readers[::3]:
            reader.cancel()
        await asyncio.sleep(0)
        await settle_at(engine, node, 1)
        async with asyncio.timeout(PATIENCE):
            results = await asyncio.gather(*readers, return_exceptions=True)
        assert [isinstance(r, asyncio.CancelledError) for r in results] == [n % 3 == 0 for n in range(10)]

    async def test_a_drop_lets_readers_go(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1)
        reader = await waits(engine.reached(node, 1))
        await engine.drop(node)
        async with asyncio.timeout(PATIENCE):
            await reader

    async def test_work_wakes_the_persister(self, engine: LogEngine) -> None:
        node = new_id()
        async with asyncio.timeout(PATIENCE):
            persister = await waits(claim_when_dirty(engine))
            await fill(engine, node, 1)
            lease = await persister
        assert lease.node == node

    async def test_work_that_is_there_already_needs_no_waking(self, engine: LogEngine) -> None:
        await fill(engine, new_id(), 1)
        async with asyncio.timeout(PATIENCE):
            await engine.wait_dirty()
            await engine.wait_dirty(linger=0.01)

    async def test_a_wanted_node_is_not_left_to_linger(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1)
        async with asyncio.timeout(PATIENCE):
            persister = await waits(engine.wait_dirty(linger=10 * PATIENCE))
            reader = await waits(engine.reached(node, 1))
            await persister  # wanted while it lingered
            await engine.wait_dirty(linger=10 * PATIENCE)  # wanted before
            await settle_at(engine, node, 1)
            await reader

    async def test_what_is_given_back_wakes_the_persister(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2, 3)
        async with asyncio.timeout(PATIENCE):
            for give_back in (engine.release, lambda lease: engine.settle(lease, 2)):
                lease = await claim_one(engine, node)
                persister = await waits(claim_when_dirty(engine))
                await give_back(lease)
                await engine.release(await persister)

    async def test_wait_dirty_can_be_cancelled(self, engine: LogEngine) -> None:
        waiting = [await waits(engine.wait_dirty()) for _ in range(3)]
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        await fill(engine, new_id(), 1)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*waiting[1:])

    # ---------------------------------------------------------- dirty, lag

    async def test_lag_counts_what_is_owed(self, engine: LogEngine) -> None:
        early, late, clean = new_id(), new_id(), new_id()
        await fill(engine, late, 1, 2, 3, time=200.0)
        await fill(engine, early, 1, time=100.0)
        await fill(engine, early, 2, time=150.0)
        await fill(engine, clean, 1, time=50.0)
        await settle_at(engine, clean, 1)
        assert sorted(await engine.dirty()) == sorted([(early, 2), (late, 3)])
        lag = await engine.lag()
        assert (lag.nodes, lag.records, lag.oldest) == (2, 5, 100.0)
        await settle_at(engine, early, 1)
        lag = await engine.lag()
        assert (lag.nodes, lag.records, lag.oldest) == (2, 4, 150.0)
