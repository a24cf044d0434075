"""Data that exist already: registered, told of when their files change, and fetched as the files that they are.

A file is sent in pieces that are read off the loop. Ranges are those of RFC 9110: one range is answered by it, several by the
whole. What is sent is as long as the file was when it was opened; one that is cut meanwhile breaks the connection, so that nobody
takes a part for the whole. A whole file that shrinks by it is packed on the way, for clients that take zstd; a range is always of
the file itself.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from email.utils import formatdate
from mimetypes import guess_type
from typing import Any

import orjson
import zstandard
from litestar import Request, delete, get, post, put
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse

from ..domain.commands import DeleteAsset
from ..domain.errors import Forbidden, Malformed
from ..query.read_assets import OpenAsset
from ..wire.bodies import parse_create, parse_data_source, told_mimetypes
from ..wire.compress import SAMPLE, is_worth_streaming
from .answers import answer, data_tag, not_modified, null
from .metadata import created
from .params import Query, header, keys_of
from .services import Edge, ack_of, edge_of

__all__ = ["ROUTES"]

Connection = Request[Any, Any, Any]

#: Bytes that are read and sent at a time.
PIECE = 1 << 20
_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*\Z")


@post(["/register", "/register/{path:path}"], opt={"scopes": ("write:metadata", "create:node", "register")}, status_code=200)
async def post_register(request: Connection) -> ASGIResponse:
    """Create a node for data that exist already."""
    body = await request.body()
    for mimetype in told_mimetypes(body):
        await edge_of(request).reader.files.check(mimetype, ())
    for source in parse_create(body, True).data_sources:
        await edge_of(request).reader.files.check(source.mimetype, source.assets)
    return await created(request, registered=True)


@put("/data_source/{path:path}", opt={"scopes": ("write:metadata", "register")}, status_code=200)
async def put_data_source(request: Connection) -> ASGIResponse:
    """Files of an external array changed: its structure and assets now, and which region is new."""
    edge, query = edge_of(request), Query(request.scope)
    command = parse_data_source(await request.body(), query.get("patch_shape"), query.get("patch_offset"))
    await edge.reader.files.check(command.data_source.mimetype, command.data_source.assets)
    await edge.writer.submit(keys_of(request), command, ack=ack_of(request.scope))
    return null()


@get("/asset/bytes/{path:path}", opt={"scopes": ("read:data",)})
async def get_bytes(request: Connection) -> ASGIResponse:
    """A file of a node, or a `Range` of it; of a directory the file at `relative_path`."""
    edge, query = _exposing(request), Query(request.scope)
    asset = await edge.reader.asset(await edge.browse.resolve(keys_of(request)), _id(query))
    file = await edge.reader.files.assets.open(asset, query.get("relative_path"))
    try:
        response = await _answer(request.scope, file)
    except BaseException:
        await file.close()
        raise
    if not isinstance(response, _FileResponse):
        await file.close()
    return response


@get("/asset/manifest/{path:path}", opt={"scopes": ("read:data",)})
async def get_manifest(request: Connection) -> ASGIResponse:
    """The files of a directory, as `relative_path` of `asset/bytes` takes them."""
    edge = _exposing(request)
    asset = await edge.reader.asset(await edge.browse.resolve(keys_of(request)), _id(Query(request.scope)))
    return await answer(request.scope, {"manifest": await edge.reader.files.assets.manifest(asset)})


@delete("/asset/{path:path}", opt={"scopes": ("delete:node",)}, status_code=200)
async def delete_asset(request: Connection) -> ASGIResponse:
    """Take an asset from a node. Files of others stay; what this server keeps is deleted, if `external_only=false`."""
    edge, query = _exposing(request), Query(request.scope)
    keys = keys_of(request)
    at = await edge.browse.resolve(keys)
    is_ours = bool(at.node.data_sources) and at.node.data_sources[0].management != "external"
    command = DeleteAsset(_id(query), external_only=query.flag("external_only", True))
    # Nobody is told that data are gone while they are not.
    await edge.writer.submit(keys, command, ack="persisted" if is_ours else ack_of(request.scope))
    content = {"asset_deleted": True, "data_deleted": is_ours}
    return ASGIResponse(body=orjson.dumps(content), media_type="application/json")


class _FileResponse(ASGIStreamingResponse):
    """Some bytes of an open file, which is closed whatever happens. A client that leaves stops the reading."""

    def __init__(self, file: OpenAsset, start: int, count: int, *, headers: dict[str, str], status: int) -> None:
        disposition = f'attachment; filename="{_plain(file.name)}"'
        pieces = _pieces(file, start, count)
        super().__init__(
            iterator=_packed(pieces) if "Content-Encoding" in headers else pieces,
            headers=headers | {"Content-Disposition": disposition.encode().decode("latin-1")},
            media_type=_media_type(file),
            status_code=status,
        )
        self._file = file

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._file.close()


async def _answer(scope: Any, file: OpenAsset) -> ASGIResponse:
    tag = data_tag((file.name, file.size, file.modified))
    modified = formatdate(file.modified / 1e9, usegmt=True)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{tag}"',
        "Last-Modified": modified,
        "Vary": "Origin",
        "X-Content-Type-Options": "nosniff",
    }
    wanted = header(scope, b"range")
    condition = header(scope, b"if-range")
    if wanted is None or condition not in (None, f'"{tag}"', modified) or (part := _part(wanted, file.size)) is None:
        if wanted is None and await _is_packed(scope, file):
            # Another representation has another tag: a download that goes on by a range must not put the two together.
            tag = f"{tag}-zstd"
            headers |= {"ETag": f'"{tag}"', "Content-Encoding": "zstd", "Vary": "Origin, Accept-Encoding"}
        else:
            headers["Content-Length"] = str(file.size)
        return not_modified(scope, tag) or _FileResponse(file, 0, file.size, headers=headers, status=200)
    start, stop = part
    if start >= stop:
        unsatisfied = {"Content-Range": f"bytes */{file.size}"}
        body = orjson.dumps({"detail": f"The file has {file.size} bytes; the range {wanted!r} is not in it."})
        return ASGIResponse(body=body, status_code=416, media_type="application/json", headers=unsatisfied)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
    headers["Content-Length"] = str(stop - start)
    return _FileResponse(file, start, stop - start, headers=headers, status=206)


async def _is_packed(scope: Any, file: OpenAsset) -> bool:
    accepted = header(scope, b"accept-encoding") or ""
    if "zstd" not in accepted:
        return False
    sample = await file.read(0, min(file.size, SAMPLE))
    return await asyncio.to_thread(is_worth_streaming, sample, _media_type(file), accepted)


def _media_type(file: OpenAsset) -> str:
    return guess_type(file.name)[0] or "application/octet-stream"


def _part(wanted: str, size: int) -> tuple[int, int] | None:
    """Where one range begins and ends; empty if it lies outside. None for what is no single range: it does not count."""
    match = _RANGE.match(wanted)
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        return max(0, size - int(match[2])), size
    if match[2] != "" and int(match[2]) < int(match[1]):
        return None
    return int(match[1]), size if match[2] == "" else min(size, int(match[2]) + 1)


async def _packed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    async for piece in pieces:
        if packed := await asyncio.to_thread(packer.compress, piece):
            yield packed
    yield packer.flush()


async def _pieces(file: OpenAsset, start: int, count: int) -> AsyncIterator[bytes]:
    for begin in range(start, start + count, PIECE):
        yield await file.read(begin, min(PIECE, start + count - begin))


def _plain(name: str) -> str:
    """As clients take it out of the header: UTF-8, without what would end it."""
    return "".join(c for c in name if c.isprintable() and c not in '"\\')


def _exposing(request: Connection) -> Edge:
    edge = edge_of(request)
    if not edge.settings.expose_raw_assets:
        raise Forbidden("This server does not give out raw files (its setting 'expose_raw_assets' is false).")
    return edge


def _id(query: Query) -> int:
    id = query.integer("id", None)
    if id is None:
        raise Malformed("Say which asset: ?id=N, a number that metadata with include_data_sources=true tells.")
    return id


ROUTES = [post_register, put_data_source, get_bytes, get_manifest, delete_asset]
