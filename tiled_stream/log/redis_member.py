"""One server as a member of those that keep a log in Redis whole: its life, what it keeps, its heartbeat.

What must stay true: whatever this server has seen of the log counts if Redis has less (I1, I2).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from ..domain.errors import Unavailable
from ..domain.nodes import NodeId
from .port import Persisted
from .redis_appends import Append, Appended, Appends
from .redis_connection import Connection
from .redis_heal import Healing
from .redis_keep import Keep
from .redis_late import Late
from .redis_life import AliveLink, RedisLife
from .redis_link import Link, Script

__all__ = ["Member", "head_of"]

logger = logging.getLogger(__name__)

#: Seconds that opening waits for a log that is being restored.
_OPEN = 15.0
#: Seconds between heartbeats; nodes of which one asks how far they are persisted.
_TEND = 0.5
_TENDED = 1000


class Member:
    """`link` for questions, `appends` for appends. `remember`: seconds for which Redis remembers clean nodes."""

    def __init__(
        self,
        link: Link,
        appends: Connection,
        base: str,
        *,
        life: RedisLife,
        patience: float,
        synced: bool,
        keep_bytes: int,
        remember: int,
    ) -> None:
        self._link = link
        self._base = base
        self._patience = patience
        self._life = life
        self._questions = AliveLink(link, base, life, patience=patience)
        self.keep = Keep(keep_bytes)
        self.appends = Appends(appends, base, life=life, done=self._appended, patience=patience, synced=synced)
        self._healing = Healing(link, base, life=life, keep=self.keep, appends=self.appends, remember=remember)
        self._late = Late(self._questions, base, life=life, keep=self.keep, appends=self.appends)
        life.healer = self._heal
        self._script = Script("tend")
        self._looks = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def join(self) -> None:
        """Take part in the log, which is restored if need be, from now on."""
        await self._life.heal(asyncio.get_running_loop().time() + _OPEN)
        await self._tend()
        self._tasks.append(asyncio.create_task(self._tend_on(), name="redis log: heartbeat"))

    async def leave(self, *, is_said: bool) -> None:
        """Stop. `is_said`: other servers need not wait for this one when the log has to be restored."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.appends.close()
        await self._life.close()
        if is_said and self._life.generation:
            with contextlib.suppress(Unavailable, TimeoutError):  # then others wait for it, once and not for long
                async with asyncio.timeout(_TEND):
                    await self._link.ask("ZREM", f"{self._base}servers", self._healing.server)
        if self.keep.strays:
            logger.error("%d acknowledged records are lost: the log lost them, and this server stops.", len(self.keep.strays))

    def look(self) -> None:
        """Look at once whether the log is whole."""
        self._looks.set()

    async def bind(self, catalog: str, persisted: Persisted) -> str:
        """See `Healing.bind`."""
        self._late.persisted = persisted
        return await self._healing.bind(catalog, persisted)

    async def confirm(self) -> None:
        """Before the first append: it makes a fresh log one that has to be restored if it is lost."""
        if self._life.is_fresh:
            await self._life.alive(self._healing.confirm, self._link, self._patience)

    def figures(self) -> dict[str, float]:
        """For metrics."""
        strays = sum(kept.size for _, kept in self.keep.strays)
        return {
            "tiled_stream_heals_total": float(self._healing.heals),
            "tiled_stream_healed_records_total": float(self._healing.healed + self._late.healed),
            "tiled_stream_heal_lost_records_total": float(self._healing.lost),
            "tiled_stream_kept_bytes": float(self.keep.bytes + strays),
            "tiled_stream_unkept_records_total": float(self.keep.unkept),
        }

    def seen(self, nodes: Sequence[NodeId]) -> list[tuple[str, int]]:
        """The heads of these nodes that this process has seen, and in which epoch. To be asked before Redis is."""
        known = [self.keep.known.get(node) for node in nodes]
        return [("", 0) if one is None else (one.epoch, one.head) for one in known]

    async def is_behind(
        self, epoch: bytes, nodes: Sequence[NodeId], values: Sequence[bytes | None], seen: Sequence[tuple[str, int]]
    ) -> bool:
        """Take note of epoch and heads. Whether this log had less than was `seen` before; then it was healed.

        A head that is not there at all was forgotten after a long time; that is nothing unusual.
        """
        now = epoch.decode()
        if now != self._life.epoch:
            self._life.live_in(now)
        for node, value, (seen_in, before) in zip(nodes, values, seen, strict=True):
            head = head_of(value)
            if not head:
                continue
            if head < before and seen_in == now:
                await self.lost(node, before)
                return True
            self.keep.know(node, now, head)
        return False

    async def lost(self, node: NodeId, head: int) -> None:
        """Redis has less of this node than `head`: have it healed."""
        logger.warning("Redis lost records of node %s, which had %d; was there a failover?", node, head)
        await self._life.heal(asyncio.get_running_loop().time() + self._patience, node, head)

    async def _heal(self, node: NodeId, head: int) -> None:
        """What `RedisLife` calls."""
        await self._healing.run(node, head)
        if self._healing.missed is not None:
            (epoch, is_next), self._healing.missed = self._healing.missed, None
            self._tasks = [task for task in self._tasks if not task.done()]
            missed = self._late.restore(epoch, is_next=is_next)
            self._tasks.append(asyncio.create_task(missed, name="redis log: appends what others missed"))

    def _appended(self, append: Append, done: Appended) -> None:
        """It is in the log; its caller does not know yet."""
        self.keep.know(append.node, done.epoch, done.sequence)
        self.keep.add(append.node, done.sequence, append.drafts)

    async def _tend_on(self) -> None:
        while True:
            self._looks.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TEND):
                    await self._looks.wait()
            with contextlib.suppress(Unavailable):  # the next one
                await self._tend()

    async def _tend(self) -> None:
        """Tell other servers that this one is alive; forget what is persisted."""
        nodes = self.keep.some(_TENDED)
        epoch, peers, settled = await self._questions.run(self._script, self._base, self._healing.server, *nodes)
        if epoch.decode() != self._life.epoch:
            self._life.live_in(epoch.decode())
        self._healing.peers = {peer.decode() for peer in peers}
        for node, watermark in zip(nodes, settled, strict=True):
            if watermark == b"-":
                self.keep.drop(node)
            elif watermark:
                self.keep.settle(node, int(watermark))


def head_of(value: bytes | None) -> int | None:
    """The head that a key holds; None: the node was dropped."""
    if value is None:
        return 0
    return None if value == b"-" else int(value)
