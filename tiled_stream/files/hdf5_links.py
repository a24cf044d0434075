"""Finding a dataset in an HDF5 file without being led outside: a file may refer to others.

External links, sources of virtual datasets and external raw data name files, and HDF5 opens whatever they name. So every name is
resolved here first, and those files have to pass the wall like any other. A source of a virtual dataset that is not there is no
fault: HDF5 fills its place.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py

from ..domain.errors import Malformed, NotFound, NotSupported
from .hdf5_open import Opening
from .wall import Wall

__all__ = ["Hdf5Links"]

#: Links that may be followed for one dataset, and files of one virtual dataset.
_MAX_STEPS = 100
_MAX_DEPTH = 8


class Hdf5Links:
    """Opens files as `opening` says and keeps them open until `stack` is closed."""

    def __init__(self, wall: Wall, stack: ExitStack, opening: Opening) -> None:
        self._wall = wall
        self._stack = stack
        self._opening = opening

    def dataset(self, path: Path, name: str) -> h5py.Dataset:
        """The dataset of this name. `NotFound` if there is none, `Forbidden` if it refers to something outside."""
        found = self.found(self._stack.enter_context(self._opening.file(path)), path, name)
        if not isinstance(found, h5py.Dataset):
            raise Malformed(f"{name!r} in {path.name!r} is a group; name a dataset in the parameter 'dataset'.")
        self.check(found, path)
        return found

    def found(self, here: h5py.Group, path: Path, name: str) -> Any:
        """What `name` leads to from a group of the file at `path`."""
        return self.walk(here, path, name)[0]

    def walk(self, here: h5py.Group, path: Path, name: str) -> tuple[Any, Path]:
        """The same, link by link, and the file in which it is."""
        todo = [part for part in name.split("/") if part and part != "."]
        for _ in range(_MAX_STEPS):
            if not todo:
                return here, path
            part = todo.pop(0)
            link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
            if link is None:
                raise NotFound(f"There is no {name!r} in {path.name!r}: {part!r} is missing.")
            if isinstance(link, h5py.SoftLink):
                todo = [p for p in link.path.split("/") if p and p != "."] + todo
                here = here.file if link.path.startswith("/") else here
            elif isinstance(link, h5py.ExternalLink):
                path = self._wall.within(path.parent / os.fsdecode(link.filename))
                here = self._stack.enter_context(self._opening.file(path))
                todo = [p for p in link.path.split("/") if p and p != "."] + todo
            else:
                here = here[part]
        raise Malformed(f"{name!r} in {path.name!r} is behind more than {_MAX_STEPS} links.")

    def check(self, dataset: h5py.Dataset, path: Path) -> None:
        """`Forbidden` if the dataset, or one that it is made of, has bytes outside."""
        self._check(dataset, path, 0, set())

    def _check(self, dataset: h5py.Dataset, path: Path, depth: int, seen: set[tuple[Path, str]]) -> None:
        if not dataset.is_virtual and not dataset.external:
            return
        path = Path(os.path.realpath(dataset.file.filename)) if dataset.file.filename else path
        for name, _, _ in dataset.external or ():
            self._referred(path, os.fsdecode(name))
        if not dataset.is_virtual:
            return
        if depth == _MAX_DEPTH:
            raise Malformed(f"The virtual dataset in {path.name!r} is made of virtual datasets, more than {_MAX_DEPTH} deep.")
        for origin in dataset.virtual_sources():
            other = path if origin.file_name == "." else self._referred(path, origin.file_name)
            if (other, origin.dset_name) in seen:
                continue
            seen.add((other, origin.dset_name))
            self._check_origin(other, origin.dset_name, depth, seen)

    def _referred(self, path: Path, name: str) -> Path:
        """The file that HDF5 would open for `name` in the file at `path`: beside it, or else in the working directory."""
        if "%b" in name:
            raise NotSupported(f"The virtual dataset in {path.name!r} names its files by a pattern, which cannot be checked.")
        beside = self._wall.within(path.parent / name)
        return beside if beside.exists() or not Path(name).exists() else self._wall.within(name)

    def _check_origin(self, path: Path, name: str, depth: int, seen: set[tuple[Path, str]]) -> None:
        with ExitStack() as stack:
            links = Hdf5Links(self._wall, stack, self._opening)
            try:
                file = stack.enter_context(self._opening.file(path))
                found = links.found(file, path, name)
            except (FileNotFoundError, NotFound):
                return
            if isinstance(found, h5py.Dataset):
                links._check(found, path, depth + 1, seen)
