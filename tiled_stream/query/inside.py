"""What is inside of registered files: looked up, listed, told with all below it.

These nodes have no log and no row: their present is what the file holds now, and the path to them leads through a node that has
both. What must stay true: nobody writes to them, and a file is looked into through its wall, off the loop.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..catalog.port import Hit
from ..domain.errors import NotFound, NotSupported, Refused, Unavailable, Unsatisfiable
from ..domain.nodes import Node
from ..domain.search import Filter, Search
from ..domain.search import Page as Wanted
from ..files.port import Entry, Missing
from ..files.trees import Branch, FileTree, Page
from ..nodes.repository import Located
from ..wire.tables import structure_of
from .listing import Listing
from .read_files import FileData

__all__ = ["Content", "Inside", "is_file", "wanted_names", "wants_backwards"]


class Content(msgspec.Struct, frozen=True):
    """A node inside of a file, and what is below it; `contents` None where that is too much or too deep."""

    hit: Hit
    contents: tuple[Content, ...] | None = None


class Inside:
    """Read only. Without `files` nothing can be looked into."""

    def __init__(self, files: FileData | None) -> None:
        self._given = files

    async def resolve(self, at: Located) -> Located:
        """`at` as it is in the file. `NotFound`."""
        keys = at.inside
        entry, column = await self._files.tree(at, lambda tree: tree.look(keys))
        children = entry.count if entry.family == "container" else None
        node = _node(at, at.path[-1], entry)
        if column is None:
            return msgspec.structs.replace(at, node=node, children=children)
        return msgspec.structs.replace(at, node=node, inside=keys[:-1], column=column)

    async def check_begin(self, at: Located) -> None:
        """`NotFound` if the file is there, can be read, and does not have the place where `at` begins."""
        try:
            await self._files.tree(at, lambda tree: tree.look(()))
        except Missing:
            return
        except NotFound:
            raise
        except (Refused, Unavailable):
            return  # told by who asks for more

    async def search(self, at: Located, search: Search, page: Wanted, *, bare: bool = False) -> Listing:
        """Children of a container. `bare`: their keys are enough. `Unsatisfiable` for what a file is not searched by."""
        backwards = wants_backwards(search)
        names = wanted_names(search.filters)
        first = page.offset if page.cursor is None else page.cursor
        limit = page.limit

        def work(tree: FileTree) -> Page:
            if names is not None:
                found = tree.some(at.inside, names)
                return Page(found.count, found.children[first : first + limit])
            return tree.page(at.inside, offset=first, limit=limit, backwards=backwards, bare=bare)

        found = await self._files.tree(at, work)
        hits = tuple([_hit(at, name, entry, first + n) for n, (name, entry) in enumerate(found.children)])
        is_more = limit > 0 and first + limit < found.count
        return Listing(hits, found.count, next_cursor=first + limit if is_more else None, is_inside=True)

    async def count(self, at: Located, filters: Sequence[Filter]) -> int:
        """Exact number of children that match."""
        return (await self.search(at, Search(tuple(filters)), Wanted(limit=0), bare=True)).count

    async def contents(self, at: Located, depth: int) -> tuple[Content, ...] | None:
        """All that is below a container, `depth` levels down; None if that is too much to be told at once."""
        if depth <= 0 or at.children is None:
            return None
        keys = at.inside
        branch = await self._files.tree(at, lambda tree: tree.branch(keys, depth=depth))
        return _contents(at, at.path, branch)

    @property
    def _files(self) -> FileData:
        if self._given is None:
            raise NotSupported("This server does not read registered files: start it with -r DIRECTORY.")
        return self._given


def is_file(at: Located) -> bool:
    """Is it a container that lies in a registered file, or is one?"""
    return at.node.family == "container" and at.column is None and bool(at.node.data_sources)


def _node(at: Located, key: str, entry: Entry) -> Node:
    """With the data source of the registered node, as far as readers need it."""
    structure = entry.structure if entry.schema is None else structure_of(entry.schema)
    source = msgspec.structs.replace(at.node.data_sources[0], structure_family=entry.family, structure=structure)
    return msgspec.structs.replace(
        at.node,
        key=key,
        family=entry.family,
        metadata=entry.metadata,
        specs=entry.specs,
        access_tags=(),
        data_sources=(source,),
    )


def _hit(at: Located, name: str, entry: Entry | None, place: int) -> Hit:
    known = Entry(family="container") if entry is None else entry
    return Hit(_node(at, name, known), place, (*at.path, name), known.count)


def _contents(at: Located, path: tuple[str, ...], branch: Branch) -> tuple[Content, ...] | None:
    if branch.children is None:
        return None
    found = []
    for place, (name, child) in enumerate(branch.children.items()):
        hit = Hit(_node(at, name, child.entry), place, (*path, name), child.entry.count)
        found.append(Content(hit, _contents(at, hit.path, child)))
    return tuple(found)


def wants_backwards(search: Search) -> bool:
    """The last of their own order first? `Unsatisfiable` for any other order."""
    if any(key.key for key in search.sort):
        raise Unsatisfiable("What is inside of a file or above mounts has its own order only; 'sort=-' turns it round.")
    return any(key.descending for key in search.sort)


def wanted_names(filters: Sequence[Filter]) -> list[str] | None:
    """The keys that are looked for; None: all."""
    names: list[str] | None = None
    for wanted in filters:
        if wanted.name not in ("lookup", "keys_filter"):
            raise Unsatisfiable(
                f"What is inside of a file or above mounts is looked up by key; the filter {wanted.name!r} does not apply."
            )
        keys = [wanted.value] if wanted.name == "lookup" else list(wanted.value)
        names = keys if names is None else [name for name in names if name in keys]
    return names


def not_a_container(at: Located) -> NotFound:
    """What a search of something else is told."""
    return NotFound(f"{'/'.join(at.path)!r} is not a container; only containers are searched.")
