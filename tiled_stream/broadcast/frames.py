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
    """Records `first` … `last` will not come; none if ``first > last``. Never silent (I3).

    `truncated`: they have left the log. `lost`: they were acknowledged and are in no log or storage. `epoch`: the log was
    lost and restored as far as possible; then `epoch` is the new one and `head` the last sequence of the node in it. A `head`
    below ``first - 1`` says that records which this subscriber has received are no longer in the log.
    """

    first: int
    last: int
    reason: Literal["truncated", "epoch", "lost"]
    epoch: str = ""
    head: int = 0


class Skipped(msgspec.Struct, frozen=True):
    """The frame that follows stands for this many records more (a thinned subscription)."""

    count: int


class Over(msgspec.Struct, frozen=True):
    """Nothing more will come. `ended`: the producer said so · `deleted`: the node is gone · `restart`: this server stops."""

    reason: Literal["ended", "deleted", "restart"]


Item = Frame | Gap | Over | Skipped
