"""The table stores of files keep the contract: Arrow for every type, Parquet and CSV for those they say that they can hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pyarrow
import pytest

from tiled_stream.storage.file_tables import FileTables
from tiled_stream.storage.table_formats import ArrowFormat, CsvFormat, ParquetFormat, TableFormat
from tiled_stream.testing.fence_contract import FenceContract
from tiled_stream.testing.file_fence_contract import FileFenceContract, Opened
from tiled_stream.testing.table_contract import Reopen, TableStoreContract
from tiled_stream.testing.table_history import TableHistory
from tiled_stream.testing.table_model import COLUMNS


class FileTablesContract(TableStoreContract):
    """Of one format."""

    kind: TableFormat

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[FileTables]:
        store = FileTables(tmp_path, self.kind)
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def reopen(self, store: FileTables, tmp_path: Path) -> AsyncIterator[Reopen]:
        stores = [store]

        async def again() -> FileTables:
            await stores[-1].close()
            stores.append(FileTables(tmp_path, self.kind))
            await stores[-1].open()
            return stores[-1]

        yield again
        await stores[-1].close()

    @pytest.fixture
    async def opened(self, tmp_path: Path) -> AsyncIterator[Opened]:
        stores = []

        async def another() -> FileTables:
            stores.append(FileTables(tmp_path, self.kind))
            await stores[-1].open()
            return stores[-1]

        yield another
        for store in stores:
            await store.close()

    @pytest.fixture(autouse=True)
    def only_what_it_can_hold(self, request: pytest.FixtureRequest) -> None:
        """A type that the format refuses at creation never reaches it."""
        call = getattr(request.node, "callspec", None)
        name = call.params.get("kind") if call is not None else None
        if name is not None and not self.kind.can_hold(pyarrow.schema([("v", COLUMNS[name][0])])):
            pytest.skip(f"{self.kind.mimetype} refuses columns of type {name}")


class TestArrowTables(FileTablesContract):
    kind = ArrowFormat()

    def test_it_holds_every_type(self) -> None:
        assert all(self.kind.can_hold(pyarrow.schema([("v", declared)])) for declared, _ in COLUMNS.values())


class TestFencedTables(FenceContract, FileFenceContract):
    """How a directory is fenced has nothing to do with the format."""

    kind = ArrowFormat()
    store = FileTablesContract.store
    reopen = FileTablesContract.reopen
    opened = FileTablesContract.opened

    def model(self, random: Random) -> TableHistory:
        return TableHistory(random)

    async def delete(self, store: FileTables, model: TableHistory) -> None:
        await model.delete_from(store)


class TestParquetTables(FileTablesContract):
    kind = ParquetFormat()
    # Of types that Parquet refuses; it is run with Arrow.
    test_all_types_in_one_table = None
    test_categories_keep_their_order_and_those_not_seen = None

    def test_it_holds_what_scans_are_made_of(self) -> None:
        named = ("bool", "int8", "int64", "uint64", "float", "double", "string", "binary", "list", "nested", "struct", "zoned")
        assert all(self.kind.can_hold(pyarrow.schema([("v", COLUMNS[name][0])])) for name in named)


class TestCsvTables(FileTablesContract):
    kind = CsvFormat()
    test_all_types_in_one_table = None
    test_categories_keep_their_order_and_those_not_seen = None
    # There are lists, half floats in them; without these, the types above tell.
    test_nan_is_not_null = None
    test_random_histories_equal_the_model = None

    def test_it_holds_plain_columns(self) -> None:
        assert all(
            self.kind.can_hold(pyarrow.schema([("v", COLUMNS[name][0])])) for name in ("bool", "uint64", "double", "string")
        )
        assert not self.kind.can_hold(pyarrow.schema([("v", pyarrow.list_(pyarrow.int8()))]))
