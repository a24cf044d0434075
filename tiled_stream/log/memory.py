"""The reference engine of the log: everything in this process's memory. Read it first.

It serves tests and `--temp`, where a crash loses the storage too. The durable local engine keeps the same state and adds a file.

What must stay true: sequences are dense and never restart (I1), a position never changes (I2), the watermark never goes back nor
passes the head (I4), and only settled records ever leave (I6).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from uuid import uuid4

from ..domain.errors import Conflict, EpochChanged, Gone, LeaseLost, Truncated
from ..domain.events import Draft, Record
from ..domain.nodes import NodeId
from ..domain.position import Position
from .port import Lag, Lease, Retention

__all__ = ["MemoryLog", "NodeLog"]

#: What a record costs beside its payload, for retention: header objects, deque entry. Bytes, estimated.
RECORD_OVERHEAD = 400


class NodeLog:
    """The log of one node: `first`…`head` are retained (none if ``first == head + 1``)."""

    __slots__ = (
        "_left",
        "_records",
        "bytes",
        "dirty_since",
        "fence",
        "first",
        "free_at",
        "head",
        "holder",
        "settled",
        "waiters",
        "wanted",
    )

    def __init__(self, head: int = 0, settled: int = 0) -> None:
        # A list whose first `_left` places are vacant: access by sequence and leaving at the front are both cheap.
        self._records: list[Record | None] = []
        self._left = 0
        self.first = head + 1
        self.head = head
        self.settled = settled
        #: Bytes retained, for retention.
        self.bytes = 0
        #: Futures of `wait` and `reached`: (the sequence that wakes, the future).
        self.waiters: list[asyncio.Future[None]] = []
        self.wanted: list[tuple[int, asyncio.Future[None]]] = []
        #: The lease: who holds it, its fence, and when (monotonic seconds) it is free again.
        self.holder: str | None = None
        self.fence = 0
        self.free_at = 0.0
        #: Time of the oldest record that is not settled.
        self.dirty_since = 0.0

    def push(self, record: Record) -> None:
        """Put a record at the end."""
        if self.first > self.head:
            self.first = record.sequence
        self._records.append(record)
        self.head = record.sequence
        self.bytes += len(record.payload) + RECORD_OVERHEAD

    def at(self, sequence: int) -> Record:
        """The retained record at `sequence`."""
        record = self._records[self._left + sequence - self.first]
        assert record is not None
        return record

    def pop(self) -> None:
        """Let the oldest record go."""
        record = self.at(self.first)
        self.bytes -= len(record.payload) + RECORD_OVERHEAD
        self._records[self._left] = None
        self._left += 1
        self.first += 1
        if self._left > 64 and self._left * 2 > len(self._records):
            del self._records[: self._left]
            self._left = 0

    def after(self, sequence: int, limit: int, max_bytes: int) -> list[Record]:
        """What follows `sequence`, bounded; `Truncated` if it begins too late."""
        if sequence + 1 < self.first:
            raise Truncated(self.first)
        taken: list[Record] = []
        size = 0
        for place in range(sequence + 1, min(self.head, sequence + limit) + 1):
            record = self.at(place)
            size += len(record.payload)
            if taken and size > max_bytes:
                break
            taken.append(record)
        return taken

    def wake(self) -> None:
        """Whoever waits for records may look again."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class MemoryLog:
    """`monotonic` gives seconds for leases; tests advance their own."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._epoch = uuid4().hex
        self._nodes: dict[NodeId, NodeLog] = {}
        self._gone: set[NodeId] = set()
        # Nodes with unsettled records, longest dirty first; and those of them that a reader waits for.
        self._dirty: OrderedDict[NodeId, None] = OrderedDict()
        self._wanted: OrderedDict[NodeId, None] = OrderedDict()
        self._bell = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def epoch(self) -> str:
        """Which life of the log this is: with this engine, one a process."""
        return self._epoch

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Wake all waiters."""
        for log in self._nodes.values():
            log.wake()
            _resolve(log.wanted, log.head)
        self._bell.set()
        self._hurry.set()

    # ---------------------------------------------------------------- Log

    async def append(self, node: NodeId, *drafts: Draft, expected: int | None = None, floor: int = 0) -> Position:
        log, records = self._place(node, drafts, expected, floor)
        return self._publish(node, log, records)

    async def read(
        self, node: NodeId, after: int, *, limit: int = 1000, max_bytes: int = 16 << 20, epoch: str | None = None
    ) -> list[Record]:
        if epoch is not None and epoch != self._epoch:
            raise EpochChanged(self._epoch)
        log = self._nodes.get(node)
        if log is None:
            self._check(node)
            return []
        if after >= log.head:
            return []
        return log.after(after, limit, max_bytes)

    async def head(self, node: NodeId) -> Position:
        self._check(node)
        log = self._nodes.get(node)
        return Position(self._epoch, log.head if log else 0)

    async def wait(self, node: NodeId, after: int) -> None:
        if node in self._gone:
            return
        log = self._node(node)
        if log.head > after:
            return
        waiter = asyncio.get_running_loop().create_future()
        log.waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in log.waiters:
                log.waiters.remove(waiter)

    async def drop(self, *nodes: NodeId) -> None:
        for node in nodes:
            self._gone.add(node)
            self._dirty.pop(node, None)
            self._wanted.pop(node, None)
            log = self._nodes.pop(node, None)
            if log is not None:
                log.wake()
                _resolve(log.wanted, log.head)

    # ------------------------------------------------------------- Backlog

    async def claim(self, worker: str, *, ttl: float, limit: int = 1) -> list[Lease]:
        now = self._monotonic()
        leases: list[Lease] = []
        for node in (*self._wanted, *self._dirty):
            if len(leases) == limit:
                break
            log = self._nodes[node]
            if log.free_at > now or log.settled == log.head:
                continue
            log.holder, log.free_at = worker, now + ttl
            log.fence += 1
            leases.append(Lease(node, worker, log.fence, log.head, log.settled))
        return leases

    async def renew(self, lease: Lease, *, ttl: float) -> None:
        self._held(lease).free_at = self._monotonic() + ttl

    async def settle(self, lease: Lease, watermark: int) -> bool:
        log = self._held(lease)
        if not log.settled <= watermark <= log.head:
            raise ValueError(f"watermark {watermark} is not between the settled {log.settled} and the head {log.head}")  # I4
        log.holder, log.free_at = None, 0.0
        log.settled = watermark
        log.wanted = _resolve(log.wanted, watermark)
        if not log.wanted:
            self._wanted.pop(lease.node, None)
        if watermark == log.head:
            self._dirty.pop(lease.node, None)
            return True
        self._dirty.move_to_end(lease.node)  # the others first: a hot node cannot starve them
        log.dirty_since = log.at(watermark + 1).time
        self._bell.set()
        return False

    async def release(self, lease: Lease, *, delay: float = 0.0) -> None:
        log = self._nodes.get(lease.node)
        if log is not None and log.fence == lease.fence and log.holder is not None:
            log.holder, log.free_at = None, self._monotonic() + delay
            self._dirty.move_to_end(lease.node)
            if delay:
                asyncio.get_running_loop().call_later(delay, self._ring, lease.node)
            else:
                self._ring(lease.node)

    async def reached(self, node: NodeId, sequence: int) -> None:
        log = self._nodes.get(node)
        if log is None or log.settled >= min(sequence, log.head):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (sequence, waiter)
        log.wanted.append(place)
        self._wanted[node] = None
        self._ring(node)
        try:
            await waiter
        finally:
            if place in log.wanted:
                log.wanted.remove(place)
            if not log.wanted:
                self._wanted.pop(node, None)

    async def wait_dirty(self, *, linger: float = 0.0) -> None:
        self._hurry.clear()
        while not self._claimable():
            self._bell.clear()
            await self._bell.wait()
        if linger and not self._wanted:
            try:
                async with asyncio.timeout(linger):
                    await self._hurry.wait()
            except TimeoutError:
                return

    async def dirty(self) -> list[tuple[NodeId, int]]:
        return [(node, self._nodes[node].head) for node in self._dirty]

    async def lag(self) -> Lag:
        logs = [self._nodes[node] for node in self._dirty]
        oldest = min((log.dirty_since for log in logs), default=None)
        return Lag(len(logs), sum(log.head - log.settled for log in logs), oldest)

    async def trim(self, policy: Retention, *, now: float, nodes: Sequence[NodeId] | None = None) -> int:
        logs = [log for log in (self._nodes.get(n) for n in (self._nodes if nodes is None else nodes)) if log is not None]
        left = sum(self._trim(log, policy.node_bytes, now - policy.seconds) for log in logs)
        if nodes is None:
            left += self._trim_total(policy.total_bytes)
        return left

    # ------------------------------------------------------------- inside

    def _place(self, node: NodeId, drafts: Iterable[Draft], expected: int | None, floor: int) -> tuple[NodeLog, list[Record]]:
        """Give the drafts their sequences; nothing is visible yet."""
        self._check(node)
        log = self._node(node)
        head = max(log.head, floor)
        if expected is not None and expected != head:
            raise Conflict(f"The log stands at {head}, not at {expected}.", head=head)
        records = [Record(head + n, d.time, d.event, d.payload) for n, d in enumerate(drafts, start=1)]
        if not records:
            raise ValueError("nothing to append")
        return log, records

    def _publish(self, node: NodeId, log: NodeLog, records: list[Record]) -> Position:
        """Make placed records visible: the one atomic step."""
        if log.settled == log.head:
            log.dirty_since = records[0].time
            # A floor says that everything up to it is persisted already.
            log.settled = records[0].sequence - 1
        for record in records:
            log.push(record)
        if node not in self._dirty:
            self._dirty[node] = None
            self._bell.set()
        log.wake()
        return Position(self._epoch, log.head)

    def _node(self, node: NodeId) -> NodeLog:
        log = self._nodes.get(node)
        if log is None:
            log = self._nodes[node] = NodeLog()
        return log

    def _check(self, node: NodeId) -> None:
        if node in self._gone:
            raise Gone(f"The node {node} was deleted.")

    def _held(self, lease: Lease) -> NodeLog:
        log = self._nodes.get(lease.node)
        if log is None or log.fence != lease.fence or log.holder is None:
            raise LeaseLost(f"Worker {lease.worker} no longer holds node {lease.node}.")
        return log

    def _claimable(self) -> bool:
        now = self._monotonic()
        return any(self._nodes[node].free_at <= now for node in self._dirty)

    def _ring(self, node: NodeId) -> None:
        self._bell.set()
        if node in self._wanted:
            self._hurry.set()

    def _trim(self, log: NodeLog, keep_bytes: int, not_before: float) -> int:
        left = 0
        while log.first <= log.settled and (log.bytes > keep_bytes or log.at(log.first).time < not_before):
            log.pop()
            left += 1
        return left

    def _trim_total(self, total: int) -> int:
        """Oldest records first over all nodes, until they fit."""
        excess = sum(log.bytes for log in self._nodes.values()) - total
        left = 0
        while excess > 0:
            settled = [log for log in self._nodes.values() if log.first <= log.settled]
            if not settled:
                break
            oldest = min(settled, key=lambda log: log.at(log.first).time)
            before = oldest.bytes
            left += self._trim(oldest, max(0, before - max(excess, before // 4)), float("-inf"))
            excess -= before - oldest.bytes
        return left


def _resolve(wanted: list[tuple[int, asyncio.Future[None]]], watermark: int) -> list[tuple[int, asyncio.Future[None]]]:
    """Tell those whose sequence is reached; returns the others."""
    for sequence, waiter in wanted:
        if sequence <= watermark and not waiter.done():
            waiter.set_result(None)
    return [(s, w) for s, w in wanted if s > watermark]
