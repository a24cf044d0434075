"""Containers above mounts: they are in the configuration only, and hold what is mounted below them."""

from __future__ import annotations

from collections.abc import Sequence

from ..catalog.port import Hit
from ..domain.errors import NotFound, Unsatisfiable
from ..domain.search import Filter, Page, Search
from ..nodes.repository import Located, Repository
from .inside import wanted_names, wants_backwards
from .listing import Listing

__all__ = ["Above", "check_not_above"]


class Above:
    """Reads what is listed right below a container above mounts."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def child_count(self, at: Located) -> int:
        """How many there are."""
        return len(self._repository.mounts.below(at.path))

    async def search(self, at: Located, search: Search, page: Page) -> Listing:
        """A page of them. `Unsatisfiable` for filters but those by key: there is nothing else to go by."""
        backwards = wants_backwards(search)
        keys = self._keys(at, search.filters)
        first = page.offset if page.cursor is None else page.cursor
        hits = []
        for n, key in list(enumerate(reversed(keys) if backwards else keys))[first : first + page.limit]:
            below = await self._located((*at.path, key))
            if below is not None:
                hits.append(Hit(below.node, n + 1, below.path, await self._children(below)))
        is_more = page.limit > 0 and first + page.limit < len(keys)
        return Listing(tuple(hits), len(keys), next_cursor=first + page.limit if is_more else None)

    def count(self, at: Located, filters: Sequence[Filter]) -> int:
        """How many of them match."""
        return len(self._keys(at, filters))

    def _keys(self, at: Located, filters: Sequence[Filter]) -> list[str]:
        keys, names = self._repository.mounts.below(at.path), wanted_names(filters)
        return keys if names is None else [key for key in keys if key in names]

    async def _located(self, path: tuple[str, ...]) -> Located | None:
        try:
            return await self._repository.resolve(path)
        except NotFound:  # somebody has deleted what was mounted, through another server
            return None

    async def _children(self, at: Located) -> int:
        return self.child_count(at) if at.is_above else await self._repository.child_count(at.node.id)


def check_not_above(at: Located) -> None:
    """`Unsatisfiable` if `at` is above mounts: a question that only the catalog can answer."""
    if at.is_above:
        raise Unsatisfiable(f"/{'/'.join(at.path)} lies above what is mounted; ask below it, tree by tree.")
