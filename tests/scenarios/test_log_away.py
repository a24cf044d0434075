"""Redis cannot be reached for some seconds. A scan of the real client continues, no row is lost or doubled, streams stay open."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyarrow
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.run import running
from tests.scenarios.server_process import ARROW, KEY, ServerProcess, serving
from tests.servers.processes import until
from tests.servers.redis import RedisServer, redis_server

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


# ------------------------------------------------------------------ streams


@contextlib.contextmanager
def away(redis: RedisServer, server: ServerProcess, number: int) -> Any:
    """Redis hangs, or is gone, until the body ends."""
    if number == signal.SIGSTOP:
        os.kill(redis.pid, signal.SIGSTOP)
    else:
        redis.stop(number)
    try:
        if number != signal.SIGSTOP:
            until(lambda: "Streams stay connected and wait" in server.log(), "the outage is in the log", seconds=60)
        yield
    finally:
        if number == signal.SIGSTOP:
            os.kill(redis.pid, signal.SIGCONT)
        else:
            redis.start()


def append(client: httpx.Client, key: str, *numbers: int) -> None:
    """Until it is acknowledged; only what certainly did nothing is repeated."""
    for number in numbers:
        for _ in range(60):
            answer = client.patch(f"/table/partition/{key}?partition=0", content=running.rows(number), headers=ARROW)
            if answer.status_code != 429:
                break
            time.sleep(0.2)
        assert answer.status_code == 200, answer.text


def received(socket: ClientConnection, count: int) -> list[int]:
    """Sequences of the next updates."""
    sequences: list[int] = []
    while len(sequences) < count:
        message = socket.recv(timeout=60)
        said = json.loads(message) if isinstance(message, str) else msgspec.msgpack.decode(message)
        body = said[2] if isinstance(said, list) else said
        assert body["type"] != "gap", body
        if "sequence" in body:
            sequences.append(body["sequence"])
    return sequences


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_same_sockets_deliver_after_redis_was_away(tmp_path: Path, number: int) -> None:
    with redis_server() as redis:
        words = ("catalog.db", "--init", "-w", "data", "-w", "duckdb:///./tables.duckdb", "--cache", redis.url)
        with serving(*words, directory=tmp_path) as server, server.client() as client, contextlib.ExitStack() as stack:
            for key in ("a", "b"):
                client.post("/metadata/", json=running.table(key)).raise_for_status()
                append(client, key, 1, 2, 3)
            sockets = [stack.enter_context(server.subscribe(key)) for key in ("a", "b")]
            many = stack.enter_context(
                connect(
                    server.base.replace("http", "ws", 1) + "/stream/many",
                    additional_headers={"Authorization": f"Apikey {KEY}"},
                    close_timeout=0.1,
                )
            )
            many.send(json.dumps({"type": "subscribe", "id": 1, "path": "a", "start": 0}))
            for socket in (*sockets, many):
                assert received(socket, 3) == [1, 2, 3]
            time.sleep(1.0)  # Redis writes its file each second: what is acknowledged by now survives a kill
            with away(redis, server, number):
                many.send(json.dumps({"type": "ping", "id": 5}))
                while "pong" not in str(many.recv(timeout=20)):
                    pass
                if number == signal.SIGKILL:
                    with pytest.raises(InvalidStatus, match="503"), server.subscribe("a"):
                        pass
                else:
                    time.sleep(AWAY)
            for key in ("a", "b"):
                append(client, key, 4, 5)
            for socket in (*sockets, many):
                assert received(socket, 2) == [4, 5]
            assert server.log().count("Streams stay connected and wait") <= 3  # sentences, not tries or streams
            assert "Traceback" not in server.log()
