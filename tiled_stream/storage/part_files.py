"""Awkward, ragged and sparse arrays as files, one directory a node: a chunk a file, a buffer a file.

What must stay true: a file is replaced whole, so a reader sees what one record wrote; a name says which part it is, so writing it
twice equals writing it once (I5). `split` decides which files a record makes: this store knows bytes and names. Watermark and
fence of an array are in its directory, and every change passes that fence (`fenced_directory.py`).

Durability as in `zarr_arrays.py`: what was applied survives the process being killed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ..domain.errors import TooLarge, Unavailable, UnsupportedType
from ..domain.events import AssetDeleted, PartWritten
from ..domain.nodes import NodeId, wire_number
from ..domain.structures import AwkwardStructure, PartStructure, RaggedStructure
from .engine_thread import EngineThread
from .fenced_directory import HeldDirectory
from .layout import file_uri
from .node_directories import Check, NodeDirectories, fresh_records
from .port import Allocation, PartBatch

__all__ = ["PartFiles"]

Split = Callable[[PartWritten, bytes], dict[str, bytes]]

_AWKWARD = "application/x-awkward-buffers"
_RAGGED = "application/x-ragged+sql"  # what clients call it, wherever the rows lie
_SPARSE = "application/x-parquet;structure=sparse"


class PartFiles:
    """`PartStore` below `root`, which is made when the first part is written. `check`: as in `ZarrArrays`."""

    def __init__(self, root: Path, *, split: Split, readers: int = 2, check: Check | None = None) -> None:
        self._root = root.absolute()
        self._split = split
        self._writer = EngineThread("part writer")
        self._reader = EngineThread("part reader", threads=readers)
        self._nodes = NodeDirectories(self._root, check)

    async def open(self) -> None:
        """Nothing to make ready: directories are made by what is written into them."""

    async def close(self) -> None:
        """Finish what was begun and end the threads. Idempotent."""
        await self._writer.close()
        await self._reader.close()

    def allocate(self, node: NodeId, structure: PartStructure, mimetype: str | None) -> Allocation:
        """See `PartStore`."""
        own = _mimetype(structure)
        if mimetype is not None and mimetype.replace(" ", "") != own:
            raise UnsupportedType(f"Such arrays cannot be written as {mimetype!r} here; leave the mimetype out, or use {own!r}.")
        uri = file_uri(self._nodes.place(node))
        parameters = {"table_name": f"ragged_{node}", "dataset_id": wire_number(node)} if own == _RAGGED else {}
        return Allocation(data_uri=uri, is_directory=True, mimetype=own, parameter="data_uri", parameters=parameters)

    async def apply(self, batches: Sequence[PartBatch]) -> list[int]:
        """See `PartStore`."""
        try:
            return await self._writer.run(self._nodes.apply, self._write, batches)
        except OSError as error:
            raise Unavailable(f"The array storage {self._root} cannot be written now: {error}") from error

    async def watermarks(self, nodes: Sequence[NodeId]) -> list[int]:
        """See `PartStore`."""
        try:
            return await self._reader.run(self._nodes.watermarks, nodes)
        except OSError as error:
            raise Unavailable(f"The array storage {self._root} cannot be read now: {error}") from error

    async def read(self, node: NodeId, names: Sequence[str], *, limit: int) -> dict[str, bytes]:
        """See `PartStore`."""
        try:
            return await self._reader.run(self._read, node, names, limit)
        except OSError as error:
            raise Unavailable(f"The array storage {self._root} cannot be read now: {error}") from error

    async def delete(self, *nodes: NodeId) -> None:
        """See `PartStore`."""
        try:
            await self._writer.run(self._delete, nodes)
        except OSError as error:
            raise Unavailable(f"The array storage {self._root} cannot be written now: {error}") from error

    # ------------------------------------------------- in the writer's thread

    def _write(self, batch: PartBatch, hold: HeldDirectory) -> int:
        fresh = fresh_records(batch, hold)
        if not fresh:
            return hold.watermark
        # Of each part the last write counts, so what was overwritten within the batch is not written at all.
        files: dict[str, bytes] = {}
        is_deleted = False
        for record in fresh:
            if isinstance(record.event, AssetDeleted):
                is_deleted = True
                files.clear()
            elif isinstance(record.event, PartWritten) and record.event.persist:
                files |= self._split(record.event, record.payload)
        if is_deleted:
            hold.clear()
        for name, content in files.items():
            hold.put(name, content)
        hold.commit(fresh[-1].sequence)
        return hold.watermark

    def _delete(self, nodes: Sequence[NodeId]) -> None:
        self._nodes.check()
        for node in nodes:
            self._nodes.delete(node)
        self._nodes.check()

    # ------------------------------------------------- in a reader's thread

    def _read(self, node: NodeId, names: Sequence[str], limit: int) -> dict[str, bytes]:
        self._nodes.check()
        directory = self._nodes.place(node)
        found: dict[str, bytes] = {}
        size = 0
        for name in names:
            try:
                with (directory / name).open("rb") as file:
                    size += os.fstat(file.fileno()).st_size
                    if size > limit:
                        raise TooLarge(f"The answer would exceed {limit} bytes; ask for less with ?slice= or by blocks.")
                    found[name] = file.read()
            except FileNotFoundError:
                continue
        if len(found) < len(names):
            self._nodes.check()
        return found


def _mimetype(structure: PartStructure) -> str:
    if isinstance(structure, AwkwardStructure):
        return _AWKWARD
    return _RAGGED if isinstance(structure, RaggedStructure) else _SPARSE
