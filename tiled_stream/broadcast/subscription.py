"""One reader outside: a cursor into the tail it shares with the others. It holds no queue, so its memory is bounded (I8).

What must stay true: a log or a storage that cannot be reached ends no subscription: it pauses and tries again. A loss that the
log tells of is announced, never passed over (I3).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable
from typing import Literal

from ..domain.errors import DataLost, EpochChanged, Gone, Truncated, Unavailable
from ..domain.past import PastPage
from .frames import Encoder, Frame, Gap, Item, Over
from .outages import FIRST_SECONDS, Pause
from .past import PastEntries, past_entries
from .tail import AnyStrip, Entry, Tail, _End, _Lost

__all__ = ["Subscription", "add_loss"]

#: At most so many frames, and about so many bytes, are handed out at once.
BATCH_FRAMES = 256
BATCH_BYTES = 1 << 20


class Subscription:
    """Use it as an async context manager; leaving it lets the tail go if this was its last reader."""

    def __init__(
        self, tail: Tail, *, after: int, encode: Encoder, leave: Callable[[], Awaitable[None]], head: int, epoch: str | None
    ) -> None:
        self._tail = tail
        self._encode = encode
        self._leave = leave
        # The epoch that the cursor belongs to; if it was over from the beginning, the head of the node then.
        self._epoch = epoch or tail.epoch
        self._resumed_at = None if epoch is None else head
        # Where the node's log stood when this began: all up to here is replay.
        self.head = head
        # True once the producer's end was passed; the stream is over when nothing follows it.
        self._ended = False
        self.cursor = after
        # Up to where the past was told, and how that goes on.
        self._told: tuple[int, Hashable] = (-1, None)
        self._listener: Callable[[], None] | None = None
        # While log or storage cannot be reached: when to try again (loop time), and the timer of who listens.
        self._pause = Pause()
        self._again_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._join()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Read no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._tail.outages.over(self)
        if self._listener is not None:
            self._waking.listeners.discard(self._listener)
        self._tail.leave(*self._shared)
        await self._leave()

    def _join(self) -> None:
        """Share with those who are sent the same."""
        self._strip = self._tail.strip(self._encode)
        self._shared: tuple[Hashable, AnyStrip] = (self._encode, self._strip)
        self._waking = self._tail.waking
        self._tail.join(*self._shared)

    async def take(self) -> list[Item]:
        """What follows the cursor, at least one item, in order; waits if there is nothing. After `Over` nothing more is taken.

        Safe to cancel. A batch is bounded (bytes and number), so a reader far behind costs one batch of memory.
        """
        while True:
            items = await self.look()
            if items:
                return items
            if items is None and self._again_at is None:
                await self._waking.wait()
            elif items is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self._again_at):
                        await self._waking.wait()

    async def look(self) -> list[Item] | None:
        """What is there now, in order: perhaps nothing that is delivered; None: nothing before the next waking or try.

        Safe to cancel. A caller that waits must begin to wait before it awaits anything else. If log or storage cannot be
        reached, this tries again after a pause, and calls the listener then.
        """
        tail = self._tail
        if self._epoch != tail.epoch:
            return [self._renewed()]
        if tail.over is None and self._may_follow():
            if self._again_at is not None and self._is_held():
                return None
            return await self._following()
        if tail.over is not None:
            return [tail.over]
        if self._ended and self.cursor == tail.cursor:
            return [Over("ended")]
        self._again_at = None
        return None

    @property
    def is_idle(self) -> bool:
        """True if `look` would answer None."""
        tail = self._tail
        if tail.over is not None or self._epoch != tail.epoch:
            return False
        return self._is_held() if self._may_follow() else not self._ended

    @property
    def is_at_hand(self) -> bool:
        """True if `look` would ask neither the log nor storage."""
        tail = self._tail
        is_done = tail.over is not None or self._epoch != tail.epoch or not self._may_follow()
        return is_done or self._is_held() or self._is_in_window()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call back at each waking, until this subscription is left."""
        self._listener = listener
        self._waking.listeners.add(listener)

    def _may_follow(self) -> bool:
        """Is there something after the cursor?"""
        return self.cursor < self._tail.cursor

    def _is_in_window(self) -> bool:
        """Does the window that all share go on after the cursor?"""
        return self.cursor + 1 >= self._strip.first

    def _is_held(self) -> bool:
        """Is it too early for another try?"""
        return self._again_at is not None and asyncio.get_running_loop().time() < self._again_at

    async def _following(self) -> list[Item] | None:
        """What follows the cursor, from the window that all share or from the log."""
        strip = self._strip
        if self.cursor + 1 >= strip.first:
            return self._pass(strip.first, strip.entries)
        return await self._replay()

    async def _replay(self) -> list[Item] | None:
        try:
            items = await self._tail.stoppable(self._paged_or_past)
        except Unavailable as error:
            self._tail.outages.met(self, error)
            self._hold(self._pause.next())
            return None
        except EpochChanged:
            self._tail.nudge()  # it restarts and wakes
            self._hold(FIRST_SECONDS)
            return None
        except Gone:
            return [Over("deleted")]
        except TimeoutError:
            if self._tail.over is None:
                raise
            return []  # it was stopped meanwhile, and says why
        self._again_at = None
        if self._pause.is_on:
            self._pause.reset()
            self._tail.outages.over(self)
        return items

    async def _paged_or_past(self) -> list[Item]:
        try:
            items = await self._paged()
            return await self._past(self._window()) if items is None else items
        except Truncated as error:
            return await self._past(min(error.first - 1, self._window()))

    def _hold(self, seconds: float) -> None:
        """Notify the listener after this many seconds, so that it tries again."""
        loop = asyncio.get_running_loop()
        self._again_at = loop.time() + seconds
        if self._listener is not None:
            self._timer = loop.call_at(self._again_at, self._listener)

    async def _paged(self) -> list[Item] | None:
        """A page of the log. None: an emptied log has nothing of it, and nobody to say so."""
        page = await self._tail.page(self._encode, self.cursor)
        if not page.entries and self.cursor < self._tail.cursor:
            return None
        return self._pass(page.first, page.entries)

    def _window(self) -> int:
        """The last sequence that is asked of the log; what follows is at hand."""
        return self._strip.first - 1

    async def _past(self, upto: int) -> list[Item]:
        """What has left the log up to `upto`, as far as it can be told."""
        at, state = self._told
        try:
            page = await self._tail.past(
                self._shared[0], self.cursor, upto, state if at == self.cursor else None, entries=self._entries
            )
        except DataLost:
            return [self._missing(upto, "lost")]
        if page is None:
            return [self._missing(upto)]
        self.cursor, self._told = page.reached, (page.reached, page.state)
        self._ended |= page.is_end
        return list(page.items)

    def _entries(self, page: PastPage) -> PastEntries:
        return past_entries(page, self._encode)

    def _missing(self, last: int, reason: Literal["truncated", "lost"] = "truncated") -> Gap:
        """What follows up to `last` has left the log, or is lost."""
        gap = Gap(self.cursor + 1, last, reason)
        self.cursor = last
        return gap

    @property
    def present_epoch(self) -> str:
        """The epoch of the log that is read now."""
        return self._tail.epoch

    def _renewed(self) -> Gap:
        """The log is in another epoch: say so, and go on from the cursor, for what was restored has its sequences still."""
        tail = self._tail
        head = tail.head if self._resumed_at is None else self._resumed_at
        self._epoch, self._resumed_at = tail.epoch, None
        return Gap(self.cursor + 1, self.cursor, "epoch", tail.epoch, head)

    def _pass(self, first: int, entries: list[Entry]) -> list[Item]:
        """Move the cursor over entries, and return what of them is to be delivered."""
        items: list[Item] = []
        size = 0
        for entry in entries[self.cursor + 1 - first :][:BATCH_FRAMES]:
            self.cursor += 1
            if isinstance(entry, Frame):
                items.append(entry)
                size += len(entry.data)
                if size > BATCH_BYTES:
                    break
            elif isinstance(entry, _End):
                self._ended = True
            elif isinstance(entry, _Lost):
                add_loss(items, self.cursor, self.cursor)
        return items


def add_loss(items: list[Item], first: int, last: int) -> None:
    """Announce that these records are lost, together with those right before them."""
    before = items[-1] if items else None
    if isinstance(before, Gap) and before.reason == "lost" and before.last == first - 1:
        items[-1] = Gap(before.first, last, "lost")
    else:
        items.append(Gap(first, last, "lost"))
