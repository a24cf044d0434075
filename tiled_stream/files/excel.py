"""Excel workbooks (`.xlsx`), with openpyxl: each sheet is a table whose first row names the columns.

A sheet is text inside of a zip: there is no part of it that can be read alone, and unpacked it can be of any size. So what is
unpacked is counted before and while it is read; and sheets that were read lately are kept, until their file changes.

Types, as the peers infer them: integers, numbers (integers with gaps, too), booleans, times, else texts. Columns without a name
are `Unnamed: 0` and so on, names that come twice get a number.
"""

from __future__ import annotations

import datetime
import os
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import openpyxl
import pyarrow
from openpyxl.utils.exceptions import InvalidFileException

from ..domain.errors import NotFound, TooLarge
from .port import Entry, Source, Tree
from .reading import reading

__all__ = ["open_excel_tree", "read_excel"]

_FAULTS = (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, TypeError, AttributeError, SyntaxError, IndexError)
_MAX_CELLS = 5_000_000
#: Bytes of sheets that are kept.
_KEPT = 64 << 20


@contextmanager
def open_excel_tree(source: Source, path: Path) -> Iterator[Tree]:
    """The workbook as a container of its sheets."""
    with reading(source, path, *_FAULTS), _workbook(path, source.limit) as book:
        yield _Sheets(book, path)


def read_excel(source: Source, path: Path, columns: Sequence[str]) -> pyarrow.Table:
    """See `ReadTable`. The sheet is the one that the keys inside name, or the parameter `sheet_name`; else the first."""
    name = source.inside[0] if source.inside else source.parameters.get("sheet_name")
    with reading(source, path, *_FAULTS):
        table = _SHEETS.known(path, name)
        if table is None:
            with _workbook(path, source.limit) as book:
                table = _SHEETS.table(book, path, name)
    return table.select([n for n in columns if n in table.schema.names])


class _Sheets:
    """A `Tree` of one level."""

    def __init__(self, book: openpyxl.Workbook, path: Path) -> None:
        self._book = book
        self._path = path
        self._names = [sheet.title for sheet in book.worksheets]

    def entry(self, keys: tuple[str, ...]) -> Entry:
        """See `Tree`."""
        if not keys:
            return Entry(family="container", count=len(self._names))
        if len(keys) > 1:
            raise NotFound(f"There is no {'/'.join(keys)!r} in {self._path.name!r}.")
        table = _SHEETS.known(self._path, keys[0])
        if table is None:
            table = _SHEETS.table(self._book, self._path, keys[0])
        return Entry(family="table", schema=table.schema)

    def names(self, keys: tuple[str, ...], *, offset: int, limit: int, backwards: bool) -> list[str]:
        """See `Tree`. In the order of the workbook."""
        if keys:
            raise NotFound(f"{'/'.join(keys)!r} in {self._path.name!r} is a sheet.")
        names = self._names[::-1] if backwards else self._names
        return names[offset : offset + limit]


class _Kept:
    """Sheets by their file, its time and size, and their name."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tables: OrderedDict[tuple[Any, ...], pyarrow.Table] = OrderedDict()
        self._bytes = 0

    def known(self, path: Path, name: str | None) -> pyarrow.Table | None:
        with self._lock:
            place = (*_version(path), name)
            if place in self._tables:
                self._tables.move_to_end(place)
            return self._tables.get(place)

    def table(self, book: openpyxl.Workbook, path: Path, name: str | None) -> pyarrow.Table:
        """`NotFound` without such a sheet."""
        titles = [sheet.title for sheet in book.worksheets]
        if not titles or (name is not None and name not in titles):
            raise NotFound(f"There is no sheet {name!r} in {path.name!r}.")
        place = (*_version(path), name)
        table = _table(book[titles[0] if name is None else name], path)
        with self._lock:
            if table.nbytes <= _KEPT // 4 and place not in self._tables:
                self._tables[place] = table
                self._bytes += table.nbytes
            while self._bytes > _KEPT:
                _, old = self._tables.popitem(last=False)
                self._bytes -= old.nbytes
        return table


_SHEETS = _Kept()


@contextmanager
def _workbook(path: Path, limit: int) -> Iterator[openpyxl.Workbook]:
    with open(path, "rb") as raw:
        with zipfile.ZipFile(raw) as packed:
            if sum(info.file_size for info in packed.infolist()) > limit:
                raise TooLarge(f"The workbook {path.name!r} takes more than {limit} bytes when it is unpacked.")
        raw.seek(0)
        book = openpyxl.load_workbook(raw, read_only=True, data_only=True)
        try:
            yield book
        finally:
            book.close()


def _version(path: Path) -> tuple[Any, ...]:
    status = os.stat(path)
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns


def _table(sheet: Any, path: Path) -> pyarrow.Table:
    rows = sheet.iter_rows(values_only=True)
    names = _column_names(next(rows, ()))
    columns: list[list[Any]] = [[] for _ in names]
    count = 0
    for row in rows:
        count += len(row)
        if count > _MAX_CELLS:
            raise TooLarge(f"A sheet of {path.name!r} has more than {_MAX_CELLS} cells.")
        for number, column in enumerate(columns):
            column.append(row[number] if number < len(row) else None)
    while columns and columns[0] and all(column[-1] is None for column in columns):  # rows that were cleared
        for column in columns:
            column.pop()
    return pyarrow.table(dict(zip(names, map(_column, columns), strict=True)))


def _column_names(row: Sequence[Any]) -> list[str]:
    names: list[str] = []
    for number, cell in enumerate(row):
        name = f"Unnamed: {number}" if cell is None else str(cell)
        again, plain = 0, name
        while name in names:
            again += 1
            name = f"{plain}.{again}"
        names.append(name)
    return names


def _column(cells: list[Any]) -> pyarrow.Array:
    kinds = {type(cell) for cell in cells if cell is not None}
    if not kinds or kinds <= {int, float}:
        has_gaps = None in cells or not cells
        kind = pyarrow.int64() if kinds == {int} and not has_gaps and _fits(cells) else pyarrow.float64()
        return pyarrow.array([float("nan") if c is None else c for c in cells] if kind == pyarrow.float64() else cells, kind)
    if kinds == {bool} and None not in cells:
        return pyarrow.array(cells, pyarrow.bool_())
    if kinds <= {datetime.datetime, datetime.date}:
        return pyarrow.array(cells, pyarrow.timestamp("us"))
    return pyarrow.array([None if c is None else c if isinstance(c, str) else str(c) for c in cells], pyarrow.string())


def _fits(cells: list[int]) -> bool:
    return all(-(1 << 63) <= c < 1 << 63 for c in cells)
