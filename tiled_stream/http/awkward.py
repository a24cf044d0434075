"""Awkward arrays: the buffers of a declared form, written whole, read whole or some of them."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from litestar import Request, get, post, put
from litestar.response.base import ASGIResponse

from ..domain.commands import WritePart
from ..domain.errors import Malformed, NotFound
from ..domain.structures import AwkwardStructure
from ..nodes.repository import Located
from ..wire.negotiate import choose
from ..wire.zipped import ZIP, check_zip_type, zipped
from .answers import data_answer, data_tag, not_modified, null
from .params import Query, header, keys_of
from .services import ack_of, edge_of

__all__ = ["ROUTES"]

Connection = Request[Any, Any, Any]


@get("/awkward/full/{path:path}", opt={"scopes": ("read:data",)})
async def get_full(request: Connection) -> ASGIResponse:
    """The whole array."""
    query = Query(request.scope)
    media_type = choose("awkward", query.get("format"), header(request.scope, b"accept"))
    return await _answer(request, None, media_type)


@get("/awkward/buffers/{path:path}", opt={"scopes": ("read:data",)})
async def get_buffers(request: Connection) -> ASGIResponse:
    """The buffers of those nodes of the form that `form_key` names."""
    return await _answer(request, Query(request.scope).all("form_key"), ZIP)


@post("/awkward/buffers/{path:path}", opt={"scopes": ("read:data",)}, status_code=200)
async def post_buffers(request: Connection) -> ASGIResponse:
    """As GET, with the keys in the body."""
    try:
        keys = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}") from None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Malformed("The body must be a JSON list of form keys.")
    return await _answer(request, keys, ZIP)


@put("/awkward/full/{path:path}", opt={"scopes": ("write:data",)}, status_code=200)
async def put_full(request: Connection) -> ASGIResponse:
    """Write all buffers."""
    edge, keys = edge_of(request), keys_of(request)
    check_zip_type(header(request.scope, b"content-type"))
    _structure(await edge.browse.resolve(keys))
    await edge.writer.submit(keys, WritePart(None, await request.body()), ack=ack_of(request.scope))
    return null()


async def _answer(request: Connection, form_keys: list[str] | None, media_type: str) -> ASGIResponse:
    edge = edge_of(request)
    at = await edge.browse.resolve(keys_of(request))
    structure = _structure(at)
    tag = data_tag((edge.log.epoch, at.node.id, at.head, form_keys, media_type))
    same = not_modified(request.scope, tag)
    if same is not None:
        return same
    buffers = await edge.reader.parts.awkward(at, structure, form_keys)
    body = await asyncio.to_thread(_encoded, structure, buffers, media_type)
    return await data_answer(request.scope, body, media_type, tag, filename=Query(request.scope).get("filename"))


def _structure(at: Located) -> AwkwardStructure:
    structure = at.node.structure
    if at.column is not None or not isinstance(structure, AwkwardStructure):
        raise NotFound(f"{'/'.join(at.path)!r} is no awkward array; this endpoint serves awkward arrays.")
    return structure


def _encoded(structure: AwkwardStructure, buffers: dict[str, bytes], media_type: str) -> bytes:
    if media_type == ZIP:
        return zipped(buffers)
    from ..wire.awkward import encode_awkward  # heavy, and few want it

    return encode_awkward(structure, buffers, media_type)


ROUTES = [get_full, get_buffers, post_buffers, put_full]
