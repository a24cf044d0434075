"""The shape of the code that a reader relies on: small rooms, small functions, and no back doors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .fences import ROOT

PACKAGE = ROOT / "tiled_stream"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400
MAX_FUNCTION_LINES = 60
BANNED_NAMES = {"base", "common", "core", "helper", "helpers", "manager", "misc", "util", "utils"}
#: Only these may look at the environment: what a server does is decided in one place.
READS_ENVIRONMENT = ("run/", "asgi.py", "healthcheck.py", "__main__.py")


def relative(path: Path) -> str:
    """The path as a reader would say it."""
    return path.relative_to(PACKAGE).as_posix()


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """Every module of the package, parsed."""
    return {relative(path): ast.parse(path.read_text(), filename=str(path)) for path in MODULES}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an attribute chain; "" for what is none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        front = dotted(node.value)
        return f"{front}.{node.attr}" if front else ""
    return ""


def test_modules_were_found(trees: dict[str, ast.Module]) -> None:
    """The other tests here would pass on an empty list."""
    assert {"domain/events.py", "log/port.py", "ingest/writer.py"} <= trees.keys()


def test_every_module_opens_by_saying_what_it_is_for(trees: dict[str, ast.Module]) -> None:
    silent = [name for name, tree in trees.items() if tree.body and not ast.get_docstring(tree)]
    assert silent == []


def test_every_public_function_and_class_is_described(trees: dict[str, ast.Module]) -> None:
    """Those that a module names in `__all__`: a reader of a room begins there."""
    silent = []
    for name, tree in trees.items():
        public = {
            element.value
            for node in tree.body
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
            for element in getattr(node.value, "elts", [])
            if isinstance(element, ast.Constant)
        }
        silent += [
            f"{name}: {node.name}"
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name in public
            and not ast.get_docstring(node)
        ]
    assert silent == []


def test_no_module_is_named_after_nothing() -> None:
    named = [relative(path) for path in MODULES if BANNED_NAMES & set(relative(path).removesuffix(".py").split("/"))]
    assert named == []


def test_no_module_holds_more_than_can_be_read_in_one_sitting() -> None:
    long = {relative(path): count for path in MODULES if (count := len(path.read_text().splitlines())) > MAX_LINES}
    assert long == {}


def test_no_function_holds_more_than_a_screen(trees: dict[str, ast.Module]) -> None:
    """From the first statement on: the options of a command are a table, not a function."""
    long = {
        f"{name}: {function.name}": length
        for name, tree in trees.items()
        for function in functions(tree)
        if (length := (function.end_lineno or 0) - function.body[0].lineno + 1) > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_nothing_is_left_to_be_written(trees: dict[str, ast.Module]) -> None:
    """A promise in code is a function that works. (The contract suites ask their user for fixtures, and say so by raising.)"""
    stubs = [
        f"{name}: {node.lineno}"
        for name, tree in trees.items()
        if not name.startswith("testing/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and node.exc is not None and "NotImplementedError" in ast.dump(node.exc)
    ]
    assert stubs == []


def test_every_task_has_a_name(trees: dict[str, ast.Module]) -> None:
    """So that a task that dies, hangs or is left over can be told from the others."""
    nameless = [
        f"{name}: {node.lineno}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and dotted(node.func).split(".")[-1] in {"create_task", "ensure_future"}
        and not any(keyword.arg == "name" for keyword in node.keywords)
    ]
    assert nameless == []


def test_only_the_top_floor_reads_the_environment(trees: dict[str, ast.Module]) -> None:
    readers = [
        f"{name}: {node.lineno}"
        for name, tree in trees.items()
        if not name.startswith(READS_ENVIRONMENT)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and dotted(node) in {"os.environ", "os.getenv", "os.environb"}
    ]
    assert readers == []


def test_only_one_module_picks_engines(trees: dict[str, ast.Module]) -> None:
    """Everyone else is given a port. (`testing/` is for those who write engines and may know the reference engine.)"""
    engines = {"memory", "local", "sqlite", "zarr_arrays", "duckdb_tables", "sqlite_tables"}
    rooms = {"log", "catalog", "storage"}
    pickers = set()
    for name, tree in trees.items():
        room = name.split("/")[0]
        if name == "run/engines.py" or room == "testing":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                parts = node.module.split(".")
                if parts[-1] in engines and len(parts) > 1 and parts[-2] in rooms - {room}:
                    pickers.add(name)
    assert pickers == set()
