"""The tree as Zarr hierarchies, `/zarr/v2` and `/zarr/v3`: for programs that read Zarr and know nothing of Tiled.

Containers and tables are groups, arrays and columns are arrays, however they are stored. A key of a store is the path of a node
with a name of Zarr behind it, so what a node is decides what the last segments mean. Read only, with the credentials of all else.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import quote

import orjson
from litestar import Request, get
from litestar.response.base import ASGIResponse

from ..domain.chunks import size
from ..domain.dtypes import to_numpy
from ..domain.errors import NotFound, NotSupported, TooLarge
from ..domain.search import Page, Search
from ..domain.structures import ArrayStructure, TableStructure
from ..nodes.repository import Located
from ..wire.zarr_http import chunk_selection, chunk_shape, encode_chunk, metadata_v2, metadata_v3
from .params import API, base_url, segments
from .services import Edge, edge_of

__all__ = ["ROUTES"]

Connection = Request[Any, Any, Any]

_SCOPES = {"scopes": ("read:metadata", "read:data")}
_CHUNK_V2 = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})*\Z")
_INDEX = re.compile(r"[0-9]{1,18}\Z")
_PAGE = 300
#: Children of a group that are listed, at most.
_MAX_CHILDREN = 10_000


class _Untyped(ASGIResponse):
    """Without a Content-Type: fsspec looks for links only in what calls itself HTML, or nothing at all."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", str(len(self.body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


@get(["/v2", "/v2/{path:path}"], opt=_SCOPES)
async def get_v2(request: Connection) -> ASGIResponse:
    """Metadata, chunks and listings of version 2."""
    edge, keys = edge_of(request), _keys(request)
    last = keys[-1] if keys else ""
    if last in (".zgroup", ".zattrs", ".zarray"):
        return await _metadata_v2(edge, keys[:-1], last)
    if _CHUNK_V2.match(last):
        parent = await _found(edge, keys[:-1])
        structure = None if parent is None else await _array(edge, parent)
        if parent is not None and structure is not None:
            index = tuple(map(int, last.split("."))) if structure.shape else ()
            return await _chunk(edge, parent, structure, index, version=2)
    return await _listing(edge, request, keys, "v2")


@get(["/v3", "/v3/{path:path}"], opt=_SCOPES)
async def get_v3(request: Connection) -> ASGIResponse:
    """Metadata, chunks and listings of version 3."""
    edge, keys = edge_of(request), _keys(request)
    if keys and keys[-1] == "zarr.json":
        return await _metadata_v3(edge, keys[:-1])
    place = next((n for n in range(len(keys) - 1, -1, -1) if not _INDEX.match(keys[n])), -1)
    if place >= 0 and keys[place] == "c":
        parent = await _found(edge, keys[:place])
        structure = None if parent is None else await _array(edge, parent)
        if parent is not None and structure is not None:
            return await _chunk(edge, parent, structure, tuple(map(int, keys[place + 1 :])), version=3)
    return await _listing(edge, request, keys, "v3")


async def _metadata_v2(edge: Edge, keys: tuple[str, ...], name: str) -> ASGIResponse:
    at = await edge.browse.resolve(keys)
    if name == ".zattrs":
        attributes = _metadata(at).get("attributes")
        return _json(attributes if isinstance(attributes, dict) else {})
    structure = await _array(edge, at)
    if structure is not None and name == ".zarray":
        return _json(metadata_v2(structure))
    if structure is None and name == ".zgroup" and _is_group(at):
        return _json({"zarr_format": 2})
    raise NotFound(f"{'/'.join(keys)!r} has no {name}.")


async def _metadata_v3(edge: Edge, keys: tuple[str, ...]) -> ASGIResponse:
    at = await edge.browse.resolve(keys)
    structure = await _array(edge, at)
    if structure is not None:
        return _json(metadata_v3(structure, _metadata(at)))
    if _is_group(at):
        return _json({"zarr_format": 3, "node_type": "group", "attributes": _metadata(at)})
    raise NotFound(f"{'/'.join(keys)!r} is neither a group nor an array for Zarr.")


async def _chunk(edge: Edge, at: Located, structure: ArrayStructure, index: tuple[int, ...], *, version: int) -> ASGIResponse:
    bytes_of_chunk = size(chunk_shape(structure)) * to_numpy(structure.data_type).itemsize
    if bytes_of_chunk > edge.settings.response_bytesize_limit:
        raise TooLarge(
            f"A chunk of this array has {bytes_of_chunk} bytes, more than {edge.settings.response_bytesize_limit}; read it "
            f"through {API}/array/full with ?slice=."
        )
    selection = chunk_selection(structure, index)
    cells = await edge.reader.array(at, structure, selection)
    body = await asyncio.to_thread(encode_chunk, cells, structure, version=version)
    return ASGIResponse(body=body, media_type="application/octet-stream")


async def _listing(edge: Edge, request: Connection, keys: tuple[str, ...], version: str) -> ASGIResponse:
    at = await edge.browse.resolve(keys)
    if await _array(edge, at) is not None:
        return _json({})
    if not _is_group(at):
        raise NotFound(f"{'/'.join(keys)!r} is neither a group nor an array for Zarr.")
    base = base_url(request.scope, edge.settings.root_path).removesuffix(API)
    found = [quote("/".join(("", "zarr", version, *keys, child))) for child in await _children(edge, at)]
    return _Untyped(body=orjson.dumps([base + path for path in found]))


async def _children(edge: Edge, at: Located) -> list[str]:
    structure = at.node.structure
    if isinstance(structure, TableStructure):
        return list(structure.columns)
    found: list[str] = []
    page = Page(limit=_PAGE)
    while len(found) < _MAX_CHILDREN:
        listing = await edge.browse.search(at, Search(), page)
        found += [hit.path[-1] for hit in listing.hits if hit.node.family in ("array", "container", "table")]
        if listing.next_cursor is not None:
            page = Page(limit=_PAGE, cursor=listing.next_cursor)
        elif listing.next_offset is not None:
            page = Page(limit=_PAGE, offset=listing.next_offset)
        else:
            break
    return found[:_MAX_CHILDREN]


async def _found(edge: Edge, keys: tuple[str, ...]) -> Located | None:
    try:
        return await edge.browse.resolve(keys)
    except NotFound:
        return None


async def _array(edge: Edge, at: Located) -> ArrayStructure | None:
    if at.column is None and at.node.family != "array":
        return None
    try:
        return await edge.reader.array_structure(at)
    except NotSupported:  # a column that is no array
        return None


def _is_group(at: Located) -> bool:
    return at.column is None and at.node.family in ("container", "table")


def _metadata(at: Located) -> dict[str, Any]:
    return {} if at.column is not None else at.node.metadata


def _keys(request: Connection) -> tuple[str, ...]:
    return segments(request.scope["path_params"].get("path", ""))


def _json(content: Any) -> ASGIResponse:
    return ASGIResponse(body=orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS), media_type="application/json")


ROUTES = [get_v2, get_v3]
