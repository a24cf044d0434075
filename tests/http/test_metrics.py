"""The figures are those of what happened, as clients saw it; and they can be had when they matter most."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tiled_stream import __version__
from tiled_stream.domain.errors import Unavailable
from tiled_stream.http.metrics import FIGURES
from tiled_stream.log.port import Retention


async def scraped(client: httpx.AsyncClient) -> dict[str, float]:
    """All samples without labels, and histograms' counts and sums; it must be Prometheus's format."""
    answer = await client.get("/api/v1/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


async def test_all_figures_are_there(server: Any) -> None:
    """Those of Redis and of webhooks are there where these are."""
    figures = await scraped(server.client)
    assert {name for name in FIGURES if not re.search("redis|webhook", name)} <= figures.keys()
    text = (await server.client.get("/api/v1/metrics")).text
    assert f'tiled_stream_build_info{{version="{__version__}"}} 1.0' in text
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    assert {name: kinds[name] for name in FIGURES if name in kinds} == {n: k for n, (k, _) in FIGURES.items() if n in kinds}


@pytest.mark.parametrize("extensions", [{}, {"tiled_stream.frames": {}}], ids=["messages", "frames"])
async def test_messages_and_bytes_that_subscribers_got(server: Any, extensions: dict[str, Any]) -> None:
    """Two subscribers of three writes; the schema, which is no record, does not count."""
    await server.array("a", numpy.arange(3), write=False)
    sockets = [await server.socket("a?envelope_format=msgpack", **extensions).accepted() for _ in range(2)]
    size = 0
    for socket in sockets:
        await socket.message()
    for _ in range(3):
        await server.ok("PUT", "/array/full/a", content=bytes(24))
        for socket in sockets:
            message = await socket.message()
            size += len(message.get("frames") or message["bytes"])
    for socket in sockets:
        socket.leave()
        await socket.finished()
    figures = await scraped(server.client)
    assert figures["tiled_stream_messages_sent_total"] == 6
    assert figures["tiled_stream_bytes_sent_total"] == size > 6 * 24
    assert figures["tiled_stream_subscribers"] == figures["tiled_stream_gaps_total"] == 0
    assert figures["tiled_stream_delivery_lag_seconds_count"] == 3  # once a record, however many get it


async def test_appends_are_timed(server: Any) -> None:
    before = await scraped(server.client)
    await server.create("c")
    await server.create("d")
    await server.refused("POST", "/metadata/nowhere", json={"structure_family": "container"})
    figures = await scraped(server.client)
    name = "tiled_stream_append_duration_seconds"
    assert figures[f"{name}_count"] - before[f"{name}_count"] == 2  # what was refused was not appended
    assert 0 < figures[f"{name}_sum"] < 10


async def test_gaps_are_counted(serve: Callable[..., Any]) -> None:
    async with serve(history=False) as server:
        await server.array("a", numpy.arange(3))
        await server.client.get("/api/v1/array/full/a")  # a reader waits until all is persisted
        await server.assembly.services.log.trim(Retention(node_bytes=0, total_bytes=0, seconds=0), now=time.time() + 10)
        await server.ok("PUT", "/array/full/a", content=bytes(24))
        for count in (1, 2):
            socket = await server.socket("a?start=1").accepted()
            assert [(await socket.update())["type"] for _ in range(3)] == ["array-schema", "gap", "array-data"]
            socket.leave()
            await socket.finished()
            assert (await scraped(server.client))["tiled_stream_gaps_total"] == count


async def test_who_does_not_read_is_counted(serve: Callable[..., Any]) -> None:
    async with serve(send_timeout_seconds=0.05) as server:
        await server.array("a", numpy.arange(3), write=False)
        socket = await server.socket("a").accepted()
        await socket.update()
        assert (await scraped(server.client))["tiled_stream_slow_readers_total"] == 0
        socket.block()
        await server.ok("PUT", "/array/full/a", content=bytes(24))
        await socket.finished()
        figures = await scraped(server.client)
        assert figures["tiled_stream_slow_readers_total"] == 1
        assert figures["tiled_stream_messages_sent_total"] == 0


async def test_a_server_that_lacks_something_can_be_scraped(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await scraped(server.client))["tiled_stream_ready"] == 1
    with monkeypatch.context() as patch:

        async def lag() -> None:
            raise Unavailable("Redis does not answer.")

        patch.setattr(server.assembly.services.log, "lag", lag)
        assert (await server.client.get("/readyz")).status_code == 503
        figures = await scraped(server.client)
        assert figures["tiled_stream_ready"] == 0
        assert "tiled_stream_append_duration_seconds_count" in figures
    assert (await scraped(server.client))["tiled_stream_ready"] == 1


async def test_a_server_that_drains_says_so(server: Any) -> None:
    await server.assembly.drain()
    figures = await scraped(server.client)
    assert (figures["tiled_stream_ready"], figures["tiled_stream_subscribers"]) == (0, 0)


async def test_figures_want_the_key(nobody: httpx.AsyncClient) -> None:
    assert (await nobody.get("/api/v1/metrics")).status_code == 401
