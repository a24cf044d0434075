"""Questions about awkward, ragged and sparse arrays: only the parts that an answer needs are read, and put together in a thread.

Every read passes the barrier (I7).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ..domain.errors import Conflict, NotFound, NotSupported
from ..domain.parts import ragged_block, row_chunks
from ..domain.slices import Along, Selection
from ..domain.structures import AwkwardStructure, PartStructure, RaggedStructure, SparseStructure
from ..nodes.barrier import Barrier
from ..nodes.repository import Located
from ..storage.port import PartStore
from ..wire.parts import part_name
from .completeness import Completeness

if TYPE_CHECKING:
    import pyarrow

    from ..wire.ragged import RowsWanted

__all__ = ["PartData"]


class PartData:
    """Read only. `store` is None if it is not configured; `limit`: bytes of one answer."""

    def __init__(self, store: PartStore | None, *, barrier: Barrier, complete: Completeness | None, limit: int) -> None:
        self._store = store
        self._barrier = barrier
        self._complete = complete
        self._limit = limit

    async def ragged(self, at: Located, structure: RaggedStructure, text: str) -> Any:
        """The slice as an array of the awkward library, or a scalar. `Malformed` if it cannot be taken."""
        wanted = await asyncio.to_thread(_rows_wanted, text, structure)
        blocks = _blocks(structure, wanted.rows)
        parts = await self._parts(at, structure, [(index,) for index in blocks])

        def work() -> Any:
            from ..wire.ragged import joined, loaded, rows_of, sliced

            arrays = []
            for index in blocks:
                body = parts.get((index,))
                arrays.append(loaded(rows_of(ragged_block(structure, (index,))[1], structure).body if body is None else body))
            first = ragged_block(structure, (blocks[0],))[0] if blocks else 0
            array = joined(arrays, structure) if arrays else loaded(rows_of(0, structure).body)
            return sliced(array, wanted, first=first)

        return await asyncio.to_thread(work)

    async def sparse(self, at: Located, structure: SparseStructure, selection: Selection) -> pyarrow.Table:
        """Coordinates within the selection, and elements."""
        from ..wire.sparse import gathered, read_block, touched

        parts = await self._parts(at, structure, touched(structure, selection))

        def work() -> pyarrow.Table:
            return gathered([(block, read_block(body)) for block, body in parts.items()], structure, selection)

        return await asyncio.to_thread(work)

    async def awkward(self, at: Located, structure: AwkwardStructure, form_keys: Collection[str] | None) -> dict[str, bytes]:
        """Buffers by name, those of some nodes of the form. `Conflict` if the array was never written."""
        names = await asyncio.to_thread(_buffer_names, structure, form_keys)
        found = await self._read(at, names)
        missing = [name for name in names if name not in found]
        if missing:
            raise Conflict(f"{'/'.join(at.path)!r} was created, but its buffers have not been written yet.")
        return found

    async def _parts(self, at: Located, structure: PartStructure, blocks: list[tuple[int, ...]]) -> dict[tuple[int, ...], bytes]:
        names = {part_name(structure, block): block for block in blocks}
        found = await self._read(at, list(names))
        return {names[name]: body for name, body in found.items()}

    async def _read(self, at: Located, names: list[str]) -> dict[str, bytes]:
        if at.column is not None:
            raise NotFound(f"{at.column!r} is a column of a table.")
        if at.node.data_sources[0].management == "external":
            raise NotSupported(
                f"Registered files of family {at.node.family!r} are fetched as assets; this server does not read them."
            )
        if self._store is None:
            raise NotSupported("This server has no storage for such arrays: start it with -w DIRECTORY.")
        if not at.node.data_sources[0].assets:
            raise NotFound(f"The data of {at.node.key!r} were deleted.")
        await self._barrier.settle_at(at.node.id, at.head)
        if self._complete is None:
            return await self._store.read(at.node.id, names, limit=self._limit)
        state = await self._complete.check(at.node, path=at.path, head=at.head)
        found = await self._store.read(at.node.id, names, limit=self._limit)
        self._complete.confirm(state)
        return found


def _blocks(structure: RaggedStructure, rows: Along) -> list[int]:
    """The chunks between the first and the last row that are wanted."""
    if rows.count == 0:
        return []
    last = rows.start + rows.step * (rows.count - 1)
    low, high = min(rows.start, last), max(rows.start, last)
    found, begin = [], 0
    for index, count in enumerate(row_chunks(structure)):
        if begin <= high and low < begin + count:
            found.append(index)
        begin += count
    return found


def _rows_wanted(text: str, structure: RaggedStructure) -> RowsWanted:
    from ..wire.ragged import parse_rows  # heavy, and few want it

    return parse_rows(text, structure)


def _buffer_names(structure: AwkwardStructure, form_keys: Collection[str] | None) -> list[str]:
    from ..wire.awkward import buffer_names

    return buffer_names(structure, form_keys)
