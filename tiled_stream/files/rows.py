"""Where the cells of a declared array lie in what the files hold. Pure arithmetic.

Files hold rows: along their first axis, or one a file. What is declared often groups them otherwise (five events of two frames: a
shape (5, 2, 6, 8) over rows of (6, 8)), or adds axes of length 1. In C order both are the same sequence of cells, so a region
of the one is some runs of rows of the other, and a region within each row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ..domain.chunks import size
from ..domain.slices import Along

__all__ = ["Grouping", "grouping", "run_of", "within"]


class Grouping(msgspec.Struct, frozen=True):
    """How a declared shape groups rows: its first `lead` axes number the rows; `axes` says which declared axis is which of a row.

    An axis of a row that is None has length 1 and is not declared.
    """

    lead: int
    axes: tuple[int | None, ...]


def grouping(declared: Sequence[int], row: Sequence[int]) -> Grouping | None:
    """How `declared` is made of rows of shape `row`; None if it is not."""
    axes: list[int | None] = []
    at = len(declared)
    for length in reversed(row):
        if length == 1:
            axes.append(None)
            continue
        at -= 1
        while at >= 0 and declared[at] == 1:
            at -= 1
        if at < 0 or declared[at] != length:
            return None
        axes.append(at)
    return Grouping(at, tuple(reversed(axes)))


def run_of(shape: Sequence[int], axes: Sequence[Along]) -> Iterator[Along]:
    """The row numbers that a region of the leading axes takes, in C order, in as few runs as are simple to find."""
    if not shape:
        yield Along(0, 1, 1)
        return
    first, below = axes[0], size(shape[1:])
    right = list(run_of(shape[1:], axes[1:]))
    only = right[0]
    if len(right) == 1 and only.count == below and first.step == 1:
        yield Along(first.start * below, 1, first.count * below)
    elif len(right) == 1 and only.count == 1:
        yield Along(first.start * below + only.start, first.step * below, first.count)
    else:
        for number in range(first.count):
            base = (first.start + number * first.step) * below
            yield from (Along(base + a.start, a.step, a.count) for a in right)


def within(outer: Along, inner: Along) -> Along:
    """`inner` of what `outer` takes."""
    return Along(outer.start + inner.start * outer.step, outer.step * inner.step, inner.count)
