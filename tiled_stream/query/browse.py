"""Questions about the tree: search, count, distinct, revisions. Every answer passes the barrier, so that it shows all that was
acknowledged before the question (I7). What lies inside of a registered file is asked of the file (`inside.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from ..catalog.port import Catalog, Distinct, Hit, Revision
from ..domain.errors import NotFound, NotSupported, Unsatisfiable
from ..domain.nodes import ROOT, NodeId
from ..domain.search import Filter, Page, Search
from ..log.port import Backlog
from ..nodes.barrier import Barrier
from ..nodes.repository import Located, Repository
from .above import Above, check_not_above
from .completeness import Completeness
from .inside import Content, Inside, is_file, not_a_container
from .listing import Listing
from .read_files import FileData

__all__ = ["Browse", "Listing"]


class Browse:
    """Read only. Counts beyond `exact_count_limit` are told as that and one more; None: they are always exact."""

    def __init__(
        self,
        repository: Repository,
        catalog: Catalog,
        *,
        backlog: Backlog,
        barrier: Barrier,
        files: FileData | None = None,
        complete: Completeness | None = None,
        exact_count_limit: int | None = None,
    ) -> None:
        self._complete = complete
        self._repository = repository
        self._catalog = catalog
        self._backlog = backlog
        self._barrier = barrier
        self._inside = Inside(files)
        self._above = Above(repository)
        self._at_most = None if exact_count_limit is None else exact_count_limit + 1

    async def resolve(self, path: tuple[str, ...]) -> Located:
        """The node at `path`, as of now. `NotFound`. Inside of a file: whatever reading it can raise."""
        at = await self._repository.resolve(path)
        return await self._inside.resolve(at) if at.inside else at

    async def check_begin(self, at: Located) -> None:
        """`NotFound` if `at` is registered as a place in a file, and the file is there and does not have it."""
        if is_file(at) and at.node.data_sources[0].parameters.get("dataset"):
            await self._inside.check_begin(at)

    async def census(self, at: Located) -> tuple[int, bool]:
        """Number of children of a container, and whether some may have keys that are odd (`domain/nodes.py`).

        One that is a file says 0: its node is told without opening it.
        """
        if is_file(at):
            return at.children or 0, False
        if at.is_above:
            return self._above.child_count(at), False
        count, has_odd_keys = await self._repository.census(at.node.id)
        return self._told(count), has_odd_keys

    async def contents(self, at: Located, depth: int) -> tuple[Content, ...] | None:
        """All that is below a container inside of a file, `depth` levels down; None for any other, or if that is too much."""
        return await self._inside.contents(at, depth) if at.inside else None

    async def search(
        self,
        at: Located,
        search: Search,
        page: Page,
        *,
        deep: bool = False,
        max_depth: int | None = None,
        bare: bool = False,
    ) -> Listing:
        """A page of children (`deep`: of all descendants; paths of hits are absolute). `NotFound` if `at` is no container.

        `bare`: nobody asked for more than keys.
        """
        node = _container(at)
        if is_file(at):
            _check_flat(deep)
            return await self._inside.search(at, search, page, bare=bare)
        if at.is_above and not deep:
            return await self._above.search(at, search, page)
        check_not_above(at)
        await self._settle(at, deep=deep)
        # Asked before the catalog: what is clean now has its row up to date, whatever happens meanwhile.
        dirty = {id for id, _ in await self._backlog.dirty()}
        if deep:
            found = await self._catalog.descendants(node, search, page, max_depth=max_depth)
        else:
            found = await self._catalog.children(node, search, page)
        whole = page.offset == 0 and page.cursor is None and not found.more
        if whole:
            count = self._told(len(found.hits))
        else:
            count = await self._count(at, search.filters, deep=deep, max_depth=max_depth, at_most=self._at_most)
        hits = tuple([await self._present(hit, at, dirty) for hit in found.hits])
        if not found.more or not hits:
            return Listing(hits, count)
        if deep or all(key.key == "" for key in search.sort):
            return Listing(hits, count, next_cursor=hits[-1].cursor)
        return Listing(hits, count, next_offset=page.offset + len(hits))

    async def count(self, at: Located, filters: Sequence[Filter], *, deep: bool = False, max_depth: int | None = None) -> int:
        """Exact number of matches, whatever the limit of exact counts."""
        if is_file(at):
            _check_flat(deep)
            return await self._inside.count(at, filters)
        if at.is_above and not deep:
            return self._above.count(at, filters)
        check_not_above(at)
        _container(at)
        await self._settle(at, deep=deep)
        return await self._count(at, filters, deep=deep, max_depth=max_depth)

    async def distinct(
        self, at: Located, filters: Sequence[Filter], *, metadata: Sequence[str], structure_families: bool, specs: bool
    ) -> Distinct:
        """Distinct values among the matching children."""
        node = _container(at)
        if is_file(at):
            raise Unsatisfiable("Distinct values are not gathered inside of a file.")
        check_not_above(at)
        await self._settle(at, deep=False)
        return await self._catalog.distinct(node, filters, metadata=metadata, structure_families=structure_families, specs=specs)

    async def revisions(self, at: Located, *, offset: int, limit: int) -> tuple[list[Revision], int]:
        """A page of revisions and their number."""
        if at.column is not None:
            raise NotFound(f"{at.column!r} is a column of a table; it has no revisions.")
        if at.inside:
            raise NotSupported(f"{at.path[-1]!r} lies inside of a registered file; it has no revisions.")
        if at.is_above:
            raise NotSupported("What lies above mounts is in the configuration only; it has no revisions.")
        await self._barrier.settle(at.node.parent or ROOT)
        return await self._catalog.revisions(at.node.id, offset=offset, limit=limit)

    async def _settle(self, at: Located, *, deep: bool) -> None:
        if deep:
            await self._barrier.settle_all()
        else:
            await self._barrier.settle_at(at.node.id, at.head)
        if self._complete is not None:
            await self._complete.check(at.node, path=at.path, head=at.head)

    async def _count(
        self, at: Located, filters: Sequence[Filter], *, deep: bool, max_depth: int | None, at_most: int | None = None
    ) -> int:
        if not filters and not deep:
            count = await self._repository.child_count(at.node.id)
            return count if at_most is None else min(count, at_most)
        return await self._catalog.count(at.node.id, filters, deep=deep, max_depth=max_depth, at_most=at_most)

    def _told(self, count: int) -> int:
        return count if self._at_most is None else min(count, self._at_most)

    async def _present(self, hit: Hit, at: Located, dirty: set[NodeId]) -> Hit:
        """The hit with its absolute path and, if its own log has a tail, what that tail says."""
        path = (*at.path, *hit.path)
        if hit.node.id not in dirty:
            return Hit(hit.node, hit.cursor, path, self._told(hit.children))
        if hit.node.family == "container":
            return Hit(hit.node, hit.cursor, path, self._told(await self._repository.child_count(hit.node.id)))
        return Hit(await self._repository.present(hit.node), hit.cursor, path, hit.children)


def _container(at: Located) -> NodeId:
    if at.node.family != "container" or at.column is not None:
        raise not_a_container(at)
    return at.node.id


def _check_flat(deep: bool) -> None:
    if deep:
        raise Unsatisfiable("A deep search does not lead inside of a file; search its containers one by one.")
