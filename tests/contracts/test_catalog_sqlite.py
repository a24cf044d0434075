"""The embedded catalog keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tiled_stream.catalog.sqlite import SqliteCatalog
from tiled_stream.testing.catalog_contract import CatalogContract, Reopen


class TestSqliteCatalog(CatalogContract):
    @pytest.fixture
    async def catalog(self, tmp_path: Path) -> AsyncIterator[SqliteCatalog]:
        catalog = SqliteCatalog(tmp_path / "catalog.db", init=True)
        await catalog.open()
        yield catalog
        await catalog.close()

    @pytest.fixture
    async def reopen(self, catalog: SqliteCatalog, tmp_path: Path) -> AsyncIterator[Reopen]:
        opened = [catalog]

        async def again() -> SqliteCatalog:
            await opened[-1].close()
            opened.append(SqliteCatalog(tmp_path / "catalog.db"))
            await opened[-1].open()
            return opened[-1]

        yield again
        await opened[-1].close()
