"""The table store on DuckDB keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tiled_stream.storage.duckdb_tables import DuckdbTables
from tiled_stream.testing.table_contract import Reopen, SqlTableStoreContract


class TestDuckdbTables(SqlTableStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[DuckdbTables]:
        store = DuckdbTables(tmp_path / "tables.duckdb")
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def reopen(self, store: DuckdbTables, tmp_path: Path) -> AsyncIterator[Reopen]:
        stores = [store]

        async def again() -> DuckdbTables:
            await stores[-1].close()
            stores.append(DuckdbTables(tmp_path / "tables.duckdb"))
            await stores[-1].open()
            return stores[-1]

        yield again
        await stores[-1].close()
