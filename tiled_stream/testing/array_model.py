"""Arrays as numpy holds them, with the records that made them: what the contract of array stores compares with."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import numpy

from ..domain.chunks import block_region, extended
from ..domain.dtypes import from_numpy
from ..domain.events import ArrayWritten, AssetDeleted, Event, Record, StreamEnded
from ..domain.nodes import DataSource
from ..domain.slices import Along, Selection, whole
from ..domain.structures import ArrayStructure
from ..storage.port import ArrayBatch, ArrayStore
from .factories import array_structure, new_id, record

__all__ = ["DTYPES", "RECORDS", "ArrayModel", "cells", "random_structure", "selections"]

Array = numpy.ndarray[Any, Any]

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
        #: Structure and values after as many records.
        self.states = [(self.structure, self.values.copy())]
        self._random = random

    def write(self, event: ArrayWritten, values: Array, offset: tuple[int, ...]) -> None:
        """Take the event into the model and into the records."""
        if event.structure is not None:
            old, self.structure = self.values, event.structure
            self.values = numpy.zeros(event.structure.shape, self.dtype)
            self.values[tuple(slice(n) for n in old.shape)] = old
        if event.persist:
            self.values[tuple(slice(o, o + n) for o, n in zip(offset, values.shape, strict=True))] = values
        self._record(event, values.tobytes())

    def delete(self) -> None:
        """All data are deleted; the array stays."""
        self.values[...] = numpy.zeros((), self.dtype)
        self._record(AssetDeleted(DataSource("array", self.structure, "application/x-zarr")))

    def end(self) -> None:
        """Something that is not data happens."""
        self._record(StreamEnded())

    def _record(self, event: Event, body: bytes = b"") -> None:
        self.records.append(record(len(self.records) + 1, event, body))
        self.states.append((self.structure, self.values.copy()))

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

    def batch(self, after: int = 0, upto: int | None = None, fence: int = 0) -> ArrayBatch:
        """The records that follow `after`, to `upto`."""
        records = tuple(self.records[after:upto])
        return ArrayBatch(self.node, self.states[after + len(records)][0], records, after, fence)

    async def assert_reads(self, store: ArrayStore, selection: Selection | None = None, *, upto: int | None = None) -> None:
        """The store has exactly this array, as it was after `upto` records."""
        structure, values = (self.structure, self.values) if upto is None else self.states[upto]
        selection = whole(structure.shape) if selection is None else selection
        found = await store.read(self.node, structure, selection)
        wanted = values[(..., *selection.index)]  # with the ellipsis a scalar keeps its dtype
        assert found.dtype == self.dtype
        assert found.dtype.byteorder == self.dtype.byteorder
        assert found.shape == selection.shape == wanted.shape
        assert found.flags.c_contiguous
        assert found.tobytes() == numpy.ascontiguousarray(wanted).tobytes()


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


def random_structure(shape: tuple[int, ...], random: Random) -> ArrayStructure:
    """An array of `shape` with a random grid."""
    chunks = []
    for length in shape:
        parts: list[int] = []
        while sum(parts) < length:
            parts.append(random.randint(1, length - sum(parts)))
        chunks.append(tuple(parts) if parts else random.choice(((), (0,))))
    return array_structure(shape, chunks=chunks)
