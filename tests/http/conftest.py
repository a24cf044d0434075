"""A whole server without its sockets, a client of its requests, and one of its streams."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import unquote

import httpx
import msgspec
import numpy
import orjson
import pyarrow
import pytest

from tiled_stream.run.assembly import Assembly, assembled
from tiled_stream.run.settings import Settings
from tiled_stream.wire.tables import structure_of

KEY = "secret"
AUTH = {"Authorization": f"Apikey {KEY}"}


class Socket:
    """A client's end of one WebSocket, against the application itself. `block()`: read nothing from now on."""

    def __init__(self, app: Any, path: str, headers: dict[str, str], extensions: dict[str, Any]) -> None:
        place, _, query = path.partition("?")
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._may_send = asyncio.Event()
        self._may_send.set()
        #: Set once the server wanted to say something.
        self.spoken_to = asyncio.Event()
        self.scope = {
            "type": "websocket",
            "path": unquote(place),
            "query_string": query.encode(),
            "headers": [(b"host", b"server"), *((k.lower().encode(), v.encode()) for k, v in headers.items())],
            "scheme": "ws",
            "client": ("1.2.3.4", 5),
            "extensions": {"websocket.http.response": {}, **extensions},
        }
        self._to_app.put_nowait({"type": "websocket.connect"})
        self.task = asyncio.create_task(app(self.scope, self._to_app.get, self._take), name="socket")

    async def _take(self, message: dict[str, Any]) -> None:
        self.spoken_to.set()
        await self._may_send.wait()
        self._from_app.put_nowait(message)

    def block(self) -> None:
        """Read nothing from now on."""
        self._may_send.clear()

    async def message(self) -> dict[str, Any]:
        """The next thing that the server says."""
        async with asyncio.timeout(10):
            return await self._from_app.get()

    async def accepted(self) -> Socket:
        message = await self.message()
        assert message["type"] == "websocket.accept", message
        return self

    async def denied(self) -> tuple[int, str, dict[bytes, bytes]]:
        """Status, detail and headers of a refused handshake."""
        start, body = await self.message(), await self.message()
        assert start["type"] == "websocket.http.response.start", start
        return start["status"], orjson.loads(body["body"])["detail"], dict(start["headers"])

    async def update(self) -> dict[str, Any]:
        """The next message of the stream."""
        message = await self.message()
        assert message["type"] == "websocket.send", message
        if message.get("bytes") is not None:
            return msgspec.msgpack.decode(message["bytes"])
        return orjson.loads(message["text"])

    async def closed(self) -> tuple[int, str]:
        """Code and reason; anything else fails."""
        message = await self.message()
        assert message["type"] == "websocket.close", message
        self.leave()
        await self.finished()
        return message["code"], message["reason"]

    async def finished(self) -> None:
        async with asyncio.timeout(10):
            await self.task

    def say(self, **message: Any) -> None:
        self._to_app.put_nowait({"type": "websocket.receive", **message})

    def leave(self) -> None:
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1006})


class Server:
    """An assembled server and what tests do with it."""

    def __init__(self, assembly: Assembly, client: httpx.AsyncClient) -> None:
        self.assembly = assembly
        self.app = assembly.app
        self.client = client
        self.sockets: list[Socket] = []

    def socket(self, path: str, headers: dict[str, str] | None = None, **extensions: Any) -> Socket:
        """Connect to the stream of `path`, with the key if no other headers are given."""
        return self.socket_at(f"/single/{path}", headers, **extensions)

    def socket_at(self, place: str, headers: dict[str, str] | None = None, **extensions: Any) -> Socket:
        """Connect to a socket below `/stream`."""
        socket = Socket(self.app, f"/api/v1/stream{place}", AUTH if headers is None else headers, extensions)
        self.sockets.append(socket)
        return socket

    async def ok(self, method: str, path: str, **options: Any) -> Any:
        """A request that must succeed; its JSON."""
        response = await self.client.request(method, f"/api/v1{path}", **options)
        assert response.status_code == 200, (response.status_code, response.text)
        return orjson.loads(response.content)

    async def refused(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """A request that must be refused as clients understand it; its status and detail."""
        response = await self.client.request(method, f"/api/v1{path}", **options)
        assert 400 <= response.status_code < 500, (response.status_code, response.text)
        assert response.headers["content-type"] == "application/json"
        return response.status_code, orjson.loads(response.content)["detail"]

    async def create(self, path: str, family: str = "container", **fields: Any) -> Any:
        parent, _, key = path.rpartition("/")
        body = {"id": key, "structure_family": family, "metadata": {}, "specs": [], "data_sources": [], **fields}
        return await self.ok("POST", f"/metadata/{parent}", json=body)

    async def array(self, path: str, array: numpy.ndarray, chunks: Any = None, *, write: bool = True, **fields: Any) -> Any:
        source = {"structure_family": "array", "structure": array_structure(array, chunks), "management": "writable"}
        reply = await self.create(path, "array", data_sources=[source], **fields)
        if write:
            await self.ok("PUT", f"/array/full/{path}", content=array.tobytes())
        return reply

    async def table(self, path: str, table: pyarrow.Table, *, append: bool = True, **fields: Any) -> Any:
        source = {
            "structure_family": "table",
            "structure": table_structure(table.schema),
            "mimetype": "application/x-tiled-sql-table",
            "management": "writable",
        }
        reply = await self.create(path, "table", data_sources=[source], **fields)
        if append:
            await self.ok("PATCH", f"/table/partition/{path}?partition=0", content=arrow_file(table))
        return reply


def array_structure(array: numpy.ndarray, chunks: Any = None) -> dict[str, Any]:
    kind, size = array.dtype.kind, array.dtype.itemsize
    order = "not_applicable" if array.dtype.byteorder == "|" else "big" if array.dtype.byteorder == ">" else "little"
    return {
        "data_type": {"endianness": order, "kind": kind, "itemsize": size, "dt_units": None},
        "chunks": chunks or [[n] for n in array.shape],
        "shape": list(array.shape),
        "dims": None,
        "resizable": False,
    }


def table_structure(schema: pyarrow.Schema) -> dict[str, Any]:
    built = structure_of(schema)
    return {
        "arrow_schema": built.arrow_schema,
        "npartitions": 1,
        "columns": list(built.columns),
        "resizable": False,
    }


def arrow_file(table: pyarrow.Table) -> bytes:
    sink = io.BytesIO()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@contextlib.asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Server]:
    """A server with these settings."""
    chosen = {"temp": True, "api_key": KEY, "persist_linger_seconds": 0.01} | settings
    async with assembled(Settings(**chosen)) as assembly:
        transport = httpx.ASGITransport(app=assembly.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server", headers=AUTH) as client:
            server = Server(assembly, client)
            yield server
            for socket in server.sockets:
                socket.leave()
                await socket.finished()
            assert assembly.hub.subscribers() == 0


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


@pytest.fixture
def serve() -> Callable[..., contextlib.AbstractAsyncContextManager[Server]]:
    """For tests that need other settings."""
    return serving


@pytest.fixture
async def nobody(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A client without credentials."""
    transport = httpx.ASGITransport(app=server.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client
