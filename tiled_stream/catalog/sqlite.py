"""The embedded catalog: one SQLite file in WAL mode. One thread writes, a few connections read (aiosqlite).

Each connection answers from a committed state; the writer's transactions are short, so readers never wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiosqlite
import orjson

from ..domain.errors import Gone, NotFound, Unavailable
from ..domain.nodes import ROOT, NodeId, Spec
from ..domain.search import Filter, Page, Search
from . import rows
from .facts import Kind
from .filters import Fragment, compiled, ordered
from .migrate import migrations, pending
from .port import Applied, CatalogBatch, Distinct, Found, Revision, Stored
from .sqlite_apply import SqliteWriter

__all__ = ["SqliteCatalog"]

_HOW_TO_MAKE = "Start the server with --init, or run: tiled-stream catalog init"
#: In a listing of children a path is only the last key.
_LAST_KEY = -1


class SqliteDialect:
    """SQLite's words for what filters need."""

    def text(self, value: str) -> str:
        return f"CAST({value} AS TEXT)"

    def substring(self, value: str, part: str) -> str:
        return f"instr({value}, {part}) > 0"

    def deep_equal(self, metadata: str, path: str, value: str) -> str:
        return f"deep_equal({metadata}, {path}, {value})"

    def deep_contains(self, metadata: str, path: str, value: str) -> str:
        return f"deep_contains({metadata}, {path}, {value})"


class SqliteCatalog:
    """`path` is the file; with `init` it is made if it is missing. `root_metadata` and `root_specs` describe the root."""

    def __init__(
        self,
        path: Path,
        *,
        init: bool = False,
        root_metadata: dict[str, Any] | None = None,
        root_specs: Sequence[Spec] | None = None,
        readers: int = 2,
    ) -> None:
        self._path = path
        self._init = init
        self._root_metadata = root_metadata
        self._root_specs = root_specs
        self._number_of_readers = readers
        self._dialect = SqliteDialect()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog writer")
        self._writer: SqliteWriter | None = None
        self._connection: sqlite3.Connection | None = None
        self._readers: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()

    async def open(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        for _ in range(self._number_of_readers):
            self._readers.put_nowait(await self._reader())

    async def close(self) -> None:
        while not self._readers.empty():
            await self._readers.get_nowait().close()
        if self._connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
            self._connection = None
        self._thread.shutdown(wait=True)

    async def node(self, id: NodeId) -> Stored:
        found = await self._one(f"SELECT {rows.COLUMNS} FROM nodes n WHERE n.id = ?", (id,))
        if found is not None:
            return rows.stored(found)
        if await self._one("SELECT 1 FROM gone WHERE id = ?", (id,)) is not None:
            raise Gone(f"The node {id} was deleted.")
        raise NotFound(f"The catalog has no node {id}.")

    async def child(self, parent: NodeId, key: str) -> Stored:
        found = await self._one(
            f"SELECT {rows.COLUMNS} FROM nodes n WHERE n.parent = (SELECT row FROM nodes WHERE id = ?) AND n.key = ?",
            (parent, key),
        )
        if found is None:
            raise NotFound(f"The catalog has no node {key!r} there.")
        return rows.stored(found)

    async def children(self, parent: NodeId, search: Search, page: Page) -> Found:
        where = compiled(search.filters, self._dialect)
        joins, order = ordered(search.sort)
        backwards = bool(search.sort) and search.sort[0].key == "" and search.sort[0].descending
        cursor = (
            Fragment("") if page.cursor is None else Fragment(f" AND n.created {'<' if backwards else '>'} ?", (page.cursor,))
        )
        # A filter that names its rows is the better beginning than all children of the parent.
        plus = "+" if where.drives else ""
        sql = (
            f"SELECT {rows.COLUMNS} FROM nodes n {joins.sql} WHERE {plus}n.parent = (SELECT row FROM nodes WHERE id = ?) "
            f"AND {where.sql}{cursor.sql} ORDER BY {order} LIMIT ? OFFSET ?"
        )
        parameters = (*joins.parameters, parent, *where.parameters, *cursor.parameters, page.limit + 1, page.offset)
        found = await self._all(sql, parameters)
        hits = [rows.hit(row, cursor=row[10], above=_LAST_KEY) for row in found[: page.limit]]
        return Found(tuple(hits), len(found) > page.limit)

    async def descendants(self, ancestor: NodeId, search: Search, page: Page, *, max_depth: int | None = None) -> Found:
        above = await self._one("SELECT row, path FROM nodes WHERE id = ?", (ancestor,))
        if above is None:
            return Found((), False)
        backwards = bool(search.sort) and search.sort[0].descending
        where = self._below(search.filters, above[0], max_depth)
        cursor = Fragment("") if page.cursor is None else Fragment(f" AND n.row {'<' if backwards else '>'} ?", (page.cursor,))
        found = await self._all(
            f"SELECT {rows.COLUMNS} FROM ancestry a JOIN nodes n ON n.row = a.node WHERE {where.sql}{cursor.sql} "
            f"ORDER BY n.row {'DESC' if backwards else 'ASC'} LIMIT ? OFFSET ?",
            (*where.parameters, *cursor.parameters, page.limit + 1, page.offset),
        )
        depth = len(orjson.loads(above[1]))
        hits = [rows.hit(row, cursor=row[0], above=depth) for row in found[: page.limit]]
        return Found(tuple(hits), len(found) > page.limit)

    async def count(
        self, parent: NodeId, filters: Sequence[Filter] = (), *, deep: bool = False, max_depth: int | None = None
    ) -> int:
        above = await self._one("SELECT row, children FROM nodes WHERE id = ?", (parent,))
        if above is None:
            return 0
        if not filters and not deep:
            return int(above[1])
        if deep:
            where = self._below(filters, above[0], max_depth)
            sql = f"SELECT count(*) FROM ancestry a JOIN nodes n ON n.row = a.node WHERE {where.sql}"
        else:
            only = compiled(filters, self._dialect)
            where = Fragment(f"{'+' if only.drives else ''}n.parent = ? AND {only.sql}", (above[0], *only.parameters))
            sql = f"SELECT count(*) FROM nodes n WHERE {where.sql}"
        found = await self._one(sql, where.parameters)
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
        where = compiled(filters, self._dialect)
        of = f"n.parent = (SELECT row FROM nodes WHERE id = ?) AND {where.sql}"
        parameters = (parent, *where.parameters)

        async def grouped(column: str) -> list[Any]:
            return await self._all(
                f"SELECT {column}, count(*) FROM nodes n WHERE {of} GROUP BY 1 ORDER BY min(n.row)", parameters
            )

        return Distinct(
            metadata={key: await self._values(key, of, parameters) for key in metadata},
            structure_families=[(f, c) for f, c in await grouped("n.family")] if structure_families else None,
            specs=[(orjson.loads(s), c) for s, c in await grouped("n.specs")] if specs else None,
        )

    async def revisions(self, id: NodeId, *, offset: int = 0, limit: int = 100) -> tuple[list[Revision], int]:
        whose = "FROM revisions r WHERE r.node = (SELECT row FROM nodes WHERE id = ?)"
        count = await self._one(f"SELECT count(*) {whose}", (id,))
        found = await self._all(
            f"SELECT r.number, r.metadata, r.specs, r.access_tags, r.time {whose} ORDER BY r.number LIMIT ? OFFSET ?",
            (id, limit, offset),
        )
        return [rows.revision(row) for row in found], int(count[0]) if count is not None else 0

    async def apply(self, batches: Sequence[CatalogBatch]) -> list[Applied]:
        writer = self._writer
        if writer is None:
            raise Unavailable("The catalog is not open.")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, writer.apply, batches)
        except sqlite3.OperationalError as error:
            raise Unavailable(f"The catalog {self._path} cannot be written now: {error}") from error

    # ------------------------------------------------------------- inside

    def _below(self, filters: Sequence[Filter], row: int, max_depth: int | None) -> Fragment:
        where = compiled(filters, self._dialect)
        depth = Fragment("") if max_depth is None else Fragment(" AND a.depth <= ?", (max_depth,))
        return Fragment(f"a.ancestor = ? AND {where.sql}{depth.sql}", (row, *where.parameters, *depth.parameters))

    async def _values(self, key: str, of: str, parameters: tuple[Any, ...]) -> list[tuple[Any, int]]:
        """Distinct values at one metadata path. Scalars are grouped by SQL, lists and objects here."""
        joined = "LEFT JOIN facts f ON f.node = n.row AND f.path = (SELECT id FROM paths WHERE path = ?)"
        deep = f"f.kind IN ({int(Kind.LIST)}, {int(Kind.LONG_LIST)}, {int(Kind.OBJECT)})"
        found = await self._all(
            f"SELECT f.kind, f.value, count(*) FROM nodes n {joined} WHERE {of} AND (f.kind IS NULL OR NOT {deep}) "
            "GROUP BY CASE WHEN f.kind IS NULL THEN 6 ELSE f.kind END, f.value ORDER BY min(n.row)",
            (key, *parameters),
        )
        values: dict[str, tuple[Any, int]] = {}
        for kind, value, count in found:
            value = None if kind is None else bool(value) if kind == Kind.BOOLEAN else value
            values[json.dumps(value)] = (value, count)
        for (metadata,) in await self._all(f"SELECT n.metadata FROM nodes n {joined} WHERE {of} AND {deep}", (key, *parameters)):
            value = _at(orjson.loads(metadata), key)
            text = json.dumps(value, sort_keys=True)
            values[text] = (value, values.get(text, (value, 0))[1] + 1)
        return list(values.values())

    def _open(self) -> None:
        """In the writer's thread: connect, bring the shape up to date, put the root in."""
        if not self._path.exists() and not self._init:
            raise Unavailable(f"There is no catalog {self._path}. {_HOW_TO_MAKE} {self._path}")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(self._path, isolation_level=None)
            for pragma in ("busy_timeout = 5000", "journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._migrate(self._connection)
        except sqlite3.DatabaseError as error:
            raise Unavailable(f"{self._path} cannot be opened as a catalog: {error}") from error
        self._writer = SqliteWriter(self._connection)
        self._writer.edit_root(self._root_metadata, self._root_specs)

    def _migrate(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        try:
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables and "schema_steps" not in tables:
                raise Unavailable(f"{self._path} is a database of another application; it is left alone. Choose another file.")
            if not tables and not self._init:
                raise Unavailable(f"The catalog {self._path} is not initialised. {_HOW_TO_MAKE} {self._path}")
            db.execute("CREATE TABLE IF NOT EXISTS schema_steps (number INTEGER PRIMARY KEY, name TEXT, digest TEXT, time TEXT)")
            applied = dict(db.execute("SELECT number, digest FROM schema_steps"))
            for step in pending(migrations("sqlite"), applied, where=str(self._path)):
                for statement in _statements(step.sql):
                    db.execute(statement)
                db.execute("INSERT INTO schema_steps VALUES (?, ?, ?, datetime('now'))", (step.number, step.name, step.digest))
            db.execute(
                "INSERT OR IGNORE INTO nodes (id, key, path, family, metadata, specs, access_tags, data_sources, words, created, "
                "time_created, time_updated) VALUES (?, '', '[]', 'container', '{}', '[]', '[]', '[]', '', 0, 0, 0)",
                (ROOT,),
            )
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise

    async def _reader(self) -> aiosqlite.Connection:
        reader = await aiosqlite.connect(self._path, isolation_level=None)
        for pragma in ("busy_timeout = 5000", "query_only = ON", "case_sensitive_like = ON"):
            await reader.execute(f"PRAGMA {pragma}")
        await reader.create_function("deep_equal", 3, _deep_equal, deterministic=True)
        await reader.create_function("deep_contains", 3, _deep_contains, deterministic=True)
        return reader

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[aiosqlite.Connection]:
        reader = await self._readers.get()
        try:
            yield reader
        finally:
            self._readers.put_nowait(reader)

    async def _all(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        async with self._reading() as reader:
            return list(await reader.execute_fetchall(sql, parameters))

    async def _one(self, sql: str, parameters: Sequence[Any]) -> Any | None:
        found = await self._all(sql, parameters)
        return found[0] if found else None


def _statements(script: str) -> list[str]:
    """The statements of a script, split where SQLite says that one is complete (comments may hold semicolons)."""
    statements, pending_lines = [], ""
    for line in script.splitlines(keepends=True):
        pending_lines += line
        if sqlite3.complete_statement(pending_lines):
            statements.append(pending_lines)
            pending_lines = ""
    return statements


def _at(metadata: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(metadata, dict) or key not in metadata:
            return None
        metadata = metadata[key]
    return metadata


def _deep_equal(metadata: str, path: str, value: str) -> bool:
    return _same(_at(orjson.loads(metadata), path), orjson.loads(value))


def _deep_contains(metadata: str, path: str, value: str) -> bool:
    found, wanted = _at(orjson.loads(metadata), path), orjson.loads(value)
    return isinstance(found, list) and any(_same(element, wanted) for element in found)


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON: 1 is 1.0, but neither is true."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return bool(a == b)
