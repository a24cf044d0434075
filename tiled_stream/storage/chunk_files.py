"""Chunks of one array as files: how regions are written and selections read. Blocking; runs in the store's threads.

What must stay true: a chunk that readers can see is replaced by a rename, so that no reader sees half of one, and a batch
applied again ends the same (I5). A chunk that exists is loaded before a part of it is written: only a region that is the whole
grid cell replaces it without a look. Cells beyond the former shape, which no reader asks for yet, are written in place, so that
appending a row to a chunk of thousands does not rewrite them; therefore `zarr.json` shows growth only after the cells are there.

All changes go through the hold of the directory (`fenced_directory.py`). The shape is read when the hold is acquired and is true
as long as it lasts.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy
import zstandard

from ..domain.errors import Unavailable
from ..domain.slices import Along, Selection
from ..domain.structures import ArrayStructure
from .fenced_directory import HeldDirectory
from .zarr_metadata import Grid, cell_dtype, checked_by_zarr, chunk_shape, decode_metadata, encode_metadata

__all__ = ["METADATA", "ChunkWriter", "Region", "has_all_chunks", "read_cells", "read_grid"]

Array = numpy.ndarray[Any, Any]
Index = tuple[int, ...]
Slices = tuple[slice, ...]

METADATA = "zarr.json"
#: Bytes of decoded chunks that a batch may hold before they are written: many small patches can touch many large chunks.
_HELD = 64 << 20


class Region(msgspec.Struct, frozen=True):
    """Cells to be written: where they begin, and what they are, in `cell_dtype` of the array."""

    offset: Index
    data: Array


class _Part(msgspec.Struct, frozen=True):
    """What a region and one chunk have in common."""

    index: Index
    inside: Slices
    outside: Slices


def read_grid(directory: Path) -> Grid | None:
    """The grid of a stored array; None if nothing was written yet."""
    try:
        return decode_metadata((directory / METADATA).read_bytes())[0]
    except FileNotFoundError:
        return None


class ChunkWriter:
    """Writer of the array in a held directory; `structure` is that of an array that is not there yet."""

    def __init__(self, hold: HeldDirectory, structure: ArrayStructure, *, level: int) -> None:
        self._hold = hold
        self._cell = cell_dtype(structure.data_type)
        try:
            self._grid, self._shape, self._level = decode_metadata(_content(f"{hold.place}/{METADATA}"))
        except FileNotFoundError:
            self._grid = Grid(chunk_shape(structure), level > 0, self._cell.kind == "V")
            self._shape, self._level = structure.shape, level
            hold.put(METADATA, checked_by_zarr(encode_metadata(structure, self._grid, self._shape, level)))
        self._pending: dict[Index, Array] = {}
        self._held = 0
        self._appended: dict[Index, list[tuple[int, Array]]] = {}

    def write(self, regions: Sequence[Region], structure: ArrayStructure) -> None:
        """Write the regions in order, then grow to the shape of `structure`; never shrinks.

        Each chunk is loaded and written once, as long as they fit in `_HELD` bytes. After an error the writer must not be used.
        """
        for region in regions:
            for part in _parts(region, self._grid.chunk):
                self._write(part, region)
        self._flush()
        grown = tuple(max(new, old) for new, old in zip(structure.shape, self._shape, strict=True))
        if grown != self._shape:
            self._hold.put(METADATA, encode_metadata(structure, self._grid, grown, self._level))
            self._shape = grown

    def _write(self, part: _Part, region: Region) -> None:
        data = _view(region.data, part.outside)
        index = part.index
        if data.shape == self._grid.chunk:
            self._appended.pop(index, None)
            self._pending[index] = data
            return
        chunk = self._pending.get(index)
        if chunk is None:
            if self._append(part, region, data):
                return
            chunk = self._chunk(index)
            self._keep(index, chunk)
        elif not chunk.flags.writeable:
            chunk = chunk.copy()
            self._keep(index, chunk)
        chunk[part.inside] = data
        if self._held > _HELD:
            self._flush()

    def _keep(self, index: Index, chunk: Array) -> None:
        """Keep a chunk of our own until the end of the batch. (Those that are bodies as they came cost nothing.)"""
        self._pending[index] = chunk
        self._held += chunk.nbytes

    def _chunk(self, index: Index) -> Array:
        """The chunk with what it holds now, to be changed; zeros if there is none."""
        self._flush_appended(index)
        chunk = numpy.zeros(self._grid.chunk, self._cell)
        found = _rows(self._file(index), self._grid, self._cell, tuple(slice(0, size, 1) for size in self._grid.chunk))
        if found is not None:
            chunk[...] = found
        return chunk

    def _append(self, part: _Part, region: Region, data: Array) -> bool:
        """Collect what can be written in place: bytes in a row, beyond the former shape, in a chunk that exists."""
        begins = tuple(o + s.start for o, s in zip(region.offset, part.outside, strict=True))
        if self._grid.is_compressed or not any(b >= n for b, n in zip(begins, self._shape, strict=True)):
            return False
        if not _is_run(part.inside, self._grid.chunk):
            return False
        known = self._appended.get(part.index)
        if known is None:
            if not os.path.exists(self._file(part.index)):
                return False
            known = self._appended[part.index] = []
        known.append((_place_of(part.inside, self._grid.chunk) * self._cell.itemsize, data))
        return True

    def _flush(self) -> None:
        # Made here and not kept: a compressor holds a megabyte, and there are thousands of arrays.
        compressor = zstandard.ZstdCompressor(level=self._level) if self._grid.is_compressed else None
        for index, chunk in self._pending.items():
            content = _bytes_of(chunk)
            self._hold.put(self._grid.file(index), content if compressor is None else compressor.compress(content))
        self._pending.clear()
        self._held = 0
        for index in list(self._appended):
            self._flush_appended(index)

    def _flush_appended(self, index: Index) -> None:
        runs = self._appended.pop(index, None)
        if runs is None:
            return
        name = self._grid.file(index)
        pieces = [(place, _bytes_of(data)) for place, data in runs]
        if not self._hold.extend(name, pieces):
            content = bytearray(_content(f"{self._hold.place}/{name}"))
            for place, data in pieces:
                content[place : place + len(data)] = data
            self._hold.put(name, memoryview(content))

    def _file(self, index: Index) -> str:
        return f"{self._hold.place}/{self._grid.file(index)}"


def read_cells(directory: Path, grid: Grid, cell: numpy.dtype[Any], selection: Selection) -> tuple[Array, bool]:
    """The selection, in `cell`, C-contiguous, of `selection.shape`; and whether a file was missing, so that there are zeros.

    Only chunks that the selection touches are read, and rows of them.
    """
    full = numpy.zeros(tuple(a.count for a in selection.axes), cell)
    forwards = _view(full, tuple(slice(None, None, -1 if a.step < 0 else 1) for a in selection.axes))
    axes = [list(_pieces(along, size)) for along, size in zip(selection.axes, grid.chunk, strict=True)]
    is_missing = False
    for pieces in itertools.product(*axes):
        inside = tuple(p[1] for p in pieces)
        found = _rows(f"{directory}/{grid.file(tuple(p[0] for p in pieces))}", grid, cell, inside)
        if found is None:
            is_missing = True
        else:
            forwards[tuple(p[2] for p in pieces)] = found
    return full.reshape(selection.shape), is_missing


def has_all_chunks(directory: Path, grid: Grid, shape: Index) -> bool:
    """Is there a file for each chunk of an array of this shape?"""
    axes = [range(-(-length // size)) for length, size in zip(shape, grid.chunk, strict=True)]
    present = set(os.listdir(directory))
    return all(grid.file(index) in present for index in itertools.product(*axes))


def _parts(region: Region, chunk: Index) -> Iterator[_Part]:
    axes: list[list[tuple[int, slice, slice]]] = []
    for begin, extent, size in zip(region.offset, region.data.shape, chunk, strict=True):
        axis = []
        for place in range(begin // size, -(-(begin + extent) // size) if extent else begin // size):
            low = place * size
            first, last = max(low, begin), min(low + size, begin + extent)
            axis.append((place, slice(first - low, last - low), slice(first - begin, last - begin)))
        axes.append(axis)
    for parts in itertools.product(*axes):
        yield _Part(tuple(p[0] for p in parts), tuple(p[1] for p in parts), tuple(p[2] for p in parts))


def _pieces(along: Along, size: int) -> Iterator[tuple[int, slice, slice]]:
    """Chunks along one axis, upwards: index, what is taken of the chunk, where it goes."""
    step = abs(along.step)
    low = along.start if along.step > 0 else along.start + along.step * (along.count - 1)
    done = 0
    while done < along.count:
        index, first = divmod(low + done * step, size)
        count = min(along.count - done, (size - 1 - first) // step + 1)
        yield index, slice(first, first + (count - 1) * step + 1, step), slice(done, done + count)
        done += count


def _is_run(inside: Slices, chunk: Index) -> bool:
    """Do these cells of a chunk lie in one row of bytes?"""
    is_partial = False
    for part, size in zip(reversed(inside), reversed(chunk), strict=True):
        if is_partial and part.stop - part.start != 1:
            return False
        is_partial = is_partial or part.stop - part.start != size
    return True


def _place_of(inside: Slices, chunk: Index) -> int:
    """How many cells of the chunk come before the first of these."""
    place = 0
    for part, size in zip(inside, chunk, strict=True):
        place = place * size + part.start
    return place


def _rows(path: str, grid: Grid, cell: numpy.dtype[Any], inside: Slices) -> Array | None:
    """The cells `inside` a chunk; None if it is not there.

    Of a chunk that is not compressed only the rows (along the first axis) from the first to the last one are read.
    """
    row = cell.itemsize
    for size in grid.chunk[1:]:
        row *= size
    whole = grid.chunk[0] if grid.chunk else 1
    first, last = (inside[0].start, inside[0].stop) if inside and not grid.is_compressed else (0, whole)
    try:
        with open(path, "rb", buffering=0) as file:
            if grid.is_compressed:
                content = zstandard.ZstdDecompressor().decompress(file.read(), max_output_size=row * whole)
            else:
                file.seek(first * row)
                content = file.read((last - first) * row)
    except FileNotFoundError:
        return None
    except zstandard.ZstdError as error:
        raise Unavailable(f"The chunk {path} is damaged: {error}") from error
    if len(content) != (last - first) * row:
        raise Unavailable(f"The chunk {path} is damaged: {len(content)} bytes where {(last - first) * row} should be.")
    if not inside:
        return numpy.frombuffer(content, cell).reshape(())
    cells = numpy.frombuffer(content, cell).reshape(last - first, *grid.chunk[1:])
    begin, stop, step = inside[0].start - first, inside[0].stop - first, inside[0].step
    return cells[(slice(begin, stop, step), *inside[1:])]


def _view(cells: Array, taken: Slices) -> Array:
    """Without the ellipsis a scalar would come out as a number, in the byte order of this machine."""
    index: Any = (..., *taken)
    view: Array = cells[index]
    return view


def _bytes_of(cells: Array) -> memoryview:
    """In C order; no copy if that is how they lie."""
    return numpy.ascontiguousarray(cells).reshape(-1).view("u1").data


def _content(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.readall()
