"""A small server of `/stream/many`, written after the words of the protocol and with nothing of the package: an oracle.

It keeps messages in lists. It can be told to cut all connections, to refuse handshakes, and to say what it was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

TIME = "2026-01-01T00:00:00.000000"
Path = tuple[str, ...]


class Node:
    def __init__(self, family: str) -> None:
        self.family = family
        self.records: list[dict[str, Any]] = []
        self.ended: str | None = None


class Subscribed:
    """One subscription of one connection."""

    def __init__(self, asked: dict[str, Any], root: Path) -> None:
        self.asked = asked
        self.root = root
        self.cursors: dict[Path, int] = {}
        self.numbers: dict[Path, int] = {}
        self.live: set[Path] = set()
        self.over: set[Path] = set()


class SmallServer:
    """`requests`: every object that a client sent. `refuse`: answer handshakes with this status and these headers."""

    def __init__(self) -> None:
        self.nodes: dict[Path, Node] = {(): Node("container")}
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.epoch = "first"
        self.refuse: tuple[int, dict[str, str]] | None = None
        self.port = 0
        self._connections: set[ServerConnection] = set()
        self._changed = asyncio.Event()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}?api_key=secret"

    def create(self, path: Path, family: str = "array") -> None:
        self.nodes[path] = Node(family)
        child = {"type": "container-child-created", "key": path[-1], "structure_family": family, "metadata": {}, "specs": []}
        self.append(path[:-1], **child)

    def append(self, path: Path, **message: Any) -> None:
        records = self.nodes[path].records
        plain = {"type": "array-data", "mimetype": "x", "shape": [1], "offset": None, "block": None, "payload": b"x"}
        records.append({**(message or plain), "sequence": len(records) + 1, "timestamp": TIME})
        self._tell()

    def end(self, path: Path) -> None:
        self.nodes[path].ended = "Producer ended stream"
        self._tell()

    def cut(self) -> None:
        """All connections, as a broken line does."""
        for connection in list(self._connections):
            connection.transport.abort()

    async def close(self, code: int, reason: str) -> None:
        """All connections, in words."""
        for connection in list(self._connections):
            await connection.close(code, reason)

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def check(self, _: ServerConnection, request: Request) -> Response | None:
        self.headers.append(dict(request.headers.raw_items()))
        if self.refuse is not None:
            status, headers = self.refuse
            body = b'{"detail":"not now"}'
            return Response(status, http.HTTPStatus(status).phrase, Headers({**headers, "Content-Length": str(len(body))}), body)
        if not request.path.startswith("/api/v1/stream/many"):
            return Response(404, "Not Found", Headers({"Content-Length": "0"}), b"")
        return None

    async def handle(self, connection: ServerConnection) -> None:
        subscribed: dict[int, Subscribed] = {}
        self._connections.add(connection)
        sender = asyncio.create_task(self._send(connection, subscribed), name="sender")
        try:
            async for message in connection:
                await self._hear(connection, subscribed, json.loads(message))
        except ConnectionClosed:
            return
        finally:
            sender.cancel()
            await asyncio.wait([sender])
            self._connections.discard(connection)

    async def _hear(self, connection: ServerConnection, subscribed: dict[int, Subscribed], asked: dict[str, Any]) -> None:
        self.requests.append(asked)
        number = asked.get("id", 0)
        if asked["type"] == "unsubscribe":
            subscribed.pop(number, None)
            await say(connection, number, 0, type="unsubscribed")
            return
        root = tuple(asked["path"])
        if root not in self.nodes:
            await say(connection, number, 0, type="error", status=404, detail=f"No such entry: {list(root)}")
            return
        one = Subscribed(asked, root)
        node = self.nodes[root]
        one.cursors[root] = self._after(one, root)
        shown = {"path": list(root), "structure_family": node.family, "epoch": self.epoch}
        await say(connection, number, 0, type="subscribed", head=len(node.records), **shown, **{"from": one.cursors[root] + 1})
        if asked.get("subtree"):
            for path in self.nodes:
                if path != root and path[: len(root)] == root:
                    one.cursors[path] = self._after(one, path)
        subscribed[number] = one
        self._tell()

    def _after(self, one: Subscribed, path: Path) -> int:
        cursor = one.asked.get("cursors", {}).get("/".join(path[len(one.root) :]))
        if cursor is not None:
            return int(cursor)
        start = one.asked["start"]
        return len(self.nodes[path].records) if start is None else max(start - 1, 0)

    async def _send(self, connection: ServerConnection, subscribed: dict[int, Subscribed]) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                changed = self._changed
                for number, one in list(subscribed.items()):
                    await self._send_one(connection, number, one)
                await changed.wait()

    async def _send_one(self, connection: ServerConnection, number: int, one: Subscribed) -> None:
        for path in list(self.nodes):
            is_below = one.asked.get("subtree") and path[: len(one.root)] == one.root
            if path != one.root and not is_below:
                continue
            node, first = self.nodes[path], path not in one.numbers
            at = one.numbers.setdefault(path, 0 if path == one.root else len(one.numbers) + (one.root not in one.numbers))
            if first and path != one.root:
                head = len(node.records)
                about = {"path": list(path), "key": path[-1], "structure_family": node.family, "head": head, "specs": []}
                await say(connection, number, at, type="node", metadata={}, structure=None, **about)
            if first:
                await say(connection, number, at, type=f"{node.family}-schema", version=1)
            after = one.cursors.setdefault(path, 0)
            for record in node.records[after:]:
                one.cursors[path] += 1
                await say(connection, number, at, **record)
            if path not in one.live:
                one.live.add(path)
                await say(connection, number, at, type="live")
            if node.ended and path not in one.over:
                one.over.add(path)
                await say(connection, number, at, type="ended", code=1000, reason=node.ended)


async def say(connection: ServerConnection, number: int, node: int, **message: Any) -> None:
    await connection.send(msgspec.msgpack.encode([number, node, message]))


@contextlib.asynccontextmanager
async def small_server(port: int = 0) -> AsyncIterator[SmallServer]:
    server = SmallServer()
    async with serve(server.handle, "127.0.0.1", port, process_request=server.check, compression=None) as listening:
        server.port = next(iter(listening.sockets)).getsockname()[1]
        yield server


@contextlib.contextmanager
def on_a_thread(prepare: Callable[[SmallServer], None]) -> Iterator[SmallServer]:
    """For programs that block."""
    ready = threading.Event()
    found: list[tuple[SmallServer, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        stop = asyncio.Event()
        async with small_server() as server:
            prepare(server)
            found.append((server, asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="small server")
    thread.start()
    assert ready.wait(10)
    server, loop, stop = found[0]
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
