"""Many subscriptions that one reader takes from in turn, so that one socket can carry many nodes.

It holds no queue: which subscriptions may have something, no more (I8). What must stay true: none is left out, for a waking puts
a subscription among those to be looked at, and it stays there until a look finds nothing; none comes before its turn, for each
gives one bounded batch a round.
"""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from .frames import Frame, Item
from .subscription import BATCH_BYTES, Subscription

__all__ = ["Bundle"]

K = TypeVar("K")


class Bundle(Generic[K]):
    """For one reader at a time. Keys say whose items they are."""

    def __init__(self) -> None:
        self._members: dict[K, Subscription] = {}
        # Those that may have something, in order of their turn.
        self._ready: dict[K, None] = {}
        self._stir = asyncio.Event()

    def __len__(self) -> int:
        return len(self._members)

    def add(self, key: K, subscription: Subscription) -> None:
        """Take from it too. A key is used once."""

        def woken() -> None:
            self._ready[key] = None
            self._stir.set()

        self._members[key] = subscription
        subscription.listen(woken)
        woken()

    def discard(self, key: K) -> None:
        """Take nothing more from it; the caller leaves the subscription."""
        if self._members.pop(key, None) is not None:
            self._ready.pop(key, None)

    def nudge(self) -> None:
        """Let `take` return, perhaps with nothing."""
        self._stir.set()

    async def take(self) -> list[tuple[K, list[Item]]]:
        """One round: what each has that was ready when it began, in bounded batches; waits until there is something to look at.

        A batch may be empty: its subscription then moved on without anything that is delivered. A reader that is cancelled here
        has to end: what the round had taken is gone with it.
        """
        if not self._ready:
            await self._stir.wait()
        self._stir.clear()
        taken: list[tuple[K, list[Item]]] = []
        size = 0
        for key in list(self._ready):  # what comes meanwhile has its turn in the next round
            subscription = self._members.get(key)
            self._ready.pop(key, None)
            if subscription is None:
                continue
            items = await subscription.look()
            if items is None:
                continue
            taken.append((key, items))
            if key in self._members and not subscription.is_idle:
                self._ready[key] = None  # at the end: the others first
            size += sum(len(item.data) for item in items if isinstance(item, Frame))
            if size >= BATCH_BYTES:
                break
        return taken
