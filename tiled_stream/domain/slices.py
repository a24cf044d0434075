"""Selections of an array, in numpy's basic indexing.

A `Selection` is already checked against a shape: integers are in range and non-negative, slices are `slice.indices` of
their axis. The grammar of the wire's `slice=` stands in `parse_selection`.
"""

from __future__ import annotations

import msgspec

__all__ = ["Along", "Selection"]


class Along(msgspec.Struct, frozen=True):
    """What is taken of one axis: `start`, `start + step`, …, `count` elements. `drop`: an integer index, the axis goes."""

    start: int
    step: int
    count: int
    drop: bool = False


class Selection(msgspec.Struct, frozen=True):
    """One `Along` an axis of the array, all of them."""

    axes: tuple[Along, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what comes out."""
        return tuple(a.count for a in self.axes if not a.drop)
