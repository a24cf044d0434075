"""From what went wrong to what a client is told: ONE table, status and close code. Nothing else decides either.

The body of every error is ``{"detail": …}`` with the Content-Type exactly ``application/json``. An error nobody foresaw is logged
with the request's id and answered without its details.
"""

from __future__ import annotations

import errno
import logging
from typing import Any

import orjson
from litestar import Request, Response
from litestar.exceptions import HTTPException

from ..domain import errors
from .params import base_url

__all__ = ["FAULTS", "UNTOUCHED", "close_code_of", "error_headers", "error_response", "handlers", "status_of"]

logger = logging.getLogger(__name__)

#: Class → (HTTP status, WebSocket close code). The first class of an error's ancestry that stands here counts.
FAULTS: dict[type[errors.TiledStreamError], tuple[int, int]] = {
    errors.Malformed: (422, 4400),
    errors.Unsatisfiable: (400, 4400),
    errors.Gone: (404, 4404),
    errors.NotFound: (404, 4404),
    errors.Conflict: (409, 4409),
    errors.NotSupported: (405, 4405),
    errors.UnsupportedType: (415, 4415),
    errors.NotAcceptable: (406, 4406),
    errors.TooLarge: (400, 4400),
    errors.Unauthenticated: (401, 4003),
    errors.Forbidden: (403, 4003),
    errors.TooOften: (429, 1013),
    errors.Refused: (400, 4400),
    errors.InDoubt: (503, 1013),
    errors.BodyMissing: (503, 1013),
    errors.LeaseLost: (503, 1013),
    errors.StorageMissing: (503, 1013),
    errors.DataLost: (503, 1013),
    errors.Unavailable: (503, 1013),
    errors.Truncated: (503, 1013),
    errors.EpochChanged: (503, 1013),
    errors.LogError: (503, 1013),
    errors.TiledStreamError: (500, 1011),
}
#: What a route that must not be carried out twice says instead of 503 when nothing was done: stock clients repeat an append only
#: after a 429, for after a 503 of whatever stands between it might have been done.
UNTOUCHED = 429
#: They repeat it nine times, so that with this `Retry-After` at least 18 s are bridged.
_UNTOUCHED_SECONDS = 2.0
#: What a machine may refuse at any time.
_DISKS = {
    errno.ENOSPC: "because a disk of the server is full",
    errno.EDQUOT: "because a disk quota of the server is used up",
    errno.EROFS: "because a file system of the server is read-only",
    errno.EIO: "because a disk of the server fails",
    errno.ENOMEM: "because the server has no memory left",
    errno.EMFILE: "because the server has too many files open",
    errno.ENFILE: "because the server has too many files open",
}


def status_of(error: errors.TiledStreamError) -> int:
    """HTTP status of an error."""
    return _row(error)[0]


def close_code_of(error: errors.TiledStreamError) -> int:
    """Close code of an error that ends a stream."""
    return _row(error)[1]


def error_headers(error: errors.TiledStreamError) -> dict[str, str]:
    """What a client needs beside the sentence."""
    if isinstance(error, errors.Unauthenticated):
        scopes = f' scope="{" ".join(error.scopes)}"' if error.scopes else ""
        return {"WWW-Authenticate": f"Bearer{scopes}"}
    if isinstance(error, errors.Unavailable | errors.TooOften):
        return {"Retry-After": str(max(1, round(error.retry_after)))}
    return {}


def error_response(status: int, detail: Any, headers: dict[str, str] | None = None) -> Response[bytes]:
    """The answer to a request that failed."""
    return Response(orjson.dumps({"detail": detail}), status_code=status, media_type="application/json", headers=headers or {})


def handlers() -> dict[int | type[Exception], Any]:
    """Exception handlers of the application."""
    return {errors.TiledStreamError: _foreseen, HTTPException: _framework, Exception: _unforeseen}


def _row(error: errors.TiledStreamError) -> tuple[int, int]:
    return next(FAULTS[kind] for kind in type(error).__mro__ if kind in FAULTS)


def _foreseen(request: Request[Any, Any, Any], error: errors.TiledStreamError) -> Response[bytes]:
    headers = error_headers(error)
    if isinstance(error, errors.Unauthenticated):
        headers["X-Tiled-Root"] = base_url(request.scope, request.app.state["edge"].settings.root_path)
    route = request.scope.get("route_handler")
    is_once = route is not None and route.opt.get("once", False)
    if is_once and isinstance(error, errors.Unavailable) and not isinstance(error, errors.InDoubt):
        headers["Retry-After"] = str(round(max(_UNTOUCHED_SECONDS, error.retry_after)))
        return error_response(UNTOUCHED, str(error), headers)
    return error_response(status_of(error), str(error), headers)


def _framework(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    return error_response(error.status_code, error.detail, error.headers)


def _unforeseen(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    request_id = request.scope["state"].get("request_id", "?")
    sentence = _DISKS.get(error.errno or 0) if isinstance(error, OSError) else None
    if sentence is not None:  # of the machine, not of this code: no traceback, and worth another try
        place = f": {error.filename}" if isinstance(error, OSError) and error.filename else ""
        logger.error("Request failed, %s%s", sentence, place)
        return _foreseen(request, errors.InDoubt(f"This could not be finished, {sentence}; it may have been done in part."))
    logger.error("Request %s failed: %s %s", request_id, request.method, request.scope["path"], exc_info=error)
    return error_response(500, f"Internal server error; the log tells more under request {request_id}.")
