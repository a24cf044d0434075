"""Where something stands in the log of a node.

A sequence is 1, 2, 3 … within one node, dense, and never restarts (I1). 0 means "before the first record".
An epoch names one life of the log; what stands at (epoch, sequence) never changes (I2).
"""

from __future__ import annotations

import msgspec

__all__ = ["Position"]


class Position(msgspec.Struct, frozen=True, order=True):
    """A point in the log of one node: its epoch and the sequence of the last record at or before it."""

    epoch: str
    sequence: int
