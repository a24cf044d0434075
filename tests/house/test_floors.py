"""The floors of docs/architecture.md, and the rule that the package never imports the peer it is compared with."""

from __future__ import annotations

import ast
import subprocess
import sys

from .fences import ROOT


def test_a_room_uses_only_rooms_below_it() -> None:
    """The contracts stand in pyproject.toml; here they are run, so that whoever runs the tests cannot miss them."""
    run = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 broken" in run.stdout


def test_the_package_never_imports_the_peer() -> None:
    """import-linter sees whole modules; this sees every import statement, those inside functions too."""
    peers = {"tiled", "bluesky", "bluesky_tiled_plugins", "ophyd", "databroker"}
    guilty = []
    for path in sorted((ROOT / "tiled_stream").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            guilty += [f"{path}: {name}" for name in names if name.split(".")[0] in peers]
    assert guilty == []
