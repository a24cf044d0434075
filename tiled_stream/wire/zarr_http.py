"""Arrays as chunks of a Zarr hierarchy, in version 2 and version 3 of the format: what the metadata say, how a chunk is encoded.

Chunks are regular: along each axis as long as the longest one of the structure, up to 10,000. What must stay true: a chunk is
whole, padded with zeros where the array ends, in the very type that the metadata name; version 3 has no big-endian types.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy

from ..domain.dtypes import to_numpy
from ..domain.errors import Malformed, NotSupported
from ..domain.slices import Along, Selection
from ..domain.structures import ArrayStructure

__all__ = ["chunk_selection", "chunk_shape", "encode_chunk", "metadata_v2", "metadata_v3"]

_LONGEST = 10_000
_BLOSC = {"cname": "lz4", "clevel": 5, "blocksize": 0}
_NAMED = {"b1": "bool", "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64", "c16": "complex128"}
_NAMED |= {f"{kind}{size}": f"{name}{size * 8}" for kind, name in (("i", "int"), ("u", "uint")) for size in (1, 2, 4, 8)}


def chunk_shape(structure: ArrayStructure) -> tuple[int, ...]:
    """Cells of one chunk along each axis."""
    return tuple(min(_LONGEST, max(1, *parts)) if parts else 1 for parts in structure.chunks)


def chunk_selection(structure: ArrayStructure, index: tuple[int, ...]) -> Selection:
    """The part of a chunk that lies inside of the array, perhaps nothing. `Malformed` for a wrong number of indices."""
    shape = chunk_shape(structure)
    if len(index) != len(shape):
        raise Malformed(f"A chunk of this array has {len(shape)} indices, not {len(index)}.")
    axes = []
    for position, step, length in zip(index, shape, structure.shape, strict=True):
        begin = position * step
        axes.append(Along(min(begin, length), 1, max(0, min(step, length - begin))))
    return Selection(tuple(axes))


def metadata_v2(structure: ArrayStructure) -> dict[str, Any]:
    """`.zarray`."""
    return {
        "zarr_format": 2,
        "shape": structure.shape,
        "chunks": chunk_shape(structure),
        "dtype": _v2_dtype(to_numpy(structure.data_type)),
        "compressor": {"id": "blosc", "shuffle": 1, **_BLOSC},
        "fill_value": None,
        "order": "C",
        "filters": None,
    }


def metadata_v3(structure: ArrayStructure, attributes: dict[str, Any]) -> dict[str, Any]:
    """`zarr.json` of an array."""
    dtype = to_numpy(structure.data_type)
    name, fill = _v3_dtype(dtype)
    blosc = {"typesize": min(dtype.itemsize, 255), "shuffle": "shuffle", **_BLOSC}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": structure.shape,
        "data_type": name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk_shape(structure)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "blosc", "configuration": blosc},
        ],
        "dimension_names": structure.dims,
        "attributes": attributes,
        "storage_transformers": [],
    }


def encode_chunk(cells: numpy.ndarray[Any, Any], structure: ArrayStructure, *, version: int) -> bytes:
    """A whole chunk, compressed. Blocks: for a thread."""
    from numcodecs import Blosc  # heavy, and few want it

    shape = chunk_shape(structure)
    dtype = to_numpy(structure.data_type)
    if cells.shape != shape:
        padded = numpy.zeros(shape, dtype)
        padded[tuple(slice(n) for n in cells.shape)] = cells
        cells = padded
    if version == 3:
        cells = cells.astype(dtype.newbyteorder("<"), copy=False)
    raw = numpy.frombuffer(cells.tobytes(), numpy.dtype((numpy.void, dtype.itemsize)))
    encoded: bytes = Blosc(cname="lz4", clevel=5, shuffle=Blosc.SHUFFLE).encode(raw)
    return bytes(encoded)


def _v2_dtype(dtype: numpy.dtype[Any]) -> Any:
    if dtype.itemsize == 0 or dtype.kind == "O":
        raise NotSupported("Elements of no bytes cannot be told in Zarr.")
    if dtype.fields is None:
        return dtype.str
    found = []
    for name in dtype.names or ():
        field = dtype.fields[name][0]
        base, shape = field.subdtype or (field, ())
        found.append([name, _v2_dtype(base), list(shape)] if shape else [name, _v2_dtype(base)])
    return found


def _v3_dtype(dtype: numpy.dtype[Any]) -> tuple[Any, Any]:
    """Name and fill value, as zarr-python spells them where the specification has no word yet."""
    if dtype.itemsize == 0 or dtype.subdtype is not None:
        raise NotSupported("Elements of this type cannot be told in Zarr version 3; read version 2.")
    if dtype.fields is not None:
        fields = [[name, _v3_dtype(dtype.fields[name][0])[0]] for name in dtype.names or ()]
        return {"name": "structured", "configuration": {"fields": fields}}, _zeros(dtype)
    kind = f"{dtype.kind}{dtype.itemsize}"
    if kind in _NAMED:
        return _NAMED[kind], {"b": False, "f": 0.0, "c": [0.0, 0.0]}.get(dtype.kind, 0)
    if dtype.kind in "mM":
        unit, factor = numpy.datetime_data(dtype)
        word = "timedelta64" if dtype.kind == "m" else "datetime64"
        return {"name": f"numpy.{word}", "configuration": {"unit": unit, "scale_factor": factor}}, 0
    if dtype.kind in "SUV":
        word = {"S": "null_terminated_bytes", "U": "fixed_length_utf32", "V": "raw_bytes"}[dtype.kind]
        return {"name": word, "configuration": {"length_bytes": dtype.itemsize}}, _zeros(dtype) if dtype.kind == "V" else ""
    raise NotSupported(f"Elements of type {dtype} cannot be told in Zarr version 3; read version 2.")


def _zeros(dtype: numpy.dtype[Any]) -> str:
    return base64.b64encode(bytes(dtype.itemsize)).decode()
