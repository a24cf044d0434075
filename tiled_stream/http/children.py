"""What an answer about a whole container reads: its children, all or some, and how many bytes it may still grow by."""

from __future__ import annotations

from ..domain.errors import NotFound, TooLarge
from ..domain.search import Page, Search
from ..nodes.repository import Located
from .services import Edge

__all__ = ["Budget", "children", "chosen"]

_PAGE = 300


async def children(edge: Edge, at: Located) -> list[Located]:
    """All children of a container, in order of creation."""
    found: list[Located] = []
    page = Page(limit=_PAGE)
    while True:
        listing = await edge.browse.search(at, Search(), page)
        for hit in listing.hits:
            found.append(await edge.browse.resolve(hit.path))
        if listing.next_cursor is None:
            return found
        page = Page(limit=_PAGE, cursor=listing.next_cursor)


async def chosen(edge: Edge, at: Located, fields: list[str] | None) -> list[Located]:
    """The children of these names, those that exist; None: all."""
    if fields is None:
        return await children(edge, at)
    found = []
    for name in dict.fromkeys(fields):
        try:
            found.append(await edge.browse.resolve((*at.path, name)))
        except NotFound:
            continue  # the wire passes over names of nothing
    return found


class Budget:
    """How many bytes an answer may still grow by."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit

    def spend(self, size: int) -> None:
        """`TooLarge` if that is more than there is."""
        self._left -= size
        if self._left < 0:
            raise TooLarge(f"The answer would exceed {self._limit} bytes; ask for single fields (?field=) or nodes.")
