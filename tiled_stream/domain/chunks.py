"""Geometry of chunked arrays: what a chunk covers, whether a region fits, how an array grows. Pure arithmetic.

What must stay true: a structure that passes here can be held and read: its chunks can be listed, its bytes counted in 63 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import msgspec

from .dtypes import to_numpy
from .errors import Conflict, Malformed
from .structures import ArrayStructure, DataType

__all__ = ["MAX_CHUNKS", "block_region", "check_array", "extended", "fits", "pad_offset", "size"]

#: Chunks along one axis: every structure that is told lists them all.
MAX_CHUNKS = 1_000_000
_MAX_BYTES = (1 << 63) - 1
_MAX_DIMENSIONS = 32


def size(shape: Sequence[int]) -> int:
    """Number of elements of `shape`; 1 for a scalar."""
    return prod(shape)


def check_array(structure: ArrayStructure, *, is_external: bool = False) -> None:
    """`Malformed` unless chunks cover the shape exactly, dims name every axis, and the data type exists.

    Of registered files the names may be wrong: whoever validates the run corrects them.
    """
    shape, chunks = structure.shape, structure.chunks
    if len(shape) > _MAX_DIMENSIONS:
        raise Malformed(f"An array has at most {_MAX_DIMENSIONS} dimensions, not {len(shape)}.")
    if len(chunks) != len(shape):
        raise Malformed(f"Chunks of {len(chunks)} axes do not cover a shape of {len(shape)}.")
    for axis, (length, parts) in enumerate(zip(shape, chunks, strict=True)):
        if length < 0 or any(p < 0 for p in parts):
            raise Malformed(f"Axis {axis}: lengths cannot be negative.")
        if len(parts) > MAX_CHUNKS:
            raise Malformed(f"Axis {axis} has {len(parts)} chunks, more than {MAX_CHUNKS}; make them larger.")
        if sum(parts) != length:
            raise Malformed(f"Axis {axis}: the chunks add up to {sum(parts)}, the shape says {length}.")
    if structure.dims is not None and len(structure.dims) != len(shape) and not is_external:
        raise Malformed(f"There are {len(structure.dims)} names of dimensions for {len(shape)} axes.")
    _check_bytes(structure.data_type, shape)


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
    """The array grown to hold the region. An axis that grows repeats its first chunk size, the last chunk is the rest.

    `Conflict` if the dimensions differ, `Malformed` if what comes out could not be held.
    """
    if len(shape) != len(structure.shape):
        raise Conflict(f"A region of {len(shape)} dimensions does not fit an array of {len(structure.shape)}.")
    at = pad_offset(offset, len(structure.shape))
    grown = tuple(max(length, o + n) for length, o, n in zip(structure.shape, at, shape, strict=True))
    chunks = tuple(
        parts if length == new else _regular(parts, new, n)
        for parts, length, new, n in zip(structure.chunks, structure.shape, grown, shape, strict=True)
    )
    _check_bytes(structure.data_type, grown)
    return msgspec.structs.replace(structure, shape=grown, chunks=chunks)


def _check_bytes(data_type: DataType, shape: Sequence[int]) -> None:
    """`Malformed` if numbers of bytes and elements would not fit 63 bits; the type exists or this says so."""
    if prod(max(n, 1) for n in shape) * to_numpy(data_type).itemsize > _MAX_BYTES:
        raise Malformed(f"An array of shape {tuple(shape)} is larger than anything that could hold it.")


def _regular(parts: Sequence[int], length: int, extent: int) -> tuple[int, ...]:
    """Chunks of an axis that grew to `length`; one that was empty takes the extent of what came first."""
    step = next((p for p in parts if p > 0), 0) or extent or 1
    whole, rest = divmod(length, step)
    if whole >= MAX_CHUNKS:
        raise Malformed(f"{length} in steps of {step} would be more than {MAX_CHUNKS} chunks; declare larger ones.")
    return (step,) * whole + ((rest,) if rest else ())
