"""What HDF5 has no words for, said in those it has: texts, moments, durations, and metadata as attributes.

What must stay true: every element has a place, and nothing is rounded but what is wider than a double. A moment is its number,
and the attributes `dtype` and `units` say of what.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy

from .arrays import valid_texts
from .export_library import library

__all__ = ["attributes_of", "escaped", "stored", "stored_type", "time_attributes"]

Array = numpy.ndarray[Any, Any]
DType = numpy.dtype[Any]

_UNITS = {
    "D": "days",
    "h": "hours",
    "m": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
}


def stored_type(dtype: DType) -> DType:
    """The type in which elements of `dtype` are stored. Texts are UTF-8 of fixed length."""
    if dtype.fields is not None:
        fields = []
        for name in dtype.names or ():
            inner = dtype.fields[name][0]
            kind, shape = inner.subdtype or (inner, ())
            fields.append((name, stored_type(kind), shape))
        return numpy.dtype(fields)
    size = max(1, dtype.itemsize)
    match dtype.kind:
        case "U":
            text: DType = library("h5py").string_dtype("utf-8", size)
            return text
        case "S" | "V":
            return numpy.dtype(f"{dtype.kind}{size}")
        case "m" | "M":
            return numpy.dtype("i8").newbyteorder(dtype.byteorder)
        case "f" if size > 8:
            return numpy.dtype("f8")
        case "c" if size > 16:
            return numpy.dtype("c16")
    return dtype


def stored(array: Array) -> Array:
    """`array` in its stored type."""
    target = stored_type(array.dtype)
    if array.dtype.fields is not None:
        made = numpy.zeros(array.shape, target)
        for name in array.dtype.names or ():
            made[name] = stored(array[name])
        return made
    if array.dtype.kind == "U":
        return numpy.char.encode(valid_texts(array), "utf-8").astype(target).reshape(array.shape)
    if array.dtype.kind in "mM":
        return numpy.ascontiguousarray(array).view(target).reshape(array.shape)
    with numpy.errstate(all="ignore"):
        return array.astype(target, copy=False)


def time_attributes(dtype: DType) -> dict[str, str]:
    """What the numbers of moments and durations mean, in the words of the CF conventions where these have some."""
    if dtype.kind not in "mM" or dtype.fields is not None:
        return {}
    unit, count = numpy.datetime_data(dtype)
    found = {"dtype": dtype.newbyteorder("=").name}
    if unit in _UNITS and count == 1:
        found["units"] = _UNITS[unit] + (" since 1970-01-01" if dtype.kind == "M" else "")
    return found


def escaped(name: str) -> str:
    """The name of a group or dataset: a slash would be a path, and a dot the group itself."""
    return {".": "%2E", "..": "%2E%2E"}.get(name) or name.replace("/", "%2F").replace("\0", "�")


def attributes_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as attributes: numbers, texts and lists of one of them as they are, everything deeper as JSON."""
    return {_name(key): _attribute(value) for key, value in metadata.items()}


def _attribute(value: Any) -> Any:
    if value is None:
        return library("h5py").Empty("f4")
    if isinstance(value, str):
        return value.replace("\0", "�")
    if isinstance(value, bool | float) or _is_integer(value):
        return value
    if isinstance(value, list | tuple) and value:
        if all(isinstance(v, bool) for v in value) or all(_is_integer(v) for v in value):
            return numpy.array(value)
        if all(_is_integer(v) or isinstance(v, float) for v in value):
            return numpy.array(value, dtype=float)
        if all(isinstance(v, str) for v in value):
            return numpy.array([v.replace("\0", "�") for v in value], dtype=library("h5py").string_dtype())
    return json.dumps(value, default=str)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63


def _name(key: str) -> str:
    return key.replace("\0", "�") or "_"
