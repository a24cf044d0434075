"""The state of nodes while the catalog cannot be reached: answered from the log if the log has all of it, refused otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.verbs.conftest import Core, built, running
from tests.verbs.logs import Away
from tiled_stream.catalog.sqlite import SqliteCatalog
from tiled_stream.domain.commands import (
    CreateChild,
    DeleteNode,
    DeleteRevision,
    EndStream,
    PatchArray,
    PatchMetadata,
    ReplaceMetadata,
    WriteArray,
)
from tiled_stream.domain.errors import Conflict, NotFound, Unavailable
from tiled_stream.domain.events import ChildCreated, Draft
from tiled_stream.domain.nodes import ROOT
from tiled_stream.domain.structures import ArrayStructure, DataType
from tiled_stream.log.memory import MemoryLog
from tiled_stream.log.port import Retention
from tiled_stream.nodes import repository as module
from tiled_stream.nodes.repository import Repository
from tiled_stream.storage.duckdb_tables import DuckdbTables
from tiled_stream.storage.zarr_arrays import ZarrArrays

ROW = bytes(24)


class Switched:
    """A core, and the switch that takes its catalog away."""

    def __init__(self, core: Core, away: Away) -> None:
        self.core = core
        self.away = away

    async def persisted(self) -> None:
        """All that was written is in the catalog."""
        await self.core.barrier.settle_all()

    async def submit(self, path: str, command: Any) -> Any:
        return await self.core.writer.submit(tuple(key for key in path.split("/") if key), command)

    async def container(self, path: str) -> None:
        parent, _, key = path.rpartition("/")
        await self.submit(parent, CreateChild(key, "container", {}))


@pytest.fixture
async def switched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Switched]:
    log, away = MemoryLog(), Away("The catalog cannot be reached.")
    catalog = SqliteCatalog(tmp_path / "catalog.db", init=True)
    engines = (log, catalog, ZarrArrays(tmp_path / "data"), DuckdbTables(tmp_path / "data.duckdb"))
    for engine in engines:
        await engine.open()
    for name in ("node", "child", "children", "descendants", "revisions", "count", "apply"):
        method = getattr(catalog, name)
        monkeypatch.setattr(catalog, name, lambda *a, _m=method, **k: away(lambda: _m(*a, **k)))
    core = built(log, *engines[1:], tmp_path)
    async with running(core):
        yield Switched(core, away)
        away.is_away = False
    for engine in engines:
        await engine.close()


async def test_writes_go_on_while_the_catalog_cannot_be_reached(switched: Switched) -> None:
    submit, core = switched.submit, switched.core
    await switched.container("run")
    await core.array("run", "x", shape=(1, 3))
    await switched.persisted()
    switched.away.is_away = True
    # In a container whose life this process, or the log, knows:
    await switched.container("run/k")
    await submit("run/k", ReplaceMetadata({"v": 1}, None))
    await submit("run/k", PatchMetadata("merge-patch", {"v": 2}, None, None))
    await switched.container("run/k/below")
    with pytest.raises(Conflict, match="has children"):
        await submit("run/k", DeleteNode(recursive=False, external_only=True))
    await submit("run/k", DeleteNode(recursive=True, external_only=False))
    with pytest.raises(Conflict):
        await switched.container("run/x")
    await switched.container("run/k")  # its key is free again
    assert await core.repository.child_count((await core.repository.resolve(("run",))).node.id) == 2
    # Of data that exist, and of new ones:
    await submit("run/x", WriteArray(ROW))
    await submit("run/x", PatchArray((1,), (1, 3), ROW, extend=True))
    await core.array("run", "y", shape=(1, 3))
    await submit("run/y", WriteArray(ROW))
    await submit("run/y", ReplaceMetadata({"v": 1}, None))
    await submit("run/y", EndStream())
    await submit("run/y", DeleteNode(recursive=False, external_only=False))
    switched.away.is_away = False
    await switched.persisted()
    stored = await core.catalog.child(ROOT, "run")
    assert stored.children == 2
    assert (await core.catalog.child(stored.node.id, "x")).node.structure == ArrayStructure(
        DataType(itemsize=8, kind="f", endianness="little"), ((1, 1), (3,)), (2, 3)
    )


async def test_log_tells_the_life_of_a_container_that_is_not_remembered(switched: Switched) -> None:
    core = switched.core
    await switched.container("run")
    await switched.container("run/a")
    await switched.persisted()
    run = (await core.repository.resolve(("run",))).node
    core.repository._containers.pop(run.id)
    switched.away.is_away = True
    await switched.container("run/b")
    with pytest.raises(Conflict):
        await switched.container("run/a")
    assert await core.repository.child_count(run.id) == 2


async def test_long_life_begins_at_the_watermark(switched: Switched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WHOLE", 3)
    core = switched.core
    await switched.container("run")
    for n in range(5):
        await switched.container(f"run/k{n}")
    await switched.persisted()
    run = (await core.repository.resolve(("run",))).node
    core.repository._containers.pop(run.id)
    await core.repository.resolve(("run",))
    assert core.repository._containers[run.id].base == 5
    assert await core.repository.child_count(run.id) == 5


async def test_what_only_the_catalog_can_tell_is_refused(switched: Switched) -> None:
    core = switched.core
    await switched.container("old")
    await switched.container("old/child")
    await switched.submit("old/child", ReplaceMetadata({"v": 1}, None))
    await switched.persisted()
    await core.log.trim(Retention(0, 0, 0.0), now=1e12)
    core.repository.forget()
    await core.repository.resolve(("old", "child"))  # in use
    switched.away.is_away = True
    before = await core.log.heads([ROOT])
    for path, command in (
        ("", CreateChild("new", "container", {})),  # is this key taken?
        ("other", CreateChild("new", "container", {})),  # is there such a node?
        ("old", DeleteNode(recursive=False, external_only=True)),  # has it children?
        ("old/child", DeleteRevision(1)),
    ):
        with pytest.raises(Unavailable):
            await switched.submit(path, command)
    assert await core.log.heads([ROOT]) == before  # I10
    await switched.submit("old/child", ReplaceMetadata({"v": 2}, None))
    await switched.submit("old", CreateChild(None, "container", {}))  # a key that is made here is free
    switched.away.is_away = False
    await switched.container("new")
    with pytest.raises(NotFound):
        await switched.container("other/new")


async def test_container_that_the_log_forgot_long_ago_is_not_taken_for_empty(switched: Switched) -> None:
    """A log forgets heads of clean nodes after weeks; a tail of the parent may know of the creation still."""
    await switched.container("run")
    await switched.container("run/k")
    await switched.persisted()
    core = switched.core

    log = MemoryLog()  # one that knows the root, and nothing of what is below it
    await log.open()
    record = (await core.log.read(ROOT, 0))[0]
    assert isinstance(record.event, ChildCreated)
    await log.append(ROOT, Draft(record.event, record.time))
    repository = Repository(log, core.catalog, now=lambda: record.time + 40 * 24 * 3600)
    repository._containers[ROOT] = tail = module.ContainerTail(0, log.epoch)
    tail.fold([record])
    node = (await repository.resolve(("run",))).node
    assert await repository.child_count(node.id) == 1
    assert (await repository.child(node.id, "k"))[0] is not None
    await log.close()


async def test_deleted_revision_names_the_floor(switched: Switched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a log that was emptied would give a sequence again that others have seen."""
    await switched.container("run")
    await switched.submit("run", ReplaceMetadata({"v": 1}, None))
    floors = []
    append = switched.core.log.append

    async def noted(node: str, *drafts: Any, **more: Any) -> Any:
        floors.append(more.get("floor", 0))
        return await append(node, *drafts, **more)

    monkeypatch.setattr(switched.core.log, "append", noted)
    await switched.submit("run", DeleteRevision(1))
    assert floors == [2]
