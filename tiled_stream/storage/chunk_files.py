"""One array on disk in the Zarr v3 format: how it is laid out, and how whole chunks are written.

Zarr writes the metadata and reads the data (`zarr_arrays.py`); chunks are written here, each once a batch, encoded and put in
place by a rename, so that a reader never sees half of one and a batch applied again ends the same (I5).

Element types that Zarr has no settled word for (texts, records, times) are stored as what they are in memory: integers for times,
bytes along one more axis for the others. The declared type is kept in the attributes.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy
import orjson
import zstandard

from ..domain.dtypes import to_numpy
from ..domain.structures import ArrayStructure, DataType

__all__ = ["ChunkFiles", "Region", "as_declared", "stored_dtype"]

Array = numpy.ndarray[Any, Any]

#: CPU per write comes before the last percent of size.
LEVEL = 1


class Region(msgspec.Struct, frozen=True):
    """Cells to be written: where they begin, and what they are, in the declared dtype."""

    offset: tuple[int, ...]
    data: Array


def stored_dtype(data_type: DataType) -> tuple[numpy.dtype[Any], int]:
    """The dtype on disk, and the length of the extra axis (0: none)."""
    declared = to_numpy(data_type)
    if declared.kind in "biufc":
        return declared.newbyteorder("<"), 0
    if declared.kind in "mM":
        return numpy.dtype("<i8"), 0
    return numpy.dtype("u1"), declared.itemsize


def as_stored(data: Array, data_type: DataType) -> Array:
    """Declared cells as they are on disk."""
    dtype, extra = stored_dtype(data_type)
    if extra:
        return numpy.ascontiguousarray(data).view(numpy.dtype((numpy.void, extra))).reshape(data.shape)[..., None].view("u1")
    if data.dtype.kind in "mM":
        return data.astype(data.dtype.newbyteorder("<"), copy=False).view("<i8")
    return data.astype(dtype, copy=False)


def as_declared(stored: Array, data_type: DataType, shape: tuple[int, ...]) -> Array:
    """The way back; C-contiguous, exactly the declared dtype."""
    declared = to_numpy(data_type)
    _, extra = stored_dtype(data_type)
    if extra or declared.kind in "mM":
        little = declared if extra else declared.newbyteorder("<")
        found = numpy.ascontiguousarray(stored).view(little).reshape(shape)
        return found.astype(declared, copy=False) if not extra else found
    return numpy.ascontiguousarray(stored.astype(declared, copy=False)).reshape(shape)


class ChunkFiles:
    """The directory of one array. Knows its grid; made by `create`, found again by `open`."""

    def __init__(self, directory: Path, metadata: dict[str, Any], data_type: DataType) -> None:
        self._directory = directory
        self._metadata = metadata
        self._data_type = data_type
        self._dtype, self._extra = stored_dtype(data_type)
        self.chunk: tuple[int, ...] = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
        self.shape: tuple[int, ...] = tuple(metadata["shape"])
        if self._extra:
            self.chunk, self.shape = self.chunk[:-1], self.shape[:-1]

    @classmethod
    def open(cls, directory: Path, structure: ArrayStructure) -> ChunkFiles | None:
        """None if nothing was written there yet."""
        try:
            metadata = orjson.loads((directory / "zarr.json").read_bytes())
        except FileNotFoundError:
            return None
        return cls(directory, metadata, structure.data_type)

    @classmethod
    def create(cls, directory: Path, structure: ArrayStructure) -> ChunkFiles:
        """Make the array with Zarr; the chunk of an axis is the first one declared."""
        import zarr
        from zarr.codecs import BytesCodec, ZstdCodec

        dtype, extra = stored_dtype(structure.data_type)
        tail = (extra,) if extra else ()
        chunk = tuple(max(1, next((p for p in parts if p), 1)) for parts in structure.chunks)
        dims = structure.dims if structure.dims is None or not extra else (*structure.dims, "bytes")
        directory.parent.mkdir(parents=True, exist_ok=True)
        zarr.create_array(
            store=str(directory),
            shape=(*structure.shape, *tail),
            chunks=(*chunk, *tail) or (),
            dtype=dtype,
            fill_value=0 if dtype.kind != "b" else False,
            serializer=BytesCodec(),
            compressors=ZstdCodec(level=LEVEL),
            dimension_names=dims,
            attributes={"tiled_data_type": msgspec.to_builtins(structure.data_type)},
            zarr_format=3,
            overwrite=True,
        )
        made = cls.open(directory, structure)
        assert made is not None
        return made

    def write(self, regions: Sequence[Region], shape: tuple[int, ...]) -> None:
        """Grow to `shape` and write the regions in order; each chunk they touch is read at most and written exactly once."""
        if shape != self.shape:
            self._grow(shape)
        touched: dict[tuple[int, ...], Array] = {}
        for region in regions:
            data = as_stored(region.data, self._data_type)
            for index, inside, outside, is_whole in self._parts(region.offset, region.data.shape):
                chunk = touched.get(index)
                if chunk is None:
                    chunk = touched[index] = self._empty() if is_whole else self._load(index)
                chunk[inside] = data[outside]
        compress = zstandard.ZstdCompressor(level=LEVEL).compress
        for index, chunk in touched.items():
            self._put(self._file(index), compress(chunk.data if chunk.ndim else chunk.tobytes()))

    def _parts(
        self, offset: Sequence[int], shape: Sequence[int]
    ) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...], bool]]:
        """Chunks that a region touches: index, place in the chunk, place in the region, and whether it covers all valid cells."""
        axes: list[list[tuple[int, slice, slice, bool]]] = []
        for begin, extent, step, length in zip(offset, shape, self.chunk, self.shape, strict=True):
            axis = []
            for index in range(begin // step, -(-(begin + extent) // step) if extent else begin // step):
                low, high = index * step, min((index + 1) * step, length)
                first, last = max(low, begin), min(high, begin + extent)
                covers = first == low and last == high
                axis.append((index, slice(first - low, last - low), slice(first - begin, last - begin), covers))
            axes.append(axis)
        for parts in itertools.product(*axes):
            yield (
                tuple(p[0] for p in parts),
                tuple(p[1] for p in parts),
                tuple(p[2] for p in parts),
                all(p[3] for p in parts),
            )

    def _empty(self) -> Array:
        return numpy.zeros((*self.chunk, *((self._extra,) if self._extra else ())), self._dtype)

    def _load(self, index: tuple[int, ...]) -> Array:
        try:
            encoded = self._file(index).read_bytes()
        except FileNotFoundError:
            return self._empty()
        chunk = self._empty()
        raw = zstandard.ZstdDecompressor().decompress(encoded, max_output_size=chunk.nbytes)
        return numpy.frombuffer(raw, self._dtype).reshape(chunk.shape).copy()

    def _file(self, index: tuple[int, ...]) -> Path:
        key = (*index, 0) if self._extra else index
        return self._directory.joinpath("c", *map(str, key))

    def _grow(self, shape: tuple[int, ...]) -> None:
        self._metadata["shape"] = [*shape, *((self._extra,) if self._extra else ())]
        self._put(self._directory / "zarr.json", orjson.dumps(self._metadata, option=orjson.OPT_INDENT_2))
        self.shape = shape

    def _put(self, path: Path, content: bytes) -> None:
        """All or nothing: a reader sees the old file or the new one."""
        partial = f"{path}.partial"
        try:
            with open(partial, "wb", buffering=0) as file:
                file.write(content)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "wb", buffering=0) as file:
                file.write(content)
        os.replace(partial, path)
