"""The part store on files keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tiled_stream.storage.part_files import PartFiles
from tiled_stream.testing.file_fence_contract import FileFenceContract, Opened
from tiled_stream.testing.part_contract import PartStoreContract, split_part


class TestPartFiles(PartStoreContract, FileFenceContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[PartFiles]:
        store = PartFiles(tmp_path, split=split_part)
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def reopen(self, store: PartFiles, tmp_path: Path) -> AsyncIterator[object]:
        stores = [store]

        async def again() -> PartFiles:
            await stores[-1].close()
            stores.append(PartFiles(tmp_path, split=split_part))
            await stores[-1].open()
            return stores[-1]

        yield again
        await stores[-1].close()

    @pytest.fixture
    async def opened(self, tmp_path: Path) -> AsyncIterator[Opened]:
        stores = []

        async def another() -> PartFiles:
            stores.append(PartFiles(tmp_path, split=split_part))
            await stores[-1].open()
            return stores[-1]

        yield another
        for store in stores:
            await store.close()
