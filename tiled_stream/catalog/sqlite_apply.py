"""The one writer of the SQLite catalog: batches of records as one transaction. Runs in the writer's thread; nothing here awaits.

What must stay true: rows, children, revisions, losses and watermarks move together or not at all (I4, I5), and each transaction
that changed something is counted.

New rows are collected and inserted many at a time, before anything looks at the tables again: a thousand creations cost a few
calls into SQLite, not ten thousand.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from ..sql.opened_file import OpenedFile
from . import rows
from .facts import facts_of, words_of
from .port import Applied, CatalogBatch, Loss

__all__ = ["SqliteWriter"]

#: Names of paths that are remembered; metadata may use anything as a key.
MAX_PATHS = 100_000


class _Parent(msgspec.Struct):
    """The node of a batch, as far as its new children need it. `ancestors`: rows of it and what is above it, without the root."""

    row: int
    depth: int
    path: list[str]
    ancestors: list[int]


class SqliteWriter:
    """Applies batches over one connection, with the `statements` of the engine."""

    def __init__(self, connection: sqlite3.Connection, statements: Mapping[str, str], *, file: OpenedFile) -> None:
        self._db = connection
        self._file = file
        self._sql = statements
        # Rows of `paths`, remembered so that a fact costs no look-up.
        self._paths: dict[str, int] = dict(connection.execute(statements["paths"], (MAX_PATHS,)))
        # What the transaction has still to insert, and the last row that it gave to a node (None: it has not asked yet).
        self._nodes: list[tuple[Any, ...]] = []
        self._ancestry: list[tuple[int, int]] = []
        self._facts: list[tuple[Any, ...]] = []
        self._last_row: int | None = None
        self._has_changed = False

    def apply(self, batches: Sequence[CatalogBatch]) -> list[Applied]:
        """All batches in one transaction."""
        with self._transaction():
            self._last_row = None
            self._has_changed = False
            applied = [self._batch(batch) for batch in batches]
            if self._has_changed:
                self._db.execute(self._sql["count_transaction"])
        return applied

    def remember_storage(self, name: str, incarnation: str) -> None:
        """See `Catalog`."""
        with self._transaction():
            self._db.execute(self._sql["remember_storage"], (name, incarnation))

    def accept_losses(self, nodes: str | None) -> int:
        """See `Catalog`. `nodes`: JSON list of ids."""
        with self._transaction():
            found = self._db.execute(self._sql["unaccepted"], (nodes,)).fetchall()
            self._db.executemany(self._sql["accept_losses"], [(row,) for row, _ in found])
            self._db.execute(self._sql["forget_lost"], (nodes,))
        return sum(records for _, records in found)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._file.check()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._forget()
            if self._db.in_transaction:  # a full disk has ended it already
                self._db.execute("ROLLBACK")
            raise

    def configure_root(self, metadata: dict[str, Any] | None, specs: Sequence[Spec] | None) -> None:
        """Give the root what the configuration says, if that is news and nobody edited it."""
        row, old, old_specs, time_updated = self._one("root")
        new = old if metadata is None else rows.json_text(metadata)
        new_specs = old_specs if specs is None else rows.specs_text(specs)
        if time_updated or (new, new_specs) == (old, old_specs):
            return
        with self._db:
            self._db.execute(self._sql["describe"], (new, new_specs, "[]", words_of(rows.value(new)), 0, 0.0, row))

    def _batch(self, batch: CatalogBatch) -> Applied:
        found = self._one("node_to_apply", batch.node)
        if found is None:
            return Applied(-1)
        row, depth, path, watermark, sources, stored = found
        if watermark != batch.after:
            return Applied(watermark)
        self._lose(row, batch.losses)
        if not batch.records and batch.stored <= stored:
            return Applied(watermark)
        self._has_changed = True
        parent: _Parent | None = None
        deleted: list[Node] = []
        children = ended = 0
        has_odd_keys = False
        for record in batch.records:
            event = record.event
            if isinstance(event, ChildCreated):
                parent = parent or _Parent(row, depth, rows.value(path), self._ancestors(row))
                self._create(parent, event.node, record)
                children += 1
                has_odd_keys |= is_odd(event.node.key)
            elif isinstance(event, ChildMetadataUpdated):
                self._edit(batch.node if event.key == "" else event.id, event, record.time)
            elif isinstance(event, ChildDeleted):
                gone = self._delete(event.id)
                children -= bool(gone)
                deleted += gone
            elif isinstance(event, RevisionDeleted):
                self._db.execute(self._sql["delete_revision"], (batch.node if event.key == "" else event.id, event.number))
            elif isinstance(event, StreamEnded):
                ended = record.sequence
        self._flush()
        last = batch.records[-1].sequence if batch.records else watermark
        self._db.execute(self._sql["advance"], (last, children, ended, has_odd_keys, batch.stored, row))
        self._restructure(row, sources, batch.records)
        return Applied(last, tuple(deleted))

    def _lose(self, row: int, losses: Sequence[Loss]) -> None:
        """Remember losses; those that are known already change nothing."""
        for loss in losses:
            found = (row, loss.first, loss.last, loss.time, loss.reason)
            if self._db.execute(self._sql["insert_loss"], found).rowcount:
                self._db.execute(self._sql["count_lost"], (loss.last - loss.first + 1, row))
                self._has_changed = True

    def _create(self, parent: _Parent, node: Node, record: Record) -> None:
        last: int = self._one("last_row")[0] if self._last_row is None else self._last_row
        row = self._last_row = last + 1
        self._nodes.append(
            (
                row,
                node.id,
                parent.row,
                node.key,
                parent.depth + 1,
                node.family,
                record.sequence,
                node.revision,
                record.time,
                record.time,
                rows.path_text([*parent.path, node.key]),
                words_of(node.metadata),
                rows.specs_text(node.specs),
                rows.json_text(node.access_tags),
                rows.data_sources_text(node.data_sources),
                rows.json_text(node.metadata),
            )
        )
        self._ancestry += [(ancestor, row) for ancestor in parent.ancestors]
        self._add_facts(row, parent.row, node.metadata, node.specs, node.access_tags)

    def _edit(self, id: NodeId, event: ChildMetadataUpdated, time: float) -> None:
        self._flush()
        found = self._one("node_to_edit", id)
        if found is None:
            return
        row, parent, *before = found
        if event.revision is not None:
            self._db.execute(self._sql["insert_revision"], (row, event.revision, *before, time))
        after = (rows.json_text(event.metadata), rows.specs_text(event.specs), rows.json_text(event.access_tags))
        self._db.execute(self._sql["describe"], (*after, words_of(event.metadata), event.revision or 0, time, row))
        if parent is not None:
            self._db.execute(self._sql["delete_facts"], (row,))
            self._add_facts(row, parent, event.metadata, event.specs, event.access_tags)

    def _delete(self, id: NodeId) -> list[Node]:
        """The subtree, the node itself first; empty if it was not there."""
        self._flush()
        found = self._one("node_to_apply", id)
        if found is None:
            return []
        doomed = self._db.execute(self._sql["subtree"], (found[0],)).fetchall()
        numbers = [(row[0],) for row in reversed(doomed)]  # children before parents
        above = [ancestor for ancestor in self._ancestors(found[0]) if ancestor != found[0]]
        self._db.executemany(self._sql["insert_gone"], [(row[1],) for row in doomed])
        for statement in ("delete_facts", "delete_revisions", "delete_losses", "delete_below", "delete_node"):
            self._db.executemany(self._sql[statement], numbers)
        self._db.executemany(self._sql["delete_ancestor"], [(a, row) for a in above for (row,) in numbers])
        return [rows.node(row) for row in doomed]

    def _restructure(self, row: int, sources: str, records: Sequence[Record]) -> None:
        if not any(map(changes_sources, records)):
            return
        tail = DataTail(rows.sources(sources), 0)
        tail.fold(records)
        self._db.execute(self._sql["restructure"], (rows.data_sources_text(tail.data_sources), records[-1].time, row))

    # ------------------------------------------------------------- inside

    def _one(self, statement: str, *parameters: Any) -> Any:
        return self._db.execute(self._sql[statement], parameters).fetchone()

    def _ancestors(self, row: int) -> list[int]:
        return [ancestor for (ancestor,) in self._db.execute(self._sql["ancestors"], (row,))]

    def _add_facts(self, row: int, parent: int, metadata: dict[str, Any], specs: Sequence[Spec], tags: Sequence[str]) -> None:
        known = self._paths
        for path, kind, value in facts_of(metadata, specs, tags):
            self._facts.append((row, known[path] if path in known else self._name(path), kind, value, parent))

    def _name(self, path: str) -> int:
        if len(self._paths) >= MAX_PATHS:
            self._paths.clear()
        number: int = self._one("insert_path", path)[0]
        self._paths[path] = number
        return number

    def _flush(self) -> None:
        if not self._nodes and not self._facts:
            return
        self._db.executemany(self._sql["insert_node"], self._nodes)
        self._db.executemany(self._sql["insert_ancestor"], self._ancestry)
        self._db.executemany(self._sql["insert_fact"], self._facts)
        self._nodes, self._ancestry, self._facts = [], [], []

    def _forget(self) -> None:
        """After a rollback: what was collected is void, and so may be the names of paths."""
        self._nodes, self._ancestry, self._facts = [], [], []
        self._paths = {}
