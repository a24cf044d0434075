"""Kinds of Redis: without a memory, with a password, behind TLS, behind Sentinels; and what is said of those that are not fit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.processes import missing, until
from tests.servers.redis import CERTIFICATE, DEBIAN, RedisServer, redis_server, sentinel, tls_in_front
from tiled_stream.domain.errors import Unavailable
from tiled_stream.log.redis import RedisLog
from tiled_stream.log.redis_connect import by_sentinels, by_uri
from tiled_stream.testing.factories import draft, new_id


async def open_and_close(url: str, **options: bool) -> None:
    log = RedisLog(by_uri(url), patience=1.0, **options)  # type: ignore[arg-type]
    await log.open()
    await log.close()


# -------------------------------------------------------- fit for the log?


async def test_a_durable_redis_is_not_warned_of(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await open_and_close(redis_url, strict=True)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--appendonly", "no"), "appendonly yes"),
        (("--maxmemory-policy", "allkeys-lru"), "maxmemory-policy noeviction"),
    ],
)
async def test_a_redis_that_may_forget(arguments: tuple[str, ...], said: str, caplog: pytest.LogCaptureFixture) -> None:
    with redis_server(*arguments) as server:
        with caplog.at_level(logging.WARNING):
            await open_and_close(server.url)
        assert [said in message for message in caplog.messages] == [True]
        with pytest.raises(Unavailable, match=said):
            await open_and_close(server.url, strict=True)


async def test_synced_needs_an_append_only_file() -> None:
    with redis_server("--appendonly", "no") as server, pytest.raises(Unavailable, match=r"log_sync is 'full'.*appendonly"):
        await open_and_close(server.url, synced=True)


async def test_synced_needs_a_server_that_can_say_so() -> None:
    if DEBIAN is None:
        pytest.skip(missing("redis-server"))
    with redis_server(program=DEBIAN) as server:
        if tuple(map(int, server.client().info("server")["redis_version"].split(".")[:2])) >= (7, 2):
            pytest.skip("this redis-server has WAITAOF")
        with pytest.raises(Unavailable, match=r"Redis 7\.2"):
            await open_and_close(server.url, synced=True)


async def test_synced_appends_are_on_disk() -> None:
    """What was acknowledged is in the append-only file, byte by byte, at that moment."""
    with redis_server() as server:
        log = RedisLog(by_uri(server.url), synced=True)
        await log.open()
        node = new_id()
        for n in range(5):
            body = b"synced-%d-" % n + bytes(range(200))
            await log.append(node, draft(1, body))
            written = b"".join(path.read_bytes() for path in (server.directory / "appendonlydir").glob("*.incr.aof"))
            assert body in written
        await log.close()


async def test_nobody_there() -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await open_and_close("redis://127.0.0.1:1")


# ----------------------------------------------------------- secrets, TLS


@pytest.fixture
def guarded() -> Iterator[RedisServer]:
    with redis_server() as server:
        with server.client() as client:
            client.acl_setuser("log", enabled=True, passwords=["+s3cret/@:"], keys=["*"], channels=["*"], commands=["+@all"])
        yield server


async def test_user_and_password(guarded: RedisServer) -> None:
    node = new_id()
    log = RedisLog(by_uri(f"redis://log:s3cret%2F%40%3A@127.0.0.1:{guarded.port}"))
    await log.open()
    await log.append(node, draft(1, b"x"))
    with guarded.client() as client:
        assert {c["user"] for c in client.client_list() if c["id"] != str(client.client_id())} == {"log"}
    await log.close()


async def test_a_wrong_password_is_told_without_it(guarded: RedisServer) -> None:
    with pytest.raises(Unavailable) as told:
        await open_and_close(f"redis://log:wr0ng@127.0.0.1:{guarded.port}")
    assert "password" in str(told.value)
    assert "wr0ng" not in str(told.value)


async def test_rediss_with_user_and_password(guarded: RedisServer) -> None:
    async with tls_in_front(guarded.port) as port:
        await follow_through(f"rediss://log:s3cret%2F%40%3A@localhost:{port}?ssl_ca_certs={CERTIFICATE}")
        with pytest.raises(Unavailable, match=r"(?i)certificate"):
            await open_and_close(f"rediss://log:s3cret%2F%40%3A@localhost:{port}")


async def test_rediss_on_debian() -> None:
    if DEBIAN is None:
        pytest.skip(missing("redis-server"))
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory), program=DEBIAN)
        try:
            with server.client() as client:
                client.config_set("tls-cert-file", str(CERTIFICATE))
                client.config_set("tls-key-file", str(CERTIFICATE.with_name("key.pem")))
                client.config_set("tls-auth-clients", "no")
                client.config_set("requirepass", "s3cret")
                client.execute_command("AUTH", "s3cret")
                from tests.servers.processes import free_port

                port = free_port()
                client.config_set("tls-port", port)
            await follow_through(f"rediss://:s3cret@localhost:{port}?ssl_ca_certs={CERTIFICATE}")
        finally:
            server.close()


async def follow_through(url: str) -> None:
    """Everything that has a connection of its own: appends, questions, pages, hints."""
    node = new_id()
    log = RedisLog(by_uri(url))
    await log.open()
    try:
        async with asyncio.timeout(10):
            waiting = asyncio.create_task(log.wait(node, 0))
            await asyncio.sleep(0.05)
            await log.append(node, draft(1, b"x" * 10_000))
            await waiting
            assert [record.payload for record in await log.read(node, 0)] == [b"x" * 10_000]
            (lease,) = await log.claim("w", ttl=10)
            assert await log.settle(lease, 1)
    finally:
        await log.close()


# --------------------------------------------------------------- Sentinels


async def test_a_failover_is_followed() -> None:
    """The master dies; the replica takes over, and appends go on, each once, in one order."""
    node = new_id()
    with redis_server() as master, contextlib.ExitStack() as stack:
        replica = stack.enter_context(redis_server("--replicaof", "127.0.0.1", str(master.port)))
        until(lambda: replica.client().info("replication")["master_link_status"] == "up", "the replica follows")
        watcher = stack.enter_context(sentinel(master))
        log = RedisLog(by_sentinels([("127.0.0.1", watcher.port)], "log"), patience=15.0)
        await log.open()
        try:
            async with asyncio.timeout(60):
                waiting = asyncio.create_task(log.wait(node, 5))
                for n in range(1, 6):
                    assert (await log.append(node, draft(1, b"%d" % n))).sequence == n
                with master.client() as client:
                    client.wait(1, 2000)  # the replica has them
                epoch = log.epoch
                master.close()
                assert (await log.append(node, draft(1, b"6"))).sequence == 6
                await waiting
                assert [record.payload for record in await log.read(node, 0)] == [b"%d" % n for n in range(1, 7)]
                assert log.epoch == epoch
        finally:
            await log.close()
