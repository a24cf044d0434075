"""What is in a file that holds several things: one of them, a page of them, or all of them down to some depth.

What must stay true: the cost of a question is bounded by what was asked and never by what a file holds, except for the names of
one container. What cannot be told (a broken link, elements that nobody knows) is left out of pages and refused by itself.

Several files are read as one: the first says what there is, and arrays go on in the others along their first axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress

import msgspec

from ..domain.errors import NotFound, Refused, Unavailable
from ..domain.structures import ArrayStructure
from .port import Entry, OpenTree, Source, Tree

__all__ = ["Branch", "FileTree", "Page"]

#: Children of a container that are told together with it, at most; and of all that is below it.
MAX_INLINED = 500
MAX_INLINED_IN_ALL = 2000
_FAULTS = (Refused, KeyError, ValueError, RuntimeError, OSError)


class Page(msgspec.Struct, frozen=True):
    """Some children of a container: `count` is the number of all. An entry is None if only names were asked for."""

    count: int
    children: tuple[tuple[str, Entry | None], ...]


class Branch(msgspec.Struct, frozen=True):
    """An entry with all that is below it; `children` None where that is too much or too deep."""

    entry: Entry
    children: dict[str, Branch] | None = None


class FileTree:
    """Opened from a `Source`; the file itself only for the time of a question. Blocks."""

    def __init__(self, source: Source, open: OpenTree) -> None:
        self._source = source
        self._open = open

    def look(self, keys: tuple[str, ...]) -> tuple[Entry, str | None]:
        """What `keys` lead to; and the name of the column, if they lead on into a table. `NotFound`."""
        with self._opened(0) as tree:
            try:
                found = {keys: tree.entry(keys)}
            except NotFound:
                if not keys:
                    raise
                table = tree.entry(keys[:-1])
                if table.schema is None or keys[-1] not in table.schema.names:
                    raise
                return table, keys[-1]
        return self._joined(found)[keys], None

    def page(self, keys: tuple[str, ...], *, offset: int, limit: int, backwards: bool, bare: bool = False) -> Page:
        """Some children of a container. `bare`: only their names. `NotFound` if it is none."""
        with self._opened(0) as tree:
            at = _container(tree, keys)
            names = tree.names(keys, offset=offset, limit=limit, backwards=backwards)
            if bare:
                return Page(at.count, tuple((name, None) for name in names))
            found = _entries(tree, keys, names)
        found = self._joined(found)
        return Page(at.count, tuple((path[-1], entry) for path, entry in found.items()))

    def some(self, keys: tuple[str, ...], names: Sequence[str]) -> Page:
        """The children of these names, as many as there are."""
        with self._opened(0) as tree:
            _container(tree, keys)
            found = _entries(tree, keys, list(dict.fromkeys(names)))
        found = self._joined(found)
        return Page(len(found), tuple((path[-1], entry) for path, entry in found.items()))

    def branch(self, keys: tuple[str, ...], *, depth: int) -> Branch:
        """What `keys` lead to with all below it, `depth` levels down. Breadth first: a wide level takes from those below it."""
        with self._opened(0) as tree:
            found = {keys: tree.entry(keys)}
            whole: set[tuple[str, ...]] = set()
            level = [keys] if found[keys].family == "container" else []
            for _ in range(depth):
                following: list[tuple[str, ...]] = []
                for path in level:
                    count = found[path].count
                    if count > MAX_INLINED or len(found) + count > MAX_INLINED_IN_ALL:
                        continue
                    names = tree.names(path, offset=0, limit=MAX_INLINED, backwards=False)
                    below = _entries(tree, path, names)
                    if len(below) == count:  # else there is something that cannot be told here
                        whole.add(path)
                        found |= below
                        following += [p for p, entry in below.items() if entry.family == "container"]
                level = following
        return _branch(keys, self._joined(found), whole)

    def _opened(self, number: int) -> AbstractContextManager[Tree]:
        if not self._source.uris:
            raise Unavailable("No file is registered for this container yet. Try again.", retry_after=1.0)
        return self._open(self._source, self._source.path(number))

    def _joined(self, found: dict[tuple[str, ...], Entry]) -> dict[tuple[str, ...], Entry]:
        """With the arrays of the other files added to those of the first."""
        joined = dict(found)
        for number in range(1, len(self._source.uris)):
            with self._opened(number) as tree:
                for path, entry in list(joined.items()):
                    if not isinstance(entry.structure, ArrayStructure):
                        continue
                    try:
                        joined[path] = _longer(entry, entry.structure, tree.entry(path))
                    except NotFound:
                        if len(found) == 1:
                            raise
                        del joined[path]
        return joined


def _container(tree: Tree, keys: tuple[str, ...]) -> Entry:
    entry = tree.entry(keys)
    if entry.family != "container":
        raise NotFound(f"{'/'.join(keys)!r} is not a container; only containers are searched.")
    return entry


def _entries(tree: Tree, keys: tuple[str, ...], names: Sequence[str]) -> dict[tuple[str, ...], Entry]:
    """Those that can be told."""
    found = {}
    for name in names:
        with suppress(*_FAULTS):
            found[(*keys, name)] = tree.entry((*keys, name))
    return found


def _longer(entry: Entry, first: ArrayStructure, more: Entry) -> Entry:
    """An array that goes on along its first axis. Texts take as much as the longest ones."""
    other = more.structure
    if not isinstance(other, ArrayStructure) or other.shape[1:] != first.shape[1:] or not _is_same(first, other):
        raise NotFound("The files do not hold arrays that could go on in each other.")
    longer = msgspec.structs.replace(
        first,
        data_type=max(first.data_type, other.data_type, key=lambda t: t.itemsize),
        shape=(first.shape[0] + other.shape[0], *first.shape[1:]),
        chunks=(tuple(n for n in (*first.chunks[0], *other.chunks[0]) if n) or (0,), *first.chunks[1:]),
    )
    return msgspec.structs.replace(entry, structure=longer)


def _is_same(one: ArrayStructure, other: ArrayStructure) -> bool:
    return one.data_type == other.data_type or one.data_type.kind == other.data_type.kind == "S"


def _branch(keys: tuple[str, ...], found: dict[tuple[str, ...], Entry], whole: set[tuple[str, ...]]) -> Branch:
    children: dict[tuple[str, ...], dict[str, Branch]] = {path: {} for path in whole}
    for path in sorted(found, key=len, reverse=True):
        entry = found[path]
        branch = Branch(entry, children[path] if path in whole else None)
        if path == keys:
            return branch
        children[path[:-1]][path[-1]] = branch
    raise AssertionError("the branch begins at what was asked for")
