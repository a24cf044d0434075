"""The shared catalog keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tiled_stream.catalog.postgres import PostgresCatalog
from tiled_stream.testing.catalog_contract import CatalogContract, Reopen


class TestPostgresCatalog(CatalogContract):
    @pytest.fixture
    async def catalog(self, new_postgres: str) -> AsyncIterator[PostgresCatalog]:
        catalog = PostgresCatalog(new_postgres, init=True)
        await catalog.open()
        yield catalog
        await catalog.close()

    @pytest.fixture
    async def reopen(self, catalog: PostgresCatalog, new_postgres: str) -> AsyncIterator[Reopen]:
        opened = [catalog]

        async def again() -> PostgresCatalog:
            await opened[-1].close()
            opened.append(PostgresCatalog(new_postgres))
            await opened[-1].open()
            return opened[-1]

        yield again
        await opened[-1].close()
