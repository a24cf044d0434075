"""A real server in a process of its own, as an operator starts it, and a few words to speak to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.servers.processes import free_port

KEY = "secret"
OCTETS = {"Content-Type": "application/octet-stream"}
ARROW = {"Content-Type": "application/vnd.apache.arrow.file"}


class ServerProcess:
    """`arguments` are those of `tiled-stream serve catalog`."""

    def __init__(self, *arguments: str, directory: Path, environ: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}/api/v1"
        self._log = directory / "server.log"
        command = [sys.executable, "-m", "tiled_stream", "serve", "catalog", *arguments]
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--api-key", KEY, "--port", str(self.port)],
                stdout=log,
                stderr=log,
                env={**os.environ, **(environ or {})},
                cwd=directory,
            )
        self._wait()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.base, headers={"Authorization": f"Apikey {KEY}"}, timeout=30)

    @contextlib.contextmanager
    def subscribe(self, path: str, *, start: int | None = 0) -> Iterator[ClientConnection]:
        """A socket that has had its schema."""
        query = "" if start is None else f"&start={start}"
        uri = f"{self.base.replace('http', 'ws', 1)}/stream/single/{path}?envelope_format=msgpack{query}"
        with connect(
            uri, additional_headers={"Authorization": f"Apikey {KEY}"}, max_size=None, compression=None, close_timeout=0.1
        ) as opened:
            opened.recv(timeout=20)
            yield opened

    def stop(self, number: int = signal.SIGTERM, *, seconds: float = 20) -> int:
        """Send a signal and wait; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def log(self) -> str:
        return self._log.read_text()

    def _wait(self) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}: {self.log()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if b" 200" in sock.recv(64):
                    return
            time.sleep(0.02)
        raise AssertionError(f"the server did not become healthy: {self.log()}")


@contextlib.contextmanager
def serving(*arguments: str, directory: Path, environ: dict[str, str] | None = None) -> Iterator[ServerProcess]:
    """A server that is gone afterwards, whatever happens."""
    server = ServerProcess(*arguments, directory=directory, environ=environ)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(10)


def array_source(shape: list[int], chunks: list[list[int]]) -> dict[str, Any]:
    data_type = {"endianness": "little", "kind": "f", "itemsize": 8, "dt_units": None}
    structure = {"data_type": data_type, "chunks": chunks, "shape": shape, "dims": None, "resizable": False}
    return {"structure_family": "array", "structure": structure, "mimetype": None}


def create(client: httpx.Client, parent: str, key: str, family: str = "container", source: dict[str, Any] | None = None) -> None:
    body = {
        "id": key,
        "structure_family": family,
        "metadata": {"key": key},
        "specs": [],
        "data_sources": [source] if source else [],
    }
    client.post(f"/metadata/{parent}", content=json.dumps(body)).raise_for_status()
