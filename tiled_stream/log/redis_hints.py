"""Hints from Redis: one subscribed connection a process, whatever the number of nodes that somebody waits for.

A hint says that a node moved, never what happened. Lost, doubled and late hints cost latency: after a reconnection everybody
looks again, and heads are asked for now and then all the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ..domain.errors import Unavailable
from ..domain.nodes import NodeId
from .redis_connect import let_go

__all__ = ["Hints", "Watch"]

logger = logging.getLogger(__name__)

#: Seconds between looks without a hint.
_LOOK = 2.0
#: Seconds that a subscription outlives its last user.
_LINGER = 10.0
#: Seconds of silence after which a connection is tried.
_SILENCE = 10.0
_GONE = float("inf")


class Watch:
    """Hints of one node since the subscription: the highest `head`, the latest `settled`; infinite for a dropped node."""

    __slots__ = ("confirmed", "head", "is_based", "settled", "since", "users", "waiters")

    def __init__(self) -> None:
        self.head = -1.0
        self.settled = -1.0
        #: The server has confirmed the subscription: what happens from now on is told.
        self.confirmed = asyncio.Event()
        #: Somebody has looked since then, so that nothing before is missing.
        self.is_based = False
        self.users = 0
        self.since = 0.0
        self.waiters: set[asyncio.Future[None]] = set()

    def told(self, *, head: float | None = None, settled: float | None = None) -> None:
        """Take what was heard, and wake whoever waits."""
        self.head = max(self.head, -1.0 if head is None else head)
        if settled is not None:
            self.settled = settled  # the latest: a watermark may go back (`reopen`)
        self.wake()

    def wake(self) -> None:
        """Whoever waits may look again."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()

    async def changed(self) -> None:
        """Wait until something is told, or all is in doubt. Safe to cancel."""
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.add(waiter)
        try:
            await waiter
        finally:
            self.waiters.discard(waiter)


class Hints:
    """`heads` tells the heads of nodes, None for one that is gone; `rung` is called when there may be something to persist.

    (True: a reader waits for it.) `alarmed` is called when another server has found that the log must be healed.
    """

    def __init__(
        self,
        client: Redis,
        base: str,
        *,
        heads: Callable[[Sequence[NodeId]], Awaitable[list[int | None]]],
        rung: Callable[[bool], None],
        alarmed: Callable[[], None],
    ) -> None:
        self._client = client
        self._prefix = f"{base}c:".encode()
        self._dirty = f"{base}dirty".encode()
        self._heads = heads
        self._rung = rung
        self._alarmed = alarmed
        self._watches: dict[NodeId, Watch] = {}
        self._pubsub: Any = None
        self._tasks: list[asyncio.Task[None]] = []
        self._subscribing: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.errors = 0

    async def open(self) -> None:
        """Begin to listen; returns once the server does tell."""
        await self._connect()
        self._tasks = [
            asyncio.create_task(self._listen(), name="redis hints"),
            asyncio.create_task(self._tend(), name="redis hints: looks without one"),
        ]

    async def close(self) -> None:
        """Stop listening; whoever waits is woken."""
        self._is_closed = True
        tasks = [*self._tasks, *self._subscribing]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for watch in self._watches.values():
            watch.confirmed.set()
            watch.wake()
        await self._drop_connection()
        await let_go(self._client)

    @contextmanager
    def watching(self, node: NodeId) -> Iterator[Watch]:
        """Hear of a node; the subscription outlives this for a while, for whoever follows comes back at once."""
        watch = self._watches.get(node)
        if watch is None:
            watch = self._watches[node] = Watch()
            if self._pubsub is not None:
                task = asyncio.get_running_loop().create_task(self._subscribe(node), name="redis hints: subscribes")
                self._subscribing.add(task)
                task.add_done_callback(self._subscribing.discard)
        watch.users += 1
        try:
            yield watch
        finally:
            watch.users -= 1
            watch.since = time.monotonic()

    async def _subscribe(self, *nodes: NodeId) -> None:
        with suppress(RedisError, OSError):  # the listener notices, reconnects, and subscribes to everything
            await self._pubsub.subscribe(*(self._prefix + node.encode() for node in nodes))

    async def _connect(self) -> None:
        pubsub = self._client.pubsub()
        self._pubsub = pubsub
        try:
            await pubsub.subscribe(self._dirty, *(self._prefix + node.encode() for node in self._watches))
        except BaseException:
            await self._drop_connection()
            raise

    async def _listen(self) -> None:
        pause = 0.05
        while True:
            try:
                if self._pubsub is None:
                    await self._connect()
                self._rung(False)
                pause = 0.05
                await self._hear()
            except (RedisError, OSError) as error:
                self.errors += 1
                logger.info("Hints from Redis are interrupted, readers look for themselves: %s", error)
            await self._drop_connection()
            for watch in self._watches.values():  # something may have been missed
                watch.confirmed.clear()
                watch.is_based = False
                watch.head = watch.settled = -1.0
                watch.wake()
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)

    async def _hear(self) -> None:
        """Until the connection is lost."""
        is_tried = False
        while True:
            message = await self._pubsub.get_message(timeout=_SILENCE)
            if message is None:
                if is_tried:
                    raise TimeoutError("no answer to a ping")
                is_tried = True
                await self._pubsub.ping()
                continue
            is_tried = False
            kind, channel = message["type"], message["channel"]
            if kind == "message" and channel == self._dirty:
                if message["data"] == b"x":
                    self._alarmed()
                self._rung(message["data"] == b"w")
            elif kind in ("message", "subscribe") and channel is not None and channel.startswith(self._prefix):
                self._take(kind, channel[len(self._prefix) :].decode(), message["data"])

    def _take(self, kind: str, node: NodeId, data: bytes | int) -> None:
        watch = self._watches.get(node)
        if watch is None:
            return
        if isinstance(data, int):
            watch.confirmed.set()
        elif data.startswith(b"h"):
            watch.told(head=int(data[1:]))
        elif data.startswith(b"s"):
            watch.told(settled=int(data[1:]))
        else:
            watch.told(head=_GONE, settled=_GONE)

    async def _tend(self) -> None:
        """Look without a hint; leave what nobody watches any more."""
        while True:
            await asyncio.sleep(_LOOK)
            self._rung(False)
            now = time.monotonic()
            idle = [n for n, w in self._watches.items() if not w.users and now - w.since > _LINGER]
            for node in idle:
                del self._watches[node]
            if idle and self._pubsub is not None:
                with suppress(RedisError, OSError):  # the listener notices
                    await self._pubsub.unsubscribe(*(self._prefix + node.encode() for node in idle))
            waited_for = [node for node, watch in self._watches.items() if watch.waiters]
            with suppress(Unavailable):  # said by those who read
                await self._look(waited_for)

    async def _look(self, nodes: Sequence[NodeId]) -> None:
        if not nodes:
            return
        for node, head in zip(nodes, await self._heads(nodes), strict=True):
            watch = self._watches.get(node)
            if watch is not None and (head is None or head > watch.head):
                watch.told(head=_GONE if head is None else head)

    async def _drop_connection(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            with suppress(RedisError, OSError):  # it is being thrown away
                await pubsub.aclose()
