"""Request bodies with a `Content-Encoding` mean what they mean without; what is none, or grows too far, is refused."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import numpy
import orjson
import pytest
import zstandard

BODY = orjson.dumps(
    {"id": "c", "structure_family": "container", "metadata": {"text": "x" * 3000}, "specs": [], "data_sources": []}
)
CODED = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstandard.ZstdCompressor().compress}


async def post(server: Any, content: bytes, coding: str) -> Any:
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    return await server.client.post("/api/v1/metadata/", content=content, headers=headers)


@pytest.mark.parametrize("coding", CODED)
async def test_a_coded_body_means_what_it_means_plain(server: Any, coding: str) -> None:
    response = await post(server, CODED[coding](BODY), coding)
    assert response.status_code == 200, response.text
    node = await server.ok("GET", "/metadata/c")
    assert node["data"]["attributes"]["metadata"] == {"text": "x" * 3000}


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_large_data(server: Any, coding: str) -> None:
    array = numpy.random.default_rng(1).integers(0, 7, (3 << 20) // 8)
    await server.array("a", array, write=False)
    content = CODED[coding](array.tobytes())
    headers = {"Content-Encoding": coding, "Content-Type": "application/octet-stream"}
    await server.ok("PUT", "/array/full/a", content=content, headers=headers)
    response = await server.client.get("/api/v1/array/full/a?format=application/octet-stream")
    assert numpy.array_equal(numpy.frombuffer(response.content, array.dtype), array)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b + b"more", lambda b: b"no" + b, lambda b: b""])
async def test_what_is_not_coded_so_is_refused(server: Any, coding: str, spoil: Any) -> None:
    response = await post(server, spoil(CODED[coding](BODY)), coding)
    assert (response.status_code, coding in response.text) == (422, True)
    assert (await server.client.get("/api/v1/metadata/c")).status_code == 404


@pytest.mark.parametrize("coding", ["br", "blosc2", "gzip, gzip"])
async def test_codings_that_are_not_known(server: Any, coding: str) -> None:
    response = await post(server, BODY, coding)
    assert response.status_code == 415
    assert response.json()["detail"]
    assert (await server.client.get("/api/v1/metadata/c")).status_code == 404


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_a_body_that_grows_beyond_the_limit(serve: Any, coding: str) -> None:
    async with serve(request_bytesize_limit=1 << 20) as server:
        small = CODED[coding](bytes(64 << 20))
        assert len(small) < 1 << 20
        response = await post(server, small, coding)
        assert response.status_code == 413
        assert (await post(server, CODED[coding](BODY), coding)).status_code == 200


async def test_nothing_is_decoded_for_those_who_may_not_write(server: Any) -> None:
    headers = {"Content-Encoding": "gzip", "Authorization": "Apikey wrong"}
    response = await server.client.post("/api/v1/metadata/", content=b"no gzip at all", headers=headers)
    assert response.status_code == 401
