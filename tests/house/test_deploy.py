"""Files for operators name what exists: settings, flags, metrics, paths; and the tools that read them accept them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer.main
import yaml

from tests.servers.haproxy import CONFIG, HAPROXY
from tests.servers.processes import missing
from tiled_stream.http.metrics import FIGURES, Metrics
from tiled_stream.run.cli import app
from tiled_stream.run.settings import ENVIRONMENT, Settings

from .fences import ROOT

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
    return histograms | {f.name for f in families} | set(FIGURES)


@pytest.mark.parametrize("name", ["prometheus/rules.yml", "grafana/tiled-stream.json"])
def test_metrics_exist(name: str) -> None:
    text = (DEPLOY / name).read_text()
    named = set(re.findall(r"\btiled_\w+", text)) - {"tiled_stream"}
    assert named
    assert named <= metrics()
    if name.endswith("json"):
        expressions = [target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"]]
        assert {name for name, _ in FIGURES.items() if "backlog" in name} <= named
    else:
        expressions = [rule["expr"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    for expression in expressions:
        assert expression.count("(") == expression.count(")"), expression
        assert expression.count("[") == expression.count("]"), expression


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
