"""Which reader reads what: the mimetypes of registered data, and the readers' modules, loaded when the first file asks for them.

Every mimetype that can be registered stands in one of these tables and in docs/reference/file-formats.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..domain.errors import NotSupported, UnsupportedType
from ..domain.structures import Family
from .joined import JoinedArray
from .port import ArrayReader, OpenArray, OpenTree, ReadTable, Source, TableReader
from .trees import FileTree

__all__ = [
    "ARRAYS",
    "RAW",
    "STACKS",
    "TABLES",
    "TREES",
    "array_opener",
    "check_mimetype",
    "is_table",
    "is_tree",
    "open_array",
    "open_table",
    "open_tree",
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


def check_mimetype(mimetype: str) -> None:
    """`UnsupportedType` if nothing here knows what that is."""
    known = {*ARRAYS, *STACKS, *TABLES, *TREES, *RAW}
    if _plain(mimetype) not in known:
        raise UnsupportedType(f"{mimetype!r} is not one of the types that this server can read: {', '.join(sorted(known))}.")


def open_array(source: Source) -> ArrayReader:
    """`NotSupported` without a reader, or without the package that it needs."""
    return JoinedArray(source, array_opener(source), is_stack=_plain(source.mimetype) in STACKS)


def array_opener(source: Source) -> OpenArray:
    """What opens the files of an array, one by one. Errors as of `open_array`."""
    mimetype = _plain(source.mimetype)
    load = STACKS.get(mimetype) or ARRAYS.get(mimetype)
    if load is None:
        raise _no_reader(source.mimetype, "array")
    return _loaded(load, mimetype)


def is_table(source: Source) -> bool:
    """Can it be read as a table?"""
    return _plain(source.mimetype) in TABLES


def is_tree(source: Source) -> bool:
    """Can it be read as a container?"""
    return _plain(source.mimetype) in TREES


def open_table(source: Source) -> TableReader:
    """As `open_array`."""
    load = TABLES.get(_plain(source.mimetype))
    if load is None:
        raise _no_reader(source.mimetype, "table")
    from .tables import FileTable  # pyarrow

    return FileTable(source, _loaded(load, source.mimetype))


def open_tree(source: Source) -> FileTree:
    """As `open_array`."""
    load = TREES.get(_plain(source.mimetype))
    if load is None:
        raise _no_reader(source.mimetype, "container")
    return FileTree(source, _loaded(load, source.mimetype))


def _plain(mimetype: str) -> str:
    return mimetype.replace(" ", "").lower()


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
