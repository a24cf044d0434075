"""Group commit: what is to be written into the file of the local log is collected, and written batch by batch.

Lives on the event loop; only `LogFile.commit` runs in the thread. One batch is under way at a time, and everything that comes
meanwhile is the next one, so that no number has to be chosen: an idle log commits at once, a busy one commits a lot at a time.

What must stay true: appends of a node are written in the order of their sequences, and if a batch fails, what stands behind it on
the same nodes fails too (I1). What only rides along is kept and tried again.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from ..domain.errors import Gone, Unavailable
from ..domain.events import Record
from ..domain.nodes import NodeId
from ..domain.position import Position
from .local_file import Batch, LogFile, NodeRow, RecordRow
from .node_log import NodeLog

__all__ = ["Append", "Commits"]

logger = logging.getLogger(__name__)

#: How long after a failure that which rides along is tried again, seconds.
_RETRY_SECONDS = 2.0


class Append(msgspec.Struct, eq=False):
    """Records that have their places and wait for the file. `is_after_gap`: what lies before them leaves (see `floor`)."""

    node: NodeId
    records: list[Record]
    rows: list[RecordRow]
    size: int
    done: asyncio.Future[Position]
    is_after_gap: bool = False


class _Riders(msgspec.Struct):
    """Writes that can be repeated and are therefore coalesced: rows of nodes, trimmed records, dropped nodes, facts."""

    touched: set[NodeId] = set()
    cut: dict[NodeId, int] = {}
    dropped: set[NodeId] = set()
    facts: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self.touched or self.cut or self.dropped or self.facts)


class Commits:
    """`find` gives the present state of a node, `committed` is told of each append that is in the file.

    `pending_bytes`: how much may wait before appends are refused. `lazy_seconds`: how long riders wait for company.
    """

    def __init__(
        self,
        file: LogFile,
        thread: ThreadPoolExecutor,
        *,
        find: Callable[[NodeId], NodeLog | None],
        committed: Callable[[Append], None],
        pending_bytes: int,
        lazy_seconds: float,
    ) -> None:
        self._file = file
        self._thread = thread
        self._find = find
        self._committed = committed
        self._pending_bytes = pending_bytes
        self._lazy_seconds = lazy_seconds
        self._pending: list[Append] = []
        self._pending_size = 0
        # The highest sequence given so far on nodes that have appends on the way.
        self._reserved: dict[NodeId, int] = {}
        self._riders = _Riders()
        self._timer: asyncio.TimerHandle | None = None
        # Set from the moment that a batch is asked for until nothing is left to write.
        self._is_writing = False
        # Rung at the end of each batch, and replaced by a new one.
        self._turn = asyncio.Event()

    def reserved(self, node: NodeId) -> int | None:
        """The highest sequence given so far, if there are appends of this node on the way."""
        return self._reserved.get(node)

    async def turn(self) -> None:
        """Wait for the end of the batch under way."""
        await self._turn.wait()

    def check_room(self) -> None:
        """`Unavailable` if more waits to be written than is good."""
        if self._pending_size > self._pending_bytes:
            raise Unavailable("The disk of the log does not keep up; nothing was appended. Try again.", retry_after=1.0)

    def add(self, append: Append) -> None:
        """Write it with the next batch; `append.done` tells."""
        self._pending.append(append)
        self._pending_size += append.size
        self._reserved[append.node] = append.records[-1].sequence
        self._begin()

    def touch(self, node: NodeId) -> None:
        """The row of this node is to be written, some time."""
        self._riders.touched.add(node)
        self._begin_later()

    def cut(self, node: NodeId, below: int) -> None:
        """The records of this node below that sequence can leave the file, some time."""
        self._riders.cut[node] = below
        self._begin_later()

    def note(self, name: str, value: str) -> None:
        """Write this fact about the whole file, some time."""
        self._riders.facts[name] = value
        self._begin_later()

    def drop(self, nodes: Iterable[NodeId]) -> None:
        """Remove all of these nodes; appends that wait are refused."""
        gone = set(nodes)
        for append in [a for a in self._pending if a.node in gone]:
            self._withdraw(append, Gone(f"The node {append.node} was deleted."))
        self._pending = [a for a in self._pending if a.node not in gone]
        self._riders.dropped |= gone
        self._riders.touched -= gone
        for node in gone:
            self._riders.cut.pop(node, None)
        self._begin()

    async def finish(self) -> None:
        """Write all that waits."""
        await self._idle()
        if self._riders:
            self._begin()
            await self._idle()
        self._stop_timer()

    # ------------------------------------------------------------- batches

    def _begin(self) -> None:
        """Ask for a batch. It sets out in the next turn of the loop, so that all appends of this one are in it."""
        if not self._is_writing:
            self._is_writing = True
            asyncio.get_running_loop().call_soon(self._set_out)

    async def _idle(self) -> None:
        while self._is_writing:
            await self._turn.wait()

    def _begin_later(self, seconds: float | None = None) -> None:
        if self._timer is None and not self._is_writing:
            pause = self._lazy_seconds if seconds is None else seconds
            self._timer = asyncio.get_running_loop().call_later(pause, self._begin)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_out(self) -> None:
        self._stop_timer()
        appends, self._pending, self._pending_size = self._pending, [], 0
        riders, self._riders = self._riders, _Riders()
        loop = asyncio.get_running_loop()
        under_way = self._thread.submit(self._file.commit, self._batch(appends, riders))
        under_way.add_done_callback(lambda done: loop.call_soon_threadsafe(self._ended, appends, riders, done))

    def _batch(self, appends: list[Append], riders: _Riders) -> Batch:
        rows: list[RecordRow] = []
        nodes: dict[NodeId, NodeRow] = {}
        cut = dict(riders.cut)
        for node in riders.touched:
            log = self._find(node)
            if log is not None:
                nodes[node] = (node, log.head, log.settled)
        for append in appends:
            node, first = append.node, append.records[0].sequence
            log = self._find(node)
            settled = 0 if log is None else log.settled
            if append.is_after_gap:
                cut[node], settled = first, first - 1
            elif node in nodes:
                settled = nodes[node][2]
            rows += append.rows
            nodes[node] = (node, append.records[-1].sequence, settled)
        return Batch(rows, list(nodes.values()), cut, list(riders.dropped), riders.facts)

    def _ended(self, appends: list[Append], riders: _Riders, done: Future[None]) -> None:
        error = done.exception()
        if error is None:
            for append in appends:
                if self._reserved.get(append.node) == append.records[-1].sequence:
                    del self._reserved[append.node]
                self._committed(append)
        else:
            self._failed(appends, riders, error)
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()
        if self._pending:
            self._set_out()
            return
        self._is_writing = False
        if self._riders:
            self._begin_later(_RETRY_SECONDS if error is not None else None)

    def _failed(self, appends: list[Append], riders: _Riders, error: BaseException) -> None:
        """Nothing of the batch is in the file: give its sequences back, and refuse what was numbered after them."""
        is_foreseen = isinstance(error, sqlite3.Error | Unavailable)  # a full disk, mostly: the sentence is enough
        logger.error("The log could not be written: %s", error, exc_info=None if is_foreseen else error)
        nodes = {append.node for append in appends}
        for append in [*appends, *(a for a in self._pending if a.node in nodes)]:
            hint = "" if isinstance(error, Unavailable) else " Is the disk full?"
            refusal = Unavailable(f"The log could not be written ({error}); nothing was appended.{hint}")
            refusal.__cause__ = error
            self._withdraw(append, refusal)
        self._pending = [a for a in self._pending if a.node not in nodes]
        self._pending_size = sum(a.size for a in self._pending)
        newer, self._riders = self._riders, riders
        self._riders.touched |= newer.touched - newer.dropped
        self._riders.cut |= newer.cut
        self._riders.dropped |= newer.dropped
        self._riders.facts |= newer.facts

    def _withdraw(self, append: Append, reason: Exception) -> None:
        self._reserved.pop(append.node, None)
        if not append.done.done():
            append.done.set_exception(reason)
