"""What every `ArrayStore` does: each sentence of the port as a test, with numpy as the model.

Subclass `ArrayStoreContract` and give it a fixture `store` (an open store, empty, closed afterwards) and a fixture `reopen`: an
async function that closes the store and returns another one on the same data. Stores that keep nothing may return the same.

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

from ..domain.chunks import block_region, extended
from ..domain.dtypes import from_numpy
from ..domain.errors import Malformed, UnsupportedType
from ..domain.events import ArrayWritten, Record, StreamEnded
from ..domain.slices import Along, Selection, whole
from ..domain.structures import ArrayStructure, DataType
from ..storage.port import ArrayBatch, ArrayStore
from .factories import array_structure, new_id, record

__all__ = ["DTYPES", "ArrayModel", "ArrayStoreContract", "Reopen", "cells"]

Array = numpy.ndarray[Any, Any]
Reopen = Callable[[], Awaitable[ArrayStore]]

#: Every kind of element that the wire protocol knows.
DTYPES = [
    *("|b1", "|i1", "|u1", "<i2", ">u2", "<i4", ">i4", "<u4", "<i8", ">i8", "<u8", ">u8"),
    *("<f2", "<f4", ">f4", "<f8", ">f8", "<c8", ">c8", "<c16", ">c16"),
    *("<M8[ns]", ">M8[s]", "<M8[25s]", "<m8[ms]", ">m8[D]", "<M8"),
    *("|S1", "|S7", "<U1", ">U5", "|V1", "|V13"),
]
RECORDS: list[Any] = [
    [("x", "<i4"), ("y", ">f8")],
    [("name", "<U3"), ("at", "<M8[us]"), ("point", "<f4", (2, 3))],
    [("outer", [("a", "|u1"), ("b", "<i8")]), ("flag", "|b1")],
]


class ArrayModel:
    """An array as numpy holds it, the events that made it, and the structure that it has now."""

    def __init__(self, structure: ArrayStructure, dtype: numpy.dtype[Any], random: Random) -> None:
        self.structure = msgspec.structs.replace(structure, data_type=from_numpy(dtype))
        self.dtype = dtype
        self.values = numpy.zeros(structure.shape, dtype)
        self.node = new_id()
        self.records: list[Record] = []
        self._random = random

    def write(self, event: ArrayWritten, values: Array, offset: tuple[int, ...]) -> None:
        """Take the event into the model and into the records."""
        if event.structure is not None:
            old, self.structure = self.values, event.structure
            self.values = numpy.zeros(event.structure.shape, self.dtype)
            self.values[tuple(slice(n) for n in old.shape)] = old
        if event.persist:
            self.values[tuple(slice(o, o + n) for o, n in zip(offset, values.shape, strict=True))] = values
        self.records.append(record(len(self.records) + 1, event, values.tobytes()))

    def write_whole(self) -> None:
        """A write of the whole array."""
        values = cells(self.dtype, self.structure.shape, self._random)
        self.write(ArrayWritten(values.shape), values, (0,) * values.ndim)

    def write_block(self) -> None:
        """A write of one chunk, if there is any."""
        if any(not parts for parts in self.structure.chunks):
            return
        block = tuple(self._random.randrange(len(parts)) for parts in self.structure.chunks)
        offset, shape = block_region(self.structure.chunks, block)
        self.write(ArrayWritten(shape, offset, block), cells(self.dtype, shape, self._random), offset)

    def write_region(self, *, persist: bool = True) -> None:
        """A write of a region that fits."""
        low = [self._random.randint(0, n) for n in self.structure.shape]
        shape = tuple(self._random.randint(0, n - o) for o, n in zip(low, self.structure.shape, strict=True))
        self.write(ArrayWritten(shape, tuple(low), persist=persist), cells(self.dtype, shape, self._random), tuple(low))

    def append(self, axis: int = 0, *, gap: int = 0, extent: int = 1) -> None:
        """Growth along one axis; cells between the former end and the region are a gap."""
        shape = self.structure.shape
        offset = tuple(n + gap if i == axis else 0 for i, n in enumerate(shape))
        region = tuple(extent if i == axis else n for i, n in enumerate(shape))
        grown = extended(self.structure, offset, region)
        self.write(ArrayWritten(region, offset, structure=grown), cells(self.dtype, region, self._random), offset)

    def step(self) -> None:
        """Something random."""
        kind = self._random.random()
        if kind < 0.15:
            self.write_whole()
        elif kind < 0.35:
            self.write_block()
        elif kind < 0.6:
            self.write_region(persist=kind < 0.58)
        elif self.values.ndim:
            self.append(
                self._random.randrange(self.values.ndim),
                gap=self._random.choice((0, 0, 0, 2)),
                extent=self._random.randint(1, 3),
            )

    def batch(self, after: int = 0) -> ArrayBatch:
        """The records that follow `after`."""
        return ArrayBatch(self.node, self.structure, tuple(self.records[after:]))


def cells(dtype: numpy.dtype[Any], shape: tuple[int, ...], random: Random) -> Array:
    """Random cells: any bits for numbers, but no NaN that numpy would not compare; texts that do not end in NUL."""
    count = int(numpy.prod(shape, dtype=int))
    if dtype.kind == "U":
        texts = ["".join(random.choices("aZ é水\U0001f52c", k=dtype.itemsize // 4)) for _ in range(count)]
        return numpy.array(texts, dtype).reshape(shape)
    if dtype.fields is not None:
        made = numpy.zeros(shape, dtype)
        for name in dtype.names or ():
            inner = made[name]
            made[name] = cells(inner.dtype, inner.shape, random)
        return made
    if dtype.kind == "b":
        return numpy.array(random.choices((False, True), k=count), dtype).reshape(shape)
    if dtype.kind in "fc":
        return numpy.array([random.uniform(-1e4, 1e4) for _ in range(count)]).astype(dtype).reshape(shape)
    return numpy.frombuffer(random.randbytes(count * dtype.itemsize), dtype).reshape(shape)


def selections(shape: tuple[int, ...], random: Random) -> Selection:
    """A random selection: integers, steps, backwards, empty."""
    return Selection(tuple(_along(n, random) for n in shape))


def _along(length: int, random: Random) -> Along:
    if length and random.random() < 0.25:
        return Along(random.randrange(length), 1, 1, drop=True)
    step = random.choice((1, 1, 1, 2, 3, 7, -1, -2, -5))
    ends = sorted((random.randint(0, length), random.randint(0, length)))
    taken = range(ends[0], ends[1], step) if step > 0 else range(ends[1] - 1, ends[0] - 1, step)
    return Along(taken.start, step, len(taken)) if len(taken) else Along(0, 1, 0)


def _structure(shape: tuple[int, ...], random: Random) -> ArrayStructure:
    chunks = []
    for length in shape:
        parts: list[int] = []
        while sum(parts) < length:
            parts.append(random.randint(1, length - sum(parts)))
        chunks.append(tuple(parts) if parts else random.choice(((), (0,))))
    return array_structure(shape, chunks=chunks)


async def _assert_reads(store: ArrayStore, model: ArrayModel, selection: Selection | None = None) -> None:
    selection = whole(model.structure.shape) if selection is None else selection
    found = await store.read(model.node, model.structure, selection)
    wanted = model.values[(..., *selection.index)]  # with the ellipsis a scalar keeps its dtype
    assert found.dtype == model.dtype
    assert found.dtype.byteorder == model.dtype.byteorder
    assert found.shape == selection.shape == wanted.shape
    assert found.flags.c_contiguous
    assert found.tobytes() == numpy.ascontiguousarray(wanted).tobytes()


class ArrayStoreContract:
    """See the module."""

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
        await _assert_reads(store, model)  # never written
        model.write_whole()
        model.append(extent=2)
        await store.apply([model.batch()])
        await _assert_reads(store, model)
        model.write_region()
        await store.apply([model.batch(2)])
        store = await reopen()
        await _assert_reads(store, model)
        await _assert_reads(store, model, Selection((Along(4, -2, 3), Along(1, 1, 1, drop=True))))

    async def test_special_floats_and_times_are_kept(self, store: ArrayStore) -> None:
        for values in (
            numpy.array([numpy.nan, numpy.inf, -numpy.inf, -0.0, 5e-324]),
            numpy.array([0x7FF8DEAD00000001, 0xFFF0000000000001], "<u8").view("<f8"),
            numpy.array(["NaT", "1969-12-31", "2262-04-11"], "<M8[ns]"),
        ):
            model = ArrayModel(array_structure(values.shape), values.dtype, Random(0))
            model.write(ArrayWritten(values.shape), values, (0,))
            await store.apply([model.batch()])
            await _assert_reads(store, model)

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
        model = ArrayModel(_structure(shape, random), dtype, random)
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
                await _assert_reads(store, model, selections(model.structure.shape, random))
        await _assert_reads(store, model)

    async def test_a_scalar(self, store: ArrayStore) -> None:
        model = ArrayModel(array_structure(()), numpy.dtype("<f8"), Random(3))
        await _assert_reads(store, model)
        model.write_whole()
        await store.apply([model.batch()])
        await _assert_reads(store, model)

    @pytest.mark.parametrize("chunks", [((),), ((0,),)], ids=["no chunk", "an empty chunk"])
    async def test_an_axis_of_length_zero_that_grows(self, store: ArrayStore, chunks: tuple[tuple[int, ...], ...]) -> None:
        model = ArrayModel(array_structure((0, 4), chunks=(*chunks, (4,))), numpy.dtype("<f8"), Random(4))
        model.write_whole()
        await store.apply([model.batch()])
        await _assert_reads(store, model)
        model.append(extent=3)
        model.append(extent=5)
        await store.apply([model.batch(1)])
        await _assert_reads(store, model)

    async def test_what_was_never_written_is_zeros(self, store: ArrayStore) -> None:
        for dtype in (numpy.dtype("<f8"), numpy.dtype("<U4"), numpy.dtype("<M8[ns]"), numpy.dtype("|b1")):
            model = ArrayModel(array_structure((4,)), dtype, Random(0))
            await _assert_reads(store, model)
            await _assert_reads(store, model, Selection((Along(2, 1, 1, drop=True),)))

    async def test_growth_leaves_gaps_of_zeros_and_keeps_what_was_there(self, store: ArrayStore) -> None:
        model = ArrayModel(array_structure((3, 2), chunks=((2, 1), (2,)), resizable=True), numpy.dtype("<f8"), Random(5))
        model.write_whole()
        await store.apply([model.batch()])
        for axis in (0, 1, 0):
            before = len(model.records)
            model.append(axis, gap=3, extent=2)
            await store.apply([model.batch(before)])
            await _assert_reads(store, model)

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
                await _assert_reads(store, model)
        await store.apply([model.batch(applied)])
        await _assert_reads(await reopen(), model)

    async def test_blocks_of_an_irregular_grid(self, store: ArrayStore) -> None:
        model = ArrayModel(array_structure((10, 5), chunks=((3, 2, 5), (1, 4))), numpy.dtype("<f8"), Random(7))
        for _ in range(12):
            model.write_block()
        await store.apply([model.batch()])
        await _assert_reads(store, model)

    async def test_an_offset_may_name_fewer_axes(self, store: ArrayStore) -> None:
        model = ArrayModel(array_structure((4, 3)), numpy.dtype("<f8"), Random(8))
        values = cells(model.dtype, (2, 3), Random(9))
        model.write(ArrayWritten((2, 3), (1,)), values, (1, 0))
        await store.apply([model.batch()])
        await _assert_reads(store, model)

    async def test_records_that_are_not_to_be_kept_are_ignored(self, store: ArrayStore) -> None:
        model = ArrayModel(array_structure((2, 2)), numpy.dtype("<f8"), Random(10))
        model.write(ArrayWritten((2, 2), persist=False), cells(model.dtype, (2, 2), Random(11)), (0, 0))
        model.records.append(record(2, StreamEnded()))
        await store.apply([model.batch()])
        await _assert_reads(store, model)

    async def test_an_older_batch_never_shrinks_an_array(self, store: ArrayStore) -> None:
        model = ArrayModel(array_structure((2, 3), resizable=True), numpy.dtype("<f8"), Random(12))
        model.write_whole()
        older = model.batch()
        model.append(extent=3)
        await store.apply([model.batch()])
        await store.apply([older])
        await _assert_reads(store, model)

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
            await _assert_reads(store, model)

    async def test_a_record_that_does_not_fit_is_refused_and_spoils_nothing(self, store: ArrayStore) -> None:
        model = ArrayModel(array_structure((2, 2)), numpy.dtype("<f8"), Random(13))
        model.write_whole()
        await store.apply([model.batch()])
        bad = record(2, ArrayWritten((2, 2)), b"short")
        with pytest.raises(ValueError, match=r"."):
            await store.apply([ArrayBatch(model.node, model.structure, (bad,))])
        await _assert_reads(store, model)

    async def test_delete_removes_the_data_and_may_be_repeated(self, store: ArrayStore) -> None:
        kept, gone = (ArrayModel(array_structure((2, 2)), numpy.dtype("<f8"), Random(n)) for n in (14, 15))
        for model in (kept, gone):
            model.write_whole()
        await store.apply([kept.batch(), gone.batch()])
        await _assert_reads(store, gone)
        await store.delete(gone.node, new_id())
        await store.delete(gone.node)
        gone.values[...] = 0
        await _assert_reads(store, gone)
        await _assert_reads(store, kept)

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
