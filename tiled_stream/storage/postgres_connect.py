"""Connections to PostgreSQL for storage: the URI as people write it, transactions, and what goes wrong as `Unavailable`.

What must stay true: no password leaves this file, neither in a URI that is told to others nor in an error. Only an error that
lies in the data themselves comes out as it is; all others are the server's, or its operator's, and nothing is given up for them.
A transaction in which something went wrong, was cancelled or took too long is rolled back.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import asyncpg  # type: ignore[import-untyped]

from ..domain.errors import Malformed, Unavailable
from ..domain.uris import redacted
from ..sql.postgres import Link, Pool

__all__ = ["Database", "Session", "public_uri"]

_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
#: Hosts with ports, separated by commas; IPv6 in brackets.
_PLACE = re.compile(r"(?:(?:\[[0-9a-fA-F:.]+\]|[^:,@\[\]]*)(?::\d+)?(?:,(?!\Z)|\Z))*\Z")
#: Seconds that the server may work on one statement. One that is not worked on fails within 10 seconds (`sql/postgres.py`).
PATIENCE = 120.0
#: Locks are waited for, and held by a process that does nothing, for so long at most: it may be paused, or its network be gone.
#: One that is paused in the middle of a COPY holds its locks until the limit of the statement, `PATIENCE`.
_LIMITS = ("lock_timeout = '8s'", "idle_in_transaction_session_timeout = '10s'")
#: What SQLAlchemy's dialect for asyncpg calls otherwise; 0 is for PgBouncer, which hands out connections by transaction.
_CACHE_SIZE = ("statement_cache_size", "prepared_statement_cache_size")
#: Classes of SQLSTATE that lie in the data: data exceptions, and limits of the program.
_OF_THE_DATA = ("22", "54")


class Session:
    """A connection for oneself. If the server cannot do a step: `Unavailable`; if a table is gone: `UndefinedTableError`."""

    def __init__(self, link: Link, shown: str) -> None:
        self.link = link
        self._shown = shown

    async def execute(self, sql: str, *arguments: object) -> None:
        """One statement, or several without arguments."""
        with _faults(self._shown):
            await self.link.execute(sql, *arguments)

    async def value(self, sql: str, *arguments: object) -> Any:
        """The first value of the first row, None if there is none."""
        with _faults(self._shown):
            return await self.link.fetchval(sql, *arguments)

    async def rows(self, sql: str, *arguments: object) -> list[Any]:
        """All rows, each like a tuple."""
        with _faults(self._shown):
            return await self.link.fetch(sql, *arguments)

    async def put(self, schema: str, table: str, columns: Sequence[str], pieces: AsyncIterable[bytes]) -> None:
        """Binary COPY into a table."""
        with _faults(self._shown):
            await self.link.copy_in(schema, table, columns, pieces)

    async def take(self, query: str, sink: Callable[[bytes], Awaitable[None]]) -> None:
        """Binary COPY of what a query finds, cut anywhere; the server waits for `sink`."""
        with _faults(self._shown):
            await self.link.copy_out(query, sink)

    async def has_locked(self, table: str) -> bool:
        """Lock a table against everybody else, but do not wait. If not, the transaction can only end, without effect."""
        with _faults(self._shown):
            try:
                await self.link.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT")
            except asyncpg.LockNotAvailableError:
                return False
        return True


class Database:
    """A pool of at most `pool_size` connections, made when they are needed. `uri`: see `public_uri`; `check`: see `Pool`."""

    def __init__(self, uri: str, *, pool_size: int, check: Callable[[Any], Awaitable[None]] | None = None) -> None:
        self._shown = redacted(uri)
        self._dsn, self._options = _connect_arguments(uri)
        # PgBouncer passes settings of a session on to the next client of its connection, so there they are made local.
        self._is_shared = self._options.get("statement_cache_size") == 0
        self._check = check
        self._pool = Pool(
            self._dsn,
            size=pool_size,
            settings={"application_name": "tiled_stream tables"},
            options=self._options,
            check=self._begin,
        )

    async def open(self) -> None:
        """Make the pool; nothing is connected yet. Idempotent."""
        await self._pool.open()

    async def close(self) -> None:
        """Wait until all connections are given back, then close them. Idempotent."""
        await self._pool.close()

    @asynccontextmanager
    async def session(self, *, seconds: float = PATIENCE) -> AsyncIterator[Session]:
        """A connection, on each statement of which the server may work for so long. `Unavailable` if there is none."""
        if not self._pool.is_open:
            raise Unavailable(f"The table storage {self._shown} is not open.")
        with _faults(self._shown):
            link = await self._pool.acquire(limit=seconds)
        try:
            yield Session(link, self._shown)
        finally:
            await self._pool.release(link)

    @asynccontextmanager
    async def transaction(self, *, seconds: float = PATIENCE) -> AsyncIterator[Session]:
        """A session in a transaction, which is committed at the end, or rolled back."""
        local = [f"statement_timeout = '{seconds:.0f}s'", *(_LIMITS if self._is_shared else ())]
        async with self.session(seconds=seconds) as session:
            try:
                await session.execute(f"BEGIN; SET LOCAL {'; SET LOCAL '.join(local)}")
                yield session
                await session.execute("COMMIT")
            except GeneratorExit:  # nothing can be awaited any more
                session.link.terminate()
                raise
            except BaseException:
                await session.link.roll_back()
                raise

    async def _begin(self, connection: Any) -> None:
        """What each new connection begins with."""
        if not self._is_shared:
            await connection.execute(f"SET {'; SET '.join(_LIMITS)}")
        if self._check is not None:
            await self._check(connection)


def public_uri(uri: str) -> str:
    """The URI of the database as others may see it: ``postgresql://host:port/database``, without user and password.

    Of the parameters only those that say where the server is are kept.
    """
    parts = urlsplit(uri)
    place = parts.netloc.rpartition("@")[2]
    where = urlencode([(k, v) for k, v in parse_qsl(parts.query) if k in ("host", "port", "dbname", "database")], safe="/,:")
    return f"postgresql://{place}{parts.path}" + (f"?{where}" if where else "")


def _connect_arguments(uri: str) -> tuple[str, dict[str, Any]]:
    """What asyncpg is given: its own kind of URI, and what it takes apart from it."""
    parts = urlsplit(uri)
    user, at, place = parts.netloc.rpartition("@")
    # A password with one of /?# ends the place too early; what follows must not be taken for the name of the database.
    is_cut = "@" in parts.path + parts.query + parts.fragment
    if parts.scheme not in _SCHEMES or is_cut or _PLACE.match(place) is None:
        raise Malformed(
            f"{redacted(uri)!r} names no PostgreSQL database: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, and what a "
            "password has of @:/?#% in escapes (%40 for @)."
        )
    options: dict[str, Any] = {}
    query = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in _CACHE_SIZE:
            if not value.isdecimal():
                raise Malformed(f"{name} in {redacted(uri)!r} must be a number; 0 for PgBouncer in transaction mode.")
            options["statement_cache_size"] = int(value)
        else:
            query.append(("sslmode" if name == "ssl" else name, value))
    if at:
        name, colon, password = user.partition(":")
        options["user"] = unquote(name) or None
        options["password"] = unquote(password) if colon else None
    return f"postgresql://{place}{parts.path}" + (f"?{urlencode(query)}" if query else ""), options


@contextmanager
def _faults(shown: str) -> Iterator[None]:
    try:
        yield
    except asyncpg.UndefinedTableError:
        raise  # the caller knows what to do
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "").startswith(_OF_THE_DATA):
            raise
        raise Unavailable(f"The table storage {shown} cannot be used now: {_sentence(error)}") from error
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        # The last one: the server has said that it goes, but the connection is not closed yet.
        raise Unavailable(f"The table storage {shown} cannot be reached now: {_sentence(error)}") from error


def _sentence(error: BaseException) -> str:
    """What the server says, in one line; a timeout says nothing by itself."""
    return " ".join(str(error).split()) or type(error).__name__
