"""A persistent server on one port that can be stopped and started, and a writer that speaks plain HTTP to it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy
import pyarrow

from tests.http.conftest import array_structure, table_structure
from tests.servers.processes import free_port

KEY = "secret"
ROOT = Path(__file__).parents[2]
ARROW = {"Content-Type": "application/vnd.apache.arrow.file"}
OCTETS = {"Content-Type": "application/octet-stream"}


class Served:
    """`stop()` and `start()` keep port and data. A context manager that leaves no process behind."""

    def __init__(self, directory: Path, *, config: str | None = None, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        plain = ["catalog", "catalog.db", "--init", "-w", "data", "-w", f"duckdb:///{directory}/tables.duckdb", "--api-key", KEY]
        self._words = ["serve", *(["config", config] if config else plain)]
        self._environment = {n: v for n, v in os.environ.items() if not n.startswith("TILED_")} | environment
        self.client = httpx.Client(base_url=f"{self.url}/api/v1", headers={"Authorization": f"Apikey {KEY}"}, timeout=30)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Served:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)

    def start(self) -> None:
        command = [sys.executable, "-m", "tiled_stream", *self._words, "--port", str(self.port)]
        environment = self._environment | {"PYTHONPATH": str(ROOT)}
        with (self._directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self._directory, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self._directory / "server.log").read_text()
            try:
                if httpx.get(f"{self.url}/healthz").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError("The server did not start in 60 s.")

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(20) == 0

    def ok(self, method: str, path: str, **options: Any) -> Any:
        """A request that must succeed."""
        response = self.client.request(method, path, **options)
        assert response.status_code == 200, (response.status_code, response.text)
        return response

    def create(self, parent: str, key: str, family: str = "container", **fields: Any) -> None:
        body = {"id": key, "structure_family": family, "metadata": {}, "specs": [], "data_sources": [], **fields}
        self.ok("POST", f"/metadata/{parent}", json=body)

    def run(self, key: str, number: int, fields: list[str], *, columns: pyarrow.Schema) -> str:
        """A run as TiledWriter lays it down, with an empty table; the path of the table."""
        start = {
            "uid": key,
            "scan_id": number,
            "plan_name": "scan",
            "time": time.time(),
            "hints": {"dimensions": [[["motor"], "primary"]]},
        }
        self.create("", key, metadata={"start": start}, specs=[{"name": "BlueskyRun", "version": "3.0"}])
        stream = {"hints": {"det": {"fields": fields}}, "data_keys": {"det": {"units": "counts"}}}
        self.create(key, "primary", metadata=stream, specs=[{"name": "BlueskyEventStream", "version": "3.0"}])
        self.table(f"{key}/primary", "internal", columns)
        return f"{key}/primary/internal"

    def table(self, parent: str, key: str, schema: pyarrow.Schema) -> None:
        source = {
            "structure_family": "table",
            "structure": table_structure(schema),
            "mimetype": "application/x-tiled-sql-table",
            "management": "writable",
        }
        self.create(parent, key, "table", data_sources=[source])

    def append(self, path: str, table: pyarrow.Table) -> None:
        sink = io.BytesIO()
        with pyarrow.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        self.ok("PATCH", f"/table/partition/{path}?partition=0", content=sink.getvalue(), headers=ARROW)

    def array(self, parent: str, key: str, cells: numpy.ndarray) -> None:
        source = {"structure_family": "array", "structure": array_structure(cells, chunks_of(cells)), "management": "writable"}
        self.create(parent, key, "array", data_sources=[source])
        self.ok("PUT", f"/array/full/{parent}/{key}", content=cells.tobytes(), headers=OCTETS)

    def extend(self, path: str, offset: int, cells: numpy.ndarray) -> None:
        place = ",".join([str(offset)] + ["0"] * (cells.ndim - 1))
        shape = ",".join(map(str, cells.shape))
        self.ok("PATCH", f"/array/full/{path}?offset={place}&shape={shape}&extend=true", content=cells.tobytes(), headers=OCTETS)


def chunks_of(cells: numpy.ndarray) -> list[list[int]]:
    """One chunk a frame."""
    return [[1] * cells.shape[0], *([n] for n in cells.shape[1:])]


SCHEMA = pyarrow.schema(
    [("seq_num", pyarrow.int64()), ("time", pyarrow.float64()), ("motor", pyarrow.float64()), ("det", pyarrow.float64())]
)


def points(first: int, count: int) -> pyarrow.Table:
    """Rows of a scan: `motor` goes up, `det` is told by `seq_num`."""
    numbers = numpy.arange(first, first + count)
    return pyarrow.table(
        [numbers + 1, time.time() + numbers * 1e-3, numbers / 10, numpy.cos(numbers / 7) * 100 + numbers], schema=SCHEMA
    )


def det(count: int) -> list[float]:
    """What `points(0, count)` holds in `det`."""
    return [float(v) for v in points(0, count)["det"].to_numpy()]
