"""Data that exist already: registered, and told of when their files change."""

from __future__ import annotations

from typing import Any

from litestar import Request, post, put
from litestar.response.base import ASGIResponse

from ..wire.bodies import parse_data_source
from .answers import null
from .metadata import created
from .params import Query, keys_of
from .services import ack_of, edge_of

__all__ = ["ROUTES"]

Connection = Request[Any, Any, Any]


@post(["/register", "/register/{path:path}"], opt={"scopes": ("write:metadata", "create:node", "register")}, status_code=200)
async def post_register(request: Connection) -> ASGIResponse:
    """Create a node for data that exist already."""
    return await created(request, registered=True)


@put("/data_source/{path:path}", opt={"scopes": ("write:metadata", "register")}, status_code=200)
async def put_data_source(request: Connection) -> ASGIResponse:
    """Files of an external array changed: its structure and assets now, and which region is new."""
    query = Query(request.scope)
    command = parse_data_source(await request.body(), query.get("patch_shape"), query.get("patch_offset"))
    await edge_of(request).writer.submit(keys_of(request), command, ack=ack_of(request.scope))
    return null()


ROUTES = [post_register, put_data_source]
