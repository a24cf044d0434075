"""Redis is emptied, or replaced by an empty one, while two servers write: the servers restore what was not persisted.

Nothing acknowledged is lost or doubled, rows keep their order, and a subscriber gets each record once under its sequence or a gap
that says otherwise (I1, I2, I3, I6).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import websockets

from tests.run import running
from tests.scenarios.replicas import KEY, Deployment, deployment
from tests.scenarios.test_replicas import numbers_of
from tests.servers.redis import RedisServer

AUTH = {"Authorization": f"Apikey {KEY}"}
TABLES, ROUNDS, ROWS_A_ROUND = 4, 3, 30


class History:
    """One table: what was acknowledged in order, what is in doubt, and what each of its subscribers got."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.acknowledged: list[int] = []
        self.unknown: set[int] = set()
        self.heard: list[int] = []
        self.gaps: list[tuple[int, int, str]] = []
        self.sequences: dict[int, list[int]] = {}


async def write(port: int, history: History, stop: asyncio.Event) -> None:
    number = 0
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", headers=AUTH, timeout=30) as client:
        while not stop.is_set():
            number += 1
            try:
                answer = await client.patch(f"/table/partition/{history.name}?partition=0", content=running.rows(number))
            except httpx.TransportError:
                history.unknown.add(number)
                continue
            if answer.status_code == 200:
                history.acknowledged.append(number)
            elif answer.status_code != 429:
                assert answer.status_code == 503, answer.text
                history.unknown.add(number)


async def follow(port: int, history: History, stop: asyncio.Event) -> None:
    """From the first record; after a close, from the sequence after the last one."""
    last = 0
    while not stop.is_set():
        uri = running.stream_url(port, history.name, last + 1)
        with contextlib.suppress(OSError, websockets.WebSocketException, TimeoutError):
            async with websockets.connect(uri, additional_headers=AUTH, max_size=None, proxy=None, close_timeout=1) as socket:
                await asyncio.wait_for(socket.recv(), 10)  # the schema
                while not stop.is_set():
                    last = take(history, msgspec.msgpack.decode(await asyncio.wait_for(socket.recv(), 1)), last)


def take(history: History, message: dict[str, Any], last: int) -> int:
    if message["type"] == "gap":
        assert message["first"] == last + 1, (message, last)
        history.gaps.append((message["first"], message["last"], message["reason"]))
        return max(last, int(message["last"]))
    first, sequence = message.get("covers", (message["sequence"], message["sequence"]))
    assert first == last + 1, (message["sequence"], last)
    numbers = numbers_of(message["payload"])
    history.heard += numbers
    if first == sequence:
        assert history.sequences.setdefault(sequence, numbers) == numbers, "a sequence was given to other rows"
    return int(sequence)


async def emptied(redis: RedisServer) -> None:
    with redis.client() as client:
        client.flushall()


async def replaced(redis: RedisServer) -> None:
    await asyncio.to_thread(redis.stop, signal.SIGKILL)
    for path in redis.directory.glob("appendonlydir"):
        shutil.rmtree(path)
    await asyncio.to_thread(redis.start)


@pytest.mark.parametrize("fault", [emptied, replaced])
async def test_nothing_acknowledged_is_lost(
    postgres_url: str, tmp_path: Path, fault: Callable[[RedisServer], Awaitable[None]]
) -> None:
    with deployment(postgres_url, tmp_path, servers=2) as fleet:
        histories = [History(f"t{n}") for n in range(TABLES)]
        base = f"http://127.0.0.1:{fleet.edge}/api/v1"
        async with httpx.AsyncClient(base_url=base, headers=AUTH, timeout=30) as client:
            for history in histories:
                (await client.post("/metadata/", json=running.table(history.name))).raise_for_status()
            written, followed = asyncio.Event(), asyncio.Event()
            async with asyncio.TaskGroup() as group:
                writers = []
                for n, history in enumerate(histories):
                    port = fleet.replicas[n % 2].port
                    writers.append(group.create_task(write(port, history, written), name=f"writes {history.name}"))
                    group.create_task(follow(fleet.replicas[1 - n % 2].port, history, followed), name="follows")
                for _ in range(ROUNDS):
                    await progress(histories)
                    await fault(fleet.redis)
                await progress(histories)
                written.set()
                await asyncio.wait(writers)
                await judge(client, fleet, histories)
                followed.set()
        if fault is emptied:  # every record was kept by a server that is running: subscribers notice nothing
            assert [history.gaps for history in histories] == [[]] * TABLES


async def progress(histories: list[History]) -> None:
    """Each writer gets so many more rows acknowledged."""
    wanted = [len(history.acknowledged) + ROWS_A_ROUND for history in histories]
    async with asyncio.timeout(60):
        while any(len(h.acknowledged) < n for h, n in zip(histories, wanted, strict=True)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def judge(client: httpx.AsyncClient, fleet: Deployment, histories: list[History]) -> None:
    for history in histories:
        for port in (replica.port for replica in fleet.replicas):
            url = f"http://127.0.0.1:{port}/api/v1/table/full/{history.name}"
            answer = await client.get(url, headers={"Accept": "application/vnd.apache.arrow.file"})
            assert answer.status_code == 200, answer.text
            stored = numbers_of(answer.content)
            assert len(stored) == len(set(stored)), "twice"
            known = set(history.acknowledged)
            assert [n for n in stored if n in known] == history.acknowledged, "an acknowledged row is lost, or out of order"
            assert set(stored) <= known | history.unknown
        async with asyncio.timeout(60):
            while not history.gaps and history.heard != stored:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert len(history.heard) == len(set(history.heard)), "delivered twice"
