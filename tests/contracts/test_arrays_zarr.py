"""The array store on Zarr directories keeps the contract, compressed or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tiled_stream.storage.zarr_arrays import ZarrArrays
from tiled_stream.testing.array_contract import ArrayStoreContract, Reopen
from tiled_stream.testing.file_fence_contract import FileFenceContract, Opened


class ZarrArraysContract(ArrayStoreContract):
    """Of one level of compression."""

    level = 0

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[ZarrArrays]:
        store = ZarrArrays(tmp_path, level=self.level)
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def reopen(self, store: ZarrArrays, tmp_path: Path) -> AsyncIterator[Reopen]:
        stores = [store]

        async def again() -> ZarrArrays:
            await stores[-1].close()
            stores.append(ZarrArrays(tmp_path, level=self.level))
            await stores[-1].open()
            return stores[-1]

        yield again
        await stores[-1].close()


class TestZarrArrays(ZarrArraysContract, FileFenceContract):
    @pytest.fixture
    async def opened(self, tmp_path: Path) -> AsyncIterator[Opened]:
        stores = []

        async def another() -> ZarrArrays:
            stores.append(ZarrArrays(tmp_path, level=self.level))
            await stores[-1].open()
            return stores[-1]

        yield another
        for store in stores:
            await store.close()


class TestZarrArraysCompressed(ZarrArraysContract):
    level = 1
