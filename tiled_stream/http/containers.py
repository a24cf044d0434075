"""Whole containers: their nested metadata as JSON, the documents of a Bluesky run, or a file (`container_files.py`).

All read the whole of what is below; what they gather is counted on the way, so that an answer beyond the limit is refused before
it is built. Turning rows into documents is work for a thread.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import orjson
from litestar import Request, get, post
from litestar.response.base import ASGIResponse

from ..domain.errors import Malformed, NotFound
from ..domain.slices import whole
from ..domain.structures import ArrayStructure
from ..nodes.repository import Located
from ..wire.arrays import plain_array
from ..wire.negotiate import BLUESKY_RUN, XARRAY_DATASET, choose_kind
from ..wire.structures import data_source_to_wire
from .answers import data_answer, data_tag, not_modified
from .bluesky_documents import StreamContent, documents
from .children import Budget, children, chosen
from .container_files import FILES, file_answer
from .datasets import dataset_body
from .params import Query, header, keys_of
from .services import Edge, edge_of

if TYPE_CHECKING:
    import numpy
    import pyarrow

__all__ = ["ROUTES", "full_answer"]

Connection = Request[Any, Any, Any]


@get(["/container/full", "/container/full/{path:path}"], opt={"scopes": ("read:data",)})
async def get_full(request: Connection) -> ASGIResponse:
    """A container with all that is below it; `field` chooses among its children."""
    at = await edge_of(request).browse.resolve(keys_of(request))
    return await full_answer(request, at, Query(request.scope).all("field") or None)


@post(["/container/full", "/container/full/{path:path}"], opt={"scopes": ("read:data",)}, status_code=200)
async def post_full(request: Connection) -> ASGIResponse:
    """As GET, with the children in the body."""
    fields = await fields_of_body(request)
    return await full_answer(request, await edge_of(request).browse.resolve(keys_of(request)), fields)


async def fields_of_body(request: Connection) -> list[str] | None:
    """Names in the body of a request; None without any."""
    body = await request.body()
    try:
        fields = orjson.loads(body) if body else None
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}") from None
    if fields is not None and (not isinstance(fields, list) or not all(isinstance(f, str) for f in fields)):
        raise Malformed("The body must be a JSON list of names, or null.")
    return fields


async def full_answer(request: Connection, at: Located, fields: list[str] | None) -> ASGIResponse:
    """A whole container in the format that was asked for. `NotFound` if `at` is none."""
    edge, scope, query = edge_of(request), request.scope, Query(request.scope)
    if at.node.family != "container" or at.column is not None:
        raise NotFound(f"{'/'.join(at.path)!r} is not a container.")
    specs = [spec.name for spec in at.node.specs]
    kind, media_type = choose_kind("container", query.get("format"), header(scope, b"accept"), specs=specs)
    budget = Budget(edge.settings.response_bytesize_limit)
    if media_type in FILES:
        return await file_answer(edge, scope, at, await chosen(edge, at, fields), media_type, budget=budget, query=query)
    if kind == BLUESKY_RUN:
        streams = [await _stream(edge, s, budget) for s in await chosen(edge, at, fields) if s.node.family == "container"]
        body = await asyncio.to_thread(_json_seq, at.node.metadata, streams)
    elif kind == XARRAY_DATASET:
        body = await dataset_body(edge, await chosen(edge, at, fields), media_type, budget=budget)
    else:
        body = orjson.dumps(await _nested(edge, at, await chosen(edge, at, fields), budget))
    tag = data_tag((body,))
    return not_modified(scope, tag) or await data_answer(scope, body, media_type, tag, filename=query.get("filename"))


async def _nested(edge: Edge, at: Located, below: list[Located] | None, budget: Budget) -> dict[str, Any]:
    metadata = orjson.dumps(at.node.metadata)
    budget.spend(len(metadata) + 100)
    contents: dict[str, Any] = {}
    if at.node.family == "container":
        for child in await children(edge, at) if below is None else below:
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


async def _stream(edge: Edge, at: Located, budget: Budget) -> _Stream:
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
