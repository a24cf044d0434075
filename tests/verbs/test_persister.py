"""The log becomes rows, cells and watermarks: once, whatever happens in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy
import pyarrow
import pytest

from tests.verbs.conftest import Core, running
from tiled_stream.domain.commands import AppendRows, CreateChild, DeleteNode, EndStream, PatchArray, WriteArray, WriteTable
from tiled_stream.domain.errors import Gone, Unavailable
from tiled_stream.domain.nodes import ROOT
from tiled_stream.domain.search import Page, Search
from tiled_stream.domain.slices import whole
from tiled_stream.domain.structures import ArrayStructure
from tiled_stream.log.port import Lease, Retention
from tiled_stream.persist.apply import Done
from tiled_stream.persist.persister import Persister
from tiled_stream.storage.port import ArrayBatch, TableBatch
from tiled_stream.testing.faults import Crash

SCHEMA = pyarrow.schema([("x", pyarrow.int64()), ("y", pyarrow.float64())])


def arrow(*rows: tuple[int, float]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    table = pyarrow.table({"x": [r[0] for r in rows], "y": [r[1] for r in rows]}, schema=SCHEMA)
    with pyarrow.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


async def test_a_run_is_persisted_whole(core: Core) -> None:
    await core.container("run")
    await core.container("run", "primary")
    await core.table("run", "primary", "internal", schema=SCHEMA)
    await core.array("run", "primary", "wave", shape=(1, 2))
    for n in range(10):
        await core.writer.submit(("run", "primary", "internal"), AppendRows(0, arrow((n, n / 2))))
        row = numpy.full(2, float(n)).tobytes()
        await core.writer.submit(("run", "primary", "wave"), PatchArray((n,), (1, 2), row, extend=True))
    for path in (("run", "primary", "internal"), ("run",)):
        await core.writer.submit(path, EndStream())
    table = await core.reader.table(await core.browse.resolve(("run", "primary", "internal")))
    assert table.column("x").to_pylist() == list(range(10))
    at = await core.browse.resolve(("run", "primary", "wave"))
    structure = await core.reader.array_structure(at)
    assert structure.shape == (10, 2)
    read = await core.reader.array(at, structure, whole(structure.shape))
    assert read[:, 0].tolist() == [float(n) for n in range(10)]
    await core.barrier.settle_all()
    assert (await core.log.lag()).nodes == 0


async def test_a_table_is_replaced_and_appended_in_order(core: Core) -> None:
    await core.table("t", schema=SCHEMA)
    await core.writer.submit(("t",), AppendRows(0, arrow((1, 1.0))))
    await core.writer.submit(("t",), WriteTable(None, arrow((7, 0.0), (8, 0.0))))
    await core.writer.submit(("t",), AppendRows(0, arrow((9, 0.0))))
    table = await core.reader.table(await core.browse.resolve(("t",)))
    assert table.column("x").to_pylist() == [7, 8, 9]
    column = await core.browse.resolve(("t", "x"))
    structure = await core.reader.array_structure(column)
    assert (await core.reader.array(column, structure, whole(structure.shape))).tolist() == [7, 8, 9]


async def test_a_read_after_the_acknowledgement_shows_the_write(core: Core) -> None:
    await core.array("x", shape=(1,))
    for n in range(20):
        await core.writer.submit(("x",), WriteArray(numpy.array([float(n)]).tobytes()))
        at = await core.browse.resolve(("x",))
        structure = at.node.structure
        assert isinstance(structure, ArrayStructure)
        assert (await core.reader.array(at, structure, whole((1,)))).tolist() == [float(n)]  # I7


async def test_unpersisted_writes_for_subscribers_only_are_not_kept(core: Core) -> None:
    await core.array("x", shape=(1,))
    await core.writer.submit(("x",), WriteArray(numpy.array([5.0]).tobytes(), persist=False))
    at = await core.browse.resolve(("x",))
    assert isinstance(at.node.structure, ArrayStructure)
    assert (await core.reader.array(at, at.node.structure, whole((1,)))).tolist() == [0.0]


async def test_storage_that_is_down_holds_nothing_up_and_loses_nothing(idle: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    await idle.table("t", schema=SCHEMA)
    real, down, held_up = idle.tables.apply, True, asyncio.Event()

    async def apply(batches: Sequence[TableBatch]) -> list[int]:
        if down:
            held_up.set()
            raise Unavailable("the disk is full")
        return await real(batches)

    monkeypatch.setattr(idle.tables, "apply", apply)
    async with running(idle):
        for n in range(5):
            await idle.writer.submit(("t",), AppendRows(0, arrow((n, 0.0))))
        await asyncio.wait_for(held_up.wait(), 10)
        await idle.container("other")  # catalog and other nodes go on
        await idle.barrier.settle(ROOT)
        down = False
        table = await idle.reader.table(await idle.browse.resolve(("t",)))
        assert table.column("x").to_pylist() == [0, 1, 2, 3, 4]  # I6
    assert idle.persister.stats.failing_since is None


async def test_an_event_that_cannot_be_applied_is_put_aside_and_the_others_go_on(
    idle: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    await idle.array("x", shape=(4,))
    await idle.array("y", shape=(1,))
    real = idle.arrays.apply

    async def apply(batches: Sequence[ArrayBatch]) -> list[int]:
        if any(r.sequence == 2 and len(r.payload) == 8 for b in batches for r in b.records):
            raise ValueError("cannot hold this")
        return await real(batches)

    monkeypatch.setattr(idle.arrays, "apply", apply)
    for n in range(4):
        await idle.writer.submit(("x",), PatchArray((n,), (1,), numpy.array([n + 1.0]).tobytes()))
    await idle.writer.submit(("y",), WriteArray(numpy.array([9.0]).tobytes()))
    async with running(idle):
        at = await idle.browse.resolve(("x",))
        assert isinstance(at.node.structure, ArrayStructure)
        assert (await idle.reader.array(at, at.node.structure, whole((4,)))).tolist() == [1.0, 0.0, 3.0, 4.0]
        other = await idle.browse.resolve(("y",))
        assert isinstance(other.node.structure, ArrayStructure)
        assert (await idle.reader.array(other, other.node.structure, whole((1,)))).tolist() == [9.0]
    kept = list(idle.quarantine._directory.iterdir())
    assert [p.name for p in kept] == [f"{at.node.id}-2.msgpack"]
    assert idle.quarantine.count == 1


@pytest.mark.parametrize("step", ["tables", "arrays", "catalog"])
async def test_a_crash_between_any_two_steps_ends_right(idle: Core, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step happens, then the persister dies before it can go on; a new one begins from the log (I5)."""
    await idle.table("t", schema=SCHEMA)
    await idle.array("x", shape=(1, 1))
    await idle.persister.round()
    for n in range(6):
        await idle.writer.submit(("t",), AppendRows(0, arrow((n, 0.0))))
        await idle.writer.submit(("x",), PatchArray((n,), (1, 1), numpy.array([float(n)]).tobytes(), extend=True))
    engine = getattr(idle, step)
    real = engine.apply

    async def dies(batches: object) -> object:
        await real(batches)
        raise Crash

    monkeypatch.setattr(engine, "apply", dies)
    with pytest.raises(Crash):
        await idle.persister.round()
    monkeypatch.setattr(engine, "apply", real)
    async with running(idle):
        table = await idle.reader.table(await idle.browse.resolve(("t",)))
        assert table.column("x").to_pylist() == list(range(6))
        at = await idle.browse.resolve(("x",))
        assert isinstance(at.node.structure, ArrayStructure)
        assert (await idle.reader.array(at, at.node.structure, whole((6, 1)))).ravel().tolist() == [float(n) for n in range(6)]


async def test_deleted_nodes_leave_nothing_behind(core: Core) -> None:
    await core.container("d")
    await core.array("d", "x", shape=(2,))
    await core.table("d", "t", schema=SCHEMA)
    await core.writer.submit(("d", "x"), WriteArray(bytes(16)))
    await core.writer.submit(("d", "t"), AppendRows(0, arrow((1, 1.0))))
    await core.barrier.settle_all()
    array = (await core.browse.resolve(("d", "x"))).node
    table = (await core.browse.resolve(("d", "t"))).node
    await core.writer.submit(("d",), DeleteNode(recursive=True, external_only=False))
    await core.barrier.settle_all()
    with pytest.raises(Gone):
        await core.catalog.node(array.id)
    with pytest.raises(Gone):
        await core.log.head(array.id)
    assert await core.tables.watermark(table.id) == 0
    assert not [p for p in core.arrays._root.rglob("*") if p.is_file()]


async def test_listings_show_the_present_structure(core: Core) -> None:
    await core.container("c")
    await core.array("c", "x", shape=(1, 2))
    for n in range(1, 4):
        await core.writer.submit(("c", "x"), PatchArray((n,), (1, 2), bytes(16), extend=True))
        listing = await core.browse.search(await core.browse.resolve(("c",)), Search(), Page())
        structure = listing.hits[0].node.structure
        assert isinstance(structure, ArrayStructure)
        assert structure.shape == (n + 1, 2)
        assert listing.hits[0].path == ("c", "x")


async def test_many_nodes_at_full_speed(core: Core) -> None:
    async def run(k: int) -> None:
        await core.writer.submit((), CreateChild(f"r{k}", "container", {"k": k}))
        for s in range(3):
            await core.container(f"r{k}", f"s{s}")
            await core.array(f"r{k}", f"s{s}", "x", shape=(1,))
            await core.writer.submit((f"r{k}", f"s{s}", "x"), WriteArray(numpy.array([float(k)]).tobytes()))

    await asyncio.gather(*(run(k) for k in range(20)))
    root = await core.browse.resolve(())
    assert await core.browse.count(root, ()) == 20
    deep = await core.browse.search(root, Search(), Page(limit=300), deep=True)
    assert deep.count == 20 * 7
    for k in range(20):
        at = await core.browse.resolve((f"r{k}", "s1", "x"))
        assert isinstance(at.node.structure, ArrayStructure)
        assert (await core.reader.array(at, at.node.structure, whole((1,)))).tolist() == [float(k)]


async def test_a_slow_round_keeps_its_leases(idle: Core) -> None:
    """Nobody takes over a node while its worker, alive, waits for slow storage; what the worker gives up is free at once."""
    log, ttl = idle.log, 0.3
    await idle.array("x")
    await idle.writer.submit(("x",), WriteArray(numpy.zeros((2, 3)).tobytes()))
    (node,) = {node for node, _ in await log.dirty()} - {ROOT}
    begun, go_on = asyncio.Event(), asyncio.Event()

    class SlowApply:
        async def containers(self, leases: list[Lease]) -> tuple[list[Done], list[Lease]]:
            begun.set()
            await go_on.wait()
            return await idle.apply.containers(leases)

        def __getattr__(self, name: str) -> object:
            return getattr(idle.apply, name)

    slow = Persister(log, SlowApply(), worker="slow", retention=Retention(), now=time.time, lease_seconds=ttl, retry_seconds=0)  # type: ignore[arg-type]
    round_ = asyncio.create_task(slow.round())
    await begun.wait()
    await asyncio.sleep(2.5 * ttl)
    assert await log.claim("other", ttl=ttl, limit=10) == []

    round_.cancel()
    await asyncio.wait({round_})
    assert node in {lease.node for lease in await log.claim("other", ttl=ttl, limit=10)}


async def test_store_that_cannot_be_written_does_not_hold_up_the_others(idle: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    await idle.array("x", shape=(1,))
    await idle.table("t", schema=SCHEMA)
    await idle.persister.round()
    real = idle.arrays.apply

    async def full(batches: Sequence[ArrayBatch]) -> list[int]:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(idle.arrays, "apply", full)
    await idle.writer.submit(("x",), WriteArray(numpy.array([7.0]).tobytes()))
    await idle.writer.submit(("t",), AppendRows(0, arrow((1, 1.0))))
    await idle.persister.round()
    assert (await idle.reader.table(await idle.browse.resolve(("t",)))).column("x").to_pylist() == [1]
    assert idle.persister.stats.failing_because == "the disk is full"
    assert idle.persister.stats.failures == 1
    monkeypatch.setattr(idle.arrays, "apply", real)
    async with running(idle):
        at = await idle.browse.resolve(("x",))
        assert isinstance(at.node.structure, ArrayStructure)
        assert (await idle.reader.array(at, at.node.structure, whole((1,)))).tolist() == [7.0]
    assert idle.persister.stats.failing_because == ""
