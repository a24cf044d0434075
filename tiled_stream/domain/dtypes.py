"""Element types of the wire from and to numpy's. The only place in the domain that needs numpy.

What must stay true: `to_numpy` gives a type of exactly the declared size or refuses, and `from_numpy` undoes it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy

from .errors import Malformed
from .structures import DataType, Endianness, Field

__all__ = ["check", "from_numpy", "to_numpy"]

#: Kinds of the wire: numpy's letters. `O` (objects) is refused, for its elements are pointers and not data.
_KINDS = "biufcmMSUV"
_ORDER: dict[str, str] = {"little": "<", "big": ">", "not_applicable": "|"}
#: Checked here, since numpy reads more than a unit where one stands ("[s],i4" is a record to it).
_UNITS = re.compile(r"\[([1-9][0-9]{0,8})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as|generic)(/[1-9][0-9]{0,8})?\]\Z")
#: Bytes of one element. Beyond this it is not an element but an array.
_MAX_ITEMSIZE = 1 << 24


@lru_cache(maxsize=4096)
def to_numpy(data_type: DataType) -> numpy.dtype[Any]:
    """The numpy dtype. `Malformed` if there is none."""
    if not 0 <= data_type.itemsize <= _MAX_ITEMSIZE:
        raise Malformed(f"An element has at most {_MAX_ITEMSIZE} bytes, not {data_type.itemsize}.")
    if data_type.fields is not None:
        return _record(data_type.fields, data_type.itemsize)
    kind, size = data_type.kind, data_type.itemsize
    if kind == "O":
        raise Malformed("Arrays of objects cannot be stored; convert them to a numeric or string type.")
    if len(kind) != 1 or kind not in _KINDS:
        raise Malformed(f"There is no data type of kind {kind!r}; known are {', '.join(_KINDS)}.")
    if kind == "U" and size % 4:
        raise Malformed(f"Unicode strings take 4 bytes a character; {size} is no multiple of 4.")
    units = (data_type.dt_units or "") if kind in "mM" else ""
    if units and _UNITS.match(units) is None:
        raise Malformed(f"{units!r} is no unit of time; expected is one such as '[ns]' or '[25s]'.")
    number = size // 4 if kind == "U" else size
    try:
        dtype = numpy.dtype(f"{_ORDER[data_type.endianness]}{kind}{number}{units}")
    except (TypeError, ValueError) as error:
        raise Malformed(f"There is no data type of kind {kind!r} with {size} bytes and units {units!r}.") from error
    if dtype.itemsize != size:
        raise Malformed(f"A data type of kind {kind!r} has {dtype.itemsize} bytes, not {size}.")
    return dtype


def from_numpy(dtype: numpy.dtype[Any]) -> DataType:
    """The wire's description of `dtype`; one-byte and order-free kinds have no endianness."""
    if dtype.fields is not None:
        return DataType(itemsize=dtype.itemsize, fields=tuple(_field(name, dtype.fields[name][0]) for name in dtype.names or ()))
    order: Endianness = "not_applicable"
    if dtype.byteorder in "<>":
        order = "little" if dtype.byteorder == "<" else "big"
    elif dtype.byteorder == "=":
        order = "little" if numpy.little_endian else "big"
    units = None
    if dtype.kind in "mM":
        name, count = numpy.datetime_data(dtype)
        units = None if name == "generic" else f"[{count if count > 1 else ''}{name}]"
    return DataType(itemsize=dtype.itemsize, kind=dtype.kind, endianness=order, dt_units=units)


def check(data_type: DataType) -> None:
    """`Malformed` if numpy has no such type."""
    to_numpy(data_type)


def _field(name: str, dtype: numpy.dtype[Any]) -> Field:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return Field(name=name, dtype=from_numpy(base), shape=tuple(shape))
    return Field(name=name, dtype=from_numpy(dtype))


def _record(declared: tuple[Field, ...], itemsize: int) -> numpy.dtype[Any]:
    if not all(f.name for f in declared):
        raise Malformed("Every field of a record needs a name.")
    fields = [(f.name, to_numpy(f.dtype), f.shape or ()) for f in declared]
    try:
        packed = numpy.dtype(fields)
        dtype = packed if packed.itemsize == itemsize else numpy.dtype(fields, align=True)
    except (TypeError, ValueError) as error:
        raise Malformed(f"The fields do not make a record: {error}") from error
    if dtype.itemsize != itemsize:
        raise Malformed(f"The fields take {dtype.itemsize} bytes, not the {itemsize} that are declared.")
    return dtype
