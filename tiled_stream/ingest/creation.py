"""From "create this" to the node that will exist: its id, its data source, the place where its data will rest."""

from __future__ import annotations

from collections.abc import Callable

from ..domain.commands import CreateChild, NewDataSource
from ..domain.decide import check_specs, with_id
from ..domain.errors import Malformed, NotSupported
from ..domain.nodes import Asset, DataSource, Node, NodeId, wire_number
from ..domain.structures import ArrayStructure, AwkwardStructure, RaggedStructure, SparseStructure, TableStructure
from ..storage.port import Allocation, ArrayStore, PartStore
from ..storage.tables import Tables

__all__ = ["Creation"]


class Creation:
    """Makes nodes. `new_id` gives ids that are never used again; a store that is None is not configured."""

    def __init__(
        self, new_id: Callable[[], NodeId], *, arrays: ArrayStore | None, parts: PartStore | None, tables: Tables | None
    ) -> None:
        self._new_id = new_id
        self._arrays = arrays
        self._parts = parts
        self._tables = tables

    def node(self, parent: NodeId, key: str, command: CreateChild) -> Node:
        """The child as the event will tell it. Refuses what no store could hold; nothing is allocated on disk."""
        check_specs(command.specs)
        id = self._new_id()
        if command.family != "container" and len(command.data_sources) != 1:
            raise Malformed(
                f"A node of family {command.family!r} needs exactly one data source, not {len(command.data_sources)}."
            )
        return Node(
            id=id,
            key=key,
            parent=parent,
            family=command.family,
            metadata=command.metadata,
            specs=command.specs,
            data_sources=tuple(self._source(id, number, s) for number, s in enumerate(command.data_sources)),
        )

    def _source(self, node: NodeId, number: int, new: NewDataSource) -> DataSource:
        if new.management == "external":
            return self._external(node, number, new)
        if new.assets:
            raise Malformed("Data that exist already are 'external': register them with management 'external'.")
        place = self._allocate(node, new)
        asset = Asset(place.data_uri, place.is_directory, place.parameter, None, None, wire_number(place.data_uri))
        return DataSource(
            structure_family=new.structure_family,
            structure=new.structure,
            mimetype=place.mimetype,
            id=_source_id(node, number),
            parameters={**new.parameters, **place.parameters},
            properties=new.properties,
            assets=(asset,),
            management=new.management,
        )

    def _allocate(self, node: NodeId, new: NewDataSource) -> Allocation:
        structure = new.structure
        if isinstance(structure, ArrayStructure):
            if self._arrays is None:
                raise NotSupported("This server has no writable storage for arrays: start it with -w DIRECTORY.")
            return self._arrays.allocate(node, structure, new.mimetype)
        if isinstance(structure, AwkwardStructure | RaggedStructure | SparseStructure):
            if self._parts is None:
                raise NotSupported(
                    f"This server has no writable storage for {new.structure_family} arrays: start it with -w DIRECTORY."
                )
            return self._parts.allocate(node, structure, new.mimetype)
        if isinstance(structure, TableStructure):
            if self._tables is None:
                raise NotSupported(
                    "This server has no writable storage for tables: start it with -w DIRECTORY or -w duckdb:///PATH."
                )
            return self._tables.allocate(node, structure, new.mimetype, new.parameters)
        raise NotSupported(f"Data of family {new.structure_family!r} cannot be written to this server; register their files.")

    def _external(self, node: NodeId, number: int, new: NewDataSource) -> DataSource:
        if new.mimetype is None:
            raise Malformed("An external data source must name its 'mimetype'.")
        _check_places(new.assets)
        return DataSource(
            structure_family=new.structure_family,
            structure=new.structure,
            mimetype=new.mimetype,
            id=_source_id(node, number),
            parameters=new.parameters,
            properties=new.properties,
            assets=tuple(with_id(asset, size=asset.size) for asset in new.assets),
            management=new.management,
        )


def _source_id(node: NodeId, number: int) -> int:
    return wire_number(f"{node}/{number}")


def _check_places(assets: tuple[Asset, ...]) -> None:
    """A reader's argument takes one value (num None) or a list (0, 1, 2 …), never both, no place twice."""
    seen: dict[str | None, set[int | None]] = {}
    for asset in (a for a in assets if a.parameter is not None):
        places = seen.setdefault(asset.parameter, set())
        if asset.num in places or (places and (asset.num is None or None in places)):
            raise Malformed(f"Two assets stand at the same place of parameter {asset.parameter!r}; number them 0, 1, 2 …")
        places.add(asset.num)
