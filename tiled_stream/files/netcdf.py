"""NetCDF files (version 4, which is HDF5), with h5py: the variables of the root group, as datasets of xarray are told.

The container is to have the spec `xarray_dataset`; variables have the names of their dimensions and one of the specs
`xarray_coord` and `xarray_data_var`. Values are those of the file: `scale_factor`, `_FillValue`, `units` of times and the like
are among the attributes, for clients to apply (`xarray.decode_cf`). Read by h5py, as its links must not lead out of the wall.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import h5py

from ..domain.errors import NotFound, NotSupported
from ..domain.nodes import Spec
from .hdf5_attributes import attributes
from .hdf5_links import Hdf5Links
from .hdf5_open import Opening
from .hdf5_tree import array_structure, opened
from .port import Entry, Source, Tree

__all__ = ["open_netcdf_tree"]

#: What the format keeps for itself.
_HIDDEN = {
    "CLASS",
    "DIMENSION_LABELS",
    "DIMENSION_LIST",
    "NAME",
    "REFERENCE_LIST",
    "_NCProperties",
    "_Netcdf4Coordinates",
    "_Netcdf4Dimid",
    "_nc3_strict",
}
#: How a dimension that is no variable is called.
_BARE = b"This is a netCDF dimension but not a netCDF variable"


@contextmanager
def open_netcdf_tree(source: Source, path: Path) -> Iterator[Tree]:
    """The file."""
    _check_version(path)
    with opened(source, path) as (file, opening):
        yield _Netcdf(file, path, source=source, opening=opening)


class _Netcdf:
    """A `Tree` of one level."""

    def __init__(self, file: h5py.File, path: Path, *, source: Source, opening: Opening) -> None:
        self._file = file
        self._path = path
        self._source = source
        self._opening = opening

    def entry(self, keys: tuple[str, ...]) -> Entry:
        """See `Tree`."""
        if not keys:
            metadata = {"attrs": attributes(self._file, _HIDDEN)}
            return Entry(family="container", metadata=metadata, specs=(Spec("xarray_dataset"),), count=len(self._variables()))
        if len(keys) > 1:
            raise NotFound(f"There is no {'/'.join(keys)!r} in {self._path.name!r}.")
        with ExitStack() as stack:
            links = Hdf5Links(self._source.wall, stack, self._opening)
            variable = links.found(self._file, self._path, keys[0])
            if not isinstance(variable, h5py.Dataset) or _is_bare(variable):
                raise NotFound(f"There is no variable {keys[0]!r} in {self._path.name!r}.")
            links.check(variable, self._path)
            return Entry(
                family="array",
                structure=array_structure(variable, _dims(variable, keys[0])),
                metadata={"attrs": attributes(variable, _HIDDEN)},
                specs=(Spec("xarray_coord" if self._is_coordinate(variable, keys[0]) else "xarray_data_var"),),
            )

    def names(self, keys: tuple[str, ...], *, offset: int, limit: int, backwards: bool) -> list[str]:
        """See `Tree`. In the order of the file."""
        if keys:
            raise NotFound(f"{'/'.join(keys)!r} in {self._path.name!r} is a variable.")
        names = self._variables()
        return names[::-1][offset : offset + limit] if backwards else names[offset : offset + limit]

    def _variables(self) -> list[str]:
        found = (name for name in self._file if isinstance(self._file.get(name, getlink=True), h5py.HardLink))
        return [name for name in found if isinstance(v := self._file[name], h5py.Dataset) and not _is_bare(v)]

    def _is_coordinate(self, variable: h5py.Dataset, name: str) -> bool:
        if variable.attrs.get("CLASS") == b"DIMENSION_SCALE":
            return True
        return any(name in _text(self._file[other].attrs.get("coordinates")).split() for other in self._variables())


def _dims(variable: h5py.Dataset, name: str) -> tuple[str, ...] | None:
    """None if one of them has no name."""
    if len(variable.shape or ()) == 1 and variable.attrs.get("CLASS") == b"DIMENSION_SCALE":
        return (name,)
    dims = []
    for dimension in variable.dims:
        if len(dimension) == 0:
            return None
        dims.append(dimension[0].name.rpartition("/")[2])
    return tuple(dims)


def _is_bare(variable: h5py.Dataset) -> bool:
    return _BARE in variable.attrs.get("NAME", b"") if isinstance(variable.attrs.get("NAME", b""), bytes) else False


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def _check_version(path: Path) -> None:
    """Before HDF5 says that it is none of its files."""
    try:
        with open(path, "rb") as file:
            begin = file.read(4)
    except OSError:
        return  # told by who opens it
    if begin[:3] == b"CDF":
        raise NotSupported(f"{path.name!r} is a classic NetCDF file; only those of version 4 (HDF5) can be read.")
