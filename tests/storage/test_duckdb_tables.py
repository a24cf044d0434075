"""What is particular to DuckDB: one owner, a file that older versions open, crashes, and tables that several nodes share."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from random import Random

import duckdb
import pyarrow
import pytest

from tiled_stream.domain.errors import StorageMissing, Unavailable
from tiled_stream.storage import duckdb_tables
from tiled_stream.storage.duckdb_damage import is_damage
from tiled_stream.storage.duckdb_tables import DuckdbTables
from tiled_stream.storage.layout import dataset_id, schema_table
from tiled_stream.storage.port import FENCED
from tiled_stream.storage.sqlite_tables import SqliteTables
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


def flip(path: Path, start: int, step: int = 997) -> bytes:
    """Damage a file as a bad disk does. Returns what it is then."""
    content = bytearray(path.read_bytes())
    for at in range(start, len(content), step):
        content[at] ^= 0xFF
    path.write_bytes(content)
    return bytes(content)


async def made(path: Path, rows: int = 20_000) -> TableModel:
    """A file with a table of some blocks."""
    store = DuckdbTables(path)
    await store.open()
    model = two_columns()
    for n in range(2):
        model.append(random_rows(Random(n), rows))
    assert await store.apply([model.batch()]) == [2]
    await store.close()
    return model


def overwritten(path: Path) -> bytes:
    """Something else is in the place of the database."""
    path.write_bytes(b"something else" * 1000)
    return path.read_bytes()


def cut(path: Path) -> bytes:
    """All but the headers and a little more is missing."""
    content = path.read_bytes()[:20_000]
    path.write_bytes(content)
    return content


@pytest.mark.parametrize(
    "damage", [lambda path: flip(path, 4096), overwritten, cut], ids=["flipped bytes", "no database", "truncated"]
)
async def test_a_damaged_file_is_moved_aside_and_a_new_one_begun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], bytes]
) -> None:
    path = tmp_path / "t.duckdb"
    for number in (1, 2):
        model = await made(path)
        content = await asyncio.to_thread(damage, path)
        store = DuckdbTables(path)
        await store.open()
        assert (tmp_path / f"t.duckdb.damaged-{number}").read_bytes() == content  # nothing is lost that could be repaired
        assert f"t.duckdb is now t.duckdb.damaged-{number}" in caplog.text
        assert await store.watermarks([model.node]) == [0]
        assert await store.apply([model.batch(fence=3)]) == [2]
        assert (await store.read(model.node, model.structure)).equals(model.table())
        await store.close()
        path.unlink()


async def test_a_damaged_wal_is_moved_aside_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The file is as its last checkpoint left it, and the log has what followed."""
    path = tmp_path / "t.duckdb"
    model = await made(path)
    wal = Path(f"{path}.wal")
    store = DuckdbTables(path)
    await store.open()
    model.append(random_rows(Random(9), 50))
    await store.apply([model.batch(2)])
    whole = await asyncio.to_thread(wal.read_bytes)
    await store.close()
    await asyncio.to_thread(wal.write_bytes, whole)  # as a killed process leaves it
    damaged = await asyncio.to_thread(flip, wal, len(whole) // 2, len(whole))
    store = DuckdbTables(path)
    await store.open()
    assert (tmp_path / "t.duckdb.wal.damaged-1").read_bytes() == damaged
    assert "t.duckdb.wal is now t.duckdb.wal.damaged-1" in caplog.text
    assert not (tmp_path / "t.duckdb.damaged-1").exists()
    (watermark,) = await store.watermarks([model.node])
    assert watermark in (2, 3)  # closing may have brought the WAL into the file
    assert await store.apply([model.batch(watermark)]) == [3]
    assert (await store.read(model.node, model.structure)).equals(model.table())
    await store.close()


async def test_damage_found_by_a_read_is_unavailable_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.duckdb"
    model = await made(path, rows=200_000)
    size = (await asyncio.to_thread(path.stat)).st_size
    with duckdb.connect(str(path), read_only=True) as db:  # a block of the big column, none that is read when opening
        query = f"SELECT block_id FROM pragma_storage_info('{schema_table(model.structure)}') WHERE column_name = 'c1'"
        block = next(number for (number,) in db.execute(query).fetchall() if number > 0)
    start = 12288 + block * (256 << 10)
    assert start < size
    content = bytearray(await asyncio.to_thread(path.read_bytes))
    for at in range(start + 500, start + 5000, 97):
        content[at] ^= 0xFF
    await asyncio.to_thread(path.write_bytes, content)
    store = DuckdbTables(path)
    await store.open()
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"t\.duckdb.*damaged.*restore"):
            await store.read(model.node, model.structure)
    await store.close()
    assert os.listdir(tmp_path) == ["t.duckdb"]


async def test_a_file_that_cannot_be_opened_for_another_reason_is_left_alone(tmp_path: Path) -> None:
    """A database of another application, one of a newer DuckDB, a directory."""
    sqlite = tmp_path / "s.duckdb"
    with closing(sqlite3.connect(sqlite)) as db:
        db.execute("CREATE TABLE a (b)")
    directory = tmp_path / "d.duckdb"
    await asyncio.to_thread(directory.mkdir)
    for path in (sqlite, directory):
        store = DuckdbTables(path)
        with pytest.raises(Unavailable, match=path.name):
            await store.open()
        await store.close()
    assert sorted(os.listdir(tmp_path)) == ["d.duckdb", "s.duckdb"]


@pytest.mark.parametrize(
    ("words", "damaged"),
    [
        ("Corrupt database file: computed checksum 1 does not match stored checksum 2 in block at location 4096", True),
        ('IO Error: The file "/t" exists, but it is not a valid DuckDB database file!', True),
        ('IO Error: Could not read enough bytes from file "/t": attempted to read 262144 bytes from location 798720', True),
        ('Failure while replaying WAL file "/t.wal": Corrupt WAL file: entry at byte position 56', True),
        ('IO Error: Could not set lock on file "/t": Conflicting lock is held in python (PID 1)', False),
        ('IO Error: Cannot open file "/t": Permission denied', False),
        ("IO Error: Trying to read a database file with version number 99, but we can only read versions 64 to 68", False),
        ("Serialization Error: Failed to deserialize: field id mismatch, expected: 100, got: 0", False),
    ],
)
def test_what_is_damage_is_told_by_the_words_of_duckdb(words: str, damaged: bool) -> None:
    assert is_damage(duckdb.IOException(words)) is damaged


@pytest.mark.parametrize("store_type", [DuckdbTables, SqliteTables])
async def test_a_file_that_disappears_is_missing_storage(
    tmp_path: Path, store_type: type[DuckdbTables] | type[SqliteTables]
) -> None:
    """Else all that follows goes into a file without a name, and is acknowledged."""
    path = tmp_path / "t.db"
    store = store_type(path)
    await store.open()
    model = two_columns()
    for n in range(2):
        model.append(random_rows(Random(n), 3))
    await store.apply([model.batch(0, 1)])
    await asyncio.to_thread(path.rename, tmp_path / "elsewhere")

    async def assert_missing() -> None:
        for attempt in (
            lambda: store.apply([model.batch(1)]),
            lambda: store.read(model.node, model.structure),
            lambda: store.rows(model.node, model.structure),
            lambda: store.arrived(model.node, model.structure, after=0, upto=1, rows=10),
            lambda: store.watermarks([model.node]),
            lambda: store.delete([(model.node, model.structure)]),
            lambda: store.bind("d", None),
        ):
            with pytest.raises(StorageMissing, match=r"t\.db"):
                await attempt()

    await assert_missing()
    await asyncio.to_thread(path.write_bytes, b"")  # another file in its place
    await assert_missing()
    await asyncio.to_thread((tmp_path / "elsewhere").rename, path)
    assert await store.apply([model.batch(1)]) == [2]
    assert (await store.read(model.node, model.structure)).equals(model.table())
    await store.close()


@pytest.mark.parametrize("store_type", [DuckdbTables, SqliteTables])
async def test_a_file_of_a_version_without_fences_is_upgraded(
    tmp_path: Path, store_type: type[DuckdbTables] | type[SqliteTables]
) -> None:
    path = tmp_path / "t.db"
    connect = duckdb.connect if store_type is DuckdbTables else sqlite3.connect
    model = two_columns()
    for n in range(2):
        model.append(random_rows(Random(n), 3))
    with closing(connect(str(path))) as db:
        db.execute("CREATE TABLE watermarks (dataset BIGINT PRIMARY KEY, watermark BIGINT NOT NULL)")
        db.execute(f"INSERT INTO watermarks VALUES ({dataset_id(model.node)}, 1)")
        db.commit()
    for expected in ([FENCED], [2]):
        store = store_type(path)
        await store.open()
        if expected == [FENCED]:
            assert await store.apply([model.batch(1, fence=2)]) == [2]
            assert await store.apply([model.batch(0)]) == expected
        assert await store.watermarks([model.node]) == [2]
        assert await store.rows(model.node, model.structure) == 3
        await store.close()


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
        assert names == ["bodies", "identity", "watermarks"]
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
