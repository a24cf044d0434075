"""A deployment as it is scaled: PostgreSQL twice, Redis, several servers, HAProxy in front; all of it real, on loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.haproxy import HAPROXY, haproxy
from tests.servers.postgres import new_database
from tests.servers.processes import Process, free_port, missing, until
from tests.servers.redis import RedisServer, redis_server

KEY = "secret"


class Replica:
    """One server, that can be stopped, killed and started again on its port."""

    def __init__(self, port: int, arguments: list[str], log: Path) -> None:
        self.port = port
        self._arguments = arguments
        self._log = log
        self.process = self._started()

    def start(self) -> None:
        self.process = self._started()
        self.wait()

    def wait(self) -> None:
        until(lambda: self.is_ready() or not self.process.is_running(), "the server is ready", seconds=90)
        assert self.process.is_running(), self.process.words()

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _started(self) -> Process:
        return Process([sys.executable, "-m", "tiled_stream", *self._arguments, "--port", str(self.port)], log=self._log)


class Deployment:
    """`edge`: the address behind which all of them are; `replicas`: each by itself."""

    def __init__(self, edge: int, replicas: list[Replica], redis: RedisServer, storage: str) -> None:
        self.edge = edge
        self.replicas = replicas
        self.redis = redis
        self.storage = storage


@contextlib.contextmanager
def deployment(postgres_url: str, directory: Path, *, servers: int = 3) -> Iterator[Deployment]:
    """Servers that share everything, behind HAProxy."""
    if HAPROXY is None:
        pytest.skip(missing("haproxy"))
    with new_database(postgres_url) as catalog, new_database(postgres_url) as storage, redis_server() as redis:
        arguments = [
            *("serve", "catalog", catalog, "--init", "--scalable", "--api-key", KEY),
            *("-w", str(directory / "arrays"), "-w", storage, "--cache", redis.url, "--host", "127.0.0.1"),
        ]
        replicas = [Replica(free_port(), arguments, directory / f"server{n}.log") for n in range(servers)]
        try:
            for replica in replicas:
                replica.wait()
            with haproxy([replica.port for replica in replicas]) as edge:
                until(lambda: _answers(edge), "the balancer has servers")
                yield Deployment(edge, replicas, redis, storage)
            for replica in replicas:
                assert replica.process.stop(signal.SIGTERM, seconds=30) == 0, replica.process.words()
        finally:
            for replica in replicas:
                replica.process.kill()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2):
        return True
    return False
