"""How an array that nobody declared is told in blocks: as its file has it, but never in more blocks than a structure can list."""

from __future__ import annotations

from collections.abc import Sequence

from ..domain.chunks import size

__all__ = ["blocks"]

#: Blocks along one axis; they are all listed, each time.
_MAX_BLOCKS = 100_000
#: Bytes of a block of an array that its file has in one piece: what a client asks for at a time.
_BLOCK_BYTES = 32 << 20


def blocks(shape: Sequence[int], chunk: Sequence[int] | None, itemsize: int) -> tuple[tuple[int, ...], ...]:
    """Blocks that cover `shape`, axis by axis: of the shape `chunk`, or some of those together; None: of a good size."""
    steps = _steps(shape, itemsize) if chunk is None else chunk
    return tuple(_along(length, step) for length, step in zip(shape, steps, strict=True))


def _steps(shape: Sequence[int], itemsize: int) -> list[int]:
    """Whole rows as long as they fit, else parts of one row."""
    steps = []
    for axis in range(len(shape)):
        below = max(1, size(shape[axis + 1 :]) * itemsize)
        steps.append(max(1, min(shape[axis], _BLOCK_BYTES // below)))
    return steps


def _along(length: int, step: int) -> tuple[int, ...]:
    if length == 0:
        return (0,)
    step = max(1, step)
    step *= -(-length // (step * _MAX_BLOCKS))
    whole, rest = divmod(length, step)
    return (step,) * whole + ((rest,) if rest else ())
