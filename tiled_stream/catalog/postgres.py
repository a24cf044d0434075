"""The shared catalog: PostgreSQL, through asyncpg. Any number of processes read; one transaction at a time changes it.

SQL is compiled as for SQLite (`filters.py`, `orders.py`), with the words of `postgres_dialect.py` and numbered parameters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from ..domain.errors import Gone, Malformed, NotFound, Unavailable
from ..domain.nodes import ROOT, NodeId, Spec
from ..domain.search import Filter, Page, Search
from . import rows
from .conditions import Fragment, Place, Source, sourced
from .distinct import grouped, values_at
from .facts import words_of
from .filters import compiled
from .migrate import statements
from .orders import is_backwards, ordered
from .port import Applied, CatalogBatch, Distinct, Found, Revision, Stored
from .postgres_apply import PostgresWriter
from .postgres_connect import AGAIN, Database
from .postgres_dialect import NOTHING, PostgresDialect, parameter, scalar
from .postgres_schema import prepare

__all__ = ["PostgresCatalog"]

#: A deep search below a node with fewer descendants looks at each of them.
_SMALL = 1000
_MAX_ROWS_KNOWN = 50_000
#: How often a transaction that others were in the way of is tried.
_TRIES = 5


class PostgresCatalog:
    """`uri` is ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE`` (``?host=/directory`` for a Unix socket).

    With `init` the catalog is made if it is missing, and brought up to date. `root_metadata` and `root_specs` describe the root
    until somebody edits it. `pool_size`: connections at most.
    """

    def __init__(
        self,
        uri: str,
        *,
        init: bool = False,
        pool_size: int = 5,
        root_metadata: dict[str, Any] | None = None,
        root_specs: Sequence[Spec] | None = None,
    ) -> None:
        self._database = Database(uri, pool_size=pool_size)
        self._init = init
        self._root_metadata = root_metadata
        self._root_specs = root_specs
        self._dialect = PostgresDialect()
        self._sql = statements("postgres", columns=rows.COLUMNS)
        # (row, depth) of nodes by id: neither ever changes, and no id is used again.
        self._rows: dict[NodeId, tuple[int, int]] = {}

    async def open(self) -> None:
        """`Unavailable` that says how to mend it, if the server cannot be reached, or the catalog is missing, older or newer."""
        try:
            await self._database.open()
            await prepare(self._database, self._sql, init=self._init)
            await self._configure_root()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Waits for what is running. Idempotent."""
        await self._database.close()

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
        self, parent: NodeId, filters: Sequence[Filter] = (), *, deep: bool = False, max_depth: int | None = None
    ) -> int:
        if deep:
            source = await self._descendants(parent, filters, max_depth)
        elif filters:
            source = await self._children(parent, filters)
        else:
            known = await self._known(parent)
            found = await self._one(self._sql["children_of"], (known[0],)) if known else None
            return int(found[0]) if found is not None else 0
        tables, condition = ("facts f", source.facts) if source.facts is not None else (source.tables, source.condition)
        found = await self._one(f"SELECT count(*) FROM {tables} WHERE {condition.sql}", condition.parameters)
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
            metadata={key: await values_at(self._all, source, key, nothing=NOTHING, scalar=scalar) for key in metadata},
            structure_families=await grouped(self._all, source, "n.family") if structure_families else None,
            specs=await grouped(self._all, source, "n.specs", is_json=True) if specs else None,
        )

    async def revisions(self, id: NodeId, *, offset: int = 0, limit: int = 100) -> tuple[list[Revision], int]:
        found = await self._all(self._sql["revisions"], (id, limit, offset))
        count = await self._one(self._sql["count_revisions"], (id,))
        return [rows.revision(row) for row in found], int(count[0]) if count is not None else 0

    async def apply(self, batches: Sequence[CatalogBatch]) -> list[Applied]:
        """Cancelled: all of it is applied, or nothing."""
        for _ in range(_TRIES):
            try:
                async with self._database.connection() as connection, connection.transaction():
                    return await PostgresWriter(connection, self._sql).apply(batches)
            except AGAIN:
                continue
        raise Unavailable("Others kept changing the catalog; try again.")

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
        order = ordered(search.sort, source.row, page, nothing=NOTHING)
        where, parameters = source.condition.sql, (*order.parameters, *source.condition.parameters)
        if page.cursor is not None:
            where += f" AND {source.row} {'<' if is_backwards(search.sort) else '>'} ?"
            parameters = (*parameters, page.cursor)
        which = f"SELECT {source.row} FROM {source.tables}{order.joins} WHERE {where} ORDER BY {order.terms} LIMIT ? OFFSET ?"
        sql = (
            f"SELECT {rows.COLUMNS} FROM unnest(ARRAY({which})) WITH ORDINALITY w (row, place) "
            "JOIN nodes n ON n.row = w.row ORDER BY w.place"
        )
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

    # ------------------------------------------------------------- inside

    async def _all(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        try:
            async with self._database.connection() as connection:
                return list(await connection.fetch(numbered(sql), *map(parameter, parameters)))
        except (asyncpg.DataError, UnicodeEncodeError, OverflowError) as error:
            raise Malformed(f"A value of this search is none that can be stored: {error}.") from error

    async def _one(self, sql: str, parameters: Sequence[Any]) -> Any | None:
        found = await self._all(sql, parameters)
        return found[0] if found else None

    async def _configure_root(self) -> None:
        """Give the root what the configuration says, if that is news and nobody edited it."""
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute(self._sql["lock"])
            row, old, old_specs, time_updated = await connection.fetchrow(self._sql["root"])
            new = old if self._root_metadata is None else rows.json_text(self._root_metadata)
            new_specs = old_specs if self._root_specs is None else rows.specs_text(self._root_specs)
            if time_updated or (new, new_specs) == (old, old_specs):
                return
            words = words_of(rows.value(new))
            await connection.execute(self._sql["describe"], new, new_specs, "[]", words, 0, 0.0, row)


@lru_cache(maxsize=1024)
def numbered(sql: str) -> str:
    """``?`` as ``$1``, ``$2`` … No text in our SQL holds a question mark."""
    numbers = count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", sql)
