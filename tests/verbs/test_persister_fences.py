"""Two persisters over the same log, catalog and storage: one that was idle or paused never undoes what the other one did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pytest

from tests.verbs.conftest import Core, running
from tests.verbs.test_persister import SCHEMA, arrow
from tiled_stream.domain.commands import AppendRows, PatchArray, WriteBlock
from tiled_stream.domain.nodes import Node
from tiled_stream.domain.slices import whole
from tiled_stream.domain.structures import ArrayStructure
from tiled_stream.log.port import Retention
from tiled_stream.persist.apply import Apply
from tiled_stream.persist.persister import Persister
from tiled_stream.persist.quarantine import Quarantine
from tiled_stream.storage.file_tables import FileTables
from tiled_stream.storage.part_files import PartFiles
from tiled_stream.storage.stores import Stores
from tiled_stream.storage.table_formats import ArrowFormat
from tiled_stream.storage.tables import Tables
from tiled_stream.storage.zarr_arrays import ZarrArrays
from tiled_stream.wire.parts import split


class Worker:
    """A persister as another process has it: its own memory, its own threads, the same files."""

    def __init__(self, core: Core, directory: Path, name: str) -> None:
        self.arrays = ZarrArrays(core.arrays._root)
        self.files = FileTables(core.arrays._root, ArrowFormat())
        stores = Stores(
            arrays=self.arrays,
            parts=PartFiles(core.arrays._root, split=split),
            tables=Tables(core.tables, {ArrowFormat.mimetype: self.files}),
        )
        self.apply = Apply(core.log, core.catalog, stores=stores, quarantine=Quarantine(directory / name), now=time.time)
        self.persister = Persister(
            core.log, self.apply, worker=name, retention=Retention(), now=time.time, linger=0, lease_seconds=0.05, retry_seconds=0
        )

    async def close(self) -> None:
        await self.arrays.close()
        await self.files.close()


@pytest.fixture
async def workers(idle: Core, tmp_path: Path) -> Any:
    both = [Worker(idle, tmp_path, name) for name in ("first", "second")]
    yield both
    for worker in both:
        await worker.close()


async def everything(core: Core, worker: Worker) -> None:
    """Rounds of this worker until nothing is pending."""
    async with asyncio.timeout(30):
        while (await core.log.lag()).nodes:
            await worker.persister.round()


async def cells(core: Core, *path: str) -> Any:
    at = await core.browse.resolve(path)
    structure = at.node.structure
    assert isinstance(structure, ArrayStructure)
    return await core.arrays.read(at.node.id, structure, whole(structure.shape))


async def test_idle_persister_does_not_apply_old_records_over_newer_ones(idle: Core, workers: list[Worker]) -> None:
    """What a worker remembers counts only while its lease says that no other one was there meanwhile (I4)."""
    first, second = workers
    await idle.array("x", shape=(2, 2, 2), chunks=((2,), (2,), (2,)))

    async def extend(n: int) -> None:
        frame = numpy.full(4, n + 1.0).tobytes()
        await idle.writer.submit(("x",), PatchArray((n, 0, 0), (1, 2, 2), frame, extend=True))

    await extend(0)
    await everything(idle, first)
    for n in range(1, 7):
        await extend(n)
        await everything(idle, second)
    await extend(7)
    await everything(idle, first)
    assert (await cells(idle, "x"))[:, 0, 0].tolist() == [n + 1.0 for n in range(8)]


@pytest.mark.parametrize("family", ["array", "file table", "sql table"])
async def test_paused_persister_changes_nothing_after_its_successor(
    idle: Core, workers: list[Worker], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read its records, is stopped before it writes them, and goes on when another worker has written more."""
    first, second = workers
    node = await created(idle, family)
    await everything(idle, first)
    store: Any = {"array": first.arrays, "file table": first.files, "sql table": idle.tables}[family]
    real, paused, go_on = store.apply, asyncio.Event(), asyncio.Event()

    async def stops(batches: Sequence[Any]) -> Any:
        paused.set()
        await go_on.wait()
        return await real(batches)

    await written(idle, family, 1)
    monkeypatch.setattr(store, "apply", stops)
    round_ = asyncio.create_task(first.persister.round())
    await paused.wait()
    monkeypatch.setattr(store, "apply", real)
    for n in range(2, 5):
        await written(idle, family, n)
    # The first one's lease is renewed by its process; a process that is stopped cannot do that.
    await stolen(idle, node, second)
    before = await contents(idle, second, family, node)
    go_on.set()
    await asyncio.wait_for(round_, 20)
    assert await contents(idle, second, family, node) == before
    await written(idle, family, 5)
    await everything(idle, second)
    assert await contents(idle, second, family, node) != before
    assert first.apply.stats.lost == second.apply.stats.lost == 0


async def stolen(core: Core, node: Node, worker: Worker) -> None:
    """The lease of a stopped process runs out, and the other worker persists the node."""
    log: Any = core.log
    log._nodes[node.id].free_at = 0.0
    await everything(core, worker)


async def created(core: Core, family: str) -> Node:
    if family == "array":
        await core.array("n", shape=(2,))
    elif family == "sql table":
        await core.table("n", schema=SCHEMA)
    else:
        from tiled_stream.domain.commands import CreateChild, NewDataSource
        from tiled_stream.wire.tables import structure_of

        source = NewDataSource("table", structure_of(SCHEMA), mimetype="application/x-tiled-sql-table")
        # The writer of these tests has no store of files: the node is created as its client would, with their mimetype.
        creation = core.writer._creation
        creation._tables = Tables(core.tables, {ArrowFormat.mimetype: FileTables(core.arrays._root, ArrowFormat())})
        source = NewDataSource("table", structure_of(SCHEMA), mimetype=ArrowFormat.mimetype)
        await core.writer.submit((), CreateChild("n", "table", {}, data_sources=(source,)))
    return (await core.browse.resolve(("n",))).node


async def written(core: Core, family: str, n: int) -> None:
    if family == "array":
        await core.writer.submit(("n",), WriteBlock((0,), numpy.full(2, float(n)).tobytes()))
    else:
        await core.writer.submit(("n",), AppendRows(0, arrow((n, 0.0))))


async def contents(core: Core, worker: Worker, family: str, node: Node) -> Any:
    if family == "array":
        return (await cells(core, "n")).tolist()
    store: Any = worker.files if family == "file table" else core.tables
    table: pyarrow.Table = await store.read(node.id, node.structure)
    return table.column("x").to_pylist()


async def test_repeated_leases_of_one_worker_keep_their_fence(idle: Core, workers: list[Worker]) -> None:
    """So that a store compares one number a batch and takes nothing over."""
    await idle.array("x", shape=(2,))
    seen = []
    for n in range(4):
        await idle.writer.submit(("x",), WriteBlock((0,), numpy.full(2, float(n)).tobytes()))
        (lease,) = [lease for lease in await idle.log.claim("first", ttl=5, limit=10) if lease.node != "0" * 32][-1:]
        seen.append(lease.fence)
        await idle.log.release(lease)
    assert len(set(seen)) == 1


async def test_log_with_low_fences_gives_higher_ones(idle: Core, workers: list[Worker]) -> None:
    """A log that was lost while the clock went back: nothing waits for ever."""
    first, second = workers
    await idle.array("x", shape=(2,))
    await idle.writer.submit(("x",), WriteBlock((0,), numpy.full(2, 1.0).tobytes()))
    await everything(idle, first)
    log: Any = idle.log
    log._fence = 1
    await idle.writer.submit(("x",), WriteBlock((0,), numpy.full(2, 2.0).tobytes()))
    await everything(idle, second)
    assert (await cells(idle, "x")).tolist() == [2.0, 2.0]
    async with running(idle):
        await idle.barrier.settle_all()


@pytest.mark.parametrize("family", ["array", "sql table"])
async def test_unpersisted_node_is_found_in_another_epoch(idle: Core, family: str) -> None:
    """The log was restored, and its epoch is another one; the catalog does not have the node yet."""
    node = await created(idle, family)
    await written(idle, family, 1)
    log: Any = idle.log
    log._epoch = "another"
    await written(idle, family, 2)
    async with running(idle):
        await idle.barrier.settle_all()
    if family == "array":
        assert (await cells(idle, "n")).tolist() == [2.0, 2.0]
    else:
        assert (await idle.tables.read(node.id, node.structure)).column("x").to_pylist() == [1, 2]  # type: ignore[arg-type]
