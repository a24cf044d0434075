"""The log of one node: where it stands, and the records that are still in it, a dense run from `first` to `last`.

An engine that keeps its records elsewhere too may *evict* the oldest ones from memory; what retention must know of them (time
and size) stays, so that it can decide without looking into the file.

What must stay true: nothing is skipped, the run only grows at its end and shrinks at its front (I1, I2).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from ..domain.errors import Conflict
from ..domain.events import Draft, Record

__all__ = ["RECORD_OVERHEAD", "NodeLog", "Retained", "placed"]

#: What a record costs beside its payload, for retention: header and bookkeeping. Bytes, estimated.
RECORD_OVERHEAD = 400
#: Vacant places at the front are given back once there are so many and they are more than half.
_SLACK = 64


class Retained:
    """Access by sequence, growth at the end and leaving at the front are all cheap. Empty if ``last == first - 1``."""

    __slots__ = ("_records", "_sizes", "_times", "_vacant", "bytes", "first", "resident", "resident_bytes")

    def __init__(self, first: int) -> None:
        # Three lists in step, the first `_vacant` places of which have left already: place = sequence - first + _vacant.
        self._records: list[Record | None] = []
        self._times = array("d")
        self._sizes = array("q")
        self._vacant = 0
        #: The oldest retained sequence, and the oldest one that is in memory too.
        self.first = first
        self.resident = first
        #: What all of it takes, and what of that is in memory.
        self.bytes = 0
        self.resident_bytes = 0

    @property
    def last(self) -> int:
        """The newest sequence."""
        return self.first + len(self._records) - self._vacant - 1

    def push(self, record: Record) -> None:
        """Put a record at the end; its sequence is ``last + 1``."""
        size = len(record.payload)
        self._records.append(record)
        self._times.append(record.time)
        self._sizes.append(size)
        self.bytes += size + RECORD_OVERHEAD
        self.resident_bytes += size + RECORD_OVERHEAD

    def push_absent(self, time: float, size: int) -> None:
        """As `push`, for a record that is not in memory; only before the first one that is."""
        self._records.append(None)
        self._times.append(time)
        self._sizes.append(size)
        self.bytes += size + RECORD_OVERHEAD
        self.resident = self.last + 1

    def time(self, sequence: int) -> float:
        """When the retained record at `sequence` was written, seconds since the epoch."""
        return self._times[sequence - self.first + self._vacant]

    def fit(self, after: int, limit: int, max_bytes: int) -> int:
        """The last sequence of the page after `after`: at most `limit` records and `max_bytes` of payload, at least one."""
        begin = after + 1 - self.first + self._vacant
        sizes = self._sizes[begin : begin + max(limit, 1)]
        if sum(sizes) <= max_bytes:
            return after + len(sizes)
        total = 0
        for count, size in enumerate(sizes):
            total += size
            if total > max_bytes:
                return after + max(count, 1)
        raise AssertionError("the sizes add up to more than themselves")

    def slice(self, first: int, last: int) -> list[Record]:
        """The records `first` … `last`, all of them in memory."""
        shift = self._vacant - self.first
        found = self._records[first + shift : last + shift + 1]
        return [record for record in found if record is not None]

    def pop(self) -> None:
        """The oldest record leaves."""
        size = self._sizes[self._vacant] + RECORD_OVERHEAD
        self.bytes -= size
        if self.resident == self.first:
            self.resident += 1
            self.resident_bytes -= size
            self._records[self._vacant] = None
        self.first += 1
        self._vacant += 1
        if self._vacant > _SLACK and self._vacant * 2 > len(self._records):
            del self._records[: self._vacant]
            del self._times[: self._vacant]
            del self._sizes[: self._vacant]
            self._vacant = 0

    def evict(self) -> None:
        """The oldest record in memory leaves memory; it stays retained."""
        place = self.resident - self.first + self._vacant
        self._records[place] = None
        self.resident_bytes -= self._sizes[place] + RECORD_OVERHEAD
        self.resident += 1

    def evict_all(self) -> None:
        """No record stays in memory."""
        while self.resident <= self.last:
            self.evict()


class NodeLog:
    """The log of one node."""

    __slots__ = ("fence", "free_at", "given", "head", "retained", "settled", "worker")

    def __init__(self, head: int = 0, settled: int = 0) -> None:
        #: The last sequence ever given; it stays when all records have left (I1).
        self.head = head
        #: The highest sequence that is known to be persisted.
        self.settled = settled
        #: The records that are still here; None if there are none, for most nodes of a long life have none.
        self.retained: Retained | None = None
        #: The fence of the lease in force, 0 if nobody holds one.
        self.fence = 0
        #: The worker that leased the node last, and its fence: it gets the same one again.
        self.worker = ""
        self.given = 0
        #: Until when (monotonic seconds) it cannot be claimed: the end of the lease, or the delay after one was given back.
        self.free_at = 0.0

    @property
    def first(self) -> int:
        """The first record that is still here; head + 1 if none is."""
        return self.head + 1 if self.retained is None else self.retained.first

    @property
    def leavable(self) -> Retained | None:
        """What is retained, if the oldest of it may leave."""
        retained = self.retained
        return retained if retained is not None and retained.first <= self.settled else None

    def skip(self, floor: int) -> None:
        """The records up to `floor` are persisted, and not here (I1). Whoever holds a lease of what was here has lost it."""
        self.retained = None
        self.head = self.settled = floor
        self.fence, self.free_at, self.worker = 0, 0.0, ""

    def push(self, records: Sequence[Record]) -> None:
        """Put records at the end."""
        if self.retained is None:
            self.retained = Retained(records[0].sequence)
        for record in records:
            self.retained.push(record)
        self.head = records[-1].sequence


def placed(drafts: Sequence[Draft], head: int, expected: int | None, floor: int) -> list[Record]:
    """The drafts as records at their sequences; nothing is visible yet."""
    if not drafts:
        raise ValueError("nothing to append")
    head = max(head, floor)
    if expected is not None and expected != head:
        raise Conflict(f"The log stands at {head}, not at {expected}.", head=head)
    return [Record(sequence, d.time, d.event, d.payload) for sequence, d in enumerate(drafts, start=head + 1)]
