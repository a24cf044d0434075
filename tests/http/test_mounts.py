"""What is mounted is served under its path, each node under one; what lies above it is listed and can hold nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import orjson
import pytest

from tests.http.conftest import AUTH, KEY, Server
from tests.http.test_stream_many import connect
from tiled_stream.run.assembly import assembled
from tiled_stream.run.settings import Settings, SettingsError

A_AND_B = ({"path": "/a", "node": "/A"}, {"path": "/b", "node": "/B"})


async def ids(server: Any, path: str = "", query: str = "") -> list[str]:
    return [n["id"] for n in (await server.ok("GET", f"/search/{path}?fields=&{query}"))["data"]]


async def attributes(server: Any, path: str = "") -> Any:
    return (await server.ok("GET", f"/metadata/{path}"))["data"]["attributes"]


async def test_two_containers_of_one_catalog(serve: Any) -> None:
    async with serve(mounts=A_AND_B, create_mount_nodes_if_not_exist=True) as server:
        await server.create("a/x")
        await server.create("a/x/i")
        await server.create("b/y", metadata={"m": 1})
        assert await ids(server) == ["a", "b"]
        assert await ids(server, query="sort=-") == ["b", "a"]
        assert await ids(server, query="page[limit]=1&page[offset]=1") == ["b"]
        assert (await ids(server, "a"), await ids(server, "a/x"), await ids(server, "b")) == (["x"], ["i"], ["y"])
        assert (await server.ok("GET", "/search/"))["meta"]["count"] == 2
        assert (await attributes(server))["structure"]["count"] == 2
        first, second = numpy.arange(3), numpy.arange(3) + 7
        await server.array("a/c", first)
        await server.array("b/c", second)
        for path, values in (("a/c", first), ("b/c", second)):
            reply = await server.client.get(f"/api/v1/array/full/{path}", headers={"Accept": "application/octet-stream"})
            assert reply.content == values.tobytes()
        told = (await server.ok("GET", "/search/a/x"))["data"][0]
        assert told["attributes"]["ancestors"] == ["a", "x"]
        assert told["links"]["self"] == "http://server/api/v1/metadata/a/x/i"
        deep = (await server.ok("GET", "/search-deep/a"))["data"]
        assert [[*n["attributes"]["ancestors"], n["id"]] for n in deep] == [["a", "x"], ["a", "x", "i"], ["a", "c"]]
        await server.refused("GET", "/metadata/A")


async def test_the_whole_catalog_below_a_path(serve: Any) -> None:
    async with serve(mounts=({"path": "/p/q/r", "node": "/"},)) as server:
        await server.create("p/q/r/x", metadata={"m": 1})
        assert [await ids(server, path) for path in ("", "p", "p/q", "p/q/r")] == [["p"], ["q"], ["r"], ["x"]]
        assert (await attributes(server, "p/q/r/x"))["ancestors"] == ["p", "q", "r"]
        await server.ok("PUT", "/metadata/p/q/r/x", json={"metadata": {"m": 2}})
        await server.ok("PUT", "/metadata/p/q/r", json={"metadata": {"top": True}})
        assert (await attributes(server, "p/q/r"))["metadata"] == {"top": True}
        assert (await attributes(server, "p/q/r/x"))["metadata"] == {"m": 2}
        socket = await server.socket("p/q/r").accepted()
        await socket.message()
        await server.create("p/q/r/y")
        assert orjson.loads((await socket.message())["text"])["key"] == "y"
        assert (await server.client.delete("/api/v1/metadata/p/q/r/x")).status_code == 200
        assert await ids(server, "p/q/r") == ["y"]
        assert (await server.refused("GET", "/metadata/x"))[0] == 404
        assert (await server.refused("GET", "/metadata/p/q/r/x"))[0] == 404


@pytest.mark.parametrize("path", ["", "p"])
async def test_above_what_is_mounted_there_is_nothing_to_write_to(serve: Any, path: str) -> None:
    async with serve(mounts=({"path": "/p/q", "node": "/"},)) as server:
        new = {"id": "n", "structure_family": "container", "metadata": {}, "specs": []}
        for method, place, body in (
            ("POST", "/metadata", new),
            ("PUT", "/metadata", {"metadata": {}}),
            ("DELETE", "/metadata", None),
            ("GET", "/revisions", None),
        ):
            status, _ = await server.refused(method, f"{place}/{path}", json=body)
            assert status == 405, (method, place)
        if path:
            assert (await server.refused("DELETE", f"/stream/close/{path}"))[0] == 405
        for place in ("/search-deep", "/distinct"):
            assert (await server.refused("GET", f"{place}/{path}?metadata=m"))[0] == 400
        eq = "filter[eq][condition][key]=m&filter[eq][condition][value]=1"
        assert (await server.refused("GET", f"/search/{path}?{eq}"))[0] == 400
        below = "p" if path == "" else "q"
        assert await ids(server, path, f"filter[lookup][condition][key]={below}") == [below]
        assert await ids(server, path, "filter[lookup][condition][key]=other") == []
        assert (await server.ok("GET", f"/search/{path}?fields=count"))["meta"]["count"] == 1
        full = (await server.client.get(f"/api/v1/container/full/{path}", headers={"Accept": "application/json"})).json()
        assert list(full["contents"]) == [below]


async def test_what_is_mounted_cannot_be_deleted(serve: Any) -> None:
    async with serve(mounts=A_AND_B, create_mount_nodes_if_not_exist=True) as server:
        assert (await server.refused("DELETE", "/metadata/a"))[0] == 405
        assert await ids(server) == ["a", "b"]


async def test_a_container_that_is_missing(tmp_path: Path) -> None:
    """It is made with what the configuration says of it, if it may be; else nothing starts."""
    place: dict[str, Any] = {"catalog": str(tmp_path / "c.db"), "init": True, "write": (str(tmp_path),), "api_key": KEY}
    spec = {"name": "Mine", "version": "3"}
    mounts = ({"path": "/", "node": "/A/B/C", "specs": [spec], "metadata": {"m": 1}},)
    with pytest.raises(SettingsError, match="was not found in the catalog"):
        async with assembled(Settings(**place, mounts=mounts)):
            pass
    for _ in range(2):  # the second time it is there
        settings = Settings(**place, mounts=mounts, create_mount_nodes_if_not_exist=True)
        async with assembled(settings) as assembly, _client(assembly) as client:
            server = Server(assembly, client)
            await server.create(f"item{_}")
    async with assembled(Settings(**place)) as assembly, _client(assembly) as client:
        server = Server(assembly, client)
        assert (await attributes(server, "A"))["specs"] == (await attributes(server, "A/B"))["specs"] == []
        leaf = await attributes(server, "A/B/C")
        assert (leaf["specs"], leaf["metadata"]) == ([spec], {"m": 1})
        assert await ids(server, "A/B/C") == ["item0", "item1"]
        await server.array("a", numpy.arange(3))
    with pytest.raises(SettingsError, match="is no container"):
        async with assembled(Settings(**place, mounts=({"path": "/", "node": "/a"},))):
            pass


def _client(assembly: Any) -> Any:
    import httpx

    transport = httpx.ASGITransport(app=assembly.app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://server", headers=AUTH)


async def test_a_subtree_that_is_mounted_is_told_by_its_paths_here(serve: Any) -> None:
    async with serve(mounts=A_AND_B, create_mount_nodes_if_not_exist=True) as server:
        await server.create("a/x")
        many = await connect(server)
        many.say(type="subscribe", id=1, path="a", subtree=True)
        while not any(m.get("path") == ["a", "x"] for got in many.got.values() for m in got):
            await many.next()
        await server.create("a/x/new")
        while not any(m.get("path") == ["a", "x", "new"] for got in many.got.values() for m in got):
            await many.next()
        many.say(type="subscribe", id=2, path="", subtree=True)
        assert "lies above what is mounted" in str(await many.first("error", 2))
