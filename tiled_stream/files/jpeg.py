"""JPEG files, with Pillow: one image a file, grey as rows and columns, colours along a third axis.

Only rows and columns are known before an image is decoded, so that one that is too large is refused without decoding it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
from PIL import Image, ImageFile, UnidentifiedImageError

from ..domain.errors import NotSupported, TooLarge
from ..domain.slices import Along
from .port import Array, ArrayFile, Source
from .reading import reading

__all__ = ["open_jpeg"]

_FAULTS = (UnidentifiedImageError, ValueError, SyntaxError, struct.error, IndexError, TypeError)
#: Grey, colours, and the four inks of printers; all of a byte a sample.
_BANDS = {"L": (), "RGB": (3,), "CMYK": (4,)}


@contextmanager
def open_jpeg(source: Source, path: Path) -> Iterator[ArrayFile]:
    """One JPEG file."""
    with reading(source, path, *_FAULTS), open(path, "rb") as raw, _image(raw) as image:
        if image.mode not in _BANDS:
            raise NotSupported(f"The image {path.name!r} is of mode {image.mode!r}; known are {', '.join(_BANDS)}.")
        yield _Jpeg(image, path, source.limit)


def _image(raw: Any) -> ImageFile.ImageFile:
    # Not `Image.open`: it guards against large images by its own, global limit, with a warning.
    from PIL import JpegImagePlugin

    return JpegImagePlugin.JpegImageFile(raw)


class _Jpeg:
    """An `ArrayFile`."""

    def __init__(self, image: Image.Image, path: Path, limit: int) -> None:
        self._image = image
        self.shape: tuple[int, ...] = (image.height, image.width, *_BANDS[image.mode])
        self.dtype = numpy.dtype("u1")
        size = image.height * image.width * max(1, len(image.getbands()))
        if size > limit:
            raise TooLarge(f"The image {path.name!r} takes {size} bytes, more than one answer may hold.")

    def read(self, axes: Sequence[Along]) -> Array:
        """See `ArrayFile`."""
        taken: Any = tuple(slice(a.start, a.start + a.count * a.step, a.step) for a in axes)
        cells: Array = numpy.asarray(self._image)
        return numpy.asarray(cells[taken])
