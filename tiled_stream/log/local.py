"""The durable engine of a single process: the state of the memory engine, and a file that has it too.

An append gets its sequence on the event loop, so order is decided there; a thread writes it (`local_commit.py`, `local_file.py`),
and it becomes visible and is acknowledged once its transaction is committed. Recent records stay in memory; older ones are read
from the file.

What must stay true: what a reader or a writer was told is in the file (I6); a batch that fails leaves no trace, and the sequences
that it had taken are given again (I1, I2). A settled watermark may reach the file later than it was told: the catalog's is the
truth, and applying twice does no harm (I5).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..domain.errors import Conflict, Gone, Unavailable
from ..domain.events import Draft, Record
from ..domain.nodes import NodeId
from ..domain.position import Position
from .codec import encode_event
from .local_commit import Append, Commits
from .local_file import LogFile, RecordRow, Synchronous
from .memory import MemoryLog
from .node_log import RECORD_OVERHEAD, NodeLog, placed
from .port import UNGUARDED, Lease, Persisted

__all__ = ["LocalLog"]

logger = logging.getLogger(__name__)

#: So many records are read from the file in one go, before a commit gets its turn (from a cold disk cache: some milliseconds).
_READ_RECORDS = 128


class LocalLog(MemoryLog):
    """`path`: the SQLite file, made if it is not there; its directory must be.

    `synchronous`: "normal" survives a killed process, "full" also a machine that loses power, at the price of one fsync a commit.
    `node_bytes`, `total_bytes`: how much of the recent records stays in memory, of one node and of all together.
    `pending_bytes`: how much may wait to be written before appends are refused. `lazy_seconds`: how long settled watermarks and
    trimmed records wait for company on their way into the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        synchronous: Synchronous = "normal",
        node_bytes: int = 4 << 20,
        total_bytes: int = 256 << 20,
        pending_bytes: int = 256 << 20,
        lazy_seconds: float = 0.5,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(monotonic=monotonic)
        self._path = path
        self._file = LogFile(path, synchronous=synchronous)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="local log")
        self._commits = Commits(
            self._file,
            self._thread,
            find=self._nodes.get,
            committed=self._committed,
            pending_bytes=pending_bytes,
            lazy_seconds=lazy_seconds,
        )
        # One reading at a time waits for the thread, so that a commit stands behind one at most, however many replay.
        self._reading = asyncio.Lock()
        # Nodes that have records in memory, the least recently written first, and what all of them take, in bytes.
        self._resident: OrderedDict[NodeId, NodeLog] = OrderedDict()
        self._resident_bytes = 0
        self._node_bytes = node_bytes
        self._total_bytes = total_bytes
        # The deployment that the file belongs to; empty for none yet.
        self._catalog = ""

    async def open(self) -> None:
        """Take the file and restore epoch, heads, watermarks and backlog. `Unavailable` if another process has it."""
        try:
            opened = await asyncio.get_running_loop().run_in_executor(self._thread, self._file.open)
        except BaseException:
            self._is_closed = True
            self._thread.submit(self._file.close)  # if this was cancelled, the file is being opened still
            self._thread.shutdown(wait=False)
            raise
        self._epoch = opened.epoch
        self._fence = opened.fence
        self._revision = opened.revision
        self._catalog = opened.catalog
        self._nodes.update(opened.nodes)
        self._gone |= opened.gone
        unsettled: list[tuple[float, NodeId]] = []
        for node, log in self._nodes.items():
            if log.retained is not None:
                self._holding[node] = log
                self._bytes += log.retained.bytes
                if log.settled < log.head:
                    unsettled.append((log.retained.time(log.settled + 1), node))
        for _, node in sorted(unsettled):
            self._dirty[node] = self._nodes[node]

    async def close(self) -> None:
        """Write what waits, wake all waiters, let go of thread and file. Idempotent."""
        if self._is_closed:
            return
        await super().close()
        try:
            await self._commits.finish()
            await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        except sqlite3.Error as error:
            logger.warning("The log file %s could not be closed in order; nothing is lost: %s", self._path, error)
        finally:
            self._thread.shutdown(wait=True)

    async def bind(self, catalog: str, persisted: Persisted) -> None:
        """See `LogEngine`. A file without a deployment, new or of an older version, belongs to the first one that binds it."""
        self._check_open()
        if self._catalog and self._catalog != catalog:
            raise Unavailable(
                f"The log file {self._path} belongs to deployment {self._catalog}, and this catalog to {catalog}. Restore the "
                "catalog and its log from the same backup; or, if that deployment is gone for good, move the file away."
            )
        if not self._catalog:
            self._catalog = catalog
            self._commits.note("catalog", catalog)

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
        self._commits.check_room()
        events = [encode_event(draft.event) for draft in drafts]
        while True:
            self._check_guards(guards)
            if any(self._commits.reserved(guarded) is not None for guarded in guards):
                await self._commits.turn()  # whether they move is being decided
                self._check(node)
                continue
            log = self._nodes.get(node)
            head = log.head if log else 0
            reserved = self._commits.reserved(node)
            try:
                records = placed(drafts, reserved or head, expected, floor)
            except Conflict:
                # Who expects the visible head may still be right, if what is on the way fails. It cannot look before, either.
                if reserved is None or expected != max(head, floor):
                    raise
                await self._commits.turn()
                self._check(node)
                continue
            return await self._write(node, records, events, is_after_gap=records[0].sequence > (reserved or head) + 1)

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
        after = max(after, 0)
        retained = self._after(node, after, epoch)
        if retained is None:
            return []
        last = retained.fit(after, limit, max_bytes)
        if after + 1 >= retained.resident:
            return retained.slice(after + 1, last)
        records = await self._from_file(node, after + 1, last)  # all of it: what is in memory is in the file too
        if len(records) < last - after:
            self._after(node, after, epoch)  # they left, or the node went, while the file was read
            raise Unavailable(f"The log file {self._path} lacks records of node {node} after {after}; it is damaged.")
        return records

    async def drop(self, *nodes: NodeId) -> None:
        new = [node for node in nodes if node not in self._gone]
        for node in new:
            self._resident_bytes -= _in_memory(self._resident.pop(node, None))
        await super().drop(*nodes)
        if new:
            self._commits.drop(new)

    async def settle(self, lease: Lease, watermark: int) -> bool:
        is_clean = await super().settle(lease, watermark)
        self._commits.touch(lease.node)
        return is_clean

    async def reopen(self, node: NodeId, watermark: int) -> int:
        first = await super().reopen(node, watermark)
        self._commits.touch(node)
        return first

    async def remember(self, revision: int) -> None:
        before = self._revision
        await super().remember(revision)
        if self._revision != before:
            self._commits.note("revision", str(self._revision))

    async def raise_fences(self, above: int) -> None:
        await super().raise_fences(above)
        self._commits.note("fence", str(self._fence))

    async def _from_file(self, node: NodeId, first: int, last: int) -> list[Record]:
        """The records `first` … `last`; fewer if some of them left while this was on its way."""
        loop = asyncio.get_running_loop()
        records: list[Record] = []
        while first <= last:
            upto = min(last, first + _READ_RECORDS - 1)
            async with self._reading:
                found = await loop.run_in_executor(self._thread, self._file.read, node, first, upto)
            records += found
            if len(found) <= upto - first:
                break
            first = upto + 1
        return records

    # ------------------------------------------------------- what may not be awaited

    def _write(
        self, node: NodeId, records: list[Record], events: Sequence[bytes], *, is_after_gap: bool
    ) -> asyncio.Future[Position]:
        """Put placed records on their way into the file. Cancelling the future leaves them there: appended whole, or not."""
        rows: list[RecordRow] = [
            (node, record.sequence, record.time, event, record.payload) for record, event in zip(records, events, strict=True)
        ]
        size = sum(len(row[3]) + len(row[4]) for row in rows) + RECORD_OVERHEAD * len(rows)
        done: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self._commits.add(Append(node, records, rows, size, done, is_after_gap))
        return done

    def _committed(self, append: Append) -> None:
        """It is in the file: now it can be seen."""
        if append.node in self._gone:
            if not append.done.done():
                append.done.set_exception(Gone(f"The node {append.node} was deleted."))
            return
        self._publish(append.node, append.records)
        if not append.done.done():
            append.done.set_result(Position(self._epoch, append.records[-1].sequence))

    def _publish(self, node: NodeId, records: list[Record]) -> None:
        before = _in_memory(self._nodes.get(node))
        super()._publish(node, records)
        log = self._nodes[node]
        retained = log.retained
        assert retained is not None
        while retained.resident_bytes > self._node_bytes and retained.resident < retained.last:
            retained.evict()
        self._resident_bytes += retained.resident_bytes - before
        self._resident[node] = log
        self._resident.move_to_end(node)
        while self._resident_bytes > self._total_bytes and len(self._resident) > 1:
            _, idle = self._resident.popitem(last=False)
            self._resident_bytes -= _in_memory(idle)
            if idle.retained is not None:
                idle.retained.evict_all()

    def _pop(self, node: NodeId, log: NodeLog) -> None:
        before = _in_memory(log)
        super()._pop(node, log)
        self._resident_bytes += _in_memory(log) - before
        if log.retained is None:
            self._resident.pop(node, None)
        self._commits.cut(node, log.first)


def _in_memory(log: NodeLog | None) -> int:
    return 0 if log is None or log.retained is None else log.retained.resident_bytes
