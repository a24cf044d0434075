"""Many at once: subscribers that read and that do not, writers of one node, a poisoned upload (I3, I8, I10)."""

from __future__ import annotations

import asyncio
import socket as sockets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.scenarios.server_process import KEY, OCTETS, ServerProcess, array_source, create, serving

READERS, SLEEPERS, WRITES = 180, 20, 60
MiB = 1 << 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with serving("--temp", directory=tmp_path) as running:
        yield running


async def opened(server: ServerProcess, path: str, *, receive_buffer: int | None = None) -> ClientConnection:
    """A subscriber of what comes from now on, its schema taken."""
    raw = sockets.socket()
    if receive_buffer is not None:
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, receive_buffer)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", server.port))
    uri = f"ws://127.0.0.1:{server.port}/api/v1/stream/single/{path}?envelope_format=msgpack"
    headers = {"Authorization": f"Apikey {KEY}"}
    made = await connect(
        uri, sock=raw, additional_headers=headers, compression=None, max_size=None, max_queue=1, ping_interval=None
    )
    await made.recv()
    return made


async def test_sleepers_cost_the_readers_nothing(server: ServerProcess) -> None:
    """200 subscribers, 20 of them not reading: the others get everything once, in order, and memory stays flat."""
    cells = 16_384  # 128 kB a message: what the sleepers leave unread would be 150 MB
    with server.client() as client:
        create(client, "", "x", "array", array_source([cells], [[cells]]))
        readers = [await opened(server, "x") for _ in range(READERS)]
        sleepers = [await opened(server, "x", receive_buffer=4096) for _ in range(SLEEPERS)]
        before = server.resident_bytes()

        async def read(reader: ClientConnection) -> list[tuple[int, float]]:
            seen = []
            for _ in range(WRITES):
                update = msgspec.msgpack.decode(await asyncio.wait_for(reader.recv(), 60))
                seen.append((update["sequence"], float(numpy.frombuffer(update["payload"][:8])[0])))
            return seen

        def write() -> None:
            for n in range(WRITES):
                if n == WRITES // 2:  # a poisoned upload: refused, and nobody notices
                    assert client.put("/array/full/x", content=b"xx", headers=OCTETS).status_code == 422
                client.put("/array/full/x", content=numpy.full(cells, float(n)).tobytes(), headers=OCTETS).raise_for_status()

        tasks = [asyncio.create_task(read(reader)) for reader in readers]
        await asyncio.to_thread(write)
        expected = [(n + 1, float(n)) for n in range(WRITES)]
        assert [seen for seen in await asyncio.gather(*tasks) if seen != expected] == []
        grown = server.resident_bytes() - before
        # Retained for late readers: 60 records of 128 kB, once. Each sleeper may hold up to one batch in its socket's buffers.
        assert grown < WRITES * cells * 8 + SLEEPERS * 4 * MiB, f"{grown / MiB:.0f} MiB"
        for one in (*readers, *sleepers):
            one.transport.abort()


async def test_one_message_a_second_beside_a_hundred_fast_ones(server: ServerProcess) -> None:
    """The fast ones get everything at once; slow ones what they have time for, in order, and no queue in the server."""
    cells, writes = 32_768, 80  # 256 kB a message
    with server.client() as client:
        create(client, "", "x", "array", array_source([cells], [[cells]]))
        fast = [await opened(server, "x") for _ in range(100)]
        slow = [await opened(server, "x", receive_buffer=4096) for _ in range(SLEEPERS)]
        before = server.resident_bytes()

        async def read(reader: ClientConnection) -> list[int]:
            return [msgspec.msgpack.decode(await asyncio.wait_for(reader.recv(), 60))["sequence"] for _ in range(writes)]

        async def look(viewer: ClientConnection) -> list[int]:
            seen = []
            while not all(task.done() for task in tasks):
                seen.append(msgspec.msgpack.decode(await viewer.recv())["sequence"])
                await asyncio.sleep(1)
            return seen

        def write() -> None:
            for n in range(1, writes + 1):
                client.put("/array/full/x", content=numpy.full(cells, float(n)).tobytes(), headers=OCTETS).raise_for_status()
                time.sleep(0.03)

        tasks = [asyncio.create_task(read(reader)) for reader in fast]
        looking = [asyncio.create_task(look(viewer)) for viewer in slow]
        await asyncio.to_thread(write)
        expected = list(range(1, writes + 1))
        assert [seen for seen in await asyncio.gather(*tasks) if seen != expected] == []
        for seen in await asyncio.gather(*looking):
            assert seen == expected[: len(seen)]
            assert len(seen) < writes / 2  # it was slow
        # Retained: 80 records of 256 kB, once. In the buffers of a socket: up to two messages, or of a slow one a batch. What the
        # slow ones have not read would be 400 MiB.
        grown = server.resident_bytes() - before
        assert grown < writes * cells * 8 + len(fast) * MiB // 2 + len(slow) * 4 * MiB, f"{grown / MiB:.0f} MiB"
        for one in (*fast, *slow):
            one.transport.abort()
            await one.wait_closed()


async def test_sixteen_writers_of_one_node(server: ServerProcess) -> None:
    """A connected subscriber gets every acknowledged write, in the order of sequences."""
    writers, each = 16, 40
    with server.client() as client:
        create(client, "", "x", "array", array_source([1], [[1]]))
    subscriber = await opened(server, "x")

    def write(writer: int) -> None:
        with server.client() as own:
            for n in range(each):
                body = numpy.array([float(writer * each + n)]).tobytes()
                own.put("/array/full/x", content=body, headers=OCTETS).raise_for_status()

    async def read() -> list[tuple[int, int]]:
        seen = []
        while len(seen) < writers * each:
            update = msgspec.msgpack.decode(await asyncio.wait_for(subscriber.recv(), 30))
            seen.append((update["sequence"], int(numpy.frombuffer(update["payload"])[0])))
        return seen

    reading = asyncio.create_task(read())
    with ThreadPoolExecutor(writers) as pool:
        await asyncio.gather(*(asyncio.get_running_loop().run_in_executor(pool, write, k) for k in range(writers)))
    seen = await reading
    assert [s for s, _ in seen] == list(range(1, writers * each + 1))  # I3
    assert sorted(v for _, v in seen) == list(range(writers * each))
    for writer in range(writers):
        own = [v for _, v in seen if v // each == writer]
        assert own == sorted(own)
    await subscriber.close()


async def test_one_that_reads_nothing_is_let_go(tmp_path: Path) -> None:
    """After the time it is allowed, its socket is free again; the server lives on."""
    environ = {"TILED_STREAM_SEND_TIMEOUT_SECONDS": "0.5"}
    with serving("--temp", directory=tmp_path, environ=environ) as server, server.client() as client:
        cells = 131_072
        create(client, "", "x", "array", array_source([cells], [[cells]]))
        sleeper = await opened(server, "x", receive_buffer=4096)
        for n in range(20):
            client.put("/array/full/x", content=numpy.full(cells, float(n)).tobytes(), headers=OCTETS).raise_for_status()
        end = time.monotonic() + 20
        while _subscribers(client.get("/metrics").text) and time.monotonic() < end:
            time.sleep(0.1)  # noqa: ASYNC251 - nothing else runs on this loop
        assert _subscribers(client.get("/metrics").text) == 0
        sleeper.transport.abort()


def _subscribers(metrics: str) -> int:
    (line,) = [line for line in metrics.splitlines() if line.startswith("tiled_stream_subscribers ")]
    return int(float(line.split()[1]))
