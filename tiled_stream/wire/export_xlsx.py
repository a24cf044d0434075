"""Tables as spreadsheets of Excel. What a sheet cannot hold is refused; nothing is cut off, and no text becomes a formula."""

from __future__ import annotations

import io
import re
from typing import Any

import pyarrow

from ..domain.errors import NotAcceptable
from .export_library import library
from .table_columns import text_column
from .tables import json_text

__all__ = ["encode_xlsx"]

MAX_ROWS = 1 << 20
MAX_COLUMNS = 1 << 14
MAX_TEXT = 32767
#: A sheet counts in doubles, and is written with 16 digits.
MAX_INTEGER = 1 << 53
#: The greatest number of Excel, and a little more.
MAX_NUMBER = 1e308
#: Control characters, which XML has not, and what would be taken for an escaped one.
_ESCAPED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")


def encode_xlsx(table: pyarrow.Table) -> bytes:
    """One sheet with a row of names. Cells are numbers, booleans and texts; NaN and nulls are empty; infinities and
    numbers beyond those of Excel are texts."""
    openpyxl = library("openpyxl")
    if table.num_rows >= MAX_ROWS or table.num_columns > MAX_COLUMNS:
        raise NotAcceptable(
            f"A sheet has at most {MAX_ROWS - 1} rows and {MAX_COLUMNS} columns, this table {table.num_rows} and "
            f"{table.num_columns}; ask for fewer columns, by partition, or for text/csv."
        )
    columns = [[name, *values] for name, values in zip(table.schema.names, map(text_column, table.columns), strict=True)]
    # All of it before the library begins: it does not clean up after a failure.
    rows = [[_plain(value) for value in row] for row in zip(*columns, strict=True)]
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("table")
    for row in rows:
        sheet.append([_text(openpyxl, sheet, value) if isinstance(value, str) else value for value in row])
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def _plain(value: Any) -> bool | int | float | str | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= MAX_INTEGER else str(value)
    if isinstance(value, float):
        return value if abs(value) < MAX_NUMBER else None if value != value else str(value)
    text = value if isinstance(value, str) else json_text(value)
    if len(text) > MAX_TEXT:
        raise NotAcceptable(f"A cell of a sheet has at most {MAX_TEXT} characters, and here is a text of {len(text)}.")
    return _ESCAPED.sub(_escape, text)


def _text(openpyxl: Any, sheet: Any, text: str) -> Any:
    cell = openpyxl.cell.WriteOnlyCell(sheet, value=text)
    cell.data_type = "s"  # a text that begins with "=" would be a formula
    return cell


def _escape(found: re.Match[str]) -> str:
    """As ECMA-376 (22.9.2.19, ST_Xstring) writes what a text of XML cannot hold."""
    return f"_x{ord(found[0]):04X}_"
