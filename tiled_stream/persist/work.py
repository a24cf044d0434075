"""What the persister has in hand for one leased node."""

from __future__ import annotations

import msgspec

from ..catalog.port import Loss
from ..domain.events import Record
from ..domain.nodes import Node
from ..log.port import Lease

__all__ = ["RECORD_BYTES", "RECORD_LIMIT", "Known", "Work"]

#: How much of one node's log is read at once.
RECORD_LIMIT = 2000
RECORD_BYTES = 32 << 20


class Known(msgspec.Struct):
    """A node as this persister last wrote it, under the lease with this fence: saves a look into the catalog.

    `stored`: the watermark of its storage, as the catalog has it.
    """

    node: Node
    watermark: int
    stored: int
    fence: int


class Work(msgspec.Struct):
    """Records on their way. `stored`: how far the store holds the node after them; 0 if nothing was written to it."""

    lease: Lease
    known: Known
    records: tuple[Record, ...]
    stored: int = 0
    losses: tuple[Loss, ...] = ()

    @property
    def last(self) -> int:
        """The last record, or the watermark if there is none."""
        return self.records[-1].sequence if self.records else self.known.watermark
