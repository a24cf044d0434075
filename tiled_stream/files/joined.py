"""An array over one file or many, fitted to what is declared.

A detector may be ahead of its documents: more rows than declared are not shown. It may be behind, in files that arrive late: a
row that is not there yet is `Unavailable`, rows that are there are given. Values are never converted if that could change them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy

from ..domain.chunks import size
from ..domain.dtypes import to_numpy
from ..domain.errors import Malformed, TooLarge, Unavailable
from ..domain.slices import Along, Selection
from ..domain.structures import ArrayStructure
from .port import Array, ArrayFile, OpenArray, Source
from .reading import not_ready
from .rows import grouping, run_of

__all__ = ["JoinedArray"]


class JoinedArray:
    """An `ArrayReader`. Each file holds rows along its first axis; `is_stack`: each file is as a whole one frame or some."""

    def __init__(self, source: Source, open: OpenArray, *, is_stack: bool = False) -> None:
        assert isinstance(source.structure, ArrayStructure)
        self._source = source
        self._open = open
        self._is_stack = is_stack
        self._shape = source.structure.shape
        self._dtype = to_numpy(source.structure.data_type)

    def read(self, selection: Selection) -> Array:
        """See `ArrayReader`."""
        if size(selection.shape) * self._dtype.itemsize > self._source.limit:
            raise TooLarge(f"The answer would exceed {self._source.limit} bytes; ask for less with ?slice= or by blocks.")
        if 0 in selection.shape or self._dtype.itemsize == 0:
            return numpy.empty(selection.shape, self._dtype)
        if not self._source.uris:
            raise Unavailable("No file is registered for this array yet. Try again.", retry_after=1.0)
        forwards = tuple(_forwards(a) for a in selection.axes)
        with _Files(self._source, self._open) as files:
            cells = self._region(files, forwards)
        index: Any = (..., *(slice(None, None, -1 if a.step < 0 else 1) for a in selection.axes))
        cells = cells.reshape(tuple(a.count for a in selection.axes))[index]
        return numpy.ascontiguousarray(_converted(cells, self._dtype)).reshape(selection.shape)

    def _region(self, files: _Files, axes: tuple[Along, ...]) -> Array:
        place = _Stack(files, self._shape, axes) if self._is_stack else _Rows(files)
        grouped = grouping(self._shape, place.row)
        if grouped is None:
            return self._reshaped(place, axes)
        inner = tuple(Along(0, 1, 1) if a is None else axes[a] for a in grouped.axes)
        return place.read(list(run_of(self._shape[: grouped.lead], axes[: grouped.lead])), inner)

    def _reshaped(self, place: _Rows, axes: tuple[Along, ...]) -> Array:
        """As many cells, otherwise arranged: everything is read."""
        rows = place.count()
        found = (rows, *place.row)
        if size(found) != size(self._shape):
            raise Malformed(f"The files hold an array of shape {found}, which does not fit the declared shape {self._shape}.")
        if size(found) * place.files.dtype.itemsize > self._source.limit:
            raise TooLarge(
                f"The files hold an array of shape {found}, the declared shape is {self._shape}; to be arranged anew it would "
                f"take more than {self._source.limit} bytes. Declare the shape of the files."
            )
        cells = place.read([Along(0, 1, rows)], tuple(Along(0, 1, n) for n in place.row))
        return cells.reshape(self._shape)[tuple(slice(a.start, a.start + a.count * a.step, a.step) for a in axes)]


class _Files:
    """The files of a source, one of them open at a time."""

    def __init__(self, source: Source, open: OpenArray) -> None:
        self._source = source
        self._open = open
        self._stack = ExitStack()
        self._now: tuple[int, Path, ArrayFile] | None = None
        self.count = len(source.uris)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        return self._stack.__exit__(kind, error, trace)  # what failed is told by the format, who knows why

    def file(self, number: int) -> ArrayFile:
        """This file, opened."""
        if self._now is None or self._now[0] != number:
            self._now = None
            self._stack.close()
            path = self._source.path(number)
            self._now = number, path, self._stack.enter_context(self._open(self._source, path))
        return self._now[2]

    @property
    def path(self) -> Path:
        """Of the file that is open."""
        assert self._now is not None
        return self._now[1]

    @property
    def dtype(self) -> numpy.dtype[Any]:
        """Of the file that is open."""
        assert self._now is not None
        return self._now[2].dtype


class _Rows:
    """Files of rows, one after the other; how many are in a file is known once it was opened."""

    def __init__(self, files: _Files) -> None:
        self.files = files
        self.row = files.file(0).shape[1:]
        self._ends: list[int] = []

    def read(self, runs: Sequence[Along], inner: tuple[Along, ...]) -> Array:
        """Rows, and of each of them a region."""
        parts = [part for run in runs for part in self._parts(run, inner)]
        kinds = {p.dtype.kind for p in parts}
        if len({p.dtype for p in parts}) > 1 and kinds not in ({"S"}, {"U"}):  # texts are as long as the longest one there
            raise Malformed(f"The files hold different data types: {', '.join(sorted({str(p.dtype) for p in parts}))}.")
        return parts[0] if len(parts) == 1 else numpy.concatenate(parts)

    def count(self) -> int:
        """All rows that there are."""
        while self._more():
            pass
        return self._ends[-1]

    def _parts(self, run: Along, inner: tuple[Along, ...]) -> list[Array]:
        parts, done = [], 0
        while done < run.count:
            number, first, there = self._locate(run.start + done * run.step)
            taken = min(run.count - done, (there - 1 - first) // run.step + 1)
            parts.append(self._read(number, Along(first, run.step, taken), inner))
            done += taken
        return parts

    def _read(self, number: int, rows: Along, inner: tuple[Along, ...]) -> Array:
        file = self.files.file(number)
        if not file.shape:
            return file.read(()).reshape(1)
        return file.read((rows, *inner))

    def _locate(self, row: int) -> tuple[int, int, int]:
        """Which file, which row of it, and how many it has."""
        while not self._ends or row >= self._ends[-1]:
            if not self._more():
                raise not_ready(self.files.path, f"there are {self._ends[-1]} rows so far, row {row} was asked for")
        number = int(numpy.searchsorted(self._ends, row, side="right"))
        start = self._ends[number - 1] if number else 0
        return number, row - start, self._ends[number] - start

    def _more(self) -> bool:
        """Look into one file more. False if there is none."""
        number = len(self._ends)
        if number == self.files.count:
            return False
        shape = self.files.file(number).shape
        if shape[1:] != self.row:
            raise Malformed(f"{self.files.path.name!r} holds rows of shape {shape[1:]}, the first file rows of {self.row}.")
        self._ends.append((self._ends[-1] if self._ends else 0) + (shape[0] if shape else 1))
        return True


class _Stack(_Rows):
    """Files of one shape, each a frame; or several, if the declared shape says so. Only those are opened that are read."""

    def __init__(self, files: _Files, declared: tuple[int, ...], axes: tuple[Along, ...]) -> None:
        self.files = files
        # Likely the first one that is wanted: another could be gone, or not there yet.
        first = axes[0].start * files.count // declared[0] if axes else 0
        self._shape = files.file(min(first, files.count - 1)).shape
        self._is_one = len(self._shape) == 0 or grouping(declared, self._shape) is not None
        self.row = self._shape if self._is_one else self._shape[1:]

    def count(self) -> int:
        """All rows that there must be."""
        return self.files.count * self._each

    @property
    def _each(self) -> int:
        return 1 if self._is_one else self._shape[0]

    def _read(self, number: int, rows: Along, inner: tuple[Along, ...]) -> Array:
        file = self.files.file(number)
        if file.shape != self._shape:
            raise Malformed(f"{self.files.path.name!r} holds an array of shape {file.shape}, other files of {self._shape}.")
        return file.read(inner)[numpy.newaxis] if self._is_one else file.read((rows, *inner))

    def _locate(self, row: int) -> tuple[int, int, int]:
        number, inside = divmod(row, self._each)
        if number >= self.files.count:
            raise Unavailable(
                f"{self.files.count} files are registered so far, the data asked for begin in number {number + 1}. Try again.",
                retry_after=1.0,
            )
        return number, inside, self._each


def _forwards(along: Along) -> Along:
    """The same cells in rising order."""
    return Along(along.start + along.step * (along.count - 1), -along.step, along.count) if along.step < 0 else along


def _converted(cells: Array, declared: numpy.dtype[Any]) -> Array:
    """In the declared dtype, if every value of the one found has a place in it."""
    if cells.dtype == declared:
        return cells
    if not numpy.can_cast(cells.dtype, declared, "safe"):
        raise Malformed(f"The file holds elements of type {cells.dtype}, which do not fit the declared {declared}.")
    return cells.astype(declared)
