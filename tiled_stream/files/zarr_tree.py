"""What is in a directory of Zarr, format 2 or 3: groups as containers, arrays as arrays, attributes as metadata.

A group is a directory of directories. What is one of them is told by a small file in it, so that a listing looks for those files
and reads only the ones of its page. Consolidated metadata are not looked at: who appends to a store may leave them behind.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy

from ..domain.dtypes import from_numpy, to_numpy
from ..domain.errors import NotFound, NotSupported, TooLarge
from ..domain.structures import ArrayStructure
from .blocks import blocks
from .port import Damaged, Entry, Source, Tree
from .reading import reading
from .zarr_directory import FAULTS, below, opened

__all__ = ["open_zarr_tree"]

_MAX_METADATA = 4 << 20
_MARKS = ("zarr.json", ".zgroup", ".zarray")


@contextmanager
def open_zarr_tree(source: Source, path: Path) -> Iterator[Tree]:
    """The directory of a group, or of an array."""
    with reading(source, path, *FAULTS):
        path.stat()
        yield _ZarrTree(source, path)


class _ZarrTree:
    """A `Tree`."""

    def __init__(self, source: Source, path: Path) -> None:
        self._wall = source.wall
        self._root = path

    def entry(self, keys: tuple[str, ...]) -> Entry:
        """See `Tree`."""
        place = below(self._root, keys, self._wall)
        kind = self._kind(place)
        if kind == "array":
            return self._array(place)
        if kind == "group":
            return Entry(family="container", metadata=self._attributes(place), count=len(self._children(place)))
        if not keys:
            raise Damaged("it holds no metadata of a group or an array")
        raise NotFound(f"There is no {'/'.join(keys)!r} in {self._root.name!r}.")

    def names(self, keys: tuple[str, ...], *, offset: int, limit: int, backwards: bool) -> list[str]:
        """See `Tree`. By name."""
        names = sorted(self._children(below(self._root, keys, self._wall)), reverse=backwards)
        return names[offset : offset + limit]

    def _children(self, place: Path) -> list[str]:
        names = []
        with os.scandir(place) as found:
            for child in found:
                if child.is_dir() and any(os.path.exists(os.path.join(child.path, mark)) for mark in _MARKS):
                    names.append(child.name)
        return [name for name in names if _is_text(name)]

    def _kind(self, place: Path) -> str | None:
        said = self._json(place / "zarr.json")
        if said is not None:
            return str(said.get("node_type"))
        if (place / ".zarray").is_file():
            return "array"
        return "group" if (place / ".zgroup").is_file() else None

    def _attributes(self, place: Path) -> dict[str, Any]:
        said = self._json(place / "zarr.json")
        found = self._json(place / ".zattrs") if said is None else said.get("attributes")
        return found if isinstance(found, dict) else {}

    def _array(self, place: Path) -> Entry:
        array = opened(place, self._wall)
        dtype = numpy.dtype(array.dtype)
        if dtype.kind in "OT" or (dtype.names and to_numpy(from_numpy(dtype)) != dtype):
            raise NotSupported("Zarr arrays of objects or of texts of variable length cannot be read.")
        shape = tuple(map(int, array.shape))
        metadata = self._attributes(place)
        names = getattr(array.metadata, "dimension_names", None) or metadata.pop("_ARRAY_DIMENSIONS", None)
        structure = ArrayStructure(
            data_type=from_numpy(dtype),
            chunks=blocks(shape, tuple(map(int, array.chunks)), dtype.itemsize),
            shape=shape,
            dims=_dims(names, len(shape)),
        )
        to_numpy(structure.data_type)
        return Entry(family="array", structure=structure, metadata=metadata)

    def _json(self, path: Path) -> dict[str, Any] | None:
        """None without such a file."""
        try:
            with open(self._wall.within(path), "rb") as file:
                content = file.read(_MAX_METADATA + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if len(content) > _MAX_METADATA:
            raise TooLarge(f"The metadata of {path.parent.name!r} take more than {_MAX_METADATA} bytes.")
        found = json.loads(content, parse_constant=lambda name: None)
        if not isinstance(found, dict):
            raise Damaged("its metadata are not an object")
        return found


def _dims(names: Any, count: int) -> tuple[str, ...] | None:
    """Only if all of them have one."""
    if not isinstance(names, list | tuple) or len(names) != count or not all(isinstance(n, str) for n in names):
        return None
    return tuple(names)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
