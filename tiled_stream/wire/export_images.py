"""Arrays as pictures: PNG to look at, TIFF to keep.

A PNG has 8 bits a channel, so that its values are stretched over them; a TIFF has the values themselves. What has no form as a
picture is refused with the reason.
"""

from __future__ import annotations

import io
from typing import Any

import numpy

from ..domain.errors import NotAcceptable
from .export_library import library

__all__ = ["encode_png", "encode_tiff"]

Array = numpy.ndarray[Any, Any]


def encode_png(array: Array) -> bytes:
    """Rows and columns, or those with 3 or 4 colours. The least finite value is black, the greatest white; NaN is black.

    Colours of 8 bits stay as they are.
    """
    _check(array, "biuf", "PNG")
    is_coloured = array.ndim == 3 and array.shape[2] in (3, 4)
    if array.ndim != 2 and not is_coloured:
        raise NotAcceptable(
            f"An array of shape {array.shape} is no picture: a PNG takes rows and columns, or these with 3 or 4 colours last. "
            f"Take a part of it with ?slice=."
        )
    image = library("PIL.Image", package="pillow")
    bytes_of = array if is_coloured and array.dtype == numpy.uint8 else _stretched(array)
    sink = io.BytesIO()
    image.fromarray(numpy.ascontiguousarray(bytes_of)).save(sink, format="PNG")
    return sink.getvalue()


def encode_tiff(array: Array) -> bytes:
    """Any number of dimensions; the values as they are, in the byte order of this machine. Booleans are 0 and 1."""
    _check(array, "biufc", "TIFF")
    plain = array.astype(numpy.uint8) if array.dtype.kind == "b" else array
    widest = {"f": "f8", "c": "c16"}.get(plain.dtype.kind)
    if widest is not None and plain.dtype.itemsize > numpy.dtype(widest).itemsize:
        plain = plain.astype(widest)
    sink = io.BytesIO()
    native = numpy.ascontiguousarray(numpy.atleast_2d(plain), dtype=plain.dtype.newbyteorder("="))
    library("tifffile").imwrite(sink, native, photometric="minisblack")
    return sink.getvalue()


def _check(array: Array, kinds: str, what: str) -> None:
    if array.dtype.kind not in kinds or array.dtype.fields is not None:
        raise NotAcceptable(f"An array of type {array.dtype} has no form as a {what}; ask for application/json.")
    if not array.size:
        raise NotAcceptable(f"An array without elements (shape {array.shape}) has no form as a {what}.")


def _stretched(array: Array) -> Array:
    values = array.astype(numpy.float64)
    finite = numpy.isfinite(values)
    if not finite.any():
        return numpy.zeros(array.shape, numpy.uint8)
    low, high = values[finite].min(), values[finite].max()
    # Halved, for the difference of two doubles may not be one.
    span = high / 2 - low / 2
    if span == 0:
        share = numpy.where(values > low, 1.0, 0.0)
    else:
        with numpy.errstate(all="ignore"):
            share = numpy.clip((values / 2 - low / 2) / span, 0.0, 1.0)
    levels: Array = numpy.rint(numpy.nan_to_num(share, nan=0.0) * 255).astype(numpy.uint8)
    return levels
