"""Whole containers as a file: HDF5, and netCDF of a dataset.

The file grows on disk, and is sent from there when it has lost its name: in memory there is never more than one piece of one
array, or one table. What cannot be read (a type that nothing here reads, a file that is broken) is left out, and says so; what
is only late is `Unavailable`, and so is the whole.
"""

from __future__ import annotations

import asyncio
import logging
import os
from hashlib import blake2b
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO

from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse

from ..domain.chunks import size
from ..domain.dtypes import to_numpy
from ..domain.errors import NotSupported, Refused, TooLarge, Unavailable
from ..domain.slices import Along, Selection
from ..domain.structures import ArrayStructure, AwkwardStructure, RaggedStructure, SparseStructure
from ..nodes.repository import Located
from ..wire.negotiate import HDF5, NETCDF
from ..wire.slabs import slabs
from .answers import attachment, not_modified
from .children import Budget, children
from .params import Query
from .services import Edge

if TYPE_CHECKING:
    from ..wire.export_hdf5 import Hdf5File

logger = logging.getLogger(__name__)

__all__ = ["FILES", "file_answer"]

#: Media types that are made as files.
FILES = (HDF5, NETCDF)
#: Bytes of an array that are copied at once.
SLAB = 16 << 20
_PIECE = 1 << 20
_LEFT_OUT = "_left_out"


async def file_answer(
    edge: Edge, scope: Any, at: Located, below: list[Located], media_type: str, *, budget: Budget, query: Query
) -> ASGIResponse:
    """The container `at` with these children, in the format `media_type`."""
    try:
        file = await asyncio.to_thread(_new_file)
    except OSError as error:
        raise _no_room(error) from None
    try:
        if media_type == HDF5:
            await _Copy(edge, budget).run(file, at, below)
        else:
            await _copy_dataset(edge, file, at, below, budget)
        length, tag = await asyncio.to_thread(_measured, file)
    except (OSError, RuntimeError) as error:  # HDF5 says the one or the other of a disk that is full
        file.close()
        raise _no_room(error) from None
    except BaseException:
        file.close()
        raise
    finally:
        # By now the libraries have opened it by its name, or never will.
        await asyncio.to_thread(Path(file.name).unlink, missing_ok=True)
    same = not_modified(scope, tag)
    if same is not None:
        file.close()
        return same
    headers = {"ETag": tag, "Vary": "Origin", "Content-Length": str(length)}
    filename = query.get("filename")
    return _FileAnswer(file, media_type, headers | ({"Content-Disposition": attachment(filename)} if filename else {}))


def _new_file() -> BinaryIO:
    # HDF5 opens it by its name: through an object of Python, errors of the disk come out as anything.
    file: Any = NamedTemporaryFile(prefix="tiled-stream-export-", delete=False)  # noqa: SIM115 - its owner closes it
    return file  # type: ignore[no-any-return]


def _no_room(error: Exception) -> Unavailable:
    logger.warning("An export could not be made", exc_info=error)
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "HDF5 could not write"
    return Unavailable(f"The file could not be made where this server keeps temporary files: {reason}.", retry_after=10.0)


class _Copy:
    """One container on its way into a file."""

    def __init__(self, edge: Edge, budget: Budget) -> None:
        self._edge = edge
        self._budget = budget

    async def run(self, file: BinaryIO, at: Located, below: list[Located]) -> None:
        """All of it. The file stays open."""
        out = await asyncio.to_thread(_begin, file)
        try:
            await asyncio.to_thread(out.describe, (), at.node.metadata)
            for child in below:
                await self._node(out, child, (child.path[-1],))
        finally:
            await asyncio.to_thread(out.close)

    async def _node(self, out: Hdf5File, at: Located, path: tuple[str, ...]) -> None:
        if at.node.family == "container":
            try:
                below = await children(self._edge, at)
            except Refused as error:
                await self._leave_out(out, at, path, error)
                return
            await asyncio.to_thread(out.describe, path, at.node.metadata)
            for child in below:
                await self._node(out, child, (*path, child.path[-1]))
            return
        try:
            await self._data(out, at, path)
        except TooLarge:
            raise
        except Refused as error:
            await self._leave_out(out, at, path, error)

    async def _leave_out(self, out: Hdf5File, at: Located, path: tuple[str, ...], error: Refused) -> None:
        await asyncio.to_thread(out.discard, path)
        await asyncio.to_thread(out.describe, path, {**at.node.metadata, _LEFT_OUT: str(error)})

    async def _data(self, out: Hdf5File, at: Located, path: tuple[str, ...]) -> None:
        structure, reader = at.node.structure, self._edge.reader
        if isinstance(structure, ArrayStructure):
            await self._array(out, at, structure, path)
        elif isinstance(structure, SparseStructure):
            whole = Selection(tuple(Along(0, 1, length) for length in structure.shape))
            table = await reader.parts.sparse(at, structure, whole)
            self._budget.spend(table.nbytes)
            await asyncio.to_thread(out.table, path, table, {**at.node.metadata, "shape": list(structure.shape)})
        elif isinstance(structure, AwkwardStructure):
            buffers = await reader.parts.awkward(at, structure, None)
            await self._buffers(out, at, path, structure.form, structure.length, buffers)
        elif isinstance(structure, RaggedStructure):
            rows = await reader.ragged(at, structure, "")
            await self._buffers(out, at, path, *await asyncio.to_thread(_unpacked, rows))
        elif at.node.family == "table":
            table = await reader.table(at)
            self._budget.spend(table.nbytes)
            await asyncio.to_thread(out.table, path, table, at.node.metadata)
        else:
            raise NotSupported(f"Nodes of family {at.node.family!r} have no form in such a file.")

    async def _array(self, out: Hdf5File, at: Located, structure: ArrayStructure, path: tuple[str, ...]) -> None:
        dtype = to_numpy(structure.data_type)
        self._budget.spend(size(structure.shape) * dtype.itemsize)
        await asyncio.to_thread(out.declare, path, structure.shape, dtype, at.node.metadata)
        async for index, cells in _pieces_of(self._edge, at, structure):
            await asyncio.to_thread(out.fill, path, index, cells)

    async def _buffers(
        self, out: Hdf5File, at: Located, path: tuple[str, ...], form: Any, length: int, buffers: dict[str, bytes]
    ) -> None:
        self._budget.spend(sum(map(len, buffers.values())))
        metadata = {**at.node.metadata, "form": form, "length": length}
        await asyncio.to_thread(out.buffers, path, buffers, metadata)


async def _copy_dataset(edge: Edge, file: BinaryIO, at: Located, below: list[Located], budget: Budget) -> None:
    """The arrays of a dataset into a netCDF file, which stays open. `NotAcceptable` if they do not make one."""
    from ..wire.export_dataset import dims_of, grid_of
    from ..wire.export_netcdf import NetcdfFile, NetcdfVariable  # heavy, and few want it

    arrays = [(child, child.node.structure) for child in below if isinstance(child.node.structure, ArrayStructure)]
    grid = grid_of([(child.path[-1], dims_of(structure), structure.shape) for child, structure in arrays])
    variables = []
    for child, structure in arrays:
        dtype = to_numpy(structure.data_type)
        budget.spend(size(structure.shape) * dtype.itemsize)
        is_coordinate = any(spec.name == "xarray_coord" for spec in child.node.specs)
        variables.append(NetcdfVariable(child.path[-1], dims_of(structure), dtype, _attributes(child), is_coordinate))
    out = await asyncio.to_thread(NetcdfFile, file.name)
    try:
        await asyncio.to_thread(out.declare, grid, variables, _attributes(at))
        for child, structure in arrays:
            async for index, cells in _pieces_of(edge, child, structure):
                await asyncio.to_thread(out.fill, child.path[-1], index, cells)
    finally:
        await asyncio.to_thread(out.close)


def _attributes(at: Located) -> dict[str, Any]:
    """Those of xarray, which the client keeps below `attrs`."""
    found = at.node.metadata.get("attrs")
    return found if isinstance(found, dict) else {}


async def _pieces_of(edge: Edge, at: Located, structure: ArrayStructure) -> Any:
    """Places and cells of an array, one piece after the other."""
    for region in slabs(structure.chunks, max(1, to_numpy(structure.data_type).itemsize), limit=SLAB):
        selection = Selection(tuple(Along(start, 1, stop - start) for start, stop in region))
        yield tuple(slice(*ends) for ends in region), await edge.reader.array(at, structure, selection)


class _FileAnswer(ASGIStreamingResponse):
    """The whole of an open file, which is closed whatever happens."""

    def __init__(self, file: BinaryIO, media_type: str, headers: dict[str, str]) -> None:
        super().__init__(iterator=_pieces(file), headers=headers, media_type=media_type)
        self._file = file

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


async def _pieces(file: BinaryIO) -> Any:
    while piece := await asyncio.to_thread(file.read, _PIECE):
        yield piece


def _begin(file: BinaryIO) -> Hdf5File:
    from ..wire.export_hdf5 import Hdf5File  # heavy, and few want it

    return Hdf5File(file.name)


def _unpacked(rows: Any) -> tuple[Any, int, dict[str, bytes]]:
    from ..wire.export_hdf5 import buffers_of

    return buffers_of(rows)


def _measured(file: BinaryIO) -> tuple[int, str]:
    """Size and ETag of a file that is complete; it is read from its beginning next."""
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    digest = blake2b(digest_size=16)
    while piece := file.read(_PIECE):
        digest.update(piece)
    file.seek(0)
    return length, digest.hexdigest()
