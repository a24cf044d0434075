"""The only door in: a command is decided against the present and its events are appended to the log.

What must stay true: nothing is appended for a refused command (I10), everything acknowledged is in the log (I6).

Events whose validity depends on the past (a child's creation or edit, growth, deletion) are appended with `expected`; if
another server was faster, the command is decided again. Within this process a lock per log keeps that from happening.
Plain rows and blocks need neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Literal
from uuid import uuid4
from weakref import WeakValueDictionary

import msgspec

from ..domain.commands import (
    AppendPart,
    AppendRows,
    Command,
    CreateChild,
    DeleteAsset,
    DeleteNode,
    DeleteRevision,
    EndStream,
    PatchArray,
    PatchMetadata,
    ReplaceMetadata,
    UpdateDataSource,
    WriteArray,
    WriteBlock,
    WritePart,
    WriteTable,
)
from ..domain.decide import (
    array_of,
    asset_deleted,
    block_written,
    data_source_updated,
    region_written,
    table_of,
    whole_written,
)
from ..domain.errors import Conflict, Gone, NotFound, NotSupported, Refused
from ..domain.events import (
    ChildCreated,
    ChildDeleted,
    Draft,
    Event,
    RevisionDeleted,
    RowsAppended,
    StreamEnded,
    TableWritten,
)
from ..domain.nodes import ROOT, Node, NodeId
from ..domain.parts import part_of
from ..domain.position import Position
from ..domain.structures import Structure, TableStructure
from ..log.port import LogEngine
from ..nodes.barrier import Barrier
from ..nodes.repository import Located, Repository
from ..storage.port import ArrayStore, PartStore
from ..storage.tables import Tables
from ..wire.parts import decode_part
from ..wire.tables import Rows, decode_rows
from .creation import Creation
from .deletion import Deletion
from .metadata_patch import edited
from .specs import Promises

__all__ = ["Accepted", "Ack", "Writer"]

#: `log`: acknowledged once it is in the log. `persisted`: once it is in storage too.
Ack = Literal["log", "persisted"]

#: Races that a command loses against other servers before the client is told to come again.
_TRIES = 16
#: Bodies above this many bytes are decoded in a thread, so that the loop goes on.
_BIG = 256 << 10


class Accepted(msgspec.Struct, frozen=True):
    """What became of a command. `position` is None if there was nothing to append.

    `node`: the node created or edited. `structure`: the array's structure after the write. `path`: of `node`. `rewritten`: a
    validator changed the metadata that were sent.
    """

    position: Position | None
    node: Node | None = None
    structure: Structure | None = None
    path: tuple[str, ...] = ()
    rewritten: bool = False


class _Raced(Exception):
    """What was decided by had moved before the log was reached. Never leaves this room."""


class Writer:
    """`submit` is the whole of it. `now` gives seconds since the epoch."""

    def __init__(
        self,
        log: LogEngine,
        repository: Repository,
        *,
        barrier: Barrier,
        deletion: Deletion,
        arrays: ArrayStore | None,
        parts: PartStore | None,
        tables: Tables | None,
        now: Callable[[], float],
        promises: Promises | None = None,
    ) -> None:
        self._log = log
        self._repository = repository
        self._barrier = barrier
        self._deletion = deletion
        self._creation = Creation(lambda: uuid4().hex, arrays=arrays, parts=parts, tables=tables)
        self._now = now
        self._promises = promises or Promises({})
        self._observers: list[Callable[[float], None]] = []
        # One lock a log for those who append with `expected`; gone when nobody holds it.
        self._locks: WeakValueDictionary[NodeId, asyncio.Lock] = WeakValueDictionary()

    async def submit(self, path: tuple[str, ...], command: Command, *, ack: Ack = "log") -> Accepted:
        """Decide `command` against the node at `path` and append its events.

        Raises a `Refused` or `Unavailable` (nothing was appended), or `InDoubt`: it may have been; with ``ack="persisted"``, it
        is in the log but storage did not confirm in time. Cancelled: appended whole or not at all.
        """
        node, accepted = await self._decide(path, command)
        if ack == "persisted" and accepted.position is not None:
            await self._barrier.reach(node, accepted.position.sequence)
        return accepted

    def observe(self, callback: Callable[[float], None]) -> None:
        """Call back with the seconds that an append to the log took, once an append."""
        self._observers.append(callback)

    async def _decide(self, path: tuple[str, ...], command: Command) -> tuple[NodeId, Accepted]:
        """The log that was appended to, and the outcome."""
        match command:
            case WriteArray() | WriteBlock():
                return await self._write_array(path, command)
            case AppendRows() | WriteTable():
                return await self._write_table(path, command)
            case WritePart() | AppendPart():
                return await self._write_part(path, command)
            case PatchArray() | UpdateDataSource() | DeleteAsset():
                return await self._grow(path, command)
            case CreateChild():
                return await self._create(path, command)
            case ReplaceMetadata() | PatchMetadata():
                return await self._edit(path, command)
            case DeleteNode():
                return await self._delete(path, command)
            case DeleteRevision():
                return await self._delete_revision(path, command)
            case EndStream():
                return await self._end(path)

    async def _write_array(self, path: tuple[str, ...], command: WriteArray | WriteBlock) -> tuple[NodeId, Accepted]:
        async def step(at: Located) -> tuple[NodeId, Accepted]:
            structure = array_of(_data(at).node)
            if isinstance(command, WriteArray):
                event = whole_written(structure, command)
            else:
                event = block_written(structure, command)
            position = await self._append(at, event, command.body)
            return at.node.id, Accepted(position, at.node, structure, path)

        return await self._tried(path, step)

    async def _write_table(self, path: tuple[str, ...], command: AppendRows | WriteTable) -> tuple[NodeId, Accepted]:
        async def step(at: Located) -> tuple[NodeId, Accepted]:
            structure = table_of(_data(at).node)
            rows = await _decoded(command.body, structure)
            event: Event
            if isinstance(command, AppendRows):
                event = RowsAppended(partition=command.partition, rows=rows.rows)
            else:
                event = TableWritten(partition=command.partition, rows=rows.rows)
            position = await self._append(at, event, rows.body)
            return at.node.id, Accepted(position, at.node, structure, path)

        return await self._tried(path, step)

    async def _write_part(self, path: tuple[str, ...], command: WritePart | AppendPart) -> tuple[NodeId, Accepted]:
        async def step(at: Located) -> tuple[NodeId, Accepted]:
            structure = part_of(_data(at).node)
            part = await asyncio.to_thread(decode_part, structure, command)
            position = await self._append(at, part.event, part.body, expected=at.head)
            return at.node.id, Accepted(position, at.node, part.event.structure, path)

        return await self._tried(path, step, is_exclusive=True)

    async def _grow(self, path: tuple[str, ...], command: PatchArray | UpdateDataSource | DeleteAsset) -> tuple[NodeId, Accepted]:
        async def step(at: Located) -> tuple[NodeId, Accepted]:
            at = _data(at)
            body = b""
            event: Event
            if isinstance(command, PatchArray):
                event = written = region_written(array_of(at.node), command)
                structure: Structure | None = written.structure or at.node.structure
                expected = at.head if written.structure is not None else None
                body = command.body
            elif isinstance(command, DeleteAsset):
                event, structure, expected = asset_deleted(at.node, command), at.node.structure, at.head
            else:
                event = data_source_updated(at.node, command)
                structure = command.data_source.structure
                expected = at.head
            position = await self._append(at, event, body, expected=expected)
            return at.node.id, Accepted(position, at.node, structure, path)

        return await self._tried(path, step, is_exclusive=True)

    async def _create(self, path: tuple[str, ...], command: CreateChild) -> tuple[NodeId, Accepted]:
        key = command.key or str(uuid4())
        child_path = (*path, key)
        sent = command.metadata
        if command.specs:  # before the lock is taken: a validator may be slow
            command = await self._promises.creation(_container(await self._repository.resolve(path)).node, command)

        async def step(at: Located) -> tuple[NodeId, Accepted]:
            at = _container(at)
            node = self._creation.node(at.node.id, key, command)
            found = self._repository.child(at.node.id, key, at.guards or None) if command.key else None
            taken, head = (None, at.head) if found is None else await found  # a key that is made here is free
            if taken is not None:
                raise Conflict("/" + "/".join(child_path))
            try:
                position = await self._log_append(at, at.node.id, Draft(ChildCreated(node), self._now()), expected=head)
            except Gone:
                raise NotFound(f"No such entry: {list(path)}") from None
            return at.node.id, Accepted(position, node, node.structure, child_path, command.metadata != sent)

        return await self._tried(path, step, is_exclusive=True)

    async def _edit(self, path: tuple[str, ...], command: ReplaceMetadata | PatchMetadata) -> tuple[NodeId, Accepted]:
        at = _whole(await self._repository.resolve(path), "metadata")
        log = at.node.parent or ROOT
        async with self._lock(log):
            for _ in range(_TRIES):
                child, head = await self._repository.child(log, at.node.key)
                if child is None:
                    raise NotFound(f"No such entry: {list(path)}")
                asked = edited(child.node, command)
                event = await self._promises.edit(child.node, asked)
                draft = Draft(event, self._now())
                try:
                    position = await self._log.append(log, draft, expected=head, floor=head)
                except Conflict:
                    continue
                self._repository.learn(log, position, draft)
                node = msgspec.structs.replace(
                    child.node, metadata=event.metadata, specs=event.specs, access_tags=event.access_tags
                )
                return log, Accepted(position, node, node.structure, path, event.metadata != asked.metadata)
        raise _lost_every_race(path)

    async def _delete(self, path: tuple[str, ...], command: DeleteNode) -> tuple[NodeId, Accepted]:
        at = _whole(await self._repository.resolve(path), "deletion")
        if at.is_top or at.node.parent is None:
            raise NotSupported("The root of a tree cannot be deleted.")
        async with self._lock(at.node.parent), self._lock(at.node.id):
            for _ in range(_TRIES):
                child, head = await self._repository.child(at.node.parent, at.node.key)
                if child is None or child.node.id != at.node.id:
                    raise NotFound(f"No such entry: {list(path)}")
                guards = await self._guards_of_children(child.node)
                await self._deletion.check(child.node, command)
                draft = Draft(ChildDeleted(key=at.node.key, id=at.node.id), self._now())
                try:
                    position = await self._log.append(at.node.parent, draft, expected=head, floor=head, guards=guards)
                except Conflict:
                    continue
                return at.node.parent, Accepted(position, child.node, None, path)
        raise _lost_every_race(path)

    async def _guards_of_children(self, node: Node) -> dict[NodeId, int]:
        """What is found of a container's children holds as long as its log stands where it stands now."""
        head = (await self._log.heads([node.id]))[0] if node.family == "container" else None
        return {} if head is None else {node.id: head}

    async def _delete_revision(self, path: tuple[str, ...], command: DeleteRevision) -> tuple[NodeId, Accepted]:
        at = _whole(await self._repository.resolve(path), "revisions")
        log = at.node.parent or ROOT
        await self._deletion.check_revision(at.node, command.number, log=log)
        event = RevisionDeleted(key=at.node.key, id=at.node.id, number=command.number)
        _, head = await self._repository.child(log, at.node.key)
        position = await self._log.append(log, Draft(event, self._now()), floor=head)
        return log, Accepted(position, at.node, None, path)

    async def _end(self, path: tuple[str, ...]) -> tuple[NodeId, Accepted]:
        at = _whole(await self._repository.resolve(path), "a stream")
        return at.node.id, Accepted(await self._append(at, StreamEnded(), b""), at.node, at.node.structure, path)

    async def _tried(
        self,
        path: tuple[str, ...],
        step: Callable[[Located], Awaitable[tuple[NodeId, Accepted]]],
        *,
        is_exclusive: bool = False,
    ) -> tuple[NodeId, Accepted]:
        """Decide and append by what this process remembers, if the log confirms it; else by what is there now.

        Nobody is refused because of a memory. `is_exclusive`: one step of this process at a time, for those who would only take
        each other's place.
        """
        remembered = self._repository.recall(path)
        if remembered is not None:
            with contextlib.suppress(Refused, _Raced):  # looked at again
                return await self._stepped(remembered, step, is_exclusive)
        for _ in range(_TRIES):
            at = await self._repository.resolve(path)
            with contextlib.suppress(_Raced):
                return await self._stepped(at, step, is_exclusive)
        raise _lost_every_race(path)

    async def _stepped(
        self, at: Located, step: Callable[[Located], Awaitable[tuple[NodeId, Accepted]]], is_exclusive: bool
    ) -> tuple[NodeId, Accepted]:
        if not is_exclusive:
            return await step(at)
        async with self._lock(at.node.id):
            # Others of this process may have moved it while this one waited; what they did is remembered.
            return await step(self._repository.recall(at.path) or at)

    async def _append(self, at: Located, event: Event, body: bytes, *, expected: int | None = None) -> Position:
        try:
            return await self._log_append(at, at.node.id, Draft(event, self._now(), body), expected=expected)
        except Gone:
            raise NotFound(f"No such entry: {list(at.path)}") from None

    async def _log_append(self, at: Located, log: NodeId, draft: Draft, *, expected: int | None) -> Position:
        """Append as long as what `at` was found by stands, and remember it. `_Raced` if somebody was faster."""
        guards = {node: head for node, head in at.guards.items() if expected is None or node != log}
        floor = at.head if expected is None else expected
        if guards and at.epoch != self._log.epoch:
            raise _Raced
        begin = time.perf_counter()
        try:
            position = await self._log.append(log, draft, expected=expected, floor=floor, guards=guards)
        except Conflict as error:
            raise _Raced from error
        for callback in self._observers:
            callback(time.perf_counter() - begin)
        self._repository.learn(log, position, draft)
        return position

    def _lock(self, node: NodeId) -> asyncio.Lock:
        lock = self._locks.get(node)
        if lock is None:
            lock = self._locks[node] = asyncio.Lock()
        return lock


def _data(at: Located) -> Located:
    """Columns of a table are views: what is written is the table."""
    if at.column is not None:
        raise NotSupported(f"{at.column!r} is a column of a table; write to the table itself.")
    return _outside(at)


def _whole(at: Located, what: str) -> Located:
    if at.column is not None:
        raise NotSupported(f"{at.column!r} is a column of a table; it has no {what} of its own.")
    return _outside(at)


def _outside(at: Located) -> Located:
    if at.is_above:
        raise NotSupported(f"/{'/'.join(at.path)} lies above what is mounted, in the configuration only.")
    if at.inside:
        raise NotSupported(f"{at.path[-1]!r} lies inside of a registered file; such files are only read.")
    return at


def _container(at: Located) -> Located:
    if at.node.family != "container" or at.column is not None:
        raise NotSupported(f"{at.path[-1]!r} is of family {at.node.family!r}; only a container can have children.")
    if _outside(at).node.data_sources:
        raise NotSupported(f"The children of {at.path[-1]!r} are those of its file; none can be created.")
    return at


async def _decoded(body: bytes, structure: TableStructure) -> Rows:
    return await asyncio.to_thread(decode_rows, body, structure) if len(body) > _BIG else decode_rows(body, structure)


def _lost_every_race(path: tuple[str, ...]) -> Conflict:
    return Conflict(f"Others kept changing {list(path)} while this was decided; try again.")
