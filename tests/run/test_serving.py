"""One process and its sockets: how it stops, what it negotiates, and clients that do not read."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from hypercorn.config import Config
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.run import running
from tests.run.running import Running
from tiled_stream.run import hypercorn_patches
from tiled_stream.run.serving import hypercorn_config, listening_socket
from tiled_stream.run.settings import SettingsError

MiB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running.serving("--temp", errors=tmp_path_factory.mktemp("server") / "errors") as server:
        yield server
        assert server.stop() == 0


def until_closed(opened: ClientConnection) -> tuple[list[Any], int]:
    """What comes until the server closes, and the code with which it does; torn without a close: code 1006."""
    messages: list[Any] = []
    while True:
        try:
            messages.append(msgspec.msgpack.decode(opened.recv(20)))
        except ConnectionClosed as closed:
            return messages, closed.rcvd.code if closed.rcvd else 1006


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_with_sockets_open(tmp_path: Path, number: signal.Signals) -> None:
    """Status 0 within a second or so, every stream told to come back, idle connections no hindrance, the directory gone."""
    with running.serving("--temp", errors=tmp_path / "errors") as server, ExitStack() as stack:
        directory = next(word for word in server.errors.read_text().split() if word.endswith("/catalog.db"))
        server.ok("POST", "/metadata/", json=running.array("x", 8))  # keeps its connection
        sockets = [stack.enter_context(server.subscribe(path)) for path in ["x"] * 10 + [""] * 10]
        for opened in sockets:
            opened.recv(10)
        begin = time.monotonic()
        server.process.send_signal(number)
        assert {until_closed(opened)[1] for opened in sockets} == {1012}
        assert server.process.wait(20) == 0
        assert time.monotonic() - begin < 2.5  # 0.2 on a quiet machine; waiting for the sockets to time out would take 3
        assert "Traceback" not in server.errors.read_text()
        assert not Path(directory).parent.exists()


def test_what_was_acknowledged_before_a_stop_is_delivered_before_the_close(tmp_path: Path) -> None:
    with running.serving("--temp", errors=tmp_path / "errors") as server:
        server.ok("POST", "/metadata/", json=running.array("x", 1))
        with server.subscribe("x") as opened:
            opened.recv(10)
            for n in range(300):
                server.ok("PUT", "/array/full/x", content=running.cells(n))
            server.process.terminate()
            messages, code = until_closed(opened)
        assert code == 1012
        # What had not reached the tail is asked for again with start=; what came is without a hole.
        assert [message["sequence"] for message in messages] == list(range(1, len(messages) + 1))
        assert server.process.wait(20) == 0


def test_nothing_is_deflated(server: Running) -> None:
    with connect(running.stream_url(server.port, ""), additional_headers=running.AUTH, compression="deflate") as opened:
        assert opened.response is not None
        assert "Sec-WebSocket-Extensions" not in opened.response.headers


def test_what_every_connection_inherits() -> None:
    with listening_socket("127.0.0.1", 0, send_timeout_seconds=7.5) as listening:
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7500
        with pytest.raises(SettingsError, match="choose another --port"):
            listening_socket("127.0.0.1", listening.getsockname()[1], send_timeout_seconds=7.5)


def test_it_listens_on_ipv6(tmp_path: Path) -> None:
    try:
        listening_socket("::1", 0, send_timeout_seconds=1).close()
    except SettingsError:
        pytest.skip("this machine has no IPv6")
    with running.serving("--temp", "--host", "::1", errors=tmp_path / "errors") as server:
        health = server.client.get(f"http://[::1]:{server.port}/healthz")
        assert health.json() == {"status": "ready"}
        assert server.stop() == 0


def test_a_client_that_reads_nothing_is_let_go(tmp_path: Path) -> None:
    """Within its time, socket and all, though it neither leaves nor reads; one that reads slowly stays."""
    environment = {"TILED_STREAM_SEND_TIMEOUT_SECONDS": "1"}
    with running.serving("--temp", errors=tmp_path / "errors", environment=environment) as server:
        server.ok("POST", "/metadata/", json=running.array("x", MiB // 8))
        process = psutil.Process(server.process.pid)
        before = len(process.net_connections())
        mute = socket.socket()
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        mute.connect(("127.0.0.1", server.port))
        key = f"Authorization: Apikey {running.KEY}\r\n"
        mute.sendall(
            b"GET /api/v1/stream/single/x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" + key.encode() + b"\r\n"
        )
        with mute, server.subscribe("x") as slow:
            assert b" 101 " in mute.recv(100)
            messages = running.updates(slow)
            for n in range(12):  # more than the kernel's buffers hold
                server.ok("PUT", "/array/full/x", content=running.cells(*[n] * (MiB // 8)))
            until = time.monotonic() + 20
            while len(process.net_connections()) > before + 1 and time.monotonic() < until:
                time.sleep(0.05)
            assert len(process.net_connections()) == before + 1  # the slow one
            for n in range(12):
                time.sleep(0.1)
                message = next(messages)
                assert (message["sequence"], running.cells_of(message["payload"])[0]) == (n + 1, n)
        assert server.stop() == 0
        assert "Traceback" not in server.errors.read_text()


def test_many_requests_over_one_connection_and_a_long_query(server: Running) -> None:
    for _ in range(1200):  # hypercorn's own limit would be 1000
        response = server.client.get("/")
    assert response.status_code == 200
    query = '"' + "x" * 60_000 + '"'  # its own limit for a head would be 16 KiB
    found = server.ok("GET", "/search/", params={"filter[eq][condition][key]": "a", "filter[eq][condition][value]": query})
    assert found["data"] == []


def test_with_another_hypercorn_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypercorn_patches, "version", lambda name: "0.19.1")
    assert hypercorn_patches.install() is False


def test_the_patches_fit_the_version_that_is_installed() -> None:
    assert hypercorn_patches.install() is True
    assert hypercorn_patches.install() is True  # once


def test_logs_and_pings_are_ours() -> None:
    config, plain = hypercorn_config(), Config()
    assert config.accesslog is None
    assert (config.websocket_ping_interval or 0) < (config.read_timeout or 0)  # an answered ping is a sign of life
    assert plain.websocket_ping_interval is None


def test_it_starts_quickly_and_small(tmp_path: Path) -> None:
    """Measured: 0.8 s and 150 MB on a quiet machine, of which DuckDB and pyarrow take 65; here with room for a busy one."""
    begin = time.monotonic()
    with running.serving("--temp", errors=tmp_path / "errors") as server:
        assert server.client.get(f"http://127.0.0.1:{server.port}/healthz").status_code == 200
        assert time.monotonic() - begin < 6
        assert psutil.Process(server.process.pid).memory_info().rss < 165e6
        assert server.stop() == 0
