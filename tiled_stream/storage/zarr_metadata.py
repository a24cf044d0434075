"""What `zarr.json` says of one array, in the Zarr v3 format, and how elements are stored.

Element types that Zarr names (booleans, integers, floats, complex numbers) are stored as they are, big endian too. Types that it
has no settled word for keep their bytes: times as 64-bit integers, texts, records and long doubles as bytes along one more axis.
Either way a chunk is the bytes of its cells in C order, so that what a client sends is what rests. The declared type stands in
the attributes; the structure in the catalog is what readers of the server see.

Zarr's own model of the format has the last word on every new array (`checked_by_zarr`). Chunks are flat files (``c.0.1``):
directories of their own would cost two more inodes a frame.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy
import orjson

from ..domain.dtypes import to_numpy
from ..domain.errors import Unavailable
from ..domain.structures import ArrayStructure, DataType

__all__ = ["Grid", "cell_dtype", "checked_by_zarr", "chunk_shape", "decode_metadata", "encode_metadata"]

_NAMED = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"}
_FILL: dict[str, Any] = {"b": False, "i": 0, "u": 0, "f": 0.0, "c": [0.0, 0.0]}


class Grid(msgspec.Struct, frozen=True):
    """How the cells of one array are divided into files: it never changes, however the array grows."""

    chunk: tuple[int, ...]
    is_compressed: bool
    #: A last axis of bytes stands in the metadata and in the names of files.
    has_bytes_axis: bool

    def file(self, index: tuple[int, ...]) -> str:
        """Name of the file of one chunk."""
        return "c" + "".join(f".{i}" for i in index) + (".0" if self.has_bytes_axis else "")


def cell_dtype(data_type: DataType) -> numpy.dtype[Any]:
    """A dtype of the same bytes that is copied bit by bit (padding in records, what follows a NUL in texts)."""
    declared = to_numpy(data_type)
    return declared if declared.kind in "biufcmM" else numpy.dtype((numpy.void, declared.itemsize))


def chunk_shape(structure: ArrayStructure) -> tuple[int, ...]:
    """Along each axis the first declared chunk that is not empty, at least 1."""
    return tuple(next((p for p in parts if p > 0), 1) for parts in structure.chunks)


def checked_by_zarr(content: bytes) -> bytes:
    """What a new array begins with: as Zarr itself reads and writes it. ValueError if the library of the format refuses it."""
    from zarr.core.metadata import ArrayV3Metadata

    return orjson.dumps(ArrayV3Metadata.from_dict(orjson.loads(content)).to_dict())


def encode_metadata(structure: ArrayStructure, grid: Grid, shape: tuple[int, ...], level: int) -> bytes:
    """`zarr.json` of an array of `shape` (at least the structure's own). `level` is that of zstd, if the grid is compressed."""
    declared = to_numpy(structure.data_type)
    stored = _stored(declared)
    tail = (declared.itemsize,) if grid.has_bytes_axis else ()
    order: dict[str, Any] = {"endian": "big" if stored.byteorder == ">" else "little"} if stored.itemsize > 1 else {}
    codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": order}]
    if grid.is_compressed:
        codecs.append({"name": "zstd", "configuration": {"level": level, "checksum": False}})
    document: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": (*shape, *tail),
        "data_type": stored.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": (*grid.chunk, *tail)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": _FILL[stored.kind],
        "codecs": codecs,
        "attributes": {"data_type": msgspec.to_builtins(structure.data_type)},
    }
    if structure.dims is not None:
        document["dimension_names"] = (*structure.dims, *(("byte",) if tail else ()))
    return orjson.dumps(document)


def decode_metadata(content: bytes) -> tuple[Grid, tuple[int, ...], int]:
    """Grid, shape and compression level of a `zarr.json` that `encode_metadata` made."""
    try:
        document = orjson.loads(content)
        grid = document["chunk_grid"]["configuration"]["chunk_shape"]
        shape = document["shape"]
        levels = [c["configuration"]["level"] for c in document["codecs"] if c["name"] == "zstd"]
        has_bytes_axis = has_bytes_axis_of(msgspec.convert(document["attributes"]["data_type"], DataType))
    except (orjson.JSONDecodeError, msgspec.ValidationError, KeyError, TypeError) as error:
        raise Unavailable(f"The metadata of a stored array cannot be understood: {error!r}") from error
    axes = len(shape) - has_bytes_axis
    return Grid(tuple(grid[:axes]), bool(levels), has_bytes_axis), tuple(shape[:axes]), levels[0] if levels else 0


def has_bytes_axis_of(data_type: DataType) -> bool:
    """Is one element several bytes along an axis of their own?"""
    declared = to_numpy(data_type)
    return declared.kind not in "mM" and declared.str[1:] not in _NAMED


def _stored(declared: numpy.dtype[Any]) -> numpy.dtype[Any]:
    """The dtype that Zarr is told."""
    if declared.kind in "mM":
        return numpy.dtype("i8").newbyteorder(declared.byteorder)
    return declared if declared.str[1:] in _NAMED else numpy.dtype("u1")
