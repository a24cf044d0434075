"""Two servers, one of which does nothing for a while: it holds no lease, is not killed, and must not undo what the other one
did."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy

from tests.scenarios.replicas import KEY, Replica
from tests.scenarios.server_process import OCTETS, array_source, create
from tests.servers.postgres import new_database
from tests.servers.processes import free_port
from tests.servers.redis import redis_server

EDGE = 64
PERSISTED = {**OCTETS, "X-Tiled-Ack": "persisted"}


@contextlib.contextmanager
def two_servers(postgres_url: str, directory: Path) -> Iterator[tuple[Replica, Replica]]:
    with new_database(postgres_url) as catalog, new_database(postgres_url) as storage, redis_server() as redis:
        arguments = [
            *("serve", "catalog", catalog, "--init", "--scalable", "--api-key", KEY),
            *("-w", str(directory / "arrays"), "-w", storage, "--cache", redis.url, "--host", "127.0.0.1"),
        ]
        servers = [Replica(free_port(), arguments, directory / f"server{n}.log") for n in (1, 2)]
        try:
            for server in servers:
                server.wait()
            yield servers[0], servers[1]
        finally:
            for server in servers:
                os.kill(server.process.pid, signal.SIGCONT)
                server.process.kill()


def client(server: Replica) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{server.port}/api/v1", headers={"Authorization": f"Apikey {KEY}"}, timeout=60)


@contextlib.contextmanager
def stopped(server: Replica) -> Iterator[None]:
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def extend(to: httpx.Client, n: int) -> None:
    url = f"/array/full/camera?offset={n},0,0&shape=1,{EDGE},{EDGE}&extend=true"
    to.patch(url, content=numpy.full((EDGE, EDGE), n + 1.0).tobytes(), headers=PERSISTED).raise_for_status()


def frames(of: httpx.Client, count: int) -> list[float]:
    answer = of.get("/array/full/camera?slice=:,0,0", headers={"Accept": "application/octet-stream"})
    answer.raise_for_status()
    values = numpy.frombuffer(answer.content)
    assert len(values) == count
    return list(values)


def test_server_that_was_idle_does_not_blacken_frames_of_the_other(postgres_url: str, tmp_path: Path) -> None:
    with two_servers(postgres_url, tmp_path) as (first, second), client(first) as one, client(second) as two:
        create(one, "", "camera", "array", array_source([2, EDGE, EDGE], [[2], [EDGE], [EDGE]]))
        with stopped(second):
            extend(one, 0)
        with stopped(first):
            for n in range(1, 7):
                extend(two, n)
        with stopped(second):
            extend(one, 7)
        wanted = [n + 1.0 for n in range(8)]
        assert frames(one, 8) == wanted
        assert frames(two, 8) == wanted
