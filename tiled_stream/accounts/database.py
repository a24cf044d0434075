"""One database of accounts, SQLite or PostgreSQL: the little SQL that both understand, with `?` for arguments.

Whoever keeps something else in the same simple way (webhooks) gives its own `schema` and what it is `called`.

What must stay true: a transaction is whole or not at all; whoever fails to reach the database is told `Unavailable`, without the
password that the URI may hold.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import aiosqlite

from ..domain.errors import Unavailable
from ..domain.uris import redacted

if TYPE_CHECKING:
    from ..sql.postgres import Link, Pool

__all__ = ["SCHEMA", "Connection", "Database", "PostgresDatabase", "SqliteDatabase", "database_at"]

Row = Sequence[Any]

#: Everything of accounts is in this schema of a PostgreSQL database.
SCHEMA = "tiled_stream_accounts"
_CALLED = "accounts"
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
#: Seconds that the server may work on one statement. One that is not worked on fails within 10 seconds (`sql/postgres.py`).
_STATEMENT_SECONDS = 30.0


class Connection(Protocol):
    """Inside of one transaction."""

    async def rows(self, sql: str, *args: Any) -> list[Row]: ...

    async def run(self, sql: str, *args: Any) -> int:
        """How many rows it changed."""
        ...


class Database(Protocol):
    """Not for use before `open`. `shown` names it without a password; `called` is what it is a database of."""

    @property
    def shown(self) -> str: ...

    @property
    def called(self) -> str: ...

    async def open(self, *, init: bool) -> None:
        """With `init` a file that is missing is made."""
        ...

    async def close(self) -> None:
        """Waits for what is running. Idempotent."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Connection]:
        """Commits at its end, rolls back if it fails or is cancelled."""
        ...

    async def hold(self, db: Connection, table: str, *, init: bool) -> bool:
        """Until the transaction ends nobody else shapes the tables. True if `table` is there; with `init` there is a place for
        it afterwards. `Unavailable` if the database is somebody else's."""
        ...


def database_at(uri: str) -> Database:
    """By its URI: ``sqlite:///PATH`` or a path, ``sqlite://`` for one in memory, or ``postgresql://``."""
    if re.match(r"postgres(ql)?(\+asyncpg)?://", uri):
        return PostgresDatabase(re.sub(r"^\w+(\+\w+)?://", "postgresql://", uri))
    path = re.sub(r"^sqlite(\+\w+)?://", "", uri)
    memory = path in ("", "/", "/:memory:", ":memory:")
    return SqliteDatabase(None if memory else Path("/" + path.lstrip("/") if path.startswith("/") else path).absolute())


class SqliteDatabase:
    """A file, or None: in memory. One connection; transactions wait for each other, and for those of other processes.

    No write-ahead log: setting one up would change a file that turns out to be somebody else's, and little is written.
    """

    def __init__(self, path: Path | None, *, called: str = _CALLED) -> None:
        self.called = called
        self.shown = "in memory" if path is None else str(path)
        self._path = path
        self._db: aiosqlite.Connection | None = None
        self._turn = asyncio.Lock()

    async def open(self, *, init: bool) -> None:
        """`Unavailable` if the file is missing or cannot be opened."""
        try:
            if self._path is not None:
                await asyncio.to_thread(_checked, self._path, init=init)
            self._db = await aiosqlite.connect(self._path or ":memory:", isolation_level=None)
            for pragma in ("busy_timeout = 10000", "foreign_keys = ON"):
                await self._db.execute(f"PRAGMA {pragma}")
        except (OSError, sqlite3.Error) as error:
            await self.close()
            raise Unavailable(f"The database of {self.called} {self.shown} cannot be opened: {error}") from error

    def is_there(self) -> bool:
        """Is there a file?"""
        return self._path is not None and self._path.exists()

    async def close(self) -> None:
        """Idempotent."""
        async with self._turn:
            db, self._db = self._db, None
            if db is not None:
                await db.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """See `Database`."""
        async with self._turn:
            if self._db is None:
                raise Unavailable(f"The database of {self.called} is closed.")
            try:
                try:
                    await self._db.execute("BEGIN IMMEDIATE")
                    yield _Sqlite(self._db)
                    await self._db.execute("COMMIT")
                except BaseException:
                    # Statements are done in the order in which they were asked for, also if nobody waits for them any more:
                    # this one comes after a BEGIN whose asker was cancelled. Without one it fails, and that is all right.
                    with suppress(sqlite3.OperationalError):
                        await self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise Unavailable(f"The database of {self.called} {self.shown} cannot be used now: {error}") from error

    async def hold(self, db: Connection, table: str, *, init: bool) -> bool:
        """The transaction alone keeps others out."""
        names = {row[0] for row in await db.rows(_TABLES)}
        if names and table not in names:
            raise Unavailable(
                f"{self.shown} is a database of another kind; it is left alone. Choose another file for {self.called}."
            )
        return bool(names)


class _Sqlite:
    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db

    async def rows(self, sql: str, *args: Any) -> list[Row]:
        return [tuple(row) for row in await self._db.execute_fetchall(sql, args)]

    async def run(self, sql: str, *args: Any) -> int:
        async with self._db.execute(sql, args) as cursor:
            return cursor.rowcount


def _checked(path: Path, *, init: bool) -> None:
    if not path.exists():
        if not init:
            raise Unavailable(
                f"There is no database of accounts {path}. Run `tiled-stream admin initialize-database {path}`, or set "
                "database.init_if_not_exists."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # who uses a server is nobody else's business
    # Tried first: aiosqlite leaves its thread behind where a file cannot be opened.
    sqlite3.connect(path).close()


class PostgresDatabase:
    """A few connections, made when they are needed."""

    def __init__(
        self,
        uri: str,
        *,
        pool_size: int = 3,
        schema: str = SCHEMA,
        called: str = _CALLED,
        statement_cache_size: int | None = None,
    ) -> None:
        self.called = called
        self.shown = redacted(uri)
        self._schema = schema
        self._uri = uri
        self._pool_size = pool_size
        self._options = {} if statement_cache_size is None else {"statement_cache_size": statement_cache_size}
        self._pool: Pool | None = None

    async def open(self, *, init: bool) -> None:
        """`Unavailable` if the server does not answer."""
        from ..sql.postgres import Pool  # heavy, and SQLite needs it not

        pool = Pool(
            self._uri,
            size=self._pool_size,
            settings={
                "search_path": self._schema,
                "application_name": f"tiled_stream {self.called}",
                "idle_in_transaction_session_timeout": "10s",  # a process that is paused must not hold the lock
            },
            options=self._options,
        )
        with self._faults():
            try:
                await pool.open(connections=1)
            except ValueError:  # its sentence may hold what follows a password that was not escaped
                raise Unavailable(
                    f"{self.shown!r} names no PostgreSQL database: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, and "
                    "what a password has of @:/?#% in escapes (%40 for @)."
                ) from None
        self._pool = pool

    async def close(self) -> None:
        """Idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """See `Database`."""
        if self._pool is None:
            raise Unavailable(f"The database of {self.called} is closed.")
        with self._faults():
            async with self._pool.transaction(limit=_STATEMENT_SECONDS) as link:
                yield _Postgres(link)

    async def hold(self, db: Connection, table: str, *, init: bool) -> bool:
        """An advisory lock keeps others out."""
        await db.rows(f"SELECT pg_advisory_xact_lock(741631121, hashtext('{self._schema}'))")
        is_there = bool((await db.rows("SELECT to_regclass(?::text) IS NOT NULL", f"{self._schema}.{table}"))[0][0])
        if init and not is_there:
            await db.run(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
        return is_there

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """What goes wrong inside, told without what was asked: it holds digests and names."""
        import asyncpg  # type: ignore[import-untyped]

        try:
            yield
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            why = type(error).__name__
            raise Unavailable(f"The database of {self.called} {self.shown} cannot be used now: {why}") from error


class _Postgres:
    def __init__(self, link: Link) -> None:
        self._link = link

    async def rows(self, sql: str, *args: Any) -> list[Row]:
        return [tuple(row) for row in await self._link.fetch(_numbered(sql), *args)]

    async def run(self, sql: str, *args: Any) -> int:
        done = await self._link.execute(_numbered(sql), *args)
        count = done.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0


@lru_cache(maxsize=256)
def _numbered(sql: str) -> str:
    """PostgreSQL wants its arguments by number. No text in our SQL holds a question mark."""
    pieces = sql.split("?")
    return "".join(piece + (f"${n}" if n < len(pieces) else "") for n, piece in enumerate(pieces, 1))
