"""Content codings: only where asked for, and only where worth it."""

from __future__ import annotations

import gzip
import random

import blosc2
import numpy
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.wire.compress import MINIMUM, compress

TEXT = b"the same again, " * 200
NOISE = random.Random(1).randbytes(300_000)


def test_round_trip() -> None:
    body, coding = compress(TEXT, "application/json", "gzip")
    assert coding == "gzip"
    assert gzip.decompress(body) == TEXT
    body, coding = compress(TEXT, "text/csv;header=absent", "gzip, deflate, br, zstd")
    assert coding == "zstd"
    assert zstandard.ZstdDecompressor().decompress(body) == TEXT


@pytest.mark.parametrize("accept", ["", "identity", "br", "*", "gzip;q=1.0", "xgzip"])
def test_only_codings_that_were_asked_for(accept: str) -> None:
    assert compress(TEXT, "application/json", accept) == (TEXT, None)


@pytest.mark.parametrize("media_type", ["application/x-parquet", "image/png", "application/zip"])
def test_types_that_are_dense_already(media_type: str) -> None:
    assert compress(TEXT, media_type, "gzip") == (TEXT, None)


def test_small_bodies_stay() -> None:
    small = b"a" * (MINIMUM - 1)
    assert compress(small, "application/json", "gzip") == (small, None)
    assert compress(small + b"a", "application/json", "gzip")[1] == "gzip"


@pytest.mark.parametrize("length", [2000, len(NOISE)])
def test_noise_stays(length: int) -> None:
    assert compress(NOISE[:length], "application/octet-stream", "zstd, gzip") == (NOISE[:length], None)


def test_a_large_body_that_shrinks_is_compressed() -> None:
    body, coding = compress(bytes(1 << 20), "application/octet-stream", "zstd")
    assert coding == "zstd"
    assert len(body) < 1000


def test_coding_a_tenth_away_is_not_enough() -> None:
    mixed = NOISE[:9_500] + bytes(500)
    assert compress(mixed, "application/octet-stream", "zstd") == (mixed, None)


NUMBERS = st.builds(
    lambda dtype, values: numpy.array(values).astype(dtype),
    st.sampled_from(["u1", "<u2", ">i4", "<i8", "<f8", "<c16", "S3", "U70"]),
    st.lists(st.integers(0, 200), min_size=MINIMUM, max_size=MINIMUM + 50),
)


@given(NUMBERS, st.sampled_from([None, 3, 8]))
def test_blosc2_gives_back_the_bytes(cells: numpy.ndarray, item: int | None) -> None:
    raw = cells.tobytes()
    body, coding = compress(raw, "application/octet-stream", "zstd, gzip, blosc2", item=item or cells.itemsize)
    if coding is None:
        assert body is raw
    else:
        assert coding == "blosc2"
        assert len(body) < 0.9 * len(raw)
        assert blosc2.get_cbuffer_sizes(body)[:2] == (len(raw), len(body))
        assert blosc2.decompress(body) == raw


def test_blosc2_is_for_numbers() -> None:
    accepted = "gzip, deflate, br, zstd, blosc2"
    steps = numpy.arange(4000, dtype="<i8").tobytes()
    for media_type, coding in (
        ("application/octet-stream", "blosc2"),
        ("application/vnd.apache.arrow.file", "blosc2"),
        ("text/csv", "zstd"),
        ("application/json", "zstd"),
    ):
        assert compress(steps, media_type, accepted)[1] == coding
    packed, _ = compress(steps, "application/octet-stream", accepted)
    plain, _ = compress(steps, "application/octet-stream", "zstd")
    assert len(packed) < len(plain) / 2
    assert compress(NOISE, "application/octet-stream", accepted) == (NOISE, None)
