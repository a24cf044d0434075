"""The catalog: what exists, as of each node's watermark. Only the persister writes it.

Every engine passes `tiled_stream.testing.catalog_contract`. SQL lives in `sql/`, the meaning of filters in `domain/search.py`.
What must stay true here: a node's changes and its watermark are one transaction (I4, I5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from ..domain.events import Record
from ..domain.nodes import Node, NodeId
from ..domain.search import Filter, Page, Search

__all__ = ["Applied", "Catalog", "CatalogBatch", "Distinct", "Found", "Hit", "Loss", "Reached", "Revision", "Stored"]


class Stored(msgspec.Struct, frozen=True):
    """A node as the catalog knows it. `watermark` is that of the node's *own* log; `children` how many it has then.

    `ended`: sequence of the latest end of the stream in that log; 0 if the producer has not ended it. `has_odd_keys`: a child was
    given a key that is odd (`domain/nodes.py`), and perhaps deleted since. `stored`: the watermark that the node's storage
    had when this row was written; a storage that has less was put back to an earlier state. `lost`: how many records of the
    node are known to be lost and not accepted as such.
    """

    node: Node
    watermark: int
    children: int = 0
    ended: int = 0
    has_odd_keys: bool = False
    stored: int = 0
    lost: int = 0


class Reached(msgspec.Struct, frozen=True):
    """How far the catalog knows one node: its own watermark, that of its storage, and how many records are lost."""

    watermark: int
    stored: int
    lost: int


class Loss(msgspec.Struct, frozen=True):
    """Acknowledged records `first` … `last` of a node that are in no log, and were not in catalog or storage when they had to be.

    `time`: when that was found, seconds since the epoch. `reason`: one sentence for the operator.
    """

    node: NodeId
    first: int
    last: int
    time: float
    reason: str


class Hit(msgspec.Struct, frozen=True):
    """One node of a listing. `cursor` orders rows of the same listing; `path` is keys from the root, the node's own last."""

    node: Node
    cursor: int
    path: tuple[str, ...]
    children: int = 0


class Found(msgspec.Struct, frozen=True):
    """A page. `more`: there are further rows after it."""

    hits: tuple[Hit, ...]
    more: bool


class Distinct(msgspec.Struct, frozen=True):
    """Distinct values with their counts; a missing key and JSON null share one bucket with value None."""

    metadata: dict[str, list[tuple[Any, int]]]
    structure_families: list[tuple[str, int]] | None
    specs: list[tuple[list[dict[str, Any]], int]] | None


class Revision(msgspec.Struct, frozen=True):
    """The state of a node before an edit. `time` is when it was replaced (seconds since the epoch)."""

    number: int
    metadata: dict[str, Any]
    specs: tuple[Any, ...]
    access_tags: tuple[str, ...]
    time: float


class CatalogBatch(msgspec.Struct, frozen=True):
    """Consecutive records of one node's log, beginning at ``after + 1``. Payloads are not looked at.

    `stored`: the watermark of the node's storage now, 0 if nothing was written to it. `losses`: losses found on the way, to be
    remembered in the same transaction; they count also if there are no records.
    """

    node: NodeId
    after: int
    records: tuple[Record, ...]
    stored: int = 0
    losses: tuple[Loss, ...] = ()


class Applied(msgspec.Struct, frozen=True):
    """What `apply` did for one batch. `watermark` is the stored one afterwards.

    `deleted`: nodes that this batch removed, the whole subtree (their storage and logs can go now).
    """

    watermark: int
    deleted: tuple[Node, ...] = ()


class Catalog(Protocol):
    """Async, safe to call concurrently. Reads see committed states only."""

    async def open(self) -> None:
        """Connect and check the version. `Unavailable` that names the cure if it is not initialised or too old."""
        ...

    async def close(self) -> None:
        """Leave no connection, thread or file lock (I9). Idempotent."""
        ...

    async def identity(self) -> str:
        """The id of this deployment: made with the catalog, and part of its backups."""
        ...

    async def revision(self) -> int:
        """How many transactions `apply` has made. A lower number than before means that the catalog was restored from a
        backup."""
        ...

    async def storages(self) -> dict[str, str]:
        """The incarnation of each storage that the catalog counts on, by the name under which it was remembered."""
        ...

    async def remember_storage(self, name: str, incarnation: str) -> None:
        """Count on this storage from now on."""
        ...

    async def reached(self, nodes: Sequence[NodeId]) -> list[Reached | None]:
        """How far each node is known, in one question; None for a node that is not in the catalog."""
        ...

    async def losses(self, *, limit: int = 1000) -> list[Loss]:
        """Losses that have not been accepted, in the order in which they were found."""
        ...

    async def accept_losses(self, nodes: Sequence[NodeId] | None = None) -> int:
        """An operator has taken note of what is missing of these nodes (None: of all with losses): reads serve what is there.

        `lost` and `stored` are 0 again, so that nothing is expected of their storage. Returns how many records were recorded as
        lost. The losses stay in the table, with the time of acceptance.
        """
        ...

    async def node(self, id: NodeId) -> Stored:
        """By id. `Gone` if it was deleted, `NotFound` if it never was here (perhaps not yet)."""
        ...

    async def child(self, parent: NodeId, key: str) -> Stored:
        """By place in the tree. `NotFound`."""
        ...

    async def children(self, parent: NodeId, search: Search, page: Page) -> Found:
        """The children that match, one level below, in the order asked for. `path` of a hit is relative: only its key.

        `Malformed` for a filter or sort key that makes no sense; `NotSupported` for `regex`.
        """
        ...

    async def descendants(self, ancestor: NodeId, search: Search, page: Page, *, max_depth: int | None = None) -> Found:
        """All matching nodes below (not the node itself), in insertion order over the whole catalog.

        `path` of a hit is relative to `ancestor`.
        """
        ...

    async def count(
        self,
        parent: NodeId,
        filters: Sequence[Filter] = (),
        *,
        deep: bool = False,
        max_depth: int | None = None,
        at_most: int | None = None,
    ) -> int:
        """Exact number of matches; with `at_most` counting ends there, and that number stands for it and for all above."""
        ...

    async def distinct(
        self,
        parent: NodeId,
        filters: Sequence[Filter],
        *,
        metadata: Sequence[str] = (),
        structure_families: bool = False,
        specs: bool = False,
    ) -> Distinct:
        """Distinct values among the matching children."""
        ...

    async def revisions(self, id: NodeId, *, offset: int = 0, limit: int = 100) -> tuple[list[Revision], int]:
        """A page of revisions, lowest number first, and how many there are in all."""
        ...

    async def apply(self, batches: Sequence[CatalogBatch]) -> list[Applied]:
        """Apply batches in order, all in one transaction: rows, children, revisions **and** watermarks.

        A batch is applied only if the stored watermark of its node equals `batch.after`; otherwise it is skipped and its
        `Applied.watermark` tells where the node stands (I5). A batch whose node is not in the catalog: watermark -1 (not
        yet, or deleted; `node` tells which), nothing changed.

        - `ChildCreated`: insert the child (`created` = record.sequence, times = record.time; its watermark 0).
        - `ChildMetadataUpdated`: keep the old state as revision `revision` (unless None), replace, `time_updated`. The child
          is found by `id`; `key=""` means the batch's own node (the root).
        - `ChildDeleted`: remove the subtree and its revisions; remember the ids as gone.
        - `RevisionDeleted`: remove it. A child that is not there: ignored (it was deleted by a later batch applied before).
        - `ArrayWritten` with `structure`, `ArrayReferenced`: replace the structure / the data source of the batch's own node.
        - everything else: only the watermark moves.

        The same transaction takes `stored` (it never goes back) and the losses of each batch that is applied. A loss that is
        known already (same node and range) is not counted twice.
        """
        ...
