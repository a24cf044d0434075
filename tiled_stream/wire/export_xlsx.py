"""Tables as spreadsheets of Excel. What a sheet cannot hold is refused; nothing is cut off, and no text becomes a formula."""

from __future__ import annotations

import io
import re
from math import isfinite
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
#: Control characters, which XML has not, and what would be taken for an escaped one.
_ESCAPED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")


def encode_xlsx(table: pyarrow.Table) -> bytes:
    """One sheet with a row of names. Cells are numbers, booleans and texts; NaN and nulls are empty, infinities texts."""
    openpyxl = library("openpyxl")
    if table.num_rows >= MAX_ROWS or table.num_columns > MAX_COLUMNS:
        raise NotAcceptable(
            f"A sheet has at most {MAX_ROWS - 1} rows and {MAX_COLUMNS} columns, this table {table.num_rows} and "
            f"{table.num_columns}; ask for fewer columns, by partition, or for text/csv."
        )
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("table")
    sheet.append([_cell(openpyxl, sheet, name) for name in table.schema.names])
    for row in zip(*(text_column(column) for column in table.columns), strict=True):
        sheet.append([_cell(openpyxl, sheet, value) for value in row])
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def _cell(openpyxl: Any, sheet: Any, value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None if value != value else _cell(openpyxl, sheet, str(value))
    text = value if isinstance(value, str) else json_text(value)
    if len(text) > MAX_TEXT:
        raise NotAcceptable(f"A cell of a sheet has at most {MAX_TEXT} characters, and here is a text of {len(text)}.")
    cell = openpyxl.cell.WriteOnlyCell(sheet, value=_ESCAPED.sub(_escape, text))
    cell.data_type = "s"  # a text that begins with "=" would be a formula
    return cell


def _escape(found: re.Match[str]) -> str:
    """As ECMA-376 (22.9.2.19, ST_Xstring) writes what a text of XML cannot hold."""
    return f"_x{ord(found[0]):04X}_"
