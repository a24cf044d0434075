"""What a file that nobody declared is: an array of which shape, a table of which columns, a container.

For those who register files they found. Reads as little as tells it: headers, metadata, and of text files the values, as text has
no types.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from ..domain.dtypes import from_numpy, to_numpy
from ..domain.errors import NotFound, NotSupported
from ..domain.structures import ArrayStructure
from .blocks import blocks
from .csv_text import column_names
from .formats import array_opener, is_stack, is_table, is_tree, open_tree
from .port import Entry, Source
from .reading import reading

__all__ = ["inferred"]

#: A text file up to this many bytes is read whole to find the types of its columns; of a larger one, the begin.
_WHOLE = 64 << 20


def inferred(source: Source) -> Entry:
    """What the files of a source are. `NotSupported` for a type that does not tell."""
    if is_table(source) and not is_tree(source):
        return Entry(family="table", schema=_schema(source, source.path(0)))
    if is_tree(source):
        return open_tree(source).look(())[0]
    return Entry(family="array", structure=_array(source))


def _array(source: Source) -> ArrayStructure:
    path = source.path(0)
    with array_opener(source)(source, path) as file:
        shape, dtype = file.shape, file.dtype
    data_type = from_numpy(dtype)
    to_numpy(data_type)
    if is_stack(source):
        shape = (len(source.uris), *shape)
        chunks = ((1,) * len(source.uris), *blocks(shape[1:], None, dtype.itemsize))
    else:
        chunks = blocks(shape, None, dtype.itemsize)
    return ArrayStructure(data_type=data_type, chunks=chunks, shape=shape)


def _schema(source: Source, path: Path) -> pyarrow.Schema:
    with reading(source, path, pyarrow.ArrowException, ValueError, KeyError):
        if source.mimetype == "application/x-parquet":
            schema: pyarrow.Schema = pyarrow.parquet.read_schema(path)
            return schema
        if source.mimetype == "application/vnd.apache.arrow.file":
            with pyarrow.OSFile(str(path)) as file:
                return pyarrow.ipc.open_file(file).schema
        if source.mimetype.startswith(("text/csv", "multipart/related;type=text/csv")):
            return _csv_schema(path)
    raise NotSupported(f"What a file of type {source.mimetype!r} holds cannot be found out; register it with its structure.")


def _csv_schema(path: Path) -> pyarrow.Schema:
    if path.stat().st_size <= _WHOLE:
        found = pyarrow.csv.read_csv(path, read_options=pyarrow.csv.ReadOptions(use_threads=False)).schema
    else:
        with pyarrow.csv.open_csv(path) as reader:
            found = reader.schema
    if not found.names:
        raise NotFound("it has no columns")
    named = zip(column_names(found.names), found, strict=True)
    return pyarrow.schema([pyarrow.field(n, f.type if f.type != pyarrow.null() else pyarrow.string()) for n, f in named])
