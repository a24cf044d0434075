"""One reader outside: a cursor into the tail it shares with the others. It holds no queue, so its memory is bounded (I8)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..domain.errors import EpochChanged, Gone, Truncated
from .frames import Encoder, Frame, Gap, Item, Over
from .tail import Entry, Tail, _End

__all__ = ["Subscription"]

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
        # The life of the log that the cursor belongs to.
        self._epoch = epoch or tail.epoch
        # Where the node's log stood when this began: all up to here is replay.
        self.head = head
        # True once the producer's end was passed; the stream is over when nothing follows it.
        self._ended = False
        self._listener: Callable[[], None] | None = None
        self.cursor = after
        self._strip = tail.strip(encode)
        self._strip.users += 1

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Read no more."""
        if self._listener is not None:
            self._tail.listeners.discard(self._listener)
        self._strip.users -= 1
        if self._strip.users == 0:
            self._tail.strips.pop(self._encode, None)
        await self._leave()

    async def take(self) -> list[Item]:
        """What follows the cursor, at least one item, in order; waits if there is nothing. After `Over` nothing more is taken.

        Safe to cancel. A batch is bounded (bytes and number), so a reader far behind costs one batch of memory.
        """
        while True:
            items = await self.look()
            if items:
                return items
            if items is None:
                await self._tail.moved()

    async def look(self) -> list[Item] | None:
        """What is there now, in order: perhaps nothing that is delivered; None: nothing follows before the next waking.

        Safe to cancel. Whoever waits must begin to before anything else is awaited.
        """
        tail = self._tail
        if self._epoch != tail.epoch:
            return [self._lost()]
        if self.cursor < tail.cursor and tail.over is None:
            strip = self._strip
            if self.cursor + 1 >= strip.first:
                return self._pass(strip.first, strip.entries)
            return await self._replay()
        if tail.over is not None:
            return [tail.over]
        if self._ended and self.cursor == tail.cursor:
            return [Over("ended")]
        return None

    @property
    def is_idle(self) -> bool:
        """True if `look` would answer None."""
        tail = self._tail
        return self.cursor >= tail.cursor and tail.over is None and self._epoch == tail.epoch and not self._ended

    def listen(self, listener: Callable[[], None]) -> None:
        """Call back at each waking, until this subscription is left."""
        self._listener = listener
        self._tail.listeners.add(listener)

    async def _replay(self) -> list[Item] | None:
        try:
            page = await self._tail.page(self._encode, self.cursor)
        except Truncated as error:
            gap = Gap(self.cursor + 1, error.first - 1, "truncated")
            self.cursor = error.first - 1
            return [gap]
        except EpochChanged:
            return None  # the tail learns of it too, restarts and wakes
        except Gone:
            return [Over("deleted")]
        if not page.entries and self.cursor < self._tail.cursor:  # an emptied log: nothing of it, and nobody to say so
            gap = Gap(self.cursor + 1, self._tail.cursor, "truncated")
            self.cursor = self._tail.cursor
            return [gap]
        return self._pass(page.first, page.entries)

    @property
    def present_epoch(self) -> str:
        """The life of the log that is read now."""
        return self._tail.epoch

    def _lost(self) -> Gap:
        """The log began another life: what this reader had not seen of the old one cannot be given."""
        self._epoch = self._tail.epoch
        gap = Gap(self.cursor + 1, max(self._tail.cursor, self.cursor), "epoch")
        self.cursor = max(self._tail.cursor, self.cursor)
        return gap

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
        return items
