"""TIFF files, with tifffile: the first series of images in a file, page by page.

Pages that a selection does not touch are not decoded. Some compressions need the package imagecodecs; who misses it is told.
"""

from __future__ import annotations

import itertools
import logging
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy
import tifffile

from ..domain.errors import NotSupported, TooLarge
from ..domain.slices import Along
from .cells import Cells
from .port import Array, ArrayFile, Damaged, Source
from .reading import reading

__all__ = ["open_tiff"]

_FAULTS = (tifffile.TiffFileError, ValueError, IndexError, KeyError, TypeError, struct.error, RuntimeError, zlib.error)
# What it complains about is told to who asked, or is of no consequence.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@contextmanager
def open_tiff(source: Source, path: Path) -> Iterator[ArrayFile]:
    """One TIFF file."""
    with reading(source, path, *_FAULTS), open(path, "rb") as raw, tifffile.TiffFile(raw, name=path.name) as file:
        if not file.series:
            raise Damaged("it holds no image")
        series = file.series[0]
        if series.dataoffset is not None:
            dtype = series.dtype.newbyteorder(file.byteorder)
            yield Cells(raw, offset=series.dataoffset, shape=tuple(series.shape), dtype=dtype)
        else:
            yield _Pages(series, path, source.limit)


class _Pages:
    """Images that are decoded one at a time. `limit`: bytes of a page."""

    def __init__(self, series: tifffile.TiffPageSeries, path: Path, limit: int) -> None:
        self._series = series
        self._path = path
        self._limit = limit
        self.shape = tuple(series.shape)
        self.dtype = numpy.dtype(series.dtype)
        page = tuple(n for n in series.keyframe.shape if n != 1)
        #: The first axes number the pages, the others are those of a page.
        self._lead = self._leading(page)

    def read(self, axes: Sequence[Along]) -> Array:
        """See `ArrayFile`."""
        out = numpy.empty(tuple(a.count for a in axes), self.dtype)
        numbered, inner = axes[: self._lead], axes[self._lead :]
        taken: Any = tuple(slice(a.start, a.start + a.count * a.step, a.step) for a in inner)
        for place in itertools.product(*(range(a.count) for a in numbered)):
            index = tuple(a.start + n * a.step for a, n in zip(numbered, place, strict=True))
            number = int(numpy.ravel_multi_index(index, self.shape[: self._lead])) if index else 0
            out[place] = self._page(number)[taken]
        return out

    def _leading(self, page: tuple[int, ...]) -> int:
        for lead in range(len(self.shape) + 1):
            if tuple(n for n in self.shape[lead:] if n != 1) == page and prod(self.shape[:lead]) == len(self._series.pages):
                return lead
        raise NotSupported(f"The images in {self._path.name!r} are of different shapes.")

    def _page(self, number: int) -> Array:
        page = self._series.pages[number]
        if page is None:
            raise Damaged(f"it has no image number {number}")
        if page.nbytes > self._limit:
            raise TooLarge(f"An image of {self._path.name!r} has {page.nbytes} bytes, more than one answer may hold.")
        try:
            cells = page.asarray()
        except (ValueError, ImportError) as error:
            if "imagecodecs" in str(error):
                raise NotSupported(
                    f"The compression of {self._path.name!r} ({page.compression!s}) needs a package that this server does not "
                    "have: pip install imagecodecs"
                ) from None
            raise
        return numpy.asarray(cells).reshape(self.shape[self._lead :])
