"""The present of a node: its catalog row at the watermark, plus the fold of its log's tail (headers only).

Writers validate against it and metadata reads are answered from it, without waiting for storage (I7). Read the tail first,
then the catalog: the union then cannot miss. A row that is newer than the tail's cursor does no harm: what lies between is
in the log still and is folded over it at the next look.

Tails are a cache: a new one begins at the catalog's watermark, or at a position that its parent's tail knows of. The catalog
is asked only for what the log cannot tell, so that writes go on while it cannot be reached.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import msgspec

from ..catalog.port import Catalog, Stored
from ..domain.errors import EpochChanged, Gone, NotFound, Truncated, Unavailable
from ..domain.events import Draft, Record
from ..domain.fold import Child, ContainerTail, DataTail, Edit, edited
from ..domain.nodes import ROOT, Node, NodeId
from ..domain.position import Position
from ..domain.structures import TableStructure
from ..log.port import UNGUARDED, LogEngine
from .mounts import Mounts

__all__ = ["Located", "Repository"]

_PAGE = 1000
_FRESH_SECONDS = 24 * 3600.0  # a younger container of which the log knows nothing is empty: logs remember heads for weeks
_WHOLE = 2000  # records that a new tail reads at most, before it asks the catalog for a later beginning
Heads = Mapping[NodeId, int | None]  # as of one moment; None for a node that was dropped
_T = TypeVar("_T")


class Own(msgspec.Struct, frozen=True):
    """What is known of a node's own log: persisted up to `sequence`, in `epoch`, and when the node was created."""

    sequence: int
    epoch: str
    created: float


class Located(msgspec.Struct, frozen=True):
    """A node found by its path, as of now.

    `node` carries the present metadata and structure. `head` is the sequence of its own log up to which `node` is folded.
    `column` is set if the path went on into a table: then the thing addressed is that column, a virtual array.
    `inside` are the keys of the path that lead on into the file of a registered container, whose node then is `node`. Whether
    there is anything nobody knows who has not looked into the file (`query/inside.py`); who has looked replaces `node` by what is
    there and, if that is a container, tells its number of `children`.
    `is_top`: nothing that can be deleted: the root, or what is mounted. `is_above`: above what is mounted, in the
    configuration only.
    `guards`: the heads that this was found by, in `epoch`; as long as they stand, it is so still.
    """

    node: Node
    path: tuple[str, ...]
    head: int
    column: str | None = None
    guards: Mapping[NodeId, int] = UNGUARDED
    epoch: str = ""
    inside: tuple[str, ...] = ()
    children: int | None = None
    is_top: bool = False
    is_above: bool = False


class _Tail(Protocol):
    cursor: int
    epoch: str | None

    def fold(self, records: list[Record], /) -> None: ...


class Repository:
    """Finds nodes by path and tells their present. One a process; concurrent use is fine.

    `now` gives seconds since the epoch. `max_tails` bounds how many containers and how many data nodes are remembered,
    `max_children` how many children of a container.
    """

    def __init__(
        self,
        log: LogEngine,
        catalog: Catalog,
        *,
        max_tails: int = 20_000,
        max_children: int = 20_000,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._now = now
        self._catalog = catalog
        self._max_tails = max_tails
        self._max_children = max_children
        #: What is served where; set once, before anybody asks.
        self.mounts = Mounts()
        # Least recently used first, so that a drop takes the ones nobody asks for.
        self._containers: OrderedDict[NodeId, ContainerTail] = OrderedDict()
        self._data: OrderedDict[NodeId, DataTail] = OrderedDict()

    async def resolve(self, path: tuple[str, ...]) -> Located:
        """The node at `path` (empty: the root). `NotFound` with the segments."""
        mount = self.mounts.mount_of(path)
        if mount is None:
            above = self.mounts.above(path)
            if above is None:
                raise _not_found(path)
            return Located(above, path, 0, is_top=True, is_above=True)
        inner = path[len(mount.path) :]
        if not inner or mount.path != mount.node:
            try:
                at = await self._resolve((*mount.node, *inner))
            except NotFound:
                raise _not_found(path) from None
            return msgspec.structs.replace(at, path=path, is_top=not inner)
        return await self._resolve(path)

    async def _resolve(self, path: tuple[str, ...]) -> Located:
        """By the path in the catalog."""
        epoch = self._log.epoch  # what is found is known in this one, or the log says that it is over
        heads = await self._heads_along(path)
        own: Own | None = None
        found = Child(await self._root(heads), 0)
        for depth, key in enumerate(path):
            if found.node.family == "table" and depth == len(path) - 1:
                return await self._column(found, path, heads, own)
            if found.node.family != "container":
                raise _not_found(path)
            if found.node.data_sources:
                at = await self._present(found, path, heads, own)
                return msgspec.structs.replace(at, inside=path[depth:])
            child, _ = await self.child(found.node.id, key, heads, own=own)
            if child is None:
                raise _not_found(path)
            found, own = child, Own(child.own, epoch, child.node.time_created)
        return await self._present(found, path, heads, own)

    def recall(self, path: tuple[str, ...]) -> Located | None:
        """What `resolve` would find, as this process last knew it, without asking anybody; None if it does not know all of it.

        For those who append with the `guards`: if anything has moved since, the log says so.
        """
        mount = self.mounts.mount_of(path)
        if mount is None:
            return None
        inner = path[len(mount.path) :]
        at = self._recall((*mount.node, *inner))
        if at is None or (inner and mount.path == mount.node):
            return at
        return msgspec.structs.replace(at, path=path, is_top=not inner)

    def _recall(self, path: tuple[str, ...]) -> Located | None:
        """By the path in the catalog."""
        tail = self._containers.get(ROOT)
        guards: dict[NodeId, int] = {}
        known = tail.children.get("") if tail is not None else None
        column = None
        for depth, key in enumerate(path):
            if not isinstance(known, Child):
                return None
            structure = known.node.structure
            if isinstance(structure, TableStructure) and depth == len(path) - 1 and key in structure.columns:
                column = key
                break
            if tail is None or tail.epoch != self._log.epoch:
                return None
            guards[ROOT if depth == 0 else known.node.id] = tail.cursor
            known = tail.children.get(key)
            tail = self._containers.get(known.node.id) if isinstance(known, Child) else None
        return self._recalled(known, path, column, guards) if isinstance(known, Child) else None

    def learn(self, node: NodeId, position: Position, draft: Draft) -> None:
        """What this process appended itself need not be read back."""
        record = Record(position.sequence, draft.time, draft.event)
        for tail in (self._containers.get(node), self._data.get(node)):
            if tail is not None and tail.epoch == position.epoch and tail.cursor == position.sequence - 1:
                tail.fold([record])

    async def child(
        self, parent: NodeId, key: str, heads: Heads | None = None, *, own: Own | None = None
    ) -> tuple[Child | None, int]:
        """The child under `key`, or None, and the sequence of the parent's log as of which that is so.

        `heads`: what the caller has just learnt of heads; a tail that has reached its own need not be read on. `own`: up to
        where the log of `parent` is known to be persisted. `Unavailable` if only the catalog can tell and cannot be reached.
        """
        tail = await self._container(parent, heads, own)
        if key in tail.children:
            known = tail.children[key]
            if not isinstance(known, Edit):
                return known, tail.cursor
        elif tail.base == 0 and key:
            return None, tail.cursor  # the tail holds the whole life of this container
        cursor = tail.cursor
        row = await self._row(parent, key)
        # Another task may have folded more while the row was read.
        known = tail.children.get(key)
        if isinstance(known, Child):
            return known, tail.cursor
        if row is None or (known is None and key in tail.children):
            return None, cursor
        node = edited(row.node, known) if known is not None and known.event.id == row.node.id else row.node
        child = tail.children[key] = Child(node, row.watermark)
        return child, cursor

    async def present(self, node: Node) -> Node:
        """`node`, a row of a listing, with the present structure of its data."""
        if node.family in ("container", "table", "bytes"):  # their structure never changes
            return node
        tail = self._data.get(node.id)
        if tail is None:
            if (await self._head(node.id)) == 0:
                return node
            stored = await self._catalog.node(node.id)
            return (await self._present(Child(stored.node, stored.watermark), ())).node
        return (await self._present(Child(node, tail.cursor), ())).node

    def forget(self) -> None:
        """Remember nothing: catalog or storage was restored to an earlier state."""
        self._containers.clear()
        self._data.clear()

    async def child_count(self, container: NodeId) -> int:
        """Exact number of children, as of now."""
        return (await self.census(container))[0]

    async def census(self, container: NodeId) -> tuple[int, bool]:
        """Exact number of children, and whether any was ever given a key that is odd (`domain/nodes.py`)."""
        tail = await self._container(container)
        if tail.base == 0:
            return tail.moved, tail.has_odd_keys  # the tail holds the whole life of this container
        try:
            stored = await self._catalog.node(container)
        except NotFound:
            return tail.moved_since(0), tail.has_odd_keys
        return stored.children + tail.moved_since(stored.watermark), stored.has_odd_keys or tail.has_odd_keys

    def _recalled(self, known: Child, path: tuple[str, ...], column: str | None, guards: dict[NodeId, int]) -> Located | None:
        """Its own present: that of a table never changes its columns; anything else is guarded by its own head too."""
        node = known.node
        tail = self._containers.get(node.id) if node.family == "container" else self._data.get(node.id)
        if tail is None or tail.epoch != self._log.epoch:
            return None
        if isinstance(tail, DataTail) and tail.data_sources is not node.data_sources:
            node = msgspec.structs.replace(node, data_sources=tail.data_sources)
        if node.family != "table":
            guards[node.id] = tail.cursor
        return Located(node, path, tail.cursor, column, guards, self._log.epoch)

    async def _heads_along(self, path: tuple[str, ...]) -> Heads:
        """The heads of the nodes on the way, as far as it is known, in one question."""
        node, ids = ROOT, [ROOT]
        for key in path:
            tail = self._containers.get(node)
            known = tail.children.get(key) if tail is not None else None
            if not isinstance(known, Child):
                break
            node = known.node.id
            ids.append(node)
        return dict(zip(ids, await self._log.heads(ids), strict=True))

    async def _root(self, heads: Heads) -> Node:
        tail = self._containers.get(ROOT)
        known = tail.children.get("") if tail is not None else None
        if isinstance(known, Child):
            return known.node
        child, _ = await self.child(ROOT, "", heads)
        if child is None:
            raise NotFound("The catalog has no root; initialise it.")
        return child.node

    async def _row(self, parent: NodeId, key: str) -> Stored | None:
        try:
            if key == "" and parent == ROOT:
                return await self._catalog.node(ROOT)
            return await self._catalog.child(parent, key)
        except NotFound:
            return None

    async def _column(self, table: Child, path: tuple[str, ...], heads: Heads, own: Own | None) -> Located:
        at = await self._present(table, path[:-1], heads, own)
        structure = at.node.structure
        if not isinstance(structure, TableStructure) or path[-1] not in structure.columns:
            raise _not_found(path)
        return Located(at.node, path, at.head, path[-1])

    async def _present(self, child: Child, path: tuple[str, ...], heads: Heads | None = None, own: Own | None = None) -> Located:
        node = child.node
        if node.family == "container":
            tail = await self._container(node.id, heads, own)
            if node.id == ROOT:
                root = tail.children.get("")
                node = root.node if isinstance(root, Child) else node
            return Located(node, path, tail.cursor)
        data = self._data.get(node.id)
        if data is None:
            data = DataTail(node.data_sources, child.own, own.epoch if own is not None else self._log.epoch)
            self._remember(self._data, node.id, data)
        else:
            self._data.move_to_end(node.id)
        tried = -1
        while (missing := await self._catch_up(node.id, data, heads)) is not None:
            stored = await self._stored(node.id) or Stored(child.node, 0)
            begin = _begin(stored.watermark, missing, tried)
            tried = stored.watermark
            data = DataTail(stored.node.data_sources, begin, self._log.epoch)
            self._remember(self._data, node.id, data)
        if data.data_sources is not node.data_sources:
            node = msgspec.structs.replace(node, data_sources=data.data_sources)
        return Located(node, path, data.cursor)

    async def _container(self, id: NodeId, heads: Heads | None = None, own: Own | None = None) -> ContainerTail:
        tail = self._containers.get(id)
        if tail is not None:
            self._containers.move_to_end(id)
            if len(tail.children) > self._max_children:
                tail = await self._shortened(id, tail)
        elif own is not None and await self._can_begin(id, own, heads):
            tail = ContainerTail(own.sequence, own.epoch)
            self._remember(self._containers, id, tail)
        missing: int | None = 0
        tried = -1
        while tail is None or (missing := await self._catch_up(id, tail, heads)) is not None:
            watermark = await self._watermark(id)
            tail = ContainerTail(_begin(watermark, missing or 0, tried), self._log.epoch)
            tried = watermark
            self._remember(self._containers, id, tail)
        return tail

    async def _shortened(self, id: NodeId, tail: ContainerTail) -> ContainerTail | None:
        """None (begin anew) if that would forget at least half of the children; else they are not persisted yet and stay."""
        try:
            watermark = await self._watermark(id)
        except Unavailable:
            return tail
        return None if watermark - tail.base > self._max_children // 2 or watermark == tail.cursor else tail

    async def _stored(self, id: NodeId) -> Stored | None:
        """The row of a node that exists; None if its creation is not persisted yet. Raises `Gone`."""
        try:
            return await self._catalog.node(id)
        except Gone:
            raise
        except NotFound:
            return None

    async def _watermark(self, id: NodeId) -> int:
        return stored.watermark if (stored := await self._stored(id)) is not None else 0  # without a row, its log is whole

    async def _can_begin(self, id: NodeId, own: Own, heads: Heads | None) -> bool:
        """Can a tail of this container begin at `own`, and read the log from there on?"""
        head = heads.get(id) if heads is not None else None
        if head is None:
            head = await self._head(id)
        if own.sequence == head == 0:  # nothing was ever written to it, or a log forgot that long ago
            return self._now() - own.created < _FRESH_SECONDS
        return head - own.sequence <= _WHOLE

    async def _catch_up(self, id: NodeId, tail: _Tail, heads: Heads | None = None) -> int | None:
        """Fold all that follows the tail's cursor. If the log does not reach back to it: up to where its records are missing."""
        head = heads.get(id) if heads is not None else None
        if head is not None and head <= tail.cursor and tail.epoch == self._log.epoch:
            return None
        while True:
            cursor = tail.cursor
            try:
                records = await self._log.read(id, cursor, limit=_PAGE, epoch=tail.epoch, headers=True)
            except Truncated as error:
                return error.first - 1
            except EpochChanged:
                return 0
            if records and tail.cursor == cursor:  # else another task folded them while this one waited
                tail.fold(records)
            if not records:  # a read may be cut by bytes: only an empty one proves that this is the head
                return None

    async def _head(self, id: NodeId) -> int:
        try:
            return (await self._log.head(id)).sequence
        except Gone:
            return 0

    def _remember(self, tails: OrderedDict[NodeId, _T], id: NodeId, tail: _T) -> None:
        tails[id] = tail
        while len(tails) > self._max_tails:
            tails.popitem(last=False)


def _begin(watermark: int, missing: int, tried: int) -> int:
    """Where a new tail begins: at the watermark. What is missing above it at the second look too is lost with an earlier log."""
    return max(watermark, missing) if watermark == tried else watermark


def _not_found(path: tuple[str, ...]) -> NotFound:
    return NotFound(f"No such entry: {list(path)}")
