"""The health check of the container: alive, ready, and why not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.run import running
from tests.servers.processes import free_port
from tiled_stream.healthcheck import main


class Sick(BaseHTTPRequestHandler):
    """Lives, but is not ready."""

    def do_GET(self) -> None:
        body = b'{"detail":"Redis does not answer."}'
        self.send_response(200 if self.path == "/healthz" else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quietly."""


@pytest.fixture
def sick() -> Iterator[dict[str, str]]:
    with HTTPServer(("127.0.0.1", 0), Sick) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield {"TILED_STREAM_PORT": str(server.server_address[1])}
        server.shutdown()
        thread.join(10)


def test_a_real_server_as_the_container_asks(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tiled_stream.healthcheck"]
    with running.serving("--temp", "--host", "0.0.0.0", errors=tmp_path / "errors") as server:
        # A proxy that is not there must not be asked.
        environ = os.environ | {"TILED_STREAM_PORT": str(server.port), "http_proxy": f"http://127.0.0.1:{free_port()}"}
        for words in ([], ["--ready"]):
            done = subprocess.run([*command, *words], env=environ, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert server.stop() == 0
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "refused" in done.stderr


def test_alive_is_not_ready(sick: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], sick) == 0
    assert main(["--ready"], sick) == 1
    said = capsys.readouterr().err
    assert "answers 503" in said
    assert "Redis does not answer." in said


@pytest.mark.parametrize("host", ["", "0.0.0.0", "127.0.0.1"])
def test_it_asks_where_the_server_listens(sick: dict[str, str], host: str) -> None:
    assert main([], sick | {"TILED_STREAM_HOST": host}) == 0


@pytest.mark.parametrize("port", ["", "eighty", "-1", "99999"])
def test_a_port_that_cannot_be(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], {"TILED_STREAM_PORT": port}) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_server_that_hangs_or_speaks_no_http(capsys: pytest.CaptureFixture[str]) -> None:
    """The first accepts and says nothing; the second says something else."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert main([], {"TILED_STREAM_PORT": str(mute.getsockname()[1])}) == 1
        assert "timed out" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        assert main([], {"TILED_STREAM_PORT": str(other.getsockname()[1])}) == 1
        thread.join(10)
        assert "does not answer: 220 mail" in capsys.readouterr().err
