"""What one server keeps of a log in Redis, to restore it: its records that are not persisted, and the heads that it has seen.

Payloads are referenced, not copied; a large body is in its file, and its token is kept. The records are bounded in bytes, the
heads in number.

What must stay true: an acknowledged record is kept until it is known to be persisted, or its loss from here is counted.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import count

import msgspec

from ..domain.nodes import NodeId
from .redis_appends import Encoded

__all__ = ["DROPPED", "Keep", "Kept", "Known"]

#: The head of a node that was dropped.
DROPPED = -1
#: What a kept record costs beside event and payload, bytes.
_OVERHEAD = 300
#: Nodes whose heads are remembered.
_NODES = 100_000


class Kept(msgspec.Struct, frozen=True):
    """A record that this server appended. `order` grows with each."""

    sequence: int
    draft: Encoded
    order: int

    @property
    def size(self) -> int:
        """Bytes that it counts."""
        return len(self.draft.event) + len(self.draft.payload) + _OVERHEAD


class Known(msgspec.Struct):
    """The highest head of a node that this server has seen, in which epoch; and how far it is persisted at least.

    `own`: the last sequence that this server was given. `unkept`: up to this one, records of this server were dropped from
    what it keeps.
    """

    epoch: str = ""
    head: int = 0
    settled: int = 0
    own: int = 0
    unkept: int = 0


class Keep:
    """`max_bytes` bounds the records; the oldest are dropped first, and counted in `unkept`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._order = count()
        #: Records by node, oldest first.
        self.records: dict[NodeId, deque[Kept]] = {}
        #: The least recently used node first.
        self.known: OrderedDict[NodeId, Known] = OrderedDict()
        #: Records that were acknowledged in a generation that ended without this server, to be appended again.
        self.strays: list[tuple[NodeId, Kept]] = []
        self.bytes = 0
        self.unkept = 0
        self._asked: deque[NodeId] = deque()

    def know(self, node: NodeId, epoch: str, head: int) -> None:
        """This head was seen."""
        known = self.known.get(node)
        if known is None:
            known = self.known[node] = Known()
            if len(self.known) > _NODES:
                self._forget()
        if head > known.head and known.head != DROPPED:
            known.epoch, known.head = epoch, head
            self.known.move_to_end(node)

    def add(self, node: NodeId, last: int, drafts: Sequence[Encoded]) -> None:
        """This server has appended these drafts; the last of them is at sequence `last`."""
        known = self.known.get(node)
        if known is not None:
            known.own = last
        records = self.records.get(node)
        if records is None:
            records = self.records[node] = deque()
        for sequence, draft in enumerate(drafts, last + 1 - len(drafts)):
            kept = Kept(sequence, draft, next(self._order))
            records.append(kept)
            self.bytes += kept.size
        if self.bytes > self._max_bytes:
            self._shrink()

    def settle(self, node: NodeId, watermark: int) -> None:
        """The node is persisted up to there."""
        known = self.known.get(node)
        if known is not None and watermark > known.settled:
            known.settled = watermark
        records = self.records.get(node)
        if records is None:
            return
        while records and records[0].sequence <= watermark:
            self.bytes -= records.popleft().size
        if not records:
            del self.records[node]

    def drop(self, node: NodeId) -> None:
        """The node was dropped."""
        for kept in self.records.pop(node, ()):
            self.bytes -= kept.size
        self.know(node, "", 1)
        self.known[node].head = DROPPED

    def put_back(self, node: NodeId, kept: Kept) -> None:
        """A stray that is in the log at its sequence after all."""
        records = self.records.setdefault(node, deque())
        records.append(kept)
        self.records[node] = deque(sorted(records, key=lambda one: one.sequence))
        self.bytes += kept.size

    def set_aside(self) -> None:
        """A generation ended without this server: nothing is known of its records."""
        for node, records in self.records.items():
            self.strays += [(node, kept) for kept in records]
        self.records.clear()
        self.bytes = 0
        self.strays.sort(key=lambda stray: stray[1].order)

    def some(self, number: int) -> list[NodeId]:
        """Nodes with kept records, in turns."""
        if len(self._asked) < number:
            self._asked.extend(self.records)
        found: dict[NodeId, None] = {}
        while self._asked and len(found) < number:
            node = self._asked.popleft()
            if node in self.records:
                found[node] = None
        return list(found)

    def _shrink(self) -> None:
        """Drop the oldest records until a tenth is free, so that this is done seldom."""
        oldest = [(records[0].order, node) for node, records in self.records.items()]
        heapify(oldest)
        while oldest and self.bytes > self._max_bytes * 0.9:
            _, node = heappop(oldest)
            records = self.records[node]
            dropped = records.popleft()
            self.bytes -= dropped.size
            self.unkept += 1
            known = self.known.get(node)
            if known is not None:
                known.unkept = dropped.sequence
            if records:
                heappush(oldest, (records[0].order, node))
            else:
                del self.records[node]

    def _forget(self) -> None:
        """The least recently used node of which no record is kept."""
        for node in self.known:
            if node not in self.records:
                del self.known[node]
                return
