"""What a log has let go of, told again from storage, so that a stream has one cursor from the first record to the live edge.

Everything that a log lets go of is persisted, so it can be told as far as storage knows which record brought what (ADR 0014):

- Rows of a table by the records that brought them. A record without rows now (it was replaced, lost, or had none) is a hole.
- Children of a container by the records of their creation; from the beginning on, those that are there stand for all.
- Cells of an array as they are, if each of its chunks was written and its records were not more than it has room for: then
  nothing was overwritten. Regions are absolute, so that cells which are told twice do no harm.
- Files that were registered: the data source as it is.

What must stay true: each sequence is told once or reported lost (I3); memory is bounded by pages (I8).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Hashable
from typing import Any

import msgspec

from ..catalog.port import Catalog, Stored
from ..domain.errors import Gone, LogError, NotFound, NotSupported, TooLarge, UnsupportedType
from ..domain.events import ArrayReferenced, ArrayWritten, ChildCreated, Record, RowsAppended
from ..domain.nodes import NodeId
from ..domain.past import Lost, PastPage
from ..domain.search import Page, Search
from ..domain.slices import Along, Selection
from ..domain.structures import ArrayStructure, TableStructure
from ..log.port import Log
from ..storage.port import Arrived
from ..storage.stores import Stores
from ..wire.tables import ARROW_FILE, encode_table, schema_of

__all__ = ["History"]

#: About so many bytes are told at once, and at most so many rows or children.
_BYTES = 1 << 20
_ROWS = 10_000
_CHILDREN = 200
#: Headers that are looked at to find where an array grew.
_HEADERS = 1000


class _Rows(msgspec.Struct, frozen=True):
    """So many rows of the array were told."""

    told: int


class _Children(msgspec.Struct, frozen=True):
    """Where the listing goes on. `is_all`: it began with the first record."""

    cursor: int
    is_all: bool


class History:
    """Read only. A store that is None is not configured."""

    def __init__(self, log: Log, catalog: Catalog, *, stores: Stores) -> None:
        self._log = log
        self._catalog = catalog
        self._stores = stores
        self._arrays = stores.arrays
        self._tables = stores.tables

    async def page(self, node: NodeId, after: int, upto: int, state: Hashable) -> PastPage:
        """The next of the records after `after` up to `upto`, all of them persisted.

        `state`: as the page before gave it, or None.
        `Gone` if the node was deleted, `Unavailable` if storage cannot be read now.
        """
        try:
            stored = await self._catalog.node(node)
        except Gone:
            raise
        except NotFound:  # its log knows more than the catalog: it is another one's
            return _lost(after, upto)
        structure = stored.node.structure
        try:
            if stored.node.family == "container" and not stored.node.data_sources:
                page = await self._children(stored, after, upto, state)
            elif not stored.node.data_sources or not stored.node.data_sources[0].assets:
                page = _lost(after, upto)
            elif isinstance(structure, ArrayStructure) and stored.node.data_sources[0].management == "external":
                page = _referenced(stored, after, upto)
            elif isinstance(structure, TableStructure) and stored.node.data_sources[0].management != "external":
                page = await self._table(stored, structure, after, upto)
            elif isinstance(structure, ArrayStructure):
                page = await self._array(stored, structure, after, upto, state)
            else:
                page = _lost(after, upto)
        except (NotSupported, UnsupportedType, TooLarge):  # this server has not the storage
            page = _lost(after, upto)
        return _with_end(page, stored.ended)

    async def ended(self, node: NodeId) -> int:
        """The sequence at which the producer ended the stream of `node`, 0 if that is not persisted. As `page` raises."""
        try:
            return (await self._catalog.node(node)).ended
        except Gone:
            raise
        except NotFound:
            return 0

    # ------------------------------------------------------------ tables

    async def _table(self, stored: Stored, structure: TableStructure, after: int, upto: int) -> PastPage:
        if self._tables is None:
            return _lost(after, upto)
        node = stored.node
        store = self._tables.of(node.data_sources[0].mimetype)
        rows = max(1, min(_ROWS, _BYTES // _width(structure)))
        found = await store.arrived(node.id, structure, after=after, upto=upto, rows=rows)
        if not len(found.sequences):
            return _lost(after, upto)
        return await asyncio.to_thread(_as_appended, found, after, node.time_created)

    # ------------------------------------------------------------ containers

    async def _children(self, stored: Stored, after: int, upto: int, state: Hashable) -> PastPage:
        begun = state if isinstance(state, _Children) else None
        is_all = begun.is_all if begun is not None else after == 0 and not stored.lost
        page = Page(limit=_CHILDREN + 1, cursor=None if begun is None else begun.cursor)
        found = (await self._catalog.children(stored.node.id, Search(), page)).hits
        items: list[Record | Lost] = []
        reached = after
        hits = [hit for hit in found[:_CHILDREN] if after < hit.node.created <= upto]
        is_last = len(found) <= _CHILDREN or found[_CHILDREN].node.created > upto
        for place, hit in enumerate(hits):
            created = hit.node.created
            if not is_all and created > reached + 1:
                items.append(Lost(reached + 1, created - 1))
                reached = created - 1
            # Those that are there now stand for all that happened to the children.
            last = upto if is_all and is_last and place == len(hits) - 1 else created
            items.append(Record(last, hit.node.time_created, ChildCreated(hit.node), covers=(reached + 1, last)))
            reached = last
        if is_last and reached < upto:
            items.append(Lost(reached + 1, upto))
            reached = upto
        cursor = found[:_CHILDREN][-1].cursor if found else 0
        return PastPage(tuple(items), reached, _Children(cursor, is_all))

    # ------------------------------------------------------------ arrays

    async def _array(self, stored: Stored, structure: ArrayStructure, after: int, upto: int, state: Hashable) -> PastPage:
        if self._arrays is None or stored.lost:  # nothing says which cells the lost records wrote
            return _lost(after, upto)
        if stored.stored and (await self._stores.watermark(stored.node) or 0) < stored.stored:
            return _lost(after, upto)  # the storage was restored to an earlier state
        node = stored.node.id
        total = structure.shape[0] if structure.shape else 1
        begin = state.told if isinstance(state, _Rows) else 0
        if not isinstance(state, _Rows):
            has_room = upto <= await self._room(node, structure, upto) + 1
            if not has_room or not await self._arrays.is_written(node, structure):
                return _lost(after, upto)
        rows = min(total, max(begin + 1, await self._rows_before(node, upto, total)))
        size = max(1, _itemsize(structure) * _product(structure.shape[1:]))
        # Not more messages than there are sequences.
        step = max(1, _BYTES // size, -(-(rows - begin) // (upto - after)))
        end = min(rows, begin + step)
        if end <= begin:
            return _lost(after, upto)
        axes = tuple(Along(0, 1, n) for n in structure.shape[1:])
        selection = Selection((Along(begin, 1, end - begin), *axes) if structure.shape else ())
        cells = await self._arrays.read(node, structure, selection)
        shape = (end - begin, *structure.shape[1:]) if structure.shape else ()
        event = ArrayWritten(shape, offset=(begin, *(0,) * (len(shape) - 1)) if shape else None)
        last = upto if end == rows else after + max(1, (upto - after) * (end - begin) // (rows - begin))
        record = Record(last, stored.node.time_created, event, cells.tobytes(), covers=(after + 1, last))
        return PastPage((record,), last, _Rows(end))

    async def _room(self, node: NodeId, structure: ArrayStructure, upto: int) -> int:
        """How many records an array can have had of which none was overwritten: chunks, or rows where rows are appended."""
        chunks = _product(tuple(len(parts) for parts in structure.chunks))
        grown = await self._growth(node, upto)
        return max(chunks, structure.shape[0]) if grown and structure.shape else chunks

    async def _rows_before(self, node: NodeId, upto: int, total: int) -> int:
        """Rows that the records up to `upto` can have written: what the log still has may have appended more."""
        grown = await self._growth(node, upto)
        first = grown[0].offset if grown else None
        return first[0] if first and first[0] > 0 else total

    async def _growth(self, node: NodeId, upto: int) -> list[ArrayWritten]:
        try:
            records = await self._log.read(node, upto, limit=_HEADERS, headers=True)
        except LogError:
            return []
        return [r.event for r in records if isinstance(r.event, ArrayWritten) and r.event.structure is not None]


def _with_end(page: PastPage, ended: int) -> PastPage:
    """The end of the stream has no message: it is not lost, and whoever reaches it is told."""
    items: list[Record | Lost] = []
    for item in page.items:
        if isinstance(item, Lost) and item.first <= ended <= item.last:
            pieces = (Lost(item.first, ended - 1), Lost(ended + 1, item.last))
            items += [piece for piece in pieces if piece.first <= piece.last]
        else:
            items.append(item)
    return msgspec.structs.replace(page, items=tuple(items), is_end=0 < ended <= page.reached)


def _lost(after: int, upto: int) -> PastPage:
    return PastPage((Lost(after + 1, upto),), upto)


def _referenced(stored: Stored, after: int, upto: int) -> PastPage:
    event = ArrayReferenced(stored.node.data_sources[0])
    return PastPage((Record(upto, stored.node.time_created, event, covers=(after + 1, upto)),), upto)


def _as_appended(found: Arrived, after: int, time: float) -> PastPage:
    """Rows as records: one for each stretch of consecutive records of one partition."""
    items: list[Record | Lost] = []
    reached = after
    for begin, end in _stretches(found):
        first, last = int(found.sequences[begin]), int(found.sequences[end - 1])
        if first > reached + 1:
            items.append(Lost(reached + 1, first - 1))
        body = encode_table(found.table.slice(begin, end - begin), ARROW_FILE)
        event = RowsAppended(int(found.partitions[begin]), end - begin)
        items.append(Record(last, time, event, body, covers=(first, last)))
        reached = last
    return PastPage(tuple(items), reached)


def _stretches(found: Arrived) -> list[tuple[int, int]]:
    import numpy

    breaks = numpy.flatnonzero((numpy.diff(found.sequences) > 1) | (numpy.diff(found.partitions) != 0)) + 1
    edges = [0, *breaks.tolist(), len(found.sequences)]
    return list(itertools.pairwise(edges))


def _width(structure: TableStructure) -> int:
    """About how many bytes a row has."""
    return sum(_bytes_of(field.type) for field in schema_of(structure)) or 1


def _bytes_of(kind: Any) -> int:
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:  # of varying length
        return 256


def _itemsize(structure: ArrayStructure) -> int:
    return structure.data_type.itemsize


def _product(numbers: tuple[int, ...]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result
