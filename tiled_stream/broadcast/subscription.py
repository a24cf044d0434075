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

    def __init__(self, tail: Tail, *, after: int, encode: Encoder, leave: Callable[[], Awaitable[None]]) -> None:
        self._tail = tail
        self._encode = encode
        self._leave = leave
        self._epoch = tail.epoch
        # True once the producer's end was passed; the stream is over when nothing follows it.
        self._ended = False
        self.cursor = after
        self._strip = tail.strip(encode)
        self._strip.users += 1

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._strip.users -= 1
        if self._strip.users == 0:
            self._tail.strips.pop(self._encode, None)
        await self._leave()

    async def take(self) -> list[Item]:
        """What follows the cursor, at least one item, in order; waits if there is nothing. After `Over` nothing more is taken.

        Safe to cancel. A batch is bounded (bytes and number), so a reader far behind costs one batch of memory.
        """
        while True:
            items = await self._next()
            if items:
                return items

    async def _next(self) -> list[Item]:
        """What is there now; after a wait an empty list means "look again"."""
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
        await tail.moved()
        return []

    async def _replay(self) -> list[Item]:
        try:
            page = await self._tail.page(self._encode, self.cursor)
        except Truncated as error:
            gap = Gap(self.cursor + 1, error.first - 1, "truncated")
            self.cursor = error.first - 1
            return [gap]
        except EpochChanged:
            await self._tail.moved()  # the tail learns of it too, and restarts
            return []
        except Gone:
            return [Over("deleted")]
        if not page.entries and self.cursor < self._tail.cursor:  # an emptied log: nothing of it, and nobody to say so
            gap = Gap(self.cursor + 1, self._tail.cursor, "truncated")
            self.cursor = self._tail.cursor
            return [gap]
        return self._pass(page.first, page.entries)

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
