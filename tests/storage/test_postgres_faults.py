"""A PostgreSQL that goes away, is full, or lets nobody in: `Unavailable`, nothing half written, and back by itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TypeVar

import asyncpg
import pytest

from tests.servers.postgres import PostgresServer, new_database, postgres_server
from tiled_stream.domain.errors import Unavailable
from tiled_stream.sql import postgres
from tiled_stream.storage import postgres_connect
from tiled_stream.storage.postgres_tables import PostgresTables
from tiled_stream.testing.table_model import TableModel, random_rows, two_columns

T = TypeVar("T")

#: Sessions take up what was set for their database only when they begin.
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tiled_stream tables'"


@pytest.fixture(scope="module")
def server(runtime_directory: Path) -> Iterator[PostgresServer]:
    """Stopped, killed and filled by these tests; durable, as one is in earnest."""
    with postgres_server("max_connections=12", "superuser_reserved_connections=0", "reserved_connections=0") as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    with new_database(server.url) as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresTables]:
    store = PostgresTables(url)
    await store.open()
    yield store
    await store.close()


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def eventually(work: Callable[[], Awaitable[T]]) -> T:
    """As whoever gets a 503 does it."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await work()
            except Unavailable:
                await asyncio.sleep(0.02)


async def assert_reads(store: PostgresTables, model: TableModel) -> None:
    assert (await store.read(model.node, model.structure)).to_pylist() == model.table().to_pylist()


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT], ids=["crash", "shutdown"])
async def test_a_server_that_is_restarted_while_rows_are_written(
    server: PostgresServer, store: PostgresTables, number: int
) -> None:
    model = two_columns()
    for n in range(300):
        model.append(random_rows(Random(n), 5))

    async def persist() -> None:
        while (after := await eventually(lambda: store.watermark(model.node))) < 300:
            with suppress(Unavailable):
                await store.apply([model.batch(after, after + 2)])

    persisting = asyncio.create_task(persist(), name="persister")
    for _ in range(2):
        await asyncio.sleep(0.05)
        assert not persisting.done()
        await asyncio.to_thread(server.stop, number)
        with pytest.raises(Unavailable):
            await store.apply([model.batch(0, 1)])
        with pytest.raises(Unavailable):
            await store.read(model.node, model.structure)
        with pytest.raises(Unavailable):
            await store.rows(model.node, model.structure)
        with pytest.raises(Unavailable):
            await store.delete([(model.node, model.structure)])
        await asyncio.to_thread(server.start)
    await persisting
    await assert_reads(store, model)


async def test_a_server_that_is_away_at_the_start(server: PostgresServer, url: str) -> None:
    store = PostgresTables(url)
    await asyncio.to_thread(server.stop)
    try:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
            await store.open()
    finally:
        await asyncio.to_thread(server.start)
    await store.open()
    assert await store.watermark("ab" * 16) == 0
    await store.close()


async def test_closing_while_the_server_is_away(server: PostgresServer, url: str) -> None:
    store = PostgresTables(url)
    await store.open()
    await asyncio.to_thread(server.stop, signal.SIGQUIT)
    try:
        async with asyncio.timeout(5):
            await store.close()
    finally:
        await asyncio.to_thread(server.start)


async def test_too_many_connections(store: PostgresTables, url: str) -> None:
    model = two_columns()
    model.append(random_rows(Random(0), 3))
    await execute(url, CUT)
    others = []
    with suppress(asyncpg.TooManyConnectionsError):
        while True:
            others.append(await asyncpg.connect(url))
    with pytest.raises(Unavailable, match="too many clients"):
        await store.apply([model.batch()])
    for other in others:
        await other.close()
    assert await eventually(lambda: store.apply([model.batch()])) == [1]
    await assert_reads(store, model)


async def test_a_full_disk_leaves_nothing_half_written(store: PostgresTables, url: str) -> None:
    """In the last step of all: the rows are there already."""
    model, other = two_columns(), two_columns(names=("p", "q"))
    model.append(random_rows(Random(0), 3))
    await store.apply([model.batch()])
    model.replace(random_rows(Random(1), 4), None)
    other.append([{"p": 1, "q": 2.0}])
    await execute(
        url,
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$",
        "CREATE TRIGGER full_disk BEFORE UPDATE ON tiled_stream.watermarks EXECUTE FUNCTION full_disk()",
    )
    with pytest.raises(Unavailable, match="could not extend file"):
        await store.apply([model.batch(1), other.batch()])
    assert await store.watermark(model.node) == 1
    assert (await store.read(model.node, model.structure)).num_rows == 3
    assert await store.rows(other.node, other.structure) == 0
    await execute(url, "DROP TRIGGER full_disk ON tiled_stream.watermarks")
    assert await store.apply([model.batch(1), other.batch()]) == [2, 1]
    await assert_reads(store, model)
    await assert_reads(store, other)


async def test_a_database_that_may_only_be_read(store: PostgresTables, url: str) -> None:
    """As after a failover to a server that is not the primary yet: rows are read, and writing waits."""
    model = two_columns()
    model.append(random_rows(Random(0), 3))
    await store.apply([model.batch()])
    model.append(random_rows(Random(1), 3))
    database = f"ALTER DATABASE {url.rpartition('/')[2]}"
    await execute(url, f"{database} SET default_transaction_read_only = on", CUT)
    assert await eventually(lambda: store.rows(model.node, model.structure)) == 3
    with pytest.raises(Unavailable, match="read-only"):
        await store.apply([model.batch(1)])
    with pytest.raises(Unavailable, match="read-only"):
        await store.delete([(model.node, model.structure)])
    await execute(url, "SET default_transaction_read_only = off", f"{database} RESET default_transaction_read_only", CUT)
    assert await eventually(lambda: store.apply([model.batch(1)])) == [2]
    await assert_reads(store, model)


async def test_who_may_not_come_in_is_told_why_without_the_password(server: PostgresServer, url: str) -> None:
    for uri, why in (
        (url.replace("postgres@", "nobody:s3cret@"), "nobody"),
        (url.rpartition("/")[0].replace("postgres@", "postgres:s3cret@") + "/nowhere", "nowhere"),
    ):
        store = PostgresTables(uri)
        with pytest.raises(Unavailable, match=f"{why}.*does not exist") as caught:
            await store.open()
        assert "s3cret" not in str(caught.value)
        await store.close()


async def test_a_user_who_may_not_make_a_schema_finds_it_made(server: PostgresServer, url: str) -> None:
    await execute(url, "CREATE ROLE plain LOGIN PASSWORD 's3cret'")
    try:
        store = PostgresTables(url.replace("postgres@", "plain:s3cret@"))
        with pytest.raises(Unavailable, match="permission denied for database"):
            await store.open()
        await execute(url, "CREATE SCHEMA tiled_stream AUTHORIZATION plain")
        await store.open()
        model = two_columns()
        model.append(random_rows(Random(0), 3))
        assert await store.apply([model.batch()]) == [1]
        await store.close()
    finally:
        await execute(url, "DROP OWNED BY plain", "DROP ROLE plain")


async def test_a_lock_that_is_not_let_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_connect, "_LIMITS", ("lock_timeout = '100ms'",))
    store = PostgresTables(url)
    await store.open()
    model = two_columns()
    for n in range(2):
        model.append(random_rows(Random(n), 3))
    await store.apply([model.batch(0, 1)])
    hanging = await asyncpg.connect(url)
    transaction = hanging.transaction()
    await transaction.start()
    await hanging.fetch("SELECT * FROM tiled_stream.watermarks FOR UPDATE")
    with pytest.raises(Unavailable, match="lock timeout"):
        await store.apply([model.batch(1)])
    await transaction.rollback()
    await hanging.close()
    assert await store.apply([model.batch(1)]) == [2]
    await assert_reads(store, model)
    await store.close()


async def test_a_server_that_does_not_answer(store: PostgresTables, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement of a stopped server process fails at its limit. The next batch is applied on another connection."""
    monkeypatch.setattr(postgres, "SILENT_SECONDS", 0.3)
    model = two_columns()
    model.append(random_rows(Random(0), 3))
    frozen = 0
    try:
        with pytest.raises(Unavailable, match="does not answer"):  # noqa: PT012
            async with store._database.transaction() as session:
                frozen = await session.value("SELECT pg_backend_pid()")
                os.kill(frozen, signal.SIGSTOP)
                await session.execute("SELECT 1")
        async with asyncio.timeout(5):
            assert await store.apply([model.batch()]) == [1]
            await assert_reads(store, model)
            await store.close()
    finally:
        os.kill(frozen, signal.SIGCONT)
