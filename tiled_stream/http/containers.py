"""Whole containers: their nested metadata as JSON, and the documents of a Bluesky run.

Both read the whole of what is below; what they gather is counted on the way, so that an answer beyond the limit is refused before
it is built. Turning rows into documents is work for a thread.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import orjson
from litestar import Request, get, post
from litestar.response.base import ASGIResponse

from ..domain.errors import Malformed, NotFound, TooLarge
from ..domain.search import Page, Search
from ..domain.slices import whole
from ..domain.structures import ArrayStructure
from ..nodes.repository import Located
from ..wire.arrays import plain_array
from ..wire.negotiate import BLUESKY_RUN, JSON_SEQ, choose
from ..wire.structures import data_source_to_wire
from .answers import data_answer, data_tag, not_modified
from .bluesky_documents import StreamContent, documents
from .params import Query, header, keys_of
from .services import Edge, edge_of

if TYPE_CHECKING:
    import numpy
    import pyarrow

__all__ = ["ROUTES", "children"]

Connection = Request[Any, Any, Any]

_PAGE = 300


@get("/container/full/{path:path}", opt={"scopes": ("read:data",)})
async def get_full(request: Connection) -> ASGIResponse:
    """A container with all that is below it; `field` chooses among its children."""
    query = Query(request.scope)
    return await _answer(request, query, query.all("field") or None)


@post("/container/full/{path:path}", opt={"scopes": ("read:data",)}, status_code=200)
async def post_full(request: Connection) -> ASGIResponse:
    """As GET, with the children in the body."""
    body = await request.body()
    try:
        fields = orjson.loads(body) if body else None
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}") from None
    if fields is not None and (not isinstance(fields, list) or not all(isinstance(f, str) for f in fields)):
        raise Malformed("The body must be a JSON list of names, or null.")
    return await _answer(request, Query(request.scope), fields)


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


async def _answer(request: Connection, query: Query, fields: list[str] | None) -> ASGIResponse:
    edge, scope = edge_of(request), request.scope
    at = await edge.browse.resolve(keys_of(request))
    if at.node.family != "container" or at.column is not None:
        raise NotFound(f"{'/'.join(at.path)!r} is not a container.")
    is_run = any(s.name == BLUESKY_RUN for s in at.node.specs)
    media_type = choose(BLUESKY_RUN if is_run else "container", query.get("format"), header(scope, b"accept"))
    budget = _Budget(edge.settings.response_bytesize_limit)
    if media_type == JSON_SEQ:
        streams = [await _stream(edge, s, budget) for s in await children(edge, at) if s.node.family == "container"]
        body = await asyncio.to_thread(_json_seq, at.node.metadata, streams)
    else:
        body = orjson.dumps(await _nested(edge, at, fields, budget))
    tag = data_tag((body,))
    return not_modified(scope, tag) or await data_answer(scope, body, media_type, tag, filename=query.get("filename"))


class _Budget:
    """How many bytes an answer may still grow by."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit

    def spend(self, size: int) -> None:
        """`TooLarge` if that is more than there is."""
        self._left -= size
        if self._left < 0:
            raise TooLarge(f"The answer would exceed {self._limit} bytes; ask for single fields or nodes.")


async def _nested(edge: Edge, at: Located, fields: list[str] | None, budget: _Budget) -> dict[str, Any]:
    metadata = orjson.dumps(at.node.metadata)
    budget.spend(len(metadata) + 100)
    contents: dict[str, Any] = {}
    if at.node.family == "container":
        for child in await children(edge, at):
            if fields is None or child.path[-1] in fields:
                contents[child.path[-1]] = await _nested(edge, child, None, budget)
    return {"contents": contents, "metadata": orjson.Fragment(metadata)}


class _Stream:
    """What is stored of one stream, as it was read."""

    def __init__(self, name: str, metadata: dict[str, Any]) -> None:
        self.name = name
        self.metadata = metadata
        self.tables: list[pyarrow.Table] = []
        self.arrays: dict[str, numpy.ndarray] = {}
        self.externals: dict[str, dict[str, Any]] = {}

    def content(self) -> StreamContent:
        """The same as plain values; slow for many rows."""
        from ..wire.table_columns import plain_column  # pyarrow, which a server without tables does not need

        columns: dict[str, list[Any]] = {}
        for table in self.tables:
            columns |= zip(table.schema.names, map(plain_column, table.columns), strict=True)
        arrays = {key: _rows(array) for key, array in self.arrays.items() if array.ndim}
        return StreamContent(self.name, self.metadata, columns, arrays, self.externals)


async def _stream(edge: Edge, at: Located, budget: _Budget) -> _Stream:
    stream = _Stream(at.path[-1], at.node.metadata)
    for child in await children(edge, at):
        node = child.node
        if node.data_sources and node.data_sources[0].management == "external":
            stream.externals[child.path[-1]] = data_source_to_wire(node.data_sources[0])
        elif node.family == "table":
            table = await edge.reader.table(child)
            budget.spend(table.nbytes)
            stream.tables.append(table)
        elif isinstance(node.structure, ArrayStructure):
            array = await edge.reader.array(child, node.structure, whole(node.structure.shape))
            budget.spend(array.nbytes)
            stream.arrays[child.path[-1]] = array
    return stream


def _json_seq(metadata: dict[str, Any], streams: list[_Stream]) -> bytes:
    """RFC 7464 framing. NaN stays NaN, as the clients read it."""
    encode = json.JSONEncoder(ensure_ascii=False).encode
    found = documents(metadata, [stream.content() for stream in streams])
    return b"".join(b"\x1e" + encode({"name": name, "doc": doc}).encode() + b"\n" for name, doc in found)


def _rows(array: numpy.ndarray) -> list[Any]:
    """One entry a row, of what JSON has words for; NaN stays."""
    rows: list[Any] = array.tolist() if array.dtype.kind in "biufU" else plain_array(array)
    return rows


ROUTES = [get_full, post_full]
