"""Batches of records as one transaction of a PostgreSQL catalog.

What must stay true: rows, children, revisions, losses and watermarks move together or not at all (I4, I5). One transaction at a
time does this, whichever process it is of: a lock of the server sees to it, so nothing here can be overtaken. The statement that
takes the lock also counts the transaction; one that has changed nothing is to be rolled back.

What is written is collected and sent many rows at a time; a round of the persister costs a few round trips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..domain.events import (
    ChildCreated,
    ChildDeleted,
    ChildMetadataUpdated,
    Record,
    RevisionDeleted,
    StreamEnded,
)
from ..domain.fold import DataTail, changes_sources
from ..domain.nodes import Node, NodeId, Spec, is_odd
from . import rows
from .facts import Kind, facts_of, words_of
from .port import Applied, CatalogBatch
from .postgres_dialect import encoded, text_beside

__all__ = ["PostgresWriter"]

#: Nodes of a subtree that are fetched at a time.
_PAGE = 2000


class _Row(msgspec.Struct):
    """A node as it stands in this transaction."""

    row: int
    parent: int | None
    depth: int
    path: str
    above: list[int]
    watermark: int
    metadata: str
    specs: str
    access_tags: str
    data_sources: str
    stored: int = 0


class PostgresWriter:
    """One transaction; used once."""

    def __init__(self, connection: Any, statements: Mapping[str, str]) -> None:
        self._db = connection
        self._sql = statements
        self._known: dict[NodeId, _Row] = {}
        self._new_rows: list[int] = []
        # What has still to be sent.
        self._nodes: list[tuple[Any, ...]] = []
        self._ancestry: list[tuple[int, int]] = []
        # Facts by the row of their node.
        self._facts: dict[int, list[tuple[int, str, int, Any, int]]] = {}
        self._revisions: list[tuple[Any, ...]] = []
        self._described: list[tuple[Any, ...]] = []
        self._restructured: list[tuple[str, float, int]] = []
        self._advanced: list[tuple[int, int, int, int, bool, int]] = []
        self._stale_facts: list[int] = []
        self._losses: list[tuple[int, int, int, float, str]] = []
        #: Is there anything to commit?
        self.has_changed = False

    async def apply(self, batches: Sequence[CatalogBatch]) -> list[Applied]:
        """All of them, in order."""
        await self._db.fetch(self._sql["lock_and_count"])  # prepared once, unlike what is executed without arguments
        await self._look(batches)
        applied = [await self._batch(batch) for batch in batches]
        await self._flush()
        return applied

    async def _look(self, batches: Sequence[CatalogBatch]) -> None:
        """Whatever the batches speak of, in one question; and rows for what they create."""
        ids = {batch.node for batch in batches}
        created = 0
        for batch in batches:
            for record in batch.records:
                if isinstance(record.event, ChildMetadataUpdated | ChildDeleted):
                    ids.add(record.event.id)
                created += isinstance(record.event, ChildCreated)
        await self._fetch(ids)
        if created:
            found = await self._db.fetch(self._sql["next_rows"], created)
            self._new_rows = [row for (row,) in reversed(found)]

    async def _fetch(self, ids: set[NodeId]) -> None:
        for id, *columns in await self._db.fetch(self._sql["nodes_to_apply"], sorted(ids)):
            self._known[id] = _Row(*columns)

    async def _batch(self, batch: CatalogBatch) -> Applied:
        at = self._known.get(batch.node)
        if at is None:
            return Applied(-1)
        if at.watermark != batch.after:
            return Applied(at.watermark)
        self._losses += [(at.row, loss.first, loss.last, loss.time, loss.reason) for loss in batch.losses]
        if not batch.records and batch.stored <= at.stored:
            return Applied(at.watermark)
        self.has_changed = True
        deleted: list[Node] = []
        children = ended = 0
        has_odd_keys = False
        for record in batch.records:
            event = record.event
            if isinstance(event, ChildCreated):
                self._create(at, event.node, record)
                children += 1
                has_odd_keys |= is_odd(event.node.key)
            elif isinstance(event, ChildMetadataUpdated):
                self._edit(batch.node if event.key == "" else event.id, event, record.time)
            elif isinstance(event, ChildDeleted):
                gone = await self._delete(event.id)
                children -= bool(gone)
                deleted += gone
            elif isinstance(event, RevisionDeleted):
                await self._flush()
                await self._db.execute(self._sql["delete_revision"], batch.node if event.key == "" else event.id, event.number)
            elif isinstance(event, StreamEnded):
                ended = record.sequence
        if batch.records:
            at.watermark = batch.records[-1].sequence
        at.stored = max(at.stored, batch.stored)
        if any(row == at.row for row, *_ in self._advanced):
            await self._flush()  # an update from a list changes each row once
        self._advanced.append((at.row, at.watermark, children, ended, has_odd_keys, at.stored))
        self._restructure(at, batch.records)
        return Applied(at.watermark, tuple(deleted))

    def _create(self, parent: _Row, node: Node, record: Record) -> None:
        row = self._new_rows.pop()
        above = [*parent.above, parent.row] if parent.parent is not None else []
        texts = _Row(
            row,
            parent.row,
            parent.depth + 1,
            rows.path_text([*rows.value(parent.path), node.key]),
            above,
            0,
            rows.json_text(node.metadata),
            rows.specs_text(node.specs),
            rows.json_text(node.access_tags),
            rows.data_sources_text(node.data_sources),
        )
        self._known[node.id] = texts
        place = (row, node.id, parent.row, node.key, texts.depth, node.family)
        times = (record.sequence, node.revision, record.time, record.time)
        long = (words_of(node.metadata), texts.specs, texts.access_tags, texts.data_sources, texts.metadata)
        self._nodes.append((*place, *times, above, texts.path, *long))
        self._ancestry += [(ancestor, row) for ancestor in above]
        self._add_facts(row, parent.row, node.metadata, node.specs, node.access_tags)

    def _edit(self, id: NodeId, event: ChildMetadataUpdated, time: float) -> None:
        at = self._known.get(id)
        if at is None:
            return
        if event.revision is not None:
            self._revisions.append((at.row, event.revision, at.metadata, at.specs, at.access_tags, time))
        at.metadata, at.specs = rows.json_text(event.metadata), rows.specs_text(event.specs)
        at.access_tags = rows.json_text(event.access_tags)
        words = words_of(event.metadata)
        self._described.append((at.metadata, at.specs, at.access_tags, words, event.revision or 0, time, at.row))
        if at.parent is not None:
            self._stale_facts.append(at.row)
            self._add_facts(at.row, at.parent, event.metadata, event.specs, event.access_tags)

    async def _delete(self, id: NodeId) -> list[Node]:
        """The subtree, the node itself first; empty if it was not there."""
        at = self._known.get(id)
        if at is None:
            return []
        await self._flush()
        doomed: list[Any] = []
        while len(page := await self._db.fetch(self._sql["subtree"], at.row, doomed[-1][0] if doomed else 0, _PAGE)) >= _PAGE:
            doomed += page
        doomed += page
        numbers = [row[0] for row in doomed]
        ids = [row[1] for row in doomed]
        await self._db.execute(self._sql["insert_gone"], ids)
        for statement in ("delete_facts", "delete_revisions", "delete_ancestry"):
            await self._db.execute(self._sql[statement], numbers)
        await self._db.execute(self._sql["delete_below"], at.above, numbers)
        await self._db.execute(self._sql["delete_nodes"], numbers)
        for gone in ids:
            self._known.pop(gone, None)
        return [rows.node(row) for row in doomed]

    def _restructure(self, at: _Row, records: Sequence[Record]) -> None:
        if not any(map(changes_sources, records)):
            return
        tail = DataTail(rows.sources(at.data_sources), 0)
        tail.fold(records)
        at.data_sources = rows.data_sources_text(tail.data_sources)
        self._restructured.append((at.data_sources, records[-1].time, at.row))

    def _add_facts(self, row: int, parent: int, metadata: dict[str, Any], specs: Sequence[Spec], tags: Sequence[str]) -> None:
        self._facts[row] = [(row, path, kind, value, parent) for path, kind, value in facts_of(metadata, specs, tags)]

    async def _flush(self) -> None:
        """Send what was collected."""
        if self._nodes:
            await self._db.executemany(self._sql["insert_node"], self._nodes)
        if self._ancestry:
            await self._db.executemany(self._sql["insert_ancestor"], self._ancestry)
        if self._revisions:
            await self._db.executemany(self._sql["insert_revision"], self._revisions)
        if self._described:
            await self._db.executemany(self._sql["describe"], self._described)
        if self._stale_facts:
            await self._db.execute(self._sql["delete_facts"], self._stale_facts)
        if self._facts:
            await self._insert_facts()
        if self._restructured:
            await self._db.executemany(self._sql["restructure"], self._restructured)
        if self._advanced:
            await self._db.execute(self._sql["advance"], *map(list, zip(*self._advanced, strict=True)))
        if self._losses:
            found = await self._db.fetch(self._sql["insert_losses"], *map(list, zip(*self._losses, strict=True)))
            self.has_changed |= bool(found)
        self._nodes, self._ancestry, self._facts, self._revisions = [], [], {}, []
        self._described, self._restructured, self._advanced, self._stale_facts, self._losses = [], [], [], [], []

    async def _insert_facts(self) -> None:
        collected = [fact for several in self._facts.values() for fact in several]
        paths = sorted({path.encode() for _, path, _, _, _ in collected})
        await self._db.execute(self._sql["insert_paths"], paths)
        numbers = {path.decode(): number for path, number in await self._db.fetch(self._sql["paths"], paths)}
        facts: list[tuple[Any, ...]] = []
        for row, path, number, value, parent in collected:
            kind = Kind(number)
            facts.append((row, numbers[path], number, encoded(kind, value), text_beside(kind, value), parent))
        await self._db.executemany(self._sql["insert_fact"], facts)
