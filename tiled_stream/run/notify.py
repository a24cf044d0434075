"""Telling systemd how the service is: ready, stopping, alive. Without `NOTIFY_SOCKET` nothing is told, and nothing is needed.

What must stay true: the watchdog is fed from the event loop, so that a loop that stalls is restarted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping

__all__ = ["notify", "told_to_systemd"]

logger = logging.getLogger(__name__)


def notify(state: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send a line such as ``READY=1``; False if nobody wants to hear it."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    # A name that begins with @ is in the abstract namespace.
    address = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect(address)
            sock.sendall(state.encode())
    except OSError as error:
        logger.warning("systemd could not be told %s: %s", state, error)
        return False
    return True


@contextlib.asynccontextmanager
async def told_to_systemd(environ: Mapping[str, str] = os.environ) -> AsyncIterator[None]:
    """Ready on entering, stopping on leaving; in between the watchdog is fed, if there is one, twice as often as it asks."""
    notify("READY=1", environ)
    seconds = _watchdog_seconds(environ)
    feeding = asyncio.create_task(_feed(seconds / 2, environ), name="watchdog") if seconds else None
    try:
        yield
    finally:
        notify("STOPPING=1", environ)
        if feeding is not None:
            feeding.cancel()
            await asyncio.wait([feeding])


async def _feed(seconds: float, environ: Mapping[str, str]) -> None:
    while True:
        notify("WATCHDOG=1", environ)
        await asyncio.sleep(seconds)


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """0: there is none, or it watches another process."""
    text, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not text.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(text) / 1e6
