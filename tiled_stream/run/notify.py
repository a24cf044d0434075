"""What passes between systemd and this process: how the service is (ready, stopping, alive), and sockets that were opened for it.

Without `NOTIFY_SOCKET` nothing is told, and nothing is needed. What must stay true: the watchdog is fed from the event loop, so
that a loop that stalls is restarted. The protocols are those of sd_notify(3) and sd_listen_fds(3).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping

__all__ = ["limit_sends", "notify", "told_to_systemd"]

logger = logging.getLogger(__name__)

#: Sockets that were opened for this process begin here.
_FIRST_FD = 3


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


def limit_sends(seconds: float, environ: Mapping[str, str] = os.environ) -> int:
    """Let the kernel give up clients that acknowledge no bytes for so long, on sockets that systemd opened. How many there are.

    Connections inherit it. A `.socket` unit has no directive for it, and the application cannot do it: a send to a client that
    reads nothing just waits.
    """
    count, pid = environ.get("LISTEN_FDS", ""), environ.get("LISTEN_PID", "")
    if not count.isdecimal() or pid != str(os.getpid()) or not hasattr(socket, "TCP_USER_TIMEOUT"):
        return 0
    for fd in range(_FIRST_FD, _FIRST_FD + int(count)):
        with socket.socket(fileno=os.dup(fd)) as sock:
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(1000 * seconds)))
    return int(count)
