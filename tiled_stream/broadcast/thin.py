"""Fewer messages: at most one every so often, which stands for all records since the one before it.

A `ThinStrip` folds what a tail reads, once for all subscribers of the same view; a `ThinSubscription` sends from it. What must
stay true: every record after the cursor is stood for by exactly one message, or announced as a gap (I3); what is held is one fold
and a few encoded messages, however fast records come (I8). A message that stands for records some of which this reader has had
already, because it came in between, is not for it: it gets its own, made from the log. No message stands for a record that is
lost: messages end before it, it is announced, and the next message begins after it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Protocol

import msgspec

from ..domain.errors import Truncated
from ..domain.events import DELIVERED, Record, RecordLost, StreamEnded
from ..domain.past import Lost, PastPage
from .frames import Encoder, Frame, Item, Skipped
from .past import PastEntries, past_entries
from .subscription import Subscription, add_loss
from .tail import PAGE_RECORDS, Tail, Waking

__all__ = ["Fold", "ThinStrip", "ThinSubscription", "Thinner"]

#: Records of the log that are looked at at once for losses.
_HEADERS = 1000
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
    """One message for the records `first` … `last`; None if none of them is delivered, or all of them are lost.

    `is_end`: the producer's end is the last.
    """

    first: int
    last: int
    frame: Frame | None
    is_end: bool = False
    is_lost: bool = False


class ThinStrip:
    """The messages of one view of a tail: `stretches` stand one after the other for the records up to `last`.

    `known`: of what follows this sequence none was dropped but for what a later one stands for.
    """

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
        # The records of the log after the first number up to the second were looked at, and none of them is lost.
        self._sound = (0, 0)
        self.stretches: list[Stretch] = []
        self.first = tail.cursor + 1
        self.last = self.known = tail.cursor
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
        self._read = self.last = self.known = first - 1
        self._is_end = False
        self._replayed = None
        self._sound = (0, 0)
        self.stretches = []
        self.first = first

    def extend(self, records: Sequence[Record]) -> None:
        """Fold the records that follow; tell them if it is time, else when it will be."""
        for record in records:
            if isinstance(record.event, RecordLost):
                self._lose(record.sequence)
                continue
            self._is_end = isinstance(record.event, StreamEnded)
            if isinstance(record.event, DELIVERED):
                self._fold.add(record)
            self._read = record.sequence
        if self._read == self.last:
            return
        loop = asyncio.get_running_loop()
        if self._is_end or loop.time() >= self._due:
            self._tell()
        elif self._timer is None:
            self._timer = loop.call_at(self._due, self._tell)

    async def replayed(self, after: int, upto: int) -> Stretch | None:
        """A message for the records after `after` to `upto`, or some of them, from the log; None: it has none of them.

        Late joiners share it. Raises `Truncated`, `EpochChanged`, `Gone`, `Unavailable`.
        """
        async with self._replaying:
            known = self._replayed
            if known is not None and known[:2] == (after, upto):
                return known[2]
            end = upto if self._thinner.is_minmax else await self._before_loss(after, upto)
            if self._thinner.is_minmax or end == after:
                records = await self._tail.read(after, limit=min(PAGE_RECORDS, upto - after))
            else:
                records = await self._latest(after, end)
            if not records:
                return None
            stretch = self._stretched(after + 1, records)
            self._replayed = (after, upto, stretch)
            return stretch

    async def is_sound(self, after: int) -> bool:
        """Whether no record from `after` up to `known` is lost, as far as the log has them. Raises as `replayed`."""
        async with self._replaying:
            known = self.known
            return await self._before_loss(after, known) >= known == self.known

    async def _before_loss(self, after: int, upto: int) -> int:
        """Up to where the log, as far as it has them still, has records that are not lost; `upto` if none is."""
        begin, end = self._sound if self._sound[0] <= after <= self._sound[1] else (after, after)
        while end < upto:
            try:
                records = await self._tail.read(end, limit=min(_HEADERS, upto - end), headers=True)
            except Truncated as error:
                if error.first > upto:
                    break
                end = error.first - 1
                continue
            for record in records:
                if isinstance(record.event, RecordLost):
                    return max(after, record.sequence - 1)
                end = record.sequence
            self._sound = (begin, end)
            if not records:
                break
        return upto

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
        if not self._thinner.is_minmax and self.stretches and not self.stretches[-1].is_lost:
            self.stretches.pop()  # the new one stands for it too
        self.stretches.append(stretch)
        self.last = self._read
        if stretch.frame is not None:
            self._due = asyncio.get_running_loop().time() + self._thinner.seconds
        self._told()

    def _lose(self, sequence: int) -> None:
        """The record with this sequence is lost: what was folded before it is sent first."""
        if self._read > self.last:
            self._tell()
        before = self.stretches[-1] if self.stretches else None
        if before is not None and before.is_lost and before.last == sequence - 1:
            self.stretches[-1] = msgspec.structs.replace(before, last=sequence)
        else:
            self.stretches.append(Stretch(sequence, sequence, None, is_lost=True))
        self.last = self._read = sequence
        self._is_end = False
        self._told()

    def _told(self) -> None:
        """Keep what stays at hand within its bounds, and wake who waits."""
        while len(self.stretches) > _FRAMES or (len(self.stretches) > 1 and self._size() > _BYTES):
            self.known = self.stretches.pop(0).last
        self.first = self.stretches[0].first
        self.waking.wake()

    def _size(self) -> int:
        return sum(len(stretch.frame.data) for stretch in self.stretches if stretch.frame is not None)

    def _stretched(self, first: int, records: Sequence[Record]) -> Stretch:
        """One message for these records from the log: up to the first that is lost, or for those that are lost."""
        is_lost, run = next(itertools.groupby(records, key=lambda record: isinstance(record.event, RecordLost)))
        taken = list(run)
        if is_lost:
            return Stretch(first, taken[-1].sequence, None, is_lost=True)
        fold = self._thinner.begin()
        for record in taken:
            if isinstance(record.event, DELIVERED):
                fold.add(record)
        return self._stretch(first, taken[-1].sequence, fold, is_end=isinstance(taken[-1].event, StreamEnded))

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

    def _is_in_window(self) -> bool:
        return self._at_hand() is not None

    def _at_hand(self) -> list[Stretch] | None:
        """What follows the cursor, if that can be said without the log."""
        ahead = self._ahead()
        if not self._thinner.is_minmax:  # one stands for all before it, up to a loss
            return ahead if ahead and self.cursor >= self._thin.known else None
        fits = ahead and (ahead[0].first == self.cursor + 1 or (ahead[0].is_lost and ahead[0].first <= self.cursor))
        return ahead if fits else None

    def _ahead(self) -> list[Stretch]:
        return [stretch for stretch in self._thin.stretches if stretch.last > self.cursor]

    def _jumps(self) -> bool:
        """Does a message at hand stand for what is before it, too?"""
        ahead = self._ahead()
        return bool(ahead) and not ahead[0].is_lost

    async def _following(self) -> list[Item] | None:
        stretches = self._at_hand()
        if stretches is None:
            return await self._replay()
        return [item for stretch in stretches for item in self._given(stretch)]

    async def _paged(self) -> list[Item] | None:
        if not self._thinner.is_minmax and self._jumps() and await self._thin.is_sound(self.cursor) and self._jumps():
            return [item for stretch in self._ahead() for item in self._given(stretch)]
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
        if not self._thinner.is_minmax and self.cursor < strip.known:
            return strip.known
        inside = [s.last for s in strip.stretches if s.first <= self.cursor < s.last]
        return inside[0] if inside else strip.first - 1

    def _given(self, stretch: Stretch) -> list[Item]:
        """Move over a stretch."""
        items: list[Item] = []
        frame = stretch.frame
        if stretch.is_lost:
            add_loss(items, max(stretch.first, self.cursor + 1), stretch.last)
        if frame is not None and frame.sequence > self.cursor:
            if frame.sequence > self.cursor + 1:
                items.append(Skipped(frame.sequence - self.cursor - 1))
            items.append(frame)
        self.cursor = max(self.cursor, stretch.last)
        self._ended = stretch.is_end
        return items


def _tells(records: Sequence[Record]) -> bool:
    return any(isinstance(record.event, DELIVERED) for record in records)
