"""systemd is told: ready, alive, stopping; nothing happens where nobody listens. Sockets that were opened for it are served."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest

from tests.run import running
from tests.servers.processes import Process, free_port, missing, until
from tiled_stream.run.notify import limit_sends, notify, told_to_systemd


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


async def test_a_loop_that_stalls_is_not_alive(tmp_path: Path) -> None:
    """What the watchdog is for: the process lives, its loop does not turn."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        async with told_to_systemd({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "40000"}):
            await asyncio.sleep(0.1)
            assert "WATCHDOG=1" in heard(sock)
            time.sleep(0.2)  # noqa: ASYNC251 - this is the stall
            assert heard(sock) == []
            await asyncio.sleep(0.1)
            assert "WATCHDOG=1" in heard(sock)


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "40000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}])
async def test_no_watchdog_of_ours(tmp_path: Path, watchdog: dict[str, str]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        async with told_to_systemd({"NOTIFY_SOCKET": str(tmp_path / "notify"), **watchdog}):
            await asyncio.sleep(0.1)
        assert heard(sock) == ["READY=1", "STOPPING=1"]


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
            assert server.stop() == 0
        assert heard(sock)[-1] == "STOPPING=1"


def shipped(*words: str) -> list[str]:
    """The words of `ExecStart` in the unit, with this Python and the files of this directory."""
    unit = (running.ROOT / "deploy" / "systemd" / "tiled-stream@.service").read_text()
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    _, *rest = line.split()
    return [
        *words,
        sys.executable,
        "-m",
        "hypercorn",
        *(w.replace("/etc/tiled-stream", str(running.ROOT / "deploy")) for w in rest),
    ]


SETTINGS = {"TILED_STREAM_TEMP": "true", "TILED_STREAM_API_KEY": running.KEY, "TILED_STREAM_SEND_TIMEOUT_SECONDS": "7"}


@contextlib.contextmanager
def activated(sock: socket.socket, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The unit's service on this socket, as systemd hands it over: at number 3, with the process id of whom it is for."""
    become = (
        f"import os, sys; os.dup2({sock.fileno()}, 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = shipped(sys.executable, "-c", become)
    with log.open("ab") as out:
        process = subprocess.Popen(command, env=os.environ | SETTINGS, stdout=out, stderr=out, pass_fds=(sock.fileno(),))
    try:
        yield process
        process.terminate()
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait(10)


def test_a_restart_refuses_nobody(tmp_path: Path) -> None:
    """Requests that come between two lives of the service wait in the socket. Both give up clients that read nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock, ThreadPoolExecutor() as pool:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/readyz"
        for _ in range(2):
            waiting = [pool.submit(httpx.get, url, timeout=30) for _ in range(5)]
            assert wait(waiting, timeout=0.2).done == set()
            with activated(sock, tmp_path / "log"):
                assert [answer.result(30).status_code for answer in waiting] == [200] * 5
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000


def test_sockets_of_others_are_left_alone() -> None:
    assert limit_sends(7, {}) == 0
    assert limit_sends(7, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}) == 0


def test_systemd_hands_it_a_socket(tmp_path: Path) -> None:
    """systemd's own tool starts it at the first request, which is answered."""
    program = shutil.which("systemd-socket-activate")
    if program is None:
        pytest.skip(missing("systemd-socket-activate"))
    port = free_port()
    given = [word for name, value in SETTINGS.items() for word in ("-E", f"{name}={value}")]
    process = Process(shipped(program, "--listen", f"127.0.0.1:{port}", *given), log=tmp_path / "log")
    try:
        until(lambda: "Listening on" in process.words(), "systemd-socket-activate listens")
        assert httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=30).status_code == 200
        assert process.stop() == 0, process.words()
    finally:
        process.kill()
