"""HAProxy with the configuration that is shipped, in front of servers of a test."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .processes import Process, free_port, until

__all__ = ["CONFIG", "HAPROXY", "haproxy"]

HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
CONFIG = Path(__file__).parents[2] / "deploy" / "haproxy.cfg"


@contextlib.contextmanager
def haproxy(ports: Sequence[int]) -> Iterator[int]:
    """The port that leads to servers on these. More than three get a backend line each."""
    assert HAPROXY is not None
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="haproxy-") as directory:
        config = Path(directory) / "haproxy.cfg"
        config.write_text(_with_servers(CONFIG.read_text(), len(ports)))
        environ = {f"TILED_SERVER_{n}": f"127.0.0.1:{p}" for n, p in enumerate(ports, 1)} | {"TILED_BIND": f"127.0.0.1:{port}"}
        assignments = [f"{name}={value}" for name, value in environ.items()]
        process = Process(["env", *assignments, HAPROXY, "-f", str(config)], log=Path(directory) / "haproxy.log")
        try:
            until(lambda: _listens(port) or not process.is_running(), "HAProxy listens")
            assert process.is_running(), process.words()
            yield port
        finally:
            process.kill()


def _with_servers(text: str, count: int) -> str:
    """The shipped file names three servers; for another number of them its lines are repeated."""
    lines = []
    for line in text.splitlines():
        if line.strip().startswith("server s1 "):
            lines += [line.replace("s1", f"s{n}").replace("SERVER_1", f"SERVER_{n}") for n in range(1, count + 1)]
        elif not line.strip().startswith("server s"):
            lines.append(line)
    return "\n".join(lines) + "\n"


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
