"""The identity of a storage directory: a missing or foreign one is an error, and one that returns is used again."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from random import Random

import numpy
import pytest

from tiled_stream.domain.errors import StorageMissing
from tiled_stream.domain.events import PartWritten
from tiled_stream.domain.parts import FLOAT64
from tiled_stream.domain.slices import whole
from tiled_stream.domain.structures import RaggedStructure
from tiled_stream.log.claims import Claims
from tiled_stream.storage import storage_root
from tiled_stream.storage.file_tables import FileTables
from tiled_stream.storage.part_files import PartFiles
from tiled_stream.storage.port import Identified, PartBatch
from tiled_stream.storage.storage_root import MARKER, StorageRoot
from tiled_stream.storage.table_formats import ParquetFormat
from tiled_stream.storage.zarr_arrays import ZarrArrays
from tiled_stream.testing.array_contract import ArrayModel
from tiled_stream.testing.factories import array_structure, new_id, record
from tiled_stream.testing.table_model import two_columns

RAGGED = RaggedStructure(FLOAT64, (2, None), 0, ((1, 1), None))


def list_of(path: Path) -> list[str]:
    """The names in a directory; none if it does not exist."""
    return sorted(entry.name for entry in path.iterdir()) if path.exists() else []


class Mount:
    """A directory that can be taken away and brought back, as a mount is: an empty directory is left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._away = path.with_name("away")

    def unmount(self) -> None:
        self.path.rename(self._away)
        self.path.mkdir()

    def mount(self) -> None:
        self.path.rmdir()  # fails if something was written below the mount point
        self._away.rename(self.path)


@pytest.fixture
async def root(tmp_path: Path) -> StorageRoot:
    root = StorageRoot(tmp_path / "data")
    await root.bind("d1", None)
    return root


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    return Mount(tmp_path / "data")


async def test_new_directory_is_marked_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    roots: list[Identified] = [StorageRoot(path) for _ in range(8)]
    found = await asyncio.gather(*(root.bind("d1", None) for root in roots))
    assert len(set(found)) == 1
    assert [p.name for p in path.iterdir()] == [MARKER]
    assert await StorageRoot(path).bind("d1", found[0]) == found[0]
    assert roots[0].place == str(path)


async def test_new_directory_is_marked_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(storage_root.os, "link", refuse)
    found = await StorageRoot(tmp_path / "data").bind("d1", None)
    assert await StorageRoot(tmp_path / "data").bind("d1", None) == found
    assert [p.name for p in (tmp_path / "data").iterdir()] == [MARKER]


async def test_unmounted_directory_is_missing_and_is_not_created(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "none"):
        root = StorageRoot(path)
        with pytest.raises(StorageMissing, match=f"{path.name} is not there, or not mounted.*Mount"):
            await root.bind("d1", "i1")
        with pytest.raises(StorageMissing):
            root.check()
        assert list_of(path) == []


async def test_foreign_directories_are_refused(tmp_path: Path, root: StorageRoot) -> None:
    with pytest.raises(StorageMissing, match="belongs to the deployment d1, not to d2"):
        await StorageRoot(tmp_path / "data").bind("d2", None)
    incarnation = await root.bind("d1", None)
    with pytest.raises(StorageMissing, match=f"incarnation is {incarnation}, the catalog expects i0"):
        await StorageRoot(tmp_path / "data").bind("d1", "i0")
    (tmp_path / "data" / MARKER).write_text('{"deployment":')
    with pytest.raises(StorageMissing, match="damaged"):
        root.check()


async def test_failed_bind_heals_when_the_mount_returns(root: StorageRoot, mount: Mount) -> None:
    incarnation = await root.bind("d1", None)
    mount.unmount()
    late = StorageRoot(mount.path)
    with pytest.raises(StorageMissing):
        await late.bind("d1", incarnation)
    for each in (root, late):
        with pytest.raises(StorageMissing):
            each.check()
    mount.mount()
    for each in (root, late):
        each.check()


async def test_replaced_directory_is_noticed(root: StorageRoot, mount: Mount, tmp_path: Path) -> None:
    mount.unmount()
    other = StorageRoot(tmp_path / "other")
    await other.bind("d1", None)
    shutil.copy(tmp_path / "other" / MARKER, mount.path / MARKER)
    with pytest.raises(StorageMissing, match="another one than before"):
        root.check()


async def test_unbound_directory_is_not_checked(tmp_path: Path) -> None:
    StorageRoot(tmp_path / "none").check()


async def test_arrays_are_not_zeros_while_the_mount_is_away(root: StorageRoot, mount: Mount) -> None:
    store = ZarrArrays(mount.path, check=root.check)
    model = ArrayModel(array_structure((4,)), numpy.dtype("<f8"), Random(1))
    model.write_whole()
    await store.apply([model.batch()])
    mount.unmount()
    other = new_id()
    for node in (model.node, other):
        with pytest.raises(StorageMissing, match=str(mount.path)):
            await store.read(node, model.structure, whole((4,)))
        with pytest.raises(StorageMissing):
            await store.is_written(node, model.structure)
    model.write_whole()
    for work in (store.apply([model.batch()]), store.delete(model.node), store.watermarks([model.node, other])):
        with pytest.raises(StorageMissing):
            await work
    mount.mount()
    assert await store.watermarks([model.node, other]) == [1, 0]
    assert await store.apply([model.batch()]) == [2]
    numpy.testing.assert_array_equal(await store.read(model.node, model.structure, whole((4,))), model.values)
    await store.close()


async def test_parts_are_not_missing_while_the_mount_is_away(root: StorageRoot, mount: Mount) -> None:
    store = PartFiles(mount.path, split=lambda event, body: {"whole": body}, check=root.check)
    node = new_id()
    batch = PartBatch(node, (record(1, PartWritten((2, None), RAGGED), b"x"),))
    await store.apply([batch])
    mount.unmount()
    for work in (
        store.read(node, ["whole"], limit=9),
        store.apply([batch]),
        store.watermarks([node]),
        store.delete(node),
    ):
        with pytest.raises(StorageMissing):
            await work
    mount.mount()
    assert await store.read(node, ["whole"], limit=9) == {"whole": b"x"}
    assert await store.apply([batch]) == [1]
    await store.close()


async def test_tables_are_not_empty_while_the_mount_is_away(root: StorageRoot, mount: Mount) -> None:
    store = FileTables(mount.path, ParquetFormat(), check=root.check)
    model = two_columns()
    model.append([{"x": 1, "y": 2.0}])
    await store.apply([model.batch()])
    mount.unmount()
    for work in (
        store.read(model.node, model.structure),
        store.rows(model.node, model.structure),
        store.arrived(model.node, model.structure, after=0, upto=1, rows=9),
        store.watermark(model.node),
        store.apply([model.batch()]),
        store.delete([(model.node, model.structure)]),
    ):
        with pytest.raises(StorageMissing):
            await work
    mount.mount()
    assert await store.apply([model.batch()]) == [1]
    assert (await store.read(model.node, model.structure)).equals(model.table())
    await store.close()


@pytest.mark.parametrize("at", [1, 3], ids=["write", "read"])
async def test_mount_that_goes_away_during_a_call_is_noticed(root: StorageRoot, mount: Mount, at: int) -> None:
    """After the check at the beginning of a call: neither a confirmation nor zeros."""
    checks = 0

    def check() -> None:
        nonlocal checks
        root.check()
        checks += 1
        if checks == at:
            mount.unmount()

    model = ArrayModel(array_structure((4,)), numpy.dtype("<f8"), Random(1))
    model.write_whole()
    store = ZarrArrays(mount.path, check=check)
    if at > 1:
        await store.apply([model.batch()])  # two checks
        with pytest.raises(StorageMissing):
            await store.read(model.node, model.structure, whole((4,)))
    else:
        with pytest.raises(StorageMissing):
            await store.apply([model.batch()])
    await store.close()


async def test_large_bodies_of_the_log_are_not_missing_while_the_mount_is_away(root: StorageRoot, mount: Mount) -> None:
    claims, node = Claims(mount.path / ".claims", above=1, check=root.check), new_id()
    token = await claims.keep(node, b"body")
    mount.unmount()
    with pytest.raises(StorageMissing):
        await claims.take(node, token)
    with pytest.raises(StorageMissing):
        await claims.keep(node, b"other")
    mount.mount()
    assert await claims.take(node, token) == b"body"
    assert await claims.take(node, f"{token[:-8]}00000000") is None
