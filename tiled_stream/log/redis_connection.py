"""One connection of redis-py, kept as long as it works: many commands are sent in one go, and their answers read in order.

redis-py brings address, TLS, passwords, Sentinels and the protocol. Its pools and pipelines are left out, for they cost more than
the commands do.

What must stay true: after a failure nothing is read from the old connection any more, so an answer belongs to its command.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import ResponseError

from .redis_connect import let_go

__all__ = ["Command", "Connection", "Ready"]

#: What is sent; or a function that makes it for the run id of the Redis server that the connection reaches.
Ready = tuple[Any, ...]
Command = Ready | Callable[[str], Ready]


_INFO: Ready = ("INFO", "server")


class Connection:
    """For one task at a time. `seconds`: how long all answers together may take."""

    def __init__(self, client: Redis, *, seconds: float) -> None:
        self._client = client
        self._seconds = seconds
        self._connection: Any = None
        #: Whether the last exchange may have reached the server.
        self.was_sent = False
        #: Run id of the Redis server that gave the last answers: a restarted one, or a replica that took over, has another.
        self.instance = ""
        self._is_doubtful = False

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, in order; an error that Redis answers is a value. Raises what redis-py raises, and `TimeoutError`."""
        self.was_sent = False
        try:
            async with asyncio.timeout(self._seconds):
                is_new = self._connection is None
                if self._connection is None:
                    self._connection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
                else:
                    if self._is_lost() or self._is_doubtful:
                        await self._connection.disconnect(nowait=True)
                    if not self._connection.is_connected:
                        await self._connection.connect()  # behind Sentinels: to the master that they name now
                        is_new = True
                if is_new:
                    await self._meet()
                ready = [command(self.instance) if callable(command) else command for command in commands]
                packed = b"".join([hiredis.pack_command(command) for command in ready])
                self.was_sent = True
                await self._connection.send_packed_command(packed, check_health=False)
                return [await self._answer() for _ in commands]
        except BaseException:
            if self._connection is not None:
                await self._connection.disconnect(nowait=True)
            raise

    def doubt(self) -> None:
        """Connect anew before the next exchange: this connection may reach a server that is not the master any more."""
        self._is_doubtful = True

    async def close(self) -> None:
        """Let go of it."""
        if self._connection is not None:
            await self._client.connection_pool.release(self._connection)
        await let_go(self._client)

    async def _meet(self) -> None:
        """Ask a server that was just connected who it is."""
        await self._connection.send_packed_command(hiredis.pack_command(_INFO), check_health=False)
        answer = await self._answer()
        if isinstance(answer, ResponseError):
            raise answer
        found = [line for line in answer.decode().splitlines() if line.startswith("run_id:")]
        self.instance = found[0].partition(":")[2].strip() if found else ""
        self._is_doubtful = False

    def _is_lost(self) -> bool:
        """Whether the server has hung up. What is sent all the same would be in doubt for nothing."""
        reader: asyncio.StreamReader | None = getattr(self._connection, "_reader", None)
        return reader is not None and (reader.at_eof() or reader.exception() is not None)

    async def _answer(self) -> Any:
        try:
            return await self._connection.read_response(timeout=math.inf)
        except Disconnected:
            raise
        except ResponseError as error:
            return error
