"""Containers that are datasets of xarray: their arrays side by side as one table, in the formats of tables."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from ..domain.dtypes import to_numpy
from ..domain.slices import whole
from ..domain.structures import ArrayStructure
from ..nodes.repository import Located
from .children import Budget
from .services import Edge

if TYPE_CHECKING:
    from ..wire.export_dataset import Variable

__all__ = ["dataset_body"]


async def dataset_body(edge: Edge, below: list[Located], media_type: str, *, budget: Budget) -> bytes:
    """The arrays among these children. `NotAcceptable` if they have no form as one table."""
    from ..wire.export_dataset import Variable, dims_of, grid_of  # pyarrow, which a server without tables does not need

    arrays = [(at, at.node.structure) for at in below if isinstance(at.node.structure, ArrayStructure) and at.column is None]
    grid = grid_of([(at.path[-1], dims_of(structure), structure.shape) for at, structure in arrays])
    # Before anything is read: arrays of different dimensions span a grid far greater than all of them together.
    width = sum(max(1, to_numpy(structure.data_type).itemsize) for _, structure in arrays)
    budget.spend(prod(grid.values()) * (width + (8 * len(grid) if len(grid) > 1 else 0)))
    variables = []
    for at, structure in arrays:
        array = await edge.reader.array(at, structure, whole(structure.shape))
        variables.append(Variable(at.path[-1], dims_of(structure), array))
    return await asyncio.to_thread(_encoded, variables, media_type)


def _encoded(variables: Sequence[Variable], media_type: str) -> bytes:
    from ..wire.export_dataset import dataset_table
    from ..wire.tables import encode_table

    return encode_table(dataset_table(variables), media_type)
