"""Many subscriptions that one reader takes from in turn, so that one socket can carry many nodes.

It holds no queue: which subscriptions may have something, and a few batches that are read from the log or from storage (I8). What
must stay true: none is left out, for a waking puts a subscription among those to be looked at, and it stays there until a look
finds nothing; none comes before its turn, for each gives one bounded batch a round; a log or storage that is slow or cannot be
reached holds up those alone that need it.
"""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from .frames import Frame, Item
from .subscription import BATCH_BYTES, Subscription

__all__ = ["Bundle"]

K = TypeVar("K")

#: Subscriptions that ask the log or storage at the same time; the batch of each is held until its turn.
LOOKS = 4


class Bundle(Generic[K]):
    """For one reader at a time. Keys say whose items they are. `close` it."""

    def __init__(self) -> None:
        self._members: dict[K, Subscription] = {}
        # Those that may have something, in order of their turn.
        self._ready: dict[K, None] = {}
        # Those that ask the log or storage, until their answer is taken; and those that are to ask when one of them has.
        self._looks: dict[K, asyncio.Task[list[Item] | None]] = {}
        self._queue: dict[K, None] = {}
        # Looks of members that were discarded meanwhile.
        self._ending: set[asyncio.Task[list[Item] | None]] = set()
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
        if self._members.pop(key, None) is None:
            return
        self._ready.pop(key, None)
        self._queue.pop(key, None)
        look = self._looks.pop(key, None)
        if look is not None:
            look.cancel()
            self._ending.add(look)
            look.add_done_callback(self._ending.discard)
            self._begin_next()

    async def close(self) -> None:
        """Discard all; leave no task (I9). Idempotent."""
        for key in list(self._members):
            self.discard(key)
        if self._ending:
            await asyncio.wait(self._ending)

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
            look = self._looks.get(key)
            if look is not None:
                if not look.done():
                    continue  # it is ready again once it is
                del self._looks[key]
                self._begin_next()
                items = look.result()
            elif subscription.is_at_hand:
                self._queue.pop(key, None)
                items = await subscription.look()
            else:
                self._queue[key] = None
                self._begin_next()
                continue
            if key in self._members and not subscription.is_idle:
                self._ready[key] = None  # at the end: the others first
            if items is None:
                continue
            taken.append((key, items))
            size += sum(len(item.data) for item in items if isinstance(item, Frame))
            if size >= BATCH_BYTES:
                break
        return taken

    def _begin_next(self) -> None:
        """Let the next ones ask the log or storage."""
        while self._queue and len(self._looks) < LOOKS:
            key = next(iter(self._queue))
            del self._queue[key]
            look = asyncio.create_task(self._members[key].look(), name="a subscription looks back")
            self._looks[key] = look
            look.add_done_callback(lambda _, key=key: self._looked(key))  # type: ignore[misc]

    def _looked(self, key: K) -> None:
        if key in self._looks:
            self._ready[key] = None
            self._stir.set()
