"""Columns of tables as something else: as arrays of numpy, and as what JSON has words for.

Arrow has more types than Python or numpy: nanoseconds, years beyond 9999, unions, intervals. What must stay true: a column
of *any* type comes out right or is refused by `NotSupported`; it never stops a reader, and never the process. Import this only
when a table is at hand, for pyarrow is heavy.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.types as is_

from ..domain.errors import NotSupported

__all__ = ["column_array", "is_plain", "plain_column", "text_column"]

#: Bytes up to which strings of one column may be padded to the longest without a look at the waste.
_MAX_PADDED = 64 << 20


def column_array(column: pyarrow.ChunkedArray) -> numpy.ndarray[Any, Any]:
    """One column as an array, 1-D, or 2-D for lists of equal length; `NotSupported` if it has no such form.

    Strings become kind U of the longest length. Nulls are NaN among numbers, NaT among times, "" among strings.
    """
    kind = column.type
    if is_.is_dictionary(kind):
        return column_array(column.cast(kind.value_type))
    if is_.is_run_end_encoded(kind):
        return column_array(pyarrow.compute.run_end_decode(column))
    if _is_list(kind):
        return _list_array(column)
    if _is_text(kind) or is_.is_null(kind):
        return _padded(["" if v is None else v for v in column.to_pylist()], numpy.dtype("U1"))
    if _is_bytes(kind):
        return _padded([v or b"" for v in column.to_pylist()], numpy.dtype("S1"))
    # Named one by one: pyarrow ends the process on some others (intervals).
    if not (is_.is_boolean(kind) or is_.is_integer(kind) or is_.is_floating(kind) or _is_moment(kind) or is_.is_duration(kind)):
        raise NotSupported(f"A column of type {kind} has no form as an array; read it as part of the table.")
    if is_.is_boolean(kind) and column.null_count:
        column = column.cast(pyarrow.int8())
    array: numpy.ndarray[Any, Any] = column.to_numpy()
    return array


def plain_column(column: pyarrow.ChunkedArray) -> list[Any]:
    """The values, nulls as None, for `orjson` (which spells NaN as null).

    Moments are ISO 8601 texts (of UTC, marked "Z", if they have a time zone), durations numbers of their unit, decimals texts,
    bytes data URIs, maps lists of pairs.
    """
    return [value for chunk in column.chunks for value in _plain(chunk)]


def text_column(column: pyarrow.ChunkedArray) -> list[Any]:
    """As `plain_column`, but a column of bytes is one of texts: those that are no UTF-8 have a character a byte (Latin-1).

    Sheets and JSON of a table are for people; the bytes as such are in Arrow and Parquet.
    """
    kind = column.type
    if is_.is_dictionary(kind):
        kind = kind.value_type
    if not _is_bytes(kind):
        return plain_column(column)
    return [None if value is None else _text(value) for value in column.to_pylist()]


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def is_plain(kind: pyarrow.DataType) -> bool:
    """Numbers, booleans and texts: what Python, JSON and CSV all have."""
    return bool(is_.is_boolean(kind) or is_.is_integer(kind) or is_.is_floating(kind) or is_.is_null(kind) or _is_text(kind))


def _plain(array: pyarrow.Array) -> list[Any]:
    kind = array.type
    if is_plain(kind):
        return list(array.to_pylist())
    if _is_moment(kind):
        return _moments(array)
    if is_.is_duration(kind):
        return _plain(array.cast(pyarrow.int64()))
    if is_.is_time(kind) or is_.is_decimal(kind):
        return _plain(array.cast(pyarrow.string()))
    if _is_bytes(kind):
        return [None if v is None else _data_uri(v) for v in array.to_pylist()]
    if is_.is_dictionary(kind):
        return _plain(array.dictionary_decode())
    if is_.is_run_end_encoded(kind):
        return _plain(pyarrow.compute.run_end_decode(array))
    if is_.is_struct(kind):
        return _structs(array)
    if _is_list(kind):
        return _lists(array)
    return [_one(scalar) for scalar in array]


def _one(scalar: pyarrow.Scalar) -> Any:
    """The rare types, value by value."""
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if is_.is_map(kind):
        keys, values = scalar.values.flatten()
        return [list(pair) for pair in zip(_plain(keys), _plain(values), strict=True)]
    if is_.is_list_view(kind) or is_.is_large_list_view(kind):
        return _plain(scalar.values)
    if is_.is_union(kind) or isinstance(kind, pyarrow.BaseExtensionType):
        return None if scalar.value is None else _plain(pyarrow.repeat(scalar.value, 1))[0]
    return str(scalar)


def _moments(array: pyarrow.Array) -> list[Any]:
    """By numpy, which knows every year and every unit; Python's own do not."""
    times = array.to_numpy(zero_copy_only=False)
    if is_.is_date64(array.type):
        times = times.astype("M8[D]")
    texts = numpy.datetime_as_string(times).tolist()
    zone = "Z" if is_.is_timestamp(array.type) and array.type.tz is not None else ""
    return [None if missing else text + zone for text, missing in zip(texts, numpy.isnat(times).tolist(), strict=True)]


def _structs(array: pyarrow.Array) -> list[Any]:
    names = [field.name for field in array.type]
    rows: Iterable[Sequence[Any]] = zip(*(_plain(f) for f in array.flatten()), strict=True) if names else [()] * len(array)
    return [dict(zip(names, row, strict=True)) if valid else None for row, valid in zip(rows, _validity(array), strict=True)]


def _lists(array: pyarrow.Array) -> list[Any]:
    values = iter(_plain(array.flatten()))  # without those under null lists
    lengths = array.value_lengths().to_pylist()
    return [list(islice(values, n)) if valid else None for n, valid in zip(lengths, _validity(array), strict=True)]


def _validity(array: pyarrow.Array) -> list[bool]:
    return list(array.is_valid().to_pylist())


def _data_uri(value: bytes) -> str:
    return "data:application/octet-stream;base64," + base64.b64encode(value).decode()


def _padded(values: list[Any], unit: numpy.dtype[Any]) -> numpy.ndarray[Any, Any]:
    """All as long as the longest, unless that is a waste beyond measure."""
    total = max(map(len, values), default=1) * unit.itemsize * len(values)
    if total > _MAX_PADDED and total > 16 * unit.itemsize * sum(map(len, values)):
        raise NotSupported(
            f"As an array, this column would take {total} bytes, most of them padding; read it as part of the table."
        )
    return numpy.array(values, dtype=unit.kind)


def _list_array(column: pyarrow.ChunkedArray) -> numpy.ndarray[Any, Any]:
    if column.null_count:
        raise NotSupported("A list column with missing rows has no form as an array; read it as part of the table.")
    lengths = numpy.unique(pyarrow.compute.list_value_length(column).to_numpy())
    if len(lengths) > 1:
        raise NotSupported("The lists of this column have different lengths; read it as part of the table.")
    flat = column_array(pyarrow.chunked_array([chunk.flatten() for chunk in column.chunks], type=column.type.value_type))
    width = int(lengths[0]) if len(lengths) else 0
    return flat.reshape(len(column), width, *flat.shape[1:])


def _is_list(kind: pyarrow.DataType) -> bool:
    return bool(is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind))


def _is_text(kind: pyarrow.DataType) -> bool:
    return bool(is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind))


def _is_bytes(kind: pyarrow.DataType) -> bool:
    return bool(is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_binary_view(kind) or is_.is_fixed_size_binary(kind))


def _is_moment(kind: pyarrow.DataType) -> bool:
    return bool(is_.is_timestamp(kind) or is_.is_date(kind))
