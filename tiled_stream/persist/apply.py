"""One batch of leased nodes from the log into storage and catalog.

Storage first, then the catalog with its watermark, so that what the catalog calls persisted is there. Containers before data, so
that a node exists before its data arrive. Everything here can be done twice (I5).

What must stay true:

- What is remembered of a node counts only while the lease proves that no other worker had the node since (same fence, same
  watermark). Else the catalog is asked.
- The answer of a store is compared with what was expected. A store that refuses the lease (`FENCED`) ends the work on that
  node. A store that has less than the catalog says is caught up from the log first; the catalog never moves past it (I4).
- Records that are in no log any more are lost. They are reported to the catalog by range, in the transaction that passes them.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from ..catalog.port import Applied, Catalog, CatalogBatch, Loss
from ..domain.errors import BodyMissing, Gone, NotFound, Truncated, Unavailable
from ..domain.events import ChildDeleted, Record
from ..domain.fold import DataTail, changes_sources
from ..domain.nodes import Node, NodeId
from ..domain.search import Page, Search
from ..domain.structures import TableStructure
from ..log.port import Lease, Log
from ..storage.port import FENCED
from ..storage.stores import Stores
from .catch_up import CatchUp
from .data_writer import DataWriter, Pending, in_one_step_or_each
from .losses import FORGOTTEN, NOT_RESTORED, STORAGE_BEHIND, lost_records, lost_sequences, ranges_of
from .quarantine import Quarantine
from .together import together
from .work import RECORD_BYTES, RECORD_LIMIT, Known, Work

__all__ = ["Apply", "ApplyStats", "Done"]

logger = logging.getLogger(__name__)

_PAGE = 300
#: Seconds until a missing body is looked for again.
_BODY_SECONDS = 5.0
#: Seconds until a node that is not in the catalog yet is tried again: at first, and at most.
_CREATION_SECONDS = (0.02, 5.0)


class Done(msgspec.Struct, frozen=True):
    """What became of a lease: the node's watermark now, or None: not possible yet, try again after `delay` seconds.

    (Its creation is not persisted yet, or the body of one of its records is missing.) `is_fenced`: the store has seen a
    newer lease.
    """

    lease: Lease
    watermark: int | None
    records: int = 0
    delay: float = _CREATION_SECONDS[0]
    is_fenced: bool = False
    error: Unavailable | None = None


class ApplyStats(msgspec.Struct, frozen=True):
    """Figures since the start: records that are lost; batches that a store refused because of a newer lease; how often a
    store had less than the catalog says, and how many records were applied to it again."""

    lost: int = 0
    fenced: int = 0
    behind: int = 0
    reapplied: int = 0


class Apply:
    """Applies batches. Not for concurrent use: one persister calls it."""

    def __init__(
        self,
        log: Log,
        catalog: Catalog,
        *,
        stores: Stores,
        quarantine: Quarantine,
        now: Callable[[], float],
        notify: Callable[[Sequence[CatalogBatch]], Awaitable[None]] | None = None,
        on_loss: Callable[[], None] = lambda: None,
        max_known: int = 10_000,
    ) -> None:
        self._log = log
        self._catalog = catalog
        self._stores = stores
        self._data = DataWriter(stores, quarantine)
        self._quarantine = quarantine
        self._now = now
        # Called with each batch before the watermark moves; if it fails, the batch stays pending.
        self._notify = notify
        self._on_loss = on_loss
        self._known: OrderedDict[NodeId, Known] = OrderedDict()
        self._max_known = max_known
        # How often nodes were looked for in the catalog in vain.
        self._missing: OrderedDict[NodeId, int] = OrderedDict()
        self._lost = self._fenced = 0
        self._catch_up = CatchUp(log, stores, self._data, self._losses)

    @property
    def stats(self) -> ApplyStats:
        """Figures since the start."""
        return ApplyStats(self._lost, self._fenced, self._catch_up.count, self._catch_up.reapplied)

    async def containers(self, leases: Sequence[Lease]) -> tuple[list[Done], list[Lease]]:
        """Do the containers among `leases`; returns what was done and the leases of the others."""
        begun = await together(self._begin_container(lease) for lease in leases)
        work = [item for item in begun if isinstance(item, Work)]
        others = [item for item in begun if isinstance(item, Lease)]
        for item in work:
            await self._delete_storage(item.records)
        return (await self._to_catalog(work) if work else []), others

    async def data(self, leases: Sequence[Lease]) -> list[Done]:
        """Do the data nodes."""
        begun = await together(self._begin_data(lease) for lease in leases)
        work = [item for item in begun if isinstance(item, Work)]
        done = [item for item in begun if isinstance(item, Done)]
        answers = await self._data.apply([_pending(item) for item in work])
        ready: list[Work] = []
        for item, answer in zip(work, answers, strict=True):
            if isinstance(answer, Unavailable):  # one store that is not there must not hold up the nodes of the others
                self.forget([item.lease.node])
                done.append(Done(item.lease, None, error=answer))
                continue
            item.stored = answer or 0
            try:
                if answer != FENCED and await self._catch_up.is_needed(item, answer):
                    item.stored = await self._catch_up.run(item)
            except Unavailable as error:
                self.forget([item.lease.node])
                done.append(Done(item.lease, None, error=error))
                continue
            if item.stored == FENCED:
                self._fenced += 1
                self.forget([item.lease.node])
                done.append(Done(item.lease, None, is_fenced=True))
                continue
            if item.stored > max(item.lease.head, item.last):
                await self._catch_up.append_again(item)
            ready.append(item)
        if ready:
            done += await self._to_catalog(ready)
        return done

    def forget(self, nodes: Sequence[NodeId]) -> None:
        """After a failure nothing is known any more about how far these nodes are."""
        for node in nodes:
            self._known.pop(node, None)

    async def record_loss(self, node: NodeId, head: int) -> None:
        """The log has no record of this node up to `head` any more: what catalog or storage lack of them is lost.

        Needs no lease, for it writes to the catalog alone, which takes it only where the watermark is what it was found to be.
        """
        lease = Lease(node, "", 0, head)
        try:
            known = await self._from_catalog(lease)
        except Gone:
            return
        if known is None:
            return
        missing = range(known.watermark + 1, head + 1)
        held = await self._stores.watermark(known.node)
        losses: tuple[Loss, ...] = ()
        if held is not None and held < known.stored:
            last = max(known.stored, missing[-1] if missing else 0)
            losses = self._losses(node, [(held + 1, last)], STORAGE_BEHIND)
        elif not _is_held(known.node, held, missing):
            losses = self._losses(node, ranges_of(missing), FORGOTTEN)
        for begin in range(missing.start, missing.stop, RECORD_LIMIT) if missing else (0,):
            records = lost_records(range(begin, min(begin + RECORD_LIMIT, missing.stop))) if missing else ()
            await self._to_catalog([Work(lease, known, records, losses=losses)])
            losses = ()

    # ------------------------------------------------------------ beginning

    async def _begin_container(self, lease: Lease) -> Work | Lease | None:
        """What is to be done for a container; the lease of anything else; None for a node that is gone."""
        try:
            known = await self._look(lease)
        except Gone:
            await self._log.drop(lease.node)
            return None
        if known is not None and known.node.family != "container":
            return lease
        if known is None and not await self._is_container_log(lease.node):
            return lease  # its turn comes after the containers; it may be created by one of them
        known = known or Known(Node(lease.node, "", None, "container"), 0, 0, lease.fence)
        return await self._read(lease, known)

    async def _begin_data(self, lease: Lease) -> Work | Done | None:
        """What is to be done for a data node; `Done` if it is not possible yet; None for a node that is gone."""
        try:
            known = await self._look(lease)
        except Gone:
            await self._log.drop(lease.node)
            return None
        if known is None:
            return Done(lease, None, delay=self._until_creation(lease.node))
        self._missing.pop(lease.node, None)
        try:
            return await self._read(lease, known)
        except BodyMissing as error:  # the others must not wait
            logger.error("Persisting of one node is held up: %s", error)
            return Done(lease, None, delay=_BODY_SECONDS)

    async def _look(self, lease: Lease) -> Known | None:
        """The node as remembered, if the lease confirms it; else as the catalog has it. None: not in the catalog. Raises
        `Gone`."""
        known = self._known.get(lease.node)
        if known is not None and known.fence == lease.fence and known.watermark == lease.after:
            self._known.move_to_end(lease.node)
            return known
        return await self._from_catalog(lease)

    async def _from_catalog(self, lease: Lease) -> Known | None:
        self._known.pop(lease.node, None)
        try:
            stored = await self._catalog.node(lease.node)
        except Gone:
            raise
        except NotFound:
            return None
        known = self._known[lease.node] = Known(stored.node, stored.watermark, stored.stored, lease.fence)
        while len(self._known) > self._max_known:
            self._known.popitem(last=False)
        return known

    async def _read(self, lease: Lease, known: Known) -> Work:
        """The records after the watermark. Those that the log does not have any more are there as `RecordLost`."""
        try:
            records = await self._log.read(lease.node, known.watermark, limit=RECORD_LIMIT, max_bytes=RECORD_BYTES)
        except Truncated as error:
            lost = range(known.watermark + 1, min(error.first, known.watermark + 1 + RECORD_LIMIT))
            held = await self._stores.watermark(known.node)
            ranges = [] if _is_held(known.node, held, lost) else ranges_of(lost)
            return Work(lease, known, lost_records(lost), losses=self._losses(lease.node, ranges, FORGOTTEN))
        losses = self._losses(lease.node, ranges_of(lost_sequences(records)), NOT_RESTORED)
        return Work(lease, known, tuple(records), losses=losses)

    async def _is_container_log(self, node: NodeId) -> bool:
        """By its records. A log with nothing but an end could be either and can wait for its node to appear."""
        try:
            records = await self._log.read(node, 0, limit=RECORD_LIMIT, headers=True)
        except Truncated:
            return False
        return any(type(r.event).__name__.startswith(("Child", "Revision")) for r in records)

    def _until_creation(self, node: NodeId) -> float:
        """Longer each time, so that a node whose creation is lost does not keep the persister busy."""
        tries = self._missing[node] = self._missing.pop(node, 0) + 1
        if len(self._missing) > self._max_known:
            self._missing.popitem(last=False)
        first, most = _CREATION_SECONDS
        return min(most, first * 1.5 ** min(tries - 1, 30))

    async def _delete_storage(self, records: tuple[Record, ...]) -> None:
        """Remove what deleted nodes kept, before the catalog forgets where it was."""
        for record in records:
            if not isinstance(record.event, ChildDeleted):
                continue
            try:
                doomed = [(await self._catalog.node(record.event.id)).node]
            except NotFound:
                continue  # never persisted, or deleted already
            page = Page(limit=_PAGE)
            while True:
                found = await self._catalog.descendants(record.event.id, Search(), page)
                doomed += [hit.node for hit in found.hits]
                if not found.more:
                    break
                page = Page(limit=_PAGE, cursor=found.hits[-1].cursor)
            await self._data.delete(doomed)

    # ------------------------------------------------------------ catalog

    async def _to_catalog(self, work: list[Work]) -> list[Done]:
        batches = [CatalogBatch(w.lease.node, w.known.watermark, w.records, w.stored, w.losses) for w in work]
        if self._notify is not None:
            await self._notify(batches)

        async def refused(batch: Any, record: Record, error: Exception) -> None:
            await self._quarantine.keep(batch.node, record, error)

        answers = await in_one_step_or_each(self._catalog.apply, batches, refused=refused)
        done = []
        for item, applied in zip(work, answers, strict=True):
            if applied.deleted:
                self.forget([n.id for n in applied.deleted])
                await self._log.drop(*(n.id for n in applied.deleted))
            if applied.watermark < 0:
                self.forget([item.lease.node])
                done.append(Done(item.lease, None, delay=self._until_creation(item.lease.node)))
                continue
            self._learn(item, applied)
            done.append(Done(item.lease, applied.watermark, len(item.records)))
        return done

    def _learn(self, item: Work, applied: Applied) -> None:
        known = item.known
        if applied.watermark != item.last or self._known.get(item.lease.node) is not known:
            self.forget([item.lease.node])  # another worker was faster, or the node was made in this very batch
            return
        known.watermark = applied.watermark
        known.stored = max(known.stored, item.stored)
        if any(map(changes_sources, item.records)):
            tail = DataTail(known.node.data_sources, 0)
            tail.fold(item.records)
            known.node = msgspec.structs.replace(known.node, data_sources=tail.data_sources)
        if item.losses:
            self._lost += sum(loss.last - loss.first + 1 for loss in item.losses)
            self._on_loss()

    def _losses(self, node: NodeId, ranges: Sequence[tuple[int, int]], reason: str) -> tuple[Loss, ...]:
        for first, last in ranges:
            logger.error("Records %d to %d of node %s are lost: %s", first, last, node, reason)
        return tuple(Loss(node, first, last, self._now(), reason) for first, last in ranges)


def _pending(item: Work) -> Pending:
    return Pending(item.known.node, item.known.watermark, item.known.stored, item.lease.fence, item.records)


def _is_held(node: Node, held: int | None, lost: range) -> bool:
    """Records that only the catalog lacks: for rows of a table it is enough that storage has them, for columns never change."""
    return not lost or (held is not None and isinstance(node.structure, TableStructure) and held >= lost[-1])
