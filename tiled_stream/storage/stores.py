"""All stores of one process, and which of them holds the data of a node.

What must stay true: a node belongs to the store that its data source names, for good. A process without that store says so
(`None`); it never reports a watermark of 0 in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Protocol

from ..domain.errors import NotSupported, Unavailable, UnsupportedType
from ..domain.nodes import Node, NodeId
from ..domain.structures import ArrayStructure, AwkwardStructure, RaggedStructure, SparseStructure, TableStructure
from .port import ArrayStore, PartStore, TableStore
from .tables import Tables

__all__ = ["PARTS", "Stores"]

#: Structures of what is stored in parts.
PARTS = (AwkwardStructure, RaggedStructure, SparseStructure)


class _Watermarks(Protocol):
    async def watermarks(self, nodes: Sequence[NodeId], /) -> list[int]: ...


class Stores:
    """`None` for a kind of store that is not configured."""

    def __init__(self, *, arrays: ArrayStore | None, parts: PartStore | None, tables: Tables | None) -> None:
        self.arrays = arrays
        self.parts = parts
        self.tables = tables

    def of(self, node: Node) -> ArrayStore | PartStore | TableStore | None:
        """The store of a node with internally managed data; None if it has none, or this process lacks the store."""
        if not node.data_sources or node.data_sources[0].management == "external":
            return None
        source = node.data_sources[0]
        if isinstance(source.structure, ArrayStructure):
            return self.arrays
        if isinstance(source.structure, PARTS):
            return self.parts
        if not isinstance(source.structure, TableStructure) or self.tables is None:
            return None
        try:
            return self.tables.of(source.mimetype)
        except (NotSupported, UnsupportedType):
            return None

    async def watermark(self, node: Node) -> int | None:
        """How far its store holds this node; None if there is no store here that could tell."""
        store = self.of(node)
        return None if store is None else (await store.watermarks([node.id]))[0]

    async def watermarks(self, nodes: Sequence[NodeId]) -> list[int | None]:
        """How far nodes are held, whichever store holds them; 0 for a node that none of the stores here has.

        None if it is not known, because a store that may have the node cannot be read now.
        """
        answers = await asyncio.gather(*(store.watermarks(nodes) for store in self._all()), return_exceptions=True)
        known: list[list[int]] = []
        is_certain = True
        for answer in answers:
            if isinstance(answer, Unavailable):
                is_certain = False
            elif isinstance(answer, BaseException):
                raise answer
            else:
                known.append(answer)
        highest = [max(each, default=0) for each in zip(*known, strict=True)] if known else [0] * len(nodes)
        return [held if held or is_certain else None for held in highest]

    def _all(self) -> Iterator[_Watermarks]:
        if self.arrays is not None:
            yield self.arrays
        if self.parts is not None:
            yield self.parts
        yield from self.tables or ()
