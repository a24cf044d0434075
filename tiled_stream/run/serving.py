"""One process that serves: hypercorn on uvloop, with a drain before it stops.

SIGTERM or SIGINT: every stream is closed with 1012, so that clients come back to another server or to the next life of this one;
then the persister finishes; then the process ends with 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config

from . import hypercorn_patches
from .assembly import Assembly, assembled
from .notify import told_to_systemd
from .settings import Settings, SettingsError

__all__ = ["Beside", "hypercorn_config", "listening_socket", "new_loop", "persist", "run", "serve"]

SECONDS = 1
KiB = 1024
MiB = 1024 * KiB

#: Connections that may wait to be accepted; subscribers that come back after a restart come in storms.
_BACKLOG = 2048


#: Around the time in which a server serves; gives the application that it serves.
Beside = Callable[[Assembly, asyncio.Event], contextlib.AbstractAsyncContextManager[Any]]


def run(settings: Settings, *, announce: Callable[[Assembly, int], None] | None = None, beside: Beside | None = None) -> None:
    """Serve until a signal; returns after the last byte is where it belongs."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_until_signal(settings, announce, beside))


def persist(settings: Settings, *, announce: Callable[[Assembly], None]) -> None:
    """Persist what others write, until a signal; listens to nobody."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_persisting(settings, announce))


async def serve(
    settings: Settings,
    sock: socket.socket,
    stop: asyncio.Event,
    ready: Callable[[Assembly], None],
    beside: Beside | None = None,
) -> None:
    """Serve on `sock` until `stop` is set. `beside` is entered before anybody is served."""
    hypercorn_patches.install()
    async with assembled(settings) as assembly, beside(assembly, stop) if beside else contextlib.nullcontext(assembly.app) as app:

        async def drained() -> None:
            await stop.wait()
            await assembly.drain()

        ready(assembly)
        async with told_to_systemd():
            await hypercorn_serve(
                hypercorn_patches.with_frames(app), hypercorn_config(sock), shutdown_trigger=drained, mode="asgi"
            )


def listening_socket(host: str, port: int, *, send_timeout_seconds: float) -> socket.socket:
    """A socket that takes connections from now on; they wait until somebody serves. `SettingsError` if the port is taken.

    What every connection inherits is set here: no delay for small messages, and `send_timeout_seconds`, after which the kernel
    gives up a client that acknowledges no bytes. The application cannot: a send to a client that reads nothing just waits.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(1000 * send_timeout_seconds)))
    try:
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise SettingsError(f"Cannot listen on {host}:{port} ({error.strerror}); choose another --port.") from error
    return sock


def hypercorn_config(sock: socket.socket | None = None) -> Config:
    """Settings of the server that this application was measured with; the reason stands beside each."""
    config = Config()
    if sock is not None:
        config.bind = [f"fd://{os.dup(sock.fileno())}"]  # hypercorn closes what it was given
    config.worker_class = "uvloop"  # with the plain loop an open socket can keep hypercorn from stopping
    config.graceful_timeout = 3 * SECONDS  # after our own drain
    config.shutdown_timeout = 30 * SECONDS
    config.websocket_ping_interval = 20 * SECONDS  # keeps proxies open
    config.read_timeout = 60 * SECONDS  # the only detector of dead peers; pings are answered
    config.keep_alive_timeout = 75 * SECONDS  # longer than a balancer's idle pool
    config.keep_alive_max_requests = 1_000_000  # producers write for hours over one connection
    config.backlog = _BACKLOG
    config.h11_max_incomplete_size = 128 * KiB  # filters put JSON into the query string
    config.websocket_max_message_size = 1 * MiB  # clients say little
    config.include_server_header = False
    config.accesslog = None  # the shell logs requests, without secrets
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


async def _until_signal(settings: Settings, announce: Callable[[Assembly, int], None] | None, beside: Beside | None) -> None:
    sock = listening_socket(settings.host, settings.port, send_timeout_seconds=settings.send_timeout_seconds)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def ready(assembly: Assembly) -> None:
        # What start-up made stays for good: later collections need not look at it, which took 60 ms each time.
        gc.collect()
        gc.freeze()
        if announce is not None:
            announce(assembly, sock.getsockname()[1])

    with sock:
        await serve(settings, sock, stop, ready, beside)


async def _persisting(settings: Settings, announce: Callable[[Assembly], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with assembled(settings) as assembly:
        announce(assembly)
        async with told_to_systemd():
            await stop.wait()


def new_loop() -> Any:
    """A uvloop, where there is one: faster, and hypercorn stops on it while sockets are open."""
    try:
        import uvloop
    except ImportError:  # not on this platform
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
