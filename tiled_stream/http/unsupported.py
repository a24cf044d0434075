"""Parts of the protocol that this version does not have: they are refused with a sentence, not with a bare 404.

A client does not repeat a 4xx; a 5xx it would repeat ten times.
"""

from __future__ import annotations

from typing import Any

from litestar import Request, delete
from litestar.response.base import ASGIResponse

from ..domain.errors import NotSupported

__all__ = ["ROUTES"]


@delete("/asset/{path:path}", opt={"scopes": ("delete:node",)}, status_code=200, include_in_schema=False)
async def refuse_removal(request: Request[Any, Any, Any]) -> ASGIResponse:
    """405 with the reason."""
    raise NotSupported("Removing an asset from a node is not supported by this version of the server; delete the node.")


ROUTES = [refuse_removal]
