"""The application under a hypercorn of its own, in the ways people start it; and under a server that nobody looked at."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.run import running
from tiled_stream.asgi import Application
from tiled_stream.run import hypercorn_patches

ENVIRONMENT = {"TILED_STREAM_TEMP": "true", "TILED_STREAM_API_KEY": running.KEY}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("words", ["-w 0 -k uvloop", "-w 0", ""], ids=["as shipped", "plain loop", "all defaults"])
def test_streams_are_told_however_it_is_stopped(tmp_path: Path, words: str, number: signal.Signals) -> None:
    if sys.version_info >= (3, 12) and "uvloop" not in words:
        pytest.skip("on the plain loop of this Python, hypercorn waits for sockets before it stops; uvloop is what we ship")
    command = [sys.executable, "-m", "hypercorn", "-b", "127.0.0.1:0", *words.split(), "tiled_stream.asgi:app"]
    with running.Running(command, tmp_path / "errors", ENVIRONMENT) as server, server.subscribe("") as stream:
        stream.recv(20)
        begin = time.monotonic()
        server.process.send_signal(number)
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv(20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert server.process.wait(20) == 0
        assert time.monotonic() - begin < 2.5
        said = server.errors.read_text()
    assert "Traceback" not in said
    assert said.count("Running on") == 1  # hypercorn's own line, not ours as well


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TILED_STREAM_TEMP": "true"}, "set TILED_STREAM_API_KEY"),
        ({"TILED_STREAM_API_KEY": "k"}, "--temp"),
        (ENVIRONMENT | {"TILED_STREAM_PROT": "1"}, "There is no setting TILED_STREAM_PROT"),
        ({"TILED_STREAM_CATALOG": "nowhere.db", "TILED_STREAM_API_KEY": "k"}, "nowhere.db"),
    ],
)
def test_what_cannot_start_says_why(tmp_path: Path, environment: dict[str, str], said: str) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TILED_")}
    command = [sys.executable, "-m", "hypercorn", "-b", "127.0.0.1:0", "-w", "0", "tiled_stream.asgi:app"]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env=environ | environment | {"PYTHONPATH": str(running.ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode != 0
    assert said in run.stderr


async def test_under_an_unknown_server_sigterm_drains_and_becomes_sigint(monkeypatch: pytest.MonkeyPatch) -> None:
    """It understands SIGINT, and is given it once the streams have been told."""
    monkeypatch.setattr(hypercorn_patches, "install", lambda: False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tiled_stream.run.logs.configure", lambda **settings: None)
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupted.set)
    ahead: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    app = Application()
    with pytest.raises(RuntimeError, match="lifespan"):
        await app({"type": "http"}, ahead.get, said.put)
    life = asyncio.create_task(app({"type": "lifespan"}, ahead.get, said.put), name="lifespan")
    try:
        ahead.put_nowait({"type": "lifespan.startup"})
        async with asyncio.timeout(20):
            assert await said.get() == {"type": "lifespan.startup.complete"}
            os.kill(os.getpid(), signal.SIGTERM)
            await interrupted.wait()
            stream: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
            scope = {
                "type": "http",
                "method": "GET",
                "path": "/readyz",
                "query_string": b"",
                "headers": [],
                "scheme": "http",
                "server": ("h", 1),
            }
            asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
            asked.put_nowait({"type": "http.request", "body": b"", "more_body": False})
            await app(scope, asked.get, stream.put)
            assert (await stream.get())["status"] == 503  # it is draining
            ahead.put_nowait({"type": "lifespan.shutdown"})
            assert await said.get() == {"type": "lifespan.shutdown.complete"}
            await life
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)
        life.cancel()
