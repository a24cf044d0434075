"""Stopping and starting as operators do it: status 0, 1012 to every socket, nothing lost, and retention that tells."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy
import pytest
from websockets.exceptions import ConnectionClosed

from tests.scenarios.server_process import OCTETS, array_source, create, serving
from tests.servers.processes import free_port


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_open_sockets_are_told_and_the_exit_is_clean(tmp_path: Path, number: int) -> None:
    with serving("--temp", directory=tmp_path) as server, server.client() as client, contextlib.ExitStack() as stack:
        create(client, "", "c")
        sockets = [stack.enter_context(server.subscribe("c")) for _ in range(10)]
        begin = time.monotonic()
        server.process.send_signal(number)
        codes = []
        for socket in sockets:
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=10)
            assert closed.value.rcvd is not None
            codes.append(closed.value.rcvd.code)
        assert codes == [1012] * 10
        assert server.process.wait(10) == 0
        assert time.monotonic() - begin < 5


def test_a_stopped_server_has_persisted_everything(tmp_path: Path) -> None:
    arguments = ("catalog.db", "--init", "-w", "data")
    with serving(*arguments, directory=tmp_path) as server, server.client() as client:
        create(client, "", "x", "array", array_source([1, 2], [[1], [2]]))
        for n in range(50):
            url = f"/array/full/x?offset={n},0&shape=1,2&extend=true"
            client.patch(url, content=numpy.full(2, float(n)).tobytes(), headers=OCTETS).raise_for_status()
        assert server.stop() == 0
    (tmp_path / "catalog.db.log").rename(tmp_path / "the log is not needed any more")
    with serving(*arguments, directory=tmp_path) as server, server.client() as client:
        cells = numpy.frombuffer(client.get("/array/full/x").raise_for_status().content).reshape(-1, 2)
        assert cells[:, 0].tolist() == [float(n) for n in range(50)]
        url = "/array/full/x?offset=50,0&shape=1,2&extend=true"
        client.patch(url, content=bytes(16), headers=OCTETS).raise_for_status()
        with server.subscribe("x", start=51) as socket:
            assert msgspec.msgpack.decode(socket.recv(timeout=10))["sequence"] == 51  # I1: they rise on, even without the log
        assert server.stop() == 0


def test_what_retention_let_go_is_announced(tmp_path: Path) -> None:
    environ = {"TILED_STREAM_CACHE_NODE_BYTES": "20000"}
    with serving("--temp", directory=tmp_path, environ=environ) as server, server.client() as client:
        create(client, "", "x", "array", array_source([500], [[500]]))
        for n in range(20):
            client.put("/array/full/x", content=numpy.full(500, float(n)).tobytes(), headers=OCTETS).raise_for_status()
        client.get("/array/full/x?slice=0").raise_for_status()  # persisted now, so that retention may work
        time.sleep(0.2)
        with server.subscribe("x", start=0) as socket:
            gap = msgspec.msgpack.decode(socket.recv(timeout=10))
            assert (gap["type"], gap["first"], gap["reason"]) == ("gap", 1, "truncated")
            rest = [msgspec.msgpack.decode(socket.recv(timeout=10))["sequence"] for _ in range(20 - gap["last"])]
        assert rest == list(range(gap["last"] + 1, 21))
        assert 0 < gap["last"] < 20


def test_a_missing_catalog_is_an_error_that_names_the_cure(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tiled_stream", "serve", "catalog", "nowhere.db", "--port", str(free_port())]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 3
    assert "--init" in run.stderr
    assert "Traceback" not in run.stderr
