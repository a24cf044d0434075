"""Questions about the tree: search, count, distinct, revisions. Every answer passes the barrier, so that it shows all that was
acknowledged before the question (I7)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..catalog.port import Distinct, Hit, Revision
from ..domain.search import Filter, Page, Search
from ..nodes.repository import Located

__all__ = ["Browse", "Listing"]


class Listing(msgspec.Struct, frozen=True):
    """A page of present nodes. `count` is exact. `next_cursor` / `next_offset`: where the next page begins; both None at the end."""

    hits: tuple[Hit, ...]
    count: int
    next_cursor: int | None = None
    next_offset: int | None = None


class Browse:
    """Read only."""

    async def resolve(self, path: tuple[str, ...]) -> Located:
        """The node at `path`, as of now. `NotFound`."""
        raise NotImplementedError

    async def child_count(self, at: Located) -> int:
        """Exact number of children of a container."""
        raise NotImplementedError

    async def search(
        self, at: Located, search: Search, page: Page, *, deep: bool = False, max_depth: int | None = None
    ) -> Listing:
        """A page of children (`deep`: of all descendants; paths of hits are absolute). `NotFound` if `at` is no container."""
        raise NotImplementedError

    async def count(self, at: Located, filters: Sequence[Filter], *, deep: bool = False, max_depth: int | None = None) -> int:
        """Exact number of matches."""
        raise NotImplementedError

    async def distinct(
        self, at: Located, filters: Sequence[Filter], *, metadata: Sequence[str], structure_families: bool, specs: bool
    ) -> Distinct:
        """Distinct values among the matching children."""
        raise NotImplementedError

    async def revisions(self, at: Located, *, offset: int, limit: int) -> tuple[list[Revision], int]:
        """A page of revisions and their number."""
        raise NotImplementedError
