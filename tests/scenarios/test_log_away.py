"""A scan of the real client while Redis is away for some seconds: nothing is lost or doubled, and the scan goes on by itself."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import httpx
import pyarrow
import pytest

from tests.scenarios.server_process import KEY, serving
from tests.servers.redis import redis_server

ROWS = 60
AWAY = 8.0  # seconds; longer than the server waits for Redis, shorter than clients repeat


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_rows_of_the_stock_client_arrive_once(tmp_path: Path, number: int) -> None:
    client_module = pytest.importorskip("tiled.client", reason="the peer is not installed; `make setup` does")
    with redis_server() as redis:
        words = ("catalog.db", "--init", "-w", "data", "-w", "duckdb:///./tables.duckdb", "--cache", redis.url)
        with serving(*words, directory=tmp_path) as server:
            client = client_module.from_uri(server.base, api_key=KEY)
            weakref.finalize(client, client.context.http_client.close)
            schema = pyarrow.schema([("n", pyarrow.int64())])
            table = client.create_appendable_table(schema, key="scan")
            written, doubts = [], []

            def scan() -> None:
                for n in range(ROWS):
                    try:
                        table.append_partition(0, pyarrow.table({"n": [n]}, schema=schema))
                    except httpx.HTTPError as error:  # what was on its way in that moment
                        doubts.append((n, error))
                    else:
                        written.append(n)
                    time.sleep(0.02)

            thread = threading.Thread(target=scan)
            thread.start()
            while len(written) < ROWS // 3:
                time.sleep(0.01)
            redis.stop(number)
            time.sleep(AWAY)
            redis.start()
            thread.join(60)
            assert not thread.is_alive()
            assert_doubts(doubts)
            rows = [int(n) for n in read(table)]
            assert [n for n in rows if n in set(written)] == written  # all of them, once, in order
            assert len(rows) == len(set(rows))
            assert set(rows) - set(written) <= {n for n, _ in doubts}


def read(table: Any) -> list[int]:
    for _ in range(50):
        with contextlib.suppress(httpx.HTTPError):
            return list(table.read()["n"])
        time.sleep(0.2)
    return list(table.read()["n"])


def assert_doubts(doubts: list[tuple[int, httpx.HTTPError]]) -> None:
    """At most the one that was on its way when the server went; everything else was repeated by the client."""
    assert len(doubts) <= 1, doubts
    for _, error in doubts:
        assert isinstance(error, httpx.HTTPStatusError)
        assert error.response.status_code == 503
        assert "may have been written all the same" in error.response.json()["detail"]
