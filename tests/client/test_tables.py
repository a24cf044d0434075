"""`events.table()`: a scan as columns, while it grows."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pyarrow

from tests.client.served import Served
from tiled_stream.client import subscribe, subscribe_sync

Name = Callable[[str], str]
ROWS = pyarrow.schema([("x", pyarrow.float64()), ("n", pyarrow.int64())])


def scan(server: Served, name: str, count: int, pause: float) -> threading.Thread:
    def run() -> None:
        for n in range(count):
            server.append(name, x=[n / 2], n=[n])
            time.sleep(pause)
        server.end(name)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_plot_sees_it_grow(server: Served, fresh: Name) -> None:
    name = fresh("table")
    server.table(name, ROWS)
    lengths = []
    with subscribe_sync(server.uri, name, start=0) as events:
        writing = scan(server, name, 40, 0.02)
        for columns in events.table("n", "x", every=0.1):
            assert columns["x"].tolist() == [n / 2 for n in range(len(columns))]
            lengths.append(len(columns))
    writing.join()
    assert lengths == sorted(set(lengths))
    assert lengths[-1] == 40
    assert 3 <= len(lengths) <= 15  # not a picture for each row
    assert columns.is_complete


async def test_with_asyncio(server: Served, fresh: Name) -> None:
    name = fresh("table")
    server.table(name, ROWS)
    writing = await asyncio.to_thread(scan, server, name, 30, 0.01)
    seen = 0
    async with asyncio.timeout(20), subscribe(server.uri, name, start=0) as events:
        async for columns in events.table():
            assert len(columns) > seen
            seen = len(columns)
    await asyncio.to_thread(writing.join)
    assert columns.names == ("x", "n")
    assert columns["n"].tolist() == list(range(30))


def test_the_last_rows_do_not_wait_for_more(server: Served, fresh: Name) -> None:
    """Three rows in a moment, then nothing: they are shown after `every`, not with the next row."""
    name = fresh("table")
    server.table(name, ROWS)
    with subscribe_sync(server.uri, name, start=0) as events:
        for n in range(3):
            server.append(name, x=[1.0], n=[n])
        began = time.monotonic()
        for columns in events.table(every=0.2):
            if len(columns) == 3:
                break
    assert time.monotonic() - began < 2
