"""Fewer messages: at most one every so often, which stands for all records since the one before it.

A `ThinStrip` folds what a tail reads, once for all subscribers of the same view; a `ThinSubscription` sends from it. What must
stay true: every record after the cursor is stood for by exactly one message, or announced as a gap (I3); what is held is one fold
and a few encoded messages, however fast records come (I8). A message that stands for records some of which this reader has had
already, because it came in between, is not for it: it gets its own, made from the log.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Protocol

import msgspec

from ..domain.errors import Truncated
from ..domain.events import DELIVERED, Record, StreamEnded
from ..domain.past import Lost, PastPage
from .frames import Encoder, Frame, Item, Skipped
from .past import PastEntries, past_entries
from .subscription import Subscription
from .tail import PAGE_RECORDS, Tail, Waking

__all__ = ["Fold", "ThinStrip", "ThinSubscription", "Thinner"]

#: Encoded messages that stay at hand for slow readers, in number and bytes.
_FRAMES = 64
_BYTES = 1 << 20


class Fold(Protocol):
    """Many records in little space."""

    def add(self, record: Record, /) -> None: ...

    def take(self) -> Record | None: ...


class Thinner(Hashable, Protocol):
    """A value: how to fold, and how often to tell. `is_minmax` False: only the last message counts."""

    @property
    def seconds(self) -> float: ...

    @property
    def is_minmax(self) -> bool: ...

    def begin(self) -> Fold: ...


class Stretch(msgspec.Struct, frozen=True, gc=False):
    """One message for the records `first`…`last`; None if none of them is delivered. `is_end`: the producer's end is the last."""

    first: int
    last: int
    frame: Frame | None
    is_end: bool = False


class ThinStrip:
    """The messages of one view of a tail: `stretches` stand one after the other for the records ``first``…``last``."""

    def __init__(self, tail: Tail, encode: Encoder, thinner: Thinner) -> None:
        self._tail = tail
        self._encode = encode
        self._thinner = thinner
        self._fold = thinner.begin()
        # The last record in the fold, and whether it is the producer's end.
        self._read = tail.cursor
        self._is_end = False
        # When the next message may be told (loop time), and the timer that does so.
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._replayed: tuple[int, int, Stretch] | None = None
        self._replaying = asyncio.Lock()
        self.stretches: list[Stretch] = []
        self.first = tail.cursor + 1
        self.last = tail.cursor
        self.users = 0
        self.waking = Waking()

    def close(self) -> None:
        """Tell nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def restart(self, first: int) -> None:
        """Begin anew, empty, at `first`."""
        self.close()
        self._fold = self._thinner.begin()
        self._read = self.last = first - 1
        self._is_end = False
        self._replayed = None
        self.stretches = []
        self.first = first

    def extend(self, records: Sequence[Record]) -> None:
        """Fold the records that follow; tell them if it is time, else when it will be."""
        for record in records:
            self._is_end = isinstance(record.event, StreamEnded)
            if isinstance(record.event, DELIVERED):
                self._fold.add(record)
        self._read = records[-1].sequence
        loop = asyncio.get_running_loop()
        if self._is_end or loop.time() >= self._due:
            self._tell()
        elif self._timer is None:
            self._timer = loop.call_at(self._due, self._tell)

    async def replayed(self, after: int, upto: int) -> Stretch | None:
        """A message for the records after `after` to `upto`, or some of them, from the log; None: it has none of them.

        Late joiners share it. Raises `Truncated`, `EpochChanged`, `Gone`.
        """
        async with self._replaying:
            known = self._replayed
            if known is not None and known[:2] == (after, upto):
                return known[2]
            records = await (self._few if self._thinner.is_minmax else self._latest)(after, upto)
            if not records:
                return None
            fold = self._thinner.begin()
            for record in records:
                if isinstance(record.event, DELIVERED):
                    fold.add(record)
            stretch = self._stretch(after + 1, records[-1].sequence, fold, is_end=isinstance(records[-1].event, StreamEnded))
            self._replayed = (after, upto, stretch)
            return stretch

    async def _few(self, after: int, upto: int) -> list[Record]:
        return await self._tail.read(after, limit=min(PAGE_RECORDS, upto - after))

    async def _latest(self, after: int, upto: int) -> list[Record]:
        """The last records up to `upto`, one of which is delivered if there is such a one."""
        records: list[Record] = []
        for back in (1, 16, PAGE_RECORDS):
            begin = max(after, upto - back)
            try:
                records = await self._tail.read(begin, limit=upto - begin)
            except Truncated as error:
                if error.first > upto:
                    raise
                begin = error.first - 1  # what is older is not wanted
                records = await self._tail.read(begin, limit=upto - begin)
            while records and records[-1].sequence < upto:  # cut by bytes
                more = await self._tail.read(records[-1].sequence, limit=upto - records[-1].sequence)
                if not more:
                    break
                records = more if _tells(more) else [*records, *more]
            if _tells(records):
                break
        return records

    def _tell(self) -> None:
        self.close()
        stretch = self._stretch(self.last + 1, self._read, self._fold, is_end=self._is_end)
        self.stretches.append(stretch)
        self.last = self._read
        if stretch.frame is not None:
            self._due = asyncio.get_running_loop().time() + self._thinner.seconds
        keep = _FRAMES if self._thinner.is_minmax else 1
        while len(self.stretches) > keep or (len(self.stretches) > 1 and self._size() > _BYTES):
            self.stretches.pop(0)
        self.first = self.stretches[0].first
        self.waking.wake()

    def _size(self) -> int:
        return sum(len(stretch.frame.data) for stretch in self.stretches if stretch.frame is not None)

    def _stretch(self, first: int, last: int, fold: Fold, *, is_end: bool) -> Stretch:
        record = fold.take()
        data = None if record is None else self._encode(record)
        frame = None if record is None or data is None else Frame(record.sequence, record.time, data)
        return Stretch(first, last, frame, is_end)


class ThinSubscription(Subscription):
    """A subscription to fewer messages."""

    def __init__(
        self,
        tail: Tail,
        *,
        after: int,
        encode: Encoder,
        leave: Callable[[], Awaitable[None]],
        head: int,
        epoch: str | None,
        thinner: Thinner,
    ) -> None:
        self._thinner = thinner
        super().__init__(tail, after=after, encode=encode, leave=leave, head=head, epoch=epoch)

    def _join(self) -> None:
        key = (self._encode, self._thinner)
        known = self._tail.strips.get(key)
        self._thin = known if isinstance(known, ThinStrip) else ThinStrip(self._tail, self._encode, self._thinner)
        self._shared = (key, self._thin)
        self._waking = self._thin.waking
        self._tail.join(*self._shared)

    def _may_follow(self) -> bool:
        return self.cursor < self._thin.last

    async def _following(self) -> list[Item] | None:
        strip = self._thin
        ahead = [stretch for stretch in strip.stretches if stretch.last > self.cursor]
        if not self._thinner.is_minmax and ahead:
            return self._given(ahead[-1])  # it stands for all before it
        if ahead and ahead[0].first == self.cursor + 1:
            return [item for stretch in ahead for item in self._given(stretch)]
        return await self._replay()

    async def _paged(self) -> list[Item] | None:
        stretch = await self._thin.replayed(self.cursor, self._window())
        return None if stretch is None else self._given(stretch)

    async def _past(self, upto: int) -> list[Item]:
        """The last message says what the past would: only extremes are gathered from it."""
        if self._thinner.is_minmax:
            return await super()._past(upto)
        self._ended |= 0 < await self._tail.past_ended() <= upto
        return [self._missing(upto)]

    def _entries(self, page: PastPage) -> PastEntries:
        """Of the records that follow each other one."""
        items: list[Record | Lost] = []
        for is_lost, run in itertools.groupby(page.items, key=lambda item: isinstance(item, Lost)):
            if is_lost:
                items += run
                continue
            fold, records = self._thinner.begin(), [item for item in run if isinstance(item, Record)]
            for record in records:
                fold.add(record)
            first, last = records[0].covers, records[-1].covers
            whole = fold.take()
            if whole is not None and first is not None and last is not None:
                items.append(msgspec.structs.replace(whole, covers=(first[0], last[1])))
        return past_entries(msgspec.structs.replace(page, items=tuple(items)), self._encode)

    def _window(self) -> int:
        strip = self._thin
        inside = [s.last for s in strip.stretches if s.first <= self.cursor < s.last]
        return inside[0] if inside else strip.first - 1

    def _given(self, stretch: Stretch) -> list[Item]:
        """Move over a stretch."""
        items: list[Item] = []
        frame = stretch.frame
        if frame is not None and frame.sequence > self.cursor:
            if frame.sequence > self.cursor + 1:
                items.append(Skipped(frame.sequence - self.cursor - 1))
            items.append(frame)
        self.cursor = max(self.cursor, stretch.last)
        self._ended = stretch.is_end
        return items


def _tells(records: Sequence[Record]) -> bool:
    return any(isinstance(record.event, DELIVERED) for record in records)
