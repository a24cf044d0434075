"""`/custom/validate`: is a stored Bluesky run whole? Answered here, natively, for the clients that ask after a scan."""

from __future__ import annotations

from typing import Any

import orjson
from litestar import Request, get, post
from litestar.response.base import ASGIResponse

from ..domain.errors import Refused, Unsatisfiable
from ..nodes.repository import Located
from ..wire.negotiate import BLUESKY_RUN
from .children import children
from .params import Query, keys_of
from .services import Edge, edge_of

__all__ = ["ROUTES"]

Connection = Request[Any, Any, Any]

_SCOPES = ("read:data", "read:metadata", "write:metadata")


@get("/validate/{path:path}", opt={"scopes": _SCOPES})
async def get_validate(request: Connection) -> ASGIResponse:
    """Check a run."""
    return await _validate(request)


@post("/validate/{path:path}", opt={"scopes": _SCOPES}, status_code=200)
async def post_validate(request: Connection) -> ASGIResponse:
    """Check a run; a body with errors to ignore is accepted and has no effect, for nothing is raised here."""
    return await _validate(request)


async def _validate(request: Connection) -> ASGIResponse:
    edge = edge_of(request)
    query = Query(request.scope)
    query.flag("fix", False)
    read = query.flag("read", False)
    at = await edge.browse.resolve(keys_of(request))
    if not any(s.name == BLUESKY_RUN and (s.version or "").startswith("3.") for s in at.node.specs):
        raise Unsatisfiable(f"{'/'.join(at.path)!r} is not a {BLUESKY_RUN} of version 3; only those can be validated.")
    streams = [child for child in await children(edge, at) if child.node.family == "container"]
    notes = [note for stream in streams for note in await _notes(edge, stream, read=read)]
    return ASGIResponse(body=orjson.dumps({"valid": not notes, "notes": notes}), media_type="application/json")


async def _notes(edge: Edge, stream: Located, *, read: bool) -> list[str]:
    """What is wrong with a stream: tables and arrays whose rows do not agree, or that cannot be read.

    A writer that died leaves rows in one node that another has not; what files hold is not looked at.
    """
    notes: list[str] = []
    rows: dict[str, int] = {}
    for child in await children(edge, stream):
        name = "/".join(child.path[-2:])
        source = child.node.data_sources[0] if child.node.data_sources else None
        if not read or source is None or source.management == "external":
            continue
        try:
            if child.node.family == "table":
                rows[name] = (await edge.reader.table(child)).num_rows
            elif child.node.family == "array":
                structure = await edge.reader.array_structure(child)
                rows[name] = structure.shape[0] if structure.shape else 1
        except Refused as error:
            notes.append(f"{name}: {error}")
    if len(set(rows.values())) > 1:
        notes.append(f"{stream.path[-1]}: the numbers of rows differ: {rows}")
    return notes


ROUTES = [get_validate, post_validate]
