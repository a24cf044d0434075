"""Tables on the wire: Arrow IPC files in, Arrow and export formats out.

A body is understood and checked whole *before* anything is appended (I10): what `decode_rows` returns, every store and every
subscriber can read. pyarrow is imported when the first table comes.
"""

from __future__ import annotations

import base64
import binascii
import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from ..domain.errors import Malformed, NotAcceptable, NotSupported
from ..domain.structures import TableStructure

if TYPE_CHECKING:
    import numpy
    import pyarrow

__all__ = [
    "ARROW_FILE",
    "SCHEMA_PREFIX",
    "Rows",
    "column_array",
    "decode_rows",
    "encode_table",
    "read_table",
    "schema_of",
    "structure_of",
]

ARROW_FILE = "application/vnd.apache.arrow.file"
SCHEMA_PREFIX = f"data:{ARROW_FILE};base64,"


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
        return pyarrow.ipc.read_schema(pyarrow.BufferReader(message))
    except (binascii.Error, pyarrow.ArrowException, OSError, ValueError) as error:
        raise Malformed(f"'arrow_schema' is not a base64 Arrow IPC schema message: {error}") from None


def structure_of(schema: pyarrow.Schema, *, npartitions: int = 1) -> TableStructure:
    """The structure that declares `schema`."""
    text = SCHEMA_PREFIX + base64.b64encode(schema.serialize().to_pybytes()).decode()
    return TableStructure(arrow_schema=text, npartitions=npartitions, columns=tuple(schema.names))


def decode_rows(body: bytes, structure: TableStructure) -> Rows:
    """Check an uploaded Arrow IPC file against the declared schema.

    Columns and their order must be the declared ones; types that can be cast without loss are cast (a column of nulls, integers
    for doubles). A body already in the declared schema is passed on as it is.
    """
    import pyarrow

    declared = schema_of(structure)
    uploaded = read_table(body)
    table = _without_index(uploaded, declared.names)
    if table.schema.names != declared.names:
        raise Malformed(f"The table has the columns {table.schema.names}; declared are {declared.names}, in this order.")
    if table is uploaded and table.schema.equals(declared):
        return Rows(bytes(body), table.num_rows)
    try:
        columns = [c if c.type == f.type else c.cast(f.type) for c, f in zip(table.columns, declared, strict=True)]
        cast = pyarrow.Table.from_arrays(columns, schema=declared)
    except (pyarrow.ArrowException, ValueError) as error:
        raise Malformed(f"A column cannot be cast to its declared type: {error}") from None
    return Rows(_arrow_file(cast), cast.num_rows)


def _without_index(table: pyarrow.Table, declared: list[str]) -> pyarrow.Table:
    """Pandas adds the index of a frame as a column; where the structure does not declare one, it carries nothing."""
    extra = [n for n in table.schema.names if n.startswith("__index_level_") and n not in declared]
    return table.drop_columns(extra) if extra else table


def read_table(body: bytes) -> pyarrow.Table:
    """The table in an Arrow IPC *file*, validated whole; `Malformed` if it is none."""
    import pyarrow

    try:
        table = pyarrow.ipc.open_file(pyarrow.BufferReader(body)).read_all()
        table.validate(full=True)
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
    """One column as an array: strings of the longest length, nulls as NaN, NaT or "", equal lists as a second axis."""
    import numpy
    import pyarrow

    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        return column_array(column.cast(kind.value_type))
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind):
        return _list_array(column)
    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_null(kind):
        return numpy.array(["" if v is None else v for v in column.to_pylist()], dtype=numpy.str_)
    if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
        return numpy.array([v or b"" for v in column.to_pylist()], dtype=numpy.bytes_)
    if pyarrow.types.is_boolean(kind) and column.null_count:
        column = column.cast(pyarrow.int8())
    array: numpy.ndarray[Any, Any] = column.to_numpy()
    if array.dtype.kind == "O":
        raise NotSupported(f"A column of type {kind} has no form as an array; read it as part of the table.")
    return array


def _list_array(column: pyarrow.ChunkedArray) -> numpy.ndarray[Any, Any]:
    import numpy
    import pyarrow

    array = column.combine_chunks()
    if isinstance(array, pyarrow.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pyarrow.array([], type=column.type)
    if array.null_count:
        raise NotSupported("A list column with missing rows has no form as an array; read it as part of the table.")
    lengths = numpy.unique(array.value_lengths().to_numpy()) if len(array) else numpy.array([0])
    if len(lengths) != 1:
        raise NotSupported("The lists of this column have different lengths; read it as part of the table.")
    flat = column_array(pyarrow.chunked_array([array.flatten()]))
    return flat.reshape(len(array), int(lengths[0]), *flat.shape[1:])


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


def _csv(table: pyarrow.Table, *, header: bool = True) -> bytes:
    import pyarrow
    import pyarrow.csv

    columns = [_flat(c) for c in table.columns]
    plain = (
        pyarrow.table(dict(enumerate(columns)))
        if not table.schema.names
        else pyarrow.Table.from_arrays(columns, table.schema.names)
    )
    sink = io.BytesIO()
    if header:  # pyarrow quotes every name; others quote only where they must
        sink.write((",".join(_quoted(name) for name in table.schema.names) + "\n").encode())
    pyarrow.csv.write_csv(plain, sink, pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed"))
    return sink.getvalue()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\r\n') else name


def _flat(column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    """CSV knows no lists and records: those cells hold their JSON."""
    import pyarrow

    if pyarrow.types.is_nested(column.type):
        return pyarrow.chunked_array(
            [[None if v is None else _json(v).decode() for v in column.to_pylist()]], type=pyarrow.string()
        )
    if pyarrow.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


def _html(table: pyarrow.Table) -> bytes:
    from html import escape

    rows = ["<tr>" + "".join(f"<th>{escape(n)}</th>" for n in table.schema.names) + "</tr>"]
    rows += ["<tr>" + "".join(f"<td>{escape(str(v))}</td>" for v in row.values()) + "</tr>" for row in table.to_pylist()]
    return ("<table>\n" + "\n".join(rows) + "\n</table>\n").encode()


def _columns_json(table: pyarrow.Table) -> bytes:
    return _json(dict(zip(table.schema.names, (c.to_pylist() for c in table.columns), strict=True)))


def _json_seq(table: pyarrow.Table) -> bytes:
    return b"".join(b"\x1e" + _json(row) + b"\n" for row in table.to_pylist())


def _json(value: Any) -> bytes:
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)


def _plain(value: Any) -> Any:
    """What JSON has no word for: bytes as a data URI, everything else as its text."""
    if isinstance(value, bytes):
        return "data:application/octet-stream;base64," + base64.b64encode(value).decode()
    return str(value)


_ENCODERS = {
    ARROW_FILE: _arrow_file,
    "application/x-parquet": _parquet,
    "text/csv": _csv,
    "text/csv;header=absent": lambda table: _csv(table, header=False),
    "text/x-comma-separated-values": _csv,
    "text/plain": _csv,
    "application/vnd.ms-excel": _csv,
    "text/html": _html,
    "application/json": _columns_json,
    "application/json-seq": _json_seq,
}
