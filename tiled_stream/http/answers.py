"""Answers: JSON or msgpack by `Accept`, data by format, ETags, content codings. Built as raw ASGI responses, without models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

import msgspec
import orjson
from litestar.response.base import ASGIResponse

from ..wire.compress import MINIMUM, compress, is_loaded
from ..wire.negotiate import wants_msgpack
from .params import header

__all__ = ["BIG", "NULL", "answer", "attachment", "data_answer", "data_tag", "not_modified", "null"]

#: Work on more bytes than this is done in a thread.
BIG = 256 << 10

_msgpack = msgspec.msgpack.Encoder()
NULL = b"null"


def null() -> ASGIResponse:
    """The answer of most writes: the JSON literal `null`."""
    return ASGIResponse(body=NULL, media_type="application/json")


async def answer(scope: Any, content: Any, *, headers: dict[str, str] | None = None) -> ASGIResponse:
    """Metadata and listings, in JSON or msgpack, with an ETag by content."""
    if wants_msgpack(header(scope, b"accept")):
        body, media_type = _msgpack.encode(content), "application/x-msgpack"
    else:
        body, media_type = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS), "application/json"
    tag = blake2b(body, digest_size=16).hexdigest()
    return not_modified(scope, tag) or await _coded(scope, body, media_type, tag, headers or {})


async def data_answer(scope: Any, body: bytes, media_type: str, tag: str, *, filename: str | None, item: int = 8) -> ASGIResponse:
    """Data in the format that was chosen. `item`: bytes of a number, if they are numbers as they lie in memory."""
    headers = {"Content-Disposition": attachment(filename)} if filename else {}
    return await _coded(scope, body, media_type, tag, headers, item=item)


def data_tag(parts: Iterable[object]) -> str:
    """An ETag of data by what they are (node, position, what was asked for): known before anything is read."""
    return blake2b("\x00".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def not_modified(scope: Any, tag: str) -> ASGIResponse | None:
    """304 if the client has this already."""
    known = header(scope, b"if-none-match")
    if known is None or tag not in {t.strip().strip('"') for t in known.split(",")}:
        return None
    return ASGIResponse(body=b"", status_code=304, headers={"ETag": tag}, media_type="application/json")


async def _coded(scope: Any, body: bytes, media_type: str, tag: str, headers: dict[str, str], *, item: int = 8) -> ASGIResponse:
    headers["ETag"] = tag
    headers["Vary"] = "Origin"
    if len(body) >= MINIMUM:
        accepted = header(scope, b"accept-encoding") or ""
        if len(body) > BIG or not is_loaded(accepted):
            body, coding = await asyncio.to_thread(compress, body, media_type, accepted, item=item)
        else:
            body, coding = compress(body, media_type, accepted, item=item)
        if coding is not None:
            headers["Content-Encoding"] = coding
            headers["Vary"] = "Origin, Accept-Encoding"
    return ASGIResponse(body=body, media_type=media_type, headers=headers)


def attachment(filename: str) -> str:
    """`Content-Disposition` of RFC 6266: a name that is not plain ASCII is told twice, the second time as it is."""
    name = "".join(c for c in filename if c.isprintable() and c not in '"\\/')
    plain = f'attachment; filename="{name.encode("ascii", "replace").decode().replace("?", "_")}"'
    return plain if name.isascii() else f"{plain}; filename*=UTF-8''{quote(name)}"
