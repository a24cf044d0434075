"""Questions about data: arrays, tables and columns of tables. Every read of what storage holds passes the barrier (I7).

An answer shows at least what was written when its node was found (`Located.head`): whoever asks finds it anew for each request.
Data in registered files are read as the present of their node declares them (`read_files.py`); there is nothing to wait for.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from ..domain.dtypes import from_numpy
from ..domain.errors import Malformed, NotFound, NotSupported
from ..domain.nodes import Asset, Node, NodeId
from ..domain.slices import Selection
from ..domain.structures import ArrayStructure, RaggedStructure, TableStructure
from ..nodes.barrier import Barrier
from ..nodes.repository import Located
from ..storage.port import ArrayStore, PartStore
from ..storage.tables import Tables
from ..wire.tables import column_array
from .completeness import Completeness
from .read_files import FileData
from .read_parts import PartData

if TYPE_CHECKING:
    import numpy
    import pyarrow

__all__ = ["DataReader"]

#: Columns read lately stay at hand: a client asks for structure and data in two requests. Bytes.
_COLUMNS_BYTES = 64 << 20


class DataReader:
    """Read only. A store that is None is not configured; without `files`, registered files cannot be read. `limit`: bytes.

    Without `complete`, data are served without comparing storage with the catalog.
    """

    def __init__(
        self,
        *,
        barrier: Barrier,
        arrays: ArrayStore | None,
        parts: PartStore | None,
        tables: Tables | None,
        files: FileData | None = None,
        complete: Completeness | None = None,
        limit: int = 300_000_000,
    ) -> None:
        #: Awkward, ragged and sparse arrays.
        self.parts = PartData(parts, barrier=barrier, complete=complete, limit=limit)
        self._barrier = barrier
        self._complete = complete
        self._files = files
        self._arrays = arrays
        self._tables = tables
        # By node, column and the sequence it was read at, so that an entry never grows stale. (Files do; they are not kept.)
        self._columns: OrderedDict[tuple[NodeId, str, int], numpy.ndarray] = OrderedDict()
        self._columns_bytes = 0

    @property
    def files(self) -> FileData:
        """Registered files. `NotSupported` if this server reads none."""
        if self._files is None:
            raise NotSupported("This server does not read registered files: start it with -r DIRECTORY.")
        return self._files

    async def asset(self, at: Located, id: int) -> Asset:
        """The asset of this id, complete: what was acknowledged before is in it. `NotFound` if it is not one of this node."""
        for source in at.node.data_sources if at.column is None and not at.inside else ():
            for asset in source.assets:
                if asset.id == id:
                    await self._barrier.settle_at(at.node.id, at.head)
                    return asset
        raise NotFound(f"{'/'.join(at.path)!r} has no asset with id {id}.")

    async def array_structure(self, at: Located) -> ArrayStructure:
        """Structure of an array node, or of the column that `at` addresses (one chunk, shape = present row count).

        `NotFound` if `at` is neither.
        """
        if at.column is not None:
            array = await self._column(at, at.column)
            return ArrayStructure(
                data_type=from_numpy(array.dtype), chunks=tuple((n,) for n in array.shape), shape=tuple(array.shape)
            )
        if not isinstance(at.node.structure, ArrayStructure):
            raise _wrong_family(at, "array")
        return at.node.structure

    async def column_structure(self, at: Located) -> ArrayStructure | RaggedStructure:
        """Structure of the column that `at` addresses: lists of different lengths are ragged."""
        assert at.column is not None
        try:
            return await self.array_structure(at)
        except NotSupported:
            return await self.ragged_structure(at)

    async def ragged_structure(self, at: Located) -> RaggedStructure:
        """Structure of a ragged array, or of a column of lists. `NotFound` if `at` is neither."""
        if at.column is not None:
            from ..wire.ragged import structure_of_rows

            return await asyncio.to_thread(structure_of_rows, await self._column_of_lists(at))
        if not isinstance(at.node.structure, RaggedStructure):
            raise _wrong_family(at, "ragged")
        return at.node.structure

    async def ragged(self, at: Located, structure: RaggedStructure, text: str) -> Any:
        """A slice, as the wire writes it, of a ragged array. `Malformed` if it cannot be taken."""
        if at.column is None:
            return await self.parts.ragged(at, structure, text)
        from ..wire.ragged import parse_rows, sliced

        wanted = parse_rows(text, structure)
        return await asyncio.to_thread(sliced, await self._column_of_lists(at), wanted, first=0)

    async def _column_of_lists(self, at: Located) -> Any:
        assert at.column is not None
        table = await self.table(Located(at.node, at.path[:-1], at.head, inside=at.inside), columns=[at.column])
        from ..wire.ragged import column_rows

        return await asyncio.to_thread(column_rows, table.column(at.column))

    async def array(self, at: Located, structure: ArrayStructure, selection: Selection) -> numpy.ndarray:
        """The selection, in the declared dtype, C-contiguous. `structure` as `array_structure` gave it."""
        if at.column is not None:
            import numpy

            return numpy.ascontiguousarray((await self._column(at, at.column))[selection.index]).reshape(selection.shape)
        if _is_external(at.node):
            return await self.files.array(at, structure, selection)
        _check_there(at.node)
        if self._arrays is None:
            raise NotSupported("This server has no storage for arrays: start it with -w DIRECTORY.")
        state = await self._persisted(at)
        cells = await self._arrays.read(at.node.id, structure, selection)
        self._confirm(state)
        return cells

    async def table(self, at: Located, *, columns: Sequence[str] | None = None, partition: int | None = None) -> pyarrow.Table:
        """Rows of a table node. `NotFound` if it is none, `Malformed` for an unknown column or partition."""
        structure = at.node.structure
        if at.column is not None or not isinstance(structure, TableStructure):
            raise _wrong_family(at, "table")
        for name in columns or ():
            if name not in structure.columns:
                raise Malformed(f"The table has no column {name!r}; it has {list(structure.columns)}.")
        if partition is not None and partition < 0:
            raise Malformed("A partition is a non-negative integer.")
        if _is_external(at.node):
            return await self.files.table(at, structure, columns=columns, partition=partition)
        _check_there(at.node)
        if self._tables is None:
            raise NotSupported("This server has no storage for tables: start it with -w DIRECTORY or -w duckdb:///PATH.")
        store = self._tables.of(at.node.data_sources[0].mimetype)
        state = await self._persisted(at)
        table = await store.read(at.node.id, structure, columns=columns, partition=partition)
        self._confirm(state)
        return table

    async def _persisted(self, at: Located) -> Hashable:
        """Return once storage has what `at` was found with; what is returned is confirmed after the read.

        `Unavailable` if that takes too long, `DataLost` if storage never will have it.
        """
        await self._barrier.settle_at(at.node.id, at.head)
        return None if self._complete is None else await self._complete.check(at.node, path=at.path, head=at.head)

    def _confirm(self, state: Hashable) -> None:
        """`Unavailable` if the storage was replaced meanwhile."""
        if self._complete is not None:
            self._complete.confirm(state)

    async def _column(self, at: Located, column: str) -> numpy.ndarray:
        at_table = Located(at.node, at.path[:-1], at.head, inside=at.inside)
        place = (at.node.id, column, at.head)
        known = self._columns.get(place)
        if known is not None:
            self._columns.move_to_end(place)
            return known
        table = await self.table(at_table, columns=[column])
        array = await asyncio.to_thread(column_array, table.column(column))
        if not _is_external(at.node):
            self._keep(place, array)
        return array

    def _keep(self, place: tuple[NodeId, str, int], array: numpy.ndarray) -> None:
        if array.nbytes > _COLUMNS_BYTES // 4 or place in self._columns:
            return
        self._columns[place] = array
        self._columns_bytes += array.nbytes
        while self._columns_bytes > _COLUMNS_BYTES:
            _, old = self._columns.popitem(last=False)
            self._columns_bytes -= old.nbytes


def _is_external(node: Node) -> bool:
    return node.data_sources[0].management == "external"


def _check_there(node: Node) -> None:
    if not node.data_sources[0].assets:
        raise NotFound(f"The data of {node.key!r} were deleted.")


def _wrong_family(at: Located, wanted: str) -> NotFound:
    what = f"a column ({at.column!r})" if at.column is not None else f"of family {at.node.family!r}"
    return NotFound(f"{'/'.join(at.path)!r} is {what}; this endpoint serves family {wanted!r}.")
