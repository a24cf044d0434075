"""Arrays as directories in the Zarr v3 format below one root, one a node. Any Zarr reader can open them.

One thread writes, a few read, so that a long read does not hold up persisting. The format itself is in `zarr_metadata.py`, the
chunks are in `chunk_files.py`. The zarr package is not used at run time: it brings an event loop and threads of its own that
nobody ends (I9), and takes milliseconds where a chunk takes tenths; the tests read with it what is written here.

Durability: what was applied survives the process being killed, for it is with the operating system. After a power failure chunks
may be missing that the log no longer has, unless `sync` is on the mount.
"""

from __future__ import annotations

import shutil
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy

from ..domain.chunks import block_region, pad_offset
from ..domain.dtypes import to_numpy
from ..domain.errors import Unavailable, UnsupportedType
from ..domain.events import ArrayWritten
from ..domain.nodes import NodeId
from ..domain.slices import Selection
from ..domain.structures import ArrayStructure
from .chunk_files import ChunkWriter, Region, has_all_chunks, read_cells, read_grid
from .engine_thread import EngineThread
from .layout import array_directory, file_uri
from .port import Allocation, ArrayBatch
from .zarr_metadata import Grid, cell_dtype

__all__ = ["ZarrArrays"]

MIMETYPE = "application/x-zarr"

#: Arrays whose metadata are kept at hand, for writing and for reading.
_KNOWN = 4096


class ZarrArrays:
    """`root` is the directory below which all arrays are; it is made when the first one is written.

    `level` of zstd, 0 for none. Persisting a frame of 512 x 512 uint16 took 0.3 ms of CPU without and 1.8 ms with level 1, which
    halved its size; so arrays that are new are not compressed unless asked. Those that exist stay as they are.
    """

    def __init__(self, root: Path, *, level: int = 0, readers: int = 2) -> None:
        self._root = root.absolute()
        self._level = level
        self._writer = EngineThread("zarr writer")
        self._reader = EngineThread("zarr reader", threads=readers)
        # Only the writer's thread touches these.
        self._files: OrderedDict[NodeId, ChunkWriter] = OrderedDict()
        # Grids that readers have seen; they never change, and are dropped with their array. Under the lock.
        self._grids: OrderedDict[NodeId, Grid] = OrderedDict()
        self._lock = Lock()

    async def open(self) -> None:
        """Nothing to make ready: directories are made by what is written into them."""

    async def close(self) -> None:
        """Finish what was begun and end the threads."""
        await self._writer.close()
        await self._reader.close()

    def allocate(self, node: NodeId, structure: ArrayStructure, mimetype: str | None) -> Allocation:
        """See `ArrayStore`. `Malformed` for a data type that numpy does not have."""
        if mimetype not in (None, MIMETYPE):
            raise UnsupportedType(
                f"Arrays of type {mimetype!r} cannot be written here; leave the mimetype out, or use {MIMETYPE!r}."
            )
        to_numpy(structure.data_type)
        uri = file_uri(array_directory(self._root, node))
        return Allocation(data_uri=uri, is_directory=True, mimetype=MIMETYPE, parameter="data_uri", parameters={})

    async def apply(self, batches: Sequence[ArrayBatch]) -> None:
        """See `ArrayStore`. `Unavailable` if the disk is full or cannot be written."""
        try:
            await self._writer.run(self._apply, batches)
        except OSError as error:
            raise Unavailable(f"The array storage {self._root} cannot be written now: {error}") from error

    async def read(self, node: NodeId, structure: ArrayStructure, selection: Selection) -> numpy.ndarray[Any, Any]:
        """See `ArrayStore`."""
        try:
            return await self._reader.run(self._read, node, structure, selection)
        except OSError as error:
            raise Unavailable(f"The array storage {self._root} cannot be read now: {error}") from error

    async def is_written(self, node: NodeId, structure: ArrayStructure) -> bool:
        """See `ArrayStore`."""
        try:
            return await self._reader.run(self._is_written, node, structure)
        except OSError as error:
            raise Unavailable(f"The array storage {self._root} cannot be read now: {error}") from error

    async def delete(self, *nodes: NodeId) -> None:
        """See `ArrayStore`."""
        try:
            await self._writer.run(self._delete, nodes)
        except OSError as error:
            raise Unavailable(f"The array storage {self._root} cannot be written now: {error}") from error

    # ------------------------------------------------- in the writer's thread

    def _apply(self, batches: Sequence[ArrayBatch]) -> None:
        for batch in batches:
            regions = _regions(batch)
            if not regions:
                continue
            files = self._files.get(batch.node)
            if files is None:
                directory = array_directory(self._root, batch.node)
                files = self._files[batch.node] = ChunkWriter(directory, batch.structure, level=self._level)
                if len(self._files) > _KNOWN:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(batch.node)
            files.write(regions, batch.structure)

    def _delete(self, nodes: Sequence[NodeId]) -> None:
        for node in nodes:
            self._files.pop(node, None)
            with self._lock:
                self._grids.pop(node, None)
            directory = array_directory(self._root, node)
            if directory.exists():
                shutil.rmtree(directory)

    # ------------------------------------------------- in a reader's thread

    def _read(self, node: NodeId, structure: ArrayStructure, selection: Selection) -> numpy.ndarray[Any, Any]:
        declared = to_numpy(structure.data_type)
        if declared.itemsize == 0:
            return _nothing(selection.shape, declared)
        grid = None if 0 in selection.shape else self._grid(node)
        if grid is None:
            return numpy.zeros(selection.shape, declared)
        cells = read_cells(array_directory(self._root, node), grid, cell_dtype(structure.data_type), selection)
        return cells if cells.dtype == declared else cells.view(declared)

    def _is_written(self, node: NodeId, structure: ArrayStructure) -> bool:
        grid = None if 0 in structure.shape else self._grid(node)
        return grid is not None and has_all_chunks(array_directory(self._root, node), grid, structure.shape)

    def _grid(self, node: NodeId) -> Grid | None:
        with self._lock:
            known = self._grids.get(node)
            if known is not None:
                self._grids.move_to_end(node)
                return known
        grid = read_grid(array_directory(self._root, node))
        if grid is not None:
            with self._lock:
                self._grids[node] = grid
                if len(self._grids) > _KNOWN:
                    self._grids.popitem(last=False)
        return grid


def _regions(batch: ArrayBatch) -> list[Region]:
    """What is to be written, in order; a write of the whole array makes the earlier ones needless."""
    cell = cell_dtype(batch.structure.data_type)
    regions: list[Region] = []
    for record in batch.records:
        event = record.event
        if not isinstance(event, ArrayWritten) or not event.persist:
            continue
        if event.offset is None and event.block is None:
            regions.clear()
        if record.payload:
            regions.append(Region(_offset(event, batch.structure), numpy.frombuffer(record.payload, cell).reshape(event.shape)))
    return regions


def _offset(event: ArrayWritten, structure: ArrayStructure) -> tuple[int, ...]:
    if event.offset is None and event.block is not None:
        return block_region(structure.chunks, event.block)[0]
    return pad_offset(event.offset or (), len(structure.shape))


def _nothing(shape: tuple[int, ...], dtype: numpy.dtype[Any]) -> numpy.ndarray[Any, Any]:
    """Elements of no bytes at all (a text of length 0); numpy only makes them as fields of a record."""
    empty: numpy.ndarray[Any, Any] = numpy.zeros(shape, [("nothing", dtype)])["nothing"]
    return empty
