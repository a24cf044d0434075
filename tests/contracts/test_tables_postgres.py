"""The table store on PostgreSQL keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tiled_stream.storage.postgres_tables import PostgresTables
from tiled_stream.testing.table_contract import Reopen, SqlTableStoreContract
from tiled_stream.testing.table_fence_contract import SharedTableContract


class TestPostgresTables(SqlTableStoreContract):
    @pytest.fixture
    async def store(self, new_postgres: str) -> AsyncIterator[PostgresTables]:
        store = PostgresTables(new_postgres)
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def reopen(self, store: PostgresTables, new_postgres: str) -> AsyncIterator[Reopen]:
        stores = [store]

        async def again() -> PostgresTables:
            await stores[-1].close()
            stores.append(PostgresTables(new_postgres))
            await stores[-1].open()
            return stores[-1]

        yield again
        await stores[-1].close()


class TestSharedPostgresTables(SharedTableContract):
    @pytest.fixture
    async def store(self, new_postgres: str) -> AsyncIterator[PostgresTables]:
        store = PostgresTables(new_postgres)
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def second(self, store: PostgresTables, new_postgres: str) -> AsyncIterator[PostgresTables]:
        second = PostgresTables(new_postgres)
        await second.open()
        yield second
        await second.close()
