"""Given the present of a node and a command: the event that happens, or why not. Pure; no `await` anywhere.

What must stay true: whatever is returned here can be applied by storage and catalog. A command that could not be is
refused, and nothing is appended for it (I10).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .chunks import block_region, extended, fits, pad_offset, size
from .commands import DeleteAsset, PatchArray, UpdateDataSource, WriteArray, WriteBlock
from .dtypes import to_numpy
from .errors import Conflict, Malformed, NotFound, NotSupported, Unsatisfiable
from .events import ArrayReferenced, ArrayWritten, AssetDeleted
from .nodes import Asset, DataSource, Node, Spec, wire_number
from .structures import ArrayStructure, DataType, TableStructure

__all__ = [
    "MAX_SPECS",
    "array_of",
    "asset_deleted",
    "block_written",
    "check_specs",
    "data_source_updated",
    "region_written",
    "table_of",
    "whole_written",
]

MAX_SPECS = 20
MAX_SPEC_LENGTH = 255


def array_of(node: Node) -> ArrayStructure:
    """Structure of an internally managed array; refused for anything that cannot be written as one."""
    if node.family != "array" or not isinstance(node.structure, ArrayStructure):
        raise NotFound(f"The node {node.key!r} is of family {node.family!r}; this endpoint writes arrays.")
    _check_writable(node)
    return node.structure


def table_of(node: Node) -> TableStructure:
    """Structure of an internally managed table; refused for anything that cannot be written as one."""
    if node.family != "table" or not isinstance(node.structure, TableStructure):
        raise NotFound(f"The node {node.key!r} is of family {node.family!r}; this endpoint writes tables.")
    _check_writable(node)
    return node.structure


def whole_written(structure: ArrayStructure, command: WriteArray) -> ArrayWritten:
    """PUT of a whole array: the body must be exactly its bytes."""
    _check_bytes(structure.data_type, structure.shape, command.body)
    return ArrayWritten(shape=structure.shape, persist=command.persist)


def block_written(structure: ArrayStructure, command: WriteBlock) -> ArrayWritten:
    """PUT of one chunk, of its actual (perhaps short) shape."""
    offset, shape = block_region(structure.chunks, command.block)
    _check_bytes(structure.data_type, shape, command.body)
    return ArrayWritten(shape=shape, offset=offset, block=command.block, persist=command.persist)


def region_written(structure: ArrayStructure, command: PatchArray) -> ArrayWritten:
    """PATCH of a region; with `extend` the array grows to hold it, else a region that does not fit is a `Conflict`."""
    if command.extend and not command.persist:
        raise Unsatisfiable("Cannot PATCH an array with both parameters 'extend' and 'persist=false': drop one of them.")
    if len(command.shape) != len(structure.shape):
        raise Conflict(f"A patch of {len(command.shape)} dimensions does not fit an array of {len(structure.shape)}.")
    offset = pad_offset(command.offset, len(structure.shape))
    _check_bytes(structure.data_type, command.shape, command.body)
    if fits(structure, offset, command.shape):
        return ArrayWritten(shape=command.shape, offset=command.offset, persist=command.persist)
    if not command.extend:
        raise Conflict(
            f"A patch of shape {command.shape} at offset {offset} does not fit within an array of shape {structure.shape}. "
            "Use ?extend=true to extend the array dynamically."
        )
    return ArrayWritten(shape=command.shape, offset=command.offset, structure=extended(structure, offset, command.shape))


def data_source_updated(node: Node, command: UpdateDataSource) -> ArrayReferenced:
    """PUT data_source: new structure and parameters; assets are added, never removed."""
    new = command.data_source
    old = next((d for d in node.data_sources if d.id == new.id), None)
    if old is None:
        raise NotFound(f"The node {node.key!r} has no data source with id {new.id}.")
    if old.management != "external" or new.management != "external":
        raise NotSupported(f"The data of {node.key!r} are managed by this server; only external data sources are updated.")
    if new.structure_family != old.structure_family:
        raise Malformed(f"A data source of family {old.structure_family!r} cannot become {new.structure_family!r}.")
    assets = {(a.parameter, a.num, a.data_uri): a for a in old.assets}
    for asset in new.assets:
        at = (asset.parameter, asset.num, asset.data_uri)
        assets[at] = with_id(asset, size=asset.size if asset.size is not None else (assets[at].size if at in assets else None))
    source = DataSource(
        structure_family=old.structure_family,
        structure=new.structure,
        mimetype=new.mimetype or old.mimetype,
        id=old.id,
        parameters=new.parameters,
        properties=new.properties,
        assets=tuple(assets.values()),
        management=new.management,
    )
    return ArrayReferenced(data_source=source, offset=command.offset, shape=command.shape)


def asset_deleted(node: Node, command: DeleteAsset) -> AssetDeleted:
    """DELETE asset: the data source without it. `Conflict` if its data are ours and may not be lost."""
    if node.family == "container":
        raise NotSupported(f"The container {node.key!r} is what its files are; delete the node.")
    for source in node.data_sources:
        kept = tuple(a for a in source.assets if a.id != command.id)
        if len(kept) == len(source.assets):
            continue
        if source.management != "external" and command.external_only:
            raise Conflict(
                f"The data of {node.key!r} are managed by this server and would be lost. Use external_only=false to delete them."
            )
        return AssetDeleted(msgspec.structs.replace(source, assets=kept))
    raise NotFound(f"The node {node.key!r} has no asset with id {command.id}.")


def with_id(asset: Asset, *, size: int | None) -> Asset:
    """The asset under the number that its URI has everywhere."""
    return Asset(
        data_uri=asset.data_uri,
        is_directory=asset.is_directory,
        parameter=asset.parameter,
        num=asset.num,
        size=size,
        id=wire_number(asset.data_uri),
    )


def check_specs(specs: Sequence[Spec]) -> None:
    """Unique, few and short, as the wire demands; else `Malformed`."""
    if len(specs) > MAX_SPECS:
        raise Malformed(f"A node has at most {MAX_SPECS} specs, not {len(specs)}.")
    if len({s.name for s in specs}) != len(specs):
        raise Malformed("The specs of a node must have different names.")
    for spec in specs:
        if len(spec.name) > MAX_SPEC_LENGTH or len(spec.version or "") > MAX_SPEC_LENGTH:
            raise Malformed(f"Name and version of a spec have at most {MAX_SPEC_LENGTH} characters.")


def _check_writable(node: Node) -> None:
    management = node.data_sources[0].management
    if management != "writable":
        raise NotSupported(f"The data of {node.key!r} are {management}: they are not written through this server.")
    if not node.data_sources[0].assets:
        raise NotSupported(f"The data of {node.key!r} were deleted; delete the node and create it anew.")


def _check_bytes(data_type: DataType, shape: tuple[int, ...], body: bytes) -> None:
    wanted = size(shape) * to_numpy(data_type).itemsize
    if len(body) != wanted:
        raise Malformed(
            f"The body has {len(body)} bytes; shape {shape} of {to_numpy(data_type)} needs {wanted}. "
            "Send the C-order bytes of the declared data type."
        )
