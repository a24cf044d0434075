"""Each invariant of docs/invariants.md is kept by tests that exist; a promise without a test is a wish."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from .fences import ROOT, prose

PAGE = ROOT / "docs" / "invariants.md"
REFERENCE = re.compile(r"`((?:tests|tiled_stream)/[\w/]+\.py)(?:::([\w:]+))?`")


def sections() -> dict[str, str]:
    """The text under each heading `## I<n> …`."""
    parts = re.split(r"^## (I\d+)\b", prose(PAGE), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def names(path: Path) -> set[str]:
    """The tests and classes of a file: `test_x`, `TestY`, `TestY::test_z`."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}::{part.name}" for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return found


def test_all_ten_are_there() -> None:
    assert list(sections()) == [f"I{n}" for n in range(1, 11)]


def test_each_is_kept_by_a_test() -> None:
    alone = [number for number, text in sections().items() if not any(name for _, name in REFERENCE.findall(text))]
    assert alone == []


def test_the_tests_exist() -> None:
    missing = []
    for path, name in REFERENCE.findall(PAGE.read_text()):
        if not (ROOT / path).exists() or (name and name not in names(ROOT / path)):
            missing.append(f"{path}::{name}")
    assert missing == []


def test_code_cites_only_invariants_that_exist() -> None:
    cited = set()
    for path in sorted((ROOT / "tiled_stream").rglob("*.py")):
        cited |= set(re.findall(r"\(I(\d+)[,)]|\bI(\d+)\b", path.read_text()))
    numbers = {int(a or b) for a, b in cited}
    assert numbers
    assert numbers <= set(range(1, 11))
