"""One database of accounts, SQLite or PostgreSQL: the little SQL that both understand, with `?` for arguments.

What must stay true: a transaction is whole or not at all; whoever fails to reach the database is told `Unavailable`, without the
password that the URI may hold.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import aiosqlite

from ..domain.errors import Unavailable
from ..domain.uris import redacted

__all__ = ["Connection", "Database", "PostgresDatabase", "SqliteDatabase", "database_at"]

Row = Sequence[Any]


class Connection(Protocol):
    """Inside of one transaction."""

    async def rows(self, sql: str, *args: Any) -> list[Row]: ...

    async def run(self, sql: str, *args: Any) -> int:
        """How many rows it changed."""
        ...


class Database(Protocol):
    """Not for use before `open`."""

    async def open(self) -> None: ...

    async def close(self) -> None:
        """Idempotent."""
        ...

    def transaction(self) -> Any:
        """An async context manager that gives a `Connection`; commits at its end, rolls back if it fails."""
        ...


def database_at(uri: str) -> Database:
    """By its URI: ``sqlite:///PATH`` or a path, ``sqlite://`` for one in memory, or ``postgresql://``."""
    if re.match(r"postgres(ql)?(\+asyncpg)?://", uri):
        return PostgresDatabase(re.sub(r"^\w+(\+\w+)?://", "postgresql://", uri))
    path = re.sub(r"^sqlite(\+\w+)?://", "", uri)
    memory = path in ("", "/", "/:memory:", ":memory:")
    return SqliteDatabase(None if memory else Path("/" + path.lstrip("/") if path.startswith("/") else path).absolute())


class SqliteDatabase:
    """A file, or None: in memory. One connection; transactions wait for each other."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._db: aiosqlite.Connection | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """`Unavailable` if the file cannot be opened."""
        try:
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                # Tried first: aiosqlite leaves its thread behind where a file cannot be opened.
                sqlite3.connect(self._path).close()
            self._db = await aiosqlite.connect(self._path or ":memory:", isolation_level=None)
            await self._db.execute("PRAGMA busy_timeout = 10000")
            await self._db.execute("PRAGMA journal_mode = WAL")
        except (OSError, sqlite3.Error) as error:
            await self.close()
            raise Unavailable(f"The accounts in {self._path} cannot be opened: {error}") from error

    async def close(self) -> None:
        """Idempotent."""
        db, self._db = self._db, None
        if db is not None:
            await db.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """See `Database`."""
        async with self._lock:
            if self._db is None:
                raise Unavailable("The accounts are closed.")
            try:
                await self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield _Sqlite(self._db)
                except BaseException:
                    await self._db.execute("ROLLBACK")
                    raise
                await self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise Unavailable(f"The accounts in {self._path} cannot be used now: {error}") from error


class _Sqlite:
    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db

    async def rows(self, sql: str, *args: Any) -> list[Row]:
        return [tuple(row) for row in await self._db.execute_fetchall(sql, args)]

    async def run(self, sql: str, *args: Any) -> int:
        async with self._db.execute(sql, args) as cursor:
            return cursor.rowcount


class PostgresDatabase:
    """A few connections."""

    def __init__(self, uri: str, *, pool_size: int = 2) -> None:
        self._uri = uri
        self._pool_size = pool_size
        self._pool: Any = None

    async def open(self) -> None:
        """`Unavailable` if the server does not answer."""
        import asyncpg  # type: ignore[import-untyped]  # heavy, and SQLite needs it not

        try:
            self._pool = await asyncpg.create_pool(
                self._uri, min_size=1, max_size=self._pool_size, timeout=10, command_timeout=30
            )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise self._unavailable(error) from None

    async def close(self) -> None:
        """Idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """See `Database`."""
        import asyncpg

        if self._pool is None:
            raise Unavailable("The accounts are closed.")
        try:
            async with self._pool.acquire(timeout=10) as connection, connection.transaction():
                yield _Postgres(connection)
        except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> Unavailable:
        return Unavailable(f"The accounts in {redacted(self._uri)} cannot be reached: {type(error).__name__}")


class _Postgres:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def rows(self, sql: str, *args: Any) -> list[Row]:
        return [tuple(row) for row in await self._connection.fetch(_numbered(sql), *args)]

    async def run(self, sql: str, *args: Any) -> int:
        done: str = await self._connection.execute(_numbered(sql), *args)
        count = done.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0


def _numbered(sql: str) -> str:
    """PostgreSQL wants its arguments by number."""
    pieces = sql.split("?")
    return "".join(piece + (f"${n}" if n < len(pieces) else "") for n, piece in enumerate(pieces, 1))
