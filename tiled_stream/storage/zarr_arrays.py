"""Arrays as Zarr v3 directories below one root, one directory a node. Any Zarr reader can open them.

One thread writes (`chunk_files.py`), two read through Zarr, so that a long read does not hold up persisting.
"""

from __future__ import annotations

import shutil
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy

from ..domain.chunks import pad_offset
from ..domain.dtypes import to_numpy
from ..domain.errors import Unavailable, UnsupportedType
from ..domain.events import ArrayWritten
from ..domain.nodes import NodeId
from ..domain.slices import Selection
from ..domain.structures import ArrayStructure
from .engine_thread import EngineThread
from .layout import array_directory, file_uri
from .port import Allocation, ArrayBatch

if TYPE_CHECKING:
    import zarr

    from .chunk_files import ChunkFiles, Region

__all__ = ["ZarrArrays"]

MIMETYPE = "application/x-zarr"

#: Arrays that stay open, for writing and for reading.
_OPEN = 512


class ZarrArrays:
    """`root` is the directory below which all arrays are; it is made when the first one is written."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._writer = EngineThread("zarr writer")
        self._reader = EngineThread("zarr reader", threads=2)
        # Only the writer's thread touches these.
        self._files: OrderedDict[NodeId, ChunkFiles] = OrderedDict()
        self._lock = Lock()
        # Arrays open for reading and the shape they were opened with; under the lock.
        self._opened: OrderedDict[NodeId, tuple[tuple[int, ...], zarr.Array[Any]]] = OrderedDict()

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        await self._writer.close()
        await self._reader.close()
        self._opened.clear()
        self._files.clear()

    def allocate(self, node: NodeId, structure: ArrayStructure, mimetype: str | None) -> Allocation:
        if mimetype not in (None, MIMETYPE):
            raise UnsupportedType(
                f"Arrays of type {mimetype!r} cannot be written here; leave the mimetype out, or use {MIMETYPE!r}."
            )
        to_numpy(structure.data_type)
        uri = file_uri(array_directory(self._root, node))
        return Allocation(data_uri=uri, is_directory=True, mimetype=MIMETYPE, parameter="data_uri", parameters={})

    async def apply(self, batches: Sequence[ArrayBatch]) -> None:
        try:
            await self._writer.run(self._apply, batches)
        except OSError as error:
            raise Unavailable(f"The array storage {self._root} cannot be written now: {error}") from error

    async def read(self, node: NodeId, structure: ArrayStructure, selection: Selection) -> numpy.ndarray[Any, Any]:
        try:
            return await self._reader.run(self._read, node, structure, selection)
        except OSError as error:
            raise Unavailable(f"The array storage {self._root} cannot be read now: {error}") from error

    async def delete(self, *nodes: NodeId) -> None:
        await self._writer.run(self._delete, nodes)

    # ------------------------------------------------- in the writer's thread

    def _apply(self, batches: Sequence[ArrayBatch]) -> None:
        for batch in batches:
            regions = _regions(batch)
            if regions:
                self._chunk_files(batch.node, batch.structure).write(regions, batch.structure.shape)

    def _chunk_files(self, node: NodeId, structure: ArrayStructure) -> ChunkFiles:
        from .chunk_files import ChunkFiles

        files = self._files.get(node)
        if files is None:
            directory = array_directory(self._root, node)
            files = ChunkFiles.open(directory, structure) or ChunkFiles.create(directory, structure)
            self._files[node] = files
            if len(self._files) > _OPEN:
                self._files.popitem(last=False)
        else:
            self._files.move_to_end(node)
        return files

    def _delete(self, nodes: Sequence[NodeId]) -> None:
        for node in nodes:
            self._files.pop(node, None)
            with self._lock:
                self._opened.pop(node, None)
            directory = array_directory(self._root, node)
            if directory.exists():
                shutil.rmtree(directory)

    # ------------------------------------------------- in a reader's thread

    def _read(self, node: NodeId, structure: ArrayStructure, selection: Selection) -> numpy.ndarray[Any, Any]:
        from .chunk_files import as_declared

        dtype = to_numpy(structure.data_type)
        array = None if 0 in selection.shape else self._array(node, structure)
        if array is None:
            return numpy.zeros(selection.shape, dtype)
        # Zarr knows no negative steps: those axes are read forwards and turned round.
        forwards: list[int | slice] = []
        turned: list[slice] = []
        for along in selection.axes:
            last = along.start + along.step * (along.count - 1)
            if along.drop:
                forwards.append(along.start)
            else:
                forwards.append(slice(min(along.start, last), max(along.start, last) + 1, abs(along.step)))
                turned.append(slice(None, None, -1 if along.step < 0 else 1))
        stored = numpy.asarray(array[tuple(forwards)])
        return as_declared(stored[tuple(turned)], structure.data_type, selection.shape)

    def _array(self, node: NodeId, structure: ArrayStructure) -> zarr.Array[Any] | None:
        """The array, open with at least the declared shape; None if nothing was ever written."""
        with self._lock:
            known = self._opened.get(node)
            if known is not None and all(a >= b for a, b in zip(known[0], structure.shape, strict=True)):
                self._opened.move_to_end(node)
                return known[1]
        import zarr
        from zarr.errors import ArrayNotFoundError

        directory = array_directory(self._root, node)
        try:
            array = zarr.open_array(str(directory), mode="r")
        except (FileNotFoundError, ArrayNotFoundError):
            return None
        with self._lock:
            self._opened[node] = (tuple(array.shape[: len(structure.shape)]), array)
            if len(self._opened) > _OPEN:
                self._opened.popitem(last=False)
        return array


def _regions(batch: ArrayBatch) -> list[Region]:
    """What is to be written, in order; a write of the whole array makes the earlier ones needless."""
    from .chunk_files import Region

    dtype = to_numpy(batch.structure.data_type)
    ndim = len(batch.structure.shape)
    regions: list[Region] = []
    for record in batch.records:
        event = record.event
        if not isinstance(event, ArrayWritten) or not event.persist:
            continue
        offset = pad_offset(event.offset or (), ndim)
        if event.offset is None and event.shape == batch.structure.shape:
            regions.clear()
        if record.payload:
            regions.append(Region(offset, numpy.frombuffer(record.payload, dtype).reshape(event.shape)))
    return regions
