"""What is in an HDF5 file: groups as containers, datasets as arrays, attributes as metadata.

Links are followed as far as the wall allows; a link that leads back to a group it came through is refused, so that every tree has
an end. A dataset whose elements have no place in an array (sequences of variable length, references) is told as one of empty
texts of the same shape, as the peers do it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy

from ..domain.dtypes import from_numpy, to_numpy
from ..domain.errors import Malformed, NotFound, NotSupported, TooLarge
from ..domain.structures import ArrayStructure
from .blocks import blocks
from .hdf5 import opening_of
from .hdf5_attributes import attributes
from .hdf5_links import Hdf5Links
from .hdf5_open import HDF5, Opening, is_writing
from .port import Entry, Source, Tree
from .reading import not_ready, reading

__all__ = ["Hdf5Tree", "open_hdf5_tree", "opened"]

#: Texts of variable length that are looked through, to tell how long they are.
_MAX_TEXTS = 1_000_000
_PIECE = 1 << 16


@contextmanager
def open_hdf5_tree(source: Source, path: Path) -> Iterator[Tree]:
    """The file, or the group in it that the parameter `dataset` names."""
    with opened(source, path) as (file, opening):
        yield Hdf5Tree(file, path, source=source, opening=opening)


@contextmanager
def opened(source: Source, path: Path) -> Iterator[tuple[h5py.File, Opening]]:
    """The file, alone with it."""
    with reading(source, path, ValueError, KeyError, RuntimeError, TypeError), HDF5:
        opening = opening_of(source)
        try:
            with opening.file(path) as file:
                yield file, opening
        except OSError as error:
            if is_writing(error):
                raise not_ready(path, f"it is open for writing, not in SWMR mode ({error})") from None
            raise


class Hdf5Tree:
    """A `Tree`. Files that links lead to are open for as long as one question takes."""

    def __init__(self, file: h5py.File, path: Path, *, source: Source, opening: Opening) -> None:
        self._file = file
        self._path = path
        self._wall = source.wall
        self._opening = opening
        name = source.parameters.get("dataset") or ""
        if not isinstance(name, str):
            raise Malformed(f"The parameter 'dataset' is the path of a group in the HDF5 file, not {name!r}.")
        self._begin = name
        # The group that was asked for last, and those on the way to it: its children are asked for next.
        self._last: tuple[tuple[str, ...], h5py.Group, frozenset[tuple[int, int]]] | None = None

    def entry(self, keys: tuple[str, ...]) -> Entry:
        """See `Tree`."""
        with ExitStack() as stack:
            links = Hdf5Links(self._wall, stack, self._opening)
            found = self._found(links, keys)
            if isinstance(found, h5py.Group):
                return self.group(found)
            if isinstance(found, h5py.Dataset):
                links.check(found, self._path)
                return self.dataset(found)
            raise NotSupported(f"{'/'.join(keys)!r} in {self._path.name!r} is neither a group nor a dataset.")

    def names(self, keys: tuple[str, ...], *, offset: int, limit: int, backwards: bool) -> list[str]:
        """See `Tree`. In the order of the file, or by name."""
        with ExitStack() as stack:
            group = self._found(Hdf5Links(self._wall, stack, self._opening), keys)
            if not isinstance(group, h5py.Group):
                raise NotFound(f"{'/'.join(keys)!r} in {self._path.name!r} is not a group.")
            return _names(group, offset, limit, backwards) if limit else []

    def group(self, group: h5py.Group) -> Entry:
        """What a group is told as."""
        return Entry(family="container", metadata=attributes(group), count=len(group))

    def dataset(self, dataset: h5py.Dataset) -> Entry:
        """What a dataset is told as."""
        return Entry(family="array", structure=array_structure(dataset), metadata=attributes(dataset))

    def _found(self, links: Hdf5Links, keys: tuple[str, ...]) -> Any:
        if keys and self._last is not None and self._last[0] == keys[:-1]:
            group, seen = self._last[1:]
            return self._step(links, (group, self._path), keys[-1], seen)[0]
        here = self._step(links, (self._file, self._path), self._begin, frozenset())
        seen = frozenset[tuple[int, int]]()
        for key in keys:
            if isinstance(here[0], h5py.Group):
                seen |= {_place(here[0])}
            here = self._step(links, here, key, seen)
        if here[1] == self._path and isinstance(here[0], h5py.Group):
            self._last = keys, here[0], seen | {_place(here[0])}
        return here[0]

    def _step(self, links: Hdf5Links, here: tuple[Any, Path], name: str, seen: frozenset[tuple[int, int]]) -> tuple[Any, Path]:
        """To a child. `seen`: the groups on the way."""
        try:
            found, path = links.walk(*here, name)
        except FileNotFoundError:
            raise NotFound(f"{name!r} in {self._path.name!r} leads to a file that does not exist.") from None
        if isinstance(found, h5py.Group) and _place(found) in seen:
            raise Malformed(f"{name!r} in {self._path.name!r} leads back to a group that it lies in.")
        return found, path


def array_structure(dataset: h5py.Dataset, dims: tuple[str, ...] | None = None) -> ArrayStructure:
    """A scalar is an array of one element; a dataset without a shape one of none."""
    shape: tuple[int, ...] = (0,) if dataset.shape is None else tuple(map(int, dataset.shape)) or (1,)
    dtype = _dtype(dataset)
    chunk = dataset.chunks if dataset.shape else None
    return ArrayStructure(
        data_type=from_numpy(dtype),
        chunks=blocks(shape, chunk, dtype.itemsize),
        shape=shape,
        dims=dims if dims is not None and len(dims) == len(shape) else None,
    )


def _dtype(dataset: h5py.Dataset) -> numpy.dtype[Any]:
    dtype: numpy.dtype[Any] = dataset.dtype
    if dtype.kind == "O":
        is_text = h5py.check_string_dtype(dtype) is not None
        return numpy.dtype(f"S{_longest(dataset) if is_text else 1}")
    if dtype.subdtype is not None:
        raise NotSupported(f"The elements of the dataset {dataset.name!r} are arrays themselves.")
    if dtype.names and to_numpy(from_numpy(dtype)) != dtype:
        raise NotSupported(f"The records of the dataset {dataset.name!r} have gaps or overlap.")
    to_numpy(from_numpy(dtype))
    return dtype


def _longest(dataset: h5py.Dataset) -> int:
    """Bytes of the longest text."""
    if not dataset.shape:
        return 1 if dataset.shape is None else max(1, len(_bytes(dataset[()])))
    if dataset.size > _MAX_TEXTS:
        raise TooLarge(f"The dataset {dataset.name!r} holds {dataset.size} texts of variable length, too many to look through.")
    longest, row = 1, max(1, dataset.size // max(1, dataset.shape[0]))
    each = max(1, _PIECE // row)
    for begin in range(0, dataset.shape[0], each):
        longest = max(longest, max((len(_bytes(v)) for v in dataset[begin : begin + each].flat), default=0))
    return longest


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _names(group: h5py.Group, offset: int, limit: int, backwards: bool) -> list[str]:
    names: list[str] = []
    taken = 0

    def take(name: bytes) -> bool | None:
        nonlocal taken
        taken += 1
        with suppress(UnicodeDecodeError):
            names.append(name.decode())
        return taken == limit or None

    if offset < len(group):
        tracked = group.id.get_create_plist().get_link_creation_order() & h5py.h5p.CRT_ORDER_INDEXED
        group.id.links.iterate(
            take,
            idx_type=h5py.h5.INDEX_CRT_ORDER if tracked else h5py.h5.INDEX_NAME,
            order=h5py.h5.ITER_DEC if backwards else h5py.h5.ITER_INC,
            idx=offset,
        )
    return names


def _place(found: h5py.Group) -> tuple[int, int]:
    """Which object it is, whatever it is called."""
    info = h5py.h5o.get_info(found.id)
    return info.fileno, info.addr
