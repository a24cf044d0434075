"""Registered files through the edge: what may be registered, reading while files arrive, and the files themselves."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import h5py
import httpx
import msgspec
import numpy
import orjson
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import zarr
import zstandard

from tests.http.conftest import AUTH, array_structure, table_structure
from tiled_stream.http import assets as routes
from tiled_stream.query import read_files
from tiled_stream.testing.array_contract import selections

FRAMES = numpy.arange(5 * 4 * 3, dtype="<u2").reshape(5, 4, 3)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The readable directory, and a secret beside it."""
    (tmp_path / "secret.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
async def server(data: Path, serve: Callable[..., AbstractAsyncContextManager[Any]]) -> AsyncIterator[Any]:
    async with serve(read=(str(data),)) as server:
        yield server


def asset(path: Path | str, num: int | None = 0, *, is_directory: bool = False) -> dict[str, Any]:
    uri = path if isinstance(path, str) else "file://localhost" + quote(str(path))
    return {
        "data_uri": uri,
        "is_directory": is_directory,
        "parameter": "data_uris" if num is not None else "data_uri",
        "num": num,
    }


def source(values: Any, mimetype: str, *assets: dict[str, Any], **fields: Any) -> dict[str, Any]:
    is_array = isinstance(values, numpy.ndarray)
    return {
        "structure_family": "array" if is_array else "table",
        "structure": array_structure(values) if is_array else table_structure(values.schema),
        "mimetype": mimetype,
        "management": "external",
        "assets": list(assets),
        **fields,
    }


async def register(server: Any, key: str, declared: dict[str, Any]) -> dict[str, Any]:
    """Register a node; its data source as answered."""
    body = {"id": key, "structure_family": declared["structure_family"], "metadata": {}, "specs": [], "data_sources": [declared]}
    return (await server.ok("POST", "/register/", json=body))["data_sources"][0]


async def refused(server: Any, declared: dict[str, Any]) -> int:
    """Status of a registration that must be refused, and left nothing."""
    body = {"id": "r", "structure_family": declared["structure_family"], "metadata": {}, "specs": [], "data_sources": [declared]}
    status, _ = await server.refused("POST", "/register/", json=body)
    assert (await server.refused("GET", "/metadata/r"))[0] == 404
    return int(status)


async def array(server: Any, path: str, values: numpy.ndarray, query: str = "") -> numpy.ndarray:
    response = await server.client.get(f"/api/v1/array/full/{path}{query}")
    assert response.status_code == 200, response.text
    return numpy.frombuffer(response.content, values.dtype)


# ------------------------------------------------------------------ registering


async def test_what_lies_outside_cannot_be_registered(server: Any, data: Path) -> None:
    (data / "link.npy").symlink_to(data.parent / "secret.npy")
    for place in (data.parent / "secret.npy", data / "link.npy", f"file://localhost{data}/../secret.npy", "file:///etc/passwd"):
        assert await refused(server, source(FRAMES, "application/x-npy", asset(place))) == 403
    for place in ("/plain/path", "http://localhost/x.npy", "file://elsewhere/x.npy"):
        assert await refused(server, source(FRAMES, "application/x-npy", asset(place))) == 422
    assert await refused(server, source(FRAMES, "image/png", asset(data / "x.png"))) == 415


async def test_nor_can_it_come_later(server: Any, data: Path) -> None:
    numpy.save(data / "0.npy", FRAMES[0])
    mimetype = "multipart/related;type=application/x-npy"
    known = await register(server, "a", source(FRAMES[:1], mimetype, asset(data / "0.npy")))
    more = source(FRAMES[:2], mimetype, asset(data.parent / "secret.npy", 1), id=known["id"])
    assert (await server.refused("PUT", "/data_source/a", json={"data_source": more}))[0] == 403
    assert (await server.ok("GET", "/metadata/a"))["data"]["attributes"]["structure"]["shape"] == [1, 4, 3]


async def test_without_readable_directories_files_are_only_announced(serve: Any, data: Path) -> None:
    async with serve() as server:
        known = await register(server, "a", source(FRAMES, "application/x-npy", asset(data / "x.npy")))
        numpy.save(data / "x.npy", FRAMES)
        assert (await server.refused("GET", "/array/full/a"))[0] == 403
        assert (await server.refused("GET", f"/asset/bytes/a?id={known['assets'][0]['id']}"))[0] == 403


# ------------------------------------------------------------------ reading


async def test_arrays_equal_numpy(server: Any, data: Path) -> None:
    with h5py.File(data / "x.h5", "w") as file:
        file["entry/x"] = FRAMES
    chunks = [[2, 2, 1], [4], [3]]
    declared = source(FRAMES, "application/x-hdf5", asset(data / "x.h5"), parameters={"dataset": "entry/x"})
    declared["structure"]["chunks"] = chunks
    await register(server, "a", declared)
    assert (await array(server, "a", FRAMES)).tobytes() == FRAMES.tobytes()
    random = Random(1)
    for _ in range(25):
        selection = selections(FRAMES.shape, random)
        text = ",".join(
            str(i) if isinstance(i, int) else f"{i.start}:{'' if i.stop is None else i.stop}:{i.step}" for i in selection.index
        )
        found = await array(server, "a", FRAMES, f"?slice={text}")
        assert found.tobytes() == FRAMES[selection.index].tobytes(), text
    response = await server.client.get("/api/v1/array/block/a?block=1,0,0")
    assert response.content == FRAMES[2:4].tobytes()
    response = await server.client.get("/api/v1/array/full/a?format=json&slice=0")
    assert orjson.loads(response.content) == FRAMES[0].tolist()
    assert (await server.refused("PUT", "/array/full/a", content=FRAMES.tobytes()))[0] == 405


async def test_tables_equal_arrow(server: Any, data: Path) -> None:
    table = pyarrow.table({"i": [1, 2, 3], "s": ["a", "é", None], "v": [0.5, 1.5, 2.5]})
    pyarrow.parquet.write_table(table, data / "0.parquet")
    pyarrow.parquet.write_table(table.slice(1), data / "1.parquet")
    declared = source(table, "application/x-parquet", asset(data / "0.parquet"), asset(data / "1.parquet", 1))
    declared["structure"]["npartitions"] = 2
    await register(server, "t", declared)

    async def read(question: str) -> pyarrow.Table:
        response = await server.client.get(f"/api/v1/table/{question}")
        assert response.status_code == 200, response.text
        return pyarrow.ipc.open_file(response.content).read_all()

    assert (await read("full/t")).equals(pyarrow.concat_tables([table, table.slice(1)]))
    assert (await read("partition/t?partition=1&column=v&column=i")).equals(table.slice(1).select(["i", "v"]))
    assert (await server.refused("GET", "/table/partition/t?partition=2"))[0] == 400
    assert (await server.refused("GET", "/table/full/t?column=no"))[0] == 422
    assert (await array(server, "t/v", numpy.zeros(0))).tolist() == [0.5, 1.5, 2.5, 1.5, 2.5]
    attributes = (await server.ok("GET", "/metadata/t/i"))["data"]["attributes"]
    assert attributes["structure"]["shape"] == [5]
    pyarrow.parquet.write_table(table, data / "1.parquet")  # columns of files are not kept at hand
    assert (await array(server, "t/v", numpy.zeros(0), "?slice=:")).tolist() == [0.5, 1.5, 2.5] * 2


async def test_a_sequence_grows_as_it_is_told(server: Any, data: Path) -> None:
    """As TiledWriter does it: created without files, then a data source for each batch."""
    mimetype = "multipart/related;type=application/x-npy"
    body = {"id": "a", "structure_family": "array", "data_sources": [source(FRAMES[:0], mimetype)]}
    known = (await server.ok("POST", "/metadata/", json=body))["data_sources"][0]
    assert (await server.client.get("/api/v1/array/full/a")).content == b""
    for number in range(5):
        path = data / f"{number}.npy"
        more = source(FRAMES[: number + 1], mimetype, asset(path, number), id=known["id"])
        await server.ok("PUT", f"/data_source/a?patch_shape=1,4,3&patch_offset={number},0,0", json={"data_source": more})
        late = await server.client.get(f"/api/v1/array/full/a?slice={number}")
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")
        numpy.save(path, FRAMES[number])
        assert (await array(server, "a", FRAMES)).tobytes() == FRAMES[: number + 1].tobytes()


async def test_a_file_that_stays_away_is_not_found(server: Any, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await register(server, "a", source(FRAMES, "application/x-npy", asset(data / "x.npy")))
    assert (await server.client.get("/api/v1/array/full/a")).status_code == 503
    monkeypatch.setattr(read_files, "ARRIVAL", 0.0)  # a minute later
    assert (await server.refused("GET", "/array/full/a")) == (404, "The file 'x.npy' does not exist.")
    monkeypatch.undo()
    await server.ok("DELETE", "/stream/close/a")
    assert (await server.refused("GET", "/array/full/a"))[0] == 404


async def test_a_damaged_file_is_a_verdict_once_it_is_old(server: Any, data: Path) -> None:
    (data / "x.npy").write_bytes(b"this is something else")
    await register(server, "a", source(FRAMES, "application/x-npy", asset(data / "x.npy")))
    assert (await server.client.get("/api/v1/array/full/a")).status_code == 503
    os.utime(data / "x.npy", (time.time() - 3600,) * 2)
    await server.ok("DELETE", "/stream/close/a")
    status, detail = await server.refused("GET", "/array/full/a")
    assert (status, "application/x-npy" in detail) == (422, True)


async def test_a_slow_file_holds_up_nobody(server: Any, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numpy.save(data / "x.npy", FRAMES)
    await register(server, "a", source(FRAMES, "application/x-npy", asset(data / "x.npy")))
    await server.array("quick", FRAMES)
    await array(server, "quick", FRAMES)
    real = read_files.open_array
    monkeypatch.setattr(read_files, "open_array", lambda source: time.sleep(0.5) or real(source))
    slow = [asyncio.create_task(array(server, "a", FRAMES), name=f"slow {n}") for n in range(8)]
    await asyncio.sleep(0.05)
    started = time.monotonic()
    await array(server, "quick", FRAMES)
    assert time.monotonic() - started < 0.4
    assert {found.tobytes() for found in await asyncio.gather(*slow)} == {FRAMES.tobytes()}


# ------------------------------------------------------------------ the files themselves


@pytest.fixture
async def file(server: Any, data: Path) -> tuple[str, bytes]:
    """The address of a file of two and a half pieces, and its content."""
    content = os.urandom(routes.PIECE * 5 // 2)
    (data / "a b.h5").write_bytes(content)
    known = await register(server, "a", source(FRAMES, "application/x-hdf5", asset(data / "a b.h5")))
    return f"/api/v1/asset/bytes/a?id={known['assets'][0]['id']}", content


async def test_a_whole_file(server: Any, file: tuple[str, bytes]) -> None:
    url, content = file
    response = await server.client.get(url)
    assert (response.status_code, response.content == content) == (200, True)
    assert response.headers["content-disposition"] == 'attachment; filename="a b.h5"'
    assert response.headers["content-length"] == str(len(content))
    assert response.headers["content-type"].startswith("application/")
    assert response.headers["accept-ranges"] == "bytes"
    again = await server.client.get(url, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-", 5, None),
        ("bytes=-7", -7, None),
        ("bytes=1000000-1100000", 1_000_000, 1_100_001),
        ("bytes=10-99999999999", 10, None),
        ("bytes=-99999999999", 0, None),
        ("bytes= 3-4 ", 3, 5),
    ],
)
async def test_a_range(server: Any, file: tuple[str, bytes], wanted: str, start: int, stop: int | None) -> None:
    url, content = file
    response = await server.client.get(url, headers={"Range": wanted})
    first, last, _ = slice(start, stop).indices(len(content))
    assert response.status_code == 206
    assert response.content == content[first:last]
    assert response.headers["content-range"] == f"bytes {first}-{last - 1}/{len(content)}"
    assert response.headers["content-length"] == str(last - first)


@pytest.mark.parametrize("wanted", ["bytes=5-4", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,4-5", "bytes", ""])
async def test_what_is_no_single_range_does_not_count(server: Any, file: tuple[str, bytes], wanted: str) -> None:
    url, content = file
    response = await server.client.get(url, headers={"Range": wanted})
    assert (response.status_code, response.content == content) == (200, True)


@pytest.mark.parametrize("wanted", ["bytes=99999999-", "bytes=-0"])
async def test_a_range_beyond_the_end(server: Any, file: tuple[str, bytes], wanted: str) -> None:
    url, content = file
    response = await server.client.get(url, headers={"Range": wanted})
    assert response.status_code == 416
    assert response.headers["content-range"] == f"bytes */{len(content)}"
    assert "range" in orjson.loads(response.content)["detail"]


async def test_a_range_of_what_it_was(server: Any, data: Path, file: tuple[str, bytes]) -> None:
    url, content = file
    first = await server.client.get(url, headers={"Range": "bytes=0-9"})
    for condition in ("etag", "last-modified"):
        headers = {"Range": "bytes=10-19", "If-Range": first.headers[condition]}
        assert (await server.client.get(url, headers=headers)).content == content[10:20]
    (data / "a b.h5").write_bytes(b"another")
    headers = {"Range": "bytes=10-19", "If-Range": first.headers["etag"]}
    response = await server.client.get(url, headers=headers)
    assert (response.status_code, response.content) == (200, b"another")


async def test_names_that_are_not_plain(server: Any, data: Path) -> None:
    (data / '水"\n.bin').write_bytes(b"1")
    known = await register(server, "a", source(FRAMES, "application/x-npy", asset(data / '水"\n.bin')))
    response = await server.client.get(f"/api/v1/asset/bytes/a?id={known['assets'][0]['id']}")
    assert response.headers["content-disposition"] == 'attachment; filename="水.bin"'


async def raw(server: Any, url: str, **headers: str) -> tuple[httpx.Headers, bytes]:
    request = server.client.build_request("GET", url, headers=headers)
    response = await server.client.send(request, stream=True)
    return response.headers, b"".join([chunk async for chunk in response.aiter_raw()])


async def test_a_file_that_shrinks_is_packed_on_the_way(server: Any, data: Path) -> None:
    plain, noise = b"the same again " * 200_000, numpy.random.default_rng(1).bytes(300_000)
    for key, content in (("plain", plain), ("noise", noise)):
        path = data / f"{key}.bin"
        path.write_bytes(content)
        node = await register(server, key, source(numpy.zeros(1), "application/octet-stream", asset(path)))
        url = f"/api/v1/asset/bytes/{key}?id={node['assets'][0]['id']}"
        headers, body = await raw(server, url, **{"Accept-Encoding": "gzip, zstd"})
        if key == "noise":  # what does not shrink is not worth the work
            assert ("content-encoding" not in headers, body) == (True, content)
            continue
        assert (headers["content-encoding"], "content-length" in headers) == ("zstd", False)
        assert headers["vary"] == "Origin, Accept-Encoding"
        assert len(body) < len(content) / 100
        assert zstandard.ZstdDecompressor().decompressobj().decompress(body) == content
        # A range is of the file itself, and a tag of the packed one never stands for it.
        part, some = await raw(server, url, **{"Accept-Encoding": "zstd", "Range": "bytes=5-14"})
        assert ("content-encoding" not in part, some) == (True, content[5:15])
        assert part["etag"] != headers["etag"]
        whole, _ = await raw(server, url, **{"Range": "bytes=5-14", "If-Range": headers["etag"]})
        assert int(whole["content-length"]) == len(content)


async def test_an_empty_file(server: Any, data: Path) -> None:
    (data / "x").write_bytes(b"")
    known = await register(server, "a", source(FRAMES, "application/x-npy", asset(data / "x")))
    url = f"/api/v1/asset/bytes/a?id={known['assets'][0]['id']}"
    assert (await server.client.get(url)).content == b""
    assert (await server.client.get(url, headers={"Range": "bytes=0-"})).status_code == 416


async def test_directories(server: Any, data: Path) -> None:
    array = zarr.create_array(data / "z.zarr", shape=(4, 4), chunks=(2, 2), dtype="<i4")
    array[...] = values = numpy.arange(16, dtype="<i4").reshape(4, 4)
    (data / "z.zarr" / "out").symlink_to(data.parent / "secret.npy")
    (data / "z.zarr" / "up").symlink_to(data.parent)
    known = await register(server, "z", source(values, "application/x-zarr", asset(data / "z.zarr", None, is_directory=True)))
    assert (await server.client.get("/api/v1/array/full/z")).content == values.tobytes()
    id = known["assets"][0]["id"]
    manifest = (await server.ok("GET", f"/asset/manifest/z?id={id}"))["manifest"]
    assert manifest == ["c/0/0", "c/0/1", "c/1/0", "c/1/1", "zarr.json"]
    packed = await server.client.get(f"/api/v1/asset/manifest/z?id={id}", headers={"Accept": "application/x-msgpack"})
    assert msgspec.msgpack.decode(packed.content) == {"manifest": manifest}
    for path in manifest:
        response = await server.client.get("/api/v1/asset/bytes/z", params={"id": id, "relative_path": path})
        assert response.content == (data / "z.zarr" / path).read_bytes()
    for path, status in (
        ("../../secret.npy", 403),
        ("../x.npy", 403),
        ("out", 403),
        ("up/secret.npy", 403),
        (str(data / "z.zarr" / "zarr.json"), 400),
        ("c", 400),
        ("nothing", 404),
        (None, 400),
        ("a\x00b", 422),
    ):
        query = {"id": id} | ({} if path is None else {"relative_path": path})
        assert (await server.refused("GET", "/asset/bytes/z", params=query))[0] == status, path


async def test_what_this_server_holds_can_be_fetched_too(server: Any) -> None:
    """The client's `raw_export` of an array that was written here."""
    reply = await server.array("a", FRAMES)
    id = reply["data_sources"][0]["assets"][0]["id"]
    manifest = (await server.ok("GET", f"/asset/manifest/a?id={id}"))["manifest"]
    assert "zarr.json" in manifest
    table = await server.table("t", pyarrow.table({"x": [1]}))
    database = table["data_sources"][0]["assets"][0]["id"]
    assert (await server.refused("GET", f"/asset/bytes/t?id={database}"))[0] == 400


async def test_questions_that_have_no_answer(server: Any, data: Path, file: tuple[str, bytes]) -> None:
    url = file[0].removeprefix("/api/v1")
    await server.array("other", FRAMES)
    for path, status in (
        ("/asset/bytes/a", 422),
        ("/asset/bytes/a?id=x", 422),
        ("/asset/bytes/a?id=1", 404),
        ("/asset/bytes/no?id=1", 404),
        (url.replace("/a?", "/other?"), 404),
        (url + "&relative_path=x", 400),
        (url.replace("bytes", "manifest"), 400),
        ("/asset/manifest/a", 422),
    ):
        assert (await server.refused("GET", path))[0] == status, path
    (data / "a b.h5").unlink()
    assert (await server.refused("GET", url))[0] == 404


async def test_files_are_for_those_who_may_read(server: Any, file: tuple[str, bytes]) -> None:
    transport = httpx.ASGITransport(app=server.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as nobody:
        for url in (file[0], file[0].replace("bytes", "manifest")):
            assert (await nobody.get(url)).status_code == 401


async def send_to(server: Any, url: str, headers: dict[str, str], send: Callable[[Any], Any], leave: asyncio.Event) -> None:
    """A request by hand, so that the client can be slow or go away."""
    path, _, query = url.partition("?")
    given = [(b"host", b"server"), *((k.lower().encode(), v.encode()) for k, v in headers.items())]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": given, "scheme": "http"}
    scope |= {"http_version": "1.1", "client": ("1.2.3.4", 5), "raw_path": path.encode(), "root_path": "", "extensions": {}}
    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        for message in asked:
            return message
        await leave.wait()
        return {"type": "http.disconnect"}

    await server.app(scope, receive, send)


def is_open(path: Path) -> bool:
    """Does this process have the file open?"""
    links = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")]
    return any(os.path.lexists(link) and os.path.realpath(link) == str(path) for link in links)


async def test_a_client_that_leaves_stops_the_reading(server: Any, data: Path, file: tuple[str, bytes]) -> None:
    sent: list[Any] = []
    leave, stuck = asyncio.Event(), asyncio.Event()

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("body"):
            stuck.set()
            await asyncio.Event().wait()  # reads nothing more

    task = asyncio.create_task(send_to(server, file[0], AUTH, send, leave), name="leaver")
    await asyncio.wait_for(stuck.wait(), 10)
    assert is_open(data / "a b.h5")
    assert len(sent[-1]["body"]) == routes.PIECE  # one piece, not the file
    leave.set()
    await asyncio.wait_for(task, 10)
    assert not is_open(data / "a b.h5")


async def test_a_file_that_is_cut_breaks_the_connection(server: Any, data: Path, file: tuple[str, bytes]) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("body"):
            os.truncate(data / "a b.h5", 10)

    with pytest.raises(Exception, match="after response started"):
        await send_to(server, file[0], AUTH, send, asyncio.Event())
    assert not any(m["type"] == "http.response.body" and not m.get("more_body") for m in sent)
    assert not is_open(data / "a b.h5")
