"""Zarr arrays in directories, formats 2 and 3, with the zarr package. (Groups: `zarr_tree.py`.)

The package is made for an event loop of its own, in a thread that nobody ends; here each read has a loop that ends with it (I9).
The store is ours, so that every file of the directory has to pass the wall. A chunk that is not there is filled, as the format
says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.api.asynchronous import open_array
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.errors import BaseZarrError

from ..domain.errors import NotFound, NotSupported
from ..domain.slices import Along
from .port import Array, ArrayFile, Source
from .reading import reading
from .wall import Wall

__all__ = ["FAULTS", "below", "open_zarr", "opened"]

T = TypeVar("T")

#: What the package raises for what it cannot understand.
FAULTS = (BaseZarrError, ValueError, KeyError, TypeError, RuntimeError, AttributeError)


@contextmanager
def open_zarr(source: Source, path: Path) -> Iterator[ArrayFile]:
    """The array in a directory, or in one below it."""
    with reading(source, path, *FAULTS):
        path.stat()
        yield _ZarrArray(opened(below(path, source.inside, source.wall), source.wall))


def below(path: Path, keys: tuple[str, ...], wall: Wall) -> Path:
    """The directory that `keys` lead to. `NotFound` for those that are no names."""
    for key in keys:
        if key in (".", "..") or "/" in key or "\x00" in key:
            raise NotFound(f"There is no {key!r} in {path.name!r}.")
    return wall.within(path.joinpath(*keys))


def opened(path: Path, wall: Wall) -> Any:
    """The array in a directory, as the package gives it; nothing of it is read but its metadata."""
    try:
        return _run(open_array(store=_Directory(path, wall), mode="r"))
    except FileNotFoundError:
        raise EOFError("it holds no metadata of an array") from None


class _ZarrArray:
    """An `ArrayFile`."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape = tuple(array.shape)
        self.dtype = numpy.dtype(array.dtype)
        if self.dtype.kind in "OT":
            raise NotSupported("Zarr arrays of objects or of texts of variable length cannot be read.")

    def read(self, axes: Sequence[Along]) -> Array:
        """See `ArrayFile`."""
        index = tuple(slice(a.start, a.start + (a.count - 1) * a.step + 1, a.step) for a in axes)
        return numpy.asarray(_run(self._array.getitem(index))).reshape(tuple(a.count for a in axes))


class _Directory(Store):
    """The files of a directory, read only."""

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __init__(self, root: Path, wall: Wall) -> None:
        super().__init__(read_only=True)
        self._root = root
        self._wall = wall

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Directory) and other._root == self._root

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """A file, or some bytes of it; None if it is not there. Blocks: the loop has nothing else to do."""
        content = _content(self._wall.within(self._root / key), byte_range)
        if content is None:
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(content)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several of them."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Is there a file of this name?"""
        return self._wall.within(self._root / key).is_file()

    async def set(self, key: str, value: Buffer) -> None:
        """Never."""
        raise NotSupported("Registered files are only read.")

    async def delete(self, key: str) -> None:
        """Never."""
        raise NotSupported("Registered files are only read.")

    def list(self) -> AsyncIterator[str]:
        """Nothing: an array needs no listing."""
        return _nothing()

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Nothing."""
        return _nothing()

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Nothing."""
        return _nothing()


async def _nothing() -> AsyncIterator[str]:
    keys: tuple[str, ...] = ()
    for key in keys:
        yield key


def _content(path: Path, wanted: ByteRequest | None) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return _ranged(file, wanted)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _ranged(file: BinaryIO, wanted: ByteRequest | None) -> bytes:
    if isinstance(wanted, RangeByteRequest):
        file.seek(wanted.start)
        return file.read(wanted.end - wanted.start)
    if isinstance(wanted, OffsetByteRequest):
        file.seek(wanted.offset)
    elif isinstance(wanted, SuffixByteRequest):
        file.seek(max(0, file.seek(0, 2) - wanted.suffix))
    return file.read()


def _run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(work)
