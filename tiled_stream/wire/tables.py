"""Tables on the wire: Arrow IPC files in, Arrow and export formats out.

A body is understood and checked whole *before* anything is appended (I10): what `decode_rows` returns, every store and every
subscriber can read. pyarrow is imported when the first table comes.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from ..domain.errors import Malformed, NotAcceptable
from ..domain.structures import TableStructure
from .negotiate import HDF5, XLSX

if TYPE_CHECKING:
    import numpy
    import pyarrow

__all__ = [
    "ARROW_FILE",
    "SCHEMA_PREFIX",
    "Rows",
    "check_table",
    "column_array",
    "decode_rows",
    "encode_table",
    "json_text",
    "read_table",
    "schema_of",
    "structure_of",
]

ARROW_FILE = "application/vnd.apache.arrow.file"
SCHEMA_PREFIX = f"data:{ARROW_FILE};base64,"

#: How pandas names an index without a name.
_INDEX = re.compile(r"__index_level_[0-9]+__\Z")


class Rows(msgspec.Struct, frozen=True):
    """Rows in exactly the declared schema: an Arrow IPC file, and how many there are."""

    body: bytes
    rows: int


@lru_cache(maxsize=1024)
def schema_of(structure: TableStructure) -> pyarrow.Schema:
    """The declared Arrow schema. `Malformed` if the structure does not hold one."""
    import pyarrow

    if not structure.arrow_schema.startswith(SCHEMA_PREFIX):
        raise Malformed(f"'arrow_schema' must begin with {SCHEMA_PREFIX!r}.")
    try:
        message = base64.b64decode(structure.arrow_schema[len(SCHEMA_PREFIX) :], validate=True)
        schema = pyarrow.ipc.read_schema(pyarrow.BufferReader(message))
        _decode_names(schema)
    except (binascii.Error, pyarrow.ArrowException, OSError, ValueError) as error:
        raise Malformed(f"'arrow_schema' is not a base64 Arrow IPC schema message: {error}") from None
    return schema


def _decode_names(fields: Iterable[pyarrow.Field]) -> None:
    """pyarrow decodes a name when it is asked for it: a `UnicodeDecodeError` shall come here or never."""
    import pyarrow

    for field in fields:
        field.name.encode()
        is_dictionary = isinstance(field.type, pyarrow.DictionaryType)
        kind = field.type.value_type if is_dictionary else field.type
        _decode_names(kind.field(n) for n in range(kind.num_fields))


def structure_of(schema: pyarrow.Schema, *, npartitions: int = 1) -> TableStructure:
    """The structure that declares `schema`."""
    text = SCHEMA_PREFIX + base64.b64encode(schema.serialize().to_pybytes()).decode()
    return TableStructure(arrow_schema=text, npartitions=npartitions, columns=tuple(schema.names))


def check_table(structure: TableStructure) -> None:
    """`Malformed` unless the schema is one, names every column once, and keeps off the names that are ours."""
    names = schema_of(structure).names
    if structure.npartitions < 1:
        raise Malformed(f"'npartitions' must be at least 1, not {structure.npartitions}.")
    if not structure.columns:
        raise Malformed("A table needs at least one column.")
    for name in names:
        if not name or (name.startswith("_") and _INDEX.match(name) is None):
            raise Malformed(f"The column {name!r} is empty or begins with '_', which is kept for internal use.")
    if len(set(names)) != len(names) or len(set(structure.columns)) != len(structure.columns):
        raise Malformed("Two columns have the same name.")
    for column in structure.columns:
        if column not in names or _INDEX.match(column):
            raise Malformed(f"The column {column!r} is not one of the data columns of 'arrow_schema', which has {names}.")


def decode_rows(body: bytes, structure: TableStructure) -> Rows:
    """Check an uploaded Arrow IPC file against the declared schema.

    Columns and their order must be the declared ones; types that can be cast without loss are cast (a column of nulls, integers
    for doubles). A body already in the declared schema is passed on as it is. `Malformed` for anything else.
    """
    import pyarrow

    declared = schema_of(structure)
    uploaded = read_table(body)
    table = _without_index(uploaded, declared.names)
    if table.schema.names != declared.names:
        raise Malformed(f"The table has the columns {table.schema.names}; declared are {declared.names}, in this order.")
    for field, column in zip(declared, table.columns, strict=True):
        if not field.nullable and column.null_count:
            raise Malformed(f"The column {field.name!r} is declared without nulls and has {column.null_count}.")
    if table is uploaded and table.schema.equals(declared):
        return Rows(bytes(body), table.num_rows)
    try:
        columns = [c if c.type == f.type else c.cast(f.type) for c, f in zip(table.columns, declared, strict=True)]
        metadata = declared.metadata if table is uploaded else _ranged(uploaded) or declared.metadata
        cast = pyarrow.Table.from_arrays(columns, schema=declared.with_metadata(metadata))
    except (pyarrow.ArrowException, ValueError) as error:
        raise Malformed(f"A column cannot be cast to its declared type: {error}") from None
    return Rows(_arrow_file(cast), cast.num_rows)


def _without_index(table: pyarrow.Table, declared: list[str]) -> pyarrow.Table:
    """Pandas adds the index of a frame as a column; where the structure does not declare one, it carries nothing."""
    extra = [n for n in table.schema.names if _INDEX.match(n) and n not in declared]
    return table.drop_columns(extra) if extra else table


def _ranged(table: pyarrow.Table) -> dict[bytes, bytes] | None:
    """Metadata in which the index of a part of a frame (4, 5, 6 …) is a range, as pandas spells it where it makes no column.

    None if the index is no such range: then it is lost, as nothing declares it.
    """
    import numpy

    index = [n for n in table.schema.names if _INDEX.match(n)]
    metadata = table.schema.metadata or {}
    if len(index) != 1 or b"pandas" not in metadata or str(table.schema.field(index[0]).type) != "int64" or not table.num_rows:
        return None
    values = table.column(index[0]).to_numpy()
    begin = int(values[0])
    try:
        pandas = orjson.loads(metadata[b"pandas"])
        columns = [column for column in pandas["columns"] if column["field_name"] != index[0]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    if table.column(index[0]).null_count or not numpy.array_equal(values, numpy.arange(begin, begin + len(values))):
        return None
    pandas |= {
        "columns": columns,
        "index_columns": [{"kind": "range", "name": None, "start": begin, "stop": begin + len(values), "step": 1}],
    }
    return {**metadata, b"pandas": orjson.dumps(pandas)}


def read_table(body: bytes) -> pyarrow.Table:
    """The table in an Arrow IPC *file*, validated whole; `Malformed` if it is none."""
    import pyarrow

    try:
        table = pyarrow.ipc.open_file(pyarrow.BufferReader(body)).read_all()
        table.validate(full=True)
        _decode_names(table.schema)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise Malformed(f"The body is not an Arrow IPC file (the stream format is not accepted): {error}") from None
    return table


def encode_table(table: pyarrow.Table, media_type: str) -> bytes:
    """`table` in one of the formats announced for tables."""
    import pyarrow

    try:
        encode = _ENCODERS[media_type]
    except KeyError:
        raise NotAcceptable(f"A table cannot be given as {media_type}; supported are {', '.join(_ENCODERS)}.") from None
    try:
        return encode(table)
    except pyarrow.ArrowException as error:
        raise NotAcceptable(f"This table cannot be given as {media_type}: {error}") from None


def column_array(column: pyarrow.ChunkedArray) -> numpy.ndarray[Any, Any]:
    """One column as an array; see `table_columns`. `NotSupported` if it has no such form."""
    from .table_columns import column_array

    return column_array(column)


def _arrow_file(table: pyarrow.Table) -> bytes:
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _parquet(table: pyarrow.Table) -> bytes:
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def _xlsx(table: pyarrow.Table) -> bytes:
    from .export_xlsx import encode_xlsx

    return encode_xlsx(table)


def _hdf5(table: pyarrow.Table) -> bytes:
    from .export_hdf5 import encode_hdf5

    return encode_hdf5(table)


def _csv(table: pyarrow.Table, *, header: bool = True) -> bytes:
    import pyarrow
    import pyarrow.csv

    columns = [_cells(c) for c in table.columns]
    plain = pyarrow.Table.from_arrays(columns, [str(n) for n in range(len(columns))])
    if len(columns) == 1 and columns[0].null_count:
        return _csv_column(columns[0], table.schema.names[0] if header else None)
    sink = io.BytesIO()
    if header:  # pyarrow quotes every name; others quote only where they must
        sink.write((",".join(_quoted(name) for name in table.schema.names) + "\n").encode())
    pyarrow.csv.write_csv(plain, sink, pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed"))
    return sink.getvalue()


def _csv_column(column: pyarrow.ChunkedArray, name: str | None) -> bytes:
    """One column with nulls: what is null stands in quotes, for readers pass over a line with nothing in it."""
    import pyarrow

    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    if name is not None:
        writer.writerow([name])
    writer.writerows([value] for value in column.cast(pyarrow.large_string()).to_pylist())
    return sink.getvalue().encode()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\r\n') else name


def _cells(column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    """A sheet knows numbers and texts; other cells hold what JSON would say."""
    import pyarrow

    from .table_columns import is_plain, text_column

    kind = column.type
    if is_plain(kind) and not pyarrow.types.is_string_view(kind):
        return column
    cells = [v if v is None or isinstance(v, str) else json_text(v) for v in text_column(column)]
    return pyarrow.chunked_array([cells], type=pyarrow.large_string())


def _html(table: pyarrow.Table) -> bytes:
    from html import escape

    rows = ["<tr>" + "".join(f"<th>{escape(n)}</th>" for n in table.schema.names) + "</tr>"]
    rows += ["<tr>" + "".join(f"<td>{escape(str(v))}</td>" for v in row) + "</tr>" for row in zip(*_lists(table), strict=True)]
    return ("<table>\n" + "\n".join(rows) + "\n</table>\n").encode()


def _lists(table: pyarrow.Table) -> list[list[Any]]:
    from .table_columns import text_column

    return [text_column(column) for column in table.columns]


def _columns_json(table: pyarrow.Table) -> bytes:
    return _json(dict(zip(table.schema.names, _lists(table), strict=True)))


def _json_seq(table: pyarrow.Table) -> bytes:
    names = table.schema.names
    return b"".join(b"\x1e" + _json(dict(zip(names, row, strict=True))) + b"\n" for row in zip(*_lists(table), strict=True))


def json_text(value: Any) -> str:
    """What a cell says of a value that is more than a number or a text."""
    return _json(value).decode()


def _json(value: Any) -> bytes:
    return orjson.dumps(value, default=str)


_ENCODERS = {
    ARROW_FILE: _arrow_file,
    "application/x-parquet": _parquet,
    "text/csv": _csv,
    "text/csv;header=absent": lambda table: _csv(table, header=False),
    "text/x-comma-separated-values": _csv,
    "text/plain": _csv,
    "application/vnd.ms-excel": _csv,
    "text/html": _html,
    XLSX: _xlsx,
    HDF5: _hdf5,
    "application/json": _columns_json,
    "application/json-seq": _json_seq,
}
