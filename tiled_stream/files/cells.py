"""Cells that lie in a file in C order, as they are in memory: what `.npy` files hold, and TIFF files that are not compressed.

No memory map: if the file is cut while one is read, the process is killed. Only the rows between the first and the last cell of a
region are read, in pieces of bounded size.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from typing import Any, BinaryIO

import numpy

from ..domain.slices import Along
from .port import Array

__all__ = ["Cells"]

#: Bytes that are read at once.
_PIECE = 16 << 20


class Cells:
    """An `ArrayFile` over an open file. `offset`: where the cells begin, in bytes."""

    def __init__(self, file: BinaryIO, *, offset: int, shape: tuple[int, ...], dtype: numpy.dtype[Any]) -> None:
        self._file = file
        self._offset = offset
        self.shape = shape
        self.dtype = dtype

    def read(self, axes: Sequence[Along]) -> Array:
        """See `ArrayFile`. EOFError if the file ends before."""
        out = numpy.empty(tuple(a.count for a in axes), self.dtype)
        self._fill(out, self._offset, self.shape, axes)
        return out

    def _fill(self, out: Array, offset: int, shape: tuple[int, ...], axes: Sequence[Along]) -> None:
        """Rows of the first axis that takes more than one; axes before it only say where."""
        if not axes:
            out[...] = self._cells(offset, 1).reshape(())
            return
        first, row = axes[0], prod(shape[1:])
        width = row * self.dtype.itemsize
        if first.count == 1 and len(axes) > 1:
            self._fill(out[0], offset + first.start * width, shape[1:], axes[1:])
            return
        inner: Any = tuple(slice(a.start, a.start + a.count * a.step, a.step) for a in axes[1:])
        if first.step > 1 and width > _PIECE // 64:
            for number in range(first.count):
                begin = offset + (first.start + number * first.step) * width
                self._fill(out[number : number + 1], begin, (1, *shape[1:]), (Along(0, 1, 1), *axes[1:]))
            return
        each = max(1, _PIECE // max(1, width * first.step))
        for done in range(0, first.count, each):
            count = min(each, first.count - done)
            rows = (count - 1) * first.step + 1
            begin = offset + (first.start + done * first.step) * width
            piece = self._cells(begin, rows * row).reshape((rows, *shape[1:]))
            out[done : done + count] = piece[(slice(None, None, first.step), *inner)]

    def _cells(self, offset: int, count: int) -> Array:
        wanted = count * self.dtype.itemsize
        self._file.seek(offset)
        content = self._file.read(wanted)
        if len(content) < wanted:
            size = os.fstat(self._file.fileno()).st_size
            raise EOFError(f"it has {size} bytes, {offset + wanted} are needed")
        return numpy.frombuffer(content, self.dtype)
