"""A deployment on Redis and PostgreSQL, looked at closely: many sockets, an emptied Redis, 24 processes, and a lone persister."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

import httpx
import msgspec
import pytest
import websockets

from tests.run import running
from tests.scenarios.replicas import KEY, deployment
from tests.servers.postgres import new_database
from tests.servers.processes import Process, until
from tests.servers.redis import redis_server

AUTH = {"Authorization": f"Apikey {KEY}"}
PERSISTED = {"X-Tiled-Ack": "persisted"}


def client_of(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", headers=AUTH, timeout=60)


async def append(client: httpx.AsyncClient, table: str, number: int, **headers: str) -> None:
    response = await client.patch(f"/table/partition/{table}?partition=0", content=running.rows(number), headers=headers)
    response.raise_for_status()


async def test_three_hundred_sockets_share_the_connections(postgres_url: str, tmp_path: Path) -> None:
    with deployment(postgres_url, tmp_path, servers=1) as fleet:
        async with client_of(fleet.edge) as client, contextlib.AsyncExitStack() as stack:
            for n in range(30):
                (await client.post("/metadata/", json=running.table(f"t{n}"))).raise_for_status()
            with fleet.redis.client() as redis:
                mine = str(redis.client_id())
                sockets = [
                    await stack.enter_async_context(
                        websockets.connect(
                            running.stream_url(fleet.edge, f"t{n % 30}", 1),
                            additional_headers=AUTH,
                            proxy=None,
                            close_timeout=0.1,
                        )
                    )
                    for n in range(300)
                ]
                for number in range(1, 6):
                    await asyncio.gather(*(append(client, f"t{n}", number) for n in range(30)))
                for socket in sockets:
                    await asyncio.wait_for(socket.recv(), 20)
                    got = [msgspec.msgpack.decode(await asyncio.wait_for(socket.recv(), 20))["sequence"] for _ in range(5)]
                    assert got == [1, 2, 3, 4, 5]
                connections = [c["id"] for c in redis.client_list() if c["id"] != mine]
                assert len(connections) == 4, connections


async def test_an_emptied_redis_loses_nothing_that_was_persisted(postgres_url: str, tmp_path: Path) -> None:
    """Sequences rise on, a subscriber whose servers are running notices nothing, and what was acknowledged is there."""
    with deployment(postgres_url, tmp_path, servers=2) as fleet:
        here, there = (replica.port for replica in fleet.replicas)
        async with client_of(here) as client, client_of(there) as other:
            (await client.post("/metadata/", json=running.table("t"), headers=PERSISTED)).raise_for_status()
            uri = running.stream_url(there, "t", 1)
            async with websockets.connect(uri, additional_headers=AUTH, proxy=None, close_timeout=0.1) as socket:
                await socket.recv()
                for number in range(1, 6):
                    await append(client, "t", number, **PERSISTED)
                got = [msgspec.msgpack.decode(await asyncio.wait_for(socket.recv(), 20)) for _ in range(5)]
                assert [message["sequence"] for message in got] == [1, 2, 3, 4, 5]
                with fleet.redis.client() as redis:
                    redis.flushall()
                for number in range(6, 11):
                    await append(client if number % 2 else other, "t", number, **PERSISTED)
                got = [msgspec.msgpack.decode(await asyncio.wait_for(socket.recv(), 20)) for _ in range(5)]
                assert [(message["type"], message["sequence"]) for message in got] == [("table-data", n) for n in range(6, 11)]
            for port in (here, there):
                table = await httpx_get(port, "/table/full/t")
                assert table == list(range(1, 11))
            # Between two runs: nobody is there to remember anything but the catalog.
            for replica in fleet.replicas:
                assert await asyncio.to_thread(replica.process.stop, signal.SIGTERM) == 0
            with fleet.redis.client() as redis:
                redis.flushall()
            for replica in fleet.replicas:
                await asyncio.to_thread(replica.start)
            await append(client, "t", 11, **PERSISTED)
            (await client.post("/metadata/", json=running.array("late", 1))).raise_for_status()
            (await client.patch("/array/full/late?offset=1&shape=1&extend=true", content=running.cells(5))).raise_for_status()
            async with websockets.connect(running.stream_url(there, "t"), additional_headers=AUTH, proxy=None) as socket:
                await socket.recv()
                await append(client, "t", 12)
                message = msgspec.msgpack.decode(await asyncio.wait_for(socket.recv(), 20))
                assert (message["type"], message["sequence"]) == ("table-data", 12)
            assert await httpx_get(here, "/table/full/t") == list(range(1, 13))


async def httpx_get(port: int, path: str) -> list[int]:
    from tests.scenarios.test_replicas import numbers_of

    async with client_of(port) as client:
        response = await client.get(path, headers=running.ARROW)
        response.raise_for_status()
        return numbers_of(response.content)


@pytest.mark.timeout(300)
async def test_twenty_four_processes_start_share_the_work_and_drain(postgres_url: str, tmp_path: Path) -> None:
    with deployment(postgres_url, tmp_path, servers=24) as fleet:
        async with client_of(fleet.edge) as client:
            for n in range(24):
                (await client.post("/metadata/", json=running.table(f"t{n}"))).raise_for_status()

            async def write(table: str) -> None:
                for number in range(1, 21):
                    await append(client, table, number)

            await asyncio.gather(*(write(f"t{n}") for n in range(24)))
            for n in range(24):  # each of them answers for all
                assert await httpx_get(fleet.replicas[n].port, f"/table/full/t{(n + 7) % 24}") == list(range(1, 21))
            served = 0
            for replica in fleet.replicas:
                async with client_of(replica.port) as one:
                    figures = (await one.get("/metrics")).text
                served += 'method="PATCH"' in figures
        assert served >= 12, "the balancer spreads requests"
        resident = sorted(replica.resident_bytes() for replica in fleet.replicas)
        assert resident[-1] < 400 << 20, resident


async def test_a_process_that_only_persists(postgres_url: str, tmp_path: Path) -> None:
    """Servers leave persisting to it; without it, reads wait and say so; it finishes what others left when it comes."""
    with new_database(postgres_url) as catalog, new_database(postgres_url) as storage, redis_server() as redis:
        places = {
            "TILED_STREAM_CATALOG": catalog,
            "TILED_STREAM_INIT": "true",
            "TILED_STREAM_WRITE": f"{tmp_path / 'arrays'},{storage}",
            "TILED_STREAM_CACHE": redis.url,
            "TILED_STREAM_API_KEY": KEY,
            "TILED_STREAM_SCALABLE": "true",
        }
        environ = places | {"TILED_STREAM_BARRIER_TIMEOUT_SECONDS": "0.5"}
        command = [sys.executable, "-m", "tiled_stream", "serve", "catalog", "--no-persist", "--port", "0"]
        with running.Running(command, tmp_path / "server", environ) as server:
            async with client_of(server.port) as client:
                (await client.post("/metadata/", json=running.table("t"))).raise_for_status()
                await append(client, "t", 1)
                assert (await client.get("/table/full/t", headers=running.ARROW)).status_code == 503
                words = [f"{name}={value}" for name, value in places.items()]
                persister = Process(["env", *words, sys.executable, "-m", "tiled_stream", "persist"], log=tmp_path / "persister")
                try:
                    until(lambda: "Persisting" in persister.words(), "the persister runs")
                    await asyncio.sleep(0.2)
                    assert await httpx_get(server.port, "/table/full/t") == [1]
                    await append(client, "t", 2, **PERSISTED)
                    assert persister.stop() == 0, persister.words()
                finally:
                    persister.kill()
            assert server.stop() == 0
