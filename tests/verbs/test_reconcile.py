"""Catalog or storage that were restored to an earlier state: what the log has is applied again, the rest is an error that
names it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from tests.verbs.conftest import Core, built, running
from tests.verbs.test_persister import SCHEMA, arrow
from tiled_stream.catalog.sqlite import SqliteCatalog
from tiled_stream.domain.commands import AppendRows, DeleteNode, PatchArray, ReplaceMetadata
from tiled_stream.domain.errors import DataLost, NotFound, StorageMissing
from tiled_stream.domain.search import Page, Search
from tiled_stream.domain.slices import whole
from tiled_stream.domain.structures import ArrayStructure
from tiled_stream.log.memory import MemoryLog
from tiled_stream.log.port import Retention
from tiled_stream.storage.duckdb_tables import DuckdbTables
from tiled_stream.storage.zarr_arrays import ZarrArrays

Restore = Callable[..., Awaitable[Core]]
NOTHING_KEPT = Retention(node_bytes=0, total_bytes=0, seconds=0)


class Deployment:
    """Files and a log that outlive servers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = MemoryLog()
        self._opened: list[Any] = []
        self._numbers = 0

    async def server(self) -> Core:
        catalog = SqliteCatalog(self.directory / "catalog.db", init=True)
        arrays = ZarrArrays(self.directory / "data")
        tables = DuckdbTables(self.directory / "data.duckdb")
        for engine in (catalog, arrays, tables):
            await engine.open()
        self._opened = [catalog, arrays, tables]
        return built(self.log, catalog, arrays, tables, self.directory)

    async def stop(self) -> None:
        for engine in self._opened:
            await engine.close()
        self._opened = []

    async def backup(self, core: Core) -> Path:
        """A copy of all files, made while the server is stopped."""
        await persisted(core)
        await self.stop()
        self._numbers += 1
        copy = self.directory.parent / f"backup{self._numbers}"
        shutil.copytree(self.directory, copy)
        return copy

    def put_back(self, copy: Path, *names: str) -> None:
        """Replace these files by those of the copy; one that is not there is removed."""
        for name in names:
            for path in self.directory.glob(name + "*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path in copy.glob(name + "*"):
                target = self.directory / path.name
                shutil.copytree(path, target) if path.is_dir() else shutil.copy(path, target)


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    directory = tmp_path / "files"
    directory.mkdir()
    deployment = Deployment(directory)
    await deployment.log.open()
    yield deployment
    await deployment.stop()
    await deployment.log.close()


async def persisted(core: Core) -> None:
    async with asyncio.timeout(30):
        while (await core.log.lag()).nodes:
            await core.persister.round()


async def append(core: Core, first: int, last: int) -> None:
    for n in range(first, last + 1):
        await core.writer.submit(("t",), AppendRows(0, arrow((n, 0.0))))


async def extend(core: Core, first: int, last: int) -> None:
    for n in range(first, last + 1):
        await core.writer.submit(("x",), PatchArray((n, 0), (1, 2), numpy.full(2, n + 1.0).tobytes(), extend=True))


async def rows(core: Core) -> list[int]:
    table = await core.reader.table(await core.browse.resolve(("t",)))
    return list(table.column("x").to_pylist())


async def cells(core: Core) -> list[float]:
    at = await core.browse.resolve(("x",))
    structure = at.node.structure
    assert isinstance(structure, ArrayStructure)
    return list((await core.reader.array(at, structure, whole(structure.shape)))[:, 0])


async def keys(core: Core) -> list[str]:
    listing = await core.browse.search(await core.browse.resolve(("c",)), Search(), Page())
    return [hit.path[-1] for hit in listing.hits]


async def filled(core: Core) -> None:
    """A table, an array and a container, all of which the backup has."""
    await core.table("t", schema=SCHEMA)
    await core.array("x", shape=(1, 2), chunks=((4,), (2,)))
    await core.container("c")
    await append(core, 1, 10)
    await extend(core, 0, 9)
    for n in range(5):
        await core.container("c", f"k{n}")


async def grown(core: Core) -> None:
    """What comes after the backup."""
    await append(core, 11, 20)
    await extend(core, 10, 22)
    for n in range(5, 10):
        await core.container("c", f"k{n}")
    await core.writer.submit(("c", "k3"), ReplaceMetadata({"v": 77}))
    await core.writer.submit(("c", "k4"), DeleteNode(recursive=True, external_only=False))


async def restored(deployment: Deployment, *names: str, trimmed: bool = False, remove: bool = False) -> Core:
    """A server that was filled and grown, with some files as the backup has them."""
    core = await deployment.server()
    await filled(core)
    copy = await deployment.backup(core)
    core = await deployment.server()
    await grown(core)
    await persisted(core)
    await core.reconciler._watch()
    if trimmed:
        await core.log.trim(NOTHING_KEPT, now=2e9)
    await deployment.stop()
    deployment.put_back(copy.parent / "nothing" if remove else copy, *names)
    return await deployment.server()


@pytest.mark.parametrize("remove", [False, True])
async def test_rows_missing_in_storage_are_applied_again(deployment: Deployment, remove: bool) -> None:
    core = await restored(deployment, "data.duckdb", remove=remove)
    with pytest.raises(DataLost, match="records up to"):
        await rows(core)
    await core.reconciler.compare(is_all=False)
    await persisted(core)
    assert await rows(core) == list(range(1, 21))
    assert core.apply.stats.behind == 1
    assert core.apply.stats.lost == 0


async def test_cells_missing_in_storage_are_applied_again(deployment: Deployment) -> None:
    core = await restored(deployment, "data")
    with pytest.raises(DataLost):
        await cells(core)
    async with running(core):
        await core.reconciler._compare_suspects()
        async with asyncio.timeout(20):
            while True:
                try:
                    assert await cells(core) == [n + 1.0 for n in range(23)]
                    break
                except DataLost:
                    await asyncio.sleep(0)


async def test_next_write_catches_up_a_storage_that_was_restored(deployment: Deployment) -> None:
    """Without a comparison at start: the store's answer is enough (I4, I6)."""
    core = await restored(deployment, "data.duckdb")
    await append(core, 21, 21)
    await persisted(core)
    assert await rows(core) == list(range(1, 22))


async def test_rows_that_nothing_has_any_more_are_reported_and_never_hidden(deployment: Deployment) -> None:
    core = await restored(deployment, "data.duckdb", trimmed=True)
    with pytest.raises(DataLost):
        await rows(core)
    await core.reconciler._compare_suspects()
    (loss,) = await core.catalog.losses()
    node = (await core.browse.resolve(("t",))).node
    assert (loss.node, loss.first, loss.last) == (node.id, 11, 20)
    with pytest.raises(DataLost, match="10 acknowledged records of /t"):
        await rows(core)
    await append(core, 21, 22)  # writes go on, and are stored
    await persisted(core)
    with pytest.raises(DataLost):
        await rows(core)
    assert await core.catalog.accept_losses([node.id]) == 10
    core.reconciler._note_losses(await core.catalog.losses())
    assert await rows(core) == [*range(1, 11), 21, 22]
    assert len(await core.catalog.losses()) == 0


async def test_rows_written_over_a_hole_are_stored_and_the_hole_is_reported(deployment: Deployment) -> None:
    core = await restored(deployment, "data.duckdb", trimmed=True)
    await append(core, 21, 21)
    await persisted(core)
    assert core.apply.stats.lost == 10
    with pytest.raises(DataLost):
        await rows(core)
    await core.catalog.accept_losses()
    assert await rows(core) == [*range(1, 11), 21]


async def test_catalog_restored_to_a_backup_shows_what_the_log_has(deployment: Deployment) -> None:
    core = await restored(deployment, "catalog.db")
    with pytest.raises(DataLost, match="restored from an older backup"):
        await keys(core)  # never a listing without the children that were acknowledged
    await core.reconciler._at_start(False)
    await persisted(core)
    assert await keys(core) == ["k0", "k1", "k2", "k3", *(f"k{n}" for n in range(5, 10))]
    assert (await core.browse.resolve(("c", "k3"))).node.metadata == {"v": 77}
    with pytest.raises(NotFound):
        await core.browse.resolve(("c", "k4"))
    assert await rows(core) == list(range(1, 21))
    assert await cells(core) == [n + 1.0 for n in range(23)]
    assert core.apply.stats.lost == 0
    assert await core.catalog.losses() == []


async def test_catalog_older_than_the_log_reaches_reports_what_is_missing(deployment: Deployment) -> None:
    core = await restored(deployment, "catalog.db", trimmed=True)
    await core.reconciler._at_start(False)
    lost = {(loss.node, loss.first, loss.last) for loss in await core.catalog.losses()}
    container = (await core.browse.resolve(("c",))).node
    assert (container.id, 6, 12) in lost
    with pytest.raises(DataLost, match="of /c"):
        await keys(core)
    await core.catalog.accept_losses()
    core.reconciler._note_losses([])
    assert await keys(core) == [f"k{n}" for n in range(5)]
    assert await rows(core) == list(range(1, 21))  # storage has them, and columns never change


async def test_sequences_given_again_after_catalog_and_log_were_lost_lose_nothing(deployment: Deployment) -> None:
    """The catalog is restored, the log is empty, the storage is newer than both: new rows must not be taken for old ones."""
    core = await restored(deployment, "catalog.db")
    await deployment.stop()
    deployment.log = MemoryLog()
    await deployment.log.open()
    core = await deployment.server()
    await append(core, 101, 103)
    await persisted(core)
    assert await rows(core) == [*range(1, 21), 101, 102, 103]


async def test_records_trimmed_while_a_persister_was_idle_are_not_counted_as_lost(deployment: Deployment) -> None:
    core = await deployment.server()
    await filled(core)
    await persisted(core)
    other = built(core.log, core.catalog, core.arrays, core.tables, deployment.directory)
    await append(other, 11, 12)
    await persisted(other)
    await core.log.trim(NOTHING_KEPT, now=2e9)
    await append(core, 13, 13)
    await persisted(core)
    assert await rows(core) == list(range(1, 14))
    assert core.apply.stats.lost == other.apply.stats.lost == 0
    assert await core.catalog.losses() == []


async def test_accepted_storage_that_is_behind_serves_what_it_has(deployment: Deployment) -> None:
    """Also if nothing was written since: what was accepted is not found again."""
    core = await restored(deployment, "data.duckdb", trimmed=True)
    with pytest.raises(DataLost):
        await rows(core)
    node = (await core.browse.resolve(("t",))).node
    await core.catalog.accept_losses([node.id])
    assert await rows(core) == list(range(1, 11))
    await append(core, 21, 22)
    await persisted(core)
    assert await rows(core) == [*range(1, 11), 21, 22]
    assert await core.catalog.losses() == []


async def test_storage_that_cannot_be_read_does_not_keep_another_from_healing(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = await restored(deployment, "data.duckdb")

    async def missing(nodes: object) -> list[int]:
        raise StorageMissing("not mounted")

    monkeypatch.setattr(core.arrays, "watermarks", missing)
    await core.reconciler.compare(is_all=False)
    await persisted(core)
    assert await rows(core) == list(range(1, 21))
    assert core.apply.stats.lost == 0
