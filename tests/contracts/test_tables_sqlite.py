"""The table store on SQLite keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tiled_stream.storage.sqlite_tables import SqliteTables
from tiled_stream.testing.table_contract import Reopen, SqlTableStoreContract
from tiled_stream.testing.table_fence_contract import SharedTableContract


class TestSqliteTables(SqlTableStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteTables]:
        store = SqliteTables(tmp_path / "tables.sqlite")
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def reopen(self, store: SqliteTables, tmp_path: Path) -> AsyncIterator[Reopen]:
        stores = [store]

        async def again() -> SqliteTables:
            await stores[-1].close()
            stores.append(SqliteTables(tmp_path / "tables.sqlite"))
            await stores[-1].open()
            return stores[-1]

        yield again
        await stores[-1].close()


class TestSharedSqliteTables(SharedTableContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteTables]:
        store = SqliteTables(tmp_path / "tables.sqlite")
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def second(self, store: SqliteTables, tmp_path: Path) -> AsyncIterator[SqliteTables]:
        second = SqliteTables(tmp_path / "tables.sqlite")
        await second.open()
        yield second
        await second.close()
