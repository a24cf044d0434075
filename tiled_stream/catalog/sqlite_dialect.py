"""What filters need that SQLite says in its own words, and the functions that readers have for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .facts import Kind, stored
from .rows import value as load

__all__ = ["FUNCTIONS", "SqliteDialect"]


class SqliteDialect:
    """`Dialect` of SQLite. LIKE heeds case where `case_sensitive_like` is on, as it is for readers."""

    def value(self, kind: Kind) -> str:
        return "f.value"

    def stored(self, kind: Kind, value: Any) -> Any:
        return stored(kind, value)

    def like(self, kind: Kind) -> str:
        if kind is Kind.NUMBER:
            return "CASE typeof(f.value) WHEN 'integer' THEN CAST(f.value AS TEXT) ELSE real_text(f.value) END LIKE ?"
        return "f.value LIKE ?"

    def has_part(self) -> str:
        return "instr(f.value, ?) > 0"

    def part(self, text: str) -> Any:
        return text

    def substring(self, text: str, part: str) -> str:
        return f"instr({text}, {part}) > 0"

    def deep_equal(self, metadata: str, key: str, value: str) -> str:
        return f"deep_equal({metadata}, {key}, {value})"

    def deep_contains(self, metadata: str, key: str, value: str) -> str:
        return f"deep_contains({metadata}, {key}, {value})"


def _at(metadata: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(metadata, dict) or part not in metadata:
            return None
        metadata = metadata[part]
    return metadata


def _deep_equal(metadata: str, key: str, value: str) -> bool:
    return _same(_at(load(metadata), key), load(value))


def _deep_contains(metadata: str, key: str, value: str) -> bool:
    found, wanted = _at(load(metadata), key), load(value)
    return isinstance(found, list) and any(_same(element, wanted) for element in found)


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON: 1 is 1.0, but neither is true."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return bool(a == b)


#: Name, number of arguments, function. SQLite's own text of a double has 15 digits; JSON's has as many as it needs.
FUNCTIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("deep_equal", 3, _deep_equal),
    ("deep_contains", 3, _deep_contains),
    ("real_text", 1, repr),
)
