"""Questions about data: arrays, tables and columns of tables. Every read passes the barrier (I7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..domain.slices import Selection
from ..domain.structures import ArrayStructure
from ..nodes.repository import Located

if TYPE_CHECKING:
    import numpy
    import pyarrow

__all__ = ["DataReader"]


class DataReader:
    """Read only."""

    async def array_structure(self, at: Located) -> ArrayStructure:
        """Structure of an array node, or of the column that `at` addresses (one chunk, shape = present row count).

        `NotFound` if `at` is neither.
        """
        raise NotImplementedError

    async def array(self, at: Located, structure: ArrayStructure, selection: Selection) -> numpy.ndarray:
        """The selection, in the declared dtype, C-contiguous. `structure` as `array_structure` gave it."""
        raise NotImplementedError

    async def table(
        self, at: Located, *, columns: Sequence[str] | None = None, partition: int | None = None
    ) -> pyarrow.Table:
        """Rows of a table node. `NotFound` if it is none, `Malformed` for an unknown column or partition."""
        raise NotImplementedError
