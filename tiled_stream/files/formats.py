"""Which reader reads what: the mimetypes of registered data, and the readers' modules, loaded when the first file asks for them.

Every mimetype that can be registered stands in one of these tables and in docs/reference/file-formats.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from ..domain.errors import NotSupported, UnsupportedType
from ..domain.structures import Family
from .joined import JoinedArray
from .port import ArrayReader, OpenArray, OpenTree, Reader, ReadTable, Source, TableReader
from .trees import FileTree

__all__ = [
    "ARRAYS",
    "EXCEL",
    "RAW",
    "STACKS",
    "TABLES",
    "TREES",
    "array_opener",
    "check_mimetype",
    "is_stack",
    "is_table",
    "is_tree",
    "open_array",
    "open_table",
    "open_tree",
    "plain",
    "reader_of",
]

T = TypeVar("T")

EXCEL = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def _hdf5() -> OpenArray:
    from .hdf5 import open_hdf5

    return open_hdf5


def _tiff() -> OpenArray:
    from .tiff import open_tiff

    return open_tiff


def _npy() -> OpenArray:
    from .npy import open_npy

    return open_npy


def _zarr() -> OpenArray:
    from .zarr_directory import open_zarr

    return open_zarr


def _csv_array() -> OpenArray:
    from .csv_text import open_csv_array

    return open_csv_array


def _csv() -> ReadTable:
    from .csv_text import read_csv

    return read_csv


def _parquet() -> ReadTable:
    from .parquet import read_parquet

    return read_parquet


def _arrow() -> ReadTable:
    from .arrow import read_arrow

    return read_arrow


def _jpeg() -> OpenArray:
    from .jpeg import open_jpeg

    return open_jpeg


def _excel() -> ReadTable:
    from .excel import read_excel

    return read_excel


def _excel_tree() -> OpenTree:
    from .excel import open_excel_tree

    return open_excel_tree


def _netcdf_tree() -> OpenTree:
    from .netcdf import open_netcdf_tree

    return open_netcdf_tree


def _zarr_tree() -> OpenTree:
    from .zarr_tree import open_zarr_tree

    return open_zarr_tree


def _hdf5_tree() -> OpenTree:
    from .hdf5_tree import open_hdf5_tree

    return open_hdf5_tree


#: Arrays whose files hold rows along the first axis, one file after the other.
ARRAYS: dict[str, Callable[[], OpenArray]] = {
    "application/x-hdf5": _hdf5,
    "application/x-netcdf": _hdf5,
    "application/x-npy": _npy,
    "application/x-zarr": _zarr,
    "image/jpeg": _jpeg,
    "image/tiff": _tiff,
    "text/csv;header=absent": _csv_array,
}
#: Arrays of one frame a file.
STACKS: dict[str, Callable[[], OpenArray]] = {
    "multipart/related;type=application/x-npy": _npy,
    "multipart/related;type=image/jpeg": _jpeg,
    "multipart/related;type=image/tiff": _tiff,
}
#: Tables, a partition a file.
TABLES: dict[str, Callable[[], ReadTable]] = {
    "application/vnd.apache.arrow.file": _arrow,
    EXCEL: _excel,
    "application/x-parquet": _parquet,
    "multipart/related;type=text/csv": _csv,
    "text/csv": _csv,
    "text/csv;header=present": _csv,
}
#: Files that hold several things.
TREES: dict[str, Callable[[], OpenTree]] = {
    EXCEL: _excel_tree,
    "application/x-hdf5": _hdf5_tree,
    "application/x-netcdf": _netcdf_tree,
    "application/x-zarr": _zarr_tree,
}
#: May be registered and fetched as files; there is no reader.
RAW = ("application/octet-stream",)


def check_mimetype(mimetype: str, own: Collection[str] = ()) -> None:
    """`UnsupportedType` if nothing here knows what that is; `own` are those that an operator has readers for."""
    known = {*ARRAYS, *STACKS, *TABLES, *TREES, *RAW, *own}
    if plain(mimetype) not in known:
        raise UnsupportedType(f"{mimetype!r} is not one of the types that this server can read: {', '.join(sorted(known))}.")


def reader_of(mimetype: str) -> Reader | None:
    """What reads a type that is known, as an operator would name it; None for one that is not."""
    name = plain(mimetype)
    arrays, tables, trees = STACKS.get(name) or ARRAYS.get(name), TABLES.get(name), TREES.get(name)
    if arrays is None and tables is None and trees is None:
        return None
    return Reader(  # each loads its package with the first file
        open_array=None if arrays is None else lambda source, path: _loaded(arrays, name)(source, path),
        is_stack=name in STACKS,
        read_table=None if tables is None else lambda source, path, columns: _loaded(tables, name)(source, path, columns),
        open_tree=None if trees is None else lambda source, path: _loaded(trees, name)(source, path),
    )


def open_array(source: Source) -> ArrayReader:
    """`NotSupported` without a reader, or without the package that it needs."""
    return JoinedArray(source, array_opener(source), is_stack=is_stack(source))


def array_opener(source: Source) -> OpenArray:
    """What opens the files of an array, one by one. Errors as of `open_array`."""
    if source.reader is not None:
        return _named(source.reader.open_array, source, "array")
    mimetype = plain(source.mimetype)
    load = STACKS.get(mimetype) or ARRAYS.get(mimetype)
    if load is None:
        raise _no_reader(source.mimetype, "array")
    return _loaded(load, mimetype)


def is_stack(source: Source) -> bool:
    """Is each file of the array a frame?"""
    return plain(source.mimetype) in STACKS if source.reader is None else source.reader.is_stack


def is_table(source: Source) -> bool:
    """Can it be read as a table?"""
    return plain(source.mimetype) in TABLES if source.reader is None else source.reader.read_table is not None


def is_tree(source: Source) -> bool:
    """Can it be read as a container?"""
    return plain(source.mimetype) in TREES if source.reader is None else source.reader.open_tree is not None


def open_table(source: Source) -> TableReader:
    """As `open_array`."""
    from .tables import FileTable  # pyarrow

    if source.reader is not None:
        return FileTable(source, _named(source.reader.read_table, source, "table"))
    load = TABLES.get(plain(source.mimetype))
    if load is None:
        raise _no_reader(source.mimetype, "table")
    return FileTable(source, _loaded(load, source.mimetype))


def open_tree(source: Source) -> FileTree:
    """As `open_array`."""
    if source.reader is not None:
        return FileTree(source, _named(source.reader.open_tree, source, "container"))
    load = TREES.get(plain(source.mimetype))
    if load is None:
        raise _no_reader(source.mimetype, "container")
    return FileTree(source, _loaded(load, source.mimetype))


def plain(mimetype: str) -> str:
    """As it stands in the tables."""
    return mimetype.replace(" ", "").lower()


def _named(function: T | None, source: Source, family: Family) -> T:
    if function is None:
        raise _no_reader(source.mimetype, family)
    return function


def _loaded(load: Callable[[], T], mimetype: str) -> T:
    try:
        return load()
    except ModuleNotFoundError as error:
        raise NotSupported(
            f"Files of type {mimetype!r} need the package {error.name!r}, which this server does not have: "
            "pip install 'tiled-stream[files]'"
        ) from None


def _no_reader(mimetype: str, family: Family) -> NotSupported:
    return NotSupported(f"Files of type {mimetype!r} cannot be read as {family!r} by this version of the server.")
