"""What every `PartStore` does: each sentence of the port as a test, with a dictionary of parts as the model.

Subclass `PartStoreContract` and give it the fixtures of `ArrayStoreContract`. The store splits a record with `split_part`.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from ..domain.errors import TooLarge, UnsupportedType
from ..domain.events import AssetDeleted, Event, PartWritten, Record, StreamEnded
from ..domain.nodes import DataSource
from ..domain.structures import AwkwardStructure, DataType, RaggedStructure, SparseStructure
from ..storage.port import PartBatch
from .factories import new_id, record
from .fence_contract import FenceContract

__all__ = ["PartModel", "PartStoreContract", "split_part"]

_FLOAT64 = DataType(itemsize=8, kind="f", endianness="little")
_RAGGED = RaggedStructure(_FLOAT64, (4, None), 0, ((1, 1, 1, 1), None))
_BLOCKS = 4
_NAMES = [f"block-{n}" for n in range(_BLOCKS)]


def split_part(event: PartWritten, body: bytes) -> dict[str, bytes]:
    """One part for a block; a part for each byte of a body that is the whole array."""
    if event.block is not None:
        return {f"block-{event.block[0]}": body}
    return {f"block-{n}": body[n : n + 1] for n in range(_BLOCKS)}


class PartModel:
    """Parts by name, and the records that wrote them."""

    def __init__(self, random: Random) -> None:
        self.node = new_id()
        self.parts: dict[str, bytes] = {}
        self.records: list[Record] = []
        #: The parts after as many records.
        self.states: list[dict[str, bytes]] = [{}]
        self._random = random

    def write(self, block: int | None, body: bytes, *, persist: bool = True) -> None:
        """A block, or the whole array."""
        event = PartWritten((4, None), _RAGGED, block=None if block is None else (block,), persist=persist)
        if persist:
            self.parts |= split_part(event, body)
        self._record(event, body)

    def step(self) -> None:
        """Something random is written."""
        kind = self._random.random()
        if kind < 0.2:
            self.write(None, self._random.randbytes(_BLOCKS))
        else:
            body = self._random.randbytes(self._random.randint(0, 9))
            self.write(self._random.randrange(_BLOCKS), body, persist=kind < 0.95)

    def delete(self) -> None:
        """All data are deleted."""
        self.parts = {}
        self._record(AssetDeleted(DataSource("ragged", _RAGGED, "application/x-ragged+sql")))

    def end(self) -> None:
        """Something that is not data happens."""
        self._record(StreamEnded())

    def batch(self, after: int = 0, upto: int | None = None, fence: int = 0) -> PartBatch:
        """The records that follow `after`, to `upto`."""
        return PartBatch(self.node, tuple(self.records[after:upto]), after, fence)

    async def assert_reads(self, store: Any, *, upto: int | None = None) -> None:
        """The store has exactly these parts, as they were after `upto` records."""
        wanted = self.states[-1 if upto is None else upto]
        assert await store.read(self.node, _NAMES, limit=1000) == wanted

    def _record(self, event: Event, body: bytes = b"") -> None:
        self.records.append(record(len(self.records) + 1, event, body))
        self.states.append(dict(self.parts))


class PartStoreContract(FenceContract):
    """See the module."""

    def model(self, random: Random) -> PartModel:
        """A ragged array of four blocks."""
        return PartModel(random)

    @pytest.mark.parametrize("seed", range(10))
    async def test_random_histories_equal_the_model(self, store: Any, reopen: Any, seed: int) -> None:
        random = Random(seed)
        model = PartModel(random)
        applied = 0
        for _ in range(8):
            for _ in range(random.randint(1, 4)):
                model.delete() if random.random() < 0.1 else model.step()
            assert await store.apply([model.batch(random.randint(0, applied))]) == [len(model.records)]
            applied = len(model.records)
            if random.random() < 0.2:
                store = await reopen()
            await model.assert_reads(store)

    async def test_part_that_was_never_written_is_not_there(self, store: Any) -> None:
        assert await store.read(new_id(), _NAMES, limit=100) == {}
        model = PartModel(Random(0))
        model.write(1, b"x")
        await store.apply([model.batch()])
        assert await store.read(model.node, ["block-0", "block-1"], limit=100) == {"block-1": b"x"}

    async def test_read_is_bounded(self, store: Any) -> None:
        model = PartModel(Random(0))
        model.write(0, b"x" * 60)
        model.write(1, b"y" * 60)
        await store.apply([model.batch()])
        assert len(await store.read(model.node, ["block-1"], limit=100)) == 1
        with pytest.raises(TooLarge):
            await store.read(model.node, ["block-0", "block-1"], limit=100)

    async def test_delete_may_be_repeated(self, store: Any) -> None:
        gone, kept = PartModel(Random(1)), PartModel(Random(2))
        for model in (gone, kept):
            model.write(None, b"abcd")
        await store.apply([gone.batch(), kept.batch()])
        for _ in range(2):
            await store.delete(gone.node, new_id())
        await gone.assert_reads(store, upto=0)
        await kept.assert_reads(store)

    async def test_allocation_is_decided_from_the_id_alone(self, store: Any) -> None:
        node = new_id()
        for structure in (_RAGGED, SparseStructure((4,), ((4,),)), AwkwardStructure(1, {})):
            place = store.allocate(node, structure, None)
            assert place == store.allocate(node, structure, place.mimetype)
            assert place.data_uri.startswith("file://localhost/")
            with pytest.raises(UnsupportedType):
                store.allocate(node, structure, "text/csv")

    async def test_closing_twice_is_the_same_as_once(self, store: Any) -> None:
        await store.close()
        await store.close()
