"""The documentation is kept true by running it: its programs, its commands and its links.

The ```python blocks of one page are one program, or one file of tests, run in order in an empty directory. A page that speaks to
127.0.0.1:8000 gets a server there (the address is rewritten to that of a free port). Commands in ```console blocks are checked
against the command line and the Makefile, not run.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from .fences import PAGES, ROOT, blocks, commands, prose, slugs

ADDRESS = "127.0.0.1:8000"
PROGRAMS = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


def program(page: Path) -> str:
    """The python blocks of a page as one program, each line at the line where it stands on the page."""
    lines: list[str] = []
    for block in blocks(page):
        if block.language == "python":
            lines += [""] * (block.line - 1 - len(lines))
            lines += block.text.splitlines()
    return "\n".join(lines) + "\n"


def called(page: Path) -> str:
    """A page by its path, as the name of a test."""
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """HOST:PORT of a server with the API key "secret" that forgets everything afterwards."""
    from tiled_stream import SimpleTiledServer

    with SimpleTiledServer(api_key="secret") as running:
        yield f"127.0.0.1:{running.port}"


@pytest.mark.parametrize("page", PROGRAMS, ids=called)
def test_programs_run(page: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source = program(page)
    for peer in ("tiled", "bluesky"):
        if re.search(rf"^\s*(from|import) {peer}\b", source, re.MULTILINE) and importlib.util.find_spec(peer) is None:
            pytest.skip(f"{peer} is not installed; `make setup` installs it")
    script = tmp_path / "test_page.py"
    script.write_text(source.replace(ADDRESS, request.getfixturevalue("server") if ADDRESS in source else ""))
    # A page that holds tests is run as a file of tests.
    as_tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "-c", os.devnull]
    how = as_tests if re.search(r"^(class Test|def test_|async def test_)", source, re.MULTILINE) else []
    directory = tmp_path / "cwd"
    directory.mkdir()
    run = subprocess.run(
        [sys.executable, *how, str(script)],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TILED_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, f"{called(page)}\n{run.stdout}\n{run.stderr}"


def test_there_are_programs() -> None:
    """The test above would pass on an empty list."""
    assert {"README.md", "docs/tutorial/first-scan.md", "docs/how-to/write-an-engine.md"} <= set(map(called, PROGRAMS))


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_fences_say_what_they_are(page: Path) -> None:
    """A misspelt language would take a block out of these tests."""
    known = {"", "console", "dockerfile", "ini", "json", "python", "text", "toml", "yaml"}
    assert {block.language for block in blocks(page)} <= known


def test_commands_exist() -> None:
    from tiled_stream.run.cli import app

    root = typer.main.get_command(app)
    found = [(page, words) for page in PAGES for words in commands(page, "tiled-stream")]
    assert found
    wrong = [f"{called(page)}: {' '.join(words)}: {fault}" for page, words in found if (fault := misunderstood(root, words[1:]))]
    assert wrong == []


def misunderstood(command: Any, words: list[str]) -> str:
    """Why `command`, or the subcommand that `words` lead to, would not take them; "" if it would. Nothing is run."""
    options = {name: parameter for parameter in command.params for name in [*parameter.opts, *parameter.secondary_opts]}
    ahead = iter(words)
    for word in ahead:
        if word.startswith("-") and word != "-":
            name, equals, _ = word.partition("=")
            if name == "--help":
                continue
            if name not in options:
                return f"there is no option {name}"
            if not options[name].is_flag and not options[name].count and not equals and next(ahead, None) is None:
                return f"{name} wants a value"
        elif hasattr(command, "commands"):
            child = command.commands.get(word)
            return misunderstood(child, list(ahead)) if child else f"there is no command {word!r}"
    return ""


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {word for page in PAGES for words in commands(page, "make") for word in words[1:] if re.fullmatch(r"[a-z]+", word)}
    assert asked
    assert asked - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or not path.is_relative_to(ROOT) or (anchor and anchor not in slugs(path)):
            lost.append(target)
    assert lost == []


def test_every_page_can_be_found() -> None:
    """From the README, by links."""
    found: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in found or page.suffix != ".md":
            continue
        found.add(page)
        for target in re.findall(r"\]\(([^)\s#]+)", prose(page)):
            path = (page.parent / target).resolve()
            if path.is_dir():
                path = path / "README.md"
            if path.exists():
                ahead.append(path)
    assert set(PAGES) - found == {ROOT / "CHANGELOG.md"}
