"""The present of a node: its catalog row at the watermark, plus the fold of its log's tail (headers only).

Writers validate against it and metadata reads are answered from it, without waiting for storage (I7). Read the tail first,
then the catalog: the union then cannot miss.
"""

from __future__ import annotations

import msgspec

from ..domain.nodes import Node, NodeId

__all__ = ["Located", "Repository"]


class Located(msgspec.Struct, frozen=True):
    """A node found by its path, as of now.

    `node` carries the present metadata and structure. `head` is the sequence of its own log up to which `node` is folded.
    `column` is set if the path went on into a table: then the thing addressed is that column, a virtual array.
    """

    node: Node
    path: tuple[str, ...]
    head: int
    column: str | None = None


class Repository:
    """Finds nodes by path and tells their present. One a process; concurrent use is fine."""

    async def resolve(self, path: tuple[str, ...]) -> Located:
        """The node at `path` (empty: the root). `NotFound` with the segments."""
        raise NotImplementedError

    async def locate(self, id: NodeId) -> Node:
        """The present of a node by id."""
        raise NotImplementedError
