"""Structures and data sources from and to the JSON of the wire.

What must stay true: what comes out of here to a client has every key that the protocol names and none of ours; what comes in is
checked whole, so that it can be stored and read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..domain.chunks import check_array
from ..domain.errors import Malformed
from ..domain.nodes import Asset, DataSource
from ..domain.parts import FLOAT64, sparse_data_type
from ..domain.structures import (
    ArrayStructure,
    AwkwardStructure,
    DataType,
    RaggedStructure,
    SparseStructure,
    Structure,
    TableStructure,
)
from .parts import check_part
from .tables import check_table

__all__ = ["asset_to_wire", "data_source_to_wire", "data_type_to_wire", "structure_from_wire", "structure_to_wire"]


_PARTS: dict[str, type[Any]] = {"awkward": AwkwardStructure, "ragged": RaggedStructure, "sparse": SparseStructure}


def structure_to_wire(structure: Structure | None, family: str = "") -> Any:
    """As clients expect it. Without a structure: the empty object of family `bytes`, None for any other."""
    if isinstance(structure, ArrayStructure):
        return {
            "data_type": data_type_to_wire(structure.data_type),
            "chunks": structure.chunks,
            "shape": structure.shape,
            "dims": structure.dims,
            "resizable": structure.resizable,
        }
    if isinstance(structure, TableStructure):
        return {
            "arrow_schema": structure.arrow_schema,
            "npartitions": structure.npartitions,
            "columns": structure.columns,
            "resizable": structure.resizable,
        }
    if isinstance(structure, SparseStructure):
        return _sparse_to_wire(structure)
    if isinstance(structure, AwkwardStructure):
        return {"length": structure.length, "form": structure.form}
    if isinstance(structure, RaggedStructure):
        return {
            "data_type": data_type_to_wire(structure.data_type),
            "shape": structure.shape,
            "size": structure.size,
            "chunks": structure.chunks,
            "dims": structure.dims,
            "resizable": structure.resizable,
        }
    return {} if family == "bytes" else None


def _sparse_to_wire(structure: SparseStructure) -> dict[str, Any]:
    coordinates = structure.coord_data_type or msgspec.structs.replace(FLOAT64, kind="i")
    return {
        "shape": structure.shape,
        "chunks": structure.chunks,
        "data_type": data_type_to_wire(sparse_data_type(structure)),
        "coord_data_type": data_type_to_wire(coordinates),
        "dims": structure.dims,
        "resizable": structure.resizable,
        "layout": structure.layout,
    }


def data_type_to_wire(data_type: DataType) -> dict[str, Any]:
    """Simple or record, by what it is."""
    if data_type.fields is None:
        return {
            "endianness": data_type.endianness,
            "kind": data_type.kind,
            "itemsize": data_type.itemsize,
            "dt_units": data_type.dt_units,
        }
    fields = [{"name": f.name, "dtype": data_type_to_wire(f.dtype), "shape": f.shape} for f in data_type.fields]
    return {"itemsize": data_type.itemsize, "fields": fields}


def structure_from_wire(family: str, value: Any, *, is_external: bool = False) -> Structure | None:
    """Checked whole: what comes out can be stored. `Malformed` names the place of the fault."""
    if family == "array":
        array: ArrayStructure = _convert(value, ArrayStructure)
        check_array(array, is_external=is_external)
        return array
    if family == "table":
        table: TableStructure = _convert(value, TableStructure)
        check_table(table)
        return table
    if family in _PARTS:
        part = _convert(value, _PARTS[family])
        check_part(part)
        return part  # type: ignore[no-any-return]
    return None


def data_source_to_wire(source: DataSource) -> dict[str, Any]:
    """With its assets."""
    return {
        "id": source.id,
        "structure_family": source.structure_family,
        "structure": structure_to_wire(source.structure, source.structure_family),
        "mimetype": source.mimetype,
        "parameters": source.parameters,
        "properties": source.properties,
        "assets": [asset_to_wire(a) for a in source.assets],
        "management": source.management,
    }


def asset_to_wire(asset: Asset) -> dict[str, Any]:
    """All keys."""
    return {
        "data_uri": asset.data_uri,
        "is_directory": asset.is_directory,
        "parameter": asset.parameter,
        "num": asset.num,
        "size": asset.size,
        "id": asset.id,
    }


def _convert(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, dict):
        raise Malformed(f"'structure' must be an object, not {type(value).__name__}.")
    try:
        # The tag is ours; a client has no say in it.
        return msgspec.convert({k: v for k, v in value.items() if k != "family"} | {"family": kind.__struct_config__.tag}, kind)
    except msgspec.ValidationError as error:
        raise Malformed(f"'structure' is not that of such a node: {error}") from None
