"""A table over one file a partition, fitted to what is declared: its columns, their order and their types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow

from ..domain.errors import Malformed, TooLarge, Unavailable, Unsatisfiable
from ..domain.structures import TableStructure
from .port import ReadTable, Source

__all__ = ["FileTable", "gathered"]


class FileTable:
    """A `TableReader`."""

    def __init__(self, source: Source, read: ReadTable) -> None:
        assert isinstance(source.structure, TableStructure)
        assert source.schema is not None
        self._source = source
        self._read = read
        self._schema = source.schema
        self._declared = source.structure.columns
        self._partitions = source.structure.npartitions

    def read(self, columns: Sequence[str] | None, partition: int | None) -> pyarrow.Table:
        """See `TableReader`."""
        names = [n for n in self._schema.names if columns is None or n in columns]
        parts: list[pyarrow.Table] = []
        size = 0
        for number in self._numbers(partition):
            path = self._source.path(number)
            parts.append(self._fitted(self._read(self._source, path, names), names, path.name))
            size += parts[-1].nbytes
            check_size(size, self._source.limit)
        return pyarrow.concat_tables(parts)

    def _numbers(self, partition: int | None) -> Iterable[int]:
        there = len(self._source.uris)
        if partition is None and there:
            return range(there)
        if partition is not None and partition >= max(self._partitions, there):
            raise Unsatisfiable(f"The table has {max(self._partitions, there)} partitions; there is no number {partition}.")
        if partition is None or partition >= there:
            raise Unavailable("No file is registered for this partition yet. Try again.", retry_after=1.0)
        return (partition,)

    def _fitted(self, table: pyarrow.Table, names: Sequence[str], file: str) -> pyarrow.Table:
        """The columns as declared. One that only the schema knows (an index of pandas) may be missing."""
        there = [n for n in names if n in table.schema.names]
        missing = [n for n in names if n not in there and n in self._declared]
        if missing:
            raise Malformed(f"The file {file!r} has no column {missing[0]!r}; it has {table.schema.names}.")
        schema = pyarrow.schema([self._schema.field(n) for n in there], metadata=self._schema.metadata)
        try:
            return table.select(there).cast(schema)
        except (pyarrow.ArrowException, ValueError) as error:
            raise Malformed(f"A column of {file!r} does not fit its declared type: {error}") from None


def gathered(batches: Iterable[pyarrow.RecordBatch], schema: pyarrow.Schema, limit: int) -> pyarrow.Table:
    """Batches as one table. `TooLarge` as soon as they are."""
    kept, size = [], 0
    for batch in batches:
        kept.append(batch)
        size += batch.nbytes
        check_size(size, limit)
    return pyarrow.Table.from_batches(kept, schema)


def check_size(size: int, limit: int) -> None:
    """`TooLarge` beyond the limit."""
    if size > limit:
        raise TooLarge(f"The answer would exceed {limit} bytes; ask for fewer columns or by partition.")
