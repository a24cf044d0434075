"""What all servers of the tests share: a free port, a process that is gone afterwards, waiting until it answers."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["Process", "free_port", "missing", "until"]


#: Below the ports that outgoing connections are given: one of these may take a port before the server listens on it.
_PORTS = range(12_000, 32_000)
_given: set[int] = set()


def free_port() -> int:
    """A port of loopback that nobody uses now, and that was not given before."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            _given.add(port)
            return port


def until(is_so: Callable[[], bool], what: str, *, seconds: float = 30.0) -> None:
    """Wait until `is_so()`."""
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


def missing(program: str) -> str:
    """Why a test is skipped. Where everything must be there (`TEST_REQUIRE_ALL`, as in CI), an error instead."""
    if os.environ.get("TEST_REQUIRE_ALL"):
        raise AssertionError(f"{program} is not on this machine, and TEST_REQUIRE_ALL asks for it")
    return f"{program} is not on this machine"


class Process:
    """A child in a process group of its own, its words in `log`; `user`: whom root becomes for it."""

    def __init__(self, command: Sequence[str], *, log: Path, user: str | None = None, cwd: Path | None = None) -> None:
        self.log = log
        with log.open("ab") as out:
            self._popen = subprocess.Popen(command, stdout=out, stderr=out, user=user, cwd=cwd, start_new_session=True)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def is_running(self) -> bool:
        return self._popen.poll() is None

    def words(self) -> str:
        """What it said."""
        return self.log.read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM, *, seconds: float = 20.0) -> int:
        """Send a signal and wait; the exit status. One that does not listen is killed, and that is an error."""
        if self._popen.poll() is None:
            self._popen.send_signal(number)
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self._popen.args} did not stop within {seconds:g} s: {self.words()}") from None

    def kill(self) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait(10)
