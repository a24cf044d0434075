"""Awkward, ragged and sparse arrays as files, one directory a node: a chunk a file, a buffer a file.

What must stay true: a file is replaced whole, so a reader sees what one record wrote; a name says which part it is, so writing it
twice equals writing it once (I5). Which files a record makes is told by `split`: this store knows bytes and names.

Durability as in `zarr_arrays.py`: what was applied survives the process being killed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ..domain.errors import TooLarge, Unavailable, UnsupportedType
from ..domain.events import PartWritten
from ..domain.nodes import NodeId, wire_number
from ..domain.structures import AwkwardStructure, PartStructure, RaggedStructure
from .engine_thread import EngineThread
from .layout import array_directory, file_uri
from .port import Allocation, PartBatch

__all__ = ["PartFiles"]

Split = Callable[[PartWritten, bytes], dict[str, bytes]]

_AWKWARD = "application/x-awkward-buffers"
_RAGGED = "application/x-ragged+sql"  # what clients call it, wherever the rows lie
_SPARSE = "application/x-parquet;structure=sparse"


class PartFiles:
    """`PartStore` below `root`, which is made when the first part is written."""

    def __init__(self, root: Path, *, split: Split, readers: int = 2) -> None:
        self._root = root.absolute()
        self._split = split
        self._writer = EngineThread("part writer")
        self._reader = EngineThread("part reader", threads=readers)

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
        uri = file_uri(array_directory(self._root, node))
        parameters = {"table_name": f"ragged_{node}", "dataset_id": wire_number(node)} if own == _RAGGED else {}
        return Allocation(data_uri=uri, is_directory=True, mimetype=own, parameter="data_uri", parameters=parameters)

    async def apply(self, batches: Sequence[PartBatch]) -> None:
        """See `PartStore`."""
        try:
            await self._writer.run(self._apply, batches)
        except OSError as error:
            raise Unavailable(f"The array storage {self._root} cannot be written now: {error}") from error

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

    def _apply(self, batches: Sequence[PartBatch]) -> None:
        for batch in batches:
            # Of each part the last word counts, so what was overwritten within the batch is not written at all.
            files: dict[str, bytes] = {}
            for record in batch.records:
                if isinstance(record.event, PartWritten) and record.event.persist:
                    files |= self._split(record.event, record.payload)
            directory = array_directory(self._root, batch.node)
            for name, content in files.items():
                _replace(directory, name, content)

    def _delete(self, nodes: Sequence[NodeId]) -> None:
        for node in nodes:
            directory = array_directory(self._root, node)
            if directory.exists():
                shutil.rmtree(directory)

    # ------------------------------------------------- in a reader's thread

    def _read(self, node: NodeId, names: Sequence[str], limit: int) -> dict[str, bytes]:
        directory = array_directory(self._root, node)
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
        return found


def _replace(directory: Path, name: str, content: bytes) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    half = directory / f".{name}.part"
    half.write_bytes(content)
    os.replace(half, directory / name)


def _mimetype(structure: PartStructure) -> str:
    if isinstance(structure, AwkwardStructure):
        return _AWKWARD
    return _RAGGED if isinstance(structure, RaggedStructure) else _SPARSE
