"""Given the state of a node and its next records: the state after them. Pure; the other half of `decide.py`.

Two folds: `ContainerTail` over the log of a container (what its children are), `DataTail` over the log of a data node (what its
data look like). Both start from a catalog row at its watermark and may be fed records again that the row already
contains: events carry whole states, so that changes nothing once the last record is folded (I5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from .events import (
    ArrayReferenced,
    ArrayWritten,
    AssetDeleted,
    ChildCreated,
    ChildDeleted,
    ChildMetadataUpdated,
    PartWritten,
    Record,
)
from .nodes import DataSource, Node, is_odd

__all__ = ["Child", "ContainerTail", "DataTail", "Edit", "changes_sources", "edited"]


class Child(msgspec.Struct, frozen=True):
    """A child as of the tail's cursor. `own` is the watermark of the child's own log that `node.data_sources` stand for."""

    node: Node
    own: int


class Edit(msgspec.Struct, frozen=True):
    """The last edit of a child whose row has not been read yet: to be laid over it."""

    event: ChildMetadataUpdated
    time: float


def edited(node: Node, edit: Edit) -> Node:
    """`node` after `edit`."""
    event = edit.event
    return msgspec.structs.replace(
        node,
        metadata=event.metadata,
        specs=event.specs,
        access_tags=event.access_tags,
        revision=max(node.revision, event.revision or 0),
        time_updated=edit.time,
    )


def changes_sources(record: Record) -> bool:
    """Does it change what is known of the data sources of its node?"""
    event = record.event
    if isinstance(event, ArrayWritten):
        return event.structure is not None
    return isinstance(event, ArrayReferenced | AssetDeleted | PartWritten)


class ContainerTail:
    """What is known about the children of one container, as of `cursor`.

    `children` holds every child that a record after `base` spoke of (None: deleted), and those that were read from the
    catalog since. `moves` are the creations (+1) and deletions (-1) after `base` by sequence, for counting; `moved` is their
    sum: with a `base` of 0 the number of children. `has_odd_keys`: one of the creations gave a key that is odd
    (`domain/nodes.py`).
    """

    __slots__ = ("base", "children", "cursor", "epoch", "has_odd_keys", "moved", "moves")

    def __init__(self, base: int, epoch: str | None = None) -> None:
        self.base = base
        self.cursor = base
        self.epoch = epoch
        self.children: dict[str, Child | Edit | None] = {}
        self.moves: deque[tuple[int, int]] = deque()
        self.moved = 0
        self.has_odd_keys = False

    def fold(self, records: Iterable[Record]) -> None:
        """Take the records that follow `cursor`."""
        for record in records:
            event = record.event
            if isinstance(event, ChildCreated):
                node = msgspec.structs.replace(
                    event.node, created=record.sequence, time_created=record.time, time_updated=record.time
                )
                self.children[node.key] = Child(node, 0)
                self.moves.append((record.sequence, 1))
                self.moved += 1
                self.has_odd_keys |= is_odd(node.key)
            elif isinstance(event, ChildMetadataUpdated):
                self._edit(event, record.time)
            elif isinstance(event, ChildDeleted):
                self.children[event.key] = None
                self.moves.append((record.sequence, -1))
                self.moved -= 1
            self.cursor = record.sequence

    def moved_since(self, watermark: int) -> int:
        """How many children were added, less those removed, after `watermark`. Older moves are forgotten."""
        while self.moves and self.moves[0][0] <= watermark:
            self.moves.popleft()
        return sum(by for _, by in self.moves)

    def _edit(self, event: ChildMetadataUpdated, time: float) -> None:
        known = self.children.get(event.key)
        edit = Edit(event, time)
        if isinstance(known, Child) and known.node.id == event.id:
            self.children[event.key] = Child(edited(known.node, edit), known.own)
        else:
            self.children[event.key] = edit


class DataTail:
    """The data sources of one data node, as of `cursor` of its own log."""

    __slots__ = ("cursor", "data_sources", "epoch")

    def __init__(self, data_sources: tuple[DataSource, ...], cursor: int, epoch: str | None = None) -> None:
        self.data_sources = data_sources
        self.cursor = cursor
        self.epoch = epoch

    def fold(self, records: Iterable[Record]) -> None:
        """Take the records that follow `cursor`."""
        for record in records:
            event = record.event
            if isinstance(event, ArrayWritten):
                if event.structure is not None:
                    first = msgspec.structs.replace(self.data_sources[0], structure=event.structure)
                    self.data_sources = (first, *self.data_sources[1:])
            elif isinstance(event, PartWritten):
                if event.structure != self.data_sources[0].structure:
                    first = msgspec.structs.replace(self.data_sources[0], structure=event.structure)
                    self.data_sources = (first, *self.data_sources[1:])
            elif isinstance(event, ArrayReferenced | AssetDeleted):
                new = event.data_source
                self.data_sources = tuple(new if d.id == new.id else d for d in self.data_sources)
            self.cursor = record.sequence
