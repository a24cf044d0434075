"""Arrow schemas as SQL tables hold them, and back.

Columns are stored by position (`c0`, `c1`, …), so that no name can trouble SQL: neither letter case nor spaces nor reserved
words. Types that an engine keeps exactly become columns; a schema with any other type is kept as the Arrow bodies themselves.
What is read is always the declared schema, its metadata too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow

from ..domain.errors import Malformed
from ..domain.structures import TableStructure

if TYPE_CHECKING:
    from ..domain.events import Record

__all__ = ["META", "body_table", "chosen", "declared_schema", "incoming", "sql_types"]

#: Columns that stand before the data: whose rows, which partition, which record, which row of it.
META = ("_dataset_id", "_partition_id", "_sequence", "_row")

_SQL = {
    pyarrow.int8(): "TINYINT",
    pyarrow.int16(): "SMALLINT",
    pyarrow.int32(): "INTEGER",
    pyarrow.int64(): "BIGINT",
    pyarrow.uint8(): "UTINYINT",
    pyarrow.uint16(): "USMALLINT",
    pyarrow.uint32(): "UINTEGER",
    pyarrow.uint64(): "UBIGINT",
    pyarrow.float32(): "FLOAT",
    pyarrow.float64(): "DOUBLE",
    pyarrow.bool_(): "BOOLEAN",
    pyarrow.string(): "VARCHAR",
    pyarrow.large_string(): "VARCHAR",
    pyarrow.binary(): "BLOB",
    pyarrow.large_binary(): "BLOB",
}


@lru_cache(maxsize=1024)
def declared_schema(structure: TableStructure) -> pyarrow.Schema:
    """The schema that the structure declares."""
    import base64

    _, _, text = structure.arrow_schema.partition(",")
    return pyarrow.ipc.read_schema(pyarrow.BufferReader(base64.b64decode(text)))


@lru_cache(maxsize=1024)
def sql_types(structure: TableStructure) -> tuple[str, ...] | None:
    """An SQL type a column, or None if one of them would not come back exactly."""
    types = [_sql_type(field.type) for field in declared_schema(structure)]
    return None if any(t is None for t in types) else tuple(t for t in types if t is not None)


def incoming(body: bytes, record: Record, partition: int, dataset: int) -> pyarrow.Table:
    """The rows of one record as they are inserted: meta columns, then the data by position."""
    table = body_table(body)
    count = table.num_rows
    import numpy

    meta = [
        pyarrow.array(numpy.full(count, dataset, numpy.int64)),
        pyarrow.array(numpy.full(count, partition, numpy.int32)),
        pyarrow.array(numpy.full(count, record.sequence, numpy.int64)),
        pyarrow.array(numpy.arange(count, dtype=numpy.int64)),
    ]
    names = [*META, *(f"c{n}" for n in range(table.num_columns))]
    return pyarrow.Table.from_arrays([*meta, *table.columns], names=names)


def body_table(body: bytes) -> pyarrow.Table:
    """The table in an Arrow IPC file."""
    return pyarrow.ipc.open_file(pyarrow.BufferReader(body)).read_all()


def chosen(structure: TableStructure, columns: Sequence[str] | None) -> tuple[list[int], pyarrow.Schema]:
    """Positions of the columns asked for, in the table's own order, and the schema of what comes out."""
    schema = declared_schema(structure)
    if columns is None:
        return list(range(len(schema.names))), schema
    for name in columns:
        if name not in schema.names:
            raise Malformed(f"The table has no column {name!r}; it has {schema.names}.")
    wanted = set(columns)
    positions = [n for n, name in enumerate(schema.names) if name in wanted]
    return positions, pyarrow.schema([schema.field(n) for n in positions], metadata=schema.metadata)


def _sql_type(kind: Any) -> str | None:
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        inner = _sql_type(kind.value_type)
        return None if inner is None else inner + "[]"
    return _SQL.get(kind)
