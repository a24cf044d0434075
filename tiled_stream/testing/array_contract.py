"""What every `ArrayStore` does: each sentence of the port as a test, with numpy as the model.

Subclass `ArrayStoreContract` and give it a fixture `store` (an open store, empty, closed afterwards) and a fixture `reopen`: an
async function that closes the store and returns another one on the same data. Watermarks and fences: see `fence_contract.py`.

    class TestMyArrays(ArrayStoreContract):
        @pytest.fixture
        async def store(self, tmp_path): ...
        @pytest.fixture
        def reopen(self, store, tmp_path): ...
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import msgspec
import numpy
import pytest

from ..domain.errors import Malformed, UnsupportedType
from ..domain.events import ArrayWritten
from ..domain.slices import Along, Selection, whole
from ..domain.structures import DataType
from ..storage.port import ArrayBatch, ArrayStore
from .array_model import DTYPES, RECORDS, ArrayModel, cells, random_structure, selections
from .factories import array_structure, new_id, record
from .fence_contract import FenceContract

__all__ = ["DTYPES", "ArrayModel", "ArrayStoreContract", "Reopen", "cells", "selections"]

Reopen = Callable[[], Awaitable[ArrayStore]]


class ArrayStoreContract(FenceContract):
    """See the module."""

    def model(self, random: Random) -> ArrayModel:
        """An array of small integers that grows."""
        structure = array_structure((3, 3), chunks=((3,), (3,)), resizable=True)
        return ArrayModel(structure, numpy.dtype("<i4"), random)

    @pytest.fixture
    async def store(self) -> ArrayStore:
        """An open, empty store."""
        raise NotImplementedError("give the suite a fixture `store`")

    @pytest.fixture
    def reopen(self) -> Reopen:
        """Close the store and open another one on the same data."""
        raise NotImplementedError("give the suite a fixture `reopen`")

    @pytest.mark.parametrize("spelling", [*DTYPES, *RECORDS], ids=str)
    async def test_every_data_type_comes_back_bit_by_bit(self, store: ArrayStore, reopen: Reopen, spelling: Any) -> None:
        dtype = numpy.dtype(spelling)
        model = ArrayModel(array_structure((3, 4), chunks=((2, 1), (3, 1))), dtype, Random(1))
        await model.assert_reads(store)  # never written
        model.write_whole()
        model.append(extent=2)
        await store.apply([model.batch()])
        await model.assert_reads(store)
        model.write_region()
        await store.apply([model.batch(2)])
        store = await reopen()
        await model.assert_reads(store)
        await model.assert_reads(store, Selection((Along(4, -2, 3), Along(1, 1, 1, drop=True))))

    async def test_special_floats_and_times_are_kept(self, store: ArrayStore) -> None:
        for values in (
            numpy.array([numpy.nan, numpy.inf, -numpy.inf, -0.0, 5e-324]),
            numpy.array([0x7FF8DEAD00000001, 0xFFF0000000000001], "<u8").view("<f8"),
            numpy.array(["NaT", "1969-12-31", "2262-04-11"], "<M8[ns]"),
        ):
            model = ArrayModel(array_structure(values.shape), values.dtype, Random(0))
            model.write(ArrayWritten(values.shape), values, (0,))
            await store.apply([model.batch()])
            await model.assert_reads(store)

    @pytest.mark.parametrize("kind", ["S", "U", "V"])
    async def test_elements_of_no_bytes(self, store: ArrayStore, kind: str) -> None:
        structure = array_structure((2, 3), data_type=DataType(0, kind, "little" if kind == "U" else "not_applicable"))
        model = new_id()
        await store.apply([ArrayBatch(model, structure, (record(1, ArrayWritten((2, 3))),))])
        found = await store.read(model, structure, whole((2, 3)))
        assert (found.shape, found.dtype.kind, found.tobytes()) == ((2, 3), kind, b"")

    @pytest.mark.parametrize("seed", range(25))
    async def test_random_writes_and_selections_equal_numpy(self, store: ArrayStore, reopen: Reopen, seed: int) -> None:
        random = Random(seed)
        dtype = numpy.dtype(random.choice(DTYPES))
        shape = tuple(random.randint(0, 7) for _ in range(random.choice((0, 1, 1, 2, 2, 3))))
        model = ArrayModel(random_structure(shape, random), dtype, random)
        applied = 0
        for _ in range(6):
            for _ in range(random.randint(1, 4)):
                model.step()
            # Records applied before come again, as after a crash between storage and catalog (I5).
            await store.apply([model.batch(random.randint(0, applied))])
            applied = len(model.records)
            if random.random() < 0.2:
                store = await reopen()
            for _ in range(6):
                await model.assert_reads(store, selections(model.structure.shape, random))
        await model.assert_reads(store)

    async def test_a_scalar(self, store: ArrayStore) -> None:
        model = ArrayModel(array_structure(()), numpy.dtype("<f8"), Random(3))
        await model.assert_reads(store)
        model.write_whole()
        await store.apply([model.batch()])
        await model.assert_reads(store)

    @pytest.mark.parametrize("chunks", [((),), ((0,),)], ids=["no chunk", "an empty chunk"])
    async def test_an_axis_of_length_zero_that_grows(self, store: ArrayStore, chunks: tuple[tuple[int, ...], ...]) -> None:
        model = ArrayModel(array_structure((0, 4), chunks=(*chunks, (4,))), numpy.dtype("<f8"), Random(4))
        model.write_whole()
        await store.apply([model.batch()])
        await model.assert_reads(store)
        model.append(extent=3)
        model.append(extent=5)
        await store.apply([model.batch(1)])
        await model.assert_reads(store)

    async def test_what_was_never_written_is_zeros(self, store: ArrayStore) -> None:
        for dtype in (numpy.dtype("<f8"), numpy.dtype("<U4"), numpy.dtype("<M8[ns]"), numpy.dtype("|b1")):
            model = ArrayModel(array_structure((4,)), dtype, Random(0))
            await model.assert_reads(store)
            await model.assert_reads(store, Selection((Along(2, 1, 1, drop=True),)))

    async def test_growth_leaves_gaps_of_zeros_and_keeps_what_was_there(self, store: ArrayStore) -> None:
        model = ArrayModel(array_structure((3, 2), chunks=((2, 1), (2,)), resizable=True), numpy.dtype("<f8"), Random(5))
        model.write_whole()
        await store.apply([model.batch()])
        for axis in (0, 1, 0):
            before = len(model.records)
            model.append(axis, gap=3, extent=2)
            await store.apply([model.batch(before)])
            await model.assert_reads(store)

    async def test_rows_appended_one_by_one_to_a_large_chunk(self, store: ArrayStore, reopen: Reopen) -> None:
        model = ArrayModel(array_structure((10, 3), resizable=True), numpy.dtype("<i4"), Random(6))
        model.write_whole()
        applied = 0
        for _ in range(25):
            model.append()
            if len(model.records) % 4 == 0:
                model.write_region()  # also into rows of the same batch
            if len(model.records) % 3 == 0:
                await store.apply([model.batch(applied)])
                await store.apply([model.batch(applied)])  # I5
                applied = len(model.records)
                await model.assert_reads(store)
        await store.apply([model.batch(applied)])
        await model.assert_reads(await reopen())

    async def test_blocks_of_an_irregular_grid(self, store: ArrayStore) -> None:
        model = ArrayModel(array_structure((10, 5), chunks=((3, 2, 5), (1, 4))), numpy.dtype("<f8"), Random(7))
        for _ in range(12):
            model.write_block()
        await store.apply([model.batch()])
        await model.assert_reads(store)

    async def test_an_offset_may_name_fewer_axes(self, store: ArrayStore) -> None:
        model = ArrayModel(array_structure((4, 3)), numpy.dtype("<f8"), Random(8))
        values = cells(model.dtype, (2, 3), Random(9))
        model.write(ArrayWritten((2, 3), (1,)), values, (1, 0))
        await store.apply([model.batch()])
        await model.assert_reads(store)

    async def test_records_that_are_not_to_be_kept_are_ignored(self, store: ArrayStore) -> None:
        model = ArrayModel(array_structure((2, 2)), numpy.dtype("<f8"), Random(10))
        model.write(ArrayWritten((2, 2), persist=False), cells(model.dtype, (2, 2), Random(11)), (0, 0))
        model.end()
        await store.apply([model.batch()])
        await model.assert_reads(store)

    async def test_an_older_batch_never_shrinks_an_array(self, store: ArrayStore) -> None:
        model = ArrayModel(array_structure((2, 3), resizable=True), numpy.dtype("<f8"), Random(12))
        model.write_whole()
        older = model.batch()
        model.append(extent=3)
        await store.apply([model.batch()])
        await store.apply([older])
        await model.assert_reads(store)

    async def test_what_was_not_written_is_never_said_to_be(self, store: ArrayStore) -> None:
        model = ArrayModel(array_structure((4, 2), chunks=((2, 2), (2,))), numpy.dtype("<f8"), Random(14))
        assert not await store.is_written(model.node, model.structure)
        model.write(ArrayWritten((2, 2), offset=(0, 0)), cells(model.dtype, (2, 2), Random(15)), (0, 0))
        await store.apply([model.batch()])
        assert not await store.is_written(model.node, model.structure)

    async def test_many_arrays_in_one_step(self, store: ArrayStore) -> None:
        models = [ArrayModel(array_structure((n, 2)), numpy.dtype("<f8"), Random(n)) for n in range(1, 30)]
        for model in models:
            model.write_whole()
        await store.apply([m.batch() for m in models])
        for model in models:
            await model.assert_reads(store)

    async def test_a_record_that_does_not_fit_is_refused_and_spoils_nothing(self, store: ArrayStore) -> None:
        model = ArrayModel(array_structure((2, 2)), numpy.dtype("<f8"), Random(13))
        model.write_whole()
        await store.apply([model.batch()])
        bad = record(2, ArrayWritten((2, 2)), b"short")
        with pytest.raises(ValueError, match=r"."):
            await store.apply([ArrayBatch(model.node, model.structure, (bad,))])
        await model.assert_reads(store)

    async def test_delete_removes_the_data_and_may_be_repeated(self, store: ArrayStore) -> None:
        kept, gone = (ArrayModel(array_structure((2, 2)), numpy.dtype("<f8"), Random(n)) for n in (14, 15))
        for model in (kept, gone):
            model.write_whole()
        await store.apply([kept.batch(), gone.batch()])
        await gone.assert_reads(store)
        await store.delete(gone.node, new_id())
        await store.delete(gone.node)
        gone.values[...] = 0
        await gone.assert_reads(store)
        await kept.assert_reads(store)

    async def test_allocation_is_decided_from_the_id_alone(self, store: ArrayStore) -> None:
        node, structure = new_id(), array_structure((2, 2))
        place = store.allocate(node, structure, None)
        assert place == store.allocate(node, msgspec.structs.replace(structure, shape=(0, 0), chunks=((), ())), place.mimetype)
        assert place.data_uri != store.allocate(new_id(), structure, None).data_uri
        assert place.data_uri.startswith("file://localhost/")
        with pytest.raises(UnsupportedType):
            store.allocate(node, structure, "text/csv")
        with pytest.raises(Malformed):
            store.allocate(node, msgspec.structs.replace(structure, data_type=DataType(8, "O")), None)

    async def test_closing_twice_is_the_same_as_once(self, store: ArrayStore) -> None:
        await store.close()
        await store.close()
