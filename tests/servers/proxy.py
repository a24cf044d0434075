"""TCP in the middle: forwards to a server of this machine, until it is to swallow everything as a network that is gone does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

__all__ = ["Proxy", "proxied"]


class Proxy:
    """Both ends of a connection that is swallowed stay open and hear nothing."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._made = 0
        # Connections up to this number are swallowed; all, if `is_deaf`.
        self._swallowed = 0
        self.is_deaf = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen; the port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def swallow(self) -> None:
        """What goes through the connections that there are is lost from now on. New ones work."""
        self._swallowed = self._made

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._made += 1
        number = self._made
        ends, pumps = [writer], []
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            ends.append(server_writer)
            for name, source, target in (("server", reader, server_writer), ("client", server_reader, writer)):
                pumps.append(asyncio.create_task(self._pump(number, source, target), name=f"proxy: to the {name}"))
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            return  # to close both ends is all that can be done
        finally:
            for pump in pumps:
                pump.cancel()
            if pumps:
                await asyncio.wait(pumps)
            for end in ends:
                end.transport.abort()
            self._tasks.discard(task)

    async def _pump(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                data = await reader.read(65536)
            except OSError:
                data = b""
            if number <= self._swallowed or self.is_deaf:
                if not data:
                    await asyncio.Event().wait()  # the other end does not hear that this one has gone
                continue
            if not data:
                return
            writer.write(data)
            with contextlib.suppress(OSError):
                await writer.drain()


@contextlib.asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy in front of the server of `url`, and the URL that leads through it."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = Proxy(parts.hostname, parts.port)
    port = await proxy.start()
    place = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
    try:
        yield proxy, urlunsplit(parts._replace(netloc=place))
    finally:
        await proxy.close()
