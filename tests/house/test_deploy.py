"""Files for operators name what exists: settings, flags, metrics, paths; and the tools that read them accept them."""

from __future__ import annotations

import ctypes.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import typer.main
import yaml
from websockets.sync.client import connect

from tests.run import running
from tests.servers.haproxy import CONFIG, HAPROXY, haproxy
from tests.servers.processes import free_port, missing, until
from tiled_stream.http.metrics import FIGURES, Metrics
from tiled_stream.run.cli import app
from tiled_stream.run.logs import REQUEST_FIELDS
from tiled_stream.run.settings import ENVIRONMENT, Settings

from .fences import ROOT, cells

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.s*"))
FILES = [*UNITS, DEPLOY / "systemd" / "settings", ROOT / "compose.yml", ROOT / "Containerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_settings_exist(path: Path) -> None:
    fields = {f"{ENVIRONMENT}{field.upper()}" for field in Settings.__struct_fields__}
    assert set(re.findall(rf"{ENVIRONMENT}[A-Z_]*[A-Z]", path.read_text())) <= fields


def test_commands_exist() -> None:
    commands = [
        re.findall(r"^ExecStart=/opt/tiled-stream/bin/tiled-stream (.+)$", unit.read_text(), re.MULTILINE) for unit in UNITS
    ]
    words = [found.split() for several in commands for found in several]
    compose = yaml.safe_load((ROOT / "compose.yml").read_text())
    words += [service["command"] for name, service in compose["services"].items() if name.startswith("server")]
    container = re.search(r"^CMD (\[.+\])$", (ROOT / "Containerfile").read_text(), re.MULTILINE)
    assert container is not None
    words.append(json.loads(container[1]))
    assert len(words) == 5
    root: Any = typer.main.get_command(app)
    for line in words:
        command, rest = root, list(line)
        while hasattr(command, "commands"):
            command = command.commands[rest.pop(0)]
        command.make_context("x", rest, resilient_parsing=False)


def test_the_balancer_of_compose_knows_its_servers() -> None:
    services = yaml.safe_load((ROOT / "compose.yml").read_text())["services"]
    given = services["edge"]["environment"]
    assert {value.partition(":")[0] for name, value in given.items() if "SERVER" in name} == {
        n for n in services if "server" in n
    }
    assert set(given) == set(re.findall(r"presetenv (\w+)", CONFIG.read_text()))
    for volume in re.findall(r"\./(\S+?):", (ROOT / "compose.yml").read_text()):
        assert (ROOT / volume).exists(), volume


def metrics() -> set[str]:
    """All names that a scrape can bring."""
    observed = SimpleNamespace(observe=lambda callback: None)
    edge: Any = SimpleNamespace(hub=observed, writer=observed)
    families = list(Metrics(edge).registry.collect())
    histograms = {f.name + suffix for f in families if f.type == "histogram" for suffix in ("_bucket", "_count", "_sum")}
    return histograms | {f.name for f in families if f.type != "histogram"} | set(FIGURES)


@pytest.mark.parametrize("name", ["prometheus/rules.yml", "grafana/tiled-stream.json"])
def test_metrics_exist(name: str) -> None:
    text = (DEPLOY / name).read_text()
    named = set(re.findall(r"\btiled_\w+", text)) - {"tiled_stream"}
    assert named
    assert named <= metrics()
    if name.endswith("json"):
        expressions = [target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"]]
        # Whatever is counted can be seen.
        assert {name for name in metrics() if not name.endswith(("_count", "_sum"))} <= named
    else:
        expressions = [rule["expr"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    for expression in expressions:
        assert expression.count("(") == expression.count(")"), expression
        assert expression.count("[") == expression.count("]"), expression


def test_every_alert_says_what_to_do_then() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"][0]["rules"]
    explained = {name for row in cells(ROOT / "docs" / "how-to" / "monitoring.md") for name in row[0].split(", ")}
    assert {rule["alert"] for rule in rules} == {name for name in explained if name.startswith("Tiled")}


def test_fields_of_the_log_are_explained() -> None:
    page = ROOT / "docs" / "how-to" / "monitoring.md"
    explained = {name.strip("`") for row in cells(page) if row[1] in ("all", "errors", "requests") for name in row[0].split(", ")}
    assert explained == {"timestamp", "level", "logger", "event", "exception", *REQUEST_FIELDS}


def test_panels_do_not_lie_on_each_other() -> None:
    panels = json.loads((DEPLOY / "grafana" / "tiled-stream.json").read_text())["panels"]
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels]
    assert len(set(places)) == len({p["id"] for p in panels}) == len(panels)


def test_haproxy_accepts_its_file() -> None:
    if HAPROXY is None:
        pytest.skip(missing("haproxy"))
    done = subprocess.run([HAPROXY, "-c", "-f", str(CONFIG)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip(missing("systemd-analyze"))
    for unit in UNITS:
        # The program itself is not installed on the machine that checks.
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE)
        (tmp_path / unit.name.replace("@.", "@01.")).write_text(text)
    names = [str(path) for path in sorted(tmp_path.iterdir())]
    environ = os.environ | {"SYSTEMD_LOG_LEVEL": "warning"}
    done = subprocess.run([program, "verify", *names], capture_output=True, text=True, check=False, env=environ)
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=lambda unit: unit.name)
def test_a_server_lives_within_what_the_units_allow(tmp_path: Path, unit: Path) -> None:
    """Their filter of system calls is applied for real: a library that calls something else must not be killed for it."""
    if shutil.which("systemd-analyze") is None or ctypes.util.find_library("seccomp") is None:
        pytest.skip(missing("systemd-analyze or libseccomp"))
    sandbox = [sys.executable, str(Path(__file__).with_name("sandbox.py")), str(unit)]
    with running.Running([*sandbox, *running.command_of("--temp")], tmp_path / "errors") as server:
        server.ok("POST", "/metadata/", json=running.array("a", 3))
        server.ok("PUT", "/array/full/a", content=running.cells(1, 2, 3))
        server.ok("POST", "/metadata/", json=running.table("t"))
        server.ok("PATCH", "/table/partition/t?partition=0", content=running.rows(4, 5))
        assert running.numbers_of(server.client.get("/table/full/t", headers=running.ARROW).content) == [4, 5]
        assert server.stop() == 0


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of HAProxy, as it is shipped, in front of one server."""
    if HAPROXY is None:
        pytest.skip(missing("haproxy"))
    errors = tmp_path_factory.mktemp("edge") / "errors"
    with running.serving("--temp", "--public", errors=errors) as server, haproxy([server.port]) as port:
        url = f"http://127.0.0.1:{port}"
        until(lambda: httpx.get(f"{url}/healthz").status_code == 200, "the balancer has a server")
        yield url


PRIVATE = [
    "/readyz",
    "/readyz?a=b",
    "//readyz",
    "/%72eadyz",
    "/readyz/",
    "/api/v1/metrics",
    "/api/v1//metrics",
    "/api//v1/metric%73",
]


@pytest.mark.parametrize("path", PRIVATE)
def test_the_edge_shows_no_page_of_the_operator(edge: str, path: str) -> None:
    """However the path is written; with the key, too."""
    answer = httpx.get(edge + path, headers=running.AUTH)
    assert answer.status_code == 404
    assert "x-tiled-request-id" not in answer.headers  # no server has seen it


def test_the_edge_lets_the_rest_through(edge: str) -> None:
    for path in (
        "/api/v1/",
        "/api/v1/metadata/",
        "/api/v1/search/?filter%5Bfulltext%5D%5Bcondition%5D%5Btext%5D=readyz",
        "/healthz",
    ):
        assert httpx.get(edge + path).status_code == 200, path
    assert "x-tiled-request-id" in httpx.get(f"{edge}/api/v1/metadata/readyz").headers  # a node may have any name


def test_links_lead_to_where_the_client_came_in(edge: str) -> None:
    """What it claims about that does not count."""
    lies = {"X-Forwarded-Host": "elsewhere.example", "X-Forwarded-Proto": "https"}
    link = httpx.get(f"{edge}/api/v1/metadata/", headers=lies).json()["data"]["links"]["self"]
    assert link.startswith(f"{edge}/api/v1/")


def test_streams_pass_the_edge_uncompressed(edge: str) -> None:
    url = edge.replace("http", "ws") + "/api/v1/stream/single/?envelope_format=msgpack"
    with connect(url, additional_headers=running.AUTH, close_timeout=1, proxy=None) as stream:
        assert b"container-schema" in stream.recv(20)
        assert stream.response is not None
        assert "Sec-WebSocket-Extensions" not in stream.response.headers


def test_append_that_no_server_can_take_is_repeated_by_stock_clients() -> None:
    """They repeat an append after 429 only; everything else after 503, too."""
    if HAPROXY is None:
        pytest.skip(missing("haproxy"))
    with haproxy([free_port()]) as port:
        url = f"http://127.0.0.1:{port}/api/v1"
        append = httpx.patch(f"{url}/table/partition/a/b?partition=0", content=b"rows")
        assert (append.status_code, append.headers["Retry-After"]) == (429, "2")
        for other in (
            httpx.get(f"{url}/table/partition/a/b"),
            httpx.patch(f"{url}/metadata/a"),
            httpx.put(f"{url}/array/full/a"),
        ):
            assert (other.status_code, other.headers.get("Retry-After")) == (503, None)


class Refusing(BaseHTTPRequestHandler):
    """A server that is ready, and refuses each append as one that may have been done."""

    def do_GET(self) -> None:
        self.answer(200)

    def do_PATCH(self) -> None:
        self.answer(503)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("X-Tiled-Request-Id", "1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_append_that_a_server_has_in_doubt_stays_in_doubt() -> None:
    if HAPROXY is None:
        pytest.skip(missing("haproxy"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with haproxy([server.server_port]) as port:
                url = f"http://127.0.0.1:{port}"
                until(lambda: httpx.get(f"{url}/healthz").status_code == 200, "the balancer has a server")
                assert httpx.patch(f"{url}/api/v1/table/partition/a?partition=0").status_code == 503
        finally:
            server.shutdown()
            thread.join()


def test_streams_of_a_server_that_is_not_ready_stay_open() -> None:
    """A server closes its streams when it stops. If HAProxy closed them, an outage of Redis would close all of them at once."""
    assert "shutdown-sessions" not in CONFIG.read_text()
