"""The application for an ASGI server that is started on its own: ``hypercorn -w 0 tiled_stream.asgi:app``.

Settings come from the environment (``TILED_STREAM_*``). The server is put together at start-up. SIGTERM drains first: streams
are closed with 1012, then the server is told to stop.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from .run import hypercorn_patches
from .run.assembly import Assembly, assembled
from .run.settings import SettingsError, from_env

__all__ = ["Application", "app"]


class Application:
    """An ASGI application that becomes a server when its lifespan begins."""

    def __init__(self) -> None:
        self._app: Any = None
        self._draining: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self._app is None:
            raise RuntimeError("The server was not started: it needs the ASGI lifespan.")
        else:
            await self._app(scope, receive, send)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        try:
            settings = from_env(os.environ).with_key()
        except SettingsError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        patched = hypercorn_patches.install()
        async with assembled(settings) as assembly:
            self._app = hypercorn_patches.with_frames(assembly.app) if patched else assembly.app
            self._listen(assembly)
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def _listen(self, assembly: Assembly) -> None:
        """Put the drain before the server's own stop, which SIGINT asks for just as well."""
        loop = asyncio.get_running_loop()

        async def drain() -> None:
            await assembly.drain()
            os.kill(os.getpid(), signal.SIGINT)

        def begin() -> None:
            self._draining = self._draining or loop.create_task(drain(), name="drain")

        loop.add_signal_handler(signal.SIGTERM, begin)


app = Application()
