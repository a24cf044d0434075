"""Connections to PostgreSQL for storage: the URI as people write it, a pool, transactions, and what goes wrong as `Unavailable`.

What must stay true: no password leaves this file, neither in a URI that is told to others nor in an error. Only an error that
lies in the data themselves comes out as it is; all others are the server's, or its operator's, and nothing is given up for them.
A connection on which something went wrong, was cancelled or took too long is closed, and the server rolls back.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import asyncpg  # type: ignore[import-untyped]

from ..domain.errors import Malformed, Unavailable
from ..domain.uris import redacted

__all__ = ["Database", "Session", "public_uri"]

_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
#: Hosts with ports, separated by commas; IPv6 in brackets.
_PLACE = re.compile(r"(?:(?:\[[0-9a-fA-F:.]+\]|[^:,@\[\]]*)(?::\d+)?(?:,(?!\Z)|\Z))*\Z")
_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 30.0
#: Seconds that the work on a connection may take; a COPY begins them anew with each piece.
PATIENCE = 120.0
#: Locks are waited for and held for so long at most, also when the process that holds them hangs or its network is gone.
_BEGIN = "BEGIN; SET LOCAL lock_timeout = '30s'; SET LOCAL idle_in_transaction_session_timeout = '120s'"
#: What SQLAlchemy's dialect for asyncpg calls otherwise; 0 is for PgBouncer, which hands out connections by transaction.
_CACHE_SIZE = ("statement_cache_size", "prepared_statement_cache_size")
#: Classes of SQLSTATE that lie in the data: data exceptions, and limits of the program.
_OF_THE_DATA = ("22", "54")


class Session:
    """A connection for oneself. If the server cannot do a step: `Unavailable`; if a table is gone: `UndefinedTableError`."""

    def __init__(self, connection: Any, limit: asyncio.Timeout, shown: str) -> None:
        self._connection = connection
        self._limit = limit
        self._shown = shown

    async def execute(self, sql: str, *arguments: object) -> None:
        """One statement, or several without arguments."""
        with _faults(self._shown):
            await self._connection.execute(sql, *arguments)

    async def value(self, sql: str, *arguments: object) -> Any:
        """The first value of the first row, None if there is none."""
        with _faults(self._shown):
            return await self._connection.fetchval(sql, *arguments)

    async def rows(self, sql: str, *arguments: object) -> list[Any]:
        """All rows, each like a tuple."""
        with _faults(self._shown):
            found: list[Any] = await self._connection.fetch(sql, *arguments)
        return found

    async def put(self, schema: str, table: str, columns: Sequence[str], pieces: AsyncIterable[bytes]) -> None:
        """Binary COPY into a table."""
        with _faults(self._shown):
            await self._connection.copy_to_table(
                table, schema_name=schema, columns=columns, source=self._renewing(pieces), format="binary"
            )

    async def take(self, query: str, sink: Callable[[bytes], Awaitable[None]]) -> None:
        """Binary COPY of what a query finds, cut anywhere; the server waits for `sink`."""

        async def renewing(data: bytes) -> None:
            self._renew()
            await sink(data)

        with _faults(self._shown):
            await self._connection.copy_from_query(query, output=renewing, format="binary")

    async def has_locked(self, table: str) -> bool:
        """Lock a table against everybody else, but do not wait. If not, the transaction can only end, without effect."""
        with _faults(self._shown):
            try:
                await self._connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT")
            except asyncpg.LockNotAvailableError:
                return False
        return True

    def end(self) -> None:
        """Close the connection at once; the server rolls back."""
        with suppress(asyncpg.InterfaceError):  # it was lost, and is no longer ours
            self._connection.terminate()

    async def _renewing(self, pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            self._renew()
            yield piece

    def _renew(self) -> None:
        """It goes on: from now, the time is as long as ever."""
        self._limit.reschedule(max(self._limit.when() or 0.0, asyncio.get_running_loop().time() + PATIENCE))


class Database:
    """A pool of at most `pool_size` connections, made when they are needed. `uri`: see `public_uri`."""

    def __init__(self, uri: str, *, pool_size: int, check: Callable[[Any], Awaitable[None]] | None = None) -> None:
        self._check = check
        self._shown = redacted(uri)
        self._dsn, self._options = _connect_arguments(uri)
        self._pool_size = pool_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        """Make the pool; nothing is connected yet. Idempotent."""
        if self._pool is None:
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=0,
                max_size=self._pool_size,
                init=self._check,
                reset=_keep,
                timeout=_CONNECT_SECONDS,
                server_settings={"application_name": "tiled_stream tables"},
                **self._options,
            )

    async def close(self) -> None:
        """Wait until all connections are given back, then close them. Idempotent."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        with suppress(TimeoutError):  # the pool has cut off those that did not come back
            async with asyncio.timeout(_CLOSE_SECONDS):
                await pool.close()

    @asynccontextmanager
    async def session(self, *, seconds: float = PATIENCE) -> AsyncIterator[Session]:
        """A connection, for so long at most, unless a COPY goes on. `Unavailable` if there is none."""
        if self._pool is None:
            raise Unavailable(f"The table storage {self._shown} is not open.")
        try:
            async with asyncio.timeout(seconds) as limit:
                with _faults(self._shown):
                    connection = await self._pool.acquire()
                session = Session(connection, limit, self._shown)
                try:
                    yield session
                except (asyncio.CancelledError, Unavailable):
                    session.end()  # who knows in what state
                    raise
                finally:
                    await self._pool.release(connection)
        except TimeoutError as error:
            raise Unavailable(f"The table storage {self._shown} does not answer.") from error

    @asynccontextmanager
    async def transaction(self, *, seconds: float = PATIENCE) -> AsyncIterator[Session]:
        """A session in a transaction, which is committed at the end, or rolled back."""
        async with self.session(seconds=seconds) as session:
            await session.execute(_BEGIN)
            try:
                yield session
            except Unavailable:
                raise  # the connection is closed
            except Exception:
                await session.execute("ROLLBACK")
                raise
            await session.execute("COMMIT")


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


async def _keep(connection: object) -> None:
    """Nothing is left behind in a session that another would trip over: each round trip saved is a tenth of a small write."""
