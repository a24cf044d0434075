"""The directory of arrays is not mounted for a while: an error that names it, never zeros, and nothing lands below the mount
point."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy
import pyarrow
import pytest

from tests.scenarios.server_process import ARROW, OCTETS, ServerProcess, array_source, create, serving
from tests.servers.processes import until

SCHEMA = pyarrow.schema([("n", pyarrow.int64())])
ENVIRON = {"TILED_STREAM_BARRIER_TIMEOUT_SECONDS": "1"}
WORDS = ("catalog.db", "--init", "-w", "data", "-w", "duckdb:///./tables.duckdb")
PERSISTED = {"X-Tiled-Ack": "persisted"}


@contextlib.contextmanager
def not_mounted(directory: Path) -> Iterator[Path]:
    """An empty directory stands where the file system was, as below a mount point."""
    data, kept = directory / "data", directory / "kept"
    data.rename(kept)
    data.mkdir()
    try:
        yield data
    finally:
        assert list(data.iterdir()) == []
        data.rmdir()
        kept.rename(data)


def table_source() -> dict[str, Any]:
    from tiled_stream.wire.tables import structure_of

    structure = structure_of(SCHEMA)
    source = {"arrow_schema": structure.arrow_schema, "npartitions": 1, "columns": ["n"], "resizable": False}
    return {"structure_family": "table", "structure": source, "mimetype": None}


def arrow(*numbers: int) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_table(pyarrow.table({"n": list(numbers)}, schema=SCHEMA))
    return bytes(sink.getvalue())


def filled(server: ServerProcess, client: httpx.Client) -> None:
    create(client, "", "x", "array", array_source([4], [[2, 2]]))
    create(client, "", "files", "table", table_source())
    write(client, 1.0, 1, **PERSISTED)


def write(client: httpx.Client, value: float, row: int, **headers: str) -> list[int]:
    cells = client.put("/array/full/x", content=numpy.full(4, value).tobytes(), headers={**OCTETS, **headers})
    rows = client.patch("/table/partition/files?partition=0", content=arrow(row), headers={**ARROW, **headers})
    return [cells.status_code, rows.status_code]


def reads(client: httpx.Client) -> list[httpx.Response]:
    return [
        client.get("/array/full/x", headers={"Accept": "application/octet-stream"}),
        client.get("/array/block/x?block=1", headers={"Accept": "application/octet-stream"}),
        client.get("/table/full/files", headers={"Accept": ARROW["Content-Type"]}),
    ]


def assert_refused(answers: list[httpx.Response], data: Path) -> None:
    for answer in answers:
        assert answer.status_code == 503, answer.text
        assert str(data) in answer.json()["detail"]


def test_reads_are_refused_and_writes_wait_until_it_is_mounted_again(tmp_path: Path) -> None:
    with serving(*WORDS, directory=tmp_path, environ=ENVIRON) as server, server.client() as client:
        filled(server, client)
        assert [answer.status_code for answer in reads(client)] == [200] * 3
        with not_mounted(tmp_path) as data:
            assert_refused(reads(client), data)
            assert write(client, 2.0, 2) == [200, 200]  # into the log
            assert write(client, 3.0, 3, **PERSISTED) == [503, 503]  # in the log, and not in storage
            create(client, "", "born", "array", array_source([4], [[4]]))
            client.put("/array/full/born", content=numpy.full(4, 5.0).tobytes(), headers=OCTETS).raise_for_status()
            text = client.get("/metrics").text
            assert "tiled_stream_identity_mismatches_total" in text
        until(lambda: reads(client)[0].status_code == 200, "the array can be read again", seconds=30)
        assert numpy.frombuffer(reads(client)[0].content).tolist() == [3.0] * 4
        until(lambda: reads(client)[2].status_code == 200, "the table can be read again", seconds=30)
        table: Any = pyarrow.ipc.open_file(reads(client)[2].content).read_all()
        assert table["n"].to_pylist() == [1, 2, 3]
        born = client.get("/array/full/born", headers={"Accept": "application/octet-stream"})
        assert numpy.frombuffer(born.content).tolist() == [5.0] * 4


def test_server_that_starts_without_it_takes_writes_and_refuses_reads(tmp_path: Path) -> None:
    with serving(*WORDS, directory=tmp_path, environ=ENVIRON) as server, server.client() as client:
        filled(server, client)
        assert server.stop() == 0
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(not_mounted(tmp_path))
        server = stack.enter_context(serving(*WORDS, directory=tmp_path, environ=ENVIRON))
        client = stack.enter_context(server.client())
        assert_refused(reads(client), data)
        assert write(client, 2.0, 2) == [200, 200]
        assert_refused(reads(client)[:1], data)
        assert str(data) in server.log()
        server.process.kill()
    with serving(*WORDS, directory=tmp_path, environ=ENVIRON) as server, server.client() as client:
        until(lambda: reads(client)[0].status_code == 200, "the array can be read again", seconds=30)
        assert numpy.frombuffer(reads(client)[0].content).tolist() == [2.0] * 4


def test_directory_of_another_deployment_is_refused(tmp_path: Path) -> None:
    with serving(*WORDS, directory=tmp_path) as server, server.client() as client:
        filled(server, client)
        server.stop()
    other = ("other.db", "--init", "-w", "data", "-w", "duckdb:///./other.duckdb")
    with serving(*other, directory=tmp_path, environ=ENVIRON) as server, server.client() as client:
        create(client, "", "x", "array", array_source([4], [[4]]))
        answer = client.get("/array/full/x", headers={"Accept": "application/octet-stream"})
        assert answer.status_code == 503
        assert "belongs to the deployment" in answer.json()["detail"]


@pytest.mark.parametrize("missing", ["catalog.db", "catalog.db.log"])
def test_database_file_that_is_removed_takes_no_acknowledgement_along(tmp_path: Path, missing: str) -> None:
    """An open file goes on taking writes after it was removed; nothing may be acknowledged into it."""
    with serving(*WORDS, directory=tmp_path, environ=ENVIRON) as server, server.client() as client:
        filled(server, client)
        (tmp_path / missing).rename(tmp_path / "kept.db")
        answer = client.put("/array/full/x", content=numpy.full(4, 2.0).tobytes(), headers={**OCTETS, **PERSISTED})
        assert answer.status_code in (429, 503), answer.text
        assert missing in answer.json()["detail"]
        (tmp_path / "kept.db").rename(tmp_path / missing)

        def is_written() -> bool:
            answer = client.put("/array/full/x", content=numpy.full(4, 3.0).tobytes(), headers={**OCTETS, **PERSISTED})
            return answer.status_code == 200

        until(is_written, "writes go on when the file is back")
        assert numpy.frombuffer(reads(client)[0].content).tolist() == [3.0] * 4
