"""Arrays on the wire: raw C-order bytes, and the export formats.

Elements are what a client once sent as bytes, so they may be anything: text that is no Unicode, times of no calendar. Every one
of them has a form here; an array that was accepted can always be given.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy
import orjson

from ..domain.errors import NotAcceptable, UnsupportedType
from .negotiate import PNG, TIFF

__all__ = ["OCTET_STREAM", "check_body_type", "encode_array", "encode_json", "plain_array", "valid_texts"]

OCTET_STREAM = "application/octet-stream"

Array = numpy.ndarray[Any, Any]

_REPLACEMENT = 0xFFFD  # what stands for a code point that is none
_SHEETS = ("text/csv", "text/x-comma-separated-values", "text/plain", "application/vnd.ms-excel")


def check_body_type(content_type: str | None) -> None:
    """Bodies of arrays are raw bytes; `UnsupportedType` for anything else that is declared."""
    declared = (content_type or OCTET_STREAM).split(";")[0].strip().lower()
    if declared != OCTET_STREAM:
        raise UnsupportedType(f"The body of an array is {OCTET_STREAM}, not {declared}.")


def encode_array(array: Array, media_type: str) -> bytes:
    """`array` in one of the formats announced for arrays; `NotAcceptable` for another, or one that has no room for its shape."""
    if media_type == OCTET_STREAM:
        return array.tobytes()
    if media_type == "application/json":
        return encode_json(array)
    if media_type in _SHEETS:
        return _csv(array)
    if media_type == "text/html":
        return _html(array)
    if media_type in (PNG, TIFF):
        from .export_images import encode_png, encode_tiff

        return encode_png(array) if media_type == PNG else encode_tiff(array)
    raise NotAcceptable(f"An array cannot be given as {media_type}.")


def encode_json(array: Array) -> bytes:
    """Nested lists, as in `plain_array`; NaN and infinities are null."""
    if array.ndim and array.dtype.kind in "biuf" and array.dtype.isnative and array.itemsize <= 8:
        return orjson.dumps(numpy.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)
    return orjson.dumps(plain_array(array))


def plain_array(array: Array) -> Any:
    """Nested lists of what JSON has words for.

    Times are ISO texts, durations numbers of their unit, bytes data URIs, complex numbers [re, im], records lists.
    """
    dtype = array.dtype
    if dtype.fields is not None:
        return _records(array)
    match dtype.kind:
        case "b" | "i" | "u":
            return array.tolist()
        case "f":
            return _narrowed(array, "f8").tolist()
        case "c":
            pairs = _narrowed(array, "c16")
            return numpy.stack([pairs.real, pairs.imag], axis=-1).tolist()
        case "m" | "M":
            return _times(array).tolist()
        case "U":
            return valid_texts(array).tolist()
    return _data_uris(array.tolist())


def _records(array: Array) -> Any:
    """A record is a list of its fields."""
    flat = array.reshape(-1)
    rows = [list(row) for row in zip(*(plain_array(flat[name]) for name in array.dtype.names or ()), strict=True)]
    return _nested(rows, array.shape)


def _nested(flat: list[Any], shape: tuple[int, ...]) -> Any:
    """A flat list as nested ones of this shape."""
    if not shape:
        return flat[0]
    if len(shape) == 1:
        return flat
    step = len(flat) // shape[0] if shape[0] else 0
    return [_nested(flat[n * step : (n + 1) * step], shape[1:]) for n in range(shape[0])]


def _narrowed(array: Array, code: str) -> Array:
    """Wider numbers than Python's lose digits; beyond its range they are infinite."""
    with numpy.errstate(all="ignore"):
        return array if array.itemsize <= numpy.dtype(code).itemsize else array.astype(code)


def _times(array: Array) -> Array:
    """Objects: ISO 8601 texts of times, integers of durations; NaT is None. A time without a unit is a number too."""
    flat = array.reshape(-1)
    has_calendar = array.dtype.kind == "M" and numpy.datetime_data(array.dtype)[0] != "generic"
    plain = (numpy.datetime_as_string(flat) if has_calendar else flat.astype("i8")).astype(object)
    plain[numpy.isnat(flat)] = None
    return plain.reshape(array.shape)


def valid_texts(array: Array) -> Array:
    """Of kind U, without what is no text: code points that Unicode does not have (Python refuses them) and lone surrogates
    (JSON does) are replaced."""
    flat = numpy.ascontiguousarray(array.reshape(-1))
    codes = flat.view(array.dtype.byteorder.replace("|", "=") + "u4")
    wrong = (codes > 0x10FFFF) | ((codes >= 0xD800) & (codes < 0xE000))
    if not wrong.any():
        return array
    return numpy.where(wrong, _REPLACEMENT, codes).astype(codes.dtype).view(array.dtype).reshape(array.shape)


def _data_uris(value: Any) -> Any:
    if isinstance(value, list):
        return [_data_uris(v) for v in value]
    return f"data:{OCTET_STREAM};base64," + base64.b64encode(value).decode()


def _rows(array: Array) -> list[list[str]]:
    """The cells of a sheet; one dimension is one column."""
    if array.ndim > 2:
        raise NotAcceptable(f"An array of {array.ndim} dimensions has no form as a sheet; slice it down to two.")
    if array.dtype.fields is not None:
        raise NotAcceptable("An array of records has no form as a sheet; ask for application/json.")
    sheet = array[:, None] if array.ndim == 1 else numpy.atleast_2d(array)
    match array.dtype.kind:
        case "f":
            return [[repr(v) for v in row] for row in _narrowed(sheet, "f8").tolist()]
        case "c":
            return [[str(v) for v in row] for row in _narrowed(sheet, "c16").tolist()]
    return [["" if v is None else str(v) for v in row] for row in plain_array(sheet)]


def _csv(array: Array) -> bytes:
    return "".join(",".join(map(_quoted, row)) + "\n" for row in _rows(array)).encode()


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text


def _html(array: Array) -> bytes:
    from html import escape

    rows = ("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in _rows(array))
    return ("<table>\n" + "\n".join(rows) + "\n</table>\n").encode()
