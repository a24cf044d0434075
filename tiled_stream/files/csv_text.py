"""Text files of separated values, with pyarrow: tables with names in the first line, and arrays of rows without.

What is declared says of what type a column is; nothing is guessed. A last line that has no end, in a file that was changed just
now, is still being written and does not count. A column without a name, or with one that another has, is called as
pandas calls it: whoever registers a file infers its structure so.

Parameters, as of pandas: `sep` or `delimiter`, `header`, `names`, `skiprows` (a number), `encoding`.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.csv

from ..domain.dtypes import to_numpy
from ..domain.errors import Malformed, NotSupported
from ..domain.slices import Along
from ..domain.structures import ArrayStructure, TableStructure
from .port import Array, ArrayFile, Source
from .reading import is_fresh, reading
from .tables import gathered

__all__ = ["column_names", "open_csv_array", "read_csv"]

#: Those that say what the declared structure says better.
_IGNORED = {"assume_missing", "dtype"}
_KNOWN = {"sep", "delimiter", "header", "names", "skiprows", "encoding"}
_FAULTS = (pyarrow.ArrowException, ValueError, KeyError)
_TAIL = 1 << 16
_MAX_COLUMNS = 10_000
_MAX_HEADER = 256 << 10


def read_csv(source: Source, path: Path, columns: Sequence[str]) -> pyarrow.Table:
    """See `ReadTable`. The first line names the columns, unless the parameter `names` does."""
    assert isinstance(source.structure, TableStructure)
    assert source.schema is not None
    wanted = [n for n in columns if n in source.structure.columns]
    types = {n: source.schema.field(n).type for n in wanted}
    convert = pyarrow.csv.ConvertOptions(column_types=types, include_columns=wanted)
    with reading(source, path, *_FAULTS), _text(source, path) as text:
        schema = pyarrow.schema([pyarrow.field(n, types[n]) for n in wanted])
        if text.is_empty:
            raise EOFError("it has no line yet")
        names = source.parameters.get("names")
        return gathered(_batches(source, text, convert, names=names, has_header=True), schema, source.limit)


def column_names(told: Sequence[str]) -> list[str]:
    """The names of the columns under a header: an empty one is `Unnamed: N`, the second `a` is `a.1`."""
    names: list[str] = []
    for place, name in enumerate(told):
        unique = name = name or f"Unnamed: {place}"
        times = 0
        while unique in names:
            times += 1
            unique = f"{name}.{times}"
        names.append(unique)
    return names


@contextmanager
def open_csv_array(source: Source, path: Path) -> Iterator[ArrayFile]:
    """All rows of a file: shape (rows, columns); or (rows,) of records, if records are declared."""
    assert isinstance(source.structure, ArrayStructure)
    dtype = to_numpy(source.structure.data_type).newbyteorder("=")
    with reading(source, path, *_FAULTS), _text(source, path) as text:
        yield _Cells(_rows(source, text, dtype))


class _Cells:
    """An `ArrayFile` over what was read."""

    def __init__(self, cells: Array) -> None:
        self._cells = cells
        self.shape = cells.shape
        self.dtype = cells.dtype

    def read(self, axes: Sequence[Along]) -> Array:
        return self._cells[tuple(slice(a.start, a.start + a.count * a.step, a.step) for a in axes)]


class _Text(io.RawIOBase):
    """The first `size` bytes of a file."""

    def __init__(self, file: io.FileIO, size: int) -> None:
        self._file = file
        self._left = size
        self.is_empty = size == 0

    def head(self) -> bytes:
        """The beginning, which stays to be read."""
        return os.pread(self._file.fileno(), min(self._left, _MAX_HEADER), 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        taken = self._file.readinto(memoryview(buffer)[: self._left]) or 0
        self._left -= taken
        return taken


@contextmanager
def _text(source: Source, path: Path) -> Iterator[_Text]:
    """The complete lines of the file."""
    _check_parameters(source.parameters)
    with open(path, "rb", buffering=0) as file:
        yield _Text(file, _complete(file) if is_fresh(path, source.now) else os.fstat(file.fileno()).st_size)


def _complete(file: io.FileIO) -> int:
    """How many bytes there are up to the last end of a line."""
    end = os.fstat(file.fileno()).st_size
    while end > 0:
        begin = max(0, end - _TAIL)
        found = os.pread(file.fileno(), end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _rows(source: Source, text: _Text, dtype: numpy.dtype[Any]) -> Array:
    fields = [dtype[name] for name in dtype.names] if dtype.names else [dtype] * _MAX_COLUMNS
    if text.is_empty:
        return numpy.empty((0,) if dtype.names else (0, 1), dtype)
    convert = pyarrow.csv.ConvertOptions(column_types={f"f{i}": _arrow_type(kind) for i, kind in enumerate(fields)})
    has_header = source.parameters.get("header") not in (None, "None")
    batches = list(_batches(source, text, convert, names=None, has_header=has_header))
    table = gathered(batches, batches[0].schema, source.limit)
    columns = [column.to_numpy(zero_copy_only=False) for column in table.columns]
    if not dtype.names:
        return numpy.stack([column.astype(dtype) for column in columns], axis=-1)
    if len(columns) != len(dtype.names):
        raise Malformed(f"The file has {len(columns)} columns, the declared records have {len(dtype.names)} fields.")
    records = numpy.empty(table.num_rows, dtype)
    for name, column in zip(dtype.names, columns, strict=True):
        records[name] = column
    return records


def _batches(
    source: Source, text: _Text, convert: pyarrow.csv.ConvertOptions, *, names: Any, has_header: bool
) -> Iterator[pyarrow.RecordBatch]:
    """`names` given, or has_header False: the first line is one like the others, or a header that is not looked at."""
    parameters = source.parameters
    is_array = isinstance(source.structure, ArrayStructure)
    skipped = int(parameters.get("skiprows") or 0) + int(is_array and has_header)
    encoding = str(parameters.get("encoding") or "utf8")
    separator = str(parameters.get("sep") or parameters.get("delimiter") or ",")
    if not names and not is_array:
        told, lines = _header(text.head().decode(encoding, "replace"), skipped, separator)
        names = column_names(told)
        if names == told:
            names = None  # the library reads them better
        else:
            skipped += lines
    read = pyarrow.csv.ReadOptions(
        use_threads=False,
        skip_rows=skipped,
        column_names=list(names) if names else None,
        autogenerate_column_names=is_array,
        encoding=encoding,
    )
    parse = pyarrow.csv.ParseOptions(delimiter=separator)
    with pyarrow.csv.open_csv(io.BufferedReader(text), read_options=read, parse_options=parse, convert_options=convert) as reader:
        yield from reader


def _header(text: str, skipped: int, separator: str) -> tuple[list[str], int]:
    """The fields of the first line that counts, and how many lines they take; quoted ones may have several."""
    lines = io.StringIO(text.removeprefix("\ufeff"), newline="")
    reader = csv.reader(islice(lines, skipped, None), delimiter=separator)
    return next(reader, []), reader.line_num


def _arrow_type(dtype: numpy.dtype[Any]) -> pyarrow.DataType:
    if dtype.kind in "SU":
        return pyarrow.binary() if dtype.kind == "S" else pyarrow.string()
    return pyarrow.from_numpy_dtype(dtype)


def _check_parameters(parameters: dict[str, Any]) -> None:
    """What would change the rows and is not understood here is refused, rather than ignored."""
    for name, value in parameters.items():
        if value is not None and name not in _KNOWN | _IGNORED:
            raise NotSupported(f"The parameter {name!r} of a CSV file is not supported; known are {', '.join(sorted(_KNOWN))}.")
    if not isinstance(parameters.get("skiprows") or 0, int):
        raise NotSupported("The parameter 'skiprows' of a CSV file must be a number.")
