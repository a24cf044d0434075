"""A pool of PostgreSQL connections that are never waited for in vain.

A connection that became half-open (a firewall or proxy that stopped forwarding, a host that vanished) cannot be
distinguished from one whose server is busy, but by asking. So time is limited in this way:

- Connecting takes `CONNECT_SECONDS` at most, and a connection is free or made within `ACQUIRE_SECONDS`.
- What waits for the server for `SILENT_SECONDS` has the server asked, over a connection of its own, whether it works on that
  statement. As long as it does, the statement goes on: large transfers and long searches are not cut. If it does not, or if the
  server cannot be asked, the statement fails within 10 seconds in all.
- `limit` ends statements on which the server works for ever.
- TCP keepalive finds idle connections that are dead.

What must stay true: a connection on which a statement was given up is terminated, and nothing more is awaited on it; the idle
connections of the pool go with it, for they went the same way. A statement whose caller was cancelled is cancelled at the server.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from weakref import WeakSet

import asyncpg  # type: ignore[import-untyped]

from .server_processes import ServerProcesses

__all__ = ["Link", "Pool", "ServerSilentError"]

T = TypeVar("T")

CONNECT_SECONDS = 4.0
ACQUIRE_SECONDS = 9.0
SILENT_SECONDS = 4.0
#: Seconds for an answer that was on its way while the server was asked. With `SILENT_SECONDS` and `ASK_SECONDS` less than 10.
GRACE_SECONDS = 1.0
#: Rows that are sent at a time.
SLICE = 1000
#: Seconds until the server has acknowledged that a statement is cancelled, or a transaction rolled back; else the connection is
#: terminated, to the same end.
CANCEL_SECONDS = 2.0
#: Connections that do not say goodbye within this time are cut off.
CLOSE_SECONDS = 8.0
#: Not every platform has all of these. Idle connections are probed after 5 s and dead after 11; what is sent is acknowledged
#: within 9 s.
_TCP = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 9000}
#: SQLSTATEs after which the server closes the connection: lost, shut down, idle for too long in a transaction.
_GOODBYE = ("08", "57P", "25P03")


class ServerSilentError(ConnectionError):
    """The server does not work on a statement, and does not answer either."""


class Link:
    """A connection for oneself: the statements of asyncpg, each of them watched. Made by `Pool`."""

    def __init__(self, pool: Pool, home: Any, connection: Any, limit: float) -> None:
        self._pool = pool
        # asyncpg's pool, which the connection goes back to.
        self._home = home
        self._connection = connection
        self._limit = limit
        #: The number of the server's process.
        self.number: int = connection.get_server_pid()
        self._loop = asyncio.get_running_loop()
        # When the server was last heard of, or asked for something; None while nothing waits for it.
        self._heard: float | None = None
        # Is it in a state that nothing more can be done with?
        self._is_broken = False
        self._was_cancelled = False
        self._why: str | None = None
        # One timer for all statements: it looks how long the present one has been silent. Cheaper than a timeout for each.
        self._timer = self._loop.call_later(SILENT_SECONDS, self._look)
        self._asking: asyncio.Task[None] | None = None

    async def execute(self, sql: str, *arguments: object) -> str:
        """One statement, or several without arguments. Returns what the server says was done."""
        return str(await self._watched(self._connection.execute(sql, *arguments)))

    async def executemany(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """One statement with many rows. Sent in slices: how far a long one is cannot be seen from outside."""
        for begin in range(0, len(rows), SLICE):
            some = rows[begin : begin + SLICE] if len(rows) > SLICE else rows
            await self._watched(self._connection.executemany(sql, some))

    async def fetch(self, sql: str, *arguments: object) -> list[Any]:
        """All rows, each like a tuple."""
        return list(await self._watched(self._connection.fetch(sql, *arguments)))

    async def fetchrow(self, sql: str, *arguments: object) -> Any:
        """The first row, None if there is none."""
        return await self._watched(self._connection.fetchrow(sql, *arguments))

    async def fetchval(self, sql: str, *arguments: object) -> Any:
        """The first value of the first row, None if there is none."""
        return await self._watched(self._connection.fetchval(sql, *arguments))

    async def copy_in(self, schema: str, table: str, columns: Sequence[str], pieces: AsyncIterable[bytes]) -> None:
        """Binary COPY into a table. While a piece is made the server is not waited for."""
        given = self._given(pieces)
        copy = self._connection.copy_to_table(table, schema_name=schema, columns=columns, source=given, format="binary")
        await self._copied(copy)

    async def copy_out(self, query: str, sink: Callable[[bytes], Awaitable[None]]) -> None:
        """Binary COPY of what a query finds, cut anywhere. While `sink` works the server is not waited for."""

        async def taken(data: bytes) -> None:
            self._heard = None
            await sink(data)
            self._heard = self._loop.time()

        await self._copied(self._connection.copy_from_query(query, output=taken, format="binary"))

    async def roll_back(self) -> None:
        """End the transaction without effect; a connection that is broken is closed instead, to the same end."""
        if self._is_broken:
            return
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await self.execute("ROLLBACK")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            self.terminate()

    def terminate(self) -> None:
        """Close the connection at once; the server rolls back."""
        self._is_broken = True
        with suppress(asyncpg.InterfaceError):  # it was lost, and is no longer ours
            self._connection.terminate()

    async def end(self) -> None:
        """Stop watching and give the connection back; one that is broken is closed."""
        self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
        if self._is_broken:
            self.terminate()
        # Where a statement was cancelled, the server has to acknowledge that; if it does not, asyncpg terminates the connection.
        with suppress(TimeoutError):
            await self._home.release(self._connection, timeout=CANCEL_SECONDS if self._was_cancelled else None)

    async def _given(self, pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        self._heard = None
        async for piece in pieces:
            self._heard = self._loop.time()
            yield piece
            self._heard = None
        self._heard = self._loop.time()

    async def _copied(self, copy: Awaitable[object]) -> None:
        try:
            await self._watched(copy)
        except asyncio.CancelledError:
            self._is_broken = True  # data may be under way in either direction
            raise

    async def _watched(self, statement: Awaitable[T]) -> T:
        self._heard = self._loop.time()
        try:
            return await statement
        except asyncio.CancelledError:
            self._was_cancelled = True
            raise
        except BaseException as error:
            self._is_broken |= _breaks(error)
            if self._why is not None:
                raise ServerSilentError(self._why) from error
            raise
        finally:
            self._heard = None

    def _look(self) -> None:
        """When the timer ends: ask about a statement that has been silent for so long; otherwise look again later."""
        due = (self._loop.time() if self._heard is None else self._heard) + SILENT_SECONDS
        if due <= self._loop.time():
            self._asking = self._loop.create_task(self._ask(), name="postgres: asks whether a statement is worked on")
        else:
            self._timer = self._loop.call_at(due, self._look)

    async def _ask(self) -> None:
        heard = self._heard
        while heard is not None and self._heard == heard:
            is_working = await self._pool.processes.is_working(self._connection.get_server_pid())
            if is_working is False:
                # The answer may have been under way, or waits in this busy process to be read.
                await asyncio.sleep(GRACE_SECONDS)
            silent = self._loop.time() - heard
            if self._heard == heard and (is_working is False or silent >= self._limit):
                self._give_up(f"The server does not answer (for {silent:.0f} seconds).")
                return
            if is_working is not False:
                await asyncio.sleep(min(SILENT_SECONDS, max(0.0, self._limit - silent)))
        self._timer = self._loop.call_later(SILENT_SECONDS, self._look)

    def _give_up(self, why: str) -> None:
        """The statement fails where it is awaited."""
        self._why = why
        self.terminate()
        self._pool.drop_idle()
        self._pool.end_process(self.number)


class Pool:
    """At most `size` connections, made when they are needed and made anew when they are lost.

    `check` sees each new connection; the caller that asked for the connection gets what it raises. `options` are those of
    `asyncpg.connect`.
    """

    def __init__(
        self,
        dsn: str,
        *,
        size: int,
        settings: Mapping[str, str],
        options: Mapping[str, Any],
        check: Callable[[Any], Awaitable[None]] | None = None,
    ) -> None:
        self._dsn = dsn
        self._size = size
        self._settings = dict(settings)
        self._options = dict(options)
        self._check = check
        self.processes = ServerProcesses(dsn, settings=self._settings, options=self._options)
        self._pool: Any = None
        self._made: WeakSet[Any] = WeakSet()
        # Process numbers of the connections that are in use, and how many are, or are being made.
        self._busy: set[int] = set()
        self._taken = 0
        # Tasks that end processes of the server.
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Between `open` and `close`."""
        return self._pool is not None

    async def open(self, *, connections: int = 0) -> None:
        """Make the pool, with so many connections at once. Idempotent."""
        if self._pool is None:
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=connections,
                max_size=self._size,
                init=self._init,
                reset=_keep,
                timeout=CONNECT_SECONDS,
                server_settings=self._settings,
                **self._options,
            )

    async def close(self) -> None:
        """Wait until all connections are given back, then close them. Idempotent."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        for task in self._ending:
            task.cancel()
        if self._ending:
            await asyncio.wait(self._ending)
        with suppress(TimeoutError):  # the pool has cut off those that did not come back
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()

    async def acquire(self, *, limit: float) -> Link:
        """A connection for oneself, until `release`. `limit`: seconds that the server may work on one statement."""
        pool = self._pool
        # Nothing is to be waited for while there is room: a timeout more is a tenth of a small read.
        timeout = ACQUIRE_SECONDS if self._taken >= self._size else None
        self._taken += 1
        try:
            connection = await pool.acquire(timeout=timeout)
        except BaseException as error:
            self._taken -= 1
            if isinstance(error, TimeoutError):
                raise TimeoutError("no connection was free, or could be made, in time") from error
            raise
        link = Link(self, pool, connection, limit)
        self._busy.add(link.number)
        return link

    async def release(self, link: Link) -> None:
        """Give it back."""
        try:
            await link.end()
        finally:
            self._busy.discard(link.number)
            self._taken -= 1

    @asynccontextmanager
    async def connection(self, *, limit: float) -> AsyncIterator[Link]:
        """See `acquire`."""
        link = await self.acquire(limit=limit)
        try:
            yield link
        finally:
            await self.release(link)

    @asynccontextmanager
    async def transaction(self, *, limit: float, begin: str = "BEGIN") -> AsyncIterator[Link]:
        """A connection in a transaction, which is committed at the end, or rolled back."""
        async with self.connection(limit=limit) as link:
            try:
                await link.execute(begin)
                yield link
                await link.execute("COMMIT")
            except GeneratorExit:  # nothing can be awaited any more
                link.terminate()
                raise
            except BaseException:
                await link.roll_back()
                raise

    def end_process(self, number: int) -> None:
        """End the server's process of a connection that was given up: its transaction would hold its locks until it times out.

        In the background. If the server cannot be reached, its own timeouts end it later.
        """
        task = asyncio.get_running_loop().create_task(
            self.processes.end(number, age=SILENT_SECONDS), name="postgres: ends a process of the server"
        )
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def drop_idle(self) -> None:
        """Close all idle connections."""
        for connection in list(self._made):
            if not connection.is_closed() and connection.get_server_pid() not in self._busy:
                connection.terminate()

    async def _init(self, connection: Any) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _keep_alive(connection)
                if self._check is not None:
                    await self._check(connection)
        except BaseException:
            connection.terminate()  # asyncpg would wait for the server to close it
            raise
        self._made.add(connection)


def _breaks(error: BaseException) -> bool:
    """Can nothing more be done with the connection? (As opposed to what the server refused, or what could not be encoded.)"""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_GOODBYE)
    if isinstance(error, asyncpg.DataError):  # of the client
        return False
    return isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError)


def _keep_alive(connection: Any) -> None:
    sock = connection._transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP.items():
        option = vars(socket).get(name)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def _keep(connection: object) -> None:
    """Nothing is left behind in a session that another would trip over: each round trip saved is a tenth of a small write."""
