"""The four verbs over the embedded engines, without the edge: what a test here talks to."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pytest

from tiled_stream.broadcast.hub import Hub
from tiled_stream.catalog.sqlite import SqliteCatalog
from tiled_stream.domain.commands import CreateChild, NewDataSource
from tiled_stream.domain.structures import ArrayStructure, DataType
from tiled_stream.ingest.deletion import Deletion
from tiled_stream.ingest.writer import Writer
from tiled_stream.log.memory import MemoryLog
from tiled_stream.log.port import LogEngine, Retention
from tiled_stream.nodes.barrier import Barrier
from tiled_stream.nodes.repository import Repository
from tiled_stream.persist.apply import Apply
from tiled_stream.persist.persister import Persister
from tiled_stream.persist.quarantine import Quarantine
from tiled_stream.persist.reconcile import Reconciler
from tiled_stream.query.browse import Browse
from tiled_stream.query.completeness import Completeness
from tiled_stream.query.read import DataReader
from tiled_stream.storage.duckdb_tables import DuckdbTables
from tiled_stream.storage.part_files import PartFiles
from tiled_stream.storage.stores import Stores
from tiled_stream.storage.tables import Tables
from tiled_stream.storage.zarr_arrays import ZarrArrays
from tiled_stream.wire.parts import split
from tiled_stream.wire.tables import structure_of

F8 = DataType(itemsize=8, kind="f", endianness="little")


@dataclass
class Core:
    """All verbs, and the engines below them for a test to look at or to spoil."""

    log: LogEngine
    catalog: SqliteCatalog
    arrays: ZarrArrays
    tables: DuckdbTables
    repository: Repository
    barrier: Barrier
    writer: Writer
    hub: Hub
    browse: Browse
    reader: DataReader
    apply: Apply
    persister: Persister
    quarantine: Quarantine
    reconciler: Reconciler

    async def container(self, *path: str, **metadata: object) -> None:
        await self.writer.submit(path[:-1], CreateChild(path[-1], "container", dict(metadata)))

    async def array(self, *path: str, shape: tuple[int, ...] = (2, 3), chunks: tuple[tuple[int, ...], ...] | None = None) -> None:
        structure = ArrayStructure(F8, chunks or tuple((n,) for n in shape), shape)
        source = NewDataSource("array", structure)
        await self.writer.submit(path[:-1], CreateChild(path[-1], "array", {}, data_sources=(source,)))

    async def table(self, *path: str, schema: pyarrow.Schema) -> None:
        source = NewDataSource("table", structure_of(schema), mimetype="application/x-tiled-sql-table")
        await self.writer.submit(path[:-1], CreateChild(path[-1], "table", {}, data_sources=(source,)))


def built(log: LogEngine, catalog: SqliteCatalog, arrays: ZarrArrays, tables: DuckdbTables, directory: Path) -> Core:
    """Put the verbs together over these engines."""
    barrier = Barrier(log, timeout=10)
    repository = Repository(log, catalog)
    quarantine = Quarantine(directory / "quarantine")
    stores = Tables(tables, {})
    parts = PartFiles(directory / "parts", split=split)
    compared = Stores(arrays=arrays, parts=parts, tables=stores)
    complete = Completeness(catalog, compared, state=lambda: log.epoch, suspect=lambda node: reconciler.suspect(node))
    apply = Apply(log, catalog, stores=compared, quarantine=quarantine, now=time.time, on_loss=complete.forget)
    reconciler = Reconciler(log, catalog, compared, apply, on_change=complete.forget)
    return Core(
        log=log,
        catalog=catalog,
        arrays=arrays,
        tables=tables,
        repository=repository,
        barrier=barrier,
        writer=Writer(
            log,
            repository,
            barrier=barrier,
            deletion=Deletion(repository, catalog, barrier=barrier),
            arrays=arrays,
            parts=parts,
            tables=stores,
            now=time.time,
        ),
        hub=Hub(log, now=time.time),
        browse=Browse(repository, catalog, backlog=log, barrier=barrier, complete=complete),
        reader=DataReader(barrier=barrier, arrays=arrays, parts=parts, tables=stores, complete=complete),
        apply=apply,
        persister=Persister(log, apply, worker="w", retention=Retention(), now=time.time, linger=0.02, retry_seconds=0.02),
        quarantine=quarantine,
        reconciler=reconciler,
    )


@contextlib.asynccontextmanager
async def running(core: Core) -> AsyncIterator[Core]:
    """With the persister at work."""
    task = asyncio.create_task(core.persister.run())
    try:
        yield core
    finally:
        core.persister.stop()
        await task


@pytest.fixture
async def idle(tmp_path: Path) -> AsyncIterator[Core]:
    """A core whose persister does nothing until the test calls `round()` or enters `running`."""
    log = MemoryLog()
    catalog = SqliteCatalog(tmp_path / "catalog.db", init=True)
    arrays = ZarrArrays(tmp_path / "data")
    tables = DuckdbTables(tmp_path / "data.duckdb")
    engines = (log, catalog, arrays, tables)
    for engine in engines:
        await engine.open()
    core = built(*engines, tmp_path)
    yield core
    await core.hub.drain()
    for engine in engines:
        await engine.close()


@pytest.fixture
async def core(idle: Core) -> AsyncIterator[Core]:
    async with running(idle):
        yield idle
