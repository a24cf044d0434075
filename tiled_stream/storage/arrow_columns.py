"""Arrow schemas as an SQL engine with Arrow in and out keeps them, and back exactly.

Columns are stored by position (`c0`, `c1`, …), so that no name can trouble SQL: neither letter case nor spaces nor its own words.
A column is stored as the SQL type that keeps it bit by bit, times as integers. Some types have no such form (dictionaries with
their order, structs, half floats, …): a schema with one of them is kept as Arrow bodies instead (`arrow_bodies.py`).
What is read is always the declared schema, its metadata too.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy
import pyarrow

from ..domain.errors import Malformed
from ..domain.structures import TableStructure

__all__ = ["META", "Column", "Rows", "body_table", "chosen", "declared_schema", "declared_table", "sql_columns", "stored_table"]

#: Columns that stand before the data: whose rows, which partition, which record, which row of it.
META = {"_dataset_id": "BIGINT", "_partition_id": "BIGINT", "_sequence": "BIGINT", "_row": "BIGINT"}

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


class Column(msgspec.Struct, frozen=True):
    """How one column is stored: the type in SQL, and the Arrow type that goes in and comes out of it."""

    sql: str
    stored: Any
    declared: Any


class Rows(msgspec.Struct, frozen=True):
    """The rows of one record, and where they belong. `table` is as decoded from the body."""

    dataset: int
    partition: int
    sequence: int
    table: Any


@lru_cache(maxsize=1024)
def declared_schema(structure: TableStructure) -> pyarrow.Schema:
    """The schema that the structure declares. (That it can be understood was checked when the node was made.)"""
    _, _, text = structure.arrow_schema.partition(",")
    return pyarrow.ipc.read_schema(pyarrow.BufferReader(base64.b64decode(text)))


@lru_cache(maxsize=1024)
def sql_columns(structure: TableStructure) -> tuple[Column, ...] | None:
    """A `Column` each, or None if one of them would not come back exactly."""
    columns = [_column(field.type) for field in declared_schema(structure)]
    return None if None in columns else tuple(c for c in columns if c is not None)


def body_table(body: bytes) -> pyarrow.Table:
    """The table in an Arrow IPC file."""
    return pyarrow.ipc.open_file(pyarrow.py_buffer(body)).read_all()


def stored_table(rows: Sequence[Rows], columns: Sequence[Column]) -> pyarrow.Table:
    """Rows of several records as they are inserted: META, then the data by position."""
    counts = [r.table.num_rows for r in rows]
    # In one piece: the engine is given vectors of thousands of rows then, not one a record.
    data = pyarrow.concat_tables([r.table for r in rows]).combine_chunks() if len(rows) > 1 else rows[0].table
    arrays = [
        pyarrow.array(numpy.repeat([getattr(r, what) for r in rows], counts)) for what in ("dataset", "partition", "sequence")
    ]
    arrays.append(pyarrow.array(numpy.concatenate([numpy.arange(n) for n in counts])))
    arrays += [
        given if given.type == column.stored else given.cast(column.stored)
        for given, column in zip(data.columns, columns, strict=True)
    ]
    return pyarrow.Table.from_arrays(arrays, names=[*META, *(f"c{n}" for n in range(len(columns)))])


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


def declared_table(found: Sequence[pyarrow.ChunkedArray], schema: pyarrow.Schema) -> pyarrow.Table:
    """Columns as they come from the engine, as the schema declares them."""
    arrays = [
        pyarrow.chunked_array([pyarrow.nulls(len(given))]) if pyarrow.types.is_null(field.type) else _cast(given, field.type)
        for given, field in zip(found, schema, strict=True)
    ]
    return pyarrow.Table.from_arrays(arrays, schema=schema)


def _cast(given: pyarrow.ChunkedArray, declared: Any) -> pyarrow.ChunkedArray:
    return given if given.type == declared else given.cast(declared)


def _column(declared: Any) -> Column | None:
    kinds = pyarrow.types
    if kinds.is_null(declared):
        return Column("TINYINT", pyarrow.int8(), declared)
    if kinds.is_date32(declared) or kinds.is_time32(declared):
        return Column("INTEGER", pyarrow.int32(), declared)
    if kinds.is_timestamp(declared) or kinds.is_date64(declared) or kinds.is_time64(declared) or kinds.is_duration(declared):
        return Column("BIGINT", pyarrow.int64(), declared)
    if kinds.is_decimal128(declared) and 0 <= declared.scale <= declared.precision:
        return Column(f"DECIMAL({declared.precision},{declared.scale})", declared, declared)
    sql = _nested(declared)
    return None if sql is None else Column(sql, declared, declared)


def _nested(declared: Any) -> str | None:
    if pyarrow.types.is_list(declared) or pyarrow.types.is_large_list(declared):
        inner = _nested(declared.value_type)
        return None if inner is None else inner + "[]"
    return _SQL.get(declared)
