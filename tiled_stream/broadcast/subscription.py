"""One reader outside: a cursor into the tail it shares with the others. It holds no queue, so its memory is bounded (I8)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable

from ..domain.errors import EpochChanged, Gone, Truncated
from ..domain.past import PastPage
from .frames import Encoder, Frame, Gap, Item, Over
from .past import PastEntries, past_entries
from .tail import AnyStrip, Entry, Tail, _End

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
        self.cursor = after
        # Up to where the past was told, and how that goes on.
        self._told: tuple[int, Hashable] = (-1, None)
        self._listener: Callable[[], None] | None = None
        self._join()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Read no more."""
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
            if items is None:
                await self._waking.wait()

    async def look(self) -> list[Item] | None:
        """What is there now, in order: perhaps nothing that is delivered; None: nothing follows before the next waking.

        Safe to cancel. Whoever waits must begin to before anything else is awaited.
        """
        tail = self._tail
        if self._epoch != tail.epoch:
            return [self._lost()]
        if tail.over is None and self._may_follow():
            return await self._following()
        if tail.over is not None:
            return [tail.over]
        if self._ended and self.cursor == tail.cursor:
            return [Over("ended")]
        return None

    @property
    def is_idle(self) -> bool:
        """True if `look` would answer None."""
        tail = self._tail
        return not self._may_follow() and tail.over is None and self._epoch == tail.epoch and not self._ended

    def listen(self, listener: Callable[[], None]) -> None:
        """Call back at each waking, until this subscription is left."""
        self._listener = listener
        self._waking.listeners.add(listener)

    def _may_follow(self) -> bool:
        """Is there something after the cursor?"""
        return self.cursor < self._tail.cursor

    async def _following(self) -> list[Item] | None:
        """What follows the cursor, from the window that all share or from the log."""
        strip = self._strip
        if self.cursor + 1 >= strip.first:
            return self._pass(strip.first, strip.entries)
        return await self._replay()

    async def _replay(self) -> list[Item] | None:
        try:
            try:
                items = await self._paged()
            except Truncated as error:
                return await self._past(min(error.first - 1, self._window()))
            return await self._past(self._window()) if items is None else items
        except EpochChanged:
            return None  # the tail learns of it too, restarts and wakes
        except Gone:
            return [Over("deleted")]

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
        page = await self._tail.past(
            self._shared[0], self.cursor, upto, state if at == self.cursor else None, entries=self._entries
        )
        if page is None:
            return [self._missing(upto)]
        self.cursor, self._told = page.reached, (page.reached, page.state)
        self._ended |= page.is_end
        return list(page.items)

    def _entries(self, page: PastPage) -> PastEntries:
        return past_entries(page, self._encode)

    def _missing(self, last: int) -> Gap:
        """What follows up to `last` has left the log."""
        gap = Gap(self.cursor + 1, last, "truncated")
        self.cursor = last
        return gap

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
