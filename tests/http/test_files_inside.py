"""Registered files that hold several things, through the edge: an HDF5 file browsed, searched and read."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import h5py
import numpy
import pandas
import pytest

from tests.http.test_assets import asset
from tiled_stream.files.formats import EXCEL

CUBE = numpy.arange(24, dtype="<i4").reshape(2, 3, 4)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The readable directory, and a secret beside it."""
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["numbers"] = [1, 2, 3]
    return tmp_path / "data"


@pytest.fixture
async def server(data: Path, serve: Callable[..., AbstractAsyncContextManager[Any]]) -> AsyncIterator[Any]:
    async with serve(read=(str(data),)) as server:
        yield server


@pytest.fixture
def path(data: Path) -> Path:
    """A file with groups, a dataset, a scalar, texts and attributes."""
    with h5py.File(data / "x.h5", "w") as file:
        file.attrs["title"] = "of the file"
        file.create_dataset("entry/cube", data=CUBE, chunks=(1, 3, 2)).attrs["units"] = numpy.array([1.0, numpy.nan])
        file["entry/scalar"] = 3.5
        file["entry/text"] = "hällo"
        file["entry/names"] = numpy.array(["a", "bbb"], dtype=object)
        file["entry"].attrs["who"] = b"me"
        for number in range(7):
            file.create_group(f"many/{number}")
    return data / "x.h5"


async def register(server: Any, key: str, *assets: dict[str, Any], mimetype: str = "application/x-hdf5", **fields: Any) -> Any:
    source = {
        "structure_family": "container",
        "structure": None,
        "mimetype": mimetype,
        "management": "external",
        "assets": list(assets),
        **fields,
    }
    body = {"id": key, "structure_family": "container", "metadata": {"mine": 1}, "specs": [], "data_sources": [source]}
    return await server.ok("POST", "/register/", json=body)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


async def attributes(server: Any, path: str, query: str = "") -> Any:
    return (await server.ok("GET", f"/metadata/{path}{query}"))["data"]["attributes"]


async def test_what_a_node_inside_is_told_as(server: Any, path: Path) -> None:
    await register(server, "h", asset(path))
    found = (await server.ok("GET", "/metadata/h/entry/cube?include_data_sources=true"))["data"]
    assert found["id"] == "cube"
    told = found["attributes"]
    assert told["ancestors"] == ["h", "entry"]
    assert (told["structure_family"], told["metadata"]) == ("array", {"units": [1.0, None]})
    assert told["structure"]["shape"] == [2, 3, 4]
    assert told["structure"]["chunks"] == [[1, 1], [3], [2, 2]]
    assert told["access_tags"] is None
    assert told["data_sources"] is None
    assert found["links"]["full"] == "http://server/api/v1/array/full/h/entry/cube"
    assert (await attributes(server, "h/entry"))["metadata"] == {"who": "me"}
    assert (await attributes(server, "h"))["metadata"] == {"mine": 1}
    assert (await attributes(server, "h"))["structure"] == {"contents": None, "count": 0}
    for missing in ("h/nothing", "h/entry/cube/deeper", "h/entry/nothing/at/all"):
        assert (await server.refused("GET", f"/metadata/{missing}"))[0] == 404


async def test_pages_of_what_is_inside(server: Any, path: Path) -> None:
    await register(server, "h", asset(path))

    async def page(query: str) -> tuple[list[str], int, str | None]:
        found = await server.ok("GET", f"/search/h/many{query}")
        return [d["id"] for d in found["data"]], found["meta"]["count"], found["links"]["next"]

    assert await page("") == ([str(n) for n in range(7)], 7, None)
    assert (await page("?fields="))[0] == [str(n) for n in range(7)]
    assert (await page("?page[offset]=0&page[limit]=1&sort=-"))[0] == ["6"]
    assert (await page("?page[offset]=2&page[limit]=2&fields="))[0] == ["2", "3"]
    assert await page("?fields=count") == ([], 7, None)
    assert (await page("?page[offset]=9"))[0] == []
    keys, following = [], "/search/h/many?page[limit]=3"
    while following is not None:
        found = await server.ok("GET", following.removeprefix("http://server/api/v1"))
        keys += [d["id"] for d in found["data"]]
        following = found["links"]["next"]
    assert keys == [str(n) for n in range(7)]
    lookup = "?filter[lookup][condition][key]=4"
    assert await page(lookup) == (["4"], 1, None)
    assert await page("?filter[lookup][condition][key]=no") == ([], 0, None)
    for query in ("?sort=title", "?filter[eq][condition][key]=a&filter[eq][condition][value]=1"):
        assert (await server.refused("GET", f"/search/h/many{query}"))[0] == 400
    for place in ("search-deep/h", "search-deep/h/many", "distinct/h?specs=true"):
        assert (await server.refused("GET", f"/{place}"))[0] == 400
    assert (await server.refused("GET", "/search/h/entry/cube"))[0] == 404


async def test_values(server: Any, path: Path) -> None:
    await register(server, "h", asset(path))
    base = "/api/v1/array"
    content = (await server.client.get(f"{base}/full/h/entry/cube?slice=1,::-1")).content
    assert content == CUBE[1, ::-1].tobytes()
    content = (await server.client.get(f"{base}/block/h/entry/cube?block=1,0,1")).content
    assert content == CUBE[1:, :, 2:].tobytes()
    assert numpy.frombuffer((await server.client.get(f"{base}/full/h/entry/scalar")).content, "<f8").tolist() == [3.5]
    told = (await attributes(server, "h/entry/text"))["structure"]
    assert (told["shape"], told["data_type"]["kind"], told["data_type"]["itemsize"]) == ([1], "S", 6)
    assert (await server.client.get(f"{base}/full/h/entry/text")).content == "hällo".encode()
    assert (await server.client.get(f"{base}/full/h/entry/names")).content == b"a\0\0bbb"
    assert (await server.refused("GET", "/array/full/h/entry"))[0] == 404


async def test_nobody_writes_inside(server: Any, path: Path) -> None:
    await register(server, "h", asset(path))
    before = content_of(path)
    child = {"id": "c", "structure_family": "container", "metadata": {}, "specs": [], "data_sources": []}
    patch = {"content-type": "application/merge-patch+json", "metadata": {"a": 1}, "specs": None}
    for place in ("h/entry", "h/entry/cube"):
        assert (await server.refused("PATCH", f"/metadata/{place}", json=patch))[0] == 405
        assert (await server.refused("PUT", f"/metadata/{place}", json={"metadata": {}}))[0] == 405
        assert (await server.refused("DELETE", f"/metadata/{place}"))[0] == 405
        assert (await server.refused("GET", f"/revisions/{place}"))[0] == 405
        assert (await server.refused("DELETE", f"/stream/close/{place}"))[0] == 405
        assert (await server.refused("POST", f"/metadata/{place}", json=child))[0] == 405
        status, _, _ = await server.socket(place).denied()
        assert status == 404
    assert (await server.refused("PUT", "/array/full/h/entry/cube", content=CUBE.tobytes()))[0] == 405
    assert (await server.refused("POST", "/metadata/h", json=child))[0] == 405
    assert content_of(path) == before
    await server.ok("PATCH", "/metadata/h", json=patch)
    await server.ok("DELETE", "/metadata/h")
    assert content_of(path) == before


async def test_what_is_below_comes_along(server: Any, path: Path) -> None:
    await register(server, "h", asset(path))

    def keys(told: Any) -> Any:
        contents = told["structure"]["contents"] if told["structure_family"] == "container" else None
        return contents and {key: keys(child["attributes"]) for key, child in contents.items()}

    with h5py.File(path, "r+") as file:
        file["deep/a/b/c/d/e/f/g"] = 1
    assert keys(await attributes(server, "h/entry")) == {"cube": None, "names": None, "scalar": None, "text": None}
    assert keys(await attributes(server, "h/deep")) == {"a": {"b": {"c": {"d": {"e": None}}}}}
    assert keys(await attributes(server, "h/deep", "?max_depth=2")) == {"a": {"b": None}}
    assert keys(await attributes(server, "h/deep", "?max_depth=0")) is None
    inlined = (await attributes(server, "h/entry"))["structure"]["contents"]["cube"]
    assert inlined == (await server.ok("GET", "/metadata/h/entry/cube"))["data"]


async def test_too_much_to_come_along(server: Any, data: Path) -> None:
    with h5py.File(data / "wide.h5", "w") as file:
        for number in range(501):
            file.create_group(f"wide/{number:04}")
        for number in range(2000):
            file.create_group(f"some/{number // 400}/{number:04}")
    await register(server, "w", asset(data / "wide.h5"))
    assert (await attributes(server, "w/wide"))["structure"] == {"contents": None, "count": 501}
    told = (await attributes(server, "w/some"))["structure"]["contents"]
    assert [child["attributes"]["structure"]["contents"] is None for child in told.values()] == [False] * 4 + [True]


async def test_links_within_the_wall_are_followed(server: Any, data: Path, path: Path) -> None:
    with h5py.File(data / "other.h5", "w") as file:
        file["there/x"] = [7, 8]
    with h5py.File(path, "r+") as file:
        file["links/hard"] = file["entry/cube"]
        file["links/soft"] = h5py.SoftLink("/entry/cube")
        file["links/out"] = h5py.ExternalLink("other.h5", "/there")
        file["links/broken"] = h5py.SoftLink("/nowhere")
        file["links/gone"] = h5py.ExternalLink("gone.h5", "/x")
        file["links/secret"] = h5py.ExternalLink("../secret.h5", "/numbers")
        file["links/back"] = file["links"]
        file["links/root"] = h5py.SoftLink("/")
        file["links/round"] = h5py.SoftLink("round")
    await register(server, "h", asset(path))
    for name in ("hard", "soft"):
        assert (await server.client.get(f"/api/v1/array/full/h/links/{name}")).content == CUBE.tobytes()
    assert (await server.client.get("/api/v1/array/full/h/links/out/x")).content == numpy.array([7, 8]).tobytes()
    for name, status in {"broken": 404, "gone": 404, "secret": 403, "back": 422, "root": 422, "round": 422}.items():
        assert (await server.refused("GET", f"/metadata/h/links/{name}"))[0] == status
        assert (await server.refused("GET", f"/array/full/h/links/{name}"))[0] in (status, 404)
    found = await server.ok("GET", "/search/h/links")
    assert [d["id"] for d in found["data"]] == ["hard", "out", "soft"]
    assert found["meta"]["count"] == 9
    names = await server.ok("GET", "/search/h/links?fields=")
    assert len(names["data"]) == 9


async def test_a_group_of_a_file_and_what_is_none(server: Any, path: Path) -> None:
    await register(server, "g", asset(path), parameters={"dataset": "/entry"})
    assert (await attributes(server, "g/cube"))["structure"]["shape"] == [2, 3, 4]
    for key, name in {"n": "nothing", "a": "entry/cube"}.items():
        await register(server, key, asset(path), parameters={"dataset": name})
        assert (await server.refused("GET", f"/search/{key}"))[0] == 404
    await register(server, "t", asset(path), parameters={"dataset": 5})
    assert (await server.refused("GET", "/search/t"))[0] == 422


async def test_several_files_are_one(server: Any, data: Path) -> None:
    for number in range(3):
        with h5py.File(data / f"{number}.h5", "w") as file:
            file.create_dataset("a/x", data=CUBE + number, chunks=(1, 3, 4))
            file["a/s"] = number
            file["a/t"] = "x" * (number + 1)
            file[f"a/only{number}"] = number
    await register(server, "m", *(asset(data / f"{n}.h5", n) for n in range(3)))
    told = (await attributes(server, "m/a/x"))["structure"]
    assert (told["shape"], told["chunks"]) == ([6, 3, 4], [[1] * 6, [3], [4]])
    values = (await server.client.get("/api/v1/array/full/m/a/x?slice=1:5")).content
    assert values == numpy.concatenate([CUBE + n for n in range(3)])[1:5].tobytes()
    assert (await server.client.get("/api/v1/array/full/m/a/s")).content == numpy.arange(3).tobytes()
    assert (await server.client.get("/api/v1/array/full/m/a/t")).content == b"x\0\0xx\0xxx"
    assert [d["id"] for d in (await server.ok("GET", "/search/m/a"))["data"]] == ["s", "t", "x"]
    assert (await server.refused("GET", "/metadata/m/a/only0"))[0] == 404


async def test_files_that_are_not_there_or_broken(server: Any, data: Path) -> None:
    await register(server, "late", asset(data / "late.h5"))
    for place in ("/metadata/late/x", "/search/late", "/array/full/late/x"):
        assert (await server.client.get(f"/api/v1{place}")).status_code == 503
    assert (await attributes(server, "late"))["metadata"] == {"mine": 1}
    assert [d["id"] for d in (await server.ok("GET", "/search/"))["data"]] == ["late"]
    (data / "late.h5").write_bytes(b"nothing of that kind")
    assert (await server.client.get("/api/v1/search/late")).status_code == 503
    await server.ok("DELETE", "/stream/close/late")
    os.utime(data / "late.h5", (0, 0))
    assert (await server.refused("GET", "/search/late"))[0] == 422
    (data / "late.h5").unlink()
    assert (await server.refused("GET", "/search/late"))[0] == 404


async def test_a_place_that_the_file_does_not_have(server: Any, path: Path) -> None:
    """The node itself says so, as peers do; what cannot be read at all is no reason."""
    await register(server, "n", asset(path), parameters={"dataset": "nothing"})
    assert (await server.refused("GET", "/metadata/n"))[0] == 404
    await register(server, "m", asset(path.parent / "missing.h5"), parameters={"dataset": "nothing"})
    assert (await attributes(server, "m"))["metadata"] == {"mine": 1}
    assert {d["id"] for d in (await server.ok("GET", "/search/"))["data"]} == {"n", "m"}


async def test_what_a_file_refers_to(server: Any, data: Path) -> None:
    """Assets without a parameter are no arguments of the reader, however many there are."""
    layout = h5py.VirtualLayout(shape=(2, 3), dtype="i4")
    for number in range(2):
        with h5py.File(data / f"{number}.h5", "w") as file:
            file["data"] = numpy.arange(3, dtype="i4") + number
        layout[number] = h5py.VirtualSource(data / f"{number}.h5", "data", shape=(3,))
    with h5py.File(data / "all.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("data", layout)
    others = [{**asset(data / f"{n}.h5", None), "parameter": None} for n in range(2)]
    await register(server, "v", *others, {**asset(data / "all.h5", None), "parameter": "data_uris"})
    content = (await server.client.get("/api/v1/array/full/v/data")).content
    assert content == numpy.array([[0, 1, 2], [1, 2, 3]], "i4").tobytes()


async def test_the_wall_stands_wherever_nodes_are_created(server: Any, data: Path) -> None:
    for mimetype, status in {"application/x-hdf5": 403, "image/png": 415}.items():
        source = {
            "structure_family": "container",
            "structure": None,
            "mimetype": mimetype,
            "management": "external",
            "assets": [asset(data.parent / "secret.h5")],
        }
        body = {"id": "s", "structure_family": "container", "metadata": {}, "specs": [], "data_sources": [source]}
        for route in ("metadata", "register"):
            assert (await server.refused("POST", f"/{route}/", json=body))[0] == status
    unknown = {"structure_family": "array", "structure": None, "mimetype": "x/y", "management": "external", "assets": []}
    body = {"id": "s", "structure_family": "array", "metadata": {}, "specs": [], "data_sources": [unknown]}
    assert (await server.refused("POST", "/register/", json=body))[0] == 415
    assert (await server.refused("GET", "/metadata/s"))[0] == 404


async def test_a_workbook(server: Any, data: Path) -> None:
    pandas.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]}).to_excel(data / "x.xlsx", index=False)
    await register(server, "e", asset(data / "x.xlsx", None), mimetype=EXCEL)
    told = await attributes(server, "e/Sheet1")
    assert (told["structure_family"], told["structure"]["columns"]) == ("table", ["a", "b"])
    rows = await server.ok("GET", "/table/full/e/Sheet1?format=application/json")
    assert rows == {"a": [1, 2, 3], "b": ["x", "y", "z"]}
    assert (await attributes(server, "e/Sheet1/a"))["structure"]["shape"] == [3]
    assert (await server.client.get("/api/v1/array/full/e/Sheet1/a?slice=1:")).content == numpy.array([2, 3]).tobytes()
    assert (await server.refused("GET", "/metadata/e/Sheet1/c"))[0] == 404
    assert (await server.refused("GET", "/array/full/e/Sheet1"))[0] == 404
