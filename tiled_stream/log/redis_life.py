"""The life of a log in Redis that this process takes part in, and questions that are answered only by that one.

A *generation* begins whenever the log was found whole: at its first start, and after each healing (`redis_heal.py`). The key
`life` holds it together with the run id of the Redis server. So a Redis that was emptied, restarted, replaced or taken over by
a replica is noticed by the next command, in the round trip that is made anyway.

What must stay true: nothing is changed in, or reported from, a log that may have lost records.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from ..domain.errors import Unavailable
from ..domain.nodes import NodeId
from .redis_connection import Command
from .redis_link import LifeLost, Link, Script

__all__ = ["AliveLink", "RedisLife"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
#: Pause before a connection that may reach the wrong server is tried again, seconds.
_PAUSE = 0.02


class RedisLife:
    """`generation` and `epoch`, and the one task that heals. `healer` heals; it is given a node and the head it must have."""

    def __init__(self) -> None:
        self.generation = ""
        self.epoch = ""
        #: Nothing was done in this generation yet, as far as this process knows.
        self.is_fresh = False
        self.healer: Callable[[NodeId, int], Awaitable[None]] = _no_healer
        self._healing: asyncio.Task[None] | None = None
        self._is_closed = False

    def of(self, instance: str) -> str:
        """What the key `life` must hold on the Redis server with this run id."""
        return f"{instance}:{self.generation}"

    def live_in(self, epoch: str) -> None:
        """Take note of the epoch in force."""
        if self.epoch and epoch != self.epoch and not self.is_fresh:
            logger.warning("The log begins another epoch: records were lost with Redis. What was persisted is safe.")
        self.epoch = epoch

    async def heal(self, deadline: float, node: NodeId = "", head: int = 0) -> None:
        """Return when the log is whole again. `LifeLost` if that takes until `deadline` (loop time); healing goes on then.

        `node`, `head`: evidence that this Redis has lost records, "" for none. Safe to cancel.
        """
        if self._is_closed:
            raise Unavailable("The log is closed: the server is stopping.")
        loop = asyncio.get_running_loop()
        if self._healing is None or self._healing.done():
            self._healing = loop.create_task(self._heal(node, head), name="redis log: heals")
        healing = self._healing
        await asyncio.wait([healing], timeout=max(0.0, deadline - loop.time()))
        if not healing.done() or healing.cancelled():
            raise LifeLost("Redis, which holds the log, lost records; the log is being restored. Try again.", retry_after=1.0)
        error = healing.exception()
        if error is not None:
            raise error

    async def close(self) -> None:
        """Stop healing."""
        self._is_closed = True
        if self._healing is not None:
            self._healing.cancel()
            await asyncio.wait([self._healing])

    async def alive(self, ask: Callable[[], Awaitable[T]], link: Link, patience: float) -> T:
        """Ask until this life answers, healing the log if need be. `LifeLost` after `patience` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while True:
            generation = self.generation
            try:
                return await ask()
            except LifeLost:
                if loop.time() > deadline:
                    raise
                await self.heal(deadline)
                if self.generation == generation:  # the log is whole, and this connection reached something else
                    link.doubt()
                    await asyncio.sleep(_PAUSE)

    async def _heal(self, node: NodeId, head: int) -> None:
        await self.healer(node, head)


class AliveLink:
    """A `Link` whose answers are those of the life that this process takes part in."""

    def __init__(self, link: Link, base: str, life: RedisLife, *, patience: float) -> None:
        self._link = link
        self._key = f"{base}life"
        self._life = life
        self._patience = patience

    async def ask(self, *command: Any, is_repeatable: bool = True) -> Any:
        """As `Link.ask`."""
        return (await self.ask_all([command], is_repeatable=is_repeatable))[0]

    async def ask_all(self, commands: Sequence[Command], *, is_repeatable: bool = True) -> list[Any]:
        """As `Link.ask_all`. Only for commands that change nothing, or nothing that matters in another life."""

        async def asked() -> list[Any]:
            return await self._link.ask_alive(commands, self._key, self._life.of, is_repeatable=is_repeatable)

        return await self._life.alive(asked, self._link, self._patience)

    async def values(self, keys: Sequence[str]) -> list[Any]:
        """The values of several keys, None for one that is not there: the question of every read, so it is one command."""

        async def asked() -> list[Any]:
            return await self._link.values_alive(keys, self._key, self._life.of)

        return await self._life.alive(asked, self._link, self._patience)

    async def run(self, script: Script, base: str, *arguments: Any, is_repeatable: bool = True) -> Any:
        """As `Link.run`."""

        async def ran() -> Any:
            return await self._link.run(script, base, *arguments, life=self._life.of, is_repeatable=is_repeatable)

        return await self._life.alive(ran, self._link, self._patience)


async def _no_healer(node: NodeId, head: int) -> None:
    raise LifeLost("Redis, which holds the log, lost records.")
