"""Geometry of chunked arrays: what a chunk covers, whether a region fits, how an array grows. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import msgspec

from .dtypes import check
from .errors import Conflict, Malformed
from .structures import ArrayStructure

__all__ = ["block_region", "check_array", "extended", "fits", "pad_offset", "size"]


def size(shape: Sequence[int]) -> int:
    """Number of elements of `shape`; 1 for a scalar."""
    return prod(shape)


def check_array(structure: ArrayStructure) -> None:
    """`Malformed` unless chunks cover the shape exactly, dims name every axis, and the data type exists."""
    shape, chunks = structure.shape, structure.chunks
    if len(chunks) != len(shape):
        raise Malformed(f"Chunks of {len(chunks)} axes do not cover a shape of {len(shape)}.")
    for axis, (length, parts) in enumerate(zip(shape, chunks, strict=True)):
        if length < 0 or any(p < 0 for p in parts):
            raise Malformed(f"Axis {axis}: lengths cannot be negative.")
        if sum(parts) != length:
            raise Malformed(f"Axis {axis}: chunks {list(parts)} add up to {sum(parts)}, the shape says {length}.")
    if structure.dims is not None and len(structure.dims) != len(shape):
        raise Malformed(f"There are {len(structure.dims)} names of dimensions for {len(shape)} axes.")
    check(structure.data_type)


def block_region(chunks: Sequence[Sequence[int]], block: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Offset and actual shape of the chunk with these indices, one an axis."""
    if len(block) != len(chunks):
        raise Malformed(f"A block of this array has {len(chunks)} indices, not {len(block)}.")
    for axis, (index, parts) in enumerate(zip(block, chunks, strict=True)):
        if not 0 <= index < len(parts):
            raise Malformed(f"Block index {index} is out of range: axis {axis} has {len(parts)} chunks.")
    offset = tuple(sum(parts[:index]) for index, parts in zip(block, chunks, strict=True))
    return offset, tuple(parts[index] for index, parts in zip(block, chunks, strict=True))


def pad_offset(offset: Sequence[int], ndim: int) -> tuple[int, ...]:
    """An offset may name fewer axes than the array has; the others begin at 0."""
    if len(offset) > ndim:
        raise Malformed(f"An offset of {len(offset)} axes does not fit an array of {ndim}.")
    if any(o < 0 for o in offset):
        raise Malformed("An offset cannot be negative.")
    return (*offset, *(0,) * (ndim - len(offset)))


def fits(structure: ArrayStructure, offset: Sequence[int], shape: Sequence[int]) -> bool:
    """Does the region lie inside the array?"""
    at = pad_offset(offset, len(structure.shape))
    return len(shape) == len(structure.shape) and all(
        o + n <= length for o, n, length in zip(at, shape, structure.shape, strict=True)
    )


def extended(structure: ArrayStructure, offset: Sequence[int], shape: Sequence[int]) -> ArrayStructure:
    """The array grown to hold the region. An axis that grows repeats its first chunk size, the last chunk is the rest."""
    if len(shape) != len(structure.shape):
        raise Conflict(f"A region of {len(shape)} dimensions does not fit an array of {len(structure.shape)}.")
    at = pad_offset(offset, len(structure.shape))
    grown = tuple(max(length, o + n) for length, o, n in zip(structure.shape, at, shape, strict=True))
    chunks = tuple(
        parts if length == new else _regular(parts, new, n)
        for parts, length, new, n in zip(structure.chunks, structure.shape, grown, shape, strict=True)
    )
    return msgspec.structs.replace(structure, shape=grown, chunks=chunks)


def _regular(parts: Sequence[int], length: int, extent: int) -> tuple[int, ...]:
    """Chunks of an axis that grew to `length`; one that was empty takes the extent of what came first."""
    step = next((p for p in parts if p > 0), 0) or extent or 1
    whole, rest = divmod(length, step)
    return (step,) * whole + ((rest,) if rest else ())
