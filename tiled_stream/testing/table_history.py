"""A `TableModel` that remembers each state: what the contract of fences compares a table store with."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pyarrow

from ..domain.events import AssetDeleted
from ..domain.nodes import DataSource
from ..storage.port import TableBatch
from .factories import record
from .table_model import TableModel, random_rows, two_columns

__all__ = ["TableHistory"]


class TableHistory:
    """A table of two columns, and its rows after each of its records."""

    def __init__(self, random: Random) -> None:
        self._model: TableModel = two_columns()
        self._random = random
        self.node = self._model.node
        self.records = self._model.records
        self.states: list[pyarrow.Table] = [self._model.table()]

    def step(self) -> None:
        """Something random is written: in one of four cases rows are replaced."""
        partition = self._random.choice((0, 0, 0, 1))
        rows = random_rows(self._random, self._random.choice((1, 1, 3)))
        if self._random.random() < 0.75:
            self._model.append(rows, partition)
        else:
            self._model.replace(rows, self._random.choice((partition, None)))
        self.states.append(self._model.table())

    def delete(self) -> None:
        """All rows are deleted."""
        self._model.partitions.clear()
        source = DataSource("table", self._model.structure, "application/x-parquet")
        self.records.append(record(len(self.records) + 1, AssetDeleted(source)))
        self.states.append(self._model.table())

    def end(self) -> None:
        """Something that is not data happens."""
        self._model.end()
        self.states.append(self._model.table())

    def batch(self, after: int = 0, upto: int | None = None, fence: int = 0) -> TableBatch:
        """The records that follow `after`, to `upto`."""
        return msgspec.structs.replace(self._model.batch(after, upto), node=self.node, fence=fence)

    async def assert_reads(self, store: Any, *, upto: int | None = None) -> None:
        """The store has exactly these rows, as they were after `upto` records."""
        wanted = self.states[-1 if upto is None else upto]
        assert (await store.read(self.node, self._model.structure)).to_pylist() == wanted.to_pylist()

    async def delete_from(self, store: Any) -> None:
        """Delete the node in the store."""
        await store.delete([(self.node, self._model.structure)])
