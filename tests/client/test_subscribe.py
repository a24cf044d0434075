"""One node, with and without asyncio: what is told, in which order, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy
import pyarrow
import pytest

from tests.client.served import KEY, Served, served
from tests.servers.processes import free_port
from tiled_stream.client import (
    ArrayData,
    ChildCreated,
    ChildUpdated,
    Ended,
    Event,
    Live,
    Retry,
    TableData,
    subscribe,
    subscribe_sync,
)
from tiled_stream.domain.commands import DeleteNode, ReplaceMetadata
from tiled_stream.domain.errors import NotFound, Unauthenticated, Unavailable

Name = Callable[[str], str]
ROWS = pyarrow.schema([("x", pyarrow.float64()), ("n", pyarrow.int64())])


async def taken(uri: str, path: Any, **options: Any) -> list[Event]:
    async with asyncio.timeout(20), subscribe(uri, path, **options) as events:
        return [event async for event in events]


def taken_sync(uri: str, path: Any, **options: Any) -> list[Event]:
    with subscribe_sync(uri, path, **options) as events:
        return list(events)


@pytest.fixture(params=["async", "sync"])
def take(request: pytest.FixtureRequest) -> Callable[..., list[Event]]:
    """All events of a stream that ends."""
    if request.param == "sync":
        return taken_sync
    return lambda *positional, **named: asyncio.run(taken(*positional, **named))


def updates(events: list[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, Live | Ended)]


def test_an_array(server: Served, fresh: Name, take: Callable[..., list[Event]]) -> None:
    name = fresh("array")
    server.array(name)
    server.write(name, 1, 2, 3)
    server.end(name)
    events = take(server.uri, name, start=0)
    assert [type(event) for event in updates(events)] == [ArrayData] * 3
    assert [event.sequence for event in updates(events)] == [1, 2, 3]
    for n, event in enumerate(updates(events), 1):
        assert isinstance(event, ArrayData)
        assert event.path == (name,)
        assert event.covers == (n, n)
        assert (event.shape, event.offset, event.block) == ((2,), None, None)
        assert event.array.tolist() == [float(n)] * 2
        assert event.array is event.array  # decoded once
        assert abs(event.time - datetime.now(UTC)) < timedelta(minutes=1)
        with pytest.raises(ValueError, match="read-only"):
            event.array[0] = 0
    assert isinstance(events[-1], Ended)
    assert (events[-1].sequence, events[-1].is_deleted) == (3, False)


def test_a_region(server: Served, fresh: Name, take: Callable[..., list[Event]]) -> None:
    name = fresh("array")
    server.array(name, (1, 3))
    server.extend(name, (1, 0), numpy.arange(6.0).reshape(2, 3))
    server.end(name)
    (event,) = updates(take(server.uri, name, start=0))
    assert isinstance(event, ArrayData)
    assert (event.offset, event.shape, event.array.tolist()) == ((1, 0), (2, 3), [[0, 1, 2], [3, 4, 5]])


def test_a_table(server: Served, fresh: Name, take: Callable[..., list[Event]]) -> None:
    name = fresh("table")
    server.table(name, ROWS)
    for n in range(3):
        server.append(name, x=[n / 2], n=[n])
    server.end(name)
    events = updates(take(server.uri, name, start=2))
    assert [event.sequence for event in events] == [2, 3]
    for event in events:
        assert isinstance(event, TableData)
        assert (event.append, event.partition) == (True, 0)
        assert event.table is event.table
    assert [event.table.to_pylist() for event in events if isinstance(event, TableData)] == [
        [{"x": 0.5, "n": 1}],
        [{"x": 1.0, "n": 2}],
    ]


def test_a_container(server: Served, fresh: Name, take: Callable[..., list[Event]]) -> None:
    name = fresh("container")
    server.container(name)
    server.container(f"{name}/a b", spec="BlueskyRun", color="blue")
    server.do(f"{name}/a b", ReplaceMetadata({"color": "red"}))
    server.end(name)
    created, updated = updates(take(server.uri, name, start=0))
    assert isinstance(created, ChildCreated)
    assert (created.key, created.child, created.family) == ("a b", (name, "a b"), "container")
    assert (created.specs[0].name, created.metadata) == ("BlueskyRun", {"color": "blue"})
    assert isinstance(updated, ChildUpdated)
    assert (updated.child, updated.metadata, updated.revision) == ((name, "a b"), {"color": "red"}, 1)


def test_an_address_may_name_a_node(server: Served, fresh: Name, take: Callable[..., list[Event]]) -> None:
    name = fresh("container")
    server.container(name)
    server.array(f"{name}/a b")
    server.write(f"{name}/a b", 1)
    server.end(f"{name}/a b")
    uri = f"http://127.0.0.1:{server.port}/api/v1/metadata/{name}"
    for path in ("a b", ["a b"], "/a b/"):
        assert [event.path for event in updates(take(uri, path, start=0, api_key=KEY))] == [(name, "a b")]


async def test_what_comes_from_now_on(server: Served, fresh: Name) -> None:
    name = fresh("array")
    server.array(name)
    server.write(name, 1, 2)
    async with asyncio.timeout(20), subscribe(server.uri, name) as events:
        live = await anext(events)
        assert isinstance(live, Live)
        await asyncio.to_thread(server.write, name, 3)
        event = await anext(events)
        assert isinstance(event, ArrayData)
        assert (event.sequence, event.array[0], events.subscription.cursor) == (3, 3.0, 3)


async def test_a_wait_may_be_cancelled_at_any_time(server: Served, fresh: Name) -> None:
    """A reader whose waits are cut short all the time, while records come: each once, in order."""
    name = fresh("array")
    server.array(name)

    async def write() -> None:
        for n in range(200):
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_write(server, name, n), server.loop))
            await asyncio.sleep(0.001 * (n % 3))

    seen, cuts = [], 0
    async with asyncio.timeout(60), subscribe(server.uri, name, start=0) as events:
        writing = asyncio.create_task(write(), name="writer")
        while len(seen) < 200:
            try:
                async with asyncio.timeout(0.0005 * (cuts % 5)):
                    event = await anext(events)
            except TimeoutError:
                cuts += 1
                continue
            if isinstance(event, ArrayData):
                seen.append((event.sequence, event.array[0]))
        await writing
    assert seen == [(n + 1, float(n)) for n in range(200)]
    assert cuts > 50


async def _write(server: Served, name: str, value: float) -> None:
    from tiled_stream.domain.commands import WriteArray

    await server.submit(name, WriteArray(numpy.full(2, float(value)).tobytes()))


def test_next_waits_so_long(server: Served, fresh: Name) -> None:
    name = fresh("array")
    server.array(name)
    with subscribe_sync(server.uri, name, start=1) as events:
        quiet = [events.next(0.2) for _ in range(3)]
        assert all(event is None or isinstance(event, Live) for event in quiet)
        assert quiet[-1] is None
        assert not events.is_over
        server.write(name, 1)
        assert isinstance(events.next(10), ArrayData)
        server.end(name)
        assert isinstance(events.next(10), Ended)
        assert events.is_over
        assert events.next(0) is None
        assert list(events) == []


def test_a_node_that_is_deleted(server: Served, fresh: Name, take: Callable[..., list[Event]]) -> None:
    name = fresh("array")
    server.array(name)
    server.write(name, 1)
    deleting = threading.Timer(0.3, lambda: server.do(name, DeleteNode(recursive=True, external_only=False)))
    deleting.start()
    events = take(server.uri, name, start=0)
    deleting.join()
    assert isinstance(events[-1], Ended)
    assert events[-1].is_deleted


@pytest.mark.parametrize(
    ("kind", "said", "path", "key"),
    [(NotFound, "nowhere", "nowhere", KEY), (Unauthenticated, "key", "", "wrong")],
)
def test_what_the_server_refuses(
    server: Served, take: Callable[..., list[Event]], kind: type[Exception], said: str, path: str, key: str
) -> None:
    with pytest.raises(kind, match=said) as refusal:
        take(f"http://127.0.0.1:{server.port}", path, api_key=key)
    assert "wrong" not in str(refusal.value)


def test_a_server_that_is_not_there(take: Callable[..., list[Event]]) -> None:
    port = free_port()
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}") as refusal:
        take(f"http://127.0.0.1:{port}?api_key=geheim", "x")
    assert "geheim" not in str(refusal.value)


def test_a_server_that_does_not_come_back(take: Callable[..., list[Event]]) -> None:
    with served() as server:
        server.array("x")
        stopped = threading.Timer(0.5, lambda: server.run(_drained(server)))
        stopped.start()
        with pytest.raises(Unavailable, match=r"did not come back within 0\.5 s"):
            take(server.uri, "x", retry=Retry(first_seconds=0.05, give_up_seconds=0.5))
        stopped.join()


async def _drained(server: Served) -> None:
    await server.assembly.drain()


def test_nothing_is_left(server: Served, fresh: Name, take: Callable[..., list[Event]]) -> None:
    name = fresh("array")
    server.array(name)
    server.end(name)
    before = set(threading.enumerate())
    take(server.uri, name, start=0)
    with pytest.raises(NotFound):
        take(server.uri, "nowhere")
    assert set(threading.enumerate()) <= before
    gc.collect()  # a socket that was left open would warn, and a warning fails


def test_no_key_in_a_log(server: Served, fresh: Name, take: Callable[..., list[Event]], caplog: pytest.LogCaptureFixture) -> None:
    """With debugging on for everything."""
    name = fresh("array")
    server.array(name)
    server.end(name)
    with caplog.at_level(logging.DEBUG):
        events = take(server.uri, name, start=0)
    assert KEY not in caplog.text + repr(events)


async def test_closed_from_outside(server: Served, fresh: Name) -> None:
    """Who waits is told."""
    name = fresh("array")
    server.array(name)
    async with subscribe(server.uri, name, start=1) as events:
        waiting = asyncio.create_task(_until_closed(events), name="waiting")
        await asyncio.sleep(0.1)
        await events.close()
        with pytest.raises(Unavailable, match="was closed"):
            await asyncio.wait_for(waiting, 5)


async def _until_closed(events: Any) -> None:
    async for _ in events:
        pass


def test_closed_from_another_thread(server: Served, fresh: Name) -> None:
    name = fresh("array")
    server.array(name)
    with subscribe_sync(server.uri, name, start=1) as events:
        closing = threading.Timer(0.2, events.close)
        closing.start()
        with pytest.raises(Unavailable, match="was closed"):
            list(events)
        closing.join()
