"""`tiled-stream check`: says what is missing and where, changes nothing unless told to, and its exit status can be used by a
script."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.test_restored_storage import append, numbers, persist, rows
from tests.run import running
from tests.scenarios.server_process import create, serving

WORDS = ("catalog.db", "-w", "data", "-w", "duckdb:///./tables.duckdb")
#: Persisted records leave the log at once, so that nothing can be applied again.
SHORT = {"TILED_STREAM_CACHE_DATA_TTL": "0", "TILED_STREAM_CACHE_NODE_BYTES": "0", "TILED_STREAM_CACHE_TOTAL_BYTES": "0"}


def check(directory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tiled_stream", "check", *WORDS, *more]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def restored(tmp_path: Path) -> Path:
    """A deployment whose tables are older than its catalog, and whose log has let the records go."""
    with serving(*WORDS, "--init", directory=tmp_path, environ=SHORT) as server, server.client() as client:
        create(client, "", "t", "table", running.table("t")["data_sources"][0])
        append(client, 1, 10)
        persist(client)
        server.stop()
    shutil.copy(tmp_path / "tables.duckdb", tmp_path / "backup.duckdb")
    with serving(*WORDS, directory=tmp_path, environ=SHORT) as server, server.client() as client:
        append(client, 11, 20)
        persist(client)
        server.stop()
    assert check(tmp_path).returncode == 0
    (tmp_path / "tables.duckdb").unlink()
    shutil.move(tmp_path / "backup.duckdb", tmp_path / "tables.duckdb")
    return tmp_path


def test_complete_deployment_exits_with_0(tmp_path: Path) -> None:
    with serving(*WORDS, "--init", directory=tmp_path) as server, server.client() as client:
        create(client, "", "t", "table", running.table("t")["data_sources"][0])
        append(client, 1, 3)
        persist(client)
        server.stop()
    done = check(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 nodes compared: nothing is missing" in done.stdout


def test_storage_behind_the_catalog_is_named_and_exits_with_1(restored: Path) -> None:
    done = check(restored)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "storage behind: /t" in done.stdout
    assert "has records up to 10 of 20" in done.stdout
    assert check(restored).stdout == done.stdout  # it changes nothing


def test_losses_that_a_server_found_are_listed_and_can_be_accepted(restored: Path) -> None:
    with serving(*WORDS, directory=restored, environ=SHORT) as server, server.client() as client:
        append(client, 21, 21)
        answer = rows(client)
        assert answer.status_code == 503
        assert "tiled-stream check" in answer.json()["detail"]
        server.stop()
    done = check(restored)
    assert done.returncode == 1
    assert "records 11 to 20" in done.stdout
    assert check(restored, "--accept").returncode == 0
    assert check(restored).returncode == 0
    with serving(*WORDS, directory=restored, environ=SHORT) as server, server.client() as client:
        persist(client)
        assert numbers(rows(client)) == [*range(1, 11), 21]


def test_missing_storage_is_named(restored: Path) -> None:
    shutil.rmtree(restored / "data", ignore_errors=True)
    (restored / "tables.duckdb").unlink()
    done = check(restored)
    assert done.returncode == 1
    assert "tables.duckdb" in done.stdout
    assert not (restored / "tables.duckdb").exists()  # a check makes nothing


def test_damaged_file_is_named_and_left_as_it_is(restored: Path) -> None:
    tables = restored / "tables.duckdb"
    damaged = bytearray(tables.read_bytes())
    damaged[::997] = b"\xff" * len(damaged[::997])
    tables.write_bytes(damaged)
    done = check(restored)
    assert done.returncode == 1
    assert f"{tables} is damaged" in done.stdout
    assert tables.read_bytes() == bytes(damaged)


def test_file_that_a_server_uses_is_reported_as_not_compared(tmp_path: Path) -> None:
    with serving(*WORDS, "--init", directory=tmp_path) as server, server.client() as client:
        create(client, "", "t", "table", running.table("t")["data_sources"][0])
        append(client, 1, 3)
        persist(client)
        done = check(tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "not compared" in done.stdout
        assert "in use by a server" in done.stdout
        server.stop()
