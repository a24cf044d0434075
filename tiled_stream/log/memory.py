"""The reference engine of the log: everything in this process's memory. Read it first.

It serves tests and `--temp`, where a crash loses the storage too. `local.py` keeps the same state and adds a file.

Nothing here waits in the middle of a change: each change is one stretch of code without `await`, which is what makes it atomic
for everyone on the event loop.

What must stay true: sequences are dense and never restart (I1), a position never changes (I2), the watermark never goes back nor
passes the head (I4), and only settled records ever leave (I6).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from uuid import uuid4

from ..domain.errors import Conflict, EpochChanged, Gone, Truncated, Unavailable
from ..domain.events import Draft, Record
from ..domain.nodes import NodeId
from ..domain.position import Position
from .memory_backlog import MemoryBacklog, closed
from .node_log import RECORD_OVERHEAD, NodeLog, Retained, placed
from .port import UNGUARDED, Persisted

__all__ = ["RECORD_OVERHEAD", "MemoryLog"]


_HEALING = (
    "tiled_stream_heals_total",
    "tiled_stream_healed_records_total",
    "tiled_stream_heal_lost_records_total",
    "tiled_stream_kept_bytes",
    "tiled_stream_unkept_records_total",
)


class MemoryLog(MemoryBacklog):
    """`max_bytes`: how much it takes before appends are refused, which happens while storage is down for long.

    `monotonic` gives seconds for leases; tests advance their own.
    """

    def __init__(self, *, max_bytes: int = 4 << 30, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(monotonic)
        self._max_bytes = max_bytes
        self._epoch = uuid4().hex
        # Who waits for records of a node. Not in `NodeLog`, for one may wait for a node that has no log yet.
        self._waiters: dict[NodeId, set[asyncio.Future[None]]] = {}

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
                    waiter.set_exception(closed())
        self._bell.set()
        self._hurry.set()

    async def bind(self, catalog: str, persisted: Persisted) -> None:
        """It began with this process and belongs to any deployment that it is used with."""

    async def figures(self) -> dict[str, float]:
        """Bytes of retained records. Nothing has to be healed: the log is in this process."""
        return {"tiled_stream_log_bytes": float(self._bytes)} | dict.fromkeys(_HEALING, 0.0)

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

    def _wake(self, node: NodeId) -> None:
        """Whoever waits for records of the node may look again."""
        for waiter in self._waiters.pop(node, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _check(self, node: NodeId) -> None:
        self._check_open()
        if node in self._gone:
            raise Gone(f"The node {node} was deleted.")

    def _check_guards(self, guards: Mapping[NodeId, int]) -> None:
        for node, head in guards.items():
            stands = self._head(node)
            if stands is None or stands > head:
                raise Conflict(f"The log of node {node} stands at {stands}, above {head}.")
