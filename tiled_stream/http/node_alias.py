"""The old endpoint `node/full`: what are now `table/full` and `container/full`, by the family of the node."""

from __future__ import annotations

from typing import Any

from litestar import Request, get, put
from litestar.response.base import ASGIResponse

from .containers import full_answer
from .params import Query, keys_of
from .services import edge_of
from .tables import columns_of, table_answer, write_table

__all__ = ["ROUTES"]

Connection = Request[Any, Any, Any]


@get(["/node/full", "/node/full/{path:path}"], opt={"scopes": ("read:data",)})
async def get_full(request: Connection) -> ASGIResponse:
    """A table or a container; `field` chooses columns or children."""
    query = Query(request.scope)
    at = await edge_of(request).browse.resolve(keys_of(request))
    if at.node.family == "container":
        return await full_answer(request, at, query.all("field") or None)
    return await table_answer(request, at, query, columns=columns_of(query))


@put("/node/full/{path:path}", opt={"scopes": ("write:data",)}, status_code=200)
async def put_full(request: Connection) -> ASGIResponse:
    """Replace all rows of a table."""
    return await write_table(request)


ROUTES = [get_full, put_full]
