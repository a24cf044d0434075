"""Content codings of answers: zstd and gzip, only where they are worth their CPU."""

from __future__ import annotations

import zlib

import zstandard

__all__ = ["SAMPLE", "compress", "is_worth_streaming"]

#: Smaller bodies stay as they are.
MINIMUM = 1000
#: Bytes from the beginning of what is large, by which is told whether a coding is worth it.
SAMPLE = 64 << 10
_COMPRESSIBLE = {
    "application/octet-stream",
    "application/vnd.apache.arrow.file",
    "application/json",
    "application/json-seq",
    "application/x-msgpack",
    "text/csv",
    "text/plain",
    "text/html",
    "text/x-comma-separated-values",
}


def compress(body: bytes, media_type: str, accept_encoding: str) -> tuple[bytes, str | None]:
    """The body to send and its coding. A coding is used only if it takes more than a tenth away.

    `accept_encoding` is compared token by token; weights and wildcards are not understood. Of a large body a sample is tried
    first, so that noise costs little.
    """
    if len(body) < MINIMUM or media_type.split(";")[0] not in _COMPRESSIBLE:
        return body, None
    tokens = {token.strip() for token in accept_encoding.split(",")}
    coding = "zstd" if "zstd" in tokens else "gzip" if "gzip" in tokens else None
    if coding is None:
        return body, None
    encode = _zstd if coding == "zstd" else _gzip
    if len(body) > 2 * SAMPLE and len(encode(body[:SAMPLE])) > 0.9 * SAMPLE:
        return body, None
    smaller = encode(body)
    return (smaller, coding) if len(smaller) < 0.9 * len(body) else (body, None)


def is_worth_streaming(sample: bytes, media_type: str, accept_encoding: str) -> bool:
    """Whether what begins with `sample` is worth sending in zstd, piece by piece, and the client takes it."""
    if len(sample) < MINIMUM or media_type not in _COMPRESSIBLE or "zstd" not in map(str.strip, accept_encoding.split(",")):
        return False
    return len(_zstd(sample)) < 0.9 * len(sample)


def _zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(body)


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()
