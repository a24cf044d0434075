"""The nodes below a container, for a subscription that is to miss none of them.

How none is missed: the container is subscribed to first, at some position of its log. Children whose creation stands there or
before it are asked of the catalog, behind the barrier (I7); those created later come as records of the container, and their logs
are followed from the first record. A creation has one sequence, so each child is in exactly one of the two sets, whatever happens
meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec

from ..domain.errors import NotFound
from ..domain.nodes import Node
from ..domain.search import Page, Search
from ..nodes.repository import Located
from ..wire.structures import structure_to_wire
from .services import Edge

__all__ = ["Child", "children", "subscribable", "told"]

_PAGE = 200


async def subscribable(edge: Edge, keys: tuple[str, ...]) -> Located:
    """The node at these keys. `NotFound` for what has no log of its own."""
    at = await edge.browse.resolve(keys)
    if at.column is not None:
        raise NotFound(f"{at.column!r} is a column of a table; subscribe to the table.")
    if at.inside:
        raise NotFound(f"{at.path[-1]!r} lies inside of a registered file; subscribe to that.")
    if at.is_above:
        raise NotFound(f"/{'/'.join(at.path)} lies above what is mounted and has no stream; subscribe below it.")
    return at


class Child(msgspec.Struct, frozen=True):
    """A child as it is now. `created`: the sequence of its creation in the log of its parent."""

    at: Located
    created: int


async def children(edge: Edge, parent: Located, *, first: int, last: int) -> AsyncIterator[Child]:
    """The present children that were created by the records `first`…`last` of their parent, oldest first.

    Waits while log or catalog cannot be reached. One that was replaced by another of the same key is left out: that one was
    created later, and is reported by its record.
    """
    # It was found before it was subscribed to: the catalog has to be as far as the position that is asked about.
    parent = msgspec.structs.replace(parent, head=max(parent.head, last))
    page = Page(limit=_PAGE)
    while first <= last:
        listing = await edge.hub.patiently(partial(edge.browse.search, parent, Search(), page))
        for hit in listing.hits:
            if not first <= hit.node.created <= last:
                continue
            try:
                at = await edge.hub.patiently(partial(edge.browse.resolve, hit.path))
            except NotFound:  # deleted since
                continue
            if at.node.id == hit.node.id:
                yield Child(at, hit.node.created)
        if listing.next_cursor is None:
            return
        page = Page(limit=_PAGE, cursor=listing.next_cursor)


def told(node: Node, path: tuple[str, ...], head: int) -> dict[str, Any]:
    """What a subscriber is told of a node before its first message."""
    return {
        "path": path,
        "key": node.key,
        "structure_family": node.family,
        "specs": [{"name": spec.name, "version": spec.version} for spec in node.specs],
        "metadata": node.metadata,
        "structure": structure_to_wire(node.structure, node.family),
        "head": head,
    }
