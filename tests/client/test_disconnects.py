"""Connections that are torn anywhere, servers that restart: received equals written."""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path
from typing import Any

import numpy
import pytest

from tests.client.served import Served, every, served, tearing, tearing_on_a_thread, without_history
from tests.servers.processes import free_port
from tiled_stream.client import ArrayData, Ended, Event, Gap, Reconnected, Retry, subscribe, subscribe_sync
from tiled_stream.domain.commands import EndStream, WriteArray
from tiled_stream.domain.errors import Unavailable

QUICK = Retry(first_seconds=0.005, most_seconds=0.05, give_up_seconds=20)
SECONDS = 100


def payload(n: int, cells: int = 2) -> bytes:
    """Record n, recognisable."""
    return numpy.linspace(n, n * n, cells).tobytes()


async def write(server: Served, name: str, count: int, *, pause_every: int = 50) -> None:
    for n in range(1, count + 1):
        await server.submit(name, WriteArray(payload(n)))
        if n % pause_every == 0:
            await asyncio.sleep(0)
    await server.submit(name, EndStream())


class Ledger:
    """What a subscriber got: a digest of each sequence, and the ranges it was told it will not get."""

    def __init__(self, cells: int = 2) -> None:
        self._cells = cells
        self.got: list[tuple[int, bytes]] = []
        self.missing: list[tuple[int, int, str]] = []
        self.reconnected = 0
        self.ended = 0

    @property
    def position(self) -> int:
        """The last sequence it knows about."""
        return max(self.got[-1][0] if self.got else 0, self.missing[-1][1] if self.missing else 0)

    def take(self, event: Event) -> None:
        if isinstance(event, ArrayData):
            assert event.payload is not None
            self.got.append((event.sequence, hashlib.sha256(event.payload).digest()))
        elif isinstance(event, Gap):
            assert event.first is not None
            assert event.last is not None
            self.missing.append((event.first, event.last, event.reason))
        self.reconnected += isinstance(event, Reconnected)
        self.ended += isinstance(event, Ended)

    def check(self, count: int) -> None:
        """Every record once and in order, as it was written, or announced as missing."""
        announced = [n for first, last, _ in self.missing for n in range(first, last + 1)]
        sequences = [n for n, _ in self.got]
        assert sequences == sorted(set(sequences))
        assert sorted(sequences + announced) == list(range(1, count + 1))
        assert [n for n, digest in self.got if digest != hashlib.sha256(payload(n, self._cells)).digest()] == []
        assert self.ended == 1


@pytest.mark.parametrize("seed", range(3))
async def test_torn_anywhere(server: Served, fresh: Any, seed: int) -> None:
    """The handshake too: most connections of the last seed end before they bring anything."""
    name, count = fresh("array"), 1500
    server.array(name)
    least, most = [(2_000, 40_000), (400, 6_000), (200, 1_800)][seed]
    ledger = Ledger()
    async with tearing(server.port, every(least, most, seed=seed)) as proxy, asyncio.timeout(SECONDS):
        writing = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(write(server, name, count), server.loop))
        async for event in _persistent(proxy.uri, name):
            ledger.take(event)
        await writing
    ledger.check(count)
    assert ledger.missing == []
    assert proxy.torn >= 3


async def _persistent(uri: str, name: str) -> Any:
    """The first connection is not sought again by itself."""
    while True:
        events = subscribe(uri, name, start=0, retry=QUICK)
        try:
            await events.__aenter__()
        except Unavailable:
            continue
        try:
            async for event in events:
                yield event
        finally:
            await events.close()
        return


def test_torn_anywhere_without_asyncio(server: Served, fresh: Any) -> None:
    name, count = fresh("array"), 1500
    server.array(name)
    ledger = Ledger()
    with tearing_on_a_thread(server.port, every(1_500, 20_000, seed=7)) as proxy:
        writing = asyncio.run_coroutine_threadsafe(write(server, name, count), server.loop)
        with subscribe_sync(proxy.uri, name, start=0, retry=QUICK) as events:
            for event in events:
                ledger.take(event)
        writing.result(10)
    ledger.check(count)
    assert ledger.missing == []
    assert ledger.reconnected >= 3


async def torn(count: int, *, node_bytes: int, tears: tuple[int, int], pause_every: int, nap_every: int) -> tuple[Ledger, int]:
    """What a reader gets who pauses, of a log of so many bytes, over a connection that is torn; and how often it was torn."""
    with served(cache_node_bytes=node_bytes, persist_linger_seconds=0.0, **without_history()) as server:
        server.array("x")
        ledger = Ledger()
        async with (
            asyncio.timeout(SECONDS),
            tearing(server.port, every(*tears, seed=3)) as proxy,
            subscribe(proxy.uri, "x", start=0, retry=QUICK) as events,
        ):
            writing = asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(write(server, "x", count, pause_every=pause_every), server.loop)
            )
            async for event in events:
                ledger.take(event)
                if len(ledger.got) % nap_every == nap_every - 1:
                    await asyncio.sleep(0.05)
            await writing
    ledger.check(count)
    return ledger, proxy.torn


@pytest.mark.parametrize("node_bytes", [300_000, 100_000_000])
async def test_a_hundred_thousand_records(node_bytes: int) -> None:
    """Torn dozens of times: all arrive as they were written; of a log that lets go of some, the missing ones are announced."""
    ledger, tears = await torn(100_000, node_bytes=node_bytes, tears=(40_000, 600_000), pause_every=50, nap_every=5000)
    assert tears >= 5
    assert node_bytes < 10_000_000 or ledger.missing == []


async def test_what_was_trimmed_is_announced() -> None:
    """A log of a few kilobytes, a reader that pauses and is torn: holes come with their numbers."""
    ledger, _ = await torn(3000, node_bytes=2_000, tears=(4_000, 60_000), pause_every=5, nap_every=200)
    assert {reason for _, _, reason in ledger.missing} <= {"truncated"}


async def test_a_server_that_restarts(tmp_path: Path) -> None:
    """Closed with 1012; the next life has the log, and the reader goes on."""
    port = free_port()
    settings: dict[str, Any] = {
        "temp": False,
        "catalog": str(tmp_path / "c.db"),
        "init": True,
        "write": (str(tmp_path / "data"),),
        "cache": "local",
        "port": port,
    }
    ledger = Ledger()

    async def read(uri: str) -> None:
        async with subscribe(uri, "x", start=0, retry=QUICK) as events:
            async for event in events:
                ledger.take(event)

    with served(**settings) as server:
        server.array("x")
        reading = asyncio.create_task(read(server.uri), name="reader")
        await asyncio.to_thread(server.write, "x", *[1.0] * 5)
        while len(ledger.got) < 5:  # noqa: ASYNC110 - another task's progress
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    assert not reading.done()
    with served(**settings) as server:
        await asyncio.to_thread(server.write, "x", 6.0, 7.0)
        await asyncio.to_thread(server.end, "x")
        async with asyncio.timeout(20):
            await reading
    assert [n for n, _ in ledger.got] == [1, 2, 3, 4, 5, 6, 7]
    assert (ledger.ended, ledger.missing) == (1, [])
    assert ledger.reconnected == 1


async def test_a_slow_reader_slows_the_socket(server: Served, fresh: Any) -> None:
    """One message a second while 40 MB wait: what is held here stays small, and nothing is lost."""
    import tracemalloc

    name, count, cells = fresh("array"), 40, 131_072
    server.array(name, (cells,))
    tracemalloc.start()
    async with asyncio.timeout(SECONDS), subscribe(server.uri, name, start=0) as events:
        await asyncio.to_thread(server.write, name, *map(float, range(count)), cells=cells)
        await asyncio.to_thread(server.end, name)
        got, began = [], time.monotonic()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        async for event in events:
            if isinstance(event, ArrayData):
                got.append((event.sequence, float(event.array[0])))
                if len(got) <= 3:
                    await asyncio.sleep(1)
                    assert tracemalloc.get_traced_memory()[0] - before < 16 << 20
    tracemalloc.stop()
    assert got == [(n + 1, float(n)) for n in range(count)]
    assert time.monotonic() - began >= 3
