"""Several servers behind HAProxy are one server: whoever writes, reads or subscribes does not notice which one it has, nor that
they are restarted one after the other, nor that one of them is killed.

16 writers append rows, edit metadata and read them back; 60 subscribers follow, and come back when they are told to. At the end:
nothing acknowledged is lost, nothing is there twice, everything is in order (I1, I3, I6), and no reader ever saw an older state
than one that was acknowledged (I7).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy
import pyarrow
import websockets

from tests.run import running
from tests.scenarios.replicas import KEY, Deployment, deployment

AUTH = {"Authorization": f"Apikey {KEY}"}
WRITERS, SUBSCRIBERS = 16, 60


class Table:
    """One writer's table: what was acknowledged, and what nobody knows."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.acknowledged: list[int] = []
        self.unknown: set[int] = set()
        self.is_done = False


async def write(client: httpx.AsyncClient, table: Table, stop: asyncio.Event) -> None:
    """Rows, each with a number of its own; metadata every few of them, read back at once."""
    number = edited = 0
    while not stop.is_set():
        number += 1
        try:
            response = await client.patch(f"/table/partition/{table.name}?partition=0", content=running.rows(number))
        except httpx.TransportError:
            table.unknown.add(number)
            continue
        if response.status_code == 200:
            table.acknowledged.append(number)
        elif response.status_code == 429:  # nothing was done: it must never appear
            await asyncio.sleep(0.05)
        else:
            assert response.status_code in (502, 503, 504), (response.status_code, response.text)
            table.unknown.add(number)
            await asyncio.sleep(0.05)
        if number % 5 == 0:
            edited = await edit_and_read(client, table.name, number, edited)
        await asyncio.sleep(0.01)
    table.is_done = True


async def edit_and_read(client: httpx.AsyncClient, name: str, number: int, edited: int) -> int:
    """Returns the highest number whose edit was acknowledged; whoever reads sees it, or a later one that was not (I7)."""
    with contextlib.suppress(httpx.TransportError):
        response = await client.put(f"/metadata/{name}", json={"metadata": {"n": number}})
        if response.status_code == 200:
            edited = number
        assert response.status_code in (200, 502, 503, 504), response.text
        response = await client.get(f"/metadata/{name}")
        if response.status_code == 200:
            seen = response.json()["data"]["attributes"]["metadata"].get("n", 0)
            assert edited <= seen <= number, (edited, seen, number)
    return edited


async def follow(edge: int, table: Table, heard: list[int], stop: asyncio.Event) -> None:
    """Rows of a table, from the first; comes back with the sequence after the last one it got, as clients do."""
    last = 0
    while not stop.is_set():
        uri = running.stream_url(edge, table.name, last + 1)
        with contextlib.suppress(OSError, websockets.WebSocketException, TimeoutError):
            async with websockets.connect(uri, additional_headers=AUTH, max_size=None, proxy=None, close_timeout=1) as socket:
                await asyncio.wait_for(socket.recv(), 10)  # the schema
                while not stop.is_set():
                    message = msgspec.msgpack.decode(await asyncio.wait_for(socket.recv(), 1))
                    if message["type"] != "table-data":
                        raise AssertionError(message)
                    assert message["sequence"] == last + 1, (table.name, message["sequence"], last)
                    last = message["sequence"]
                    heard += numbers_of(message["payload"])
        await asyncio.sleep(0.02)


def numbers_of(body: bytes) -> list[int]:
    table: Any = pyarrow.ipc.open_file(body).read_all()
    return [int(n) for n in numpy.asarray(table.column("n"))]


async def unrest(fleet: Deployment) -> None:
    """A rolling restart of all, then one is killed and comes back."""
    for replica in fleet.replicas:
        await asyncio.sleep(1.0)
        assert await asyncio.to_thread(replica.process.stop, signal.SIGTERM) == 0
        await asyncio.to_thread(replica.start)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(fleet.replicas[1].process.stop, signal.SIGKILL)
    await asyncio.sleep(1.5)
    await asyncio.to_thread(fleet.replicas[1].start)
    await asyncio.sleep(1.0)


async def test_writers_and_subscribers_notice_nothing(postgres_url: str, tmp_path: Path) -> None:
    with deployment(postgres_url, tmp_path) as fleet:
        tables = [Table(f"t{n}") for n in range(WRITERS)]
        heard: list[list[int]] = [[] for _ in range(SUBSCRIBERS)]
        written, followed = asyncio.Event(), asyncio.Event()
        base = f"http://127.0.0.1:{fleet.edge}/api/v1"
        limits = httpx.Limits(max_connections=WRITERS)
        async with httpx.AsyncClient(base_url=base, headers=AUTH, timeout=30, limits=limits) as client:
            for table in tables:
                (await client.post("/metadata/", json=running.table(table.name))).raise_for_status()
            readers = [
                asyncio.create_task(follow(fleet.edge, tables[n % WRITERS], heard[n], followed)) for n in range(SUBSCRIBERS)
            ]
            writers = [asyncio.create_task(write(client, table, written)) for table in tables]
            await unrest(fleet)
            written.set()
            await asyncio.gather(*writers)
            stored = await check_stored(client, fleet, tables)
            await until_heard(heard, stored, tables)
            followed.set()
            await asyncio.gather(*readers)
        for n, numbers in enumerate(heard):
            assert numbers == stored[tables[n % WRITERS].name]


async def check_stored(client: httpx.AsyncClient, fleet: Deployment, tables: list[Table]) -> dict[str, list[int]]:
    """What is in storage, the same from every server: what was acknowledged, once, in order; what nobody knows, at most once."""
    stored: dict[str, list[int]] = {}
    for table in tables:
        for port in (fleet.edge, *(replica.port for replica in fleet.replicas)):
            response = await client.get(
                f"http://127.0.0.1:{port}/api/v1/table/full/{table.name}", headers={"Accept": "application/vnd.apache.arrow.file"}
            )
            response.raise_for_status()
            numbers = numbers_of(response.content)
            assert stored.setdefault(table.name, numbers) == numbers
        assert len(numbers) == len(set(numbers)), "twice"
        # What a killed server had sent to Redis may be carried out after what its client then sent by another way: of what was
        # not acknowledged, nobody knows the place. What was has its order.
        known = set(table.acknowledged)
        assert [n for n in numbers if n in known] == table.acknowledged, "an acknowledged row is lost, or out of order"
        assert set(numbers) <= set(table.acknowledged) | table.unknown
        assert len(table.acknowledged) > 50
    return stored


async def until_heard(heard: list[list[int]], stored: dict[str, list[int]], tables: list[Table]) -> None:
    async with asyncio.timeout(30):
        while any(len(numbers) < len(stored[tables[n % WRITERS].name]) for n, numbers in enumerate(heard)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
