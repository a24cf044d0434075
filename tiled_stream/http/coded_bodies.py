"""Request bodies with a `Content-Encoding`: decoded while they are read, so that no route knows of codings.

Nothing is decoded before a route asks for the body, hence never for a client that may not write. What is decoded comes out in
pieces of a bounded size: a body that grows a thousandfold meets the limit of bodies like any other, without taking its full size
in memory first. RFC 9110, 8.4 and 15.5.16.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import zstandard

from ..domain.errors import Malformed, UnsupportedType
from .params import header

__all__ = ["decoded"]

Receive = Callable[[], Awaitable[Any]]

#: Bytes that are decoded at a time.
PIECE = 1 << 20


def decoded(scope: Any, receive: Receive, *, limit: int) -> Receive:
    """`receive` of a body as it was before it was coded; `receive` itself where nothing is coded.

    `limit`: the largest body in bytes. One byte more is given, so that whoever counts notices; the rest is never decoded.
    """
    told = header(scope, b"content-encoding")
    codings = [c.strip().lower() for c in (told or "").split(",") if c.strip() not in ("", "identity")]
    if not codings:
        return receive
    # The length is that of the coded body.
    scope["headers"] = [(k, v) for k, v in scope["headers"] if k not in (b"content-encoding", b"content-length")]
    return _Decoder(receive, codings, limit).receive


class _Decoder:
    """Takes the whole coded body, then gives it piece by piece."""

    def __init__(self, receive: Receive, codings: list[str], limit: int) -> None:
        self._receive = receive
        self._codings = codings
        self._limit = limit
        self._pieces: Iterator[bytes] | None = None
        self._given = 0
        self._is_over = False

    async def receive(self) -> Any:
        """The next message."""
        if self._is_over:
            return await self._receive()  # a client that leaves
        if self._pieces is None:
            body = await self._whole()
            if body is None:
                return {"type": "http.disconnect"}
            self._pieces = _decode(body, self._codings)
        piece = await asyncio.to_thread(next, self._pieces, b"")
        self._given += len(piece)
        self._is_over = not piece or self._given > self._limit
        return {"type": "http.request", "body": piece, "more_body": not self._is_over}

    async def _whole(self) -> bytes | None:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limit or not message.get("more_body", False):
                return b"".join(parts)


def _decode(body: bytes, codings: list[str]) -> Iterator[bytes]:
    if len(codings) > 1:
        raise UnsupportedType(f"A body is coded once, not with {', '.join(codings)}.")
    coding = codings[0]
    if coding == "zstd":
        pieces = _zstd(body)
    elif coding in ("gzip", "x-gzip", "deflate"):
        pieces = _zlib(body, zlib.MAX_WBITS if coding == "deflate" else 16 + zlib.MAX_WBITS)
    else:
        raise UnsupportedType(f"Bodies are understood as they are or in gzip, deflate or zstd, not in {coding!r}.")
    return _checked(pieces, coding)


def _checked(pieces: Iterator[bytes], coding: str) -> Iterator[bytes]:
    try:
        yield from pieces
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise Malformed(f"The body is no {coding}, as its Content-Encoding says: {error}.") from None


def _zlib(body: bytes, window: int) -> Iterator[bytes]:
    decoder = zlib.decompressobj(window)
    rest = body
    while not decoder.eof:
        piece = decoder.decompress(rest, PIECE)
        rest = decoder.unconsumed_tail
        if piece:
            yield piece
        elif not rest and not decoder.eof:
            raise EOFError("it ends in the middle")
    if decoder.unused_data:
        raise EOFError("something stands behind its end")


def _zstd(body: bytes) -> Iterator[bytes]:
    # Not the library's reader: of a frame that ends early it tells nothing. A step of the coded body becomes 32 MB at most.
    decoder = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
    held = bytearray()
    for at in range(0, len(body), 1024):
        if decoder.eof:
            raise EOFError("something stands behind its end")
        held += decoder.decompress(body[at : at + 1024])
        while len(held) >= PIECE:
            yield bytes(held[:PIECE])
            del held[:PIECE]
    if not decoder.eof:
        raise EOFError("it ends in the middle")
    if decoder.unused_data:
        raise EOFError("something stands behind its end")
    if held:
        yield bytes(held)
