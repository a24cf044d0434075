"""The shell around the application: what every request gets, whatever route it takes.

Request id, timing, metrics, cookies for browsers; repeated slashes and the short forms of the API root. Pure ASGI, for it is
on every path.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from .access import CSRF_COOKIE, KEY_COOKIE
from .metrics import Metrics
from .params import API, Query, header

__all__ = ["Shell"]

logger = logging.getLogger("tiled_stream.access")

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

_SLASHES = re.compile(r"/{2,}")
_SHORT = {API, f"{API}/metadata", f"{API}/search"}


class Shell:
    """Wraps `app`; `metrics` may be None."""

    def __init__(self, app: ASGIApp, metrics: Metrics | None) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        scope["state"] = {**scope.get("state", {}), "request_id": secrets.token_hex(8)}
        if "//" in scope["path"]:
            scope["path"] = _SLASHES.sub("/", scope["path"])
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in _SHORT and scope["method"] == "GET":
            await _redirect(scope, send)
            return
        await _Exchange(self._app, self._metrics, scope, receive, send).run()


class _Exchange:
    """One request and its response."""

    __slots__ = ("_app", "_begin", "_metrics", "_receive", "_scope", "_send", "_size", "_status")

    def __init__(self, app: ASGIApp, metrics: Metrics | None, scope: Any, receive: Any, send: Any) -> None:
        self._app = app
        self._metrics = metrics
        self._scope = scope
        self._receive = receive
        self._send = send
        self._begin = time.perf_counter()
        self._status = 500
        self._size = 0

    async def run(self) -> None:
        await self._app(self._scope, self._receive, self._sent)
        seconds = time.perf_counter() - self._begin
        if self._metrics is not None:
            self._metrics.request(self._scope["method"], self._status, self._endpoint(), seconds, self._size)
        if logger.isEnabledFor(logging.INFO):
            self._log(seconds)

    async def _sent(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            milliseconds = 1e3 * (time.perf_counter() - self._begin)
            message["headers"] = [
                *message["headers"],
                (b"x-tiled-request-id", self._scope["state"]["request_id"].encode()),
                (b"server-timing", b"app;dur=%.1f" % milliseconds),
                *self._cookies(),
            ]
        elif message["type"] == "http.response.body":
            self._size += len(message.get("body", b""))
        await self._send(message)

    def _cookies(self) -> list[tuple[bytes, bytes]]:
        """A browser that brings the key in a link gets it as a cookie, and a token against forged requests."""
        if b"api_key=" not in self._scope["query_string"] or self._status == 401:
            return []
        key = Query(self._scope).get("api_key")
        if not key or not key.isalnum():
            return []
        cookies = [(b"set-cookie", f"{KEY_COOKIE}={key}; HttpOnly; Path=/; SameSite=lax".encode())]
        if CSRF_COOKIE not in (header(self._scope, b"cookie") or ""):
            token = secrets.token_urlsafe(32)
            cookies.append((b"set-cookie", f"{CSRF_COOKIE}={token}; HttpOnly; Path=/; SameSite=lax".encode()))
        return cookies

    def _endpoint(self) -> str:
        """The template of the route, never the path itself."""
        return str(self._scope.get("path_template") or "unknown")

    def _log(self, seconds: float) -> None:
        principal = self._scope["state"].get("principal")
        client = self._scope.get("client") or ("-", 0)
        # The path alone: a query string may hold the key.
        logger.info(
            '[%s] %s:%s (%s) - "%s %s" %d %.1f ms',
            self._scope["state"]["request_id"],
            client[0],
            client[1],
            principal.name if principal is not None else "unset",
            self._scope["method"],
            self._scope["path"],
            self._status,
            1e3 * seconds,
        )


async def _redirect(scope: Any, send: Any) -> None:
    query = scope["query_string"]
    target = (scope.get("root_path", "") + scope["path"]).encode() + b"/" + (b"?" + query if query else b"")
    await send({"type": "http.response.start", "status": 307, "headers": [(b"location", target), (b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
