"""What filters and orders mean, in plain Python over plain nodes: the oracle of the catalog contract.

Written from the words of `domain/search.py` alone; it shares no code with any engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..domain.nodes import Node
from ..domain.search import Filter, SortKey

__all__ = ["MISSING", "at_path", "in_order", "matches", "same"]

MISSING = object()


def at_path(metadata: Any, path: str) -> Any:
    """What stands at a dotted path, or `MISSING`."""
    for key in path.split("."):
        if not isinstance(metadata, dict) or key not in metadata:
            return MISSING
        metadata = metadata[key]
    return metadata


def same(a: Any, b: Any) -> bool:
    """Equal as JSON values, type-strict but for integers and floats."""
    if _is_number(a) and _is_number(b):
        return bool(a == b)
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[k], b[k]) for k in a)
    return bool(a == b)


def matches(node: Node, condition: Filter) -> bool:
    """Does the node pass this filter?"""
    found = at_path(node.metadata, condition.key)
    value = condition.value
    match condition.name:
        case "eq":
            return found is not MISSING and same(found, value)
        case "noteq":
            return found is not MISSING and not same(found, value)
        case "comparison":
            return _compares(found, condition.operator, value)
        case "in":
            return isinstance(value, list) and found is not MISSING and any(same(found, v) for v in value)
        case "notin":
            return not value or (found is not MISSING and not any(same(found, v) for v in value))
        case "contains":
            if isinstance(found, list):
                return any(same(element, value) for element in found)
            return isinstance(found, str) and isinstance(value, str) and value in found
        case "keypresent":
            return (found is not MISSING) is value
        case "like":
            return _is_like(found, value)
        case "fulltext":
            words = {word.casefold() for text in _texts(node.metadata) for word in re.findall(r"\w+", text)}
            return all(word.casefold() in words for word in re.findall(r"\w+", value))
        case "specs":
            names = {spec.name for spec in node.specs}
            return names.issuperset(value) and names.isdisjoint(condition.exclude)
        case "lookup":
            return bool(node.key == value)
        case "keys_filter":
            return node.key in value
        case "structure_family":
            return bool(node.family == value)
        case "access_tags_filter":
            return not set(value).isdisjoint(node.access_tags)
    raise AssertionError(condition.name)


def in_order(nodes: Sequence[Node], sort: Sequence[SortKey]) -> list[Node]:
    """Sorted: the last key first, for sorting is stable."""
    ordered = sorted(nodes, key=lambda n: n.created)
    for key in reversed(sort):
        if key.key == "":
            ordered = sorted(ordered, key=lambda n: n.created, reverse=key.descending)
        elif key.key == "id":
            ordered = _stably(ordered, [n.key for n in ordered], key.descending)
        else:
            ordered = _stably(ordered, [_rank(at_path(n.metadata, key.key)) for n in ordered], key.descending)
    return ordered


def _stably(nodes: list[Node], ranks: list[Any], descending: bool) -> list[Node]:
    """Stable in both directions: ties keep the order they have."""
    numbered = sorted(zip(ranks, range(len(nodes)), strict=True), key=lambda r: r[0], reverse=descending)
    return [nodes[place] for _, place in numbered]


def _rank(value: Any) -> tuple[int, Any]:
    if value is MISSING or value is None:
        return 3, 0
    if _is_number(value):
        return 0, value
    if isinstance(value, str):
        return 1, value.encode()
    return 2, int(value) if isinstance(value, bool) else -1


def _compares(found: Any, operator: str, value: Any) -> bool:
    comparable = (_is_number(found) and _is_number(value)) or (isinstance(found, str) and isinstance(value, str))
    if not comparable:
        return False
    return bool({"lt": found < value, "gt": found > value, "le": found <= value, "ge": found >= value}[operator])


def _is_like(found: Any, pattern: str) -> bool:
    if _is_number(found):
        found = str(found)
    if not isinstance(found, str):
        return False
    expression = "".join(".*" if c == "%" else "." if c == "_" else re.escape(c) for c in pattern)
    return re.fullmatch(expression, found, re.DOTALL) is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
