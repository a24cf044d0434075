"""Files made to hurt: too many children, too much metadata, links in circles, shapes beyond all bounds. No answer is a 500."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import h5py
import numpy
import psutil
import pytest
import zarr

from tests.http.test_assets import asset
from tests.http.test_files_inside import register

#: As a detector writes: another process, in SWMR mode, row by row.
WRITER = """
import sys, time
import h5py
with h5py.File(sys.argv[1], "w", libver="latest") as file:
    dataset = file.create_dataset("entry/data", shape=(0, 4), maxshape=(None, 4), chunks=(2, 4), dtype="i4")
    file.swmr_mode = True
    print("ready", flush=True)
    for number in range(200):
        time.sleep(0.005)
        dataset.resize(number + 1, axis=0)
        dataset[number] = number
        dataset.flush()
"""


@pytest.fixture
async def server(tmp_path: Path, serve: Callable[..., AbstractAsyncContextManager[Any]]) -> AsyncIterator[Any]:
    async with serve(read=(str(tmp_path),)) as server:
        yield server


async def attributes(server: Any, path: str, query: str = "") -> Any:
    return (await server.ok("GET", f"/metadata/{path}{query}"))["data"]["attributes"]


async def test_a_hundred_thousand_children(server: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("wide")
        for number in range(100_000):
            group[f"{number:06}"] = h5py.SoftLink("/one")
        file["one"] = 1
    await register(server, "h", asset(tmp_path / "x.h5"))
    begin = time.perf_counter()
    assert (await attributes(server, "h/wide"))["structure"] == {"contents": None, "count": 100_000}
    for query, keys in {
        "page[limit]=2": ["000000", "000001"],
        "page[offset]=99998": ["099998", "099999"],
        "page[offset]=0&page[limit]=1&sort=-": ["099999"],
        "page[offset]=50000&page[limit]=3&fields=": ["050000", "050001", "050002"],
        "filter[lookup][condition][key]=000777": ["000777"],
    }.items():
        found = await server.ok("GET", f"/search/h/wide?{query}")
        assert [d["id"] for d in found["data"]] == keys
    page = await server.ok("GET", "/search/h/wide?page[limit]=300")
    assert len(page["data"]) == 300
    assert time.perf_counter() - begin < 20


async def test_metadata_that_are_too_large(server: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        group = file.create_group("g", track_order=True)
        group.attrs["small"] = numpy.arange(3)
        group.attrs["large"] = numpy.zeros(20_000)
        group.attrs["text"] = "x" * 100_000
        for number in range(40):
            group.attrs[f"some {number}"] = numpy.zeros(7000)
        for name, value in {
            "nan": numpy.nan,
            "complex": 1 + 2j,
            "bytes": numpy.bytes_(b"\xff\xfe"),
            "reference": group.ref,
            "empty": h5py.Empty("f8"),
            "record": numpy.array((1, 2.5), dtype=[("a", "i4"), ("b", "f8")]),
            "huge": numpy.uint64(2**64 - 1),
            "list": numpy.array(["a", "b"], dtype=h5py.string_dtype()),
        }.items():
            file.attrs[name] = value
            file["g/d"] = 1 if "g/d" not in file else file.pop("g/d")[()]
            file["g/d"].attrs.update(file.attrs)
    await register(server, "h", asset(tmp_path / "x.h5"))
    for accept in ("application/json", "application/x-msgpack"):
        answer = await server.client.get("/api/v1/metadata/h/g", headers={"Accept": accept})
        assert answer.status_code == 200
        assert len(answer.content) < 4 << 20
    told = (await attributes(server, "h/g"))["metadata"]
    assert told["small"] == [0, 1, 2]
    assert {"large", "text"} <= set(told["_left_out"])
    assert len([name for name in told if name.startswith("some")]) < 40
    inner = (await attributes(server, "h/g/d"))["metadata"]
    assert inner["record"] == {"a": 1, "b": 2.5}
    assert inner["huge"] == 2**64 - 1
    assert inner["list"] == ["a", "b"]
    assert (inner["nan"], inner["empty"], inner["complex"]) == (None, None, "(1+2j)")


async def test_groups_that_contain_themselves(server: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/b/x"] = [1, 2]
        file["a/b/up"] = file["a"]
        file["a/b/out"] = h5py.ExternalLink("y.h5", "/back")
        file["twice"] = file["a"]
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["back/again"] = h5py.ExternalLink("x.h5", "/a")
    await register(server, "h", asset(tmp_path / "x.h5"))
    assert (await server.client.get("/api/v1/array/full/h/a/b/x")).status_code == 200
    assert (await server.refused("GET", "/metadata/h/a/b/up"))[0] == 422
    assert (await server.refused("GET", "/metadata/h/a/b/up/b/up/b/x"))[0] == 422
    assert (await server.client.get("/api/v1/array/full/h/twice/b/x")).status_code == 200

    async def count(path: str, depth: int) -> int:
        if depth > 12:
            return 1000
        found = await server.ok("GET", f"/search/{path}")
        inner = [d for d in found["data"] if d["attributes"]["structure_family"] == "container"]
        return len(found["data"]) + sum([await count(f"{path}/{d['id']}", depth + 1) for d in inner])

    assert await count("h", 0) < 100
    long = "/".join(["a/b/out/again"] * 50)
    assert (await server.client.get(f"/api/v1/metadata/h/{long}")).status_code in (404, 422)


async def test_shapes_beyond_all_bounds(server: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("rows", shape=(1 << 40,), dtype="u1", chunks=(1,))
        file.create_dataset("square", shape=(1 << 20, 1 << 20), dtype="f8", chunks=(64, 64))
        file.create_dataset("texts", shape=(5_000_000,), dtype=h5py.string_dtype())
        file["fine"] = 1
    await register(server, "h", asset(tmp_path / "x.h5"))
    for name in ("rows", "square"):
        told = (await attributes(server, f"h/{name}"))["structure"]
        assert [sum(axis) for axis in told["chunks"]] == told["shape"]
        assert max(map(len, told["chunks"])) <= 100_000
        assert (await server.refused("GET", f"/array/full/h/{name}"))[0] == 400
        part = await server.client.get(f"/api/v1/array/full/h/{name}?slice=5:9")
        assert part.status_code == 200
        assert not any(part.content)
    assert (await server.refused("GET", "/metadata/h/texts"))[0] == 400
    assert [d["id"] for d in (await server.ok("GET", "/search/h"))["data"]] == ["fine", "rows", "square"]


async def test_what_zarr_must_not_do(server: Any, tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "x.zarr", mode="w")
    root.create_array("a", shape=(3,), dtype="i4")[...] = 7
    zarr.open_group(tmp_path / "secret.zarr", mode="w").create_array("s", shape=(3,), dtype="i4")
    place = tmp_path / "x.zarr"
    for name, content in {
        "list": "[]",
        "broken": "{",
        "large": '{"attributes": "' + "x" * (5 << 20) + '"}',
        "strange": '{"node_type": "strange"}',
        "shape": json.dumps(json.loads((place / "a" / "zarr.json").read_text()) | {"shape": [-3]}),
    }.items():
        (place / name).mkdir()
        (place / name / "zarr.json").write_text(content)
    (place / "out").symlink_to("/etc")
    (place / "round").symlink_to(place)
    await register(server, "z", asset(place, None, is_directory=True), mimetype="application/x-zarr")
    found = await server.ok("GET", "/search/z")
    assert {d["id"] for d in found["data"]} - {"round"} == {"a"}
    for name in ("list", "broken", "large", "strange", "shape", "out", "c", "a/c", "zarr.json"):
        assert (await server.client.get(f"/api/v1/metadata/z/{name}")).status_code in (400, 403, 404, 405, 422, 503), name
    for path in ("z/%2e%2e/secret.zarr", "z/%2e%2e/secret.zarr/s", "z/a/%2e%2e/%2e%2e/secret.zarr/s"):
        assert (await server.client.get(f"/api/v1/array/full/{path}")).status_code in (404, 403), path


async def test_a_file_that_grows_while_it_is_browsed(server: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, str(path), stdout=asyncio.subprocess.PIPE)
    assert writer.stdout is not None
    await writer.stdout.readline()
    await register(server, "h", asset(path))
    seen = 0
    try:
        while writer.returncode is None or seen < 200:
            answer = await server.client.get("/api/v1/metadata/h/entry/data")
            assert answer.status_code in (200, 503), answer.text
            if answer.status_code == 503:
                continue
            rows = answer.json()["data"]["attributes"]["structure"]["shape"][0]
            assert rows >= seen
            seen = rows
            values = await server.client.get(f"/api/v1/array/full/h/entry/data?slice={max(0, rows - 3)}:{rows}")
            assert values.status_code in (200, 503), values.text
    finally:
        with contextlib.suppress(ProcessLookupError):
            writer.kill()
        await writer.wait()
    assert writer.returncode == 0
    values = numpy.frombuffer((await server.client.get("/api/v1/array/full/h/entry/data")).content, "i4").reshape(-1, 4)
    assert (values == numpy.arange(200)[:, None]).all()


async def test_memory_and_files_do_not_grow(server: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number in range(300):
            file[f"g/{number:03}"] = numpy.zeros(1000)
            file[f"g/{number:03}"].attrs["a"] = numpy.arange(500)
    await register(server, "h", asset(tmp_path / "x.h5"))
    process = psutil.Process()

    async def rounds(count: int) -> None:
        for _ in range(count):
            await server.ok("GET", "/search/h/g?page[limit]=300")
            await attributes(server, "h/g")

    await rounds(5)
    files, memory = process.num_fds(), process.memory_info().rss
    await rounds(15)
    assert process.num_fds() <= files
    assert process.memory_info().rss - memory < 60 << 20
