"""Connections to the PostgreSQL of a catalog: the URI as people write it, its settings, and what goes wrong as `Unavailable`.

What must stay true: no password is in an error. An event that cannot be written comes out as it is; everything else is the
server's affair and can be tried again.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg  # type: ignore[import-untyped]

from ..domain.errors import Malformed, StorageMissing, Unavailable
from ..domain.uris import redacted
from ..sql.postgres import Link, Pool

__all__ = ["SCHEMA", "Database", "dsn_of"]

#: Everything of the catalog is in this schema of the database.
SCHEMA = "tiled_stream_catalog"
_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
#: Seconds that the server may work on one statement. One that is not worked on fails within 10 seconds (`sql/postgres.py`).
_STATEMENT_SECONDS = 60.0
#: Parameters of the URI that are asyncpg's, not the server's; 0 is for PgBouncer in transaction mode.
_CACHE_SIZE = ("statement_cache_size", "prepared_statement_cache_size")
#: Hosts with ports, separated by commas; IPv6 in brackets.
_PLACE = re.compile(r"(?:(?:\[[0-9a-fA-F:.]+\]|[^:,@\[\]]*)(?::\d+)?(?:,(?!\Z)|\Z))*")
#: Classes of SQLSTATE that lie in what is written: data exceptions, violated constraints, limits of the program.
_OF_THE_EVENT = ("22", "23", "54")
#: Another transaction was in the way; the same can be done again at once.
AGAIN = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)


class Database:
    """At most `pool_size` connections, made when they are needed and made anew when they are lost."""

    def __init__(self, uri: str, *, pool_size: int) -> None:
        #: Since the catalog was opened: what each new connection must find.
        self.identity: str | None = None
        self.shown = redacted(uri)
        dsn, cache_size = dsn_of(uri)
        self._pool = Pool(
            dsn,
            size=pool_size,
            settings={
                "search_path": SCHEMA,
                "application_name": "tiled_stream catalog",
                # A process that is paused must not hold the lock of the writers for longer. Who waits for it behind one that
                # works waits for `_STATEMENT_SECONDS`; so there is no lock_timeout.
                "idle_in_transaction_session_timeout": "10s",
                "jit": "off",  # questions are short
            },
            options={} if cache_size is None else {"statement_cache_size": cache_size},
            check=self._init,
        )

    async def open(self) -> None:
        """Make the pool. `Unavailable` if the server cannot be reached."""
        with self.faults():
            await self._pool.open()

    async def close(self) -> None:
        """Wait for what is running, then leave no connection. Idempotent."""
        await self._pool.close()

    async def _init(self, connection: Any) -> None:
        """Let bytes be given as text (keys of metadata are), and check that this is the catalog that was opened.

        It may have been dropped and restored under the running server, or its name may lead to another server.
        """
        await connection.set_type_codec("bytea", schema="pg_catalog", encoder=_bytes, decoder=bytes, format="binary")
        if self.identity is None:
            return
        found: str | None = None
        with suppress(asyncpg.UndefinedTableError):
            found = await connection.fetchval("SELECT identity FROM deployment")
        if found != self.identity:
            raise StorageMissing(
                f"The catalog {self.shown} is not the one that this server was started with: that had the identity "
                f"{self.identity}, this one has {found or 'none'}. Restore the former one, or restart the servers to use this "
                "one."
            )

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Link]:
        """A connection for oneself."""
        if not self._pool.is_open:
            raise Unavailable("The catalog is not open.")
        with self.faults():
            async with self._pool.connection(limit=_STATEMENT_SECONDS) as link:
                yield link

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Link]:
        """A connection in a transaction, which is committed at the end, or rolled back."""
        if not self._pool.is_open:
            raise Unavailable("The catalog is not open.")
        with self.faults():
            async with self._pool.transaction(limit=_STATEMENT_SECONDS) as link:
                yield link

    @contextmanager
    def faults(self) -> Iterator[None]:
        """What goes wrong inside, told as what it is."""
        try:
            yield
        except asyncpg.PostgresError as error:
            if (error.sqlstate or "").startswith(_OF_THE_EVENT) or isinstance(error, AGAIN):
                raise
            raise Unavailable(f"The catalog {self.shown} cannot be used now: {_sentence(error)}") from error
        except asyncpg.DataError:
            raise
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise Unavailable(f"The catalog {self.shown} cannot be reached now: {_sentence(error)}") from error


def dsn_of(uri: str) -> tuple[str, int | None]:
    """What asyncpg takes, and its setting that people write into URIs: the size of its cache of statements."""
    shown = redacted(uri)
    parts = urlsplit(uri)
    # A password with one of /?# ends the place too early; what follows must not be taken for something else, nor be shown.
    is_cut = "@" in parts.path + parts.query + parts.fragment
    if parts.scheme not in _SCHEMES or is_cut or not _PLACE.fullmatch(parts.netloc.rpartition("@")[2]):
        raise Malformed(
            f"{shown!r} names no PostgreSQL database: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, and what a password "
            "has of @:/?#% in escapes (%40 for @)."
        )
    size: int | None = None
    query = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in _CACHE_SIZE:
            if not value.isdecimal():
                raise Malformed(f"{name} in {shown!r} must be a number.")
            size = int(value)
        else:
            query.append(("sslmode" if name == "ssl" else name, value))
    return urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(query), "")), size


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
