"""systemd is told: ready, alive, stopping; and nothing happens where nobody listens. The container's health check."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run import running
from tests.servers.processes import free_port
from tiled_stream.run.notify import notify, told_to_systemd


def heard(sock: socket.socket) -> list[str]:
    sock.setblocking(False)
    lines = []
    while True:
        try:
            lines.append(sock.recv(100).decode())
        except BlockingIOError:
            return lines


@pytest.mark.parametrize("is_abstract", [False, True], ids=["path", "abstract"])
async def test_ready_alive_stopping(tmp_path: Path, is_abstract: bool) -> None:
    name = f"tiled-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name if is_abstract else name)
        environ = {"NOTIFY_SOCKET": "@" + name if is_abstract else name, "WATCHDOG_USEC": "100000"}
        async with told_to_systemd(environ):
            await asyncio.sleep(0.2)
        lines = heard(sock)
    assert (lines[0], lines[-1]) == ("READY=1", "STOPPING=1")
    assert 3 <= lines.count("WATCHDOG=1") <= 6
    assert [task for task in asyncio.all_tasks() if task.get_name() == "watchdog"] == []


async def test_nobody_listens(tmp_path: Path) -> None:
    async with told_to_systemd({}):
        pass
    assert not notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})


def test_a_server_tells_of_itself(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with running.serving("--temp", errors=tmp_path / "err", environment=environ) as server:
            sock.settimeout(20)
            assert sock.recv(100) == b"READY=1"
            assert check(server.port).returncode == 0
            assert check(server.port, "--ready").returncode == 0
            assert server.stop() == 0
        assert heard(sock)[-1] == "STOPPING=1"


def test_a_server_that_is_not_there_is_not_healthy() -> None:
    done = check(free_port())
    assert done.returncode == 1
    assert b"does not answer" in done.stderr


def check(port: int, *words: str) -> subprocess.CompletedProcess[bytes]:
    environ = os.environ | {"TILED_STREAM_PORT": str(port)}
    command = [sys.executable, "-m", "tiled_stream.healthcheck", *words]
    return subprocess.run(command, env=environ, capture_output=True, check=False)
