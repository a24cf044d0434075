"""The embedded catalog: one SQLite file in WAL mode. One thread writes, a few connections read (aiosqlite).

Each connection answers from a committed state; readers never wait for the writer. The writer has a thread of its own rather than
an aiosqlite connection: a transaction is many statements that depend on each other, and aiosqlite's public interface hops between
threads for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiosqlite

from ..domain.errors import Gone, Malformed, NotFound, Unavailable
from ..domain.nodes import ROOT, NodeId, Spec
from ..domain.search import Filter, Page, Search
from . import rows
from .conditions import Fragment, Place, Source, sourced
from .distinct import grouped, values_at
from .filters import compiled
from .migrate import statements
from .orders import is_backwards, ordered
from .port import Applied, CatalogBatch, Distinct, Found, Revision, Stored
from .sqlite_apply import SqliteWriter
from .sqlite_dialect import FUNCTIONS, SqliteDialect
from .sqlite_file import connected

__all__ = ["SqliteCatalog"]

#: A deep search below a node with fewer descendants looks at each of them.
_SMALL = 1000
_MAX_ROWS_KNOWN = 50_000


class SqliteCatalog:
    """`path` is the file (None: a temporary one); with `init` it is made if it is missing.

    `root_metadata` and `root_specs` describe the root until somebody edits it. `readers`: how many searches run at a time.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        init: bool = False,
        root_metadata: dict[str, Any] | None = None,
        root_specs: Sequence[Spec] | None = None,
        readers: int = 2,
    ) -> None:
        self._path = path
        self._init = init or path is None
        self._root_metadata = root_metadata
        self._root_specs = root_specs
        self._number_of_readers = readers
        self._dialect = SqliteDialect()
        self._sql = statements("sqlite", columns=rows.COLUMNS)
        self._thread: ThreadPoolExecutor | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._connection: sqlite3.Connection | None = None
        self._writer: SqliteWriter | None = None
        self._readers: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
        self._open_readers = 0
        self._is_open = False
        # (row, depth) of nodes by id: neither ever changes, and no id is used again.
        self._rows: dict[NodeId, tuple[int, int]] = {}

    async def open(self) -> None:
        """`Unavailable` that says how to mend it, if the file is missing, not ours, or of a newer version."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog writer")
        try:
            path = await asyncio.get_running_loop().run_in_executor(self._thread, self._connect)
            for _ in range(self._number_of_readers):
                self._readers.put_nowait(await _reader(path))
                self._open_readers += 1
            self._is_open = True
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Waits for what is running; what waits for its turn is `Unavailable`. Idempotent."""
        self._is_open = False
        while self._open_readers:
            self._open_readers -= 1
            await (await self._readers.get()).close()
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._disconnect)
            thread.shutdown(wait=True)

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
            found = await self._one(self._sql["children_of"], known[:1]) if known else None
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
            metadata={key: await values_at(self._all, source, key) for key in metadata},
            structure_families=await grouped(self._all, source, "n.family") if structure_families else None,
            specs=await grouped(self._all, source, "n.specs", is_json=True) if specs else None,
        )

    async def revisions(self, id: NodeId, *, offset: int = 0, limit: int = 100) -> tuple[list[Revision], int]:
        found = await self._all(self._sql["revisions"], (id, limit, offset))
        count = await self._one(self._sql["count_revisions"], (id,))
        return [rows.revision(row) for row in found], int(count[0]) if count is not None else 0

    async def apply(self, batches: Sequence[CatalogBatch]) -> list[Applied]:
        """Cancelled: all of it is applied, or nothing. `Unavailable` if the file is busy for longer than 5 seconds, or full."""
        writer, thread = self._writer, self._thread
        if writer is None or thread is None or not self._is_open:
            raise Unavailable("The catalog is not open.")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, writer.apply, batches)
        except sqlite3.Error as error:
            if _is_an_event(error):
                raise
            raise Unavailable(f"The catalog cannot be written now: {error}") from error

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
        order = ordered(search.sort, source.row, page)
        where, parameters = source.condition.sql, (*order.parameters, *source.condition.parameters)
        if page.cursor is not None:
            where += f" AND {source.row} {'<' if is_backwards(search.sort) else '>'} ?"
            parameters = (*parameters, page.cursor)
        which = (
            f"SELECT {source.row} AS row FROM {source.tables}{order.joins} WHERE {where} ORDER BY {order.terms} LIMIT ? OFFSET ?"
        )
        sql = f"SELECT {rows.COLUMNS} FROM ({which}) w CROSS JOIN nodes n WHERE n.row = w.row"
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
        async with self._reading() as reader:
            try:
                return list(await reader.execute_fetchall(sql, parameters))
            except (OverflowError, UnicodeEncodeError) as error:
                raise Malformed(f"A value of this search is none that can be stored: {error}.") from error
            except sqlite3.Error as error:
                raise Unavailable(f"The catalog cannot be read now: {error}") from error

    async def _one(self, sql: str, parameters: Sequence[Any]) -> Any | None:
        found = await self._all(sql, parameters)
        return found[0] if found else None

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[aiosqlite.Connection]:
        """A reader for one statement. One whose task is cancelled goes back at once: it queues what it is given."""
        if not self._is_open:
            raise Unavailable("The catalog is not open.")
        reader = await self._readers.get()
        try:
            if not self._is_open:  # closed while this waited for its turn
                raise Unavailable("The catalog is not open.")
            yield reader
        finally:
            self._readers.put_nowait(reader)

    def _connect(self) -> Path:
        """In the writer's thread."""
        path = self._path
        if path is None:
            self._directory = tempfile.TemporaryDirectory(prefix="tiled-stream-catalog-")
            path = Path(self._directory.name) / "catalog.db"
        self._connection = connected(path, self._sql, init=self._init)
        self._writer = SqliteWriter(self._connection, self._sql)
        self._writer.configure_root(self._root_metadata, self._root_specs)
        return path

    def _disconnect(self) -> None:
        """In the writer's thread, after the readers: the last connection tidies the file up."""
        self._writer = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None


def _is_an_event(error: sqlite3.Error) -> bool:
    """Is the cause what was to be written, and not the file? Then trying again does not help."""
    return isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.InterfaceError | sqlite3.ProgrammingError)


async def _reader(path: Path) -> aiosqlite.Connection:
    """A connection that can only read."""
    reader = await aiosqlite.connect(path, isolation_level=None)
    try:
        for pragma in ("busy_timeout = 5000", "query_only = ON", "case_sensitive_like = ON"):
            await reader.execute(f"PRAGMA {pragma}")
        for name, arguments, function in FUNCTIONS:
            await reader.create_function(name, arguments, function, deterministic=True)
    except BaseException:
        await reader.close()
        raise
    return reader
