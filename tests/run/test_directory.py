"""A directory that is served: registered, followed, never written to; and the command that does it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy
import openpyxl
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
import tifffile
import zarr
from PIL import Image

from tests.http.conftest import KEY, Server
from tiled_stream.files.walk import Rules
from tiled_stream.run.assembly import assembled
from tiled_stream.run.directory import Mirror, ReadOnly, beside
from tiled_stream.run.settings import Settings

CUBE = numpy.arange(24, dtype="<u2").reshape(2, 3, 4)


def filled(root: Path) -> None:
    """One file of each format."""
    (root / "sub" / "deep").mkdir(parents=True)
    with h5py.File(root / "h.h5", "w") as file:
        file["g/x"] = CUBE
        file.attrs["title"] = "t"
    numpy.save(root / "n.npy", CUBE)
    for number in range(3):
        tifffile.imwrite(root / "sub" / f"s_{number}.tif", CUBE[0] + number)
    tifffile.imwrite(root / "t.tiff", CUBE[0])
    Image.fromarray(CUBE[0].astype("u1")).save(root / "j.jpg")
    table = pyarrow.table({"a": [1, 2, 3], "b": ["x", "y", "z"], "c": [0.5, None, 2.0]})
    pyarrow.parquet.write_table(table, root / "p.parquet")
    pyarrow.feather.write_feather(table, root / "f.arrow", compression="uncompressed")
    (root / "sub" / "deep" / "c.csv").write_text("a,b\n1,x\n2,y\n")
    zarr.save_array(root / "z.zarr", CUBE)
    zarr.open_group(root / "zg.zarr", mode="w").create_array("x", shape=(3,), dtype="i4")[...] = 7
    book = openpyxl.Workbook()
    book.active.append(["a"])
    book.save(root / "e.xlsx")
    (root / "broken.h5").write_bytes(b"nothing")
    os.utime(root / "broken.h5", (0, 0))
    (root / "readme.txt").write_text("hello")


@contextlib.asynccontextmanager
async def serving(root: Path) -> AsyncIterator[tuple[Server, Mirror]]:
    settings = Settings(temp=True, api_key=KEY, read=(str(root),), persist_linger_seconds=0.01)
    async with assembled(settings) as assembly:
        transport = httpx.ASGITransport(app=ReadOnly(assembly.app), raise_app_exceptions=False)
        headers = {"Authorization": f"Apikey {KEY}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://server", headers=headers) as client:
            yield Server(assembly, client), Mirror(root, Rules(), writer=assembly.services.writer, limit=1 << 24)


async def tree(server: Server, path: str = "") -> dict[str, Any]:
    found = {}
    for node in (await server.ok("GET", f"/search/{path}"))["data"]:
        inner = f"{path}/{node['id']}".lstrip("/")
        is_container = node["attributes"]["structure_family"] == "container"
        found[node["id"]] = await tree(server, inner) if is_container else node["attributes"]["structure_family"]
    return found


def contents(root: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in root.rglob("*") if p.is_file()}


async def test_all_that_can_be_read_is_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path)
    before = contents(tmp_path)
    async with serving(tmp_path) as (server, mirror):
        calls: list[tuple[int, int]] = []
        await mirror.update(lambda done, of: calls.append((done, of)))
        assert calls[-1][0] == calls[-1][1] == len(calls) - 1
        assert await tree(server) == {
            "e": {"Sheet": "table"},
            "f": "table",
            "h": {"g": {"x": "array"}},
            "j": "array",
            "n": "array",
            "p": "table",
            "sub": {"deep": {"c": "table"}, "s_": "array"},
            "t": "array",
            "z": "array",
            "zg": {"x": "array"},
        }
        for path, wanted in {"n": CUBE, "h/g/x": CUBE, "z": CUBE, "t": CUBE[0], "zg/x": numpy.full(3, 7, "i4")}.items():
            assert (await server.client.get(f"/api/v1/array/full/{path}")).content == wanted.tobytes(), path
        frames = (await server.client.get("/api/v1/array/full/sub/s_?slice=2")).content
        assert frames == (CUBE[0] + 2).astype("<u2").tobytes()
        assert await server.ok("GET", "/table/full/sub/deep/c?format=application/json") == {"a": [1, 2], "b": ["x", "y"]}
        assert (await server.ok("GET", "/metadata/h"))["data"]["attributes"]["metadata"] == {"title": "t"}
        assert await mirror.update() == 0
    assert "broken.h5" in caplog.text
    assert "readme" not in caplog.text
    assert contents(tmp_path) == before


async def test_what_changes_is_followed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    numpy.save(tmp_path / "d" / "a.npy", CUBE)
    (tmp_path / "t.csv").write_text("a\n1\n")
    async with serving(tmp_path) as (server, mirror):
        await mirror.update()
        first = await server.ok("GET", "/metadata/d/a?include_data_sources=true")
        socket = await server.socket("d/a").accepted()
        assert (await socket.update())["type"] == "array-schema"
        numpy.save(tmp_path / "d" / "a.npy", numpy.concatenate([CUBE, CUBE]))
        (tmp_path / "t.csv").write_text("a\n1\n2\n")
        (tmp_path / "new.csv").write_text("b\n1\n")
        assert await mirror.update() == 3
        assert (await socket.update())["type"] == "array-ref"
        second = await server.ok("GET", "/metadata/d/a?include_data_sources=true")
        assert second["data"]["attributes"]["structure"]["shape"] == [4, 3, 4]
        ids = [d["data"]["attributes"]["data_sources"][0]["id"] for d in (first, second)]
        assert ids[0] == ids[1]
        assert await server.ok("GET", "/table/full/t?format=application/json") == {"a": [1, 2]}
        (tmp_path / "t.csv").write_text("a,b\n1,2\n")
        (tmp_path / "new.csv").unlink()
        (tmp_path / "d" / "a.npy").unlink()
        (tmp_path / "d").rmdir()
        numpy.save(tmp_path / "d.npy", CUBE)
        await mirror.update()
        assert await tree(server) == {"t": "table", "d": "array"}
        assert await server.ok("GET", "/table/full/t?format=application/json") == {"a": [1], "b": [2]}
        assert await mirror.update() == 0


async def test_frames_that_arrive_make_a_sequence_longer(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, mirror):
        for number in range(1, 5):
            numpy.save(tmp_path / f"f{number}.npy", CUBE + number)
            await mirror.update()
            name, shape = ("f1", [2, 3, 4]) if number == 1 else ("f", [number, 2, 3, 4])
            assert await tree(server) == {name: "array"}
            told = await server.ok("GET", f"/metadata/{name}")
            assert told["data"]["attributes"]["structure"]["shape"] == shape


async def test_a_file_that_is_mended_is_taken(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(b"broken")
    os.utime(tmp_path / "x.npy", (0, 0))
    async with serving(tmp_path) as (server, mirror):
        assert await mirror.update() == 0
        (tmp_path / "x.npy").write_bytes(b"\x93NUMPY half of it")  # fresh: somebody may be writing it
        assert await mirror.update() == 0
        numpy.save(tmp_path / "x.npy", CUBE)
        assert await mirror.update() == 1
        assert await tree(server) == {"x": "array"}


async def test_nothing_is_written(tmp_path: Path) -> None:
    numpy.save(tmp_path / "x.npy", CUBE)
    async with serving(tmp_path) as (server, mirror):
        await mirror.update()
        for method, path in (
            ("POST", "/metadata/"),
            ("POST", "/register/"),
            ("PUT", "/metadata/x"),
            ("PATCH", "/metadata/x"),
            ("DELETE", "/metadata/x"),
            ("PUT", "/data_source/x"),
            ("PUT", "/array/full/x"),
            ("DELETE", "/stream/close/x"),
        ):
            status, detail = await server.refused(method, path, json={})
            assert status == 405, (method, path)
            assert "directory" in detail
        assert await tree(server) == {"x": "array"}


async def test_a_server_that_is_stopped_while_it_registers(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number}x.csv").write_text("a\n1\n")
    settings = Settings(temp=True, api_key=KEY, read=(str(tmp_path),))
    async with assembled(settings) as assembly:
        stop = asyncio.Event()

        def progress(done: int, of: int) -> None:
            if done == 5:
                stop.set()

        begin = time.perf_counter()
        async with beside(tmp_path, Rules(), watches=True, limit=1 << 20, progress=progress)(assembly, stop):
            pass
        assert time.perf_counter() - begin < 10
    assert not [t for t in asyncio.all_tasks() if "directory" in t.get_name() or "registration" in t.get_name()]


def test_the_command(tmp_path: Path) -> None:
    filled(tmp_path)
    command = [sys.executable, "-m", "tiled_stream", "serve", "directory", str(tmp_path), "--port", "0", "--api-key", "secret"]
    process = subprocess.Popen([*command, "--watch", "--keep-ext"], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "as it changes" in line:
                break
        address = re.search(r"http://[0-9.:]+", "".join(lines))
        assert address is not None, lines
        base, auth = f"{address[0]}/api/v1", {"Authorization": "Apikey secret"}

        def keys() -> set[str]:
            return {d["id"] for d in httpx.get(f"{base}/search/", headers=auth).raise_for_status().json()["data"]}

        assert {"h.h5", "n.npy", "p.parquet", "sub", "z.zarr"} <= keys()
        assert httpx.get(f"{base}/search/").status_code == 401
        (tmp_path / "late.csv").write_text("a\n1\n")
        for _ in range(100):
            if "late.csv" in keys():
                break
            time.sleep(0.1)
        assert "late.csv" in keys()
        assert httpx.delete(f"{base}/metadata/late.csv", headers=auth).status_code == 405
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["nowhere"], "no directory"),
        ([".", "--ext", "dat"], "--ext is written"),
        ([".", "--ext", ".dat=image/png"], "image/png"),
        ([".", "--include-ext", "csv"], "begins with a dot"),
        ([".", "--mimetype-hook", "nowhere:f"], "cannot be loaded"),
        ([".", "--mimetype-hook", "os:sep"], "not a function"),
        ([".", "--log-format", "xml"], "--log-format"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: list[str], sentence: str) -> None:
    command = [sys.executable, "-m", "tiled_stream", "serve", "directory", *options, "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
