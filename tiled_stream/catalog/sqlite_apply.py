"""The one writer of the SQLite catalog: batches of records as one transaction. Runs in the writer's thread; nothing here awaits.

What must stay true: rows, children, revisions and watermarks move together or not at all (I4, I5).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from ..domain.events import (
    ArrayReferenced,
    ArrayWritten,
    ChildCreated,
    ChildDeleted,
    ChildMetadataUpdated,
    Record,
    RevisionDeleted,
)
from ..domain.fold import DataTail
from ..domain.nodes import Node, NodeId, Spec
from . import rows
from .facts import facts_of, words_of
from .port import Applied, CatalogBatch

__all__ = ["SqliteWriter"]


class SqliteWriter:
    """Applies batches over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        # Rows of `paths`, remembered so that a fact costs no look-up.
        self._paths: dict[str, int] = dict(connection.execute("SELECT path, id FROM paths"))

    def apply(self, batches: Sequence[CatalogBatch]) -> list[Applied]:
        """All batches in one transaction."""
        known_paths = dict(self._paths)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            applied = [self._batch(batch) for batch in batches]
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            self._paths = known_paths
            raise
        return applied

    def edit_root(self, metadata: dict[str, Any] | None, specs: Sequence[Spec] | None) -> None:
        """Give the root what the configuration says, unless somebody edited it."""
        found = self._db.execute("SELECT row, metadata, specs, revision FROM nodes WHERE parent IS NULL").fetchone()
        if found is None or found[3] or (metadata is None and specs is None):
            return
        self._db.execute("BEGIN IMMEDIATE")
        new = orjson.loads(found[1]) if metadata is None else metadata
        new_specs = msgspec.json.decode(found[2], type=tuple[Spec, ...]) if specs is None else specs
        self._describe(found[0], new, new_specs, ())
        self._db.execute("COMMIT")

    def _batch(self, batch: CatalogBatch) -> Applied:
        found = self._db.execute("SELECT row, path, watermark, data_sources FROM nodes WHERE id = ?", (batch.node,)).fetchone()
        if found is None:
            return Applied(-1)
        row, path, watermark, sources = found
        if watermark != batch.after or not batch.records:
            return Applied(watermark)
        deleted: list[Node] = []
        children = 0
        for record in batch.records:
            event = record.event
            if isinstance(event, ChildCreated):
                self._create(row, orjson.loads(path), event.node, record)
                children += 1
            elif isinstance(event, ChildMetadataUpdated):
                self._update(row, event, record.time)
            elif isinstance(event, ChildDeleted):
                gone = self._delete(event.id)
                children -= bool(gone)
                deleted += gone
            elif isinstance(event, RevisionDeleted):
                self._db.execute(
                    "DELETE FROM revisions WHERE number = ? AND node = (SELECT row FROM nodes WHERE id = ?)",
                    (event.number, event.id),
                )
        self._db.execute(
            "UPDATE nodes SET watermark = ?, children = children + ? WHERE row = ?",
            (batch.records[-1].sequence, children, row),
        )
        self._restructure(row, sources, batch.records)
        return Applied(batch.records[-1].sequence, tuple(deleted))

    def _create(self, parent: int, parent_path: list[str], node: Node, record: Record) -> None:
        path = [*parent_path, node.key]
        cursor = self._db.execute(
            "INSERT INTO nodes (id, parent, key, path, family, metadata, specs, access_tags, data_sources, words, created, "
            "revision, time_created, time_updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                node.id,
                parent,
                node.key,
                rows.path_text(path),
                node.family,
                rows.json_text(node.metadata),
                rows.specs_text(node.specs),
                rows.json_text(node.access_tags),
                rows.data_sources_text(node.data_sources),
                words_of(node.metadata),
                record.sequence,
                node.revision,
                record.time,
                record.time,
            ),
        )
        row = cursor.lastrowid
        assert row is not None
        self._db.execute(
            "INSERT INTO ancestry (ancestor, node, depth) SELECT ancestor, ?, depth + 1 FROM ancestry WHERE node = ? "
            "UNION ALL SELECT ?, ?, 1",
            (row, parent, parent, row),
        )
        self._add_facts(row, node.metadata, node.specs, node.access_tags)

    def _update(self, own: int, event: ChildMetadataUpdated, time: float) -> None:
        condition, parameter = ("row", own) if event.key == "" else ("id", event.id)
        found = self._db.execute(
            f"SELECT row, metadata, specs, access_tags FROM nodes WHERE {condition} = ?",
            (parameter,),
        ).fetchone()
        if found is None:
            return
        row = found[0]
        if event.revision is not None:
            self._db.execute(
                "INSERT OR REPLACE INTO revisions (node, number, metadata, specs, access_tags, time) VALUES (?, ?, ?, ?, ?, ?)",
                (row, event.revision, found[1], found[2], found[3], time),
            )
            self._db.execute("UPDATE nodes SET revision = max(revision, ?) WHERE row = ?", (event.revision, row))
        self._db.execute("UPDATE nodes SET time_updated = ? WHERE row = ?", (time, row))
        self._describe(row, event.metadata, event.specs, event.access_tags)

    def _describe(self, row: int, metadata: dict[str, Any], specs: Sequence[Spec], tags: Sequence[str]) -> None:
        self._db.execute(
            "UPDATE nodes SET metadata = ?, specs = ?, access_tags = ?, words = ? WHERE row = ?",
            (rows.json_text(metadata), rows.specs_text(specs), rows.json_text(tags), words_of(metadata), row),
        )
        self._db.execute("DELETE FROM facts WHERE node = ?", (row,))
        self._add_facts(row, metadata, specs, tags)

    def _delete(self, id: NodeId) -> list[Node]:
        """The subtree, the node itself first; empty if it was not there."""
        found = self._db.execute("SELECT row FROM nodes WHERE id = ?", (id,)).fetchone()
        if found is None:
            self._db.execute("INSERT OR IGNORE INTO gone (id) VALUES (?)", (id,))
            return []
        below = "SELECT node FROM ancestry WHERE ancestor = ?1 UNION ALL SELECT ?1"
        doomed = self._db.execute(f"SELECT {rows.COLUMNS} FROM nodes n WHERE n.row IN ({below}) ORDER BY n.row", found).fetchall()
        self._db.execute(f"INSERT OR IGNORE INTO gone (id) SELECT id FROM nodes WHERE row IN ({below})", found)
        for table, column in (("facts", "node"), ("revisions", "node")):
            self._db.execute(f"DELETE FROM {table} WHERE {column} IN ({below})", found)
        numbers = [(row[0],) for row in reversed(doomed)]
        self._db.executemany("DELETE FROM ancestry WHERE ancestor = ?", numbers)
        self._db.executemany("DELETE FROM nodes WHERE row = ?", numbers)
        self._db.executemany("DELETE FROM ancestry WHERE node = ?", numbers)
        return [rows.node(row) for row in doomed]

    def _restructure(self, row: int, sources: str, records: Sequence[Record]) -> None:
        if not any(
            isinstance(r.event, ArrayReferenced) or (isinstance(r.event, ArrayWritten) and r.event.structure is not None)
            for r in records
        ):
            return
        tail = DataTail(rows.sources(sources), 0)
        tail.fold(records)
        self._db.execute(
            "UPDATE nodes SET data_sources = ?, time_updated = ? WHERE row = ?",
            (rows.data_sources_text(tail.data_sources), records[-1].time, row),
        )

    def _add_facts(self, row: int, metadata: dict[str, Any], specs: Sequence[Spec], tags: Sequence[str]) -> None:
        facts = [(self._path(path), int(kind), value, row) for path, kind, value in facts_of(metadata, specs, tags)]
        self._db.executemany("INSERT INTO facts (path, kind, value, node) VALUES (?, ?, ?, ?)", facts)

    def _path(self, path: str) -> int:
        number = self._paths.get(path)
        if number is None:
            number = self._db.execute("INSERT INTO paths (path) VALUES (?) RETURNING id", (path,)).fetchone()[0]
            self._paths[path] = number
        return number
