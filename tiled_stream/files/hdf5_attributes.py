"""Attributes of HDF5 objects as metadata: what JSON has words for, and never more of it than a page of metadata can hold.

An attribute that is too large is left out, and `_left_out` names it: metadata are sent with every listing.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import h5py
import numpy

__all__ = ["LEFT_OUT", "attributes", "plain"]

#: Under which the names of attributes stand that are not told.
LEFT_OUT = "_left_out"
#: Bytes of one attribute, bytes of all of an object, and how many of them are looked at.
_MAX_BYTES = 64 << 10
_MAX_TOTAL = 1 << 20
_MAX_NUMBER = 4096


def attributes(found: h5py.Group | h5py.Dataset, hidden: Container[str] = ()) -> dict[str, Any]:
    """All but those that are `hidden`. An attribute that cannot be read counts as too large."""
    told: dict[str, Any] = {}
    left_out: list[str] = []
    left = _MAX_TOTAL
    for name in _names(found):
        if name in hidden:
            continue
        size = _size(found, name)
        value = _read(found, name) if size <= min(left, _MAX_BYTES) else _Unread
        text = value if isinstance(value, str) else ""
        if value is _Unread or len(text) > _MAX_BYTES:
            left_out.append(name)
            continue
        told[name] = value
        left -= max(size, len(text))
    if left_out:
        told[LEFT_OUT] = left_out
    return told


def plain(value: Any) -> Any:
    """A value of h5py or numpy as JSON knows it: bytes as text, complex numbers as text, records as objects."""
    if isinstance(value, bytes | numpy.bytes_):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, numpy.void):
        return {name: plain(value[name]) for name in value.dtype.names} if value.dtype.names else value.tobytes().hex()
    if isinstance(value, numpy.ndarray):
        if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
            return value.tolist()
        return plain(value[()]) if value.ndim == 0 and value.dtype.kind != "O" else [plain(v) for v in value]
    if isinstance(value, numpy.generic):
        return plain(value.item()) if not isinstance(value.item(), numpy.generic) else str(value)
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, h5py.Empty):
        return None
    return str(value)


class _Unread:
    """Stands for a value that was not read."""


def _names(found: h5py.Group | h5py.Dataset) -> list[str]:
    names: list[str] = []

    def take(name: bytes) -> bool | None:
        try:
            names.append(name.decode())
        except UnicodeDecodeError:
            return None  # no client could ask for it
        return len(names) == _MAX_NUMBER or None

    h5py.h5a.iterate(found.id, take)
    return names


def _size(found: h5py.Group | h5py.Dataset, name: str) -> int:
    """In the file, without what is of variable length."""
    try:
        attribute = h5py.h5a.open(found.id, name.encode())
        return int(attribute.get_space().get_simple_extent_npoints() * attribute.get_type().get_size())
    except (KeyError, RuntimeError, OSError, ValueError):
        return _MAX_BYTES + 1


def _read(found: h5py.Group | h5py.Dataset, name: str) -> Any:
    try:
        return plain(found.attrs[name])
    except (KeyError, RuntimeError, OSError, ValueError, TypeError):
        return _Unread
