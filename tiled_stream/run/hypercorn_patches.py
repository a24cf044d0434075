"""What hypercorn 0.18 does not offer, in one place, and only for that version.

- No permessage-deflate: it blocks the loop for milliseconds a frame and costs 100 kB a socket.
- Ready frames: a batch of WebSocket frames, encoded once for all subscribers, is written in one go (`http.stream.FRAMES`).
- Pings end with their socket: else they linger for an interval and hold up the stop.
- A bounded close: a client that reads nothing cannot keep its socket open.
- A drain before it stops (`draining_first`), for when hypercorn was started by itself: however it was told to stop.

With another version nothing is changed and everything still works, a little slower.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import version
from typing import Any

from ..http.stream import FRAMES

__all__ = ["PATCHED_VERSION", "draining_first", "install", "with_frames"]

PATCHED_VERSION = "0.18"

#: How long a closing socket may take to hand over its last bytes, in seconds.
CLOSE_SECONDS = 2.0


def install() -> bool:
    """Change hypercorn, once; False if this is not the version that was looked at."""
    if not version("hypercorn").startswith(PATCHED_VERSION + "."):
        return False
    from hypercorn.asyncio import tcp_server
    from hypercorn.protocol import ws_stream

    if getattr(ws_stream, "_tiled_stream", False):
        return True
    setattr(ws_stream, "_tiled_stream", True)  # noqa: B010
    setattr(ws_stream, "server_extensions_handshake", lambda requested, supported: None)  # noqa: B010
    _take_frames(ws_stream)
    _end_pings(ws_stream)
    _bound_close(tcp_server)
    return True


def with_frames(app: Any) -> Any:
    """The application, told that this server takes ready frames."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            scope["extensions"] = {**scope.get("extensions", {}), FRAMES: {}}
        await app(scope, receive, send)

    return wrapped


@contextlib.contextmanager
def draining_first(drain: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """While this is entered, a hypercorn that is to stop awaits `drain` before it closes anything. Enter before it listens."""
    from hypercorn.asyncio import run
    from hypercorn.utils import raise_shutdown

    async def drained(trigger: Callable[[], Awaitable[None]]) -> None:
        await trigger()
        await drain()
        await raise_shutdown(_at_once)

    setattr(run, "raise_shutdown", drained)  # noqa: B010
    try:
        yield
    finally:
        setattr(run, "raise_shutdown", raise_shutdown)  # noqa: B010


async def _at_once() -> None:
    return None


def _take_frames(ws_stream: Any) -> None:
    original = ws_stream.WSStream.app_send
    connected = ws_stream.ASGIWebsocketState.CONNECTED
    data = ws_stream.Data

    async def app_send(self: Any, message: Any) -> None:
        if message is None or "frames" not in message:
            await original(self, message)
        elif not self.closed and self.state == connected:
            if not hasattr(self, "_writer"):
                self._writer = _writer_of(self)
            writer = self._writer
            if writer is None:
                await self.send(data(stream_id=self.stream_id, data=message["frames"]))
            elif not writer.transport.is_closing():
                writer.write(message["frames"])
                with contextlib.suppress(ConnectionError):  # the reading side hears of it and closes
                    await writer.drain()

    ws_stream.WSStream.app_send = app_send


def _writer_of(stream: Any) -> asyncio.StreamWriter | None:
    """The writer below an HTTP/1.1 stream: whole frames need none of the layers between. None for anything else."""
    from hypercorn.asyncio.tcp_server import TCPServer
    from hypercorn.protocol.h11 import H11Protocol

    protocol = getattr(stream.send, "__self__", None)
    server = getattr(protocol.send, "__self__", None) if isinstance(protocol, H11Protocol) else None
    return server.writer if isinstance(server, TCPServer) else None


def _end_pings(ws_stream: Any) -> None:
    original = ws_stream.WSStream.handle
    ping, stream_closed = ws_stream.Ping, ws_stream.StreamClosed

    async def send_pings(self: Any) -> None:
        self._pinging = asyncio.current_task()
        try:
            while not self.closed:
                await self.context.sleep(self.config.websocket_ping_interval)
                await self._send_wsproto_event(ping())
        except asyncio.CancelledError:
            if not self.closed:
                raise

    async def handle(self: Any, event: Any) -> None:
        await original(self, event)
        pinging = getattr(self, "_pinging", None)
        if isinstance(event, stream_closed) and pinging is not None:
            pinging.cancel()

    ws_stream.WSStream._send_pings = send_pings
    ws_stream.WSStream.handle = handle


def _bound_close(tcp_server: Any) -> None:
    original = tcp_server.TCPServer._close

    async def close(self: Any) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await original(self)
        except TimeoutError:
            with contextlib.suppress(OSError, RuntimeError):
                self.writer.transport.abort()

    tcp_server.TCPServer._close = close
