"""Readers of registered files that an operator names: his own, and those of the reference server that are the same as ours.

A name is `package.module:name` and leads to a `Reader` of `files/port.py`. What the reference calls its adapters stands in
configuration files that are brought along; those names are never imported, they say which of ours is meant.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from ..files.formats import EXCEL, reader_of
from ..files.port import Reader
from .settings import SettingsError

__all__ = ["readers_of"]

_PEER = "tiled.adapters."
#: The peer's adapters, and the type that our reader of the same files has.
_SAME = {
    "arrow:ArrowAdapter": "application/vnd.apache.arrow.file",
    "csv:CSVAdapter": "text/csv",
    "csv:CSVArrayAdapter": "text/csv;header=absent",
    "excel:ExcelAdapter": EXCEL,
    "hdf5:HDF5Adapter": "application/x-hdf5",
    "jpeg:JPEGAdapter": "image/jpeg",
    "jpeg:JPEGSequenceAdapter": "multipart/related;type=image/jpeg",
    "netcdf:NetCDFAdapter": "application/x-netcdf",
    "npy:NPYAdapter": "application/x-npy",
    "npy:NPYSequenceAdapter": "multipart/related;type=application/x-npy",
    "parquet:ParquetDatasetAdapter": "application/x-parquet",
    "tiff:TiffAdapter": "image/tiff",
    "tiff:TiffSequenceAdapter": "multipart/related;type=image/tiff",
    "zarr:ZarrAdapter": "application/x-zarr",
}
#: The peer's adapter of files that nothing looks into: they are registered and fetched as they are.
_OPAQUE = "bytes:BytesAdapter"


def readers_of(names: Mapping[str, str]) -> dict[str, Reader]:
    """By mimetype. `SettingsError` for a name that leads to none."""
    return {mimetype: _reader(mimetype, name) for mimetype, name in names.items()}


def _reader(mimetype: str, name: str) -> Reader:
    module, _, attribute = name.partition(":")
    if name == f"{_PEER}{_OPAQUE}":
        return Reader()
    if module.startswith(_PEER):
        same = reader_of(_SAME.get(name.removeprefix(_PEER), ""))
        if same is None:
            known = ", ".join(f"{_PEER}{one}" for one in (*_SAME, _OPAQUE))
            raise SettingsError(f"adapters_by_mimetype: {name!r} of {mimetype!r} has no equal here; known are {known}.")
        return same
    if not module or not attribute:
        raise SettingsError(f"adapters_by_mimetype: {name!r} of {mimetype!r} is not written as package.module:name.")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"adapters_by_mimetype: {name!r} of {mimetype!r} cannot be loaded: {error}.") from None
    if not isinstance(found, Reader) or (found.open_array, found.read_table, found.open_tree) == (None, None, None):
        raise SettingsError(
            f"adapters_by_mimetype: {name!r} of {mimetype!r} is no Reader of tiled_stream.files.port that reads something. "
            "Adapters of the reference server cannot be used as they are."
        )
    return found
