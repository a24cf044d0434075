"""Many subscriptions over one socket: against a small server that keeps to the words of the protocol."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.client.small_server import SmallServer, small_server
from tiled_stream.client import (
    Appeared,
    ArrayData,
    ChildCreated,
    Ended,
    Event,
    Failed,
    Live,
    Reconnected,
    Retry,
    Update,
    subscribe,
    watch,
    watch_sync,
)
from tiled_stream.domain.errors import NotFound, NotSupported, Unauthenticated, Unavailable

QUICK = Retry(first_seconds=0.005, most_seconds=0.05, give_up_seconds=5)


@pytest.fixture
async def server() -> AsyncIterator[SmallServer]:
    async with small_server() as running:
        yield running


async def until(socket: Any, kind: type[Event], count: int = 1) -> list[Any]:
    """Read on until so many of a kind came."""
    found: list[Any] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            event = await anext(socket)
            if isinstance(event, kind):
                found.append(event)
    return found


async def test_two_at_once(server: SmallServer) -> None:
    server.create(("a",))
    server.create(("b",))
    async with watch(server.uri, retry=QUICK) as socket:
        one = await socket.subscribe("a", start=0)
        two = await socket.subscribe(["b"], columns=["x"], max_hz=5, thin="minmax", slice="::2", payload=False)
        assert (one.number, two.number, one.path, one.epoch) == (1, 2, ("a",), "first")
        server.append(("a",))
        server.append(("b",))
        events = await until(socket, ArrayData, 2)
        assert {(event.subscription, event.path, event.sequence) for event in events} == {(1, ("a",), 1), (2, ("b",), 1)}
        assert (one.cursor, two.cursor) == (1, 1)
    assert server.requests[1] == {
        "type": "subscribe",
        "id": 2,
        "path": ["b"],
        "start": None,
        "columns": ["x"],
        "max_hz": 5,
        "thin": "minmax",
        "slice": "::2",
        "payload": False,
    }


async def test_a_subtree_that_grows(server: SmallServer) -> None:
    server.create(("run",), "container")
    server.create(("run", "old"))
    server.append(("run", "old"))
    async with watch(server.uri, retry=QUICK) as socket:
        run = await socket.subscribe("run", subtree=True)
        await until(socket, Live, 2)
        server.create(("run", "new"))
        server.append(("run", "new"))
        server.append(("run", "old"))
        seen = await until(socket, Update, 3)
        assert {(type(event), event.path, event.sequence) for event in seen} == {
            (ChildCreated, ("run",), 2),
            (ArrayData, ("run", "new"), 1),
            (ArrayData, ("run", "old"), 2),
        }
        server.end(("run", "old"))
        (ended,) = await until(socket, Ended)
        assert (ended.path, run.is_over) == (("run", "old"), False)
        server.end(("run",))
        (ended,) = await until(socket, Ended)
        assert (ended.path, run.is_over) == (("run",), True)
        with pytest.raises(StopAsyncIteration):
            await anext(socket)


async def test_all_subscriptions_come_back(server: SmallServer) -> None:
    """Twenty cuts while records come in three subscriptions, one of them a subtree that grows."""
    for name in ("a", "b"):
        server.create((name,))
    server.create(("run",), "container")
    got: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    reconnected = 0

    async def write() -> None:
        for n in range(300):
            server.append(("a",))
            server.append(("b",))
            if n % 50 == 0:
                server.create(("run", f"c{n}"))
            server.append(("run", f"c{n - n % 50}"))
            if n % 15 == 7:
                server.cut()
            await asyncio.sleep(0.003)
        for path in (("a",), ("b",), ("run",)):
            server.end(path)

    async with asyncio.timeout(60), watch(server.uri, retry=QUICK) as socket:
        for path, start in (("a", 0), ("b", None)):
            await socket.subscribe(path, start=start)
        await socket.subscribe("run", start=0, subtree=True)
        writing = asyncio.create_task(write(), name="writer")
        async for event in socket:
            if isinstance(event, Update):
                got.setdefault((event.subscription, event.path), []).append(event.sequence)
            reconnected += isinstance(event, Reconnected)
        await writing
    assert got.pop((3, ("run",))) == list(range(1, 7))
    assert got.pop((1, ("a",))) == got.pop((2, ("b",))) == list(range(1, 301))
    assert set(map(tuple, got.values())) == {tuple(range(1, 51))}
    assert len(got) == 6
    assert reconnected >= 30
    last = [request for request in server.requests if request["id"] == 3][-1]
    assert last["cursors"].keys() >= {"", "c0"}
    assert last["epoch"] == "first"


async def test_what_is_refused(server: SmallServer) -> None:
    server.create(("a",))
    async with watch(server.uri, retry=QUICK) as socket:
        with pytest.raises(NotFound, match="nowhere"):
            await socket.subscribe("nowhere")
        await socket.subscribe("a", start=0)
        server.append(("a",))
        await until(socket, ArrayData)
        del server.nodes[("a",)]  # gone while the connection is away
        server.cut()
        (failed,) = await until(socket, Failed)
        assert isinstance(failed.error, NotFound)
    async with subscribe(server.uri, "", start=0, retry=QUICK) as events:
        (created,) = await until(events, ChildCreated)
        assert created.key == "a"
        del server.nodes[()]
        server.cut()
        with pytest.raises(NotFound):
            await until(events, Ended)


async def test_a_task_may_subscribe_while_another_reads(server: SmallServer) -> None:
    for n in range(10):
        server.create((f"n{n}",))
    async with asyncio.timeout(20), watch(server.uri, retry=QUICK) as socket:
        await socket.subscribe("n0", start=0)

        async def add() -> None:
            for n in range(1, 10):
                await socket.subscribe(f"n{n}", start=0)
            for n in range(10):
                server.append((f"n{n}",))

        adding = asyncio.create_task(add(), name="adding")
        events = await until(socket, ArrayData, 10)
        await adding
    assert sorted(event.path for event in events) == [(f"n{n}",) for n in range(10)]


async def test_a_subscribe_that_is_cancelled_leaves_nothing(server: SmallServer) -> None:
    server.create(("a",))
    async with asyncio.timeout(20), watch(server.uri, retry=QUICK) as socket:
        for _ in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await socket.subscribe("a", start=0)
        kept = await socket.subscribe("a", start=0)
        server.append(("a",))
        (event,) = await until(socket, ArrayData)
        assert event.subscription == kept.number


async def test_unsubscribed(server: SmallServer) -> None:
    server.create(("a",))
    server.create(("b",))
    async with asyncio.timeout(20), watch(server.uri, retry=QUICK) as socket:
        one, two = await socket.subscribe("a", start=0), await socket.subscribe("b", start=0)
        server.append(("a",))
        await socket.unsubscribe(one)
        assert one.is_over
        server.append(("a",))
        server.append(("b",))
        events = await until(socket, ArrayData)
        assert [event.subscription for event in events] == [two.number]
        server.cut()
        await until(socket, Reconnected)
        server.append(("b",))
        await until(socket, ArrayData)
    assert [request["id"] for request in server.requests if request["type"] == "subscribe"] == [1, 2, 2]


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [(503, {"Retry-After": "7"}, Unavailable), (401, {}, Unauthenticated), (429, {}, Unavailable)],
)
async def test_a_handshake_that_is_refused(
    server: SmallServer, status: int, headers: dict[str, str], error: type[Exception]
) -> None:
    server.refuse = (status, headers)
    with pytest.raises(error, match="not now") as refusal:
        await watch(server.uri).__aenter__()
    if headers:
        assert getattr(refusal.value, "retry_after", None) == 7


async def test_a_server_that_wants_more_time(server: SmallServer) -> None:
    """503 while it is away, then back: what was written meanwhile comes."""
    server.create(("a",))
    async with asyncio.timeout(20), subscribe(server.uri, "a", start=0, retry=QUICK) as events:
        await until(events, Live)
        server.refuse = (503, {})
        server.append(("a",))
        server.cut()
        assert await events.next(0.3) is None
        server.refuse = None
        assert [event.sequence for event in await until(events, ArrayData)] == [1]


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013])
async def test_closed_and_back(server: SmallServer, code: int) -> None:
    server.create(("a",))
    async with asyncio.timeout(20), subscribe(server.uri, "a", retry=QUICK) as events:
        await until(events, Live)
        await server.close(code, "for a reason")
        server.append(("a",))
        (back,) = await until(events, Reconnected)
        assert str(code) in back.why
        assert [event.sequence for event in await until(events, ArrayData)] == [1]


async def test_a_wrong_key_in_the_first_message(server: SmallServer) -> None:
    server.create(("a",))
    async with asyncio.timeout(20), subscribe(server.uri, "a", retry=QUICK) as events:
        await until(events, Live)
        await server.close(4003, "Authentication failed")
        with pytest.raises(Unauthenticated, match="failed"):
            await until(events, Ended)


async def test_a_token_is_renewed(server: SmallServer) -> None:
    """Asked before each connection; never in a URL."""
    server.create(("a",))
    tokens = iter(["one", "two", "three"])
    uri = f"http://127.0.0.1:{server.port}"
    async with asyncio.timeout(20), subscribe(uri, "a", token=lambda: next(tokens), retry=QUICK) as events:
        await until(events, Live)
        await server.close(4003, "expired")
        await until(events, Reconnected)
        server.cut()
        await until(events, Reconnected)
    assert [headers["Authorization"] for headers in server.headers] == ["Bearer one", "Bearer two", "Bearer three"]


async def test_many_needs_a_server_that_has_it(server: SmallServer) -> None:
    server.refuse = (404, {})
    for make in (lambda: watch(server.uri), lambda: subscribe(server.uri, "a", subtree=True)):
        with pytest.raises(NotSupported, match="/stream/many"):
            await make().__aenter__()
    with pytest.raises(NotFound):
        await subscribe(server.uri, "a").__aenter__()


def test_without_asyncio() -> None:
    """The same words; a server on another thread."""
    ready, stop = threading.Event(), threading.Event()
    found: list[SmallServer] = []
    before = set(threading.enumerate())

    async def main() -> None:
        async with small_server() as server:
            server.create(("run",), "container")
            for name in ("a", "b"):
                server.create(("run", name))
            found.append(server)
            ready.set()
            n = 0
            while not stop.is_set():
                for name in ("a", "b"):
                    if n < 100:
                        server.append(("run", name))
                n += 1
                if n % 10 == 5 and n < 100:
                    server.cut()
                if n == 101:
                    server.end(("run",))
                await asyncio.sleep(0.005)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(10)
    got: dict[tuple[str, ...], list[int]] = {}
    appeared = []
    try:
        with watch_sync(found[0].uri, retry=QUICK) as socket:
            with pytest.raises(NotFound):
                socket.subscribe("nowhere")
            run = socket.subscribe("run", start=0, subtree=True)
            for event in socket:
                if isinstance(event, ArrayData):
                    got.setdefault(event.path, []).append(event.sequence)
                elif isinstance(event, Appeared):
                    appeared.append(event.path)
            assert run.is_over
    finally:
        stop.set()
        thread.join(10)
    assert got == {("run", name): list(range(1, 101)) for name in ("a", "b")}
    assert sorted(appeared) == sorted(got)
    gc.collect()
    assert set(threading.enumerate()) <= before


async def test_a_silent_line_is_given_up(server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that is answered keeps it; one that is not ends it, and the reader comes back."""
    from tiled_stream.client import conversation

    monkeypatch.setattr(conversation, "_SILENCE_SECONDS", 0.2)
    server.create(("a",))
    async with asyncio.timeout(20), subscribe(server.uri, "a", retry=QUICK) as events:
        await until(events, Live)
        assert await events.next(1.0) is None  # five probes, all answered
        assert len(server.headers) == 1
        for connection in server._connections:
            connection.transport.pause_reading()
        (back,) = await until(events, Reconnected)
        assert "no sign of life" in back.why
        server.append(("a",))
        assert len(await until(events, ArrayData)) == 1


async def test_a_message_that_is_too_large(server: SmallServer) -> None:
    from tiled_stream.domain.errors import TooLarge

    server.create(("a",))
    server.append(("a",), type="array-data", mimetype="x", shape=[1], offset=None, block=None, payload=bytes(100_000))
    with pytest.raises(TooLarge, match="max_message_bytes"):
        async with asyncio.timeout(20), subscribe(server.uri, "a", start=0, max_message_bytes=50_000, retry=QUICK) as events:
            await until(events, Ended)


async def test_a_key_is_not_carried_elsewhere(server: SmallServer) -> None:
    """A server that sends its clients to another one does not get them to show their keys there."""
    server.create(("a",))
    async with small_server() as first:
        first.refuse = (307, {"Location": f"ws://127.0.0.1:{server.port}/api/v1/stream/many?envelope_format=msgpack"})
        async with asyncio.timeout(20), subscribe(first.uri, "a", start=0, retry=QUICK) as events:
            await until(events, Live)
        assert "Authorization" in first.headers[0]
    assert server.headers
    assert not any("authorization" in name.lower() for headers in server.headers for name in headers)


async def test_a_stream_that_breaks_at_the_same_place_is_given_up(server: SmallServer) -> None:
    """Connections that bring nothing new do not count as success, however many there are."""
    server.create(("a",))
    server.append(("a",))
    retry = Retry(first_seconds=0.01, most_seconds=0.1, give_up_seconds=1.0)
    async with asyncio.timeout(20), subscribe(server.uri, "a", start=0, retry=retry) as events:
        await until(events, Live)

        async def close_all() -> None:
            while True:
                await asyncio.sleep(0.01)
                await server.close(1011, "poisoned")

        closing = asyncio.create_task(close_all(), name="closing")
        with pytest.raises(Unavailable, match="poisoned"):
            await until(events, Ended)
        closing.cancel()
    assert 5 < len(server.headers) < 60
