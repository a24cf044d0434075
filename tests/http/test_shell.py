"""What every answer has, whatever route it took."""

from __future__ import annotations

import gzip
import logging
from typing import Any

import httpx
import msgspec
import numpy
import pytest
import zstandard


async def test_every_answer_has_an_id_and_its_time(server: Any) -> None:
    ids = set()
    for path in ("/healthz", "/api/v1/", "/api/v1/metadata/no", "/nowhere"):
        response = await server.client.get(path)
        ids.add(response.headers["x-tiled-request-id"])
        assert response.headers["server-timing"].startswith("app;dur=")
    assert len(ids) == 4
    assert all(len(i) == 16 for i in ids)


async def test_requests_are_counted_by_route_never_by_node(server: Any) -> None:
    await server.create("secretname")
    await server.ok("GET", "/metadata/secretname")
    await server.refused("GET", "/metadata/othername")
    text = (await server.client.get("/api/v1/metrics")).text
    assert 'tiled_request_duration_seconds_count{code="200",endpoint="/api/v1/metadata/{path}",method="GET"} 1.0' in text
    assert 'tiled_request_duration_seconds_count{code="404",endpoint="/api/v1/metadata/{path}",method="GET"} 1.0' in text
    assert "tiled_stream_backlog_records" in text
    assert "secretname" not in text
    assert "othername" not in text


async def test_metrics_can_be_switched_off(serve: Any) -> None:
    async with serve(metrics=False) as server:
        assert (await server.refused("GET", "/metrics"))[0] == 404


async def test_the_delivery_lag_is_measured(server: Any) -> None:
    await server.array("a", numpy.arange(3), write=False)
    socket = await server.socket("a").accepted()
    await socket.update()
    await server.ok("PUT", "/array/full/a", content=bytes(24))
    await socket.update()
    text = (await server.client.get("/api/v1/metrics")).text
    assert "tiled_stream_delivery_lag_seconds_count 1.0" in text


async def test_msgpack_only_if_it_comes_first(server: Any) -> None:
    await server.create("c", metadata={"a": 1})
    for accept, packed in (("application/x-msgpack", True), ("application/json, application/x-msgpack", False), ("*/*", False)):
        response = await server.client.get("/api/v1/metadata/c", headers={"Accept": accept})
        assert response.headers["content-type"] == ("application/x-msgpack" if packed else "application/json")
        content = msgspec.msgpack.decode(response.content) if packed else response.json()
        assert content["data"]["attributes"]["metadata"] == {"a": 1}
    refused = await server.client.get("/api/v1/metadata/no", headers={"Accept": "application/x-msgpack"})
    assert refused.headers["content-type"] == "application/json"


async def test_what_the_client_has_is_not_sent_again(server: Any) -> None:
    for path in ("/api/v1/metadata/", "/api/v1/search/"):
        first = await server.client.get(path)
        tag = first.headers["etag"]
        assert len(tag) == 32
        for sent in (tag, f'"{tag}"', f"x, {tag}"):
            again = await server.client.get(path, headers={"If-None-Match": sent})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert (await server.client.get(path, headers={"If-None-Match": "x"})).status_code == 200


@pytest.mark.parametrize(("accepted", "coding"), [("gzip, zstd", "zstd"), ("gzip", "gzip"), ("br", None), ("gzip;q=1.0", None)])
async def test_large_answers_are_packed(server: Any, accepted: str, coding: str | None) -> None:
    array = numpy.zeros(100_000)  # above the limit where it is done in a thread
    await server.array("a", array)
    await server.create("c", metadata={"text": "x" * 5000})
    unpack = {"zstd": zstandard.ZstdDecompressor().decompress, "gzip": gzip.decompress, None: bytes}[coding]
    for path in ("/api/v1/array/full/a", "/api/v1/metadata/c"):
        request = server.client.build_request("GET", path, headers={"Accept-Encoding": accepted})
        response = await server.client.send(request, stream=True)
        raw = b"".join([chunk async for chunk in response.aiter_raw()])
        assert response.headers.get("content-encoding") == coding
        assert int(response.headers["content-length"]) == len(raw)
        assert response.headers["vary"] == ("Origin, Accept-Encoding" if coding else "Origin")
        if path.endswith("a"):
            assert unpack(raw) == array.tobytes()


async def test_pages_of_allowed_origins_may_ask(serve: Any) -> None:
    async with serve(allow_origins=("https://ui.example",)) as server:
        asked = {"Origin": "https://ui.example", "Access-Control-Request-Method": "GET"}
        preflight = await server.client.options("/api/v1/metadata/", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://ui.example"
        assert "PATCH" in preflight.headers["access-control-allow-methods"]
        for path in ("/", "/api/v1/metadata/", "/nothing"):
            refused = await server.client.options(path, headers={**asked, "Origin": "https://evil.example"})
            assert refused.status_code == 400
            assert "access-control-allow-origin" not in refused.headers
        response = await server.client.get("/api/v1/metadata/", headers={"Origin": "https://ui.example"})
        assert response.headers["access-control-allow-origin"] == "https://ui.example"
        assert "x-tiled-request-id" in response.headers["access-control-expose-headers"].lower()
        other = await server.client.get("/api/v1/metadata/", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_the_log_of_requests_has_no_keys(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tiled_stream.access"):
        response = await server.client.get("/api/v1/metadata/?api_key=secret")
    line = next(r.getMessage() for r in caplog.records if "/api/v1/metadata" in r.getMessage())
    assert response.headers["x-tiled-request-id"] in line
    assert "(singleuser)" in line
    assert '"GET /api/v1/metadata' in line
    assert "secret" not in line


async def test_a_file_name_cannot_break_out_of_its_header(server: Any) -> None:
    await server.array("a", numpy.arange(3))
    name = httpx.QueryParams({"filename": 'x"; y=\r\nSet-Cookie: z=1/../ž.csv'})
    response = await server.client.get(f"/api/v1/array/full/a?{name}")
    assert response.status_code == 200
    assert "set-cookie" not in response.headers
    plain, _, spelled = response.headers["content-disposition"].partition("; filename*=")
    assert plain == 'attachment; filename="x; y=Set-Cookie: z=1.._.csv"'
    assert spelled == "UTF-8''x%3B%20y%3DSet-Cookie%3A%20z%3D1..%C5%BE.csv"
