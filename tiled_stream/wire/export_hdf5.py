"""HDF5 out: a file that is written node by node, so that nobody holds more than a piece of it; and single tables.

Containers are groups, arrays datasets, tables groups with a dataset a column; metadata are attributes (`hdf5_values.py`). Awkward
arrays are groups of their buffers, with their form. Blocking: for a thread.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy
import pyarrow

from ..domain.errors import NotAcceptable, NotSupported
from .export_library import library
from .hdf5_values import attributes_of, escaped, stored, stored_type, time_attributes
from .table_columns import column_array, is_plain, plain_column
from .tables import json_text

__all__ = ["Hdf5File", "buffers_of", "encode_hdf5"]

Array = numpy.ndarray[Any, Any]
Path = tuple[str, ...]


class Hdf5File:
    """A new file. `NotAcceptable` without h5py. Its owner closes it."""

    def __init__(self, file: BinaryIO | str) -> None:
        # Groups keep the order in which children came. The version: what HDF5 1.10 reads.
        self._file = library("h5py").File(file, "w", libver=("earliest", "v110"), track_order=True)

    def close(self) -> None:
        """Idempotent."""
        self._file.close()

    def describe(self, path: Path, metadata: Mapping[str, Any]) -> None:
        """Metadata of what is at `path`; a group is made there if nothing is."""
        self._describe(self._file[_place(path)] if _place(path) in self._file else self._group(path), metadata)

    def declare(self, path: Path, shape: Sequence[int], dtype: numpy.dtype[Any], metadata: Mapping[str, Any]) -> None:
        """An array whose cells come by `fill`."""
        made = self._file.create_dataset(_place(path), shape=tuple(shape), dtype=stored_type(dtype))
        self._describe(made, {**metadata, **time_attributes(dtype)})

    def fill(self, path: Path, index: tuple[slice, ...], cells: Array) -> None:
        """Cells of a declared array."""
        self._file[_place(path)][index or ()] = stored(cells)

    def table(self, path: Path, table: pyarrow.Table, metadata: Mapping[str, Any]) -> None:
        """A table with all its rows."""
        self.describe(path, metadata)
        group = self._file[_place(path)]
        for name, column in zip(table.schema.names, table.columns, strict=True):
            self._column(group, name, column)

    def buffers(self, path: Path, buffers: Mapping[str, bytes], metadata: Mapping[str, Any]) -> None:
        """An awkward array: its buffers as bytes."""
        self.describe(path, metadata)
        group = self._file[_place(path)]
        for name, body in buffers.items():
            group.create_dataset(escaped(name), data=numpy.frombuffer(body, dtype=numpy.uint8))

    def discard(self, path: Path) -> None:
        """Forget what was begun at `path`."""
        if _place(path) in self._file:
            del self._file[_place(path)]

    def _group(self, path: Path) -> Any:
        return self._file.create_group(_place(path), track_order=True)

    def _describe(self, thing: Any, metadata: Mapping[str, Any]) -> None:
        for name, value in attributes_of(metadata).items():
            thing.attrs[name] = value

    def _column(self, group: Any, name: str, column: pyarrow.ChunkedArray) -> None:
        if escaped(name) in group:
            raise NotAcceptable(f"The column {name!r} has the same name in HDF5 as another; ask for fewer columns.")
        array = _array(column)
        if array is None:
            texts = [v if isinstance(v, str) else "" if v is None else json_text(v) for v in plain_column(column)]
            kind = library("h5py").string_dtype()
            clean = [text.replace("\0", "�") for text in texts]
            group.create_dataset(escaped(name), data=numpy.array(clean, dtype=object), shape=(len(texts),), dtype=kind)
            return
        made = group.create_dataset(escaped(name), data=stored(array))
        self._describe(made, time_attributes(array.dtype))


def encode_hdf5(table: pyarrow.Table) -> bytes:
    """A table as the datasets of one file."""
    sink = io.BytesIO()
    file = Hdf5File(sink)
    try:
        file.table((), table, {})
    finally:
        file.close()
    return sink.getvalue()


def buffers_of(array: Any) -> tuple[dict[str, Any], int, dict[str, bytes]]:
    """Form, length and buffers of an array of the awkward library, without what a slice left behind."""
    import awkward

    form, length, buffers = awkward.to_buffers(awkward.to_packed(array))
    return form.to_dict(), length, {name: numpy.asarray(buffer).tobytes() for name, buffer in buffers.items()}


def _array(column: pyarrow.ChunkedArray) -> Array | None:
    """None for texts, of any length, and for what is no array."""
    if is_plain(column.type) and not _is_number(column.type):
        return None
    try:
        return column_array(column)
    except NotSupported:
        return None


def _is_number(kind: pyarrow.DataType) -> bool:
    return bool(pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind))


def _place(path: Path) -> str:
    return "/" + "/".join(map(escaped, path))
