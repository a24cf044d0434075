"""The one in-process reader of a node that all local subscriptions share.

It waits for a hint, reads what the log tells, and encodes each record once per encoder in use: cost per event is per process,
not per subscriber. It keeps a bounded window of encoded frames; whoever is further back is served page by page from the log, and
pages are shared too, so that a hundred late joiners cost one reading.

What must stay true: every record after `cursor` enters each strip once, in order (I3); the window is bounded (I8). A log that
cannot be reached ends no tail: it tries again from its cursor. A log that begins another epoch is followed from the same cursor,
because sequences never restart (I1).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Protocol, TypeVar

from ..domain.errors import EpochChanged, Gone, Truncated, Unavailable
from ..domain.events import Record, RecordLost, StreamEnded
from ..domain.nodes import NodeId
from ..domain.past import PastPage
from ..log.port import LogEngine
from .frames import Encoder, Frame, Over
from .outages import Outages, Pause
from .past import Past, PastEntries, born

__all__ = ["END", "LOST", "AnyStrip", "Entry", "Page", "Strip", "Tail", "Waking"]

T = TypeVar("T")


class _End:
    """Stands in a strip where the producer ended the stream."""

    __slots__ = ()


class _Lost:
    """Stands in a strip where the log has a mark in the place of a record that was lost."""

    __slots__ = ()


END = _End()
LOST = _Lost()
#: What stands at one sequence of a strip: a frame, nothing to deliver, the end of the stream, or a loss.
Entry = Frame | _End | _Lost | None

_MARKED = (StreamEnded, RecordLost)

#: Bytes of encoded frames, and entries, that stay at hand for those who follow, per node and encoder.
WINDOW_BYTES = 1 << 20
WINDOW_ENTRIES = 8192
#: A crowd is woken for several records at once: seconds between wakings, for each reader, and at most. Waking and writing to a
#: hundred sockets takes longer than a record takes to come; one reader is always woken at once.
PACE_A_READER = 25e-6
PACE_MOST = 0.005
#: A page of replay is bounded in records and in payload bytes.
PAGE_RECORDS = 500
PAGE_BYTES = 1 << 20
#: Pages of replay that stay at hand for others who replay the same.
PAGES = 8
#: Seconds after which a tail that waits for records looks whether the log began another epoch.
LOOK_SECONDS = 5.0


class Waking:
    """Wakes who waits for something new, one by one or all that they wait for at once."""

    __slots__ = ("_moved", "listeners")

    def __init__(self) -> None:
        self._moved = asyncio.Event()
        # Called at each waking, by those who wait for many nodes at once.
        self.listeners: set[Callable[[], None]] = set()

    async def wait(self) -> None:
        """Until the next waking. Safe to cancel."""
        await self._moved.wait()

    def wake(self) -> None:
        """Everybody, once."""
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        for listener in self.listeners:
            listener()


class AnyStrip(Protocol):
    """What subscribers of one kind share. `users` are those who read it."""

    users: int

    @property
    def waking(self) -> Waking: ...

    def extend(self, records: Sequence[Record], /) -> None: ...

    def restart(self, first: int, /) -> None: ...

    def close(self) -> None: ...


class Strip:
    """The encoded window of one encoder: `entries[i]` stands at sequence ``first + i``."""

    __slots__ = ("_bytes", "encode", "entries", "first", "users", "waking")

    def __init__(self, encode: Encoder, first: int, waking: Waking) -> None:
        self.encode = encode
        self.entries: list[Entry] = []
        self.first = first
        self.users = 0
        # That of the tail: a crowd is woken together.
        self.waking = waking
        self._bytes = 0

    def close(self) -> None:
        """Nothing is held."""

    def restart(self, first: int) -> None:
        """Begin anew, empty, at `first`."""
        self.entries = []
        self.first = first
        self._bytes = 0

    def extend(self, records: Sequence[Record]) -> None:
        """Encode the records that follow; the oldest entries leave so that the window stays bounded."""
        for entry in encoded(records, self.encode):
            self.entries.append(entry)
            if isinstance(entry, Frame):
                self._bytes += len(entry.data)
        leave = 0
        while self._is_over(len(self.entries) - leave):
            entry = self.entries[leave]
            if isinstance(entry, Frame):
                self._bytes -= len(entry.data)
            leave += 1
        if leave:
            del self.entries[:leave]
            self.first += leave

    def _is_over(self, entries: int) -> bool:
        return entries > 1 and (self._bytes > WINDOW_BYTES or entries > WINDOW_ENTRIES)


class Page:
    """A stretch of replay: `entries[i]` stands at sequence ``first + i``."""

    __slots__ = ("entries", "first")

    def __init__(self, first: int, entries: list[Entry]) -> None:
        self.first = first
        self.entries = entries


class Tail:
    """Reads one node while it has subscribers. `cursor`: the last record read; `over`: why it stopped.

    `epoch` is the one that is read, `head` the head of the node when that began.
    """

    def __init__(
        self,
        log: LogEngine,
        node: NodeId,
        *,
        cursor: int,
        epoch: str,
        arrived: Callable[[Record], None],
        past: Past | None,
        outages: Outages,
    ) -> None:
        self._log = log
        self._pause = Pause()
        # Bounds of what is awaited now, of the tail itself and of its readers; each can be cut short.
        self._wait: asyncio.Timeout | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._limits: set[asyncio.Timeout] = set()
        self.outages = outages
        self._arrived = arrived
        self._past = past
        self._past_pages: OrderedDict[tuple[Hashable, ...], PastEntries] = OrderedDict()
        self._pages: OrderedDict[tuple[Encoder, int], Page] = OrderedDict()
        self._paging = asyncio.Lock()
        # When the readers were woken last (loop time), and the waking that is to come.
        self._woken = 0.0
        self._waking: asyncio.TimerHandle | None = None
        self.waking = Waking()
        self.node = node
        self.cursor = cursor
        self.epoch = epoch
        self.head = cursor
        self.over: Over | None = None
        self.strips: dict[Hashable, AnyStrip] = {}

    async def follow(self) -> None:
        """Read until the node is gone, or the owner cancels it; a log that is `Unavailable` is asked again after a pause."""
        self._look()
        try:
            while True:
                try:
                    await self._read_on()
                    await self._await_more()
                except Unavailable as error:
                    self.outages.met(self, error)
                    await asyncio.sleep(self._pause.next())
        except Gone:
            self.stop(Over("deleted"))
        except Exception:
            self.stop(Over("restart"))  # so that subscribers come back instead of waiting for ever
            raise
        finally:
            self.outages.over(self)
            for timer in (self._waking, self._looking):
                if timer is not None:
                    timer.cancel()
            for strip in self.strips.values():
                strip.close()

    def nudge(self) -> None:
        """Read now instead of waiting for a hint."""
        if self._wait is not None and not self._wait.expired():
            self._wait.reschedule(asyncio.get_running_loop().time())

    def stop(self, why: Over) -> None:
        """Tell everyone that nothing more will come, also those who are waiting for the log or for storage."""
        self.over = self.over or why
        limits, self._limits = self._limits, set()
        for limit in limits:
            limit.reschedule(asyncio.get_running_loop().time())
        self._wake_all()

    async def stoppable(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer that a reader waits for; `TimeoutError` when the tail is stopped meanwhile."""
        async with asyncio.timeout(None) as limit:
            self._limits.add(limit)
            try:
                return await ask()
            finally:
                self._limits.discard(limit)

    def strip(self, encode: Encoder) -> Strip:
        """The window of this encoder, from now on. `join` it."""
        strip = self.strips.get(encode)
        return strip if isinstance(strip, Strip) else Strip(encode, self.cursor + 1, self.waking)

    def join(self, key: Hashable, strip: AnyStrip) -> None:
        """One reader more of a strip."""
        self.strips[key] = strip
        strip.users += 1

    def leave(self, key: Hashable, strip: AnyStrip) -> None:
        """One less; the last one takes it along."""
        strip.users -= 1
        if strip.users == 0:
            strip.close()
            self.strips.pop(key, None)

    async def read(self, after: int, *, limit: int = PAGE_RECORDS, headers: bool = False) -> list[Record]:
        """The records after `after` from the log, bounded like a page.

        Raises `Truncated`, `EpochChanged`, `Gone`, `Unavailable`.
        """
        return await self._log.read(self.node, after, limit=limit, max_bytes=PAGE_BYTES, epoch=self.epoch, headers=headers)

    async def page(self, encode: Encoder, after: int) -> Page:
        """The records after `after` from the log, at least one if there is one. Raises `Truncated`, `EpochChanged`, `Gone`."""
        async with self._paging:
            page = self._at_hand(encode, after)
            if page is not None:
                return page
            records = await self.read(after)
            page = Page(after + 1, encoded(records, encode))
            if records:
                self._pages[encode, after] = page
                if len(self._pages) > PAGES:
                    self._pages.popitem(last=False)
            return page

    async def past(
        self, key: Hashable, after: int, upto: int, state: Hashable, *, entries: Callable[[PastPage], PastEntries]
    ) -> PastEntries | None:
        """What is told of the records after `after` up to `upto`, for all of the same `key`; None: nobody can tell.

        Raises `Gone`, `Unavailable`.
        """
        if self._past is None or upto <= after:
            return None
        async with self._paging:
            place = (key, after, upto, state)
            known = self._past_pages.get(place)
            if known is None:
                page = await self._past.page(self.node, after, upto, state)
                known = self._past_pages[place] = entries(page)
                if len(self._past_pages) > PAGES:
                    self._past_pages.popitem(last=False)
            return known

    async def past_ended(self) -> int:
        """The sequence at which the stream ended, as storage knows it; 0 if it does not. Raises `Gone`, `Unavailable`."""
        return 0 if self._past is None else await self._past.ended(self.node)

    async def _read_on(self) -> None:
        """What follows the cursor now, in the epoch in force."""
        try:
            records = await self._log.read(self.node, self.cursor, epoch=self.epoch)
        except Truncated as error:  # written and let go again while this one waited
            self._restart(error.first - 1, self.epoch)
            return
        except EpochChanged as error:
            self.head = (await self._log.head(self.node)).sequence
            self._restart(self.cursor, error.now)
            return
        if self._pause.is_on:
            self._pause.reset()
            self.outages.over(self)
        if records:
            self._extend(records)

    async def _await_more(self) -> None:
        """Wait for a hint of the log, or for a call of `nudge`."""
        try:
            async with asyncio.timeout(None) as self._wait:
                await self._log.wait(self.node, self.cursor)  # returns at once if the page was cut
        except TimeoutError:
            return
        finally:
            self._wait = None

    def _look(self) -> None:
        """Now and then: the log may be in another epoch without a word of this node."""
        if self._log.epoch != self.epoch:
            self.nudge()
        self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _at_hand(self, encode: Encoder, after: int) -> Page | None:
        """A page read before that goes on beyond `after`."""
        for (for_encoder, begin), page in reversed(self._pages.items()):
            if begin <= after < begin + len(page.entries) and for_encoder == encode:
                self._pages.move_to_end((for_encoder, begin))
                return page
        return None

    def _extend(self, records: list[Record]) -> None:
        for strip in self.strips.values():
            strip.extend(records)
        self.cursor = records[-1].sequence
        for record in records:
            self._arrived(record)
        self._wake_soon()

    def _restart(self, cursor: int, epoch: str) -> None:
        self.cursor = cursor
        self.epoch = epoch
        self._pages.clear()
        self._past_pages.clear()
        for strip in self.strips.values():
            strip.restart(cursor + 1)
        self._wake_all()

    def _wake_soon(self) -> None:
        """At once if few read or the last waking is long ago; else what comes meanwhile travels along."""
        loop = asyncio.get_running_loop()
        readers = sum(strip.users for strip in self.strips.values() if strip.waking is self.waking)
        if not readers:
            return
        wait = self._woken + min(PACE_MOST, PACE_A_READER * readers) - loop.time()
        if wait <= 0:
            self._wake()
        elif self._waking is None:
            self._waking = loop.call_later(wait, self._wake)

    def _wake(self) -> None:
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        self._woken = asyncio.get_running_loop().time()
        self.waking.wake()

    def _wake_all(self) -> None:
        """Also those who are not woken for each record."""
        self._wake()
        for strip in self.strips.values():
            if strip.waking is not self.waking:
                strip.waking.wake()


def encoded(records: Sequence[Record], encode: Encoder) -> list[Entry]:
    """One entry a record."""
    entries: list[Entry] = []
    for record in records:
        if isinstance(record.event, _MARKED):
            entries.append(END if isinstance(record.event, StreamEnded) else LOST)
            continue
        data = encode(record)
        entries.append(None if data is None else Frame(record.sequence, record.time, data, born(record)))
    return entries
