"""What filters need that SQLite says in its own words, and the functions that readers have for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .facts import Kind
from .rows import value as load

__all__ = ["FUNCTIONS", "SqliteDialect"]


class SqliteDialect:
    """`Dialect` of SQLite. LIKE heeds case where `case_sensitive_like` is on, as it is for readers."""

    def value(self, kind: Kind) -> str:
        return "f.value"

    def like(self, text: str, pattern: str) -> str:
        return f"{text} LIKE {pattern}"

    def number_text(self, number: str) -> str:
        return f"CASE typeof({number}) WHEN 'integer' THEN CAST({number} AS TEXT) ELSE real_text({number}) END"

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
