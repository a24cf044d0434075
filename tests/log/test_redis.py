"""The log in Redis where the contract does not look: several processes, a server that stops, forgets, is full or far away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest

from tests.servers.processes import until
from tests.servers.redis import RedisServer, redis_server
from tiled_stream.domain.errors import Conflict, InDoubt, LeaseLost, Unavailable
from tiled_stream.log.port import Retention
from tiled_stream.log.redis import RedisLog
from tiled_stream.log.redis_connect import by_uri
from tiled_stream.testing.backlog_contract import nothing_persisted
from tiled_stream.testing.factories import draft, new_id

KEEP_NOTHING = Retention(node_bytes=0, total_bytes=0, seconds=0.0)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of its own, to be stopped and emptied."""
    with redis_server() as server:
        yield server


@contextlib.asynccontextmanager
async def opened(url: str, **options: object) -> AsyncIterator[RedisLog]:
    log = RedisLog(by_uri(url), **options)  # type: ignore[arg-type]
    await log.open()
    try:
        yield log
    finally:
        await log.close()


# ------------------------------------------------------- several processes


async def test_what_one_process_appends_wakes_and_reaches_another(redis_url: str) -> None:
    prefix, node = uuid4().hex, new_id()
    async with opened(redis_url, prefix=prefix) as here, opened(redis_url, prefix=prefix) as there, asyncio.timeout(10):
        waiting = asyncio.create_task(there.wait(node, 0))
        await asyncio.sleep(0.05)
        await here.append(node, draft(1, b"x"))
        await waiting
        assert [record.payload for record in await there.read(node, 0)] == [b"x"]
        reached = asyncio.create_task(here.reached(node, 1))
        await asyncio.sleep(0.05)
        (lease,) = await there.claim("there", ttl=60)
        assert await here.claim("here", ttl=60) == []
        assert not reached.done()
        await there.settle(lease, 1)
        await reached


async def test_a_dead_process_loses_its_lease_to_another(redis_url: str) -> None:
    prefix, node = uuid4().hex, new_id()
    async with opened(redis_url, prefix=prefix) as alive:
        async with opened(redis_url, prefix=prefix) as dead:
            await dead.append(node, draft(1))
            (old,) = await dead.claim("dead", ttl=0.2)
        async with asyncio.timeout(5):
            await alive.wait_dirty()
            (new,) = await alive.claim("alive", ttl=60)
        assert new.fence > old.fence
        with pytest.raises(LeaseLost):
            await alive.settle(old, 1)
        assert await alive.settle(new, 1)


async def test_many_processes_append_to_one_node_densely(redis_url: str) -> None:
    prefix, node = uuid4().hex, new_id()
    async with contextlib.AsyncExitStack() as stack:
        logs = [await stack.enter_async_context(opened(redis_url, prefix=prefix)) for _ in range(4)]

        async def write(log: RedisLog, writer: int) -> list[int]:
            return [(await log.append(node, draft(1, b"%d.%d" % (writer, n)))).sequence for n in range(50)]

        told = await asyncio.gather(*(write(log, n) for n, log in enumerate(logs * 2)))
        records = await logs[0].read(node, 0)
        assert [record.sequence for record in records] == list(range(1, 401))
        for writer, sequences in enumerate(told):
            assert [records[s - 1].payload for s in sequences] == [b"%d.%d" % (writer, n) for n in range(50)]


async def test_deployments_share_a_redis_without_knowing(redis_url: str) -> None:
    node = new_id()
    async with opened(redis_url, prefix=uuid4().hex) as one, opened(redis_url, prefix=uuid4().hex) as other:
        waiting = asyncio.create_task(other.wait(node, 0))
        await asyncio.sleep(0.05)
        await one.append(node, draft(1))
        assert await other.read(node, 0) == []
        assert await other.dirty() == []
        assert (await other.lag()).records == 0
        assert (await other.head(node)).sequence == 0
        await asyncio.sleep(0.1)
        assert not waiting.done()
        waiting.cancel()


async def test_a_log_belongs_to_one_catalog(redis_url: str) -> None:
    prefix = uuid4().hex
    async with opened(redis_url, prefix=prefix) as log:
        await log.bind("first", nothing_persisted)
    async with opened(redis_url, prefix=prefix) as log:
        await log.bind("first", nothing_persisted)
        with pytest.raises(Unavailable, match=r"another catalog.*cache_prefix"):
            await log.bind("second", nothing_persisted)


@pytest.mark.parametrize("text", ["0.0", "1764500000.123456", "1e-05"])
async def test_a_log_bound_by_an_older_version_is_taken_over(server: RedisServer, text: str) -> None:
    async with opened(server.url, prefix="p") as log:
        with server.client() as client:
            client.set("{p}:catalog", text)
        await log.bind("first", nothing_persisted)
        with pytest.raises(Unavailable, match="another catalog"):
            await log.bind("second", nothing_persisted)


async def test_a_temporary_log_leaves_nothing(server: RedisServer) -> None:
    async with opened(server.url, prefix="stays") as log:
        await log.append(new_id(), draft(1))
    with server.client() as client:
        before = set(client.keys())
        async with opened(server.url, prefix="goes", is_temporary=True) as log:
            for _ in range(20):
                await log.append(new_id(), draft(1, bytes(5000)))
            assert set(client.keys()) > before
        assert set(client.keys()) == before


async def test_connections_do_not_grow_with_readers(server: RedisServer) -> None:
    nodes = [new_id() for _ in range(300)]
    async with opened(server.url) as log:
        with server.client() as client:
            waiting = [asyncio.create_task(log.wait(node, 0)) for node in nodes]
            reaching = []
            for node in nodes[:100]:
                await log.append(node, draft(1))
                reaching.append(asyncio.create_task(log.reached(node, 1)))
            await asyncio.gather(*(log.append(node, draft(2)) for node in nodes))
            async with asyncio.timeout(10):
                await asyncio.gather(*waiting)
            await asyncio.gather(*(log.read(node, 0) for node in nodes))
            ours = [c for c in client.client_list() if c["id"] != str(client.client_id())]
            assert len(ours) == 4, [(c["id"], c["cmd"]) for c in ours]
            for task in reaching:
                task.cancel()
            await asyncio.wait(reaching)


# --------------------------------------------------- a server that forgets


async def test_a_process_that_knows_nothing_goes_on_after_the_floor(server: RedisServer) -> None:
    node = new_id()
    async with opened(server.url) as log:
        for n in range(1, 6):
            await log.append(node, draft(n))
    with server.client() as client:
        client.flushall()
    async with opened(server.url) as fresh:
        assert (await fresh.append(node, draft(1), floor=5)).sequence == 6


async def test_scripts_that_the_server_forgot_are_given_again(server: RedisServer) -> None:
    node = new_id()
    async with opened(server.url) as log:
        await log.append(node, draft(1))
        with server.client() as client:
            client.script_flush()
        assert (await log.append(node, draft(2))).sequence == 2
        (lease,) = await log.claim("w", ttl=10)
        assert await log.settle(lease, 2)


# ----------------------------------------------------- a server that stops


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_nothing_acknowledged_is_lost_or_doubled_by_a_restart(server: RedisServer, number: int) -> None:
    nodes = [new_id() for _ in range(5)]
    acknowledged: dict[str, list[bytes]] = {node: [] for node in nodes}
    refused = 0
    stop = asyncio.Event()

    async def write(log: RedisLog, node: str, writer: int) -> None:
        nonlocal refused
        n = 0
        while not stop.is_set():
            body = b"%d.%d" % (writer, n)
            try:
                position = await log.append(node, draft(1, body))
            except Unavailable:
                refused += 1
                await asyncio.sleep(0.05)
                continue
            acknowledged[node].append(body)
            assert position.sequence >= len(acknowledged[node])
            n += 1

    async with opened(server.url, patience=5.0) as log:
        writers = [asyncio.create_task(write(log, nodes[n % 5], n)) for n in range(10)]
        epoch = log.epoch
        for _ in range(2):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.restart, number)
        await asyncio.sleep(0.2)
        stop.set()
        await asyncio.gather(*writers)
        assert log.epoch == epoch
        for node in nodes:
            bodies = []
            while records := await log.read(node, len(bodies)):
                assert [r.sequence for r in records] == list(range(len(bodies) + 1, len(bodies) + 1 + len(records)))
                bodies += [record.payload for record in records]
            assert len(bodies) == len(set(bodies)), "something was appended twice"
            assert set(acknowledged[node]) <= set(bodies)
            assert len(bodies) - len(acknowledged[node]) <= refused
            assert len(bodies) > 50


async def test_who_waits_goes_on_after_a_restart(server: RedisServer) -> None:
    node = new_id()
    async with opened(server.url) as log, asyncio.timeout(20):
        await log.append(node, draft(1))

        async def follow() -> int:
            at = 0
            while at < 3:
                if records := await log.read(node, at):
                    at = records[-1].sequence
                else:
                    await log.wait(node, at)
            return at

        following = asyncio.create_task(follow())
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.restart, signal.SIGKILL)
        await log.append(node, draft(2))
        await asyncio.sleep(0.1)
        await log.append(node, draft(3))
        await log.append(node, draft(4))
        assert await following >= 3


async def test_a_redis_that_is_away_is_told_and_comes_back(server: RedisServer) -> None:
    node = new_id()
    async with opened(server.url, patience=0.3) as log:
        await log.append(node, draft(1))
        await asyncio.to_thread(server.stop)
        async with asyncio.timeout(10):
            with pytest.raises(Unavailable, match=r"cannot be reached"):
                await log.append(node, draft(2))
            with pytest.raises(Unavailable, match="cannot be reached"):
                await log.read(node, 0)
            with pytest.raises(Unavailable):
                await log.claim("w", ttl=1)
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(10):
            assert (await log.append(node, draft(2))).sequence == 2


async def test_an_answer_that_was_lost_does_not_append_twice(server: RedisServer) -> None:
    """A proxy passes every request on and tears the connection instead of answering, every few times."""
    node = new_id()
    async with tearing_proxy(server.port, every=3) as port, opened(f"redis://127.0.0.1:{port}", patience=10.0) as log:
        for n in range(30):
            assert (await log.append(node, draft(1, b"%d" % n))).sequence == n + 1
    async with opened(server.url) as log:
        assert [record.payload for record in await log.read(node, 0)] == [b"%d" % n for n in range(30)]


async def test_a_lost_answer_to_a_conditional_append_is_no_conflict(server: RedisServer) -> None:
    node = new_id()
    async with tearing_proxy(server.port, every=2) as port, opened(f"redis://127.0.0.1:{port}", patience=10.0) as log:
        for n in range(20):
            assert (await log.append(node, draft(1), expected=n)).sequence == n + 1
        with pytest.raises(Conflict):
            await log.append(node, draft(1), expected=3)


@contextlib.asynccontextmanager
async def tearing_proxy(upstream: int, *, every: int) -> AsyncIterator[int]:
    """Tears connections that carry scripts of appends, before one answer in `every`; others are left in peace."""
    answers = 0
    tasks: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
        while data := await reader.read(1 << 16):
            seen.append(data)
            writer.write(data)
            await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", upstream)
        seen: list[bytes] = []
        forward = asyncio.create_task(pass_on(reader, up_writer, seen))
        try:
            while data := await up_reader.read(1 << 16):
                if any(b"RowsAppended" in part or b"EVAL" in part for part in seen) and b"ok" in data:
                    answers += 1
                    if answers % every == 0:
                        break
                writer.write(data)
                await writer.drain()
        finally:
            forward.cancel()
            await asyncio.wait([forward])
            for stream in (writer, up_writer):
                stream.close()
                with contextlib.suppress(OSError):
                    await stream.wait_closed()
            tasks.discard(task)

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield proxy.sockets[0].getsockname()[1]
    finally:
        proxy.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


# ------------------------------------------------------ a server that is full


async def test_a_full_redis_refuses_and_loses_nothing(server: RedisServer) -> None:
    node = new_id()
    async with opened(server.url, patience=0.3) as log:
        with server.client() as client:
            client.config_set("maxmemory", client.info("memory")["used_memory"] + (4 << 20))
            appended, refusal = 0, ""
            while not refusal and appended < 200:
                try:
                    await log.append(node, draft(1, bytes(100_000)))
                    appended += 1
                except Unavailable as error:
                    refusal = str(error)
            assert "is full" in refusal
            assert appended > 5
            records = await log.read(node, 0)
            assert len(records) == appended
            assert (await log.head(node)).sequence == appended
            # What is persisted may leave also while Redis is full: that is the way out.
            (lease,) = await log.claim("w", ttl=60)
            assert await log.settle(lease, appended)
            assert await log.trim(KEEP_NOTHING, now=1e9) == appended
            # Large values are freed by another thread of Redis, a moment after they are gone.
            until(lambda: not client.info("memory")["lazyfree_pending_objects"], "Redis frees what left the log")
            assert (await log.append(node, draft(1))).sequence == appended + 1


async def test_figures(server: RedisServer) -> None:
    async with opened(server.url) as log:
        await log.append(new_id(), draft(1, bytes(10_000)))
        figures = await log.figures()
        assert 10_000 <= figures["tiled_stream_log_bytes"] < 11_000
        assert figures["tiled_stream_redis_used_memory_bytes"] > 500_000
        assert figures["tiled_stream_redis_errors_total"] == 0


# ------------------------------------------------------ what is certain, and what is in doubt


async def test_a_server_that_is_away_did_nothing_for_certain(server: RedisServer) -> None:
    """Nothing is sent into a connection that the server has hung up, nor to nobody."""
    node = new_id()
    async with opened(server.url, patience=0.3) as log:
        await log.append(node, draft(1))
        server.stop()
        for _ in range(3):
            await asyncio.sleep(0.05)
            with pytest.raises(Unavailable) as refused:
                await log.append(node, draft(1))
            assert not isinstance(refused.value, InDoubt)
            assert "may have been" not in str(refused.value)
        await asyncio.to_thread(server.start)
        assert (await log.append(node, draft(1))).sequence == 2


async def test_a_lost_answer_is_in_doubt(server: RedisServer) -> None:
    node = new_id()
    async with opened(server.url, patience=0.3) as log:
        await log.append(node, draft(1))
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(InDoubt, match="It may have been written all the same"):
                await log.append(node, draft(1))
        finally:
            os.kill(server.pid, signal.SIGCONT)
