"""Subtrees and many subscriptions against the real server, with torn connections. Skipped where it has no `/stream/many`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import numpy
import pyarrow
import pytest

from tests.client.served import Served, every, served, tearing, without_history
from tests.client.test_bluesky import has_many
from tiled_stream.client import (
    Appeared,
    ArrayData,
    ChildCreated,
    Ended,
    Event,
    Gap,
    Live,
    Reconnected,
    Retry,
    TableData,
    Update,
    subscribe,
    watch,
)
from tiled_stream.domain.commands import DeleteNode, WriteArray
from tiled_stream.domain.errors import NotFound

Name = Callable[[str], str]
Path = tuple[str, ...]
QUICK = Retry(first_seconds=0.005, most_seconds=0.05, give_up_seconds=20)
ROWS = pyarrow.schema([("x", pyarrow.float64()), ("n", pyarrow.int64())])
SECONDS = 60


@pytest.fixture(autouse=True)
def needs_many(server: Served) -> None:
    if not has_many(server):
        pytest.skip("this server has no socket for many nodes yet")


@pytest.fixture
async def loop_errors() -> AsyncIterator[list[Any]]:
    """What no task was asked for."""
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    yield errors
    assert errors == []


def on_server(server: Served, work: Any) -> asyncio.Future[Any]:
    return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, server.loop))


def cells(value: float) -> WriteArray:
    return WriteArray(numpy.full(2, float(value)).tobytes())


async def test_every_first_event_of_children_made_at_full_speed(server: Served, fresh: Name, loop_errors: list[Any]) -> None:
    """Thirty arrays, each written as soon as it is there, while connections are torn."""
    name = fresh("run")
    server.container(name)
    seen: dict[Path, list[int]] = {}

    def make() -> None:
        for n in range(30):
            server.array(f"{name}/a{n}")
            server.write(f"{name}/a{n}", *range(10))
        server.end(name)

    async with (
        asyncio.timeout(SECONDS),
        tearing(server.port, every(3_000, 30_000, seed=5)) as proxy,
        subscribe(proxy.uri, name, start=0, subtree=True, retry=QUICK) as events,
    ):
        making = asyncio.create_task(asyncio.to_thread(make), name="making")
        async for event in events:
            if isinstance(event, Update):
                seen.setdefault(event.path, []).append(event.sequence)
            assert not isinstance(event, Gap)
        await making
    assert seen.pop((name,)) == list(range(1, 31))
    assert seen == {(name, f"a{n}"): list(range(1, 11)) for n in range(30)}


async def test_many_subscriptions_through_torn_connections(server: Served, fresh: Name) -> None:
    names = [fresh("array") for _ in range(8)]
    for name in names:
        server.array(name)
    got: dict[str, list[float]] = {}
    back = 0

    async def write() -> None:
        for n in range(200):
            for name in names:
                await server.submit(name, cells(n))
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.1)

    async with (
        asyncio.timeout(SECONDS),
        tearing(server.port, every(5_000, 80_000, seed=9)) as proxy,
        watch(proxy.uri, retry=QUICK) as socket,
    ):
        for name in names:
            await socket.subscribe(name, start=0)
        writing = on_server(server, write())
        while sum(map(len, got.values())) < 8 * 200:
            event = await anext(socket)
            back += isinstance(event, Reconnected)
            if isinstance(event, ArrayData):
                got.setdefault(event.path[0], []).append(float(event.array[0]))
        await writing
    assert got == {name: [float(n) for n in range(200)] for name in names}
    assert back >= 8


async def test_positions_are_told(server: Served, fresh: Name) -> None:
    """Nothing but what comes from now on, `Live` at once, and after a loss from where it stood, though nothing had come."""
    name = fresh("array")
    server.array(name)
    server.write(name, 1, 2, 3)
    found: list[Event] = []
    async with (
        asyncio.timeout(SECONDS),
        tearing(server.port, lambda: None) as proxy,
        subscribe(proxy.uri, name, retry=QUICK) as events,
    ):
        assert isinstance(await anext(events), Live)
        assert (events.subscription.cursor, events.subscription.epoch is None) == (3, False)
        await proxy.stop()
        await asyncio.to_thread(server.write, name, 4)
        while not found or not isinstance(found[-1], ArrayData):
            found.append(await anext(events))
    assert [event.sequence for event in found if isinstance(event, Update)] == [4]
    assert not any(isinstance(event, Gap) for event in found)


async def test_views(server: Served, fresh: Name) -> None:
    table, image = fresh("table"), fresh("image")
    server.table(table, ROWS)
    server.append(table, x=[1.5], n=[1])
    server.array(image, (4, 4))
    server.write(image, 7, cells=16)
    async with asyncio.timeout(SECONDS), watch(server.uri, retry=QUICK) as socket:
        with pytest.raises(NotFound):
            await socket.subscribe("nowhere")
        columns = await socket.subscribe(table, start=0, columns=["n"])
        headers = await socket.subscribe(table, start=0, payload=False)
        part = await socket.subscribe(image, start=0, slice="::2")
        updates: dict[int, Update] = {}
        while len(updates) < 3:
            event = await anext(socket)
            if isinstance(event, Update):
                updates[event.subscription] = event
    one, two, three = updates[columns.number], updates[headers.number], updates[part.number]
    assert isinstance(one, TableData)
    assert one.table.to_pylist() == [{"n": 1}]
    assert isinstance(two, TableData)
    assert two.payload is None
    assert isinstance(three, ArrayData)
    assert three.array.shape == three.shape
    assert three.array.size < 16


async def test_a_fast_stream_as_a_slow_one(server: Served, fresh: Name) -> None:
    """Five a second of two hundred: the last is among them, and what each stands for adds up."""
    name = fresh("array")
    server.array(name)

    async def write() -> None:
        for n in range(200):
            await server.submit(name, cells(n))
            await asyncio.sleep(0.005)

    async with asyncio.timeout(SECONDS), subscribe(server.uri, name, start=0, max_hz=5, retry=QUICK) as events:
        writing = on_server(server, write())
        seen: list[ArrayData] = []
        while not seen or seen[-1].sequence < 200:
            event = await anext(events)
            assert not isinstance(event, Gap)
            if isinstance(event, ArrayData):
                seen.append(event)
        await writing
    assert len(seen) < 60
    assert seen[0].covers[0] == 1
    assert all(after.covers[0] == before.covers[1] + 1 for before, after in pairwise(seen))


async def test_nodes_that_go_and_come(server: Served, fresh: Name) -> None:
    name = fresh("run")
    server.container(name)
    server.array(f"{name}/a")
    server.write(f"{name}/a", 1, 2)
    async with asyncio.timeout(SECONDS), subscribe(server.uri, name, start=0, subtree=True, retry=QUICK) as events:

        async def until(kind: type[Event], path: Path) -> Event:
            async for event in events:
                if isinstance(event, kind) and event.path == path:
                    return event
            raise AssertionError("it ended")

        node = (name, "a")
        appeared = await until(Appeared, node)
        assert isinstance(appeared, Appeared)
        assert appeared.family == "array"
        await until(ArrayData, node)
        await asyncio.to_thread(server.do, f"{name}/a", DeleteNode(recursive=True, external_only=False))
        ended = await until(Ended, node)
        assert isinstance(ended, Ended)
        assert ended.is_deleted
        await asyncio.to_thread(server.array, f"{name}/a")
        await asyncio.to_thread(server.write, f"{name}/a", 5)
        await until(ChildCreated, (name,))
        update = await until(ArrayData, node)
        assert isinstance(update, ArrayData)
        assert (update.sequence, update.array[0]) == (1, 5.0)


async def test_what_was_trimmed_is_announced_in_subtrees() -> None:
    with served(cache_node_bytes=2_000, persist_linger_seconds=0.0, **without_history()) as server:
        server.container("run")
        for key in ("a", "b"):
            server.array(f"run/{key}")
        for n in range(300):
            for key in ("a", "b"):
                server.write(f"run/{key}", n)
        server.end("run")
        covered: dict[Path, list[int]] = {}
        async with (
            asyncio.timeout(SECONDS),
            tearing(server.port, every(2_000, 9_000, seed=2)) as proxy,
            subscribe(proxy.uri, "run", start=0, subtree=True, retry=QUICK) as events,
        ):
            async for event in events:
                if isinstance(event, Gap):
                    assert event.first is not None
                    assert event.last is not None
                    covered.setdefault(event.path, []).extend(range(event.first, event.last + 1))
                elif isinstance(event, ArrayData):
                    covered.setdefault(event.path, []).append(event.sequence)
                if all(len(covered.get(("run", key), ())) >= 300 for key in ("a", "b")):
                    break
        assert {path: numbers for path, numbers in covered.items() if path != ("run",)} == {
            ("run", key): list(range(1, 301)) for key in ("a", "b")
        }
