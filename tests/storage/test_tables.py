"""Which store gets which table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow
import pytest

from tiled_stream.domain.errors import Malformed, NotSupported, UnsupportedType
from tiled_stream.storage.duckdb_tables import DuckdbTables
from tiled_stream.storage.file_tables import FileTables
from tiled_stream.storage.layout import SQL_TABLE
from tiled_stream.storage.table_formats import FORMATS
from tiled_stream.storage.tables import Tables
from tiled_stream.testing.factories import new_id, table_structure

ARROW = "application/vnd.apache.arrow.file"


@pytest.fixture
async def tables(tmp_path: Path) -> AsyncIterator[Tables]:
    tables = Tables(DuckdbTables(tmp_path / "t.duckdb"), {f.mimetype: FileTables(tmp_path, f) for f in FORMATS})
    yield tables
    for store in tables:
        await store.close()


async def test_a_table_that_names_nothing_is_kept_in_files(tables: Tables) -> None:
    place = tables.allocate(new_id(), table_structure(), None, {})
    assert (place.mimetype, place.is_directory) == ("application/x-parquet", True)


async def test_what_parquet_would_spoil_is_kept_as_arrow(tables: Tables) -> None:
    categories = table_structure(schema=pyarrow.schema([("v", pyarrow.dictionary(pyarrow.int8(), pyarrow.string()))]))
    assert tables.allocate(new_id(), categories, None, {}).mimetype == ARROW


async def test_who_names_an_sql_table_gets_one(tables: Tables) -> None:
    assert tables.allocate(new_id(), table_structure(), None, {"table_name": "mine"}).parameters["table_name"] == "mine"
    assert tables.allocate(new_id(), table_structure(), SQL_TABLE, {}).mimetype == SQL_TABLE


@pytest.mark.parametrize("mimetype", ["application/x-parquet", "text/csv", ARROW])
async def test_a_format_that_is_named_is_used(tables: Tables, mimetype: str) -> None:
    assert tables.allocate(new_id(), table_structure(), mimetype, {}).mimetype == mimetype


async def test_refusals_say_what_there_is(tables: Tables) -> None:
    with pytest.raises(UnsupportedType, match=r"x-tiled-sql-table.*x-parquet"):
        tables.allocate(new_id(), table_structure(), "application/x-nothing", {})
    with pytest.raises(UnsupportedType, match="-w DIRECTORY"):
        Tables(None, {}).of("text/csv")
    with pytest.raises(NotSupported, match="-w duckdb"):
        Tables(None, {}).allocate(new_id(), table_structure(), SQL_TABLE, {})
    with pytest.raises(NotSupported, match="-w DIRECTORY"):
        Tables(None, {}).allocate(new_id(), table_structure(), None, {})


async def test_without_a_directory_the_database_has_them_and_says_why_not(tmp_path: Path) -> None:
    tables = Tables(DuckdbTables(tmp_path / "t.duckdb"), {})
    assert tables.allocate(new_id(), table_structure(), None, {}).mimetype == SQL_TABLE
    with pytest.raises(Malformed, match="_hidden"):
        tables.allocate(new_id(), table_structure({"_hidden": "int8"}), None, {})
