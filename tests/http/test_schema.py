"""The description of the API is complete, and whoever asks by it is never answered with a 5xx."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx

import tiled_stream
from tiled_stream.http.described import PARAMETERS, described

HTTP = Path(tiled_stream.__file__).parent / "http"
#: Asked for in handshakes of sockets and in credentials, which the description does not list.
ELSEWHERE = {"api_key", "access_token", "envelope_format", "epoch", "start"}


def test_every_name_that_a_handler_looks_for_is_described() -> None:
    asked = set()
    for path in HTTP.glob("*.py"):
        asked |= set(re.findall(r"(?:[Qq]uery(?:\([\w.]+\))?)\.(?:get|flag|integer|all)\(\"([^\"]+)\"", path.read_text()))
    assert asked - ELSEWHERE <= set(PARAMETERS)
    assert set(PARAMETERS) <= asked


def test_parameters_stand_at_their_routes() -> None:
    with tiled_stream.SimpleTiledServer(api_key="secret") as server:
        base = f"http://127.0.0.1:{server.port}"
        for path in ("/docs/openapi.json", "/openapi.json"):
            paths = httpx.get(base + path).raise_for_status().json()["paths"]
            names = [p["name"] for p in paths["/api/v1/array/full/{path}"]["patch"]["parameters"]]
            assert names == ["path", "offset", "shape", "extend", "persist"]
    assert described({}) == {}


def test_random_requests_by_the_description_find_no_5xx() -> None:
    """schemathesis, with a fixed seed, writes included."""
    with tiled_stream.SimpleTiledServer(api_key="secret") as server:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{server.port}/openapi.json"),
            *("-H", "Authorization: Apikey secret", "--checks", "not_a_server_error", "--seed", "7"),
            *("--max-examples", "8", "--phases", "coverage,fuzzing", "--request-timeout", "20", "--no-color"),
            *("--suppress-health-check", "all"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "passed" in done.stdout
