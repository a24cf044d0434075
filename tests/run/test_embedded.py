"""`SimpleTiledServer`: what a notebook and a test rely on, and nothing left when it is over (I9)."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import tiled_stream
from tests.run import running
from tiled_stream import SimpleTiledServer
from tiled_stream.domain.errors import Unavailable
from tiled_stream.run.settings import SettingsError


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Libraries open a pipe or so of their own when they are first used, and keep it."""
    SimpleTiledServer().close()


def client_of(server: SimpleTiledServer) -> httpx.Client:
    base, _, key = server.uri.partition("?api_key=")
    return httpx.Client(base_url=base, headers={"Authorization": f"Apikey {key}"}, timeout=30)


def left_over() -> tuple[set[str], set[str]]:
    """Names of threads, and what this process has open."""
    gc.collect()
    opened = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            opened.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return {thread.name for thread in threading.enumerate()}, opened


def test_a_life_in_one_directory(tmp_path: Path) -> None:
    """Written, streamed, closed, opened again: everything is found, and the history too."""
    directory = tmp_path / "new" / "lab"
    before = left_over()
    with SimpleTiledServer(directory, api_key="k1") as server, client_of(server) as client:
        assert server.directory == directory
        assert server.api_key == "k1"
        assert server.uri == f"http://127.0.0.1:{server.port}/api/v1?api_key=k1"
        assert server.web_ui_link == f"http://127.0.0.1:{server.port}?api_key=k1"
        for body in (running.table("t"), running.array("a", 2)):
            client.post("/metadata/", json=body).raise_for_status()
        url = running.stream_url(server.port, "t")
        with connect(url, additional_headers={"Authorization": "Apikey k1"}) as stream:
            updates = running.updates(stream)
            client.patch("/table/partition/t?partition=0", content=running.rows(1, 2)).raise_for_status()
            assert running.numbers_of(next(updates)["payload"]) == [1, 2]
            client.put("/array/full/a", content=running.cells(3, 4)).raise_for_status()
            server.close()
            with pytest.raises(ConnectionClosed) as closed:
                next(updates)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
    assert {"catalog.db", "data", "storage.duckdb"} <= set(os.listdir(directory))
    with SimpleTiledServer(directory) as server, client_of(server) as client:
        assert running.numbers_of(client.get("/table/full/t", headers=running.ARROW).content) == [1, 2]
        octets = {"Accept": "application/octet-stream"}
        assert running.cells_of(client.get("/array/full/a", headers=octets).content) == [3, 4]
        with connect(
            running.stream_url(server.port, "t", 0), additional_headers={"Authorization": client.headers["Authorization"]}
        ) as stream:
            assert running.numbers_of(next(running.updates(stream))["payload"]) == [1, 2]
    assert left_over() == before


def test_several_at_once_do_not_mix() -> None:
    before = left_over()
    servers = [SimpleTiledServer() for _ in range(3)]
    try:
        assert len({server.port for server in servers}) == len({server.api_key for server in servers}) == 3
        for n, server in enumerate(servers):
            with client_of(server) as client:
                client.post("/metadata/", json=running.container(f"c{n}")).raise_for_status()
        for n, server in enumerate(servers):
            with client_of(server) as client:
                assert [item["id"] for item in client.get("/search/").json()["data"]] == [f"c{n}"]
                assert client.get("/", headers={"Authorization": "Apikey other"}).status_code == 200
                assert client.get("/search/", headers={"Authorization": "Apikey other"}).status_code == 401
    finally:
        for server in servers:
            server.close()
    assert left_over() == before
    assert not any(server.directory.exists() for server in servers)


def test_closing_twice_and_what_a_notebook_shows() -> None:
    server = SimpleTiledServer(api_key="key1")
    assert f'href="{server.web_ui_link}"' in server._repr_html_()
    assert "key1" not in repr(server)
    assert str(server.port) in repr(server)
    server.close()
    server.close()
    assert "closed" in repr(server)
    assert "href" not in server._repr_html_()
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.uri)


def test_what_cannot_start_is_raised_here_and_leaves_nothing(tmp_path: Path) -> None:
    with SimpleTiledServer(tmp_path / "lab"):
        before = left_over()
        with pytest.raises(Unavailable, match=r"catalog\.db"):
            SimpleTiledServer(tmp_path / "lab")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(SettingsError, match="Cannot listen"):
                SimpleTiledServer(port=taken.getsockname()[1])
        with pytest.raises(SettingsError, match="letters and digits"):
            SimpleTiledServer(api_key="a-b")
        with pytest.raises(SettingsError, match="65535"):
            SimpleTiledServer(port=70_000)
        (tmp_path / "file").write_text("")
        with pytest.raises(SettingsError, match="no directory"):
            SimpleTiledServer(tmp_path / "file" / "lab")
        assert left_over() == before


def test_a_program_that_ends_without_closing_loses_nothing(tmp_path: Path) -> None:
    """What it wrote last is in storage, not only in the log; the temporary server's directory is gone."""
    program = f"""
        import httpx
        from tiled_stream import SimpleTiledServer
        from tests.run import running

        kept, forgotten = SimpleTiledServer({str(tmp_path / "lab")!r}), SimpleTiledServer()
        headers = {{"Authorization": f"Apikey {{kept.api_key}}"}}
        base = kept.uri.partition("?")[0]
        httpx.post(base + "/metadata/", json=running.table("t"), headers=headers).raise_for_status()
        for n in range(50):
            body = running.rows(n)
            httpx.patch(base + "/table/partition/t?partition=0", content=body, headers=headers).raise_for_status()
        print(forgotten.directory)
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    run = subprocess.run(command, cwd=running.ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert not Path(run.stdout.strip()).exists()
    (tmp_path / "lab" / "catalog.db.log").unlink()
    with SimpleTiledServer(tmp_path / "lab") as server, client_of(server) as client:
        assert running.numbers_of(client.get("/table/full/t", headers=running.ARROW).content) == list(range(50))


def test_the_package_is_imported_quickly() -> None:
    """Only what is used is loaded: not the web framework, not the engines."""
    program = "import sys, tiled_stream; print(*sorted(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=running.ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert "tiled_stream" in loaded
    assert loaded & {"litestar", "hypercorn", "numpy", "pyarrow", "duckdb", "zarr", "typer", "structlog", "msgspec"} == set()
    assert set(tiled_stream.__all__) >= {"SimpleTiledServer", "Settings", "create_app"}


def test_a_server_starts_without_what_is_not_needed_yet() -> None:
    program = """if True:
        import sys
        from tiled_stream import SimpleTiledServer
        with SimpleTiledServer():
            print(*sorted(sys.modules))
    """
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=running.ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert loaded & {"zarr", "pandas", "rich", "typer", "structlog"} == set()
