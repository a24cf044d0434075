"""Geometry of the families that are kept in parts: what a structure may be, which chunk is meant, how rows are appended. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .chunks import MAX_CHUNKS, block_region, check_array
from .commands import AppendPart, WritePart
from .dtypes import to_numpy
from .errors import Conflict, Malformed, NotFound, NotSupported, Unsatisfiable
from .events import PartWritten
from .nodes import Node
from .structures import ArrayStructure, AwkwardStructure, DataType, PartStructure, RaggedStructure, SparseStructure

__all__ = [
    "FLOAT64",
    "appended",
    "check_part_structure",
    "part_of",
    "part_written",
    "ragged_block",
    "row_chunks",
    "sparse_data_type",
]

FLOAT64 = DataType(8, "f", "little")
_MAX_DIMENSIONS = 32


def check_part_structure(structure: PartStructure) -> None:
    """`Malformed` unless such data can be held and read."""
    if isinstance(structure, SparseStructure):
        check_array(ArrayStructure(sparse_data_type(structure), structure.chunks, structure.shape, structure.dims))
        if sparse_data_type(structure).fields is not None or to_numpy(sparse_data_type(structure)).kind not in "biuf":
            raise Malformed("The elements of a sparse array are numbers or booleans.")
        if structure.coord_data_type is not None and to_numpy(structure.coord_data_type).kind not in "iu":
            raise Malformed("The 'coord_data_type' of a sparse array is an integer type.")
    elif isinstance(structure, AwkwardStructure):
        if structure.length < 0:
            raise Malformed("The 'length' of an awkward array cannot be negative.")
    else:
        _check_ragged(structure)


def sparse_data_type(structure: SparseStructure) -> DataType:
    """That of the elements; clients of old do not say it and mean doubles."""
    return structure.data_type or FLOAT64


def row_chunks(structure: RaggedStructure) -> tuple[int, ...]:
    """Rows of each chunk."""
    return structure.chunks[0] or ()


def ragged_block(structure: RaggedStructure, block: Sequence[int]) -> tuple[int, int]:
    """First row and number of rows of a chunk. `Malformed` without such a one. Indices of further axes, if given, are 0."""
    if not block or any(block[1:]) or len(block) > len(structure.shape):
        raise Malformed("A ragged array has chunks along its first axis only: ?block=i.")
    (first,), (rows,) = block_region((row_chunks(structure),), block[:1])
    return first, rows


def part_of(node: Node) -> PartStructure:
    """Structure of data that are kept in parts and written through this server; refused for anything else."""
    structure = node.structure
    if not isinstance(structure, SparseStructure | AwkwardStructure | RaggedStructure):
        raise NotFound(f"The node {node.key!r} is of family {node.family!r}; this endpoint does not write it.")
    management = node.data_sources[0].management
    if management != "writable":
        raise NotSupported(f"The data of {node.key!r} are {management}: they are not written through this server.")
    return structure


def part_written(structure: PartStructure, command: WritePart, *, size: int | None = None) -> PartWritten:
    """PUT, whole or one chunk. `size`: elements of a whole ragged array, which its body alone knows."""
    if command.block is None:
        if isinstance(structure, RaggedStructure) and size is not None and size != structure.size:
            structure = msgspec.structs.replace(structure, size=size)
        return PartWritten(_shape(structure), structure, persist=command.persist)
    if isinstance(structure, SparseStructure):
        _, shape = block_region(structure.chunks, command.block)
        return PartWritten(shape, structure, block=command.block, persist=command.persist)
    if isinstance(structure, RaggedStructure):
        _, rows = ragged_block(structure, command.block)
        return PartWritten((rows, *structure.shape[1:]), structure, block=command.block[:1], persist=command.persist)
    raise NotFound("An awkward array has no blocks.")


def appended(structure: PartStructure, command: AppendPart, *, size: int) -> PartWritten:
    """PATCH of a ragged array: rows that follow the last one become a chunk of their own. `size`: their elements."""
    if not isinstance(structure, RaggedStructure):
        raise NotFound("Only ragged arrays are appended to here.")
    if command.extend and not command.persist:
        raise Unsatisfiable("Cannot PATCH an array with both parameters 'extend' and 'persist=false': drop one of them.")
    rows = structure.shape[0] or 0
    if not command.extend:
        raise Conflict("Rows of a ragged array cannot be overwritten one by one. Use ?extend=true to append, or write a block.")
    if not command.offset or command.offset[0] != rows or any(command.offset[1:]):
        raise Conflict(f"Rows are appended at the end: the offset must be {rows}, not {list(command.offset)}.")
    chunks = row_chunks(structure)
    if len(chunks) >= MAX_CHUNKS:
        raise Malformed(f"A ragged array has at most {MAX_CHUNKS} chunks; append more rows at once.")
    grown = msgspec.structs.replace(
        structure,
        shape=(rows + command.length, *structure.shape[1:]),
        size=structure.size + size,
        chunks=((*chunks, command.length), *structure.chunks[1:]),
    )
    return PartWritten((command.length, *structure.shape[1:]), grown, offset=(rows,), block=(len(chunks),))


def _shape(structure: PartStructure) -> tuple[int | None, ...]:
    return (structure.length,) if isinstance(structure, AwkwardStructure) else structure.shape


def _check_ragged(structure: RaggedStructure) -> None:
    shape, chunks = structure.shape, structure.chunks
    if not shape or shape[0] is None or not chunks or chunks[0] is None:
        raise Malformed("The first axis of a ragged array has a length, and chunks that cover it.")
    if len(shape) != len(chunks) or len(shape) > _MAX_DIMENSIONS:
        raise Malformed(f"Chunks of {len(chunks)} axes do not cover a shape of {len(shape)}.")
    if any(n is not None and n < 0 for n in shape) or any(n < 0 for n in chunks[0]) or structure.size < 0:
        raise Malformed("Lengths cannot be negative.")
    if len(chunks[0]) > MAX_CHUNKS:
        raise Malformed(f"A ragged array has at most {MAX_CHUNKS} chunks, not {len(chunks[0])}.")
    if sum(chunks[0]) != shape[0]:
        raise Malformed(f"Axis 0: the chunks add up to {sum(chunks[0])}, the shape says {shape[0]}.")
    for axis, parts in enumerate(chunks[1:], 1):
        if parts is not None and len(parts) != 1:  # clients may say null for one chunk of a fixed length too
            raise Malformed(f"Axis {axis} must be one chunk: only the first axis can be partitioned.")
    if structure.dims is not None and len(structure.dims) != len(shape):
        raise Malformed(f"There are {len(structure.dims)} names of dimensions for {len(shape)} axes.")
    if structure.data_type.fields is not None or to_numpy(structure.data_type).kind not in "biufcmM":
        raise Malformed("The elements of a ragged array are numbers, booleans or times.")
