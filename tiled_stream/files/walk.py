"""A directory as a tree of nodes: which files are one node, what it is called, and of what type it is.

The rules are those of the peer's `register`: a file is called by its name without what follows the first dot; files that differ
by a number alone, of a format that holds one image, are one array; a directory is a container, unless it is a format itself. Two
that would be called alike are both left out, as nobody could say which is meant. What begins with a dot is hidden.

Looks at names and times only and opens nothing. A symbolic link counts as what it leads to, if that lies below the root.
"""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from ..domain.errors import Refused
from .wall import Wall

__all__ = ["MIMETYPES", "Item", "Rules", "Walk", "walk"]

#: By extension; other extensions are those of the system.
MIMETYPES = {
    ".arrow": "application/vnd.apache.arrow.file",
    ".csv": "text/csv",
    ".feather": "application/vnd.apache.arrow.file",
    ".h5": "application/x-hdf5",
    ".hdf": "application/x-hdf5",
    ".hdf5": "application/x-hdf5",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".nc": "application/x-netcdf",
    ".npy": "application/x-npy",
    ".nxs": "application/x-hdf5",
    ".parquet": "application/x-parquet",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".zarr": "application/x-zarr",
}
#: Of a file that may be one of a sequence: how it is called, and the type of the sequence.
_SEQUENCES = {
    re.compile(r"(.*?)([0-9]+)\.tiff?\Z"): "multipart/related;type=image/tiff",
    re.compile(r"(.*?)([0-9]+)\.jpe?g\Z"): "multipart/related;type=image/jpeg",
    re.compile(r"(.*?)([0-9]+)\.npy\Z"): "multipart/related;type=application/x-npy",
}
_UNNAMED = "_unnamed"
_ZARR = "application/x-zarr"
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may change.

    keeps_suffix: files are called by their whole names
    include: only files with these extensions; empty: all
    mimetypes: by extension, before those that are known
    detect: has the last word: path and mimetype (or None) to mimetype, None for a file that is no node
    """

    keeps_suffix: bool = False
    include: tuple[str, ...] = ()
    mimetypes: Mapping[str, str] = {}
    detect: Callable[[str, str | None], str | None] | None = None


class Item(msgspec.Struct, frozen=True):
    """One node. `mimetype` None: a container of those below. `version`: changes when one of the files does."""

    keys: tuple[str, ...]
    mimetype: str | None
    paths: tuple[Path, ...] = ()
    is_directory: bool = False
    version: int = 0


class Walk(msgspec.Struct, frozen=True):
    """What was found, containers before what is in them; and what was left out, with the reason."""

    items: tuple[Item, ...]
    left_out: tuple[tuple[Path, str], ...]


def walk(root: Path, rules: Rules) -> Walk:
    """All nodes below `root`. Blocks. A directory that cannot be read is left out."""
    found = _Finding(Path(os.path.realpath(root)), rules)
    found.all()
    return Walk(tuple(sorted(found.items, key=lambda item: (len(item.keys), item.keys))), tuple(sorted(found.left_out)))


class _Finding:
    """One walk."""

    def __init__(self, root: Path, rules: Rules) -> None:
        self.root = root
        self._rules = rules
        self._wall = Wall([root])
        self.items: list[Item] = []
        self.left_out: list[tuple[Path, str]] = []

    def all(self) -> None:
        """All below the root, or the root if it is a node itself."""
        item = self._item(self.root, (), True)
        if item is None or item.mimetype is None:
            self.directory(self.root, (), ())
        else:
            self.items.append(item)

    def directory(self, place: Path, keys: tuple[str, ...], above: tuple[Path, ...]) -> None:
        """All below a directory. `above`: those on the way to it, so that a link round ends."""
        children = self._children(place, above)
        sequences = self._sequences([path for path, is_directory in children if not is_directory])
        taken = {path for paths, _ in sequences.values() for path in paths}
        named: dict[str, list[Item]] = {}
        below: list[tuple[Path, tuple[str, ...]]] = []
        for name, (paths, mimetype) in sequences.items():
            named.setdefault(name, []).append(Item((*keys, name), mimetype, paths, version=_version(paths)))
        for path, is_directory in children:
            item = None if path in taken else self._item(path, keys, is_directory)
            if item is not None:
                named.setdefault(item.keys[-1], []).append(item)
        for name, items in named.items():
            if len(items) > 1:
                alike = ", ".join(sorted(item.paths[0].name if item.paths else name for item in items))
                self.left_out.append((place / name, f"several are called {name!r}: {alike}"))
                continue
            self.items.append(items[0])
            if items[0].mimetype is None:
                below.append((place / name, items[0].keys))
        for path, inner in below:
            self.directory(path, inner, (*above, Path(os.path.realpath(place))))

    def _children(self, place: Path, above: tuple[Path, ...]) -> list[tuple[Path, bool]]:
        children = []
        try:
            names = sorted(name for name in os.listdir(place) if not name.startswith("."))
        except OSError as error:
            self.left_out.append((place, str(error.strerror)))
            return []
        for name in names:
            path = place / name
            try:
                name.encode()
                real = self._wall.within(path)
                if real in (*above, Path(os.path.realpath(place))):
                    raise Refused("it leads back to where it lies")
                real.stat()
                children.append((path, real.is_dir()))
            except (Refused, UnicodeEncodeError, OSError) as error:
                self.left_out.append((path, str(error)))
        return children

    def _sequences(self, files: list[Path]) -> dict[str, tuple[tuple[Path, ...], str]]:
        """By name; only where there are at least two."""
        found: dict[tuple[str, str], list[tuple[int, Path]]] = {}
        for path in files:
            for pattern, mimetype in _SEQUENCES.items():
                match = pattern.match(path.name)
                if match is not None and self._is_wanted(path):
                    found.setdefault((match[1] or _UNNAMED, mimetype), []).append((int(match[2]), path))
        several = {place: sorted(paths) for place, paths in found.items() if len(paths) > 1}
        names = [name for name, _ in several]
        return {  # of two types with one name: told apart by nothing, so each file is a node
            name: (tuple(path for _, path in paths), mimetype)
            for (name, mimetype), paths in several.items()
            if names.count(name) == 1
        }

    def _item(self, path: Path, keys: tuple[str, ...], is_directory: bool) -> Item | None:
        if is_directory and not _is_zarr(path):
            return Item((*keys, path.name), None)
        if not self._is_wanted(path):
            return None
        mimetype = _ZARR if is_directory else self._mimetype(path)
        if mimetype is None:
            return None
        key = path.name if self._rules.keeps_suffix else path.name.partition(".")[0]
        return Item((*keys, key), mimetype, (path,), is_directory, _version((path,)))

    def _is_wanted(self, path: Path) -> bool:
        return not self._rules.include or path.suffix.lower() in self._rules.include

    def _mimetype(self, path: Path) -> str | None:
        suffix = path.suffix.lower()
        known = self._rules.mimetypes.get(suffix) or MIMETYPES.get(suffix) or mimetypes.guess_type(path.name)[0]
        return known if self._rules.detect is None else self._rules.detect(str(path), known)


def _is_zarr(path: Path) -> bool:
    return path.suffix == ".zarr" or any((path / mark).is_file() for mark in _ZARR_MARKS)


def _version(paths: tuple[Path, ...]) -> int:
    """Of a directory: its own time and that of what tells what is in it."""
    told = []
    for path in paths:
        for place in (path, *(path / mark for mark in _ZARR_MARKS)):
            try:
                status = os.stat(place)
            except OSError:
                continue
            told.append((str(place), status.st_mtime_ns, status.st_size, status.st_ino))
    return hash(tuple(told))
