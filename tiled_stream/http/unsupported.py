"""Parts of the protocol that this version does not have: they are refused with a sentence, not with a bare 404.

A client does not repeat a 4xx; a 5xx it would repeat ten times.
"""

from __future__ import annotations

from typing import Any

from litestar import HttpMethod, Request, route
from litestar.response.base import ASGIResponse

from ..domain.errors import NotSupported

__all__ = ["ROUTES"]

_ANY = [HttpMethod.GET, HttpMethod.POST, HttpMethod.PUT, HttpMethod.PATCH, HttpMethod.DELETE]
_WHAT = {
    "awkward": "Nodes of family 'awkward'",
    "ragged": "Nodes of family 'ragged'",
    "asset": "Reading registered files as they are, and removing them,",
    "node": "The old endpoint 'node' (use 'table/full' or 'container/full')",
}


@route(
    [f"/{name}/{{path:path}}" for name in _WHAT], http_method=_ANY, opt={"scopes": ("read:metadata",)}, include_in_schema=False
)
async def refuse(request: Request[Any, Any, Any]) -> ASGIResponse:
    """405 with the reason."""
    name = request.scope["path"].removeprefix("/api/v1/").split("/")[0]
    raise NotSupported(f"{_WHAT[name]} are not supported by this version of the server.")


ROUTES = [refuse]
