"""Whole containers: their nested metadata as JSON, and the documents of a Bluesky run."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from litestar import Request, get, post
from litestar.response.base import ASGIResponse

from ..domain.errors import Malformed, NotFound
from ..domain.search import Page, Search
from ..domain.slices import whole
from ..domain.structures import ArrayStructure
from ..nodes.repository import Located
from ..wire.negotiate import BLUESKY_RUN, JSON_SEQ, choose
from ..wire.structures import data_source_to_wire
from .answers import data_answer, data_tag
from .bluesky_documents import Document, StreamContent, documents
from .params import Query, header, segments
from .services import Edge, edge_of

__all__ = ["ROUTES", "run_documents"]

Connection = Request[Any, Any, Any]

_PAGE = 300


@get("/container/full/{path:path}", opt={"scopes": ("read:data",)})
async def get_full(request: Connection, path: str) -> ASGIResponse:
    """A container with all that is below it; `field` chooses among its children."""
    query = Query(request.scope)
    return await _answer(edge_of(request), request, query, path, query.all("field") or None)


@post("/container/full/{path:path}", opt={"scopes": ("read:data",)}, status_code=200)
async def post_full(request: Connection, path: str) -> ASGIResponse:
    """As GET, with the children in the body."""
    body = await request.body()
    try:
        fields = orjson.loads(body) if body else None
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}") from None
    if fields is not None and (not isinstance(fields, list) or not all(isinstance(f, str) for f in fields)):
        raise Malformed("The body must be a JSON list of names, or null.")
    return await _answer(edge_of(request), request, Query(request.scope), path, fields)


async def run_documents(edge: Edge, at: Located) -> list[Document]:
    """The documents of the run at `at`."""
    streams = [await _stream(edge, stream) for stream in await children(edge, at) if stream.node.family == "container"]
    return await asyncio.to_thread(lambda: list(documents(at.node.metadata, streams)))


async def children(edge: Edge, at: Located) -> list[Located]:
    """All children of a container, in order of creation."""
    found: list[Located] = []
    page = Page(limit=_PAGE)
    while True:
        listing = await edge.browse.search(at, Search(), page)
        for hit in listing.hits:
            found.append(await edge.browse.resolve(hit.path))
        if listing.next_cursor is None:
            return found
        page = Page(limit=_PAGE, cursor=listing.next_cursor)


async def _answer(edge: Edge, request: Connection, query: Query, path: str, fields: list[str] | None) -> ASGIResponse:
    at = await edge.browse.resolve(segments(path))
    if at.node.family != "container" or at.column is not None:
        raise NotFound(f"{path!r} is not a container.")
    is_run = any(s.name == BLUESKY_RUN for s in at.node.specs)
    media_type = choose(BLUESKY_RUN if is_run else "container", query.get("format"), header(request.scope, b"accept"))
    if media_type == JSON_SEQ:
        lines = [_record(document) for document in await run_documents(edge, at)]
        body = b"".join(lines)
    else:
        body = orjson.dumps(await _nested(edge, at, fields))
    tag = data_tag((body,))
    return await data_answer(request.scope, body, media_type, tag, filename=query.get("filename"))


def _record(document: Document) -> bytes:
    """RFC 7464 framing. NaN stays NaN, as the clients read it."""
    import json

    name, doc = document
    return b"\x1e" + json.dumps({"name": name, "doc": doc}, ensure_ascii=False).encode() + b"\n"


async def _nested(edge: Edge, at: Located, fields: list[str] | None) -> dict[str, Any]:
    contents: dict[str, Any] = {}
    if at.node.family == "container":
        for child in await children(edge, at):
            if fields is None or child.path[-1] in fields:
                contents[child.path[-1]] = await _nested(edge, child, None)
    return {"contents": contents, "metadata": at.node.metadata}


async def _stream(edge: Edge, at: Located) -> StreamContent:
    columns: dict[str, list[Any]] = {}
    arrays: dict[str, list[Any]] = {}
    externals: dict[str, dict[str, Any]] = {}
    for child in await children(edge, at):
        source = child.node.data_sources[0] if child.node.data_sources else None
        if source is not None and source.management == "external":
            externals[child.path[-1]] = data_source_to_wire(source)
        elif child.node.family == "table":
            table = await edge.reader.table(child)
            columns |= dict(zip(table.schema.names, (c.to_pylist() for c in table.columns), strict=True))
        elif isinstance(child.node.structure, ArrayStructure):
            structure = child.node.structure
            array = await edge.reader.array(child, structure, whole(structure.shape))
            arrays[child.path[-1]] = array.tolist()
    return StreamContent(at.path[-1], at.node.metadata, columns, arrays, externals)


ROUTES = [get_full, post_full]
