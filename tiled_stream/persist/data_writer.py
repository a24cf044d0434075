"""Batches of records into the stores that hold their nodes.

An event that a store cannot apply goes to quarantine, and those behind it go on. What must stay true: nothing here decides how
far a node is persisted; the answer of the store does (I4).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from ..domain.errors import Unavailable
from ..domain.events import ArrayWritten, AssetDeleted, PartWritten, Record, RecordLost, RowsAppended, TableWritten
from ..domain.fold import DataTail
from ..domain.nodes import Node, NodeId
from ..domain.structures import ArrayStructure, TableStructure
from ..storage.port import FENCED, ArrayBatch, ArrayStore, PartBatch, PartStore, TableBatch, TableStore
from ..storage.stores import PARTS, Stores
from .quarantine import Quarantine

__all__ = ["DataWriter", "Pending", "concerns_storage", "in_one_step_or_each"]

_BatchT = TypeVar("_BatchT")
_ResultT = TypeVar("_ResultT")


class Pending(msgspec.Struct, frozen=True):
    """Records of a data node on their way into its store.

    `node` as the catalog has it at `watermark`; `after`: how far the store is thought to hold the node. `is_forced`: the
    store gets them even if none of them concerns it, so that its watermark moves.
    """

    node: Node
    watermark: int
    after: int
    fence: int
    records: tuple[Record, ...]
    is_forced: bool = False


class DataWriter:
    """Not for concurrent use: one persister calls it."""

    def __init__(self, stores: Stores, quarantine: Quarantine) -> None:
        self._stores = stores
        self._quarantine = quarantine

    async def apply(self, items: Sequence[Pending]) -> list[int | Unavailable | None]:
        """The watermark of each node's store afterwards, `FENCED`, or None: nothing here concerned a store.

        `Unavailable`, as a value, if the store cannot take it now, or is not configured here: other processes of the
        deployment may have it, and the records stay in the log for them (I6).
        """
        answers: list[int | Unavailable | None] = [None] * len(items)
        by_store: dict[int, tuple[Any, list[tuple[int, Any]]]] = {}
        for place, item in enumerate(items):
            if _is_external(item.node) or not (item.is_forced or any(map(concerns_storage, item.records))):
                continue
            try:
                store = self._store(item.node)
            except Unavailable as error:
                answers[place] = error
                continue
            by_store.setdefault(id(store), (store, []))[1].append((place, _batch(item)))
        for store, placed in by_store.values():
            batches = [batch for _, batch in placed]
            of_store: Sequence[int | Unavailable]
            try:
                of_store = await self._to(store, batches)
            except Unavailable as error:
                of_store = [error] * len(batches)
            for (place, _), answer in zip(placed, of_store, strict=True):
                answers[place] = answer
        return answers

    async def delete(self, nodes: Sequence[Node]) -> None:
        """Remove the data of nodes that are deleted for good."""
        arrays: list[NodeId] = []
        parts: list[NodeId] = []
        tables: dict[int, tuple[TableStore, list[tuple[NodeId, TableStructure]]]] = {}
        for node in nodes:
            if _is_external(node):
                continue
            structure = node.data_sources[0].structure
            if isinstance(structure, ArrayStructure):
                arrays.append(node.id)
            elif isinstance(structure, PARTS):
                parts.append(node.id)
            elif isinstance(structure, TableStructure):
                store: TableStore = self._store(node)
                tables.setdefault(id(store), (store, []))[1].append((node.id, structure))
        if arrays:
            await _configured(self._stores.arrays, "arrays").delete(*arrays)
        if parts:
            await _configured(self._stores.parts, "arrays").delete(*parts)
        for store, doomed in tables.values():
            await store.delete(doomed)

    async def _to(self, store: ArrayStore | PartStore | TableStore, batches: list[Any]) -> list[int]:
        async def refused(batch: Any, record: Record, error: Exception) -> None:
            await self._quarantine.keep(batch.node, record, error)

        return await in_one_step_or_each(store.apply, batches, refused=refused, is_void=lambda answer: answer == FENCED)

    def _store(self, node: Node) -> Any:
        store = self._stores.of(node)
        return _configured(store, "tables" if isinstance(node.structure, TableStructure) else "arrays")


async def in_one_step_or_each(
    apply: Callable[[Sequence[_BatchT]], Awaitable[list[_ResultT]]],
    batches: list[_BatchT],
    *,
    refused: Callable[[_BatchT, Record, Exception], Awaitable[None]],
    is_void: Callable[[_ResultT], bool] = lambda result: False,
) -> list[_ResultT]:
    """All batches in one step. If an event cannot be applied: one record at a time, and `refused` takes the bad ones.

    `is_void`: this answer says that the batch changes nothing, whatever is in it.
    """
    try:
        return await apply(batches)
    except Unavailable:
        raise
    except Exception:  # noqa: BLE001 - whatever a store makes of an event must not stop the ones behind it
        return [await _one_by_one(apply, batch, refused, is_void) for batch in batches]


async def _one_by_one(
    apply: Callable[[Sequence[_BatchT]], Awaitable[list[_ResultT]]],
    batch: Any,
    refused: Callable[[Any, Record, Exception], Awaitable[None]],
    is_void: Callable[[_ResultT], bool],
) -> _ResultT:
    good: list[Record] = []
    for record in batch.records:
        try:
            answer = (await apply([msgspec.structs.replace(batch, records=(*good, record))]))[0]
            if is_void(answer):
                return answer
            good.append(record)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - see above
            await refused(batch, record, error)
            good.append(Record(record.sequence, record.time, RecordLost()))  # in its place; no store looks at it
    return (await apply([msgspec.structs.replace(batch, records=tuple(good))]))[0]


def _batch(item: Pending) -> ArrayBatch | PartBatch | TableBatch:
    node = item.node
    structure = node.data_sources[0].structure
    if isinstance(structure, ArrayStructure):
        return ArrayBatch(node.id, _structure_after(item), item.records, item.after, item.fence)
    if isinstance(structure, TableStructure):
        return TableBatch(node.id, structure, item.after, item.records, item.fence)
    return PartBatch(node.id, item.records, item.after, item.fence)


def _structure_after(item: Pending) -> ArrayStructure:
    """The catalog's structure contains the records up to its watermark already; only later ones change it."""
    tail = DataTail(item.node.data_sources, 0)
    tail.fold(record for record in item.records if record.sequence > item.watermark)
    structure = tail.data_sources[0].structure
    assert isinstance(structure, ArrayStructure)
    return structure


def concerns_storage(record: Record) -> bool:
    """Does it change what the store of its node holds?"""
    event = record.event
    if isinstance(event, ArrayWritten | PartWritten):
        return event.persist
    return isinstance(event, RowsAppended | TableWritten | AssetDeleted)


def _is_external(node: Node) -> bool:
    return not node.data_sources or node.data_sources[0].management == "external"


def _configured(store: Any, what: str) -> Any:
    if store is None:
        raise Unavailable(
            f"This process has no storage for {what}, but some are to be persisted: start it with the same -w as the others."
        )
    return store
