"""Arrays on the wire: raw C-order bytes, and the export formats."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy
import orjson

from ..domain.errors import NotAcceptable, UnsupportedType

__all__ = ["OCTET_STREAM", "check_body_type", "encode_array", "plain_array"]

OCTET_STREAM = "application/octet-stream"

Array = numpy.ndarray[Any, Any]


def check_body_type(content_type: str | None) -> None:
    """Bodies of arrays are raw bytes; `UnsupportedType` for anything else that is declared."""
    declared = (content_type or OCTET_STREAM).split(";")[0].strip().lower()
    if declared != OCTET_STREAM:
        raise UnsupportedType(f"The body of an array is {OCTET_STREAM}, not {declared}.")


def encode_array(array: Array, media_type: str) -> bytes:
    """`array` in one of the formats announced for arrays."""
    if media_type == OCTET_STREAM:
        return array.tobytes()
    if media_type == "application/json":
        return orjson.dumps(plain_array(array))
    if media_type in ("text/csv", "text/x-comma-separated-values", "text/plain", "application/vnd.ms-excel"):
        return _csv(array)
    if media_type == "text/html":
        return _html(array)
    raise NotAcceptable(f"An array cannot be given as {media_type}.")


def plain_array(array: Array) -> Any:
    """Nested lists of what JSON can say: NaN and infinities are null, times ISO texts, bytes data URIs, complex [re, im]."""
    kind = array.dtype.kind
    if kind == "f" and not numpy.isfinite(array).all():
        return _nulls(array.tolist())
    if kind in "biufU":
        return array.tolist()
    return _plain(array.tolist() if kind not in "mM" else _times(array))


def _times(array: Array) -> Any:
    """Times as ISO 8601, durations as numbers of their unit; NaT is None."""
    missing = numpy.isnat(array)
    known: Array = numpy.datetime_as_string(array) if array.dtype.kind == "M" else array.astype("i8")
    plain = known.astype(object)
    plain[missing] = None
    return plain.tolist()


def _nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_nulls(v) for v in value]
    return value if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, bytes):
        return "data:application/octet-stream;base64," + base64.b64encode(value).decode()
    if isinstance(value, complex):
        return [_plain(value.real), _plain(value.imag)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def _rows(array: Array) -> list[list[str]]:
    if array.ndim > 2:
        raise NotAcceptable(f"An array of {array.ndim} dimensions has no form as a sheet; slice it down to two.")
    if array.dtype.fields is not None:
        raise NotAcceptable("An array of records has no form as a sheet; ask for application/json.")
    if array.dtype.kind == "f":
        return [[repr(float(v)) for v in row] for row in numpy.atleast_2d(_column(array)).tolist()]
    return [[_cell(v) for v in row] for row in numpy.atleast_2d(_column(array)).tolist()]


def _column(array: Array) -> Array:
    """One dimension is one column."""
    return array[:, None] if array.ndim == 1 else array


def _cell(value: Any) -> str:
    text = str(_plain(value)) if isinstance(value, bytes) else str(value)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text


def _csv(array: Array) -> bytes:
    return "".join(",".join(row) + "\n" for row in _rows(array)).encode()


def _html(array: Array) -> bytes:
    from html import escape

    rows = ("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in _rows(array))
    return ("<table>\n" + "\n".join(rows) + "\n</table>\n").encode()
