"""Ragged arrays: rows of nested lists. Read whole or by slice; write whole or by block; append."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from litestar import Request, get, patch, put
from litestar.response.base import ASGIResponse

from ..domain.commands import AppendPart, WritePart
from ..domain.errors import Malformed, NotFound
from ..domain.slices import parse_ints
from ..domain.structures import RaggedStructure
from ..wire.negotiate import choose
from ..wire.structures import structure_to_wire
from ..wire.zipped import check_zip_type
from .answers import data_answer, data_tag, not_modified, null
from .params import Query, header, keys_of
from .services import ack_of, edge_of

__all__ = ["ROUTES"]

Connection = Request[Any, Any, Any]


@get("/ragged/full/{path:path}", opt={"scopes": ("read:data",)})
async def get_full(request: Connection) -> ASGIResponse:
    """A ragged array, or a `slice` of it."""
    edge, query = edge_of(request), Query(request.scope)
    at = await edge.browse.resolve(keys_of(request))
    structure = await edge.reader.ragged_structure(at)
    media_type = choose("ragged", query.get("format"), header(request.scope, b"accept"))
    text = query.get("slice") or ""
    tag = data_tag((edge.log.epoch, at.node.id, at.head, at.column, text, media_type))
    same = not_modified(request.scope, tag)
    if same is not None:
        return same
    found = await edge.reader.ragged(at, structure, text)
    body = await asyncio.to_thread(_encoded, found, media_type)
    return await data_answer(request.scope, body, media_type, tag, filename=query.get("filename"))


@put("/ragged/full/{path:path}", opt={"scopes": ("write:data",)}, status_code=200)
async def put_full(request: Connection) -> ASGIResponse:
    """Write all rows."""
    return await _write(request, None)


@put("/ragged/block/{path:path}", opt={"scopes": ("write:data",)}, status_code=200)
async def put_block(request: Connection) -> ASGIResponse:
    """Write the rows of one chunk."""
    block = Query(request.scope).get("block")
    if not block:
        raise Malformed("Say which block: ?block=i.")
    return await _write(request, parse_ints(block))


@patch("/ragged/full/{path:path}", opt={"scopes": ("write:data",)}, status_code=200)
async def patch_full(request: Connection) -> ASGIResponse:
    """Append rows. Answers the structure afterwards."""
    edge, query = edge_of(request), Query(request.scope)
    check_zip_type(header(request.scope, b"content-type"))
    offset, shape = query.get("offset"), query.get("shape")
    if offset is None or not shape:
        raise Malformed("A patch needs 'offset' (rows before it) and 'shape' (its rows).")
    command = AppendPart(
        offset=parse_ints(offset),
        length=parse_ints(shape.split(",")[0])[0],
        body=await request.body(),
        extend=query.flag("extend", False),
        persist=query.flag("persist", True),
    )
    accepted = await edge.writer.submit(keys_of(request), command, ack=ack_of(request.scope))
    return ASGIResponse(body=orjson.dumps(structure_to_wire(accepted.structure)), media_type="application/json")


async def _write(request: Connection, block: tuple[int, ...] | None) -> ASGIResponse:
    edge = edge_of(request)
    check_zip_type(header(request.scope, b"content-type"))
    keys = keys_of(request)
    if not isinstance((await edge.browse.resolve(keys)).node.structure, RaggedStructure):
        raise NotFound(f"{'/'.join(keys)!r} is no ragged array; this endpoint writes ragged arrays.")
    command = WritePart(block, await request.body(), persist=Query(request.scope).flag("persist", True))
    await edge.writer.submit(keys, command, ack=ack_of(request.scope))
    return null()


def _encoded(found: Any, media_type: str) -> bytes:
    from ..wire.ragged import encode_ragged  # heavy, and few want it

    return encode_ragged(found, media_type)


ROUTES = [get_full, put_full, put_block, patch_full]
