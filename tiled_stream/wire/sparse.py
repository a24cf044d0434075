"""Sparse arrays on the wire: Arrow tables of coordinates and elements, `dim0 … dimN, data`, in and out.

What must stay true: what was accepted lies inside of the array, in the declared types. Blocks are kept with coordinates of their
own chunk; a whole write says those of the whole array.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet

from ..domain.chunks import block_region
from ..domain.dtypes import to_numpy
from ..domain.errors import Malformed
from ..domain.parts import sparse_data_type
from ..domain.slices import Selection
from ..domain.structures import SparseStructure
from .tables import read_table

__all__ = ["blocks_of", "decode_sparse", "encode_block", "gathered", "read_block", "sparse_columns", "touched"]

Columns = list[numpy.ndarray[Any, Any]]


def decode_sparse(body: bytes, structure: SparseStructure, block: tuple[int, ...] | None) -> bytes:
    """Check an uploaded Arrow IPC file; an Arrow IPC file of the declared types. `Malformed` says what does not fit."""
    shape = structure.shape if block is None else block_region(structure.chunks, block)[1]
    table = read_table(body)
    names = _names(len(shape))
    missing = [n for n in names if n not in table.schema.names]
    if missing:
        raise Malformed(f"The table lacks the column {missing[0]!r}; a sparse array of {len(shape)} axes has {names}.")
    coordinates = [_integers(table.column(n), n, length) for n, length in zip(names[:-1], shape, strict=True)]
    return _arrow([*coordinates, _elements(table.column("data"), structure)], structure)


def sparse_columns(body: bytes) -> Columns:
    """Coordinates, and the elements last, of what `decode_sparse` made."""
    return [c.to_numpy() for c in read_table(body).columns]


def blocks_of(columns: Columns, structure: SparseStructure) -> Iterator[tuple[tuple[int, ...], Columns]]:
    """Every chunk of the array with its share of a whole write, in coordinates of its own."""
    places = [
        numpy.searchsorted(numpy.cumsum(parts), c, side="right") for c, parts in zip(columns, structure.chunks, strict=False)
    ]
    for block in numpy.ndindex(*(len(parts) for parts in structure.chunks)):
        inside = numpy.ones(len(columns[-1]), bool)
        for place, index in zip(places, block, strict=True):
            inside &= place == index
        offset, _ = block_region(structure.chunks, block)
        yield block, [*(c[inside] - o for c, o in zip(columns, offset, strict=False)), columns[-1][inside]]


def encode_block(columns: Columns, structure: SparseStructure) -> bytes:
    """One chunk as it is kept: a Parquet file."""
    sink = io.BytesIO()
    pyarrow.parquet.write_table(_table(columns, structure), sink)
    return sink.getvalue()


def read_block(body: bytes) -> Columns:
    """The way back."""
    table = pyarrow.parquet.read_table(io.BytesIO(body), use_threads=False)
    return [c.to_numpy() for c in table.columns]


def touched(structure: SparseStructure, selection: Selection) -> list[tuple[int, ...]]:
    """The chunks that a selection looks into."""
    axes = []
    for parts, along in zip(structure.chunks, selection.axes, strict=True):
        if along.count == 0:
            return []
        ends = numpy.cumsum(parts)
        taken = along.start + along.step * numpy.arange(along.count)
        axes.append(sorted(set(numpy.searchsorted(ends, taken, side="right").tolist())))
    grid = numpy.array(numpy.meshgrid(*axes, indexing="ij")).reshape(len(axes), -1) if axes else numpy.zeros((0, 1), int)
    return [tuple(int(i) for i in column) for column in grid.T]


def gathered(
    blocks: Sequence[tuple[tuple[int, ...], Columns]], structure: SparseStructure, selection: Selection
) -> pyarrow.Table:
    """What of these chunks a selection takes, in coordinates of the selection; axes that were indexed are gone."""
    found = []
    for block, columns in blocks:
        offset, _ = block_region(structure.chunks, block)
        inside = numpy.ones(len(columns[-1]), bool)
        local: Columns = []
        for column, begin, along in zip(columns, offset, selection.axes, strict=False):
            steps, rest = numpy.divmod(column.astype(numpy.int64) + begin - along.start, along.step)
            inside &= (rest == 0) & (steps >= 0) & (steps < along.count)
            if not along.drop:
                local.append(steps)
        found.append([c[inside] for c in (*local, columns[-1])])
    dimensions = len(selection.shape)
    empty: Columns = [*(numpy.zeros(0, numpy.int64),) * dimensions, numpy.zeros(0, to_numpy(sparse_data_type(structure)))]
    columns = [numpy.concatenate(column) for column in zip(*found, strict=True)] if found else empty
    return _table(columns, structure)


def _names(dimensions: int) -> list[str]:
    return [*(f"dim{n}" for n in range(dimensions)), "data"]


def _table(columns: Columns, structure: SparseStructure) -> pyarrow.Table:
    kind = numpy.dtype(numpy.int64) if structure.coord_data_type is None else to_numpy(structure.coord_data_type)
    cast = [*(c.astype(kind.newbyteorder("=")) for c in columns[:-1]), columns[-1]]
    return pyarrow.Table.from_arrays([pyarrow.array(c) for c in cast], _names(len(columns) - 1))


def _arrow(columns: Columns, structure: SparseStructure) -> bytes:
    table = _table(columns, structure)
    sink = io.BytesIO()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _integers(column: pyarrow.ChunkedArray, name: str, length: int) -> numpy.ndarray[Any, Any]:
    if not pyarrow.types.is_integer(column.type) or column.null_count:
        raise Malformed(f"The coordinates {name!r} must be integers without nulls, not {column.type}.")
    found: numpy.ndarray[Any, Any] = column.to_numpy()
    if len(found) and not 0 <= int(found.min()) <= int(found.max()) < length:
        raise Malformed(f"A coordinate in {name!r} is out of range: the axis has length {length}.")
    return found.astype(numpy.int64)


def _elements(column: pyarrow.ChunkedArray, structure: SparseStructure) -> numpy.ndarray[Any, Any]:
    dtype = to_numpy(sparse_data_type(structure)).newbyteorder("=")
    plain = (
        pyarrow.types.is_integer(column.type) or pyarrow.types.is_floating(column.type) or pyarrow.types.is_boolean(column.type)
    )
    if column.null_count or not plain:
        raise Malformed(f"The elements 'data' must be numbers or booleans without nulls, not {column.type}.")
    found: numpy.ndarray[Any, Any] = column.to_numpy()
    if found.dtype != dtype and not numpy.can_cast(found.dtype, dtype, "same_kind"):
        raise Malformed(f"The elements are declared as {dtype}; {found.dtype} was sent.")
    return found.astype(dtype)
