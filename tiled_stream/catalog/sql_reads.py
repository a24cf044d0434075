"""What catalogs in SQL answer alike: nodes, pages, counts, distinct values, identity and losses. Engines bring connections,
words and the writing.

The meaning of a search stands in `domain/search.py`; which condition it begins with, in `conditions.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..domain.errors import Gone, Malformed, NotFound
from ..domain.nodes import ROOT, NodeId
from ..domain.search import Filter, Page, Search
from . import rows
from .conditions import Fragment, Place, Source, sourced
from .distinct import grouped, values_at
from .filters import Dialect, compiled
from .orders import is_backwards, ordered
from .port import Distinct, Found, Loss, Reached, Revision, Stored

__all__ = ["SqlReads"]

#: A deep search below a node with fewer descendants looks at each of them.
_SMALL = 1000
_MAX_ROWS_KNOWN = 50_000


class SqlReads(ABC):
    """The reading half of `Catalog`. `sql`: the statements of the engine by name.

    `nothing`: SQL of a fact's value in place of a missing one. `scalar`: the value behind a fact's, of a kind.
    """

    def __init__(
        self,
        dialect: Dialect,
        sql: Mapping[str, str],
        *,
        nothing: str = "0",
        scalar: Callable[[int, Any], Any] = lambda _, value: value,
    ) -> None:
        self._dialect = dialect
        self._sql = sql
        self._nothing = nothing
        self._scalar = scalar
        # (row, depth) of nodes by id: neither ever changes, and no id is used again.
        self._rows: dict[NodeId, tuple[int, int]] = {}

    @abstractmethod
    async def _all(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        """All rows. `Malformed` for a value that cannot be asked for, `Unavailable` if the database is."""

    @abstractmethod
    def _rows_of(self, which: str) -> str:
        """SQL of whole rows, in the order in which `which` gives their numbers."""

    @abstractmethod
    def _ids(self, nodes: Sequence[NodeId]) -> Any:
        """Ids as one parameter."""

    async def identity(self) -> str:
        return str((await self._all(self._sql["identity"], ()))[0][0])

    async def revision(self) -> int:
        return int((await self._all(self._sql["revision"], ()))[0][0])

    async def storages(self) -> dict[str, str]:
        found = await self._all(self._sql["storages"], ())
        return {row[0]: row[1] for row in found}

    async def reached(self, nodes: Sequence[NodeId]) -> list[Reached | None]:
        found = {id: Reached(*numbers) for id, *numbers in await self._all(self._sql["reached"], (self._ids(nodes),))}
        return [found.get(node) for node in nodes]

    async def losses(self, *, limit: int = 1000) -> list[Loss]:
        return [Loss(*row) for row in await self._all(self._sql["losses"], (limit,))]

    async def node(self, id: NodeId) -> Stored:
        found = await self._one(self._sql["node_by_id"], (id,))
        if found is not None:
            return rows.stored(found)
        if await self._one(self._sql["is_gone"], (id,)) is not None:
            raise Gone(f"The node {id} was deleted.")
        raise NotFound(f"The catalog has no node {id}.")

    async def child(self, parent: NodeId, key: str) -> Stored:
        found = await self._one(self._sql["node_by_place"], (parent, key))
        if found is None:
            raise NotFound(f"The catalog has no node {key!r} there.")
        return rows.stored(found)

    async def children(self, parent: NodeId, search: Search, page: Page) -> Found:
        source = await self._children(parent, search.filters)
        return await self._page(source, search, page, above=None)

    async def descendants(self, ancestor: NodeId, search: Search, page: Page, *, max_depth: int | None = None) -> Found:
        if any(key.key for key in search.sort):
            raise Malformed("A deep search has only the order of creation; leave the sort key out.")
        source = await self._descendants(ancestor, search.filters, max_depth)
        known = await self._known(ancestor)
        return await self._page(source, search, page, above=known[1] if known else 0)

    async def count(
        self,
        parent: NodeId,
        filters: Sequence[Filter] = (),
        *,
        deep: bool = False,
        max_depth: int | None = None,
        at_most: int | None = None,
    ) -> int:
        if deep:
            source = await self._descendants(parent, filters, max_depth)
        elif filters:
            source = await self._children(parent, filters)
        else:
            known = await self._known(parent)
            found = await self._one(self._sql["children_of"], known[:1]) if known else None
            return _within(int(found[0]) if found is not None else 0, at_most)
        tables, condition = ("facts f", source.facts) if source.facts is not None else (source.tables, source.condition)
        if at_most is None:
            sql = f"SELECT count(*) FROM {tables} WHERE {condition.sql}"
        else:
            sql = f"SELECT count(*) FROM (SELECT 1 FROM {tables} WHERE {condition.sql} LIMIT {int(at_most)}) AS found"
        found = await self._one(sql, condition.parameters)
        return int(found[0]) if found is not None else 0

    async def distinct(
        self,
        parent: NodeId,
        filters: Sequence[Filter],
        *,
        metadata: Sequence[str] = (),
        structure_families: bool = False,
        specs: bool = False,
    ) -> Distinct:
        source = await self._children(parent, filters)
        return Distinct(
            metadata={
                key: await values_at(self._all, source, key, nothing=self._nothing, scalar=self._scalar) for key in metadata
            },
            structure_families=await grouped(self._all, source, "n.family") if structure_families else None,
            specs=await grouped(self._all, source, "n.specs", is_json=True) if specs else None,
        )

    async def revisions(self, id: NodeId, *, offset: int = 0, limit: int = 100) -> tuple[list[Revision], int]:
        found = await self._all(self._sql["revisions"], (id, limit, offset))
        count = await self._one(self._sql["count_revisions"], (id,))
        return [rows.revision(row) for row in found], int(count[0]) if count is not None else 0

    # ------------------------------------------------------------- searches

    async def _children(self, parent: NodeId, filters: Sequence[Filter]) -> Source:
        conditions = compiled(filters, self._dialect)
        known = await self._known(parent)
        row = known[0] if known else 0
        return sourced(conditions, Place("nodes n", Fragment("n.parent = ?", (row,)), parent=row))

    async def _descendants(self, ancestor: NodeId, filters: Sequence[Filter], max_depth: int | None) -> Source:
        conditions = compiled(filters, self._dialect)
        row, depth = await self._known(ancestor) or (0, 0)
        deepest = (depth + (max_depth or 0),)
        limit = Fragment("0 = 0") if max_depth is None else Fragment("n.depth <= ?", deepest)
        if ancestor == ROOT:
            everything = Fragment(f"n.parent IS NOT NULL AND {limit.sql}", limit.parameters)
            return sourced(conditions, Place("nodes n", everything, probe=None if max_depth is None else limit))
        many = await self._one(self._sql["below_up_to"], (row, _SMALL)) if conditions else None
        listed = Fragment(f"a.ancestor = ? AND n.row = a.node AND {limit.sql}", (row, *limit.parameters))
        probe = Fragment(
            f"EXISTS (SELECT 1 FROM ancestry a WHERE a.ancestor = ? AND a.node = n.row) AND {limit.sql}", listed.parameters
        )
        is_small = many is not None and many[0] < _SMALL
        return sourced(conditions, Place("ancestry a CROSS JOIN nodes n", listed, "a.node", probe, is_small=is_small))

    async def _page(self, source: Source, search: Search, page: Page, *, above: int | None) -> Found:
        """First which rows, then the rows: long columns do not take part in sorting."""
        order = ordered(search.sort, source.row, page, nothing=self._nothing)
        where, parameters = source.condition.sql, (*order.parameters, *source.condition.parameters)
        if page.cursor is not None:
            where += f" AND {source.row} {'<' if is_backwards(search.sort) else '>'} ?"
            parameters = (*parameters, page.cursor)
        which = (
            f"SELECT {source.row} AS row FROM {source.tables}{order.joins} WHERE {where} ORDER BY {order.terms} LIMIT ? OFFSET ?"
        )
        sql = self._rows_of(which)
        found = await self._all(sql, (*parameters, page.limit + 1, page.offset))
        return Found(tuple(rows.hit(row, above=above) for row in found[: page.limit]), len(found) > page.limit)

    async def _known(self, id: NodeId) -> tuple[int, int] | None:
        known = self._rows.get(id)
        if known is None:
            found = await self._one(self._sql["row_and_depth"], (id,))
            if found is None:
                return None
            if len(self._rows) >= _MAX_ROWS_KNOWN:
                self._rows.clear()
            known = self._rows[id] = (found[0], found[1])
        return known

    async def _one(self, sql: str, parameters: Sequence[Any]) -> Any | None:
        found = await self._all(sql, parameters)
        return found[0] if found else None


def _within(count: int, at_most: int | None) -> int:
    return count if at_most is None else min(count, at_most)
