"""A long run: many events, connections torn all the time, a log that lets go of what it may, readers of every pace.

`CLIENT_EVENTS` says how many (100 000 takes about a minute); the suite takes fewer.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

import pytest

from tests.client.served import Served, every, served, tearing, tearing_on_a_thread, without_history
from tests.client.test_disconnects import QUICK, Ledger, payload
from tiled_stream.client import ArrayData, subscribe, subscribe_sync
from tiled_stream.domain.commands import EndStream, WriteArray

COUNT = int(os.environ.get("CLIENT_EVENTS", "8000"))
#: Of a record: so large that what sockets hold is little of the whole.
CELLS = 256
SECONDS = 60 + COUNT / 400


async def write(server: Served, count: int, *, ahead: int | None, readers: list[Ledger]) -> None:
    """`ahead`: by how much the writer may be before the slowest of the readers; None: it does not look."""
    for n in range(1, count + 1):
        await server.submit("x", WriteArray(payload(n, CELLS)))
        if n % 50 == 0:
            await asyncio.sleep(0)
            while ahead is not None and n - min(reader.position for reader in readers) > ahead:  # noqa: ASYNC110 - other threads
                await asyncio.sleep(0.005)
    await server.submit("x", EndStream())


async def read(uri: str, ledger: Ledger) -> None:
    async with subscribe(uri, "x", start=0, retry=QUICK) as events:
        async for event in events:
            ledger.take(event)


def read_sync(uri: str, ledger: Ledger) -> None:
    with subscribe_sync(uri, "x", start=0, retry=QUICK) as events:
        for event in events:
            ledger.take(event)


async def read_slowly(uri: str, ledger: Ledger, done: asyncio.Event) -> None:
    """One message a second as long as the others are busy."""
    async with subscribe(uri, "x", start=0, retry=QUICK) as events:
        async for event in events:
            ledger.take(event)
            if isinstance(event, ArrayData) and not done.is_set():
                await asyncio.sleep(1)


@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize("kept", ["all", "little"])
async def test_received_equals_written(kept: str) -> None:
    """With and without asyncio, hash by hash; what the log let go of is announced with its numbers."""
    settings: dict[str, Any] = (
        {"cache_node_bytes": 1 << 30, "cache_total_bytes": 1 << 30}
        if kept == "all"
        else {"cache_node_bytes": 1_000_000, **without_history()}
    )
    fast, blocking, slow = Ledger(CELLS), Ledger(CELLS), Ledger(CELLS)
    with served(**settings) as server:
        server.array("x", (CELLS,))
        began = time.monotonic()
        with tearing_on_a_thread(server.port, every(200_000, 6_000_000, seed=1)) as other:
            async with asyncio.timeout(SECONDS), tearing(server.port, every(200_000, 6_000_000, seed=2)) as proxy:
                thread = threading.Thread(target=read_sync, args=(other.uri, blocking), name="blocking reader")
                thread.start()
                done = asyncio.Event()
                slowly = asyncio.create_task(read_slowly(server.uri, slow, done), name="slow reader")
                ahead = None if kept == "all" else 5_000
                writing = asyncio.run_coroutine_threadsafe(
                    write(server, COUNT, ahead=ahead, readers=[fast, blocking]), server.loop
                )
                await read(proxy.uri, fast)
                done.set()
                await asyncio.to_thread(thread.join)
                await slowly
                await asyncio.wrap_future(writing)
        seconds = time.monotonic() - began
    for ledger in (fast, blocking, slow):
        ledger.check(COUNT)
        if kept == "all":
            assert ledger.missing == []
    assert min(fast.reconnected, blocking.reconnected) >= 1
    if kept == "little":
        assert slow.missing
        assert {reason for _, _, reason in slow.missing} == {"truncated"}
    print(
        f"\n{kept}: {COUNT} events in {seconds:.1f} s; reconnected {fast.reconnected} and {blocking.reconnected} times; "
        f"got {[len(ledger.got) for ledger in (fast, blocking, slow)]}, gaps {[len(x.missing) for x in (fast, blocking, slow)]}"
    )
