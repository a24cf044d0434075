"""The application for an ASGI server that is started on its own: ``hypercorn tiled_stream.asgi:app``.

Settings come from the environment (``TILED_STREAM_*``), and from the file that ``TILED_CONFIG`` names. The server is put together
when its lifespan begins. What must stay true: before sockets are closed, streams are told to come back (1012), however the server
was told to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import Any

from .domain.errors import Unavailable
from .run import hypercorn_patches, logs
from .run.assembly import Assembly, assembled
from .run.config import settings_from_config
from .run.notify import limit_sends, told_to_systemd
from .run.settings import SettingsError, from_env

__all__ = ["Application", "app"]


class Application:
    """An ASGI application that becomes a server when its lifespan begins."""

    def __init__(self) -> None:
        self._app: Any = None
        self._draining: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Lifespan starts and stops it; the rest goes to the application within."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self._app is None:
            raise RuntimeError("The server was not started: it needs the ASGI lifespan.")
        else:
            await self._app(scope, receive, send)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        async with contextlib.AsyncExitStack() as stack:
            try:
                settings = settings_from_config(None, os.environ) if os.environ.get("TILED_CONFIG") else from_env(os.environ)
                if not settings.api_key and not settings.public and not settings.providers:
                    raise SettingsError("Nobody could use this server: set TILED_STREAM_API_KEY to a key of letters and digits.")
                logs.configure(level=settings.log_level, log_format=settings.log_format, access_log=settings.access_log)
                logging.getLogger("hypercorn").propagate = False  # it was started by itself and has handlers of its own
                assembly = await stack.enter_async_context(assembled(settings))
                limit_sends(settings.send_timeout_seconds)
            except (SettingsError, Unavailable) as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            if hypercorn_patches.install():
                self._app = hypercorn_patches.with_frames(assembly.app)
                stack.enter_context(hypercorn_patches.draining_first(assembly.drain))
            else:
                self._app = assembly.app
                self._drain_on_sigterm(assembly)
            await send({"type": "lifespan.startup.complete"})
            async with told_to_systemd():
                await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def _drain_on_sigterm(self, assembly: Assembly) -> None:
        """For a server we do not know: take SIGTERM from it, and stop it by SIGINT, which it understands just as well."""
        loop = asyncio.get_running_loop()

        async def drain() -> None:
            await assembly.drain()
            os.kill(os.getpid(), signal.SIGINT)

        def begin() -> None:
            self._draining = self._draining or loop.create_task(drain(), name="drain")

        loop.add_signal_handler(signal.SIGTERM, begin)


app = Application()
