"""May this be deleted? Asked of what exists now, children that storage has not seen yet included."""

from __future__ import annotations

from ..catalog.port import Catalog
from ..domain.commands import DeleteNode
from ..domain.errors import Conflict, NotFound
from ..domain.nodes import Node, NodeId
from ..domain.search import Page, Search
from ..nodes.barrier import Barrier
from ..nodes.repository import Repository

__all__ = ["Deletion"]

_PAGE = 300


class Deletion:
    """The rules of DELETE, as the wire has them."""

    def __init__(self, repository: Repository, catalog: Catalog, *, barrier: Barrier) -> None:
        self._repository = repository
        self._catalog = catalog
        self._barrier = barrier

    async def check(self, node: Node, command: DeleteNode) -> None:
        """`Conflict` if `node` has children and not `recursive`, or holds internal data and `external_only`."""
        if command.external_only and _is_internal(node):
            raise _holds_internal_data(node.key)
        if node.family != "container" or await self._repository.child_count(node.id) == 0:
            return
        if not command.recursive:
            raise Conflict(f"The node {node.key!r} has children; delete them first, or use recursive=true.")
        if command.external_only:
            await self._check_below(node)

    async def check_revision(self, node: Node, number: int, *, log: NodeId) -> None:
        """`NotFound` if there is no revision `number` of `node`; `log` tells of its edits."""
        await self._barrier.settle(log)
        offset = 0
        while True:
            revisions, _ = await self._catalog.revisions(node.id, offset=offset, limit=_PAGE)
            if any(r.number == number for r in revisions):
                return
            if len(revisions) < _PAGE:
                raise NotFound(f"The node {node.key!r} has no revision {number}.")
            offset += _PAGE

    async def _check_below(self, node: Node) -> None:
        await self._barrier.settle_all()
        page = Page(limit=_PAGE)
        while True:
            found = await self._catalog.descendants(node.id, Search(), page)
            for hit in found.hits:
                if _is_internal(hit.node):
                    raise _holds_internal_data("/".join(hit.path))
            if not found.more:
                return
            page = Page(limit=_PAGE, cursor=found.hits[-1].cursor)


def _is_internal(node: Node) -> bool:
    return any(source.management != "external" for source in node.data_sources)


def _holds_internal_data(what: str) -> Conflict:
    return Conflict(f"{what!r} holds data that this server manages; they would be lost. Use external_only=false to delete them.")
