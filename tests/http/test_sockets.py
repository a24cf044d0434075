"""Streams over real sockets: the server that we ship and a client that is not ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket as network
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as connect_sync

from tiled_stream.run.assembly import Assembly
from tiled_stream.run.serving import listening_socket, serve
from tiled_stream.run.settings import Settings

AUTH = {"Authorization": "Apikey secret"}
SOURCE = {
    "structure_family": "array",
    "structure": {
        "data_type": {"endianness": "little", "kind": "f", "itemsize": 8, "dt_units": None},
        "chunks": [[3]],
        "shape": [3],
        "dims": None,
        "resizable": False,
    },
    "management": "writable",
}
ROW = numpy.arange(3.0).tobytes()


class Running:
    """A server on a port of its own, in this loop."""

    def __init__(self, assembly: Assembly, port: int, stop: asyncio.Event, client: httpx.AsyncClient) -> None:
        self.assembly = assembly
        self.port = port
        self.stop = stop
        self.client = client

    def url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.port}/api/v1/stream/single/{path}"

    async def array(self, key: str, **structure: Any) -> None:
        source = SOURCE | {"structure": {**SOURCE["structure"], **structure}}  # type: ignore[dict-item]
        body = {"id": key, "structure_family": "array", "metadata": {}, "specs": [], "data_sources": [source]}
        (await self.client.post("/metadata/", json=body)).raise_for_status()

    async def put(self, key: str, body: bytes = ROW) -> None:
        (await self.client.put(f"/array/full/{key}", content=body)).raise_for_status()


@contextlib.asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Running]:
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    chosen = Settings(temp=True, api_key="secret", **settings)
    with listening_socket("127.0.0.1", 0, send_timeout_seconds=chosen.send_timeout_seconds) as sock:
        port = sock.getsockname()[1]
        task = asyncio.create_task(serve(chosen, sock, stop, ready.set_result))
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", headers=AUTH, timeout=20) as client:
            yield Running(ready.result(), port, stop, client)
        stop.set()
        async with asyncio.timeout(15):
            await task


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with running() as found:
        yield found


def read_all(url: str) -> tuple[list[int | None], int | None]:
    """Sequences up to the end, and the close code, as a blocking client gets them."""
    found = []
    with connect_sync(url, additional_headers=AUTH) as socket:
        with contextlib.suppress(ConnectionClosed):
            while True:
                found.append(json.loads(socket.recv(10)).get("sequence"))
        return found, socket.close_code


async def test_a_replay_that_ends_at_once_loses_nothing(server: Running) -> None:
    """The schema, all records and the close come in one go. A socket that is torn then makes the client lose them."""
    await server.array("a")
    for _ in range(3):
        await server.put("a")
    await server.client.delete("/stream/close/a")
    for _ in range(20):
        assert await asyncio.to_thread(read_all, server.url("a?start=0")) == ([None, 1, 2, 3], 1000)


async def test_refusals_are_told_with_a_status_and_a_sentence(server: Running) -> None:
    for path, headers, status in (("a", {"Authorization": "Apikey wrong"}, 401), ("missing", AUTH, 404)):
        with pytest.raises(InvalidStatus) as refused:
            await connect(server.url(path), additional_headers=headers)
        assert refused.value.response.status_code == status
        assert "detail" in json.loads(refused.value.response.body or b"")


async def test_many_subscribers_get_everything_once_and_in_order(server: Running) -> None:
    await server.array("a")

    async def follow(envelope: str) -> int:
        count = 0
        async with connect(server.url(f"a?envelope_format={envelope}"), additional_headers=AUTH) as socket:
            with contextlib.suppress(ConnectionClosed):
                async for message in socket:
                    if envelope == "json":
                        assert json.loads(message).get("sequence") == (count or None)
                    count += 1
            assert socket.close_code == 1000
        return count

    tasks = [asyncio.create_task(follow(e)) for e in ("json", "msgpack") * 10]
    while server.assembly.hub.subscribers() < 20:  # noqa: ASYNC110 - they come on their own
        await asyncio.sleep(0.01)
    await asyncio.gather(*(server.put("a") for _ in range(50)))
    await server.client.delete("/stream/close/a")
    assert await asyncio.gather(*tasks) == [51] * 20
    assert server.assembly.hub.subscribers() == 0


async def test_stopping_tells_everybody_and_takes_no_time(server: Running) -> None:
    await server.array("a")
    sockets = [await connect(server.url("a"), additional_headers=AUTH) for _ in range(5)]
    for socket in sockets:
        await socket.recv()
    server.stop.set()
    async with asyncio.timeout(3):
        for socket in sockets:
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1012


async def test_a_client_that_does_not_read_is_let_go() -> None:
    async with running(send_timeout_seconds=0.5) as server:
        await server.array("a", chunks=[[250_000]], shape=[250_000])
        with network.socket() as mute:
            mute.setsockopt(network.SOL_SOCKET, network.SO_RCVBUF, 4096)
            mute.connect(("127.0.0.1", server.port))
            mute.setblocking(False)
            handshake = (
                "GET /api/v1/stream/single/a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Apikey secret\r\n\r\n"
            )
            await asyncio.get_running_loop().sock_sendall(mute, handshake.encode())
            async with connect(server.url("a?envelope_format=msgpack"), additional_headers=AUTH, max_size=None) as other:
                await other.recv()
                for _ in range(10):
                    await server.put("a", bytes(2_000_000))
                    async with asyncio.timeout(2):
                        await other.recv()
                async with asyncio.timeout(5):
                    while server.assembly.hub.subscribers() > 1:  # noqa: ASYNC110 - it goes on its own
                        await asyncio.sleep(0.05)


async def test_uploads_and_downloads_over_the_wire(server: Running) -> None:
    array = numpy.random.default_rng(0).random(100_000)
    await server.array("a", chunks=[[100_000]], shape=[100_000])
    await server.put("a", array.tobytes())
    response = await server.client.get("/array/full/a")
    assert response.content == array.tobytes()
