"""What every engine promises as a `Backlog`: who owes what, and who may persist it. (What may leave: `retention_contract`.)

`LogContract` runs these too; see there for the fixtures. The tests know the port's docstrings and nothing of the engine: what a
hint may do early is never forbidden here, and bytes of bookkeeping are the engine's own affair.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest

from ..domain.errors import Gone, LeaseLost
from ..domain.nodes import NodeId
from ..log.port import Lease, LogEngine, NodeState, Retention
from .factories import draft, new_id

__all__ = [
    "LONG",
    "PATIENCE",
    "BacklogContract",
    "Elapse",
    "all_states",
    "claim_one",
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
            persister = await waits(self._claim_when_dirty(engine))
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
                persister = await waits(self._claim_when_dirty(engine))
                await give_back(lease)
                await engine.release(await persister)

    async def test_wait_dirty_can_be_cancelled(self, engine: LogEngine) -> None:
        waiting = [await waits(engine.wait_dirty()) for _ in range(3)]
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        await fill(engine, new_id(), 1)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*waiting[1:])

    async def _claim_when_dirty(self, engine: LogEngine) -> Lease:
        while True:
            await engine.wait_dirty()
            leases = await engine.claim("persister", ttl=LONG)
            if leases:
                return leases[0]
            await asyncio.sleep(0)

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
        assert await engine.trim(Retention(node_bytes=0, total_bytes=0, seconds=0.0), now=1e6, nodes=[node]) == 1  # I6
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
        everything = Retention(node_bytes=0, total_bytes=0, seconds=0.0)
        assert await engine.trim(everything, now=1e6, nodes=[node]) == 3
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
            persister = await waits(self._claim_when_dirty(engine))
            await engine.reopen(node, 0)
            assert (await persister).node == node

    # ------------------------------------------------------ states, remember

    async def test_states_of_all_nodes(self, engine: LogEngine) -> None:
        pending, trimmed, empty, gone = (new_id() for _ in range(4))
        for node in (pending, trimmed, empty, gone):
            await fill(engine, node, 1, 2, 3)
        await settle_at(engine, trimmed, 2)
        await settle_at(engine, empty, 3)
        await engine.trim(Retention(node_bytes=0, total_bytes=0, seconds=0.0), now=1e6)
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
