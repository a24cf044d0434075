"""The barrier: wait until storage and catalog have caught up with what was acknowledged before the question (I7)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from ..domain.errors import Gone, InDoubt, Unavailable
from ..domain.nodes import NodeId
from ..log.port import LogEngine

__all__ = ["Barrier"]

#: Nodes of which a barrier remembers how far they are persisted.
_REMEMBERED = 20_000


class Barrier:
    """Bounded by `timeout` seconds; past it the answer is `Unavailable`, which a client retries.

    `reason` says why this process cannot persist now; empty if it can, or does not know.
    """

    def __init__(self, log: LogEngine, *, timeout: float, reason: Callable[[], str] = str) -> None:
        self._log = log
        self._timeout = timeout
        self._reason = reason
        # Up to where nodes are known to be persisted, the first to be forgotten first. That never goes back (I4).
        self._persisted: OrderedDict[NodeId, int] = OrderedDict()

    async def settle(self, *nodes: NodeId) -> None:
        """Wait until all that is now in the logs of `nodes` is persisted. A deleted node has nothing to wait for."""
        owed: list[tuple[NodeId, int]] = []
        for node in nodes:
            try:
                owed.append((node, (await self._log.head(node)).sequence))
            except Gone:
                continue
        await self._reach(owed)

    async def settle_at(self, node: NodeId, head: int) -> None:
        """As `settle`, for whoever has learnt since it was asked that the log of `node` stands at `head`."""
        if self._persisted.get(node, 0) >= head:
            return
        await self._reach([(node, head)])
        self._persisted[node] = max(head, self._persisted.get(node, 0))
        self._persisted.move_to_end(node)
        if len(self._persisted) > _REMEMBERED:
            self._persisted.popitem(last=False)

    def forget(self) -> None:
        """Catalog or storage was restored to an earlier state: what was persisted may not be any more."""
        self._persisted.clear()

    async def settle_all(self) -> None:
        """Wait until all that is now in any log is persisted."""
        await self._reach(await self._log.dirty())

    async def reach(self, node: NodeId, sequence: int) -> None:
        """Wait until `sequence` of `node`, which was just appended, is persisted. `InDoubt` if that takes too long."""
        try:
            await self._reach([(node, sequence)])
        except Unavailable as error:
            raise InDoubt(f"It was written, but: {error}", retry_after=error.retry_after) from None

    async def _reach(self, owed: list[tuple[NodeId, int]]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                for node, sequence in owed:
                    await self._log.reached(node, sequence)
        except TimeoutError:
            reason = self._reason()
            raise Unavailable(
                f"Storage has not caught up with what was written within {self._timeout:g} s; nothing is lost. "
                + (f"The reason is: {reason}" if reason else "Try again."),
                retry_after=1.0,
            ) from None
