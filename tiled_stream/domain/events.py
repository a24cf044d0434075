"""What happened: the records that stand in the log of a node. Past tense, frozen, complete in themselves.

A **container's** log tells what happens to its children (`ChildCreated` …), a **data node's** log what happens to its
data (`ArrayWritten`, `RowsAppended` …). Events carry the state *after* them (whole metadata, whole structure), so that
folding a record twice equals folding it once (I5). Bulk bytes travel beside the event, as the record's payload.

`DELIVERED` are those that subscribers see; the others only take a sequence.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .nodes import DataSource, Node, NodeId, Spec
from .structures import ArrayStructure, PartStructure

__all__ = [
    "DELIVERED",
    "ArrayReferenced",
    "ArrayWritten",
    "AssetDeleted",
    "ChildCreated",
    "ChildDeleted",
    "ChildMetadataUpdated",
    "Draft",
    "Event",
    "PartWritten",
    "Record",
    "RecordLost",
    "RevisionDeleted",
    "RowsAppended",
    "StreamEnded",
    "TableWritten",
]


class ChildCreated(msgspec.Struct, frozen=True, tag=True):
    """`node` now exists under this container. (`node.created` is taken from the record's sequence.)"""

    node: Node


class ChildMetadataUpdated(msgspec.Struct, frozen=True, tag=True):
    """The child's metadata, specs and tags are now these, whole. The root tells its own edits with `key=""`.

    `revision` is the number under which the state *before* was kept; None if it was dropped.
    """

    key: str
    id: NodeId
    metadata: dict[str, Any]
    specs: tuple[Spec, ...]
    access_tags: tuple[str, ...]
    revision: int | None


class ChildDeleted(msgspec.Struct, frozen=True, tag=True):
    """The child and everything below it are gone, their internally managed data too."""

    key: str
    id: NodeId


class RevisionDeleted(msgspec.Struct, frozen=True, tag=True):
    """Revision `number` of the child (or of the root itself, `key=""`) was removed."""

    key: str
    id: NodeId
    number: int


class ArrayWritten(msgspec.Struct, frozen=True, tag=True):
    """A region of the array was written; the payload is its C-order bytes of `shape`.

    Exactly one of three: whole array (`offset` and `block` None), one chunk (`block`, and the `offset` where it begins), a
    region (`offset`, which may name fewer axes than the array has; the others begin at 0). `structure` is the new structure
    if the array grew, else None.
    `persist=False`: for subscribers only, storage does not keep it.
    """

    shape: tuple[int, ...]
    offset: tuple[int, ...] | None = None
    block: tuple[int, ...] | None = None
    structure: ArrayStructure | None = None
    persist: bool = True


class ArrayReferenced(msgspec.Struct, frozen=True, tag=True):
    """The array's data source is now this one: files hold the data. (`offset`, `shape`) is the region that is new."""

    data_source: DataSource
    offset: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None


class AssetDeleted(msgspec.Struct, frozen=True, tag=True):
    """The node's data source is now this one: an asset is gone from it. If this server kept data there, they are removed."""

    data_source: DataSource


class RowsAppended(msgspec.Struct, frozen=True, tag=True):
    """Rows were appended to a partition; the payload is an Arrow IPC file in the declared schema."""

    partition: int
    rows: int


class TableWritten(msgspec.Struct, frozen=True, tag=True):
    """A partition, or the whole table (`partition` None), was replaced; payload as in `RowsAppended`."""

    partition: int | None
    rows: int


class PartWritten(msgspec.Struct, frozen=True, tag=True):
    """An awkward, ragged or sparse array was written, whole or in part; the payload is a zip of buffers, or an Arrow IPC file.

    Whole: `offset` and `block` None. One chunk: `block`. Rows that were appended: `offset`, and the `block` that they became.
    `shape` is that of the part (None for an axis of varying length). `structure` is the structure after it, always.
    `persist=False`: for subscribers only.
    """

    shape: tuple[int | None, ...]
    structure: PartStructure
    offset: tuple[int, ...] | None = None
    block: tuple[int, ...] | None = None
    persist: bool = True


class StreamEnded(msgspec.Struct, frozen=True, tag=True):
    """The producer said that nothing more will come. Later writes are still accepted and numbered."""


class RecordLost(msgspec.Struct, frozen=True, tag=True):
    """In the place of a record that was lost with its log, or that cannot be applied.

    The log has it where no server could restore a record (ADR 0021); subscribers get a gap for it. The persister puts it in
    the place of records that left the log or went to quarantine.
    """


Event = (
    ChildCreated
    | ChildMetadataUpdated
    | ChildDeleted
    | RevisionDeleted
    | ArrayWritten
    | ArrayReferenced
    | AssetDeleted
    | RowsAppended
    | TableWritten
    | PartWritten
    | StreamEnded
    | RecordLost
)

DELIVERED = (ChildCreated, ChildMetadataUpdated, ArrayWritten, ArrayReferenced, RowsAppended, TableWritten, PartWritten)


class Draft(msgspec.Struct, frozen=True):
    """A record that has no place yet. `time` is seconds since the epoch, UTC, given by the writer's clock."""

    event: Event
    time: float
    payload: bytes = b""


class Record(msgspec.Struct, frozen=True):
    """An event as it lies in the log of one node.

    `covers`: not from the log, but told from storage in the place of the records with these sequences, first and last.
    """

    sequence: int
    time: float
    event: Event
    payload: bytes = b""
    covers: tuple[int, int] | None = None
