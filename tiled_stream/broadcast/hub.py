"""Subscribers of this process: one tail a node reads the log once and encodes each record once per format for all of them.

A hint wakes, the log tells: a subscriber is a cursor, not a queue, so its memory is bounded whatever its speed, and a slow one
costs the others nothing (I8). It gets every record after its cursor once, in order, or is told why not (I3).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Literal, Protocol

import msgspec

from ..domain.events import Record
from ..domain.nodes import NodeId

__all__ = ["Encoder", "Frame", "Gap", "Hub", "Over", "Subscription"]


class Encoder(Hashable, Protocol):
    """Turns a record into one message of the wire; equal encoders share their work. None: this record is not delivered."""

    def __call__(self, record: Record) -> bytes | None: ...


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One message, ready to be sent. `time` is the record's (seconds since the epoch), to measure write to delivery."""

    sequence: int
    time: float
    data: bytes


class Gap(msgspec.Struct, frozen=True):
    """Records `first`…`last` cannot be given: the log let them go (`truncated`), or was lost (`epoch`). Never silent (I3)."""

    first: int
    last: int
    reason: Literal["truncated", "epoch"]


class Over(msgspec.Struct, frozen=True):
    """Nothing more will come. `ended`: the producer said so · `deleted`: the node is gone · `restart`: this server stops."""

    reason: Literal["ended", "deleted", "restart"]


class Subscription(Protocol):
    """One reader outside: use it as an async context manager."""

    @property
    def cursor(self) -> int:
        """Sequence of the last record taken."""
        ...

    async def __aenter__(self) -> Subscription: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def take(self) -> list[Frame | Gap | Over]:
        """What follows the cursor, at least one item, in order; waits if there is nothing. After `Over` nothing more is taken.

        Safe to cancel. A batch is bounded (bytes and number), so a reader far behind costs one batch of memory.
        """
        ...


class Hub:
    """All tails of this process."""

    async def subscribe(self, node: NodeId, after: int | None, encode: Encoder) -> Subscription:
        """Begin after sequence `after` (0: from the first; negative is 0; None: only what comes from now on).

        The position is fixed when this returns: whatever is appended afterwards will be delivered. An `after` beyond the
        head waits for later ones. `ended` once a `StreamEnded` was passed and nothing follows it. `Gone` if the node was
        deleted, `Unavailable` while draining.
        """
        raise NotImplementedError

    async def drain(self) -> None:
        """Tell every subscription `Over("restart")`, refuse new ones, stop all tails (I9)."""
        raise NotImplementedError

    def subscribers(self) -> int:
        """How many subscriptions are open."""
        raise NotImplementedError

    def observe(self, callback: Callable[[float], None]) -> None:
        """Call back with seconds from write to first delivery in this process, once a record."""
        raise NotImplementedError
