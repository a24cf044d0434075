"""Assets that are taken from a node, and servers that keep raw files back."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy
import pyarrow
import pytest

from tests.http.conftest import AUTH
from tests.http.test_assets import FRAMES, asset, register, source


async def asset_of(server: Any, path: str) -> Any:
    told = await server.ok("GET", f"/metadata/{path}?include_data_sources=true")
    return told["data"]["attributes"]["data_sources"][0]["assets"]


def place_of(told: Any) -> Path:
    return Path(unquote(told["data_uri"].removeprefix("file://localhost")))


def is_there(path: Path) -> bool:
    """Data, apart from the numbers that a store keeps of a node."""
    return path.exists() and (not path.is_dir() or any(p.is_file() and ".applied" not in p.parts for p in path.rglob("*")))


async def test_files_of_others_stay(serve: Any, tmp_path: Path) -> None:
    for number in range(2):
        numpy.save(tmp_path / f"{number}.npy", FRAMES[number])
    async with serve(read=(str(tmp_path),)) as server:
        declared = source(
            FRAMES[:2], "multipart/related;type=application/x-npy", *(asset(tmp_path / f"{n}.npy", n) for n in (0, 1))
        )
        known = (await register(server, "a", declared))["assets"]
        gone = f"/asset/a?id={known[1]['id']}"
        assert await server.ok("DELETE", gone) == {"asset_deleted": True, "data_deleted": False}
        assert await asset_of(server, "a") == known[:1]
        assert is_there(tmp_path / "1.npy")
        assert (await server.client.get("/api/v1/array/full/a?slice=0")).content == FRAMES[0].tobytes()
        assert (await server.client.get("/api/v1/array/full/a")).status_code == 503
        assert (await server.refused("DELETE", gone))[0] == 404
        assert (await server.refused("GET", gone.replace("/asset", "/asset/bytes")))[0] == 404


async def test_what_this_server_keeps_goes_only_if_it_is_said(serve: Any, tmp_path: Path) -> None:
    async with serve(write=(str(tmp_path / "data"),)) as server:
        await server.array("x", FRAMES)
        await server.array("other", FRAMES)
        await server.table("t", pyarrow.table({"a": [1, 2]}))
        for path, read in {"x": "/array/full/x", "t": "/table/full/t"}.items():
            told = (await asset_of(server, path))[0]
            await server.client.get(f"/api/v1{read}")
            assert (await server.refused("DELETE", f"/asset/{path}?id={told['id']}"))[0] == 409
            assert (await server.client.get(f"/api/v1{read}")).status_code == 200
            gone = f"/asset/{path}?id={told['id']}&external_only=false"
            assert await server.ok("DELETE", gone) == {"asset_deleted": True, "data_deleted": True}
            assert await asset_of(server, path) == []
            assert (await server.refused("GET", read))[0] == 404
            assert (await server.refused("DELETE", gone))[0] == 404
            if path == "x":
                assert not is_there(place_of(told))
        assert (await server.refused("PUT", "/array/full/x", content=FRAMES.tobytes()))[0] == 405
        assert (await server.client.get("/api/v1/array/full/other")).content == FRAMES.tobytes()
        await server.ok("DELETE", "/metadata/x?external_only=false")


async def test_what_has_no_such_asset(serve: Any, tmp_path: Path) -> None:
    async with serve(read=(str(tmp_path),)) as server:
        await server.create("c")
        for path, status in {"c?id=1": 405, "no?id=1": 404, "c": 422}.items():
            assert (await server.refused("DELETE", f"/asset/{path}"))[0] == status


async def test_raw_files_can_be_kept_back(serve: Any, tmp_path: Path) -> None:
    numpy.save(tmp_path / "x.npy", FRAMES)
    async with serve(read=(str(tmp_path),), expose_raw_assets=False) as server:
        known = (await register(server, "a", source(FRAMES, "application/x-npy", asset(tmp_path / "x.npy"))))["assets"][0]
        for method, route in (("GET", "asset/bytes"), ("GET", "asset/manifest"), ("DELETE", "asset")):
            assert (await server.refused(method, f"/{route}/a?id={known['id']}"))[0] == 403
        assert (await server.client.get("/api/v1/array/full/a")).content == FRAMES.tobytes()


@pytest.mark.parametrize(("agent", "has_size"), [("python-tiled/0.2.13", True), ("python-tiled/0.2.12", False), ("x", True)])
async def test_old_clients_are_told_no_sizes(serve: Any, tmp_path: Path, agent: str, has_size: bool) -> None:
    async with serve(read=(str(tmp_path),)) as server:
        await register(server, "a", source(FRAMES, "application/x-npy", asset(tmp_path / "x.npy")))
        for place in ("/metadata/a", "/search/"):
            headers = {**AUTH, "User-Agent": agent}
            told = (await server.ok("GET", f"{place}?include_data_sources=true", headers=headers))["data"]
            (told,) = told if isinstance(told, list) else [told]
            assert ("size" in told["attributes"]["data_sources"][0]["assets"][0]) is has_size


async def test_clients_of_another_time_are_told_so(serve: Any) -> None:
    async with serve() as server:
        await server.create("c")
        old = {**AUTH, "User-Agent": "python-tiled/0.1.0a77"}
        for place in ("/metadata/c", "/search/"):
            status, detail = await server.refused("GET", place, headers=old)
            assert (status, "upgrade" in detail) == (400, True)
        told = await server.ok("GET", "/metadata/c", headers={**AUTH, "User-Agent": "python-tiled/0.2.18"})
        assert told["data"]["attributes"]["access_blob"] == {"tags": []}
        assert "access_tags" not in told["data"]["attributes"]
