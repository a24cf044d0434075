"""The shell around the application: what every request gets, whatever route it takes.

Request id, timing, metrics, cookies for browsers; repeated slashes and the short forms of the API root. Sockets go straight to
their own application. Pure ASGI, for it is on every path.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..domain.errors import Unavailable
from .access import CSRF_COOKIE, KEY_COOKIE, Access
from .coded_bodies import decoded
from .cors import is_preflight, preflight
from .metrics import Metrics
from .params import API, Query, header

__all__ = ["Shell"]

logger = logging.getLogger("tiled_stream.access")

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

_SLASHES = re.compile(r"/{2,}")
_SHORT = {API, f"{API}/metadata", f"{API}/search"}


class Shell:
    """Wraps `app`, which answers requests, and `streams`, which has the sockets; `metrics` may be None."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        streams: ASGIApp,
        access: Access,
        metrics: Metrics | None,
        origins: Sequence[str] = (),
        body_limit: int = 1 << 30,
    ) -> None:
        self._app = app
        self._streams = streams
        self._origins = origins
        self._body_limit = body_limit
        self.access = access
        self.metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        scope["state"] = {**scope.get("state", {}), "request_id": secrets.token_hex(8)}
        _unmount(scope)
        if kind == "websocket":
            await self._streams(scope, receive, send)
            return
        path = scope["path"]
        if "//" in path:
            path = scope["path"] = _SLASHES.sub("/", path)
        if is_preflight(scope):
            await preflight(scope, send, self._origins)
            return
        if path in _SHORT and scope["method"] == "GET":
            await _redirect(scope, send)
            return
        await _Exchange(self, scope, decoded(scope, receive, limit=self._body_limit), send).run(self._app)


class _Exchange:
    """One request and its response."""

    __slots__ = ("_begin", "_receive", "_scope", "_send", "_shell", "_size", "_status")

    def __init__(self, shell: Shell, scope: Any, receive: Any, send: Any) -> None:
        self._shell = shell
        self._scope = scope
        self._receive = receive
        self._send = send
        self._begin = time.perf_counter()
        self._status = 500
        self._size = 0

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self._receive, self._sent)
        finally:
            seconds = time.perf_counter() - self._begin
            if self._shell.metrics is not None:
                # The template of the route, never the path itself.
                endpoint = self._scope.get("path_template") or "unknown"
                self._shell.metrics.request(self._scope["method"], self._status, endpoint, seconds, self._size)
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
                *(await self._cookies()),
            ]
        elif message["type"] == "http.response.body":
            self._size += len(message.get("body", b""))
        await self._send(message)

    async def _cookies(self) -> list[tuple[bytes, bytes]]:
        """A browser that brings the key in a link gets it as a cookie, and a token against forged requests.

        Only the right key: a wrong one would spoil what comes later. Scripts of our own pages must be able to read the token.
        """
        # Clients that log in show the token when they refresh or end a session.
        wants_token = self._shell.access.is_multi_user
        key = Query(self._scope).get("api_key") if b"api_key=" in self._scope["query_string"] else None
        is_right = bool(key) and await self._is_right(key or "")
        if not wants_token and not is_right:
            return []
        end = "Path=/; SameSite=lax" + ("; Secure" if _is_secure(self._scope) else "")
        cookies = [(b"set-cookie", f"{KEY_COOKIE}={key}; HttpOnly; {end}".encode())] if is_right else []
        if CSRF_COOKIE not in (header(self._scope, b"cookie") or ""):
            cookies.append((b"set-cookie", f"{CSRF_COOKIE}={secrets.token_urlsafe(32)}; {end}".encode()))
        return cookies

    async def _is_right(self, key: str) -> bool:
        try:
            return key.isascii() and key.isalnum() and await self._shell.access.knows(key)
        except Unavailable:  # who could not be asked cannot have said yes; the answer itself is under way already
            return False

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


def _unmount(scope: Any) -> None:
    """Below another application the path begins with where it stands; routes do not know of that, links must."""
    root = scope.get("root_path")
    if not root:
        return
    scope["state"]["mounted_at"] = root
    scope["root_path"] = ""
    if scope["path"].startswith(root + "/") or scope["path"] == root:
        scope["path"] = scope["path"][len(root) :] or "/"


def _is_secure(scope: Any) -> bool:
    return scope["scheme"] == "https" or (header(scope, b"x-forwarded-proto") or "").startswith("https")


async def _redirect(scope: Any, send: Any) -> None:
    """307 to the same with a slash at its end; relative, so that it holds behind any proxy."""
    query = scope["query_string"]
    target = scope["path"].rsplit("/", 1)[-1].encode() + b"/" + (b"?" + query if query else b"")
    await send({"type": "http.response.start", "status": 307, "headers": [(b"location", target), (b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
