"""Arrays of the awkward library in formats that others read: JSON, Arrow, Parquet."""

from __future__ import annotations

import io
from typing import Any

import awkward
import numpy
import orjson

__all__ = ["encode_arrow", "encode_json", "encode_parquet"]


def encode_json(found: Any) -> bytes:
    """Nested lists and objects; NaN and infinities are null, complex numbers [re, im], times ISO texts."""
    plain = awkward.to_list(awkward.transform(_times, found)) if isinstance(found, awkward.Array) else found
    return orjson.dumps(plain, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def encode_arrow(array: awkward.Array) -> bytes:
    """An Arrow IPC file."""
    import pyarrow

    table = awkward.to_arrow_table(array)
    sink = io.BytesIO()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def encode_parquet(array: awkward.Array) -> bytes:
    """A Parquet file."""
    import pyarrow.parquet

    sink = io.BytesIO()
    pyarrow.parquet.write_table(awkward.to_arrow_table(array), sink)
    return sink.getvalue()


def _times(layout: Any, **_: Any) -> Any:
    """Times as texts, durations as numbers of their unit: Python has neither in nanoseconds."""
    kind = layout.data.dtype.kind if isinstance(layout, awkward.contents.NumpyArray) else ""
    if kind == "m":
        return awkward.contents.NumpyArray(numpy.asarray(layout.data).view(numpy.int64))
    if kind == "M":
        return awkward.from_iter(numpy.datetime_as_string(layout.data).tolist(), highlevel=False)
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, complex | numpy.complexfloating):
        return [value.real, value.imag]
    if isinstance(value, numpy.datetime64 | numpy.timedelta64):
        return None if numpy.isnat(value) else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, numpy.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")
