"""Arrays as directories in the Zarr v3 format below one root, one a node. Any Zarr reader can open them.

One thread writes, a few read, so that a long read does not hold up persisting. The format itself is in `zarr_metadata.py`, the
chunks are in `chunk_files.py`. The zarr package is not used at run time: it brings an event loop and threads of its own that
nobody ends (I9), and takes milliseconds where a chunk takes tenths; the tests read with it what is written here.

Watermark and fence of an array are in its directory (`fenced_directory.py`), and every change passes that fence.

Durability: what was applied survives the process being killed, for it is with the operating system. After a power failure chunks
may be missing that the log no longer has, unless `sync` is on the mount.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy

from ..domain.chunks import block_region, pad_offset
from ..domain.dtypes import to_numpy
from ..domain.errors import Unavailable, UnsupportedType
from ..domain.events import ArrayWritten, AssetDeleted, Record
from ..domain.nodes import NodeId
from ..domain.slices import Selection
from ..domain.structures import ArrayStructure
from .chunk_files import METADATA, ChunkWriter, Region, has_all_chunks, read_cells, read_grid
from .engine_thread import EngineThread
from .fenced_directory import HeldDirectory
from .layout import file_uri
from .node_directories import KNOWN, Check, NodeDirectories, Remembered, fresh_records
from .port import Allocation, ArrayBatch
from .zarr_metadata import Grid, cell_dtype, chunk_shape

__all__ = ["ZarrArrays"]

MIMETYPE = "application/x-zarr"

#: Chunk shape that a structure would have if it were new, and the grid that was found with it.
_Known = tuple[tuple[int, ...], Grid]


class ZarrArrays:
    """`root` is the directory below which all arrays are; it is made when the first one is written, unless there is a `check`.

    `level` of zstd, 0 for none. Persisting a frame of 512 x 512 uint16 took 0.3 ms of CPU without and 1.8 ms with level 1, which
    halved its size; so arrays that are new are not compressed unless asked. Those that exist stay as they are. `check` raises
    `StorageMissing` if the root is not what it should be; it is called in the threads, before and after they use it.
    """

    def __init__(self, root: Path, *, level: int = 0, readers: int = 2, check: Check | None = None) -> None:
        self._root = root.absolute()
        self._level = level
        self._writer = EngineThread("zarr writer")
        self._reader = EngineThread("zarr reader", threads=readers)
        # Only the writer's thread touches these two.
        self._nodes = NodeDirectories(self._root, check)
        self._chunks: Remembered[ChunkWriter] = Remembered()
        # Grids that readers have seen. Under the lock. The grid of an array never changes, but an array whose data were deleted
        # may begin again with another one, also in another process; then its structure differs, or its chunks cannot be read.
        self._grids: OrderedDict[NodeId, _Known] = OrderedDict()
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
        uri = file_uri(self._nodes.place(node))
        return Allocation(data_uri=uri, is_directory=True, mimetype=MIMETYPE, parameter="data_uri", parameters={})

    async def apply(self, batches: Sequence[ArrayBatch]) -> list[int]:
        """See `ArrayStore`. `Unavailable` if the disk is full or cannot be written."""
        try:
            return await self._writer.run(self._nodes.apply, self._write, batches)
        except OSError as error:
            raise Unavailable(f"The array storage {self._root} cannot be written now: {error}") from error

    async def watermarks(self, nodes: Sequence[NodeId]) -> list[int]:
        """See `ArrayStore`."""
        try:
            return await self._reader.run(self._nodes.watermarks, nodes)
        except OSError as error:
            raise Unavailable(f"The array storage {self._root} cannot be read now: {error}") from error

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

    def _write(self, batch: ArrayBatch, hold: HeldDirectory) -> int:
        fresh = fresh_records(batch, hold)
        if not fresh:
            return hold.watermark
        is_deleted, regions = _regions(fresh, batch.structure)
        if is_deleted:
            self._chunks.pop(batch.node)
            hold.clear(last=METADATA)  # so that chunks that a crash leaves are never taken for those of another grid
            self._forget_grid(batch.node)
        if regions:
            chunks = self._chunks.get(batch.node, hold)
            if chunks is None:
                chunks = ChunkWriter(hold, batch.structure, level=self._level)
                self._chunks.put(batch.node, hold, chunks)
            chunks.write(regions, batch.structure)
        hold.commit(fresh[-1].sequence)
        return hold.watermark

    def _delete(self, nodes: Sequence[NodeId]) -> None:
        self._nodes.check()
        for node in nodes:
            self._chunks.pop(node)
            self._forget_grid(node)
            self._nodes.delete(node)
        self._nodes.check()

    # ------------------------------------------------- in a reader's thread

    def _read(self, node: NodeId, structure: ArrayStructure, selection: Selection) -> numpy.ndarray[Any, Any]:
        self._nodes.check()
        declared = to_numpy(structure.data_type)
        if declared.itemsize == 0:
            return _nothing(selection.shape, declared)
        cells, is_missing = self._cells(node, structure, selection)
        if is_missing:
            self._nodes.check()
        if cells is None:
            return numpy.zeros(selection.shape, declared)
        return cells if cells.dtype == declared else cells.view(declared)

    def _cells(
        self, node: NodeId, structure: ArrayStructure, selection: Selection
    ) -> tuple[numpy.ndarray[Any, Any] | None, bool]:
        """The cells, None if there are none at all; and whether files were missing."""
        if 0 in selection.shape:
            return None, False
        place, cell = self._nodes.place(node), cell_dtype(structure.data_type)
        grid = self._grid(node, structure)
        if grid is None:
            return None, True
        try:
            return read_cells(place, grid, cell, selection)
        except Unavailable:
            self._forget_grid(node)
            known, grid = grid, self._grid(node, structure)
            if grid is None or grid == known:
                raise
            return read_cells(place, grid, cell, selection)

    def _is_written(self, node: NodeId, structure: ArrayStructure) -> bool:
        self._nodes.check()
        grid = None if 0 in structure.shape else self._grid(node, structure)
        is_written = grid is not None and has_all_chunks(self._nodes.place(node), grid, structure.shape)
        if not is_written:
            self._nodes.check()
        return is_written

    def _grid(self, node: NodeId, structure: ArrayStructure) -> Grid | None:
        chunk = chunk_shape(structure)
        with self._lock:
            known = self._grids.get(node)
            if known is not None and known[0] == chunk:
                self._grids.move_to_end(node)
                return known[1]
        grid = read_grid(self._nodes.place(node))
        if grid is not None:
            with self._lock:
                self._grids[node] = chunk, grid
                if len(self._grids) > KNOWN:
                    self._grids.popitem(last=False)
        return grid

    def _forget_grid(self, node: NodeId) -> None:
        with self._lock:
            self._grids.pop(node, None)


def _regions(records: Sequence[Record], structure: ArrayStructure) -> tuple[bool, list[Region]]:
    """Are all data written before deleted, and what is to be written then, in order.

    A write of the whole array makes earlier ones needless.
    """
    cell = cell_dtype(structure.data_type)
    is_deleted = False
    regions: list[Region] = []
    for record in records:
        event = record.event
        if isinstance(event, AssetDeleted):
            is_deleted = True
            regions.clear()
        if not isinstance(event, ArrayWritten) or not event.persist:
            continue
        if event.offset is None and event.block is None:
            regions.clear()
        if record.payload:
            regions.append(Region(_offset(event, structure), numpy.frombuffer(record.payload, cell).reshape(event.shape)))
    return is_deleted, regions


def _offset(event: ArrayWritten, structure: ArrayStructure) -> tuple[int, ...]:
    if event.offset is None and event.block is not None:
        return block_region(structure.chunks, event.block)[0]
    return pad_offset(event.offset or (), len(structure.shape))


def _nothing(shape: tuple[int, ...], dtype: numpy.dtype[Any]) -> numpy.ndarray[Any, Any]:
    """Elements of no bytes at all (a text of length 0); numpy only makes them as fields of a record."""
    empty: numpy.ndarray[Any, Any] = numpy.zeros(shape, [("nothing", dtype)])["nothing"]
    return empty
