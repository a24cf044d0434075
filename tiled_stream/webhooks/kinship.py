"""Who is whose child: the way from the root to a node, by ids and by keys.

Nodes never move, so what was once known stays true. It is learned from the records that pass by, which also tell it of nodes that
the catalog does not have yet, or no more; the rest is asked of the catalog.
"""

from __future__ import annotations

from collections import OrderedDict

from ..catalog.port import Catalog
from ..domain.errors import NotFound
from ..domain.nodes import ROOT, NodeId

__all__ = ["Kinship", "Way"]

#: Ids and keys from the root on; the root's own key is empty.
Way = tuple[tuple[NodeId, str], ...]

_DEEPEST = 1000


class Kinship:
    """Remembers at most `size` nodes."""

    def __init__(self, catalog: Catalog, *, size: int = 20_000) -> None:
        self._catalog = catalog
        self._size = size
        self._known: OrderedDict[NodeId, tuple[NodeId, str]] = OrderedDict()

    def learn(self, node: NodeId, parent: NodeId, key: str) -> None:
        """`node` is the child of `parent` under `key`."""
        self._known[node] = (parent, key)
        self._known.move_to_end(node)
        while len(self._known) > self._size:
            self._known.popitem(last=False)

    async def way(self, node: NodeId) -> Way:
        """From the root to `node`. `NotFound` if something on it is not in the catalog yet, `Gone` if it is no more."""
        way: list[tuple[NodeId, str]] = []
        while node != ROOT:
            known = self._known.get(node)
            if known is None:
                stored = (await self._catalog.node(node)).node
                if stored.parent is None or len(way) > _DEEPEST:
                    raise NotFound(f"Node {node} leads to no root.")
                known = (stored.parent, stored.key)
                self.learn(node, *known)
            parent, key = known
            way.append((node, key))
            node = parent
        return ((ROOT, ""), *reversed(way))
