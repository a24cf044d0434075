"""Arrays and columns of tables: read whole, by slice or by block; write, patch, extend."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
from litestar import Request, get, patch, put
from litestar.response.base import ASGIResponse

from ..domain.chunks import block_region, size
from ..domain.commands import PatchArray, WriteArray, WriteBlock, WritePart
from ..domain.dtypes import to_numpy
from ..domain.errors import Malformed, TooLarge
from ..domain.slices import Along, Selection, parse_ints, parse_selection, parse_shape
from ..domain.structures import ArrayStructure, SparseStructure
from ..nodes.repository import Located
from ..wire.arrays import check_body_type, encode_array
from ..wire.negotiate import PNG, TIFF, choose
from ..wire.structures import structure_to_wire
from ..wire.tables import ARROW_FILE, encode_table
from .answers import BIG, data_answer, data_tag, not_modified, null
from .params import Query, header, keys_of
from .services import Edge, ack_of, edge_of

__all__ = ["ROUTES"]

Connection = Request[Any, Any, Any]


@get("/array/full/{path:path}", opt={"scopes": ("read:data",)})
async def get_full(request: Connection) -> ASGIResponse:
    """An array, or a `slice` of it."""
    edge = edge_of(request)
    query = Query(request.scope)
    at = await edge.browse.resolve(keys_of(request))
    if isinstance(at.node.structure, SparseStructure):
        return await _sparse(edge, request, query, at, at.node.structure, None)
    structure = await edge.reader.array_structure(at)
    selection = parse_selection(query.get("slice") or "", structure.shape)
    return await _answer(edge, request, query, at, structure, selection)


@get("/array/block/{path:path}", opt={"scopes": ("read:data",)})
async def get_block(request: Connection) -> ASGIResponse:
    """One chunk of an array, or a `slice` of that chunk."""
    edge = edge_of(request)
    query = Query(request.scope)
    at = await edge.browse.resolve(keys_of(request))
    if isinstance(at.node.structure, SparseStructure):
        return await _sparse(edge, request, query, at, at.node.structure, _block(query))
    structure = await edge.reader.array_structure(at)
    offset, shape = block_region(structure.chunks, _block(query))
    inside = parse_selection(query.get("slice") or "", shape)
    axes = (Along(a.start + o, a.step, a.count, a.drop) for a, o in zip(inside.axes, offset, strict=True))
    return await _answer(edge, request, query, at, structure, Selection(tuple(axes)))


@put("/array/full/{path:path}", opt={"scopes": ("write:data",)}, status_code=200)
async def put_full(request: Connection) -> ASGIResponse:
    """Write a whole array: its C-order bytes."""
    edge = edge_of(request)
    persist = Query(request.scope).flag("persist", True)
    command: WriteArray | WritePart
    if _is_table(request):
        command = WritePart(None, await request.body(), persist=persist)
    else:
        check_body_type(header(request.scope, b"content-type"))
        command = WriteArray(await request.body(), persist=persist)
    await edge.writer.submit(keys_of(request), command, ack=ack_of(request.scope))
    return null()


@put("/array/block/{path:path}", opt={"scopes": ("write:data",)}, status_code=200)
async def put_block(request: Connection) -> ASGIResponse:
    """Write one chunk."""
    edge = edge_of(request)
    query = Query(request.scope)
    block, persist = _block(query), query.flag("persist", True)
    command: WriteBlock | WritePart
    if _is_table(request):
        command = WritePart(block, await request.body(), persist=persist)
    else:
        check_body_type(header(request.scope, b"content-type"))
        command = WriteBlock(block, await request.body(), persist=persist)
    await edge.writer.submit(keys_of(request), command, ack=ack_of(request.scope))
    return null()


@patch("/array/full/{path:path}", opt={"scopes": ("write:data",)}, status_code=200)
async def patch_full(request: Connection) -> ASGIResponse:
    """Write a region; with `extend` the array grows to hold it. Answers the structure afterwards."""
    edge = edge_of(request)
    check_body_type(header(request.scope, b"content-type"))
    query = Query(request.scope)
    offset, shape = query.get("offset"), query.get("shape")
    if offset is None or shape is None:
        raise Malformed("A patch needs 'offset' and 'shape'.")
    command = PatchArray(
        offset=parse_ints(offset),
        shape=parse_shape(shape),
        body=await request.body(),
        extend=query.flag("extend", False),
        persist=query.flag("persist", True),
    )
    accepted = await edge.writer.submit(keys_of(request), command, ack=ack_of(request.scope))
    return ASGIResponse(body=orjson.dumps(structure_to_wire(accepted.structure)), media_type="application/json")


async def _answer(
    edge: Edge, request: Connection, query: Query, at: Located, structure: ArrayStructure, selection: Selection
) -> ASGIResponse:
    _check_expected(query, selection)
    media_type = choose("array", query.get("format"), header(request.scope, b"accept"))
    cells = size(selection.shape)
    if cells * to_numpy(structure.data_type).itemsize > edge.settings.response_bytesize_limit:
        raise TooLarge(
            f"The answer would exceed {edge.settings.response_bytesize_limit} bytes; ask for less with ?slice= or by blocks."
        )
    now = time.time_ns() if at.node.data_sources[0].management == "external" else 0  # files change without a record
    tag = data_tag((edge.log.epoch, at.node.id, at.head, now, at.column, selection, media_type))
    same = not_modified(request.scope, tag)
    if same is not None:
        return same
    array = await edge.reader.array(at, structure, selection)
    is_quick = array.nbytes <= BIG and media_type not in (PNG, TIFF)
    body = encode_array(array, media_type) if is_quick else await asyncio.to_thread(encode_array, array, media_type)
    return await data_answer(request.scope, body, media_type, tag, filename=query.get("filename"), item=array.itemsize)


async def _sparse(
    edge: Edge, request: Connection, query: Query, at: Located, structure: SparseStructure, block: tuple[int, ...] | None
) -> ASGIResponse:
    """A sparse array as a table of what a slice holds; coordinates are those of the slice, or of the block."""
    offset, shape = block_region(structure.chunks, block) if block is not None else ((0,) * len(structure.shape), structure.shape)
    inside = parse_selection(query.get("slice") or "", shape)
    selection = Selection(tuple(Along(a.start + o, a.step, a.count, a.drop) for a, o in zip(inside.axes, offset, strict=True)))
    _check_expected(query, selection)
    media_type = choose("sparse", query.get("format"), header(request.scope, b"accept"))
    tag = data_tag((edge.log.epoch, at.node.id, at.head, selection, media_type))
    same = not_modified(request.scope, tag)
    if same is not None:
        return same
    table = await edge.reader.parts.sparse(at, structure, selection)
    body = await asyncio.to_thread(encode_table, table, media_type)
    return await data_answer(request.scope, body, media_type, tag, filename=query.get("filename"))


def _check_expected(query: Query, selection: Selection) -> None:
    expected = query.get("expected_shape")
    if expected is not None and parse_shape(expected) != selection.shape:
        raise Malformed(f"The selection has shape {selection.shape}, not the expected {expected}; reload the structure.")


def _is_table(request: Connection) -> bool:
    """Sparse arrays come as tables of coordinates and elements."""
    return (header(request.scope, b"content-type") or "").split(";")[0].strip().lower() == ARROW_FILE


def _block(query: Query) -> tuple[int, ...]:
    block = query.get("block")
    if block is None:
        raise Malformed("Say which block: ?block=i,j,… with one index an axis (empty for a scalar).")
    return parse_ints(block)


ROUTES = [get_full, get_block, put_full, put_block, patch_full]
