"""NumPy's `.npy` files, versions 1 to 3 of the format (numpy.lib.format). Pickled objects are never loaded."""

from __future__ import annotations

import ast
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy
from numpy.lib import format as npy_format

from ..domain.errors import NotSupported
from ..domain.slices import Along
from .cells import Cells
from .port import Array, ArrayFile, Damaged, Source
from .reading import reading

__all__ = ["open_npy"]

_MAGIC = b"\x93NUMPY"
#: A header is short, unless a record has thousands of fields.
_MAX_HEADER = 1 << 16


@contextmanager
def open_npy(source: Source, path: Path) -> Iterator[ArrayFile]:
    """One `.npy` file."""
    with reading(source, path, ValueError, SyntaxError, TypeError, KeyError), open(path, "rb") as file:
        yield _opened(file, path)


class _Transposed:
    """Cells in the order of Fortran: those of the transposed array in C order."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self.shape = cells.shape[::-1]
        self.dtype = cells.dtype

    def read(self, axes: Sequence[Along]) -> Array:
        return self._cells.read(axes[::-1]).T


def _opened(file: BinaryIO, path: Path) -> ArrayFile:
    begin = file.read(12)
    if len(begin) < 12:
        raise EOFError("it does not hold a whole header")
    if begin[:6] != _MAGIC or begin[6] not in (1, 2, 3):
        raise Damaged("it does not begin as such a file does")
    start = 10 if begin[6] == 1 else 12
    length = struct.unpack("<H" if begin[6] == 1 else "<I", begin[8:start])[0]
    if length > _MAX_HEADER:
        raise Damaged(f"its header is longer than {_MAX_HEADER} bytes")
    file.seek(start)
    text = file.read(length)
    if len(text) < length:
        raise EOFError("it does not hold a whole header")
    header = ast.literal_eval(text.decode("utf-8" if begin[6] == 3 else "latin-1"))
    dtype = npy_format.descr_to_dtype(header["descr"])
    if dtype.hasobject:
        raise NotSupported(f"The file {path.name!r} holds pickled objects, which are not loaded.")
    shape = tuple(int(n) for n in header["shape"])
    is_fortran = bool(header["fortran_order"])
    cells = Cells(file, offset=start + length, shape=shape[::-1] if is_fortran else shape, dtype=numpy.dtype(dtype))
    return _Transposed(cells) if is_fortran else cells
