"""Pre-flight requests: may a page of another origin ask? The framework answers simple requests; these it would let pass unasked.

https://fetch.spec.whatwg.org/#cors-preflight-fetch
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from .params import header

__all__ = ["is_preflight", "preflight"]

_METHODS = "DELETE, GET, OPTIONS, PATCH, POST, PUT"
_SECONDS = 600


def is_preflight(scope: Any) -> bool:
    """A browser that asks before it asks."""
    return (
        scope["method"] == "OPTIONS"
        and header(scope, b"origin") is not None
        and header(scope, b"access-control-request-method") is not None
    )


async def preflight(scope: Any, send: Any, origins: Sequence[str]) -> None:
    """200 for an origin that may, 400 for any other."""
    origin = header(scope, b"origin") or ""
    may = origin in origins or "*" in origins
    headers = [(b"content-type", b"application/json"), (b"vary", b"Origin")]
    body = b"{}"
    if may:
        wanted = header(scope, b"access-control-request-headers") or "authorization, content-type, x-csrf, x-tiled-ack"
        headers += [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-allow-methods", _METHODS.encode()),
            (b"access-control-allow-headers", wanted.encode("latin-1")),
            (b"access-control-max-age", str(_SECONDS).encode()),
        ]
    else:
        body = orjson.dumps(
            {"detail": "Pages of this origin may not use this server; the operator can add it to 'allow_origins'."}
        )
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": 200 if may else 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
