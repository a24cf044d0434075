"""What is particular to DuckDB: one owner, a file that older versions open, crashes, and tables that several nodes share."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import duckdb
import pyarrow
import pytest

from tiled_stream.domain.errors import Unavailable
from tiled_stream.storage import duckdb_tables
from tiled_stream.storage.duckdb_tables import DuckdbTables
from tiled_stream.storage.layout import schema_table
from tiled_stream.testing.factories import table_structure
from tiled_stream.testing.table_model import TableModel, random_rows, two_columns

#: Opens the store, does what the arguments say and waits to be killed.
CHILD = """
import asyncio, sys
from pathlib import Path
from random import Random
from tiled_stream.storage.{module} import {store}
from tiled_stream.testing.table_model import random_rows, two_columns

async def main():
    store = {store}(Path(sys.argv[1]))
    await store.open()
    model = two_columns()
    model.node = "ab" * 16
    for n in range(40):
        model.append(random_rows(Random(n), 3))
        await store.apply([model.batch(n)])
    print("ready", flush=True)
    for n in range(40, 10**6):
        model.append(random_rows(Random(n), 3))
        await store.apply([model.batch(n)])

asyncio.run(main())
"""


def start_child(path: Path, module: str, store: str) -> subprocess.Popen[str]:
    """Another process that owns the file and keeps writing."""
    script = CHILD.format(module=module, store=store)
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    """Kill it as the operating system would."""
    child.send_signal(signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckdbTables]:
    store = DuckdbTables(tmp_path / "t.duckdb")
    await store.open()
    yield store
    await store.close()


@pytest.mark.parametrize(
    ("module", "name"), [("duckdb_tables", "DuckdbTables"), ("sqlite_tables", "SqliteTables")], ids=["duckdb", "sqlite"]
)
async def test_a_killed_process_loses_nothing_that_was_applied(tmp_path: Path, module: str, name: str) -> None:
    path = tmp_path / "t.db"
    child = await asyncio.to_thread(start_child, path, module, name)
    await asyncio.sleep(0.05)
    end(child)
    imported = __import__(f"tiled_stream.storage.{module}", fromlist=[name])
    store = getattr(imported, name)(path)
    await store.open()
    model = two_columns()
    model.node = "ab" * 16
    watermark = await store.watermark(model.node)
    assert watermark >= 40
    for n in range(watermark + 5):
        model.append(random_rows(Random(n), 3))
    assert await store.rows(model.node, model.structure) == 3 * watermark
    await store.apply([model.batch(0)])  # the log is read again from the start (I5)
    found = await store.read(model.node, model.structure)
    assert found.to_pylist() == model.table().to_pylist()
    await store.close()


async def test_a_file_that_another_process_owns_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.duckdb"
    child = await asyncio.to_thread(start_child, path, "duckdb_tables", "DuckdbTables")
    store = DuckdbTables(path)
    try:
        with pytest.raises(Unavailable, match=r"t\.duckdb.*one owner process"):
            await store.open()
    finally:
        await store.close()
        end(child)


async def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.duckdb"
    await asyncio.to_thread(path.write_bytes, b"something else" * 1000)
    store = DuckdbTables(path)
    with pytest.raises(Unavailable, match=r"t\.duckdb"):
        await store.open()
    await store.close()
    assert await asyncio.to_thread(path.read_bytes) == b"something else" * 1000


async def test_the_file_is_of_the_format_that_every_duckdb_reads(store: DuckdbTables, tmp_path: Path) -> None:
    model = two_columns()
    model.append(random_rows(Random(0), 3))
    await store.apply([model.batch()])
    await store.close()
    head = await asyncio.to_thread((tmp_path / "t.duckdb").read_bytes)
    # Twelve bytes into the header: "DUCK" and the version of the storage; 64 is that of v0.9 to v1.1.
    assert head[8:12] == b"DUCK"
    assert int.from_bytes(head[12:20], "little") == 64


async def test_closing_leaves_one_file_and_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    store = DuckdbTables(tmp_path / "deep" / "t.duckdb")
    await store.open()
    model = two_columns()
    model.append(random_rows(Random(0), 3))
    await store.apply([model.batch()])
    await store.read(model.node, model.structure)
    await store.close()
    assert os.listdir(tmp_path / "deep") == ["t.duckdb"]  # the WAL is in it
    assert threading.active_count() == before
    with duckdb.connect(str(tmp_path / "deep" / "t.duckdb")) as other:  # unlocked
        assert other.execute(f"SELECT count(*) FROM {schema_table(model.structure)}").fetchall() == [(3,)]
    with pytest.raises(Unavailable):
        await store.read(model.node, model.structure)


async def test_nodes_of_one_schema_share_a_table_that_goes_with_the_last(store: DuckdbTables, tmp_path: Path) -> None:
    first, second = two_columns(), two_columns()
    for model in (first, second):
        model.append(random_rows(Random(0), 3))
    await store.apply([first.batch(), second.batch()])
    await store.delete([(first.node, first.structure)])
    assert (await store.read(second.node, second.structure)).num_rows == 3
    await store.delete([(second.node, second.structure)])
    await store.close()
    with duckdb.connect(str(tmp_path / "t.duckdb")) as other:
        names = [name for (name,) in other.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
        assert names == ["bodies", "watermarks"]
        assert other.execute("SELECT count(*) FROM watermarks").fetchall() == [(0,)]


async def test_a_table_that_is_dropped_while_it_is_read_has_no_rows(store: DuckdbTables) -> None:
    model = two_columns()
    model.append(random_rows(Random(0), 3))
    await store.apply([model.batch()])
    engine = store._engine
    assert isinstance(engine, duckdb_tables._DuckdbFile)
    known = engine._tables
    await store.delete([(model.node, model.structure)])
    engine._tables = known  # what a reader may have seen a moment before
    assert (await store.read(model.node, model.structure)).schema == model.schema
    assert await store.rows(model.node, model.structure) == 0


async def test_rows_of_one_schema_are_one_insert(store: DuckdbTables, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiled_stream.storage import arrow_columns

    inserted: list[int] = []
    stored = arrow_columns.stored_table

    def spy(rows: list[arrow_columns.Rows], columns: list[arrow_columns.Column]) -> pyarrow.Table:
        table = stored(rows, columns)
        inserted.append(table.num_rows)
        return table

    monkeypatch.setattr(arrow_columns, "stored_table", spy)
    models = [two_columns() for _ in range(8)]
    for model in models:
        for _ in range(10):
            model.append(random_rows(Random(1), 2))
    await store.apply([m.batch() for m in models])
    assert inserted == [160]


async def test_a_long_read_does_not_hold_up_writing(store: DuckdbTables) -> None:
    big, small = two_columns(), two_columns()
    row = random_rows(Random(0), 1)
    big.append(row * 200_000)
    await store.apply([big.batch()])
    reads = [asyncio.create_task(store.read(big.node, big.structure), name=f"read {n}") for n in range(6)]
    small.append(row)
    await store.apply([small.batch()])
    waiting = sum(not task.done() for task in reads)
    assert [(await task).num_rows for task in reads] == [200_000] * 6
    assert waiting > 0


async def test_times_are_columns_and_not_bodies(store: DuckdbTables, tmp_path: Path) -> None:
    """So that a table with a time in each row is still stored by columns."""
    model = TableModel(pyarrow.schema([("t", pyarrow.timestamp("ns", "UTC")), ("d", pyarrow.date32())]))
    model.append([{"t": 10**18 + n, "d": None} for n in range(3)])
    await store.apply([model.batch()])
    await store.close()
    with duckdb.connect(str(tmp_path / "t.duckdb")) as other:
        assert other.execute(f"SELECT c0 FROM {schema_table(model.structure)}").fetchall() == [(10**18 + n,) for n in range(3)]


async def test_the_uri_names_the_file_and_quotes_it(tmp_path: Path) -> None:
    store = DuckdbTables(tmp_path / "a b'c.duckdb")
    await store.open()
    place = store.allocate("0" * 32, table_structure(), None, {})
    assert place.data_uri == f"duckdb://localhost/{tmp_path}/a%20b%27c.duckdb"
    model = two_columns()
    model.append(random_rows(Random(0), 1))
    assert await store.apply([model.batch()]) == [1]
    await store.close()


async def test_a_closed_store_can_be_asked_for_places(tmp_path: Path) -> None:
    store = DuckdbTables(tmp_path / "t.duckdb")
    assert store.allocate("0" * 32, table_structure(), None, {}).mimetype == "application/x-tiled-sql-table"
    with pytest.raises(Unavailable, match="not open"):
        await store.rows("0" * 32, table_structure())
    with pytest.raises(Unavailable, match="not open"):
        await store.apply([two_columns().batch()])
    await store.close()
