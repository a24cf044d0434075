"""The log: the ordered truth of each node, and the backlog: what the persister still owes.

One engine implements both ports, for they share heads and watermarks. `memory.py` is the reference engine: read it first.
Every engine passes `tiled_stream.testing.log_contract` and the state machine in `log_machine`.

What must stay true here: I1 (dense, never restarting sequences), I2 (a position never changes), I3 (a reader is told),
I4 (the watermark never goes back nor passes the head).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import msgspec

from ..domain.events import Draft, Record
from ..domain.nodes import NodeId
from ..domain.position import Position

__all__ = ["UNGUARDED", "Backlog", "Lag", "Lease", "Log", "LogEngine", "NodeState", "Persisted", "Retention"]

#: Tells how far the catalog has persisted each of some nodes; 0 for a node that it does not know. `Unavailable` if it cannot
#: tell.
Persisted = Callable[[Sequence[NodeId]], Awaitable[list[int]]]


#: No guards.
UNGUARDED: Mapping[NodeId, int] = MappingProxyType({})


class Log(Protocol):
    """Append-only, per node. All methods are safe to call concurrently from one event loop."""

    async def append(
        self,
        node: NodeId,
        *drafts: Draft,
        expected: int | None = None,
        floor: int = 0,
        guards: Mapping[NodeId, int] = UNGUARDED,
    ) -> Position:
        """Append in one atomic step: consecutive sequences, backlog entry, waiters woken. Returns the last position.

        The first sequence is ``max(head, floor) + 1``; `floor` is the persisted watermark as the caller knows it and keeps
        sequences rising after a log was lost (I1). With `expected`, appends only if ``max(head, floor)`` equals it, else
        `Conflict` with `.head`. With `guards`, only if no head of those nodes is above these (and none was dropped), in the
        epoch in force, else `Conflict` without a head: what the caller has looked at has not moved since. Raises `Gone` if the
        node was dropped, `Unavailable` if the engine cannot take it now (then nothing was appended), `InDoubt` if it cannot tell
        whether it was. Cancelled: appended whole or not at all. No drafts: ValueError.
        """
        ...

    async def read(
        self,
        node: NodeId,
        after: int,
        *,
        limit: int = 1000,
        max_bytes: int = 16 << 20,
        epoch: str | None = None,
        headers: bool = False,
    ) -> list[Record]:
        """Records after sequence `after`, in order, dense; empty means "nothing yet".

        At most `limit` records and about `max_bytes` of payload, but at least one if there is one. With `headers`, payloads may
        be left out (an engine that has them at hand anyway gives them). Raises `Truncated(first)` if record ``after + 1``
        existed and has left the log, `BodyMissing` if it is there without its payload, `EpochChanged(now)` if `epoch` is given
        and is not the present one, `Gone` if the node was dropped. An unknown node reads as empty.
        """
        ...

    async def head(self, node: NodeId) -> Position:
        """Position of the last record (sequence 0 if there never was one). `Gone` if dropped."""
        ...

    async def heads(self, nodes: Sequence[NodeId]) -> list[int | None]:
        """The last sequences of many nodes at once, as of now; 0 if there never was a record, None if the node was dropped.

        `epoch` is then the one that they belong to.
        """
        ...

    async def wait(self, node: NodeId, after: int) -> None:
        """Return once the head may have passed `after`, or the node was dropped. A hint: it may return early.

        Safe to cancel; any number of waiters.
        """
        ...

    async def drop(self, *nodes: NodeId) -> None:
        """Forget the logs of deleted nodes: records, backlog entry. Waiters wake; later calls raise `Gone`. Idempotent."""
        ...


class Lease(msgspec.Struct, frozen=True):
    """The exclusive right to persist one node for a while.

    `fence` grows whenever a node goes to another worker, and stays while the same worker leases it again and again: it is
    the number under which stores know who may write.

    `head` is the node's head when claimed; `after` the settled watermark as the engine knows it (a hint: the catalog's is
    the truth).
    """

    node: NodeId
    worker: str
    fence: int
    head: int
    after: int = 0


class NodeState(msgspec.Struct, frozen=True):
    """What the log knows of one node: persisted up to `settled`, records from `first` to `head` (none if ``first > head``)."""

    node: NodeId
    settled: int
    first: int
    head: int


class Lag(msgspec.Struct, frozen=True):
    """What is owed: nodes with unsettled records, how many records, and the time of the oldest one (None if none)."""

    nodes: int
    records: int
    oldest: float | None


class Retention(msgspec.Struct, frozen=True):
    """How long settled records stay for late readers. Unsettled ones stay whatever this says (I6)."""

    node_bytes: int = 64 << 20
    total_bytes: int = 512 << 20
    seconds: float = 3600.0


class Backlog(Protocol):
    """The set of nodes whose head is above their watermark. Not a queue: a node is in it once, however far behind."""

    async def claim(self, worker: str, *, ttl: float, limit: int = 1) -> list[Lease]:
        """Lease up to `limit` dirty nodes that nobody holds, wanted ones (see `reached`) first, then longest dirty.

        Empty if there is none. A lease of a dead worker is free again `ttl` seconds after it was taken or renewed.
        """
        ...

    async def renew(self, lease: Lease, *, ttl: float) -> None:
        """Hold on for `ttl` seconds more. `LeaseLost` if another worker has it or the node was dropped."""
        ...

    async def settle(self, lease: Lease, watermark: int) -> bool:
        """Give the lease back and declare everything up to `watermark` persisted; wakes `reached`.

        True if the node is clean now (watermark == head); else it is dirty and can be claimed again at once. A watermark
        below the settled one, or above the head, is a ValueError (I4). `LeaseLost` as in `renew`; then nothing changed.
        """
        ...

    async def release(self, lease: Lease, *, delay: float = 0.0) -> None:
        """Give the lease back without progress; the node can be claimed again after `delay` seconds. Never raises."""
        ...

    async def reached(self, node: NodeId, sequence: int) -> None:
        """Return once the settled watermark of `node` is at least `sequence`; marks the node as wanted meanwhile.

        At once for a node without unsettled records (also an unknown or dropped one). Safe to cancel; the caller bounds it.
        """
        ...

    async def raise_fences(self, above: int) -> None:
        """Give only fences higher than `above` from now on: a store has seen that one, and the log that gave it was lost."""
        ...

    async def reopen(self, node: NodeId, watermark: int) -> int:
        """Only up to `watermark` is the node persisted, whatever was reported: catalog or storage was restored to an earlier
        state.

        What the log still has after it is pending again, in the order of the backlog; a lease in force is void. The one
        exception to I4. Returns the first sequence that the log can give again (head + 1 if none): what lies between is
        lost. Nothing happens if the settled watermark is not above `watermark`.
        """
        ...

    def states(self, *, retained: bool = True) -> AsyncIterator[list[NodeState]]:
        """All nodes that the log knows, page by page, as of the time of each page; with `retained` only those that have
        records."""
        ...

    async def remembered(self) -> int:
        """The highest catalog revision that was given to `remember`; 0 for none."""
        ...

    async def remember(self, revision: int) -> None:
        """Keep the revision of the catalog beside the log: a catalog that is older than this was restored."""
        ...

    async def wait_dirty(self, *, linger: float = 0.0) -> None:
        """Return when there may be something to claim: after `linger` seconds of collecting, at once if something is wanted.

        Safe to cancel. May return early; `claim` tells.
        """
        ...

    async def dirty(self) -> list[tuple[NodeId, int]]:
        """All nodes with unsettled records and their heads, as of now."""
        ...

    async def lag(self) -> Lag:
        """What is owed now."""
        ...

    async def trim(self, policy: Retention, *, now: float, nodes: Sequence[NodeId] | None = None) -> int:
        """Let go of settled records, oldest first, until `policy` holds for `nodes` (None: all). Returns how many left.

        Only records at or below the settled watermark leave (I6). `now` is seconds since the epoch.
        """
        ...


class LogEngine(Log, Backlog, Protocol):
    """One engine: both ports over the same heads, with a lifetime."""

    @property
    def epoch(self) -> str:
        """Which life of the log this is."""
        ...

    async def open(self) -> None:
        """Make ready; must be awaited once, in the event loop that will use the engine."""
        ...

    async def bind(self, catalog: str, persisted: Persisted) -> None:
        """The log belongs to this deployment, by its id. `Unavailable` with the way out if it belongs to another one.

        `persisted` is asked when a log that lost records is restored from what servers have kept.
        """
        ...

    async def figures(self) -> dict[str, float]:
        """Figures of this engine for metrics, by the names of metrics."""
        ...

    async def close(self) -> None:
        """Flush what was acknowledged, wake all waiters, leave no thread, task, file or lock (I9). Idempotent."""
        ...
