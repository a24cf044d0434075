"""Parts of the protocol that this version does not have: they are refused with a sentence, not with a bare 404.

A client does not repeat a 4xx; a 5xx it would repeat ten times.
"""

from __future__ import annotations

from typing import Any

from litestar import HttpMethod, Request, delete, route
from litestar.response.base import ASGIResponse

from ..domain.errors import NotSupported

__all__ = ["ROUTES"]

_ANY = [HttpMethod.GET, HttpMethod.POST, HttpMethod.PUT, HttpMethod.PATCH, HttpMethod.DELETE]
_WHAT = {
    "node": "The old endpoint 'node' (use 'table/full' or 'container/full')",
}


@route(
    [f"/{name}/{{path:path}}" for name in _WHAT], http_method=_ANY, opt={"scopes": ("read:metadata",)}, include_in_schema=False
)
async def refuse(request: Request[Any, Any, Any]) -> ASGIResponse:
    """405 with the reason."""
    name = request.scope["path"].removeprefix("/api/v1/").split("/")[0]
    raise NotSupported(f"{_WHAT[name]} are not supported by this version of the server.")


@delete("/asset/{path:path}", opt={"scopes": ("delete:node",)}, status_code=200, include_in_schema=False)
async def refuse_removal(request: Request[Any, Any, Any]) -> ASGIResponse:
    """405 with the reason."""
    raise NotSupported("Removing an asset from a node is not supported by this version of the server; delete the node.")


ROUTES = [refuse, refuse_removal]
