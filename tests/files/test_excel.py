"""Workbooks, written by openpyxl and pandas and compared with what pandas reads."""

from __future__ import annotations

import datetime
import time
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pandas
import pytest

from tiled_stream.domain.errors import Malformed, NotFound, TooLarge, Unavailable
from tiled_stream.files import excel
from tiled_stream.files.formats import EXCEL, open_tree
from tiled_stream.files.port import Source
from tiled_stream.files.wall import Wall
from tiled_stream.testing.reader_contract import LIMIT, aged, uri


def source(path: Path, **fields: Any) -> Source:
    options = {"wall": Wall([path.parent]), "now": time.time(), "limit": LIMIT, "uris": (uri(path),), **fields}
    return Source(structure=None, mimetype=EXCEL, **options)


def sheet(path: Path, name: str, *columns: str) -> Any:
    entry, _ = open_tree(source(path)).look((name,))
    assert entry.schema is not None
    table = excel.read_excel(source(path, inside=(name,)), path, columns or entry.schema.names)
    assert columns or table.schema == entry.schema
    return table


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """Sheets of several types, one of them as pandas writes them."""
    frame = pandas.DataFrame(
        {
            "whole": [1, 2, 3],
            "number": [1.5, 2.0, -3.25],
            "gaps": [1, None, 3],
            "yes": [True, False, True],
            "text": ["a", "b", "ü"],
            "mixed": [1, "b", 2.5],
            "when": [datetime.datetime(2026, 1, 2), datetime.datetime(2026, 1, 3, 4, 5, 6), datetime.datetime(1999, 12, 31)],
        }
    )
    with pandas.ExcelWriter(tmp_path / "x.xlsx") as writer:
        frame.to_excel(writer, sheet_name="first", index=False)
        frame.to_excel(writer, sheet_name="with index")
        pandas.DataFrame().to_excel(writer, sheet_name="empty")
    return tmp_path / "x.xlsx"


def test_sheets(book: Path) -> None:
    tree = open_tree(source(book))
    entry, _ = tree.look(())
    assert (entry.family, entry.count) == ("container", 3)
    page = tree.page((), offset=0, limit=9, backwards=True)
    assert [name for name, _ in page.children] == ["empty", "with index", "first"]
    assert tree.look(("first", "text"))[1] == "text"
    for keys in (("nothing",), ("first", "nothing"), ("first", "text", "more")):
        with pytest.raises(NotFound):
            tree.look(keys)


@pytest.mark.parametrize("name", ["first", "with index", "empty"])
def test_values_are_those_of_pandas(book: Path, name: str) -> None:
    wanted = pandas.read_excel(book, sheet_name=name)
    found = sheet(book, name).to_pandas()
    assert list(found.columns) == list(wanted.columns)
    for column in wanted.columns:
        kind = wanted[column].dtype.kind
        assert found[column].dtype.kind == kind or kind == "O"
        values = [str(v) for v in wanted[column]] if column == "mixed" else list(wanted[column])
        assert pandas.Series(list(found[column])).equals(pandas.Series(values))


def test_some_columns(book: Path) -> None:
    assert sheet(book, "first", "text", "whole").schema.names == ["text", "whole"]
    table = excel.read_excel(source(book, parameters={"sheet_name": "first"}), book, ["whole"])
    assert table.column("whole").to_pylist() == [1, 2, 3]
    assert excel.read_excel(source(book), book, ["whole"]).num_rows == 3


def test_names_and_rows(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    page = book.active
    for row in (["a", "a", None, 5], [1, 2], [None, datetime.date(2026, 1, 1), 1 << 70, "x"], [None, None, None, None]):
        page.append(row)
    book.save(tmp_path / "x.xlsx")
    table = sheet(tmp_path / "x.xlsx", "Sheet")
    assert table.schema.names == ["a", "a.1", "Unnamed: 2", "5"]
    assert table.num_rows == 2
    assert table.column("a.1").to_pylist() == ["2", "2026-01-01 00:00:00"]
    assert table.column("5").to_pylist() == [None, "x"]


def test_a_workbook_that_changes_is_read_again(tmp_path: Path) -> None:
    for number in range(3):
        pandas.DataFrame({"a": [number] * (number + 1)}).to_excel(tmp_path / "x.xlsx", index=False)
        assert sheet(tmp_path / "x.xlsx", "Sheet1").column("a").to_pylist() == [number] * (number + 1)


def test_files_that_cannot_be_read(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooLarge):
        open_tree(source(book, limit=1000)).look(())
    monkeypatch.setattr(excel, "_MAX_CELLS", 5)
    pandas.DataFrame({"a": range(10)}).to_excel(book, index=False)
    with pytest.raises(TooLarge):
        open_tree(source(book)).look(("Sheet1",))
    content = book.read_bytes()
    with zipfile.ZipFile(book, "w") as file:
        file.writestr("else.txt", "nothing")
    for broken in (book.read_bytes(), b"", b"no zip at all", content[: len(content) // 2]):
        book.write_bytes(broken)
        with pytest.raises(Unavailable):
            open_tree(source(book)).look(())
        aged(book)
        with pytest.raises(Malformed):
            open_tree(source(book)).look(())
