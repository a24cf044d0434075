"""Connections to PostgreSQL that became half-open, servers that work for long, and callers that are cancelled."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import asyncpg
import pytest

from tests.servers.proxy import proxied
from tiled_stream.accounts.database import PostgresDatabase
from tiled_stream.accounts.store import Accounts
from tiled_stream.catalog.postgres import PostgresCatalog
from tiled_stream.domain.errors import Unavailable
from tiled_stream.domain.nodes import ROOT
from tiled_stream.sql import postgres, server_processes
from tiled_stream.sql.postgres import Pool, ServerSilentError
from tiled_stream.storage.postgres_tables import PostgresTables
from tiled_stream.testing.catalog_search_contract import batch, created
from tiled_stream.testing.factories import container_node
from tiled_stream.testing.table_model import assert_reads, random_rows, two_columns
from tiled_stream.webhooks.store import store_at

Work = Callable[[], Awaitable[object]]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is asked about soon; the server still has the usual time to answer."""
    monkeypatch.setattr(postgres, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(postgres, "GRACE_SECONDS", 0.1)


@pytest.fixture
async def pool(new_postgres: str) -> AsyncIterator[Pool]:
    pool = pool_at(new_postgres)
    await pool.open()
    yield pool
    await pool.close()


def pool_at(url: str, size: int = 4) -> Pool:
    return Pool(url, size=size, settings={"application_name": "test"}, options={})


@asynccontextmanager
async def catalog_works(url: str) -> AsyncIterator[Work]:
    catalog = PostgresCatalog(url, init=True, pool_size=2)
    await catalog.open()
    yield lambda: catalog.node(ROOT)
    await catalog.close()


@asynccontextmanager
async def catalog_writes(url: str) -> AsyncIterator[Work]:
    catalog = PostgresCatalog(url, init=True, pool_size=2)
    await catalog.open()
    yield lambda: catalog.apply([batch(ROOT, *created(container_node("x")))])
    await catalog.close()


@asynccontextmanager
async def storage_works(url: str) -> AsyncIterator[Work]:
    store = PostgresTables(url, pool_size=2)
    await store.open()
    model = two_columns()
    model.append(random_rows(Random(0), 3))
    await store.apply([model.batch()])
    yield lambda: store.read(model.node, model.structure)
    await store.close()


@asynccontextmanager
async def storage_writes(url: str) -> AsyncIterator[Work]:
    store = PostgresTables(url, pool_size=2)
    await store.open()
    model = two_columns()
    model.append(random_rows(Random(0), 3))
    yield lambda: store.apply([model.batch()])
    await store.close()


@asynccontextmanager
async def accounts_work(url: str) -> AsyncIterator[Work]:
    accounts = Accounts(PostgresDatabase(url), init=True)
    await accounts.open()
    yield lambda: accounts.accounts(offset=0, limit=3)
    await accounts.close()


@asynccontextmanager
async def webhooks_work(url: str) -> AsyncIterator[Work]:
    store = store_at(url)
    await store.open()
    yield store.waiting
    await store.close()


EACH = pytest.mark.parametrize(
    "working", [catalog_works, catalog_writes, storage_works, storage_writes, accounts_work, webhooks_work]
)


def test_silence_ends_within_ten_seconds() -> None:
    """What a caller waits for: a connection, or the end of a statement on one that was there."""
    assert postgres.SILENT_SECONDS + server_processes.ASK_SECONDS + postgres.GRACE_SECONDS + postgres.CANCEL_SECONDS <= 10
    assert postgres.ACQUIRE_SECONDS < 10
    assert 2 * postgres.CONNECT_SECONDS < postgres.ACQUIRE_SECONDS  # it is connected, then looked at
    assert postgres.CLOSE_SECONDS < 10


# ----------------------------------------------------------------- half-open connections


@EACH
@pytest.mark.usefixtures("impatient")
async def test_a_half_open_connection_is_unavailable_and_replaced(new_postgres: str, working: Callable[[str], Any]) -> None:
    async with proxied(new_postgres) as (proxy, url), working(url) as work:
        await work()
        for _ in range(2):
            proxy.swallow()
            async with asyncio.timeout(10):
                with pytest.raises(Unavailable, match=r"does not answer|ServerSilentError") as refusal:
                    await work()
            assert "postgres:" not in str(refusal.value)
            async with asyncio.timeout(10):
                await work()


@EACH
@pytest.mark.usefixtures("impatient")
async def test_a_network_that_is_gone_is_unavailable_until_it_is_back(
    new_postgres: str, working: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_processes, "ASK_SECONDS", 0.5)
    for name, seconds in (("CONNECT_SECONDS", 0.7), ("ACQUIRE_SECONDS", 2.0)):
        monkeypatch.setattr(postgres, name, seconds)
    async with proxied(new_postgres) as (proxy, url), AsyncExitStack() as stack:
        work = await stack.enter_async_context(working(url))
        await work()
        proxy.is_deaf = True
        for _ in range(2):
            async with asyncio.timeout(10):
                outcomes = await asyncio.gather(*(work() for _ in range(4)), return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [Unavailable] * 4
        proxy.is_deaf = False
        async with asyncio.timeout(20):
            while True:
                try:
                    await work()
                    break
                except Unavailable:  # connections that were being made
                    await asyncio.sleep(0.01)


@pytest.mark.usefixtures("impatient")
async def test_idle_connections_go_with_one_that_was_given_up(new_postgres: str) -> None:
    """One connection that went silent closes the idle ones too: the next caller does not wait for the same timeout again."""
    async with proxied(new_postgres) as (proxy, url):
        pool = pool_at(url)
        await pool.open()
        await asyncio.gather(*(value(pool, "SELECT pg_sleep(0.1)") for _ in range(4)))  # four connections
        proxy.swallow()
        with pytest.raises(ServerSilentError):
            await value(pool, "SELECT 1")
        assert await asyncio.gather(*(value(pool, "SELECT 1") for _ in range(4))) == [1] * 4
        await pool.close()


@pytest.mark.usefixtures("impatient")
async def test_an_answer_that_is_lost_is_noticed_though_the_server_has_answered(new_postgres: str) -> None:
    async with proxied(new_postgres) as (proxy, url):
        pool = pool_at(url)
        await pool.open()
        async with pool.connection(limit=60) as link:
            asked = asyncio.create_task(link.fetchval("SELECT pg_sleep(1)"), name="ask")
            async with asyncio.timeout(10):
                running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1)'"
                while await value(pool, running) != 1:  # noqa: ASYNC110 - of the server
                    await asyncio.sleep(0.01)
            proxy.swallow()
            with pytest.raises(ServerSilentError):
                await asked
        assert await value(pool, "SELECT 1") == 1
        await pool.close()


@pytest.mark.usefixtures("impatient")
async def test_a_transaction_of_a_half_open_connection_is_not_half_applied(new_postgres: str) -> None:
    async with proxied(new_postgres) as (proxy, url):
        store = PostgresTables(url)
        await store.open()
        model = two_columns()
        for n in range(8):
            model.append(random_rows(Random(n), 2))
        after = 0
        for n in range(6):
            applying = asyncio.create_task(store.apply([model.batch(after, after + 1)]), name="apply")
            await asyncio.sleep(n * 0.0007)
            proxy.swallow()
            outcome = (await asyncio.gather(applying, return_exceptions=True))[0]
            assert isinstance(outcome, Unavailable) or outcome == [after + 1]
            async with asyncio.timeout(60):
                while True:  # the former transaction may still hold its lock, until the server hears that it is over
                    try:
                        (after,) = await store.apply([model.batch(after, after + 1)])
                        break
                    except Unavailable:
                        await asyncio.sleep(0.05)
        await store.apply([model.batch(after)])
        await assert_reads(store, model)
        await store.close()


@pytest.mark.usefixtures("impatient")
async def test_locks_of_a_connection_that_was_given_up_are_released(new_postgres: str) -> None:
    """Also if the server waits for more of a COPY, and does not know that the connection is dead."""
    async with proxied(new_postgres) as (proxy, url):
        direct, through = pool_at(new_postgres), pool_at(url)
        await direct.open()
        await through.open()
        async with direct.connection(limit=10) as link:
            await link.execute("CREATE TABLE t (n bigint PRIMARY KEY)")
            await link.execute("INSERT INTO t VALUES (1)")
        begun, swallowed = asyncio.Event(), asyncio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            yield b"PGCOPY\n\xff\r\n\0" + bytes(8)
            begun.set()
            await swallowed.wait()
            yield (1).to_bytes(2) + (8).to_bytes(4) + (2).to_bytes(8)

        async def copy() -> None:
            async with through.transaction(limit=1) as link:
                await link.execute("UPDATE t SET n = 1 WHERE n = 1")
                await link.copy_in("public", "t", ["n"], pieces())

        copying = asyncio.create_task(copy(), name="copy")
        await begun.wait()
        proxy.swallow()
        swallowed.set()
        with pytest.raises(ServerSilentError):
            await copying
        async with direct.connection(limit=30) as link:
            await link.execute("SET lock_timeout = '9s'")  # what the server itself would wait for is longer
            await link.execute("UPDATE t SET n = 1 WHERE n = 1")
        await through.close()
        await direct.close()


@pytest.mark.usefixtures("impatient")
async def test_closing_over_half_open_connections_ends_and_leaves_no_task(
    new_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I9."""
    monkeypatch.setattr(postgres, "CLOSE_SECONDS", 0.3)
    async with proxied(new_postgres) as (proxy, url):
        pool = pool_at(url)
        await pool.open()
        await asyncio.gather(*(value(pool, "SELECT pg_sleep(0.1)") for _ in range(3)))
        before = {task for task in asyncio.all_tasks() if task.get_name().startswith("postgres")}
        proxy.swallow()
        async with asyncio.timeout(5):
            await pool.close()
        assert {task for task in asyncio.all_tasks() if task.get_name().startswith("postgres")} == before == set()


# ----------------------------------------------------------------- what takes long, and is all right


@pytest.mark.usefixtures("impatient")
async def test_a_statement_that_the_server_works_on_is_not_cut(pool: Pool) -> None:
    async with pool.connection(limit=60) as link:
        assert await link.fetchval("SELECT 7 FROM pg_sleep(1.5)") == 7
        assert await link.fetchval("SELECT 8") == 8


@pytest.mark.usefixtures("impatient")
async def test_a_statement_that_waits_for_a_lock_is_not_cut(pool: Pool) -> None:
    async with pool.connection(limit=60) as first, pool.connection(limit=60) as second:
        await first.execute("SELECT pg_advisory_lock(1)")
        waiting = asyncio.create_task(second.execute("SELECT pg_advisory_lock(1)"), name="wait")
        await asyncio.sleep(1)
        assert not waiting.done()
        await first.execute("SELECT pg_advisory_unlock(1)")
        await waiting


@pytest.mark.usefixtures("impatient")
async def test_a_copy_whose_client_works_for_long_is_not_cut(pool: Pool) -> None:
    """Pieces that are long in the making, and a sink that is slow."""
    header, trailer = b"PGCOPY\n\xff\r\n\x00" + bytes(8), b"\xff\xff"

    async def pieces() -> AsyncIterator[bytes]:
        yield header
        for n in range(3):
            await asyncio.sleep(0.5)
            yield b"\x00\x01\x00\x00\x00\x04" + n.to_bytes(4, "big")
        yield trailer

    got = bytearray()

    async def sink(data: bytes) -> None:
        await asyncio.sleep(0.5 if len(got) < 100 else 0)
        got.extend(data)

    async with pool.connection(limit=60) as link:
        await link.execute("CREATE TABLE public.t (a integer)")
        await link.copy_in("public", "t", ["a"], pieces())
        assert [row[0] for row in await link.fetch("SELECT a FROM public.t ORDER BY a")] == [0, 1, 2]
        await link.copy_out("SELECT a FROM public.t ORDER BY a", sink)
        assert got.startswith(header)
        assert got.endswith(trailer)
        assert len(got) == len(header) + 3 * 10 + len(trailer)


@pytest.mark.usefixtures("impatient")
async def test_the_limit_ends_a_statement_that_the_server_works_on_for_ever(pool: Pool) -> None:
    with pytest.raises(ServerSilentError):
        async with pool.connection(limit=0.5) as link:
            await link.fetchval("SELECT pg_sleep(600)")
    assert await value(pool, "SELECT 1") == 1


async def test_what_the_server_says_of_its_processes(pool: Pool) -> None:
    async with pool.connection(limit=60) as link:
        number = await link.fetchval("SELECT pg_backend_pid()")
        assert await pool.processes.is_working(number) is False
        working = asyncio.create_task(link.execute("SELECT pg_sleep(600)"), name="work")
        async with asyncio.timeout(10):
            while await pool.processes.is_working(number) is not True:  # noqa: ASYNC110 - of the server
                await asyncio.sleep(0.01)
        working.cancel()
        await asyncio.wait([working])
    assert await pool.processes.is_working(999_999) is False
    nowhere = pool_at("postgresql://postgres@127.0.0.1:1/nothing")
    assert await nowhere.processes.is_working(number) is False


async def test_a_server_without_room_for_the_question_leaves_it_open(pool: Pool, new_postgres: str) -> None:
    stranger = pool_at(new_postgres.replace("postgres@", "nobody@"))
    assert await stranger.processes.is_working(1) is None


# ----------------------------------------------------------------- callers, transactions, settings


async def test_a_cancelled_statement_ends_at_the_server_too(pool: Pool) -> None:
    for is_in_transaction in (False, True):

        async def sleep(is_in_transaction: bool = is_in_transaction) -> None:
            taken = pool.transaction(limit=60) if is_in_transaction else pool.connection(limit=60)
            async with taken as link:
                await link.execute("SELECT pg_sleep(601)")

        task = asyncio.create_task(sleep(), name="sleep")
        running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(601)' AND state = 'active'"
        async with asyncio.timeout(10):
            while await value(pool, running) != 1:  # noqa: ASYNC110 - of the server
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
            while await value(pool, running) != 0:  # noqa: ASYNC110 - of the server
                await asyncio.sleep(0.01)


async def test_a_transaction_that_fails_is_rolled_back_and_its_connection_used_again(pool: Pool) -> None:
    await value(pool, "CREATE TABLE public.u (a integer PRIMARY KEY)")
    numbers = set()
    for _ in range(3):
        with pytest.raises(asyncpg.UniqueViolationError):  # noqa: PT012
            async with pool.transaction(limit=60) as link:
                numbers.add(await link.fetchval("SELECT pg_backend_pid()"))
                await link.execute("INSERT INTO public.u VALUES (1)")
                await link.execute("INSERT INTO public.u VALUES (1)")
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with pool.transaction(limit=60) as link:
            numbers.add(await link.fetchval("SELECT pg_backend_pid()"))
            await link.execute("INSERT INTO public.u VALUES (1)")
            raise ZeroDivisionError
    assert await value(pool, "SELECT count(*) FROM public.u") == 0
    assert len(numbers) == 1


async def test_sockets_are_kept_alive(pool: Pool) -> None:
    async with pool.connection(limit=60) as link:
        sock = link._connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name, seconds in postgres._TCP.items():
            if hasattr(socket, name):
                assert sock.getsockopt(socket.IPPROTO_TCP, vars(socket)[name]) == seconds


async def test_a_paused_process_holds_no_lock_for_long(new_postgres: str) -> None:
    """Whatever it is connected for, the server ends a transaction in which nothing happens for 10 seconds."""
    stores = (
        PostgresCatalog(new_postgres, init=True),
        PostgresTables(new_postgres),
        PostgresTables(f"{new_postgres}?statement_cache_size=0"),
    )
    asked = ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout")
    found = []
    for store in stores:
        await store.open()
        async with store._database.transaction() as link:
            ask = link.fetchval if isinstance(store, PostgresCatalog) else link.value
            found.append([await ask(f"SHOW {name}") for name in asked])
        await store.close()
    assert found == [["10s", "0", "0"], ["10s", "8s", "2min"], ["10s", "8s", "2min"]]
    database = PostgresDatabase(new_postgres)
    await database.open(init=True)
    async with database.transaction() as db:
        assert await db.rows(f"SHOW {asked[0]}") == [("10s",)]
    await database.close()


async def test_a_session_behind_a_pooler_keeps_no_settings(new_postgres: str) -> None:
    """PgBouncer gives the connection to others."""
    store = PostgresTables(f"{new_postgres}?statement_cache_size=0")
    await store.open()
    async with store._database.session() as session:
        assert await session.value("SHOW lock_timeout") == "0"
    await store.close()


async def value(pool: Pool, sql: str) -> Any:
    async with pool.connection(limit=60) as link:
        return await link.fetchval(sql)
