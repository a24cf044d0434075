"""What every store does with watermarks and fences, whatever it keeps: each sentence of `storage/port.py` about them as a test.

`ArrayStoreContract` and `PartStoreContract` are subclasses. A subclass gives `model`, and the fixtures `store` and `reopen`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, Protocol

import pytest

from ..domain.events import Record
from ..domain.nodes import NodeId
from ..storage.port import FENCED

__all__ = ["FenceContract", "FencedModel", "FencedStore"]


class FencedStore(Protocol):
    """What the stores have in common."""

    async def apply(self, batches: Sequence[Any]) -> list[int]:
        """See the ports."""
        ...

    async def watermarks(self, nodes: Sequence[NodeId]) -> list[int]:
        """See the ports."""
        ...

    async def close(self) -> None:
        """See the ports."""
        ...


class FencedModel(Protocol):
    """The history of one node, and what a store holds after each of its records."""

    node: NodeId
    records: list[Record]

    def step(self) -> None:
        """Something random is written."""
        ...

    def delete(self) -> None:
        """All data are deleted."""
        ...

    def end(self) -> None:
        """Something that is not data happens."""
        ...

    def batch(self, after: int = 0, upto: int | None = None, fence: int = 0) -> Any:
        """The records that follow `after`, to `upto`."""
        ...

    async def assert_reads(self, store: Any, *, upto: int | None = None) -> None:
        """The store has what it should have after `upto` records."""
        ...


def written(model: FencedModel, steps: int) -> FencedModel:
    """The model after some random steps."""
    for _ in range(steps):
        model.step()
    return model


class FenceContract:
    """See the module."""

    def model(self, random: Random) -> FencedModel:
        """A node without records."""
        raise NotImplementedError("give the suite a `model`")

    @pytest.fixture
    async def store(self) -> FencedStore:
        """An open, empty store."""
        raise NotImplementedError("give the suite a fixture `store`")

    @pytest.fixture
    def reopen(self) -> Callable[[], Awaitable[Any]]:
        """Close the store and open another one on the same data."""
        raise NotImplementedError("give the suite a fixture `reopen`")

    async def test_watermark_is_that_of_the_last_record(self, store: Any, reopen: Any) -> None:
        model, other = written(self.model(Random(1)), 3), self.model(Random(2))
        assert await store.watermarks([model.node, other.node]) == [0, 0]
        assert await store.apply([model.batch()]) == [3]
        model.end()
        other.end()  # a node of which nothing was ever written
        assert await store.apply([model.batch(3), other.batch()]) == [4, 1]
        assert await store.apply([model.batch(4)]) == [4]  # nothing
        for _ in range(2):
            assert await store.watermarks([other.node, model.node]) == [1, 4]
            await model.assert_reads(store)
            store = await reopen()

    async def test_stored_records_are_skipped(self, store: Any, reopen: Any) -> None:
        model = written(self.model(Random(3)), 12)
        assert await store.apply([model.batch(0, 8)]) == [8]
        for after, upto, watermark in ((0, 8, 8), (2, 5, 8), (0, 10, 10), (7, 10, 10), (0, 1, 10)):
            assert await store.apply([model.batch(after, upto)]) == [watermark]
            await model.assert_reads(store, upto=watermark)
        store = await reopen()
        assert await store.apply([model.batch(3)]) == [12]
        await model.assert_reads(store)

    async def test_batch_that_begins_too_late_does_not_count(self, store: Any) -> None:
        model, other = written(self.model(Random(4)), 6), written(self.model(Random(5)), 2)
        assert await store.apply([model.batch(2), other.batch()]) == [0, 2]
        await model.assert_reads(store, upto=0)
        assert await store.apply([model.batch(0, 3)]) == [3]
        assert await store.apply([model.batch(4)]) == [3]
        await model.assert_reads(store, upto=3)
        await other.assert_reads(store)

    async def test_batch_with_a_lower_fence_is_fenced(self, store: Any, reopen: Any) -> None:
        model = written(self.model(Random(6)), 12)
        assert await store.apply([model.batch(0, 3, fence=7)]) == [3]
        assert await store.apply([model.batch(3, 6, fence=9)]) == [6]
        for _ in range(2):
            for after, upto in ((3, 9), (6, 9), (0, 6), (6, 6), (9, 12)):
                assert await store.apply([model.batch(after, upto, fence=8)]) == [FENCED]
                assert await store.watermarks([model.node]) == [6]
                await model.assert_reads(store, upto=6)
            store = await reopen()
        assert await store.apply([model.batch(6, fence=9)]) == [12]
        await model.assert_reads(store)

    async def test_fenced_batch_does_not_hinder_the_others(self, store: Any) -> None:
        models = [written(self.model(Random(n)), 4) for n in range(5)]
        await store.apply([m.batch(0, 2, fence=5) for m in models])
        batches = [m.batch(2, fence=4 if n in (1, 3) else 6) for n, m in enumerate(models)]
        answers = [4, FENCED, 4, FENCED, 4]
        assert await store.apply(batches) == answers
        assert await store.watermarks([m.node for m in models]) == [4, 2, 4, 2, 4]
        for model, answer in zip(models, answers, strict=True):
            await model.assert_reads(store, upto=2 if answer == FENCED else 4)

    async def test_fences_of_one_node_in_one_call(self, store: Any) -> None:
        model = written(self.model(Random(7)), 8)
        batches = [model.batch(0, 2, fence=1), model.batch(2, 4, fence=3), model.batch(4, 6, fence=2), model.batch(4, 8, fence=3)]
        assert await store.apply(batches) == [8, 8, FENCED, 8]  # each node's watermark afterwards
        await model.assert_reads(store)

    async def test_deleted_asset_removes_what_was_written_before(self, store: Any, reopen: Any) -> None:
        model = written(self.model(Random(8)), 4)
        assert await store.apply([model.batch(0, 2)]) == [2]
        model.delete()
        assert await store.apply([model.batch(2)]) == [5]
        await model.assert_reads(store)
        written(model, 3)  # the same store, another one, and all in one batch
        assert await store.apply([model.batch(5)]) == [8]
        await model.assert_reads(store)
        model.delete()
        written(model, 2)
        model.delete()
        written(model, 3)
        store = await reopen()
        assert await store.apply([model.batch(8)]) == [15]
        await model.assert_reads(store)
        assert await store.watermarks([model.node]) == [15]

    async def test_deleted_node_has_no_watermark(self, store: Any) -> None:
        model = written(self.model(Random(9)), 3)
        await store.apply([model.batch(fence=4)])
        await self.delete(store, model)
        assert await store.watermarks([model.node]) == [0]
        await model.assert_reads(store, upto=0)
        assert await store.apply([model.batch(1, fence=4)]) == [0]
        assert await store.apply([model.batch(fence=4)]) == [3]
        await model.assert_reads(store)

    async def delete(self, store: Any, model: Any) -> None:
        """Delete the node."""
        await store.delete(model.node)
