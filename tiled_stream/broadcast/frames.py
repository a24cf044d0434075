"""What travels from a tail to a subscription: frames ready to be sent, and the reasons why there are none."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal, Protocol

import msgspec

from ..domain.events import Record
from ..domain.nodes import Node

__all__ = ["Encoder", "Frame", "Gap", "Item", "Over", "Skipped"]


class Encoder(Hashable, Protocol):
    """Turns a record into one message of the wire; equal encoders share their work. None: this record is not delivered."""

    def __call__(self, record: Record, /) -> bytes | None: ...


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One message, ready to be sent. `time` is the record's (seconds since the epoch), to measure write to delivery.

    `node`: the child whose creation this tells, for those who go on to subscribe to it.
    """

    sequence: int
    time: float
    data: bytes
    node: Node | None = None


class Gap(msgspec.Struct, frozen=True):
    """Records `first`…`last` cannot be given: the log let them go (`truncated`), or was lost (`epoch`). Never silent (I3)."""

    first: int
    last: int
    reason: Literal["truncated", "epoch"]


class Skipped(msgspec.Struct, frozen=True):
    """The frame that follows stands for this many records more (a thinned subscription)."""

    count: int


class Over(msgspec.Struct, frozen=True):
    """Nothing more will come. `ended`: the producer said so · `deleted`: the node is gone · `restart`: this server stops."""

    reason: Literal["ended", "deleted", "restart"]


Item = Frame | Gap | Over | Skipped
