"""What is particular to PostgreSQL: two persisters at once, processes that start together, tables that are shared and dropped."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from random import Random
from typing import Any

import asyncpg
import pyarrow
import pytest

from tiled_stream.domain.errors import Unavailable
from tiled_stream.storage import postgres_copy
from tiled_stream.storage.layout import dataset_id, schema_table
from tiled_stream.storage.port import TableStore
from tiled_stream.storage.postgres_tables import PostgresTables
from tiled_stream.testing.factories import new_id, table_structure
from tiled_stream.testing.table_model import COLUMNS, TableModel, random_rows, two_columns

#: Opens the store, applies records of one node and waits to be killed.
CHILD = """
import asyncio, sys
from random import Random
from tiled_stream.storage.postgres_tables import PostgresTables
from tiled_stream.testing.table_model import random_rows, two_columns

async def main():
    store = PostgresTables(sys.argv[1])
    await store.open()
    model = two_columns()
    model.node = "ab" * 16
    for n in range(10**6):
        model.append(random_rows(Random(n), 3))
        await store.apply([model.batch(n)])
        if n == 40:
            print("ready", flush=True)

asyncio.run(main())
"""


@pytest.fixture
async def store(new_postgres: str) -> AsyncIterator[PostgresTables]:
    store = PostgresTables(new_postgres)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def other(store: PostgresTables, new_postgres: str) -> AsyncIterator[PostgresTables]:
    """A second process on the same database, as far as the store can tell."""
    other = PostgresTables(new_postgres)
    await other.open()
    yield other
    await other.close()


async def ask(url: str, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    """What is in the database, past the store."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query, *arguments)]
    finally:
        await connection.close()


async def tables_there(url: str) -> set[str]:
    return {name for (name,) in await ask(url, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'tiled_stream'")}


async def persist(store: TableStore, models: list[TableModel], random: Random) -> None:
    """As a persister does it: from the watermark on, in batches of any size, again if it could not be done."""
    while True:
        with suppress(Unavailable):
            reached = [await store.watermark(m.node) for m in models]
            if reached == [len(m.records) for m in models]:
                return
            await store.apply([m.batch(after, after + random.randint(0, 5)) for m, after in zip(models, reached, strict=True)])


def histories(seed: int, steps: int = 40) -> list[TableModel]:
    random = Random(seed)
    models = [two_columns(), two_columns(), TableModel(pyarrow.schema([("h", pyarrow.float16()), ("s", pyarrow.string())]))]
    for model in models:
        for _ in range(steps):
            if model is models[2]:
                model.append([{"h": 1.5, "s": "a\x00b"}] * random.randrange(3), partition=random.randrange(2))
            else:
                model.step(random)
    return models


async def assert_reads(store: TableStore, model: TableModel) -> None:
    assert (await store.read(model.node, model.structure)).to_pylist() == model.table().to_pylist()


@pytest.mark.parametrize("seed", range(4))
async def test_two_persisters_with_the_same_records_apply_them_once(
    store: PostgresTables, other: PostgresTables, seed: int
) -> None:
    models = histories(seed)
    async with asyncio.TaskGroup() as group:
        for n, each in enumerate((store, other)):
            group.create_task(persist(each, models, Random(seed * 10 + n)), name=f"persister {n}")
    for model in models:
        await assert_reads(other, model)


async def test_who_comes_second_waits_and_finds_the_watermark_moved(
    store: PostgresTables, other: PostgresTables, new_postgres: str
) -> None:
    """Also for records without rows, which no primary key guards: the watermark would go back (I4)."""
    model = two_columns()
    for _ in range(4):
        model.end()
    await store.apply([model.batch(0, 1)])
    connection = await asyncpg.connect(new_postgres)
    await connection.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END $$; "
        "CREATE TRIGGER slow BEFORE UPDATE ON tiled_stream.watermarks FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    await connection.close()
    first = asyncio.create_task(store.apply([model.batch(1, 4)]), name="first")
    await asyncio.sleep(0.1)
    assert await other.apply([model.batch(1, 2)]) == [4]
    assert await first == [4]
    assert await store.watermark(model.node) == 4


@pytest.mark.parametrize("seed", range(3))
async def test_two_persisters_whose_connections_are_cut_apply_records_once(
    store: PostgresTables, other: PostgresTables, new_postgres: str, seed: int
) -> None:
    models = histories(seed, 200)  # enough to be cut some times on a slow machine
    async with asyncio.TaskGroup() as group:
        persisting = [
            group.create_task(persist(each, models, Random(seed * 10 + n)), name=f"persister {n}")
            for n, each in enumerate((store, other))
        ]
        random, cut = Random(seed), 0
        while not all(task.done() for task in persisting):
            await asyncio.sleep(random.random() * 0.02)
            found = await ask(
                new_postgres,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'tiled_stream tables' ORDER BY random() LIMIT 1",
            )
            cut += len(found)
    assert cut > 3
    fresh = PostgresTables(new_postgres)  # the others may find a connection cut once more
    await fresh.open()
    for model in models:
        await assert_reads(fresh, model)
    await fresh.close()


async def test_a_killed_process_loses_nothing_that_was_applied_and_holds_nobody_up(
    store: PostgresTables, new_postgres: str
) -> None:
    child = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", CHILD, new_postgres], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert await asyncio.to_thread(child.stdout.readline) == "ready\n"
    await asyncio.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    model = two_columns()
    model.node = "ab" * 16
    watermark = await store.watermark(model.node)
    assert watermark > 40
    for n in range(watermark + 20):
        model.append(random_rows(Random(n), 3))
    assert await store.apply([model.batch(0)]) == [watermark + 20]  # the log is read again from the start (I5)
    await assert_reads(store, model)


async def test_a_row_of_the_past_cannot_be_stored_twice_even_without_its_watermark(
    store: PostgresTables, new_postgres: str
) -> None:
    """As after an operator's mistake: rather nothing than rows twice."""
    model = two_columns()
    model.append(random_rows(Random(0), 3))
    await store.apply([model.batch()])
    await ask(new_postgres, "DELETE FROM tiled_stream.watermarks")
    with pytest.raises(Unavailable, match="duplicate key"):
        await store.apply([model.batch()])
    await assert_reads(store, model)


async def test_many_processes_open_an_empty_database_and_make_the_same_table_at_once(new_postgres: str) -> None:
    stores = [PostgresTables(new_postgres, pool_size=2) for _ in range(8)]
    models = [two_columns() for _ in stores]
    for model in models:
        model.append(random_rows(Random(1), 2))

    async def live(store: PostgresTables, model: TableModel) -> None:
        await store.open()
        assert await store.apply([model.batch()]) == [1]

    async with asyncio.TaskGroup() as group:
        for n, (store, model) in enumerate(zip(stores, models, strict=True)):
            group.create_task(live(store, model), name=f"process {n}")
    for store, model in zip(stores, reversed(models), strict=True):
        await assert_reads(store, model)
        await store.close()
    assert await tables_there(new_postgres) == {"watermarks", "bodies", "identity", schema_table(models[0].structure)}


async def test_a_table_goes_with_its_last_rows_and_comes_back_in_every_process(
    store: PostgresTables, other: PostgresTables, new_postgres: str
) -> None:
    first, second = two_columns(), two_columns()
    table = schema_table(first.structure)
    for model in (first, second):
        model.append(random_rows(Random(0), 3))
    await store.apply([first.batch()])
    await other.apply([second.batch()])
    await store.delete([(first.node, first.structure)])
    assert table in await tables_there(new_postgres)
    await assert_reads(store, second)
    await store.delete([(second.node, second.structure)])
    assert table not in await tables_there(new_postgres)
    assert await ask(new_postgres, "SELECT * FROM tiled_stream.watermarks") == []
    # The other process still counts on the table.
    assert (await other.read(second.node, second.structure)).num_rows == 0
    assert await other.rows(second.node, second.structure) == 0
    assert await other.apply([second.batch()]) == [1]
    await assert_reads(store, second)


async def test_a_table_that_somebody_uses_is_left_empty(store: PostgresTables, new_postgres: str) -> None:
    model = two_columns()
    table = schema_table(model.structure)
    model.append(random_rows(Random(0), 3))
    await store.apply([model.batch()])
    reader = await asyncpg.connect(new_postgres)
    async with reader.transaction():
        await reader.fetch(f"SELECT FROM tiled_stream.{table}")
        async with asyncio.timeout(5):
            await store.delete([(model.node, model.structure)])
    await reader.close()
    assert await ask(new_postgres, f"SELECT * FROM tiled_stream.{table}") == []
    await store.delete([(model.node, model.structure)])
    assert table not in await tables_there(new_postgres)


async def test_writing_and_deleting_in_one_table_at_the_same_time(store: PostgresTables, other: PostgresTables) -> None:
    """So that tables are made and dropped under each other's hands."""

    async def live(each: TableStore, seed: int) -> None:
        for n in range(15):
            model = two_columns()
            model.append(random_rows(Random(seed + n), 4))
            assert await each.apply([model.batch()]) == [1]
            await assert_reads(each, model)
            await each.delete([(model.node, model.structure)])
            assert await each.rows(model.node, model.structure) == 0

    async with asyncio.TaskGroup() as group:
        for n in range(4):
            group.create_task(live((store, other)[n % 2], 100 * n), name=f"writer {n}")


async def test_a_batch_that_is_cancelled_is_applied_whole_or_not_at_all(store: PostgresTables, new_postgres: str) -> None:
    model = two_columns()
    random = Random(0)
    for n in range(30):
        model.append(random_rows(random, 300))
        applying = asyncio.create_task(store.apply([model.batch(max(0, n - 3))]), name="apply")
        await asyncio.sleep(random.random() * 0.006)
        applying.cancel()
        with suppress(asyncio.CancelledError):
            await applying
        assert await store.rows(model.node, model.structure) == 300 * await store.watermark(model.node)
    await store.apply([model.batch()])
    await assert_reads(store, model)


async def test_closing_leaves_no_connection_task_or_thread(new_postgres: str) -> None:
    tasks, threads = asyncio.all_tasks(), threading.active_count()
    store = PostgresTables(new_postgres)
    await store.open()
    model = two_columns()
    model.append(random_rows(Random(0), 20_000))
    await store.apply([model.batch()])
    reading = [asyncio.create_task(store.read(model.node, model.structure), name="read") for _ in range(8)]
    await asyncio.gather(*reading)
    reading = [asyncio.create_task(store.read(model.node, model.structure), name="read") for _ in range(3)]
    await asyncio.sleep(0.002)
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    await store.close()
    assert asyncio.all_tasks() == tasks
    assert threading.active_count() == threads
    for _ in range(100):
        left = await ask(new_postgres, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'tiled_stream tables'")
        if not left:
            break
        await asyncio.sleep(0.02)
    assert not left
    with pytest.raises(Unavailable, match="not open"):
        await store.read(model.node, model.structure)
    with pytest.raises(Unavailable, match="not open"):
        await store.apply([model.batch()])


async def test_a_reader_sees_one_moment_while_rows_are_replaced(store: PostgresTables, other: PostgresTables) -> None:
    model = two_columns()
    for n in range(40):
        model.replace([{"x": n, "y": float(n)}] * 50, None)
    await store.apply([model.batch(0, 1)])
    is_done = False

    async def look() -> None:
        while not is_done:
            seen = (await other.read(model.node, model.structure)).to_pylist()
            assert len(seen) == 50
            assert len({row["x"] for row in seen}) == 1

    async with asyncio.TaskGroup() as group:
        group.create_task(look(), name="look")
        for n in range(1, 40):
            await store.apply([model.batch(n, n + 1)])
        is_done = True


async def test_one_partition_is_found_by_the_index(store: PostgresTables, new_postgres: str) -> None:
    models = [two_columns() for _ in range(20)]
    for model in models:
        for partition in range(10):
            model.append(random_rows(Random(0), 100), partition)
    await store.apply([m.batch() for m in models])
    table, dataset = schema_table(models[3].structure), dataset_id(models[3].node)
    where = f"_dataset_id = {dataset} AND _partition_id = 4 ORDER BY _partition_id, _sequence, _row"
    await ask(new_postgres, f"ANALYZE tiled_stream.{table}")
    plan = "\n".join(line for (line,) in await ask(new_postgres, f"EXPLAIN SELECT c0 FROM tiled_stream.{table} WHERE {where}"))
    assert "_pkey" in plan
    assert "Seq Scan" not in plan


async def test_a_row_wider_than_a_page_and_more_columns_than_a_table_can_have(store: PostgresTables) -> None:
    for count in (600, 1100, 2000):
        model = TableModel(pyarrow.schema([(f"x{n}", pyarrow.float64()) for n in range(count)]))
        model.append([{f"x{n}": float(n * row) for n in range(count)} for row in range(2)])
        assert await store.apply([model.batch()]) == [1]
        await assert_reads(store, model)
        chosen = await store.read(model.node, model.structure, columns=["x7", "x599"])
        assert chosen.to_pylist() == [{"x7": 0.0, "x599": 0.0}, {"x7": 7.0, "x599": 599.0}]


async def test_the_widest_row_that_is_stored_by_columns_fits_a_page(store: PostgresTables, new_postgres: str) -> None:
    for declared, value, start in ((pyarrow.float64(), 0.5, 700), (pyarrow.string(), "x" * 3000, 300)):
        count = next(n for n in range(start, 1600) if _columns(declared, n + 1) is None)
        model = TableModel(pyarrow.schema([(f"x{n}", declared) for n in range(count)]))
        model.append([{f"x{n}": value for n in range(count)}])
        assert await store.apply([model.batch()]) == [1]
        await assert_reads(store, model)
        assert schema_table(model.structure) in await tables_there(new_postgres)


def _columns(declared: Any, count: int) -> Any:
    schema = pyarrow.schema([(f"x{n}", declared) for n in range(count)])
    return postgres_copy.postgres_columns(table_structure(schema=schema))


def test_which_types_are_columns() -> None:
    """The others are kept as Arrow bodies, exact too."""
    bodies = {name for name, (declared, _) in COLUMNS.items() if _columns(declared, 1) is None}
    assert bodies == {
        *("half", "fixed_binary", "decimal", "decimal256", "list", "nested", "large_list", "fixed_list", "named_list"),
        *("struct", "map", "categories"),
    }


async def test_large_cells_and_large_answers_come_in_pieces(store: PostgresTables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_copy, "_PIECE", 50_000)
    monkeypatch.setattr(postgres_copy, "_STEP", 30_000)
    schema = pyarrow.schema([("n", pyarrow.int32()), ("s", pyarrow.string()), ("b", pyarrow.binary())])
    model = TableModel(schema)
    random = Random(3)
    for _ in range(4):
        rows = [
            {"n": random.choice((None, n)), "s": random.choice((None, "", "é" * random.randrange(40))), "b": b"\x00" * (n % 9)}
            for n in range(3000)
        ]
        rows[7]["b"] = bytes(range(256)) * 2000
        model.append(rows)
    await store.apply([model.batch()])
    await assert_reads(store, model)
    only = await store.read(model.node, model.structure, columns=["b"])
    assert only.to_pylist() == model.table(["b"]).to_pylist()


async def test_much_is_encoded_and_decoded_in_threads_and_little_where_it_is(
    store: PostgresTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[bool] = []
    encode, decode = postgres_copy.encode, postgres_copy.Answer._decode

    def spying_encode(table: pyarrow.Table) -> bytes:
        where.append(threading.current_thread() is threading.main_thread())
        return encode(table)

    def spying_decode(answer: postgres_copy.Answer, data: bytes) -> int:
        where.append(threading.current_thread() is threading.main_thread())
        return decode(answer, data)

    monkeypatch.setattr(postgres_copy, "encode", spying_encode)
    monkeypatch.setattr(postgres_copy.Answer, "_decode", spying_decode)
    for count, is_here in ((10, True), (200_000, False)):
        where.clear()
        model = two_columns()
        model.append(random_rows(Random(0), 10) * (count // 10))
        await store.apply([model.batch()])
        assert await store.rows(model.node, model.structure) == count
        await store.read(model.node, model.structure)
        assert set(where) == {is_here}


async def test_what_others_left_in_the_database_is_not_touched(new_postgres: str) -> None:
    """A reference server calls its tables alike."""
    model = two_columns()
    table = schema_table(model.structure)
    await ask(new_postgres, f"CREATE TABLE {table} (_dataset_id INTEGER, _partition_id SMALLINT, x BIGINT)")
    await ask(new_postgres, "CREATE TABLE watermarks (anything TEXT)")
    store = PostgresTables(new_postgres)
    await store.open()
    model.append(random_rows(Random(0), 3))
    await store.apply([model.batch()])
    await assert_reads(store, model)
    await store.delete([(model.node, model.structure)])
    await store.close()
    assert await ask(new_postgres, f"SELECT * FROM {table}") == []


async def test_reads_of_nothing(store: PostgresTables) -> None:
    node, structure = new_id(), table_structure({"a": "int8"})
    assert (await store.read(node, structure, columns=[])).num_columns == 0
    assert await store.apply([]) == []
    await store.delete([])
