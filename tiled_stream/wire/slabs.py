"""An array piece by piece: regions that follow its chunks and stay below a size, so that a copy needs little memory."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

__all__ = ["Region", "slabs"]

#: First cell and the one after the last, axis by axis.
Region = tuple[tuple[int, int], ...]


def slabs(chunks: tuple[tuple[int, ...], ...], itemsize: int, *, limit: int) -> Iterator[Region]:
    """Regions that cover the array once, each of whole chunks; of at most `limit` bytes unless a single chunk has more."""
    if not all(sum(sizes) for sizes in chunks):
        return
    if not chunks:
        yield ()
        return
    inner = itemsize * prod(sum(sizes) for sizes in chunks[1:])
    whole = tuple((0, sum(sizes)) for sizes in chunks[1:])
    for start, stop in _runs(chunks[0], max(1, limit // inner)):
        if (stop - start) * inner <= limit or len(chunks) == 1:
            yield ((start, stop), *whole)
            continue
        for rest in slabs(chunks[1:], itemsize * (stop - start), limit=limit):
            yield ((start, stop), *rest)


def _runs(sizes: tuple[int, ...], most: int) -> Iterator[tuple[int, int]]:
    """Neighbouring chunks together, up to `most` cells along the axis."""
    start = stop = 0
    for size in sizes:
        if stop > start and stop + size - start > most:
            yield start, stop
            start = stop
        stop += size
    if stop > start:
        yield start, stop
