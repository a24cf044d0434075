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
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from ..domain.errors import Malformed, Unavailable
from ..domain.nodes import NodeId, Spec
from ..sql.opened_file import OpenedFile
from . import rows
from .migrate import statements
from .port import Applied, CatalogBatch
from .sql_reads import SqlReads
from .sqlite_apply import SqliteWriter
from .sqlite_dialect import FUNCTIONS, SqliteDialect
from .sqlite_file import connected

__all__ = ["SqliteCatalog"]

T = TypeVar("T")


class SqliteCatalog(SqlReads):
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
        super().__init__(SqliteDialect(), statements("sqlite", columns=rows.COLUMNS))
        self._thread: ThreadPoolExecutor | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._connection: sqlite3.Connection | None = None
        self._writer: SqliteWriter | None = None
        self._readers: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
        self._open_readers = 0
        self._is_open = False

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

    async def apply(self, batches: Sequence[CatalogBatch]) -> list[Applied]:
        """Cancelled: all of it is applied, or nothing. `Unavailable` if the file is busy for longer than 5 seconds, or full."""
        return await self._write(lambda writer: writer.apply(batches))

    async def remember_storage(self, name: str, incarnation: str) -> None:
        """See `Catalog`."""
        await self._write(lambda writer: writer.remember_storage(name, incarnation))

    async def accept_losses(self, nodes: Sequence[NodeId] | None = None) -> int:
        """See `Catalog`."""
        return await self._write(lambda writer: writer.accept_losses(None if nodes is None else self._ids(nodes)))

    # ------------------------------------------------------------- inside

    async def _write(self, work: Callable[[SqliteWriter], T]) -> T:
        """In the writer's thread."""
        writer, thread = self._writer, self._thread
        if writer is None or thread is None or not self._is_open:
            raise Unavailable("The catalog is not open.")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work, writer)
        except sqlite3.Error as error:
            if _is_an_event(error):
                raise
            raise Unavailable(f"The catalog cannot be written now: {error}") from error

    def _ids(self, nodes: Sequence[NodeId]) -> str:
        return rows.json_text(list(nodes))

    def _rows_of(self, which: str) -> str:
        return f"SELECT {rows.COLUMNS} FROM ({which}) w CROSS JOIN nodes n WHERE n.row = w.row"

    async def _all(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        async with self._reading() as reader:
            try:
                return list(await reader.execute_fetchall(sql, parameters))
            except (OverflowError, UnicodeEncodeError) as error:
                raise Malformed(f"A value of this search is none that can be stored: {error}.") from error
            except sqlite3.Error as error:
                raise Unavailable(f"The catalog cannot be read now: {error}") from error

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
        self._writer = SqliteWriter(self._connection, self._sql, file=OpenedFile(path, what="catalog"))
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
