"""WebSockets as the conversation wants them: its words for what happens to a connection, and a logger that tells no headers."""

from __future__ import annotations

import logging
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from .faults import Lost, Rejected

__all__ = ["FAILURES", "OPTIONS", "failure_of"]

#: The library logs the headers of a handshake, keys included, for whoever turns debugging on for everything.
_SILENT = logging.Logger("tiled_stream.client.connection", logging.CRITICAL + 1)

#: Pings are not the library's: it would take a reader that takes its time for a dead line. Four messages are read ahead.
OPTIONS: dict[str, Any] = {"compression": None, "ping_interval": None, "max_queue": 4, "logger": _SILENT}

#: What a library call may raise that `failure_of` understands.
FAILURES = (WebSocketException, OSError, TimeoutError, EOFError)


def failure_of(error: BaseException) -> Lost | Rejected:
    """What a failed connection, handshake, or message means."""
    if isinstance(error, InvalidStatus):
        after = error.response.headers.get("Retry-After", "")
        return Rejected(error.response.status_code, bytes(error.response.body or b""), float(after) if after.isdigit() else None)
    if isinstance(error, ConnectionClosed):
        if error.rcvd is not None and error.rcvd_then_sent is not False:
            return Lost(error.rcvd.code, error.rcvd.reason)
        if error.sent is not None:
            return Lost(error.sent.code, error.sent.reason, is_ours=True)
        return Lost(1006, "the connection was torn")
    if isinstance(error, TimeoutError):
        return Lost(1006, "the server did not answer in time")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return Lost(1006, reason)
