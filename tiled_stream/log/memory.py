"""The reference engine of the log: everything in this process's memory. Read it first.

It serves tests and `--temp`, where a crash loses the storage too. `local.py` keeps the same state and adds a file.

Nothing here waits in the middle of a change: each change is one stretch of code without `await`, which is what makes it atomic
for everyone on the event loop.

What must stay true: sequences are dense and never restart (I1), a position never changes (I2), the watermark never goes back nor
passes the head (I4), and only settled records ever leave (I6).
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, count
from uuid import uuid4

from ..domain.errors import Conflict, EpochChanged, Gone, LeaseLost, Truncated, Unavailable
from ..domain.events import Draft, Record
from ..domain.nodes import NodeId
from ..domain.position import Position
from .node_log import RECORD_OVERHEAD, NodeLog, Retained, placed
from .port import UNGUARDED, Lag, Lease, Retention

__all__ = ["RECORD_OVERHEAD", "MemoryLog"]

#: What waits for a watermark: the sequence to be reached, and whom to tell.
Wanted = tuple[int, "asyncio.Future[None]"]


class MemoryLog:
    """`max_bytes`: how much it takes before appends are refused, which happens while storage is down for long.

    `monotonic` gives seconds for leases; tests advance their own.
    """

    def __init__(self, *, max_bytes: int = 4 << 30, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._epoch = uuid4().hex
        self._nodes: dict[NodeId, NodeLog] = {}
        # Deleted nodes stay known, so that a late writer is refused instead of beginning a new log.
        self._gone: set[NodeId] = set()
        # Who waits for records of a node. Not in `NodeLog`, for one may wait for a node that has no log yet.
        self._waiters: dict[NodeId, set[asyncio.Future[None]]] = {}
        # The backlog: nodes with unsettled records, longest dirty first; and who waits for which of them to be settled.
        self._dirty: OrderedDict[NodeId, NodeLog] = OrderedDict()
        self._wanted: OrderedDict[NodeId, list[Wanted]] = OrderedDict()
        self._fences = count(1)
        # Rung when there may be more to claim, and when it should not wait for company.
        self._bell = asyncio.Event()
        self._hurry = asyncio.Event()
        # Nodes that have records, and the bytes of all of these: most nodes of a long life have none, and need no looking at.
        self._holding: dict[NodeId, NodeLog] = {}
        self._bytes = 0
        self._is_closed = False

    @property
    def epoch(self) -> str:
        """Which life of the log this is: with this engine, one an instance."""
        return self._epoch

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Wake all waiters; whoever calls afterwards is told `Unavailable`."""
        self._is_closed = True
        for node in list(self._waiters):
            self._wake(node)
        for wanted in self._wanted.values():
            for _, waiter in wanted:
                if not waiter.done():
                    waiter.set_exception(_closed())
        self._bell.set()
        self._hurry.set()

    async def bind(self, catalog: str) -> None:
        """Begun with this process, it belongs to whatever it is used with."""

    async def figures(self) -> dict[str, float]:
        """Bytes of retained records."""
        return {"tiled_stream_log_bytes": float(self._bytes)}

    # ---------------------------------------------------------------- Log

    async def append(
        self,
        node: NodeId,
        *drafts: Draft,
        expected: int | None = None,
        floor: int = 0,
        guards: Mapping[NodeId, int] = UNGUARDED,
    ) -> Position:
        self._check(node)
        if self._bytes > self._max_bytes:
            raise Unavailable("The log, which is in memory, is full: storage does not keep up. Try again.", retry_after=5.0)
        self._check_guards(guards)
        log = self._nodes.get(node)
        records = placed(drafts, log.head if log else 0, expected, floor)
        self._publish(node, records)
        return Position(self._epoch, records[-1].sequence)

    async def read(
        self,
        node: NodeId,
        after: int,
        *,
        limit: int = 1000,
        max_bytes: int = 16 << 20,
        epoch: str | None = None,
        headers: bool = False,
    ) -> list[Record]:
        retained = self._after(node, after, epoch)
        if retained is None:
            return []
        return retained.slice(max(after, 0) + 1, retained.fit(max(after, 0), limit, max_bytes))

    async def head(self, node: NodeId) -> Position:
        self._check(node)
        log = self._nodes.get(node)
        return Position(self._epoch, log.head if log else 0)

    async def heads(self, nodes: Sequence[NodeId]) -> list[int | None]:
        self._check_open()
        return [self._head(node) for node in nodes]

    async def wait(self, node: NodeId, after: int) -> None:
        self._check_open()
        log = self._nodes.get(node)
        if node in self._gone or (log is not None and log.head > after):
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(node, set()).add(waiter)
        try:
            await waiter
        finally:
            waiters = self._waiters.get(node)
            if waiters is not None:  # cancelled, and the others still wait
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[node]

    async def drop(self, *nodes: NodeId) -> None:
        self._check_open()
        for node in nodes:
            self._gone.add(node)
            self._dirty.pop(node, None)
            self._nodes.pop(node, None)
            log = self._holding.pop(node, None)
            if log is not None and log.retained is not None:
                self._bytes -= log.retained.bytes
            self._wake(node)
            self._tell(node, None)

    # ------------------------------------------------------------- Backlog

    async def claim(self, worker: str, *, ttl: float, limit: int = 1) -> list[Lease]:
        self._check_open()
        now = self._monotonic()
        leases: list[Lease] = []
        for node in chain(self._wanted, self._dirty):
            if len(leases) >= limit:
                break
            log = self._dirty.get(node)
            if log is None or log.free_at > now:
                continue
            log.fence, log.free_at = next(self._fences), now + ttl
            leases.append(Lease(node, worker, log.fence, log.head, log.settled))
        return leases

    async def renew(self, lease: Lease, *, ttl: float) -> None:
        self._held(lease).free_at = self._monotonic() + ttl

    async def settle(self, lease: Lease, watermark: int) -> bool:
        log = self._held(lease)
        if not log.settled <= watermark <= log.head:
            raise ValueError(f"watermark {watermark} is not between the settled {log.settled} and the head {log.head}")  # I4
        log.fence, log.free_at = 0, 0.0
        log.settled = watermark
        is_clean = watermark == log.head
        if is_clean:
            del self._dirty[lease.node]
        else:
            self._dirty.move_to_end(lease.node)  # the others first: a hot node cannot starve them
        self._tell(lease.node, None if is_clean else watermark)
        self._ring(lease.node)
        return is_clean

    async def release(self, lease: Lease, *, delay: float = 0.0) -> None:
        log = self._nodes.get(lease.node)
        if log is None or log.fence != lease.fence:
            return
        log.fence, log.free_at = 0, self._monotonic() + delay if delay > 0 else 0.0
        self._dirty.move_to_end(lease.node)
        self._ring(lease.node)

    async def reached(self, node: NodeId, sequence: int) -> None:
        self._check_open()
        log = self._dirty.get(node)
        if log is None or log.settled >= sequence:
            return
        wanted = (sequence, asyncio.get_running_loop().create_future())
        self._wanted.setdefault(node, []).append(wanted)
        self._ring(node)
        try:
            await wanted[1]
        finally:
            others = self._wanted.get(node)
            if others is not None and wanted in others:  # cancelled
                others.remove(wanted)
                if not others:
                    del self._wanted[node]

    async def wait_dirty(self, *, linger: float = 0.0) -> None:
        self._check_open()
        while (pause := self._pause()) != 0 and not self._is_closed:
            self._bell.clear()
            await _rung(self._bell, pause)
        if linger > 0 and not self._is_hurried() and not self._is_closed:
            self._hurry.clear()
            await _rung(self._hurry, linger)

    async def dirty(self) -> list[tuple[NodeId, int]]:
        self._check_open()
        return [(node, log.head) for node, log in self._dirty.items()]

    async def lag(self) -> Lag:
        self._check_open()
        records = 0
        oldest: float | None = None
        for log in self._dirty.values():
            records += log.head - log.settled
            if log.retained is not None:
                since = log.retained.time(log.settled + 1)
                oldest = since if oldest is None else min(oldest, since)
        return Lag(len(self._dirty), records, oldest)

    async def trim(self, policy: Retention, *, now: float, nodes: Sequence[NodeId] | None = None) -> int:
        self._check_open()
        left = 0
        chosen = set(self._holding if nodes is None else nodes)
        for node in chosen:
            log = self._holding.get(node)
            while log is not None and (old := log.leavable) is not None:
                if old.bytes <= policy.node_bytes and old.time(old.first) >= now - policy.seconds:
                    break
                self._pop(node, log)
                left += 1
        if self._bytes > policy.total_bytes:
            left += self._trim_total(policy.total_bytes, chosen)
        return left

    # ------------------------------------------------------- what may not be awaited

    def _publish(self, node: NodeId, records: list[Record]) -> None:
        """Make placed records visible: the one atomic step."""
        log = self._nodes.get(node)
        if log is None:
            log = self._nodes[node] = NodeLog()
        before = 0 if log.retained is None else log.retained.bytes
        if records[0].sequence > log.head + 1:
            log.skip(records[0].sequence - 1)
            self._tell(node, log.settled)
        log.push(records)
        self._holding[node] = log
        self._bytes += (log.retained.bytes if log.retained is not None else 0) - before
        if node not in self._dirty:
            self._dirty[node] = log
            self._ring(node)
        self._wake(node)

    def _pop(self, node: NodeId, log: NodeLog) -> None:
        """The oldest record of a node leaves."""
        retained = log.retained
        assert retained is not None
        assert retained.first <= log.settled  # I6
        before = retained.bytes
        retained.pop()
        self._bytes -= before - retained.bytes
        if retained.first > log.head:
            log.retained = None
            del self._holding[node]

    def _trim_total(self, total: int, nodes: Iterable[NodeId]) -> int:
        """Of all settled records of `nodes` the oldest leave first, until everything takes no more than `total` bytes."""
        queue = [(old.time(old.first), node) for node in nodes if (log := self._holding.get(node)) and (old := log.leavable)]
        heapq.heapify(queue)
        left = 0
        while queue and self._bytes > total:
            node = queue[0][1]
            log = self._holding[node]
            self._pop(node, log)
            left += 1
            if old := log.leavable:
                heapq.heapreplace(queue, (old.time(old.first), node))
            else:
                heapq.heappop(queue)
        return left

    def _after(self, node: NodeId, after: int, epoch: str | None) -> Retained | None:
        """What to read from, if anything follows `after`."""
        self._check(node)
        if epoch is not None and epoch != self._epoch:
            raise EpochChanged(self._epoch)
        log = self._nodes.get(node)
        if log is None or after >= log.head:
            return None
        if max(after, 0) + 1 < log.first:
            raise Truncated(log.first)
        return log.retained

    def _head(self, node: NodeId) -> int | None:
        if node in self._gone:
            return None
        log = self._nodes.get(node)
        return log.head if log else 0

    def _held(self, lease: Lease) -> NodeLog:
        self._check_open()
        log = self._nodes.get(lease.node)
        if log is None or log.fence != lease.fence:
            raise LeaseLost(f"Worker {lease.worker} does not hold node {lease.node} any more.")
        return log

    def _wake(self, node: NodeId) -> None:
        """Whoever waits for records of the node may look again."""
        for waiter in self._waiters.pop(node, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _tell(self, node: NodeId, watermark: int | None) -> None:
        """Tell those whose sequence is persisted now; all of them if the node is clean or gone (None)."""
        wanted = self._wanted.get(node)
        if wanted is None:
            return
        for sequence, waiter in wanted:
            if (watermark is None or sequence <= watermark) and not waiter.done():
                waiter.set_result(None)
        remaining = [(s, w) for s, w in wanted if watermark is not None and s > watermark]
        if remaining:
            self._wanted[node] = remaining
        else:
            del self._wanted[node]

    def _ring(self, node: NodeId) -> None:
        """There may be something to claim, or to wait for, that was not there before."""
        self._bell.set()
        if node in self._wanted:
            self._hurry.set()

    def _pause(self) -> float | None:
        """Seconds until something can be claimed, unless the bell rings before: 0 now, None nothing in sight."""
        now = self._monotonic()
        earliest = float("inf")
        for log in self._dirty.values():
            if log.free_at <= now:
                return 0.0
            earliest = min(earliest, log.free_at)
        return max(earliest - now, 0.001) if self._dirty else None

    def _is_hurried(self) -> bool:
        now = self._monotonic()
        return any((log := self._dirty.get(node)) is not None and log.free_at <= now for node in self._wanted)

    def _check(self, node: NodeId) -> None:
        self._check_open()
        if node in self._gone:
            raise Gone(f"The node {node} was deleted.")

    def _check_guards(self, guards: Mapping[NodeId, int]) -> None:
        for node, head in guards.items():
            stands = self._head(node)
            if stands is None or stands > head:
                raise Conflict(f"The log of node {node} stands at {stands}, above {head}.")

    def _check_open(self) -> None:
        if self._is_closed:
            raise _closed()


async def _rung(bell: asyncio.Event, seconds: float | None) -> None:
    """Return when the bell rings, at the latest after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        return


def _closed() -> Unavailable:
    return Unavailable("The log is closed: the server is stopping.")
