"""One batch of leased nodes from the log into storage and catalog.

Storage first, then the catalog with its watermark, so that what the catalog calls persisted is there. Containers before data, so
that a node exists before its data arrive. Everything here can be done twice (I5).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from ..catalog.port import Catalog, CatalogBatch
from ..domain.errors import BodyMissing, Gone, NotFound, NotSupported, Truncated, Unavailable, UnsupportedType
from ..domain.events import ArrayWritten, AssetDeleted, ChildDeleted, PartWritten, Record, RecordLost
from ..domain.fold import DataTail, changes_sources
from ..domain.nodes import DataSource, Node, NodeId
from ..domain.search import Page, Search
from ..domain.structures import ArrayStructure, AwkwardStructure, RaggedStructure, SparseStructure, TableStructure
from ..log.port import Lease, Log
from ..storage.port import ArrayBatch, ArrayStore, PartBatch, PartStore, TableBatch, TableStore
from ..storage.tables import Tables
from .quarantine import Quarantine
from .together import together

__all__ = ["Apply", "Done"]

logger = logging.getLogger(__name__)

_BatchT = TypeVar("_BatchT", ArrayBatch, PartBatch, TableBatch, CatalogBatch)
_ResultT = TypeVar("_ResultT")

_RECORDS = 2000
_BYTES = 32 << 20
_PAGE = 300
#: Seconds until a body that is away is looked for again.
_AWAY = 5.0
#: Structures of what is kept in parts.
_PARTS = (AwkwardStructure, RaggedStructure, SparseStructure)


class Done(msgspec.Struct, frozen=True):
    """What became of a lease: the node's watermark now, or None: not to be done yet, but after `delay` seconds.

    (Its creation is still on the way, or a body that belongs to a record of it is away.)
    """

    lease: Lease
    watermark: int | None
    records: int = 0
    delay: float = 0.02


class _Known(msgspec.Struct):
    """A node as this persister last wrote it: spares a look into the catalog. Wrong knowledge shows in `apply`'s answer."""

    node: Node
    watermark: int


class _Work(msgspec.Struct):
    lease: Lease
    known: _Known
    records: tuple[Record, ...]


class Apply:
    """Applies batches. Not for concurrent use: one persister calls it."""

    def __init__(
        self,
        log: Log,
        catalog: Catalog,
        *,
        arrays: ArrayStore | None,
        parts: PartStore | None,
        tables: Tables | None,
        quarantine: Quarantine,
        tell: Callable[[Sequence[CatalogBatch]], Awaitable[None]] | None = None,
        max_known: int = 10_000,
    ) -> None:
        self._log = log
        self._catalog = catalog
        self._arrays = arrays
        self._parts = parts
        self._tables = tables
        self._quarantine = quarantine
        #: Hears of each batch before the watermark moves; if it fails, the batch stays owed.
        self._tell = tell
        self._known: OrderedDict[NodeId, _Known] = OrderedDict()
        self._max_known = max_known
        #: Records found missing since the start.
        self.lost = 0

    async def containers(self, leases: Sequence[Lease]) -> tuple[list[Done], list[Lease]]:
        """Do the containers among `leases`; returns what was done and the leases of the others."""
        begun = await together(self._begin_container(lease) for lease in leases)
        work = [item for item in begun if isinstance(item, _Work)]
        others = [item for item in begun if isinstance(item, Lease)]
        for item in work:
            await self._delete_storage(item.records)
        return (await self._to_catalog(work) if work else []), others

    async def data(self, leases: Sequence[Lease]) -> list[Done]:
        """Do the data nodes."""
        begun = await together(self._begin_data(lease) for lease in leases)
        work = [item for item in begun if isinstance(item, _Work)]
        done = [item for item in begun if isinstance(item, Done)]
        await self._to_arrays([w for w in work if isinstance(w.known.node.structure, ArrayStructure)])
        await self._to_parts([w for w in work if isinstance(w.known.node.structure, _PARTS)])
        await self._to_tables([w for w in work if isinstance(w.known.node.structure, TableStructure)])
        emptied = [w.known.node for w in work if any(isinstance(r.event, AssetDeleted) for r in w.records)]
        await self._delete_data([node for node in emptied if node.data_sources[0].management != "external"])
        if work:
            done += await self._to_catalog(work)
        return done

    def forget(self, nodes: Sequence[NodeId]) -> None:
        """After a failure nothing is known any more about how far these nodes are."""
        for node in nodes:
            self._known.pop(node, None)

    async def _begin_container(self, lease: Lease) -> _Work | Lease | None:
        """What is to be done for a container; the lease of anything else; None for a node that is gone."""
        try:
            known = await self._look(lease.node)
        except Gone:
            await self._log.drop(lease.node)
            return None
        if known is not None and known.node.family != "container":
            return lease
        # Not in the catalog yet: a container created moments ago, or data whose turn comes after the containers.
        try:
            records = await self._records(lease, known.watermark if known else 0)
        except BodyMissing:
            return lease  # only data have bodies
        if known is None and not _is_container_log(records):
            return lease
        return _Work(lease, known or _Known(Node(lease.node, "", None, "container"), 0), records)

    async def _begin_data(self, lease: Lease) -> _Work | Done | None:
        """What is to be done for a data node; `Done` if it cannot be done yet; None for a node that is gone."""
        try:
            known = await self._look(lease.node)
        except Gone:
            await self._log.drop(lease.node)
            return None
        if known is None:
            return Done(lease, None)
        try:
            records = await self._records(lease, known.watermark)
        except BodyMissing as error:  # the others must not wait
            logger.error("Persisting of one node is held up: %s", error)
            return Done(lease, None, delay=_AWAY)
        return _Work(lease, known, records)

    async def _look(self, id: NodeId) -> _Known | None:
        known = self._known.get(id)
        if known is not None:
            self._known.move_to_end(id)
            return known
        try:
            stored = await self._catalog.node(id)
        except Gone:
            raise
        except NotFound:
            return None
        known = self._known[id] = _Known(stored.node, stored.watermark)
        while len(self._known) > self._max_known:
            self._known.popitem(last=False)
        return known

    async def _records(self, lease: Lease, after: int) -> tuple[Record, ...]:
        try:
            return tuple(await self._log.read(lease.node, after, limit=_RECORDS, max_bytes=_BYTES))
        except Truncated as error:
            # The log says that they are persisted or lost; the catalog, that they are not persisted. What follows must not wait.
            lost = range(after + 1, min(error.first, after + 1 + _RECORDS))
            self.lost += len(lost)
            logger.error(
                "Node %s: records %d to %d are lost: they left the log before they were persisted. Was Redis emptied, or the "
                "catalog put back to an earlier state?",
                lease.node,
                lost[0],
                lost[-1],
            )
            return tuple(Record(sequence, 0.0, RecordLost()) for sequence in lost)

    async def _to_arrays(self, work: list[_Work]) -> None:
        batches = []
        for item in work:
            node = item.known.node
            if node.data_sources[0].management == "external" or not any(_is_kept(r) for r in item.records):
                continue
            structure = _structure_after(node, item.records)
            batches.append(ArrayBatch(node.id, structure, item.records))
        if batches:
            await self._all_or_each(self._array_store().apply, batches)

    async def _to_parts(self, work: list[_Work]) -> None:
        batches = [
            PartBatch(item.lease.node, item.records)
            for item in work
            if item.known.node.data_sources[0].management != "external" and any(_is_part(r) for r in item.records)
        ]
        if batches:
            await self._all_or_each(self._part_store().apply, batches)

    async def _to_tables(self, work: list[_Work]) -> None:
        batches: dict[TableStore, list[TableBatch]] = {}
        for item in work:
            source = item.known.node.data_sources[0]
            if isinstance(source.structure, TableStructure) and source.management != "external":
                batch = TableBatch(item.lease.node, source.structure, item.known.watermark, item.records)
                batches.setdefault(self._table_store(source), []).append(batch)
        for store, of_store in batches.items():
            await self._all_or_each(store.apply, of_store)

    async def _to_catalog(self, work: list[_Work]) -> list[Done]:
        batches = [CatalogBatch(w.lease.node, w.known.watermark, w.records) for w in work]
        if self._tell is not None:
            await self._tell(batches)
        answers = await self._all_or_each(self._catalog.apply, batches)
        done = []
        for item, applied in zip(work, [a for answer in answers for a in answer], strict=True):
            if applied.deleted:
                self.forget([n.id for n in applied.deleted])
                await self._log.drop(*(n.id for n in applied.deleted))
            if applied.watermark < 0:
                self.forget([item.lease.node])
                done.append(Done(item.lease, None))
                continue
            self._learn(item, applied.watermark)
            done.append(Done(item.lease, applied.watermark, len(item.records)))
        return done

    def _learn(self, item: _Work, watermark: int) -> None:
        last = item.records[-1].sequence if item.records else item.known.watermark
        if watermark != last or item.lease.node not in self._known:
            self.forget([item.lease.node])  # somebody else was faster, or it was made in this very batch
            return
        item.known.watermark = watermark
        if any(map(changes_sources, item.records)):
            tail = DataTail(item.known.node.data_sources, 0)
            tail.fold(item.records)
            item.known.node = msgspec.structs.replace(item.known.node, data_sources=tail.data_sources)

    async def _all_or_each(
        self, apply: Callable[[Sequence[_BatchT]], Awaitable[_ResultT]], batches: list[_BatchT]
    ) -> list[_ResultT]:
        """All batches in one step; if an event cannot be applied, one record at a time, and the bad one is put aside."""
        try:
            return [await apply(batches)]
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - whatever a store makes of an event must not stop the ones behind it
            return [await self._each(apply, batch) for batch in batches]

    async def _each(self, apply: Callable[[Sequence[_BatchT]], Awaitable[_ResultT]], batch: _BatchT) -> _ResultT:
        good: list[Record] = []
        for record in batch.records:
            try:
                await apply([_with(batch, (*good, record))])
                good.append(record)
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001 - see above
                await self._quarantine.keep(batch.node, record, error)
                good.append(Record(record.sequence, record.time, RecordLost()))  # in its place, what no store looks at
        return await apply([_with(batch, tuple(good))])

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
            await self._delete_data([n for n in doomed if n.data_sources and n.data_sources[0].management != "external"])

    async def _delete_data(self, nodes: list[Node]) -> None:
        arrays = [n.id for n in nodes if isinstance(n.structure, ArrayStructure)]
        if arrays:
            await self._array_store().delete(*arrays)
        parts = [n.id for n in nodes if isinstance(n.structure, _PARTS)]
        if parts:
            await self._part_store().delete(*parts)
        tables: dict[TableStore, list[tuple[NodeId, TableStructure]]] = {}
        for node in nodes:
            if isinstance(node.structure, TableStructure):
                tables.setdefault(self._table_store(node.data_sources[0]), []).append((node.id, node.structure))
        for store, doomed in tables.items():
            await store.delete(doomed)

    def _array_store(self) -> ArrayStore:
        """`Unavailable` without one: other processes of the deployment may have it, and the records stay for them (I6)."""
        if self._arrays is None:
            raise Unavailable(
                "This process has no storage for arrays, but arrays are to be persisted: start it with -w DIRECTORY."
            )
        return self._arrays

    def _part_store(self) -> PartStore:
        """See `_array_store`."""
        if self._parts is None:
            raise Unavailable("This process has no storage for arrays, but some are to be persisted: start it with -w DIRECTORY.")
        return self._parts

    def _table_store(self, source: DataSource) -> TableStore:
        """See `_array_store`."""
        try:
            if self._tables is not None:
                return self._tables.of(source.mimetype)
        except (NotSupported, UnsupportedType) as error:
            raise Unavailable(f"Rows of a table are to be persisted, but: {error}") from None
        raise Unavailable(
            "This process has no storage for tables, but rows are to be persisted: give it the same -w as the others."
        )


def _is_container_log(records: tuple[Record, ...]) -> bool:
    """By what stands in it; a log with nothing but an end could be either and can wait for its node to appear."""
    return any(type(r.event).__name__.startswith(("Child", "Revision")) for r in records)


def _is_kept(record: Record) -> bool:
    return isinstance(record.event, ArrayWritten) and record.event.persist


def _is_part(record: Record) -> bool:
    return isinstance(record.event, PartWritten) and record.event.persist


def _structure_after(node: Node, records: tuple[Record, ...]) -> ArrayStructure:
    tail = DataTail(node.data_sources, 0)
    tail.fold(records)
    structure = tail.data_sources[0].structure
    assert isinstance(structure, ArrayStructure)
    return structure


def _with(batch: _BatchT, records: tuple[Record, ...]) -> _BatchT:
    return msgspec.structs.replace(batch, records=records)
