"""What is declared of an array against what its files hold: what differs, and how the declaration reads when it is corrected.

The files are right: a writer that crashed, or a device that was described wrongly, leaves what cannot be read. Pure.
"""

from __future__ import annotations

import msgspec

from .dtypes import to_numpy
from .errors import Refused
from .structures import ArrayStructure, DataType

__all__ = ["Mismatch", "chunks_of_files", "corrected"]


class Mismatch(Refused):
    """The declaration differs from the files."""


def corrected(
    declared: ArrayStructure, data_type: DataType, shape: tuple[int, ...], *, frames: int | None, fix: bool
) -> tuple[ArrayStructure, list[str]]:
    """The declaration as the files have it, and what was changed; `Mismatch` at the first difference if nothing is to be fixed.

    `frames`: how many frames belong to one event, where the writer says so; the first axis of the files counts frames.
    """
    notes: list[str] = []
    structure = declared
    if structure.data_type != data_type:
        # Asked as numpy: a byte order that means nothing is no difference.
        old, new = to_numpy(structure.data_type), to_numpy(data_type)
        if old != new:
            _check(fix, f"Data type mismatch: {old} != {new}")
            structure = msgspec.structs.replace(structure, data_type=data_type)
            notes.append(f"Fixed dtype mismatch: {old} -> {new}")
    if frames and frames > 0 and shape and shape[0] % frames == 0:
        shape = (shape[0] // frames, frames, *shape[1:])
    if structure.shape != shape:
        _check(fix, f"Shape mismatch: {structure.shape} != {shape}")
        notes.append(f"Fixed shape mismatch: {structure.shape} -> {shape}")
        chunks = tuple(_chunks(length, parts) for length, parts in zip(shape, _padded(structure, len(shape)), strict=True))
        structure = msgspec.structs.replace(structure, shape=shape, chunks=chunks)
    dims = structure.dims
    if dims and len(dims) != len(shape):
        _check(fix, f"Number of dimension names mismatch for a {len(shape)}-dimensional array: {dims}")
        named = dims[: len(shape)] if len(dims) > len(shape) else ("time", *dims)
        named += tuple(f"dim{n}" for n in range(len(named), len(shape)))
        structure = msgspec.structs.replace(structure, dims=named)
        notes.append(f"Fixed dimension names: {dims} -> {named}")
    return structure, notes


def chunks_of_files(
    declared: ArrayStructure, shape: tuple[int, ...], structure: ArrayStructure
) -> tuple[tuple[int, ...], ...] | None:
    """How data of `shape` lie in their files, where `structure` folds the frames of an event into an axis of their own.

    None where the structure has the axes of the files: its chunks say it then. Readers of several files of several frames each
    cannot tell it from the structure alone.
    """
    if len(structure.shape) == len(shape):
        return None
    is_declared = tuple(map(sum, declared.chunks)) == shape
    return declared.chunks if is_declared else tuple((length,) for length in shape)


def _check(fix: bool, difference: str) -> None:
    if not fix:
        raise Mismatch(difference)


def _padded(structure: ArrayStructure, axes: int) -> tuple[tuple[int, ...], ...]:
    return structure.chunks if len(structure.chunks) == axes else ((),) * axes


def _chunks(length: int, parts: tuple[int, ...]) -> tuple[int, ...]:
    """Chunks of the size that was declared, or one."""
    step = next((p for p in parts if p > 0), length) or 1
    whole, rest = divmod(length, step)
    return (step,) * whole + ((rest,) if rest else ()) or (0,)
