"""A server as it is really run: a process with sockets, and the few words a client needs to use it.

Nothing here uses the code under test to build or judge what goes over the wire: bodies are JSON, numpy and Arrow, streams are
read with `websockets`. Stop what you start: `Running` is a context manager that kills what is left.
"""

from __future__ import annotations

import base64
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import msgspec
import numpy
import pyarrow
from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).parents[2]
KEY = "secret"
AUTH = {"Authorization": f"Apikey {KEY}"}
ARROW = {"Accept": "application/vnd.apache.arrow.file"}
ROWS = pyarrow.schema([("n", pyarrow.int64())])
_START_SECONDS = 60


class Running:
    """A server process that listens. `errors`: where its standard error goes."""

    def __init__(self, command: Sequence[str], errors: Path, environment: dict[str, str] | None = None) -> None:
        self.errors = errors
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TILED_")}
        with errors.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environ | (environment or {}), stderr=output, stdout=output)
        try:
            self.port = self._announced()
        except BaseException:
            self.kill()
            raise
        self.url = f"http://127.0.0.1:{self.port}/api/v1"
        self.client = httpx.Client(base_url=self.url, headers=AUTH, timeout=30)

    def _announced(self) -> int:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if found := re.search(r"http://\S+:(\d+)", self.errors.read_text()):
                return int(found[1])
            assert self.process.poll() is None, f"It did not start ({self.process.returncode}): {self.errors.read_text()}"
            time.sleep(0.01)
        raise AssertionError(f"It did not start in {_START_SECONDS} s: {self.errors.read_text()}")

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def kill(self) -> None:
        """`kill -9`, if it still runs."""
        if hasattr(self, "client"):
            self.client.close()
        self.process.kill()
        self.process.wait(20)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 20) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def ok(self, method: str, path: str, **options: Any) -> Any:
        """A request that must succeed; its JSON."""
        response = self.client.request(method, path, **options)
        assert response.status_code == 200, (response.status_code, response.text)
        return response.json()

    def subscribe(self, path: str, start: int | None = None) -> ClientConnection:
        """A stream in msgpack."""
        return connect(stream_url(self.port, path, start), additional_headers=AUTH, max_size=None, close_timeout=1, proxy=None)

    def replay(self, path: str, count: int) -> list[dict[str, Any]]:
        """The first `count` messages after the schema, from the beginning of the stream."""
        with self.subscribe(path, 0) as socket:
            messages = updates(socket)
            return [next(messages) for _ in range(count)]


def serving(*arguments: str, errors: Path, environment: dict[str, str] | None = None) -> Running:
    """`tiled-stream serve catalog` with these arguments, on a free port."""
    return Running(command_of(*arguments), errors, environment)


def command_of(*arguments: str) -> list[str]:
    """The words that start it."""
    return [sys.executable, "-m", "tiled_stream", "serve", "catalog", *arguments, "--port", "0", "--api-key", KEY]


def start_and_kill(*arguments: str, seconds: float) -> None:
    """Start it, and `kill -9` it after so long, whether it listens by then or is still recovering."""
    with subprocess.Popen(command_of(*arguments), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        time.sleep(seconds)
        process.kill()


def stream_url(port: int, path: str, start: int | None = None) -> str:
    """Where a stream is."""
    query = "envelope_format=msgpack" + ("" if start is None else f"&start={start}")
    return f"ws://127.0.0.1:{port}/api/v1/stream/single/{path}?{query}"


def updates(socket: ClientConnection, timeout: float = 30) -> Iterator[dict[str, Any]]:
    """What comes after the schema, decoded; raises `ConnectionClosed` at the end."""
    first = msgspec.msgpack.decode(socket.recv(timeout))
    assert first["type"].endswith("-schema"), first
    while True:
        yield msgspec.msgpack.decode(socket.recv(timeout))


def container(key: str) -> dict[str, Any]:
    """The body that makes a container."""
    return {"id": key, "structure_family": "container", "metadata": {}, "specs": [], "data_sources": []}


def array(key: str, length: int) -> dict[str, Any]:
    """The body that makes an array of `length` int64 in chunks of 64."""
    chunks = [min(64, length - begin) for begin in range(0, length, 64)] or [0]
    structure = {
        "data_type": {"endianness": "little", "kind": "i", "itemsize": 8, "dt_units": None},
        "chunks": [chunks],
        "shape": [length],
        "dims": None,
        "resizable": False,
    }
    source = {"structure_family": "array", "structure": structure, "management": "writable"}
    return container(key) | {"structure_family": "array", "data_sources": [source]}


def table(key: str) -> dict[str, Any]:
    """The body that makes a table with one column `n` of int64."""
    encoded = base64.b64encode(ROWS.serialize().to_pybytes()).decode()
    structure = {
        "arrow_schema": f"data:application/vnd.apache.arrow.file;base64,{encoded}",
        "npartitions": 1,
        "columns": ROWS.names,
        "resizable": False,
    }
    source = {
        "structure_family": "table",
        "structure": structure,
        "mimetype": "application/x-tiled-sql-table",
        "management": "writable",
    }
    return container(key) | {"structure_family": "table", "data_sources": [source]}


def rows(*numbers: int) -> bytes:
    """An Arrow file with these values of `n`."""
    sink = io.BytesIO()
    with pyarrow.ipc.new_file(sink, ROWS) as writer:
        writer.write_table(pyarrow.table([pyarrow.array(numbers, pyarrow.int64())], schema=ROWS))
    return sink.getvalue()


def numbers_of(payload: bytes) -> list[int]:
    """The values of `n` in an Arrow file."""
    with pyarrow.ipc.open_file(io.BytesIO(payload)) as reader:
        return reader.read_all()["n"].to_pylist()


def cells(*numbers: int) -> bytes:
    """These numbers as the body of an array write."""
    return numpy.array(numbers, dtype="<i8").tobytes()


def cells_of(payload: bytes) -> list[int]:
    """The numbers of an array body."""
    return numpy.frombuffer(payload, dtype="<i8").tolist()
