"""Arrays with named dimensions as one table: a row for each point of the grid that the dimensions span.

Variables with fewer dimensions are repeated along the others. Where there are several dimensions, columns say where a row lies:
the coordinate of a dimension if it was chosen, its positions otherwise. The grid is known from shapes, before anything is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import msgspec
import numpy
import pyarrow

from ..domain.errors import NotAcceptable
from ..domain.structures import ArrayStructure

__all__ = ["Variable", "dataset_table", "dims_of", "grid_of"]

Array = numpy.ndarray[Any, Any]


class Variable(msgspec.Struct, frozen=True):
    """One array of a dataset; `dims` are the names of its axes."""

    name: str
    dims: tuple[str, ...]
    array: Array


def dims_of(structure: ArrayStructure) -> tuple[str, ...]:
    """Names of the axes, as xarray calls those without one."""
    return structure.dims or tuple(f"dim_{axis}" for axis in range(len(structure.shape)))


def grid_of(variables: Sequence[tuple[str, tuple[str, ...], tuple[int, ...]]]) -> dict[str, int]:
    """Length of each dimension, of names, dimensions and shapes; `NotAcceptable` if they contradict each other."""
    grid: dict[str, int] = {}
    for name, dims, shape in variables:
        if len(set(dims)) != len(shape):
            raise NotAcceptable(f"{name!r} has {len(shape)} axes and the dimensions {list(dims)}; choose other fields.")
        for dim, length in zip(dims, shape, strict=True):
            if grid.setdefault(dim, length) != length:
                raise NotAcceptable(
                    f"The dimension {dim!r} has the length {length} in {name!r} and {grid[dim]} elsewhere; choose with ?field=."
                )
    return grid


def dataset_table(variables: Sequence[Variable]) -> pyarrow.Table:
    """The table. `NotAcceptable` for elements that have no place in one."""
    grid = grid_of([(v.name, v.dims, v.array.shape) for v in variables])
    named = {v.name: v for v in variables}
    columns: dict[str, pyarrow.Array] = {}
    if len(grid) > 1:
        for dim, length in grid.items():
            index = named.get(dim)
            if index is None:
                index = Variable(dim, (dim,), numpy.arange(length))
            if index.dims == (dim,):
                columns[dim] = _column(index, grid)
    for variable in variables:
        if variable.name not in columns:
            columns[variable.name] = _column(variable, grid)
    return pyarrow.table(columns)


def _column(variable: Variable, grid: dict[str, int]) -> pyarrow.Array:
    """Along the dimensions of the grid, the last one fastest."""
    order = [dim for dim in grid if dim in variable.dims]
    turned = variable.array.transpose([variable.dims.index(dim) for dim in order])
    spread = turned.reshape([grid[dim] if dim in variable.dims else 1 for dim in grid])
    flat = numpy.broadcast_to(spread, tuple(grid.values())).reshape(prod(grid.values()))
    try:
        return pyarrow.array(_plain(flat))
    except (pyarrow.ArrowException, ValueError, TypeError, NotImplementedError):
        raise NotAcceptable(
            f"{variable.name!r} has elements of type {flat.dtype}, which have no place in a table; choose with ?field=."
        ) from None


def _plain(flat: Array) -> Any:
    """Of a type that Arrow has: texts and bytes value by value, numbers in the order of this machine."""
    if flat.dtype.fields is not None or flat.dtype.kind in "cV":
        raise TypeError
    if flat.dtype.kind in "US":
        return flat.tolist()
    if flat.dtype.kind in "mM":
        days = "D" if flat.dtype.kind == "M" else "s"  # Arrow has no durations in days
        unit = {"Y": "D", "M": "D", "W": days, "D": days, "h": "s", "m": "s"}.get(numpy.datetime_data(flat.dtype)[0])
        if unit is not None:
            return flat.astype(f"{flat.dtype.kind}8[{unit}]")
    if flat.dtype.kind == "f" and flat.dtype.itemsize > 8:
        return flat.astype(float)
    return flat.astype(flat.dtype.newbyteorder("="), copy=False)
