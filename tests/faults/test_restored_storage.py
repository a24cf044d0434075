"""The storage is put back to a backup while the catalog is newer: rows are applied again, or reading them is an error (I4,
I6)."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import numpy
import pyarrow
import pytest

from tests.run import running
from tests.scenarios.server_process import ARROW, OCTETS, ServerProcess, array_source, create, serving
from tests.servers.postgres import new_database
from tests.servers.processes import until
from tests.servers.redis import redis_server


def append(client: httpx.Client, first: int, last: int) -> None:
    for n in range(first, last + 1):
        answer = client.patch("/table/partition/t?partition=0", content=running.rows(n), headers=ARROW)
        answer.raise_for_status()


def rows(client: httpx.Client) -> httpx.Response:
    return client.get("/table/full/t", headers={"Accept": ARROW["Content-Type"]})


def numbers(answer: httpx.Response) -> list[int]:
    table: Any = pyarrow.ipc.open_file(answer.content).read_all()
    return list(table["n"].to_pylist())


def persist(client: httpx.Client) -> None:
    """Everything that was written is in storage when this returns."""
    until(lambda: rows(client).status_code == 200, "the rows can be read")
    until(lambda: "tiled_stream_backlog_records 0.0" in client.get("/metrics").text, "nothing is pending")


def assert_healed(server: ServerProcess, client: httpx.Client, wanted: list[int]) -> None:
    """Until the rows are there again, reading them is an error; never fewer rows with 200."""

    def is_healed() -> bool:
        answer = rows(client)
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200

    until(is_healed, f"the rows are applied again: {server.log()[-2000:]}", seconds=60)
    assert numbers(rows(client)) == wanted


@pytest.mark.parametrize("kept", ["a backup", "nothing"])
def test_duckdb_file_that_was_put_back(tmp_path: Path, kept: str) -> None:
    words = ("catalog.db", "--init", "-w", "data", "-w", "duckdb:///./tables.duckdb")
    with serving(*words, directory=tmp_path) as server, server.client() as client:
        create(client, "", "t", "table", running.table("t")["data_sources"][0])
        append(client, 1, 10)
        persist(client)
        server.stop()
    backup = tmp_path / "backup.duckdb"
    shutil.copy(tmp_path / "tables.duckdb", backup)
    with serving(*words, directory=tmp_path) as server, server.client() as client:
        append(client, 11, 20)
        persist(client)
        server.stop()
    for path in tmp_path.glob("tables.duckdb*"):
        path.unlink()
    if kept == "a backup":
        shutil.copy(backup, tmp_path / "tables.duckdb")
    with serving(*words, directory=tmp_path) as server, server.client() as client:
        assert_healed(server, client, list(range(1, 21)))
        append(client, 21, 21)
        assert numbers(rows(client)) == list(range(1, 22))


def put_array(client: httpx.Client, value: float) -> None:
    client.put("/array/full/x", content=numpy.full(4, value).tobytes(), headers=OCTETS).raise_for_status()


def read_array(client: httpx.Client) -> httpx.Response:
    return client.get("/array/full/x", headers={"Accept": "application/octet-stream"})


def test_array_directory_that_was_put_back(tmp_path: Path) -> None:
    words = ("catalog.db", "--init", "-w", "data", "-w", "duckdb:///./tables.duckdb")
    with serving(*words, directory=tmp_path) as server, server.client() as client:
        create(client, "", "x", "array", array_source([4], [[4]]))
        put_array(client, 1.0)
        assert read_array(client).status_code == 200
        server.stop()
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    with serving(*words, directory=tmp_path) as server, server.client() as client:
        put_array(client, 2.0)
        assert read_array(client).status_code == 200
        server.stop()
    shutil.rmtree(tmp_path / "data")
    shutil.copytree(tmp_path / "backup", tmp_path / "data")
    with serving(*words, directory=tmp_path) as server, server.client() as client:
        until(lambda: read_array(client).status_code == 200, "the array can be read", seconds=60)
        assert numpy.frombuffer(read_array(client).content).tolist() == [2.0] * 4


def test_directory_that_comes_back_older_while_the_server_runs(tmp_path: Path) -> None:
    """A snapshot is mounted in the place of the file system: the server compares again, without a restart."""
    words = ("catalog.db", "--init", "-w", "data", "-w", "duckdb:///./tables.duckdb")
    with serving(*words, directory=tmp_path) as server, server.client() as client:
        create(client, "", "x", "array", array_source([4], [[4]]))
        put_array(client, 1.0)
        assert read_array(client).status_code == 200
        shutil.copytree(tmp_path / "data", tmp_path / "snapshot")
        put_array(client, 2.0)
        assert numpy.frombuffer(read_array(client).content).tolist() == [2.0] * 4
        (tmp_path / "data").rename(tmp_path / "away")
        (tmp_path / "snapshot").rename(tmp_path / "data")

        def is_healed() -> bool:
            answer = read_array(client)
            assert answer.status_code in (200, 503), answer.text
            if answer.status_code == 200:
                assert numpy.frombuffer(answer.content).tolist() == [2.0] * 4  # never the older cells
            return answer.status_code == 200

        until(is_healed, "the cells are applied again", seconds=60)


def test_postgresql_storage_that_was_put_back(postgres_url: str, tmp_path: Path) -> None:
    with new_database(postgres_url) as catalog, new_database(postgres_url) as storage, redis_server() as redis:
        words = (catalog, "--init", "-w", "data", "-w", storage, "--cache", redis.url)
        with serving(*words, directory=tmp_path) as server, server.client() as client:
            create(client, "", "t", "table", running.table("t")["data_sources"][0])
            append(client, 1, 10)
            persist(client)
            server.stop()
        name = urlsplit(storage).path[1:]
        asyncio.run(admin(postgres_url, f'CREATE DATABASE "{name}_backup" TEMPLATE "{name}"'))
        with serving(*words, directory=tmp_path) as server, server.client() as client:
            append(client, 11, 20)
            persist(client)
            server.stop()
        asyncio.run(admin(postgres_url, f'DROP DATABASE "{name}"', f'CREATE DATABASE "{name}" TEMPLATE "{name}_backup"'))
        with serving(*words, directory=tmp_path) as server, server.client() as client:
            assert_healed(server, client, list(range(1, 21)))
            append(client, 21, 21)
            assert numbers(rows(client)) == list(range(1, 22))
        asyncio.run(admin(postgres_url, f'DROP DATABASE "{name}_backup"'))


async def admin(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
