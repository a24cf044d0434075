"""What the data of a node look like: the shapes, chunks, dtypes and columns that the wire protocol declares.

These are values: frozen, compared by content. `dtypes.py` converts data types from and to numpy, `chunks.py` and
`slices.py` hold the geometry; nothing here computes.

JSON of the wire: `contract/02-nodes`. A structure never carries a `None` where the wire wants a list.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "ArrayStructure",
    "AwkwardStructure",
    "DataType",
    "Endianness",
    "Family",
    "Field",
    "PartStructure",
    "RaggedStructure",
    "SparseStructure",
    "Structure",
    "TableStructure",
]

Family = Literal["array", "awkward", "bytes", "container", "ragged", "sparse", "table"]
Endianness = Literal["little", "big", "not_applicable"]


class Field(msgspec.Struct, frozen=True):
    """One field of a record dtype. `shape` is the shape of a subarray, None for a scalar field."""

    name: str
    dtype: DataType
    shape: tuple[int, ...] | None = None


class DataType(msgspec.Struct, frozen=True):
    """An element's type. Simple if `fields` is None (then `kind` is numpy's letter), else a record.

    `itemsize` is in bytes (4 x characters for kind U). `dt_units` is e.g. ``"[ns]"`` or ``"[25s]"`` for kinds m, M.
    """

    itemsize: int
    kind: str = "V"
    endianness: Endianness = "not_applicable"
    dt_units: str | None = None
    fields: tuple[Field, ...] | None = None


class ArrayStructure(msgspec.Struct, frozen=True, tag_field="family", tag="array"):
    """An N-dimensional array. `chunks` covers `shape` exactly, axis by axis; a scalar has both empty."""

    data_type: DataType
    chunks: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]
    dims: tuple[str, ...] | None = None
    resizable: bool = False


class TableStructure(msgspec.Struct, frozen=True, tag_field="family", tag="table"):
    """A table. `arrow_schema` is the wire's data URI of an Arrow IPC schema message (base64); `columns` in order."""

    arrow_schema: str
    npartitions: int
    columns: tuple[str, ...]
    resizable: bool = False


class SparseStructure(msgspec.Struct, frozen=True, tag_field="family", tag="sparse"):
    """An N-dimensional array of which only some elements are kept, each with its coordinates (of `coord_data_type`)."""

    shape: tuple[int, ...]
    chunks: tuple[tuple[int, ...], ...]
    data_type: DataType | None = None
    coord_data_type: DataType | None = None
    dims: tuple[str, ...] | None = None
    resizable: bool = False
    layout: Literal["COO"] = "COO"


class AwkwardStructure(msgspec.Struct, frozen=True, tag_field="family", tag="awkward"):
    """Nested, ragged, heterogeneous data of the awkward library: so many entries of a form (as its `to_dict` tells it)."""

    length: int
    form: dict[str, Any]


class RaggedStructure(msgspec.Struct, frozen=True, tag_field="family", tag="ragged"):
    """Rows of nested lists. An axis of varying length is None in `shape` and in `chunks`; the first one never is.

    `size` is the number of elements. Only the first axis has more than one chunk.
    """

    data_type: DataType
    shape: tuple[int | None, ...]
    size: int
    chunks: tuple[tuple[int, ...] | None, ...]
    dims: tuple[str, ...] | None = None
    resizable: bool = False


#: Of the families that are written and kept in parts: see `PartWritten`.
PartStructure = SparseStructure | AwkwardStructure | RaggedStructure
Structure = ArrayStructure | TableStructure | SparseStructure | AwkwardStructure | RaggedStructure
