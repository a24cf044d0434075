"""A server inside this process, on a thread of its own: for notebooks, tests and small laboratories.

What must stay true: what does not start is raised where it was made, and leaves nothing; after `close` neither thread nor socket
nor temporary directory is left (I9); a program that ends without closing its servers loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import tempfile
import threading
import weakref
from collections.abc import Sequence
from html import escape
from pathlib import Path
from types import TracebackType

from .assembly import Assembly
from .serving import listening_socket, new_loop, serve
from .settings import Settings

__all__ = ["SimpleTiledServer"]

_HOST = "127.0.0.1"
_START_SECONDS = 60.0


class SimpleTiledServer:
    """Starts when it is made; streaming included.

    `directory` keeps everything and can be opened again later; None: a temporary one that goes with `close`.
    `api_key`: letters and digits, random if None. `port` 0: any free one. `readable_storage`: directories, or one, whose files
    may be registered. `enable_webhooks`: messages of what happens may be sent anywhere, to this machine and over plain HTTP too;
    the key that encrypts their secrets, kept in the directory, is then `webhook_secret_key`. Raises `SettingsError` (a key or
    port that cannot be) or `Unavailable` (the directory is in use, or of a newer version). Use it as a context manager, or call
    `close`.
    """

    def __init__(
        self,
        directory: str | Path | None = None,
        api_key: str | None = None,
        port: int = 0,
        readable_storage: Sequence[str | Path] | str | Path | None = None,
        enable_webhooks: bool = False,
    ) -> None:
        self.api_key = api_key or secrets.token_hex(8)
        readable = (readable_storage,) if isinstance(readable_storage, str | Path) else readable_storage or ()
        with contextlib.ExitStack() as stack:  # undone in reverse order, by `close` or when something here fails
            if directory is None:
                directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="tiled-stream-"))
                log = "memory"
            else:
                log = "local"
            self.directory = Path(directory).absolute()
            #: None without webhooks.
            self.webhook_secret_key = _webhook_key(self.directory) if enable_webhooks else None
            settings = _settings(
                self.directory, log, api_key=self.api_key, port=port, readable=readable, webhook_key=self.webhook_secret_key
            )
            listening = listening_socket(_HOST, port, send_timeout_seconds=settings.send_timeout_seconds)
            stack.enter_context(listening)
            self.port: int = listening.getsockname()[1]
            running = _Running(settings, listening)
            stack.callback(running.stop)
            running.wait_until_started()
            self._left = stack.pop_all()
        self._is_closed = False
        _close_before_exit(self)

    @property
    def uri(self) -> str:
        """For `tiled.client.from_uri`; holds the key."""
        return f"http://{_HOST}:{self.port}/api/v1?api_key={self.api_key}"

    @property
    def web_ui_link(self) -> str:
        """For a browser; holds the key."""
        return f"http://{_HOST}:{self.port}?api_key={self.api_key}"

    def close(self) -> None:
        """Stop: streams are told, everything is persisted, the thread ends. Idempotent."""
        self._is_closed = True
        self._left.close()

    def __enter__(self) -> SimpleTiledServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"http://{_HOST}:{self.port}"
        return f"<{type(self).__name__} {state} in {self.directory}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        if self._is_closed:
            return escape(repr(self))
        link = f'<a href="{escape(self.web_ui_link)}" target="_blank">http://{_HOST}:{self.port}</a>'
        return f"Tiled server at {link}, data in <code>{escape(str(self.directory))}</code>"


class _Running:
    """The thread with its loop. What ends it too early is raised by `wait_until_started`, or by `stop`."""

    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        self._settings = settings
        self._listening = listening
        self._started = threading.Event()
        self._failure: BaseException | None = None
        # Set once the server serves; before that nothing can be told to stop.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name=f"tiled-stream:{listening.getsockname()[1]}", daemon=True)
        self._thread.start()

    def wait_until_started(self) -> None:
        if not self._started.wait(_START_SECONDS):
            raise TimeoutError(f"The server did not start within {_START_SECONDS:g} s.")
        self._raise_failure()

    def stop(self) -> None:
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # it ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
        if self._started.is_set():
            self._thread.join()
        self._raise_failure()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - a thread has no caller: it is raised where the server was made
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        stopping = asyncio.Event()

        def ready(_: Assembly) -> None:
            self._loop, self._stopping = asyncio.get_running_loop(), stopping
            self._started.set()

        await serve(self._settings, self._listening, stopping, ready)


def _webhook_key(directory: Path) -> str:
    """The one that is there, or a new one: what was registered must be of use when the directory is opened again."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "webhook.key"
    if not path.exists():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
    return path.read_text(encoding="ascii").strip()


def _settings(
    directory: Path, log: str, *, api_key: str, port: int, readable: Sequence[str | Path], webhook_key: str | None
) -> Settings:
    return Settings(
        catalog=str(directory / "catalog.db"),
        init=True,
        write=(str(directory / "data"), f"duckdb://{directory / 'storage.duckdb'}"),
        read=tuple(map(str, readable)),
        api_key=api_key,
        cache=log,
        port=port,
        webhook_secret_keys=(webhook_key,) if webhook_key else (),
        webhook_allow_http=webhook_key is not None,
        webhook_allow_private_addresses=webhook_key is not None,
    )


def _close_before_exit(server: SimpleTiledServer) -> None:
    """Close it when the program ends, if nobody did.

    Not by `atexit`: that comes after the interpreter has closed its thread pools, and then nothing can be persisted any more.
    """
    known = weakref.ref(server)

    def close() -> None:
        if (left := known()) is not None:
            left.close()

    threading._register_atexit(close)  # type: ignore[attr-defined]
