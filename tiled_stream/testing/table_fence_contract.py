"""What every `TableStore` does with watermarks and fences: the part of its contract that keeps a stale persister from writing.

`TableFenceContract` belongs to `TableStoreContract` and needs its fixtures. `SharedTableContract` is for engines that two
processes may open at once; it asks for one fixture more.

    class TestMyTablesShared(SharedTableContract):
        @pytest.fixture
        async def store(self, tmp_path): ...
        @pytest.fixture
        async def second(self, store, tmp_path): ...  # another store on the same data
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import msgspec
import pytest

from ..storage.port import FENCED, TableBatch, TableStore
from .factories import new_id
from .table_model import TableModel, assert_reads, random_rows, two_columns

__all__ = ["SharedTableContract", "TableFenceContract"]

Reopen = Callable[[], Awaitable[TableStore]]


def _history(random: Random, steps: int) -> TableModel:
    model = two_columns()
    for _ in range(steps):
        model.step(random)
    return model


class _Lease(msgspec.Struct):
    """What a persister believes: its fence for a node, and how far the node is persisted. Either may be out of date."""

    fence: int
    after: int


class _Leases:
    """Leases of a few nodes as a log gives them; each has a higher fence than the one before."""

    def __init__(self, models: list[TableModel]) -> None:
        self.models = models
        self.newest = [0] * len(models)

    async def acquire(self, n: int, store: TableStore) -> _Lease:
        """The newest lease of a node. The fence is given first: what the predecessor still writes is seen, or refused."""
        self.newest[n] += 1
        fence = self.newest[n]
        return _Lease(fence, (await store.watermarks([self.models[n].node]))[0])

    def batch(self, n: int, lease: _Lease, random: Random) -> TableBatch:
        """What a persister with this lease applies next."""
        return self.models[n].batch(lease.after, lease.after + random.randint(0, 5), fence=lease.fence)


class TableFenceContract:
    """Part of `TableStoreContract`."""

    async def test_watermarks_of_many_nodes(self, store: TableStore, reopen: Reopen) -> None:
        models = [two_columns() for _ in range(40)]
        for n, model in enumerate(models):
            for _ in range(n % 4):
                model.append(random_rows(Random(n), 1))
        await store.apply([model.batch() for model in models])
        asked = [new_id(), *(model.node for model in models), models[3].node]
        expected = [0, *(n % 4 for n in range(40)), 3]
        assert await store.watermarks(asked) == expected
        assert await store.watermarks([]) == []
        assert await (await reopen()).watermarks(asked) == expected

    async def test_a_lower_fence_is_refused_and_changes_nothing(self, store: TableStore) -> None:
        """The stale persister: it continues from the watermark that it remembers, with old records over newer ones."""
        random = Random(21)
        model = two_columns()
        for _ in range(3):
            model.append(random_rows(random, 2))
        assert await store.apply([model.batch(0, 2, fence=1)]) == [2]
        model.replace(random_rows(random, 4), None)
        assert await store.apply([model.batch(2, fence=2)]) == [4]
        stale = two_columns()
        stale.node = model.node
        for _ in range(6):
            stale.replace(random_rows(random, 1), None)
        for after in (2, 4):
            assert await store.apply([stale.batch(after, fence=1)]) == [FENCED]
        assert await store.watermark(model.node) == 4
        await assert_reads(store, model)
        model.append(random_rows(random, 1))
        assert await store.apply([model.batch(4, fence=2)]) == [5]
        await assert_reads(store, model)

    async def test_a_fenced_batch_does_not_hinder_the_others(self, store: TableStore) -> None:
        first, fenced, last = models = [_history(Random(n), 6) for n in range(3)]
        assert await store.apply([m.batch(0, 2, fence=7) for m in models]) == [2, 2, 2]
        batches = [first.batch(2, fence=7), fenced.batch(2, fence=6), last.batch(2, fence=8)]
        assert await store.apply(batches) == [6, FENCED, 6]
        assert await store.watermarks([m.node for m in models]) == [6, 2, 6]
        await assert_reads(store, first)
        await assert_reads(store, last)
        assert await store.apply([fenced.batch(2, fence=7)]) == [6]
        await assert_reads(store, fenced)

    async def test_equal_and_higher_fences_are_accepted(self, store: TableStore) -> None:
        model = _history(Random(22), 8)
        for n, fence in enumerate((0, 0, 3, 3, 4, 2**40, 2**40, 2**62)):
            assert await store.apply([model.batch(n, n + 1, fence=fence)]) == [n + 1]
        assert await store.apply([model.batch(0, fence=2**62 - 1)]) == [FENCED]
        await assert_reads(store, model)

    async def test_a_fence_is_kept_after_reopening(self, store: TableStore, reopen: Reopen) -> None:
        model = _history(Random(23), 5)
        await store.apply([model.batch(0, 3, fence=5)])
        for _ in range(2):
            store = await reopen()
            assert await store.apply([model.batch(3, fence=4)]) == [FENCED]
        assert await store.apply([model.batch(3, fence=5)]) == [5]
        await assert_reads(store, model)

    async def test_a_predecessor_is_fenced_by_a_successor_that_wrote_nothing_new(self, store: TableStore, reopen: Reopen) -> None:
        """It is paused, and must not write when it resumes: from then on the successor goes by what it has read."""
        repeated, empty = _history(Random(24), 4), _history(Random(25), 4)
        await store.apply([m.batch(0, 2, fence=1) for m in (repeated, empty)])
        assert await store.apply([repeated.batch(0, 2, fence=2), empty.batch(2, 2, fence=2)]) == [2, 2]
        store = await reopen()
        assert await store.apply([m.batch(2, fence=1) for m in (repeated, empty)]) == [FENCED, FENCED]
        assert await store.watermarks([repeated.node, empty.node]) == [2, 2]
        assert await store.apply([m.batch(2, fence=2) for m in (repeated, empty)]) == [4, 4]
        for model in (repeated, empty):
            await assert_reads(store, model)

    async def test_fences_of_one_call_are_taken_in_its_order(self, store: TableStore) -> None:
        model = _history(Random(26), 6)
        batches = [model.batch(0, 2, fence=1), model.batch(2, 4, fence=3), model.batch(4, 6, fence=2)]
        assert await store.apply(batches) == [4, 4, FENCED]
        assert await store.apply([model.batch(4, fence=2), model.batch(4, fence=3)]) == [FENCED, 6]
        await assert_reads(store, model)

    async def test_stores_of_versions_without_fences_go_on(self, store: TableStore) -> None:
        """Their batches and rows count as those of fence 0."""
        model = _history(Random(27), 4)
        assert await store.apply([model.batch(0, 2)]) == [2]
        assert await store.apply([model.batch(2, fence=1)]) == [4]
        assert await store.apply([model.batch(0)]) == [FENCED]
        await assert_reads(store, model)

    @pytest.mark.parametrize("seed", range(8))
    async def test_random_schedules_of_persisters(self, store: TableStore, reopen: Reopen, seed: int) -> None:
        """Leases change hands, and an earlier holder comes again at any time, with what it remembers."""
        random = Random(seed)
        models = [_history(random, 40) for _ in range(3)]
        leases = _Leases(models)
        held = [[await leases.acquire(n, store)] for n in range(3)]
        fences, watermarks = [0] * 3, [0] * 3
        for _ in range(60):
            if random.random() < 0.3:
                n = random.randrange(3)
                held[n].append(await leases.acquire(n, store))
            if random.random() < 0.1:
                store = await reopen()
            chosen = sorted(random.sample(range(3), random.randint(1, 3)))
            mine = [random.choice(held[n][-3:]) for n in chosen]
            batches = [leases.batch(n, lease, random) for n, lease in zip(chosen, mine, strict=True)]
            answers = await store.apply(batches)
            for n, lease, batch, answer in zip(chosen, mine, batches, answers, strict=True):
                if lease.fence < fences[n]:
                    assert answer == FENCED
                else:
                    fences[n] = lease.fence
                    lease.after = watermarks[n] = max(watermarks[n], lease.after + len(batch.records))
                    assert answer == watermarks[n]
            assert await store.watermarks([m.node for m in models]) == watermarks
        last = [await leases.acquire(n, store) for n in range(3)]
        await store.apply([m.batch(lease.after, fence=lease.fence) for m, lease in zip(models, last, strict=True)])
        for model in models:
            await assert_reads(store, model)


class SharedTableContract:
    """For engines that several processes may have open at once: two persisters, each with a store of its own."""

    @pytest.fixture
    async def store(self) -> TableStore:
        """An open, empty store."""
        raise NotImplementedError("give the suite a fixture `store`")

    @pytest.fixture
    async def second(self) -> TableStore:
        """Another open store on the data of `store`."""
        raise NotImplementedError("give the suite a fixture `second`")

    async def test_a_fence_holds_in_every_process(self, store: TableStore, second: TableStore) -> None:
        model = _history(Random(31), 6)
        await store.apply([model.batch(0, 3, fence=1)])
        assert await second.apply([model.batch(3, 3, fence=2)]) == [3]
        assert await store.apply([model.batch(3, fence=1)]) == [FENCED]
        assert await second.apply([model.batch(3, fence=2)]) == [6]
        await assert_reads(store, model)

    @pytest.mark.parametrize("seed", range(6))
    async def test_two_persisters_at_once(self, store: TableStore, second: TableStore, seed: int) -> None:
        """Leases move while batches are under way. What was seen as persisted stays so, and the newest lease is never fenced."""
        random = Random(seed)
        models = [_history(random, 40) for _ in range(3)]
        leases = _Leases(models)

        async def persist(own: TableStore, random: Random) -> None:
            held: list[list[_Lease]] = [[await leases.acquire(n, own)] for n in range(3)]
            seen = [0] * 3
            for _ in range(40):
                n = random.randrange(3)
                if random.random() < 0.3:
                    held[n].append(await leases.acquire(n, own))
                lease = random.choice(held[n][-2:])
                (answer,) = await own.apply([leases.batch(n, lease, random)])
                if answer == FENCED:
                    assert lease.fence < leases.newest[n]
                    continue
                assert answer >= seen[n]  # I4
                lease.after = seen[n] = answer

        async with asyncio.TaskGroup() as group:
            for n, own in enumerate((store, second)):
                group.create_task(persist(own, Random(seed * 10 + n)), name=f"persister {n}")
        for n, model in enumerate(models):
            lease = await leases.acquire(n, store)
            assert await second.apply([model.batch(lease.after, fence=lease.fence)]) == [40]
            assert await store.apply([model.batch(0, fence=lease.fence - 1)]) == [FENCED]
            await assert_reads(store, model)
            await assert_reads(second, model)
