"""A server inside this process, on a thread of its own: for notebooks, tests and small laboratories."""

from __future__ import annotations

import asyncio
import atexit
import secrets
import socket
import tempfile
import threading
from collections.abc import Sequence
from html import escape
from pathlib import Path
from types import TracebackType

from .assembly import Assembly
from .serving import _new_loop, listening_socket, serve
from .settings import Settings

__all__ = ["SimpleTiledServer"]

_START_SECONDS = 60.0


class SimpleTiledServer:
    """Starts when it is made; streaming included.

    `directory` keeps everything and can be opened again later; None: a temporary one that goes with `close`.
    `api_key`: letters and digits, random if None. `port` 0: any free one. `readable_storage`: directories whose files may be
    registered. A failure to start is raised here. Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        directory: str | Path | None = None,
        api_key: str | None = None,
        port: int = 0,
        readable_storage: Sequence[str | Path] | None = None,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="tiled-stream-") if directory is None else None
        self.directory = Path(self._temporary.name if self._temporary is not None else directory or ".").absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.api_key = secrets.token_hex(8) if api_key is None else api_key
        self._settings = Settings(
            catalog=str(self.directory / "catalog.db"),
            init=True,
            write=(str(self.directory / "data"), f"duckdb://{self.directory / 'storage.duckdb'}"),
            read=tuple(str(p) for p in readable_storage or ()),
            api_key=self.api_key,
            cache="memory" if directory is None else "local",
            port=port,
        )
        self._socket = listening_socket("127.0.0.1", port)
        self.port: int = self._socket.getsockname()[1]
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"tiled-stream:{self.port}", daemon=True)
        self._thread.start()
        if not self._started.wait(_START_SECONDS):
            self._failure = TimeoutError(f"The server did not start within {_START_SECONDS:g} s.")
        if self._failure is not None:
            self.close()
            raise self._failure
        atexit.register(self.close)

    @property
    def uri(self) -> str:
        """For `tiled.client.from_uri`; holds the key."""
        return f"http://127.0.0.1:{self.port}/api/v1?api_key={self.api_key}"

    @property
    def web_ui_link(self) -> str:
        """For a browser; holds the key."""
        return f"http://127.0.0.1:{self.port}?api_key={self.api_key}"

    def close(self) -> None:
        """Stop: streams are told, everything is persisted, the thread ends. Idempotent."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._socket.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> SimpleTiledServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"http://127.0.0.1:{self.port}"
        return f"<{type(self).__name__} {state} in {self.directory}>"

    def _repr_html_(self) -> str:
        if self._closed:
            return escape(repr(self))
        link = f'<a href="{escape(self.web_ui_link)}" target="_blank">http://127.0.0.1:{self.port}</a>'
        return f"Tiled server at {link}, data in <code>{escape(str(self.directory))}</code>"

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(self._serve(self._socket))
        except BaseException as error:  # noqa: BLE001 - a thread has no caller: it is raised where the server was made
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()

        def ready(_: Assembly) -> None:
            self._loop.call_soon(self._started.set) if self._loop is not None else None

        await serve(self._settings, sock, self._stop, ready)
