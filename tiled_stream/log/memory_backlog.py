"""The backlog half of the memory engine: what is pending, who persists it, what may leave.

`memory.py` is the other half, on the same state.

What must stay true: the watermark never goes back nor passes the head (I4, `reopen` excepted), a lease that was lost changes
nothing, and only settled records leave (I6).
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import chain

from ..domain.errors import Gone, LeaseLost, Unavailable
from ..domain.nodes import NodeId
from .node_log import NodeLog
from .port import Lag, Lease, NodeState, Retention

__all__ = ["MemoryBacklog", "closed"]

#: What waits for a watermark: the sequence to be reached, and its waiter.
Wanted = tuple[int, "asyncio.Future[None]"]
#: Nodes on one page of `states`.
_PAGE = 1000


class MemoryBacklog:
    """See `Backlog`. `monotonic` gives seconds for leases."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._nodes: dict[NodeId, NodeLog] = {}
        # Deleted nodes stay known, so that a late writer is refused instead of beginning a new log.
        self._gone: set[NodeId] = set()
        # Nodes with unsettled records, longest dirty first; and the waiters for each of them to be settled.
        self._dirty: OrderedDict[NodeId, NodeLog] = OrderedDict()
        self._wanted: OrderedDict[NodeId, list[Wanted]] = OrderedDict()
        # The last fence given. It begins at the clock, in microseconds: stores have seen the fences of earlier processes.
        self._fence = time.time_ns() // 1000
        # A fence that stores have seen: a worker whose fence is not above it gets another one.
        self._fence_floor = 0
        self._revision = 0
        # Rung when there may be more to claim, and when it should not wait for company.
        self._bell = asyncio.Event()
        self._hurry = asyncio.Event()
        # Nodes that have records, and the bytes of all of these: most nodes of a long life have none, and need no looking at.
        self._holding: dict[NodeId, NodeLog] = {}
        self._bytes = 0
        self._is_closed = False

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
            if log.worker != worker or log.given <= self._fence_floor:
                self._fence += 1
                log.given, log.worker = self._fence, worker
            log.fence, log.free_at = log.given, now + ttl
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

    async def raise_fences(self, above: int) -> None:
        self._check_open()
        self._fence_floor = max(self._fence_floor, above)
        self._fence = max(self._fence, above)

    async def reopen(self, node: NodeId, watermark: int) -> int:
        self._check_open()
        if node in self._gone:
            raise Gone(f"The node {node} was deleted.")
        log = self._nodes.get(node)
        if log is None:
            return 1
        if watermark < log.settled:
            log.settled = max(watermark, log.first - 1)
            # The next lease has another fence, also for the same worker: its earlier lease must not fit any more.
            log.fence, log.free_at, log.worker = 0, 0.0, ""
            if log.settled < log.head:
                self._dirty.setdefault(node, log)
                self._ring(node)
        return min(max(log.first, watermark + 1), log.head + 1)

    async def states(self, *, retained: bool = True) -> AsyncIterator[list[NodeState]]:
        self._check_open()
        nodes = list(self._holding if retained else self._nodes)
        for begin in range(0, len(nodes), _PAGE):
            logs = [(node, self._nodes.get(node)) for node in nodes[begin : begin + _PAGE]]
            yield [NodeState(node, log.settled, log.first, log.head) for node, log in logs if log is not None]

    async def remembered(self) -> int:
        self._check_open()
        return self._revision

    async def remember(self, revision: int) -> None:
        self._check_open()
        self._revision = max(self._revision, revision)

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

    def _held(self, lease: Lease) -> NodeLog:
        self._check_open()
        log = self._nodes.get(lease.node)
        if log is None or log.fence != lease.fence:
            raise LeaseLost(f"Worker {lease.worker} does not hold node {lease.node} any more.")
        return log

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

    def _check_open(self) -> None:
        if self._is_closed:
            raise closed()


async def _rung(bell: asyncio.Event, seconds: float | None) -> None:
    """Return when the bell rings, at the latest after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        return


def closed() -> Unavailable:
    """The answer to callers of a closed log."""
    return Unavailable("The log is closed: the server is stopping.")
