"""Content codings of answers: blosc2, zstd and gzip, only where they are worth their CPU.

blosc2 is for numbers: bytes of the same weight are put together before they are packed, which makes them both smaller and quicker
to pack than zstd does. What is sent is a Blosc 1 buffer, which every blosc2 reads.
"""

from __future__ import annotations

import sys
import zlib

import numpy
import zstandard

__all__ = ["MINIMUM", "SAMPLE", "compress", "is_loaded", "is_worth_streaming"]

#: Smaller bodies stay as they are.
MINIMUM = 1000
#: Bytes from the beginning of what is large, by which is told whether a coding is worth it.
SAMPLE = 64 << 10
#: What fits into one buffer of Blosc.
_BLOSC_MOST = (1 << 31) - 1 - 16
_NUMBERS = {"application/octet-stream", "application/vnd.apache.arrow.file"}
_COMPRESSIBLE = {
    *_NUMBERS,
    "application/json",
    "application/json-seq",
    "application/x-msgpack",
    "text/csv",
    "text/plain",
    "text/html",
    "text/x-comma-separated-values",
}


def compress(body: bytes, media_type: str, accept_encoding: str, *, item: int = 8) -> tuple[bytes, str | None]:
    """The body to send and its coding. A coding is used only if it takes more than a tenth away.

    `accept_encoding` is compared token by token; weights and wildcards are not understood. Of a large body a sample is tried
    first, so that noise costs little. `item`: bytes of a number in it.
    """
    kind = media_type.split(";")[0]
    if len(body) < MINIMUM or kind not in _COMPRESSIBLE:
        return body, None
    coding = _coding(
        {token.strip() for token in accept_encoding.split(",")}, is_numbers=kind in _NUMBERS and len(body) <= _BLOSC_MOST
    )
    if coding is None:
        return body, None
    if len(body) > 2 * SAMPLE and len(_encoded(body[:SAMPLE], coding, item)) > 0.9 * SAMPLE:
        return body, None
    smaller = _encoded(body, coding, item)
    return (smaller, coding) if len(smaller) < 0.9 * len(body) else (body, None)


def is_loaded(accept_encoding: str) -> bool:
    """Whether nothing has to be imported first, which takes a moment."""
    return "blosc2" not in accept_encoding or "numcodecs.blosc" in sys.modules


def is_worth_streaming(sample: bytes, media_type: str, accept_encoding: str) -> bool:
    """Whether what begins with `sample` is worth sending in zstd, piece by piece, and the client takes it."""
    if len(sample) < MINIMUM or media_type not in _COMPRESSIBLE or "zstd" not in map(str.strip, accept_encoding.split(",")):
        return False
    return len(_zstd(sample)) < 0.9 * len(sample)


def _coding(accepted: set[str], *, is_numbers: bool) -> str | None:
    for coding in ("blosc2", "zstd", "gzip") if is_numbers else ("zstd", "gzip"):
        if coding in accepted:
            return coding
    return None


def _encoded(body: bytes, coding: str, item: int) -> bytes:
    if coding == "blosc2":
        return _blosc(body, item)
    return _zstd(body) if coding == "zstd" else _gzip(body)


def _blosc(body: bytes, item: int) -> bytes:
    # zarr brings it; few ask for it, so it is not loaded before.
    from numcodecs import blosc

    blosc.use_threads = False  # as many cores as requests, not more
    whole = len(body) % item == 0
    packed: bytes = blosc.compress(numpy.frombuffer(body, f"V{item if whole else 1}"), b"zstd", 1, blosc.SHUFFLE)
    return packed


def _zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(body)


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()
