"""The processes of a PostgreSQL server that serve our connections, asked about over a connection of its own.

What must stay true: an answer comes within `ASK_SECONDS`, and no process is ended but that of a connection that was given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import asyncpg  # type: ignore[import-untyped]

__all__ = ["ASK_SECONDS", "ServerProcesses"]

ASK_SECONDS = 3.0
#: A row in any case; without a state there is no such process.
_STATE = (
    "SELECT pg_backend_pid(), a.state, a.wait_event FROM (SELECT 1) AS one "
    "LEFT JOIN pg_stat_activity a ON a.pid = $1 AND a.datname = current_database()"
)
#: Ends the server's process of a connection that was given up, so that the locks of its transaction are released. One that
#: is younger than the silence is another one with the same number.
_END = (
    "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.pid = $1 AND a.datname = current_database() "
    "AND a.usename = current_user AND a.backend_start < clock_timestamp() - make_interval(secs => $2)"
)


class ServerProcesses:
    """`options` are those of `asyncpg.connect`."""

    def __init__(self, dsn: str, *, settings: Mapping[str, str], options: Mapping[str, Any]) -> None:
        self._dsn = dsn
        self._settings = dict(settings)
        self._options = dict(options)

    async def is_working(self, number: int) -> bool | None:
        """Does the server work on a statement of this process of its own? None: that cannot be known.

        Behind PgBouncer it cannot, for the number is not that of a process. `limit` ends it there.
        """
        try:
            async with asyncio.timeout(ASK_SECONDS):
                connection = await asyncpg.connect(self._dsn, server_settings=self._settings, **self._options)
                try:
                    own, state, waits_for = await connection.fetchrow(_STATE, number)
                    is_direct = own == connection.get_server_pid()
                finally:
                    connection.terminate()
        except OSError:  # TimeoutError is one
            return False
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            return None  # it answers, but has no room for one more, say
        if state is None:
            return False if is_direct else None
        if state == "active":
            return waits_for not in ("ClientRead", "ClientWrite")  # for us, who wait for it
        return None if state == "disabled" else False

    async def end(self, number: int, *, age: float) -> None:
        """End this process, unless it is younger than `age` seconds. Nothing happens if the server cannot be reached."""
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            async with asyncio.timeout(ASK_SECONDS):
                connection = await asyncpg.connect(self._dsn, server_settings=self._settings, **self._options)
                try:
                    await connection.execute(_END, number, age)
                finally:
                    connection.terminate()
