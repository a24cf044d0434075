"""Metadata as facts: which kind of value stands at which path. Filters and orders are answered from them.

A path is the keys joined by dots; keys that contain a dot cannot be addressed and make no facts. Elements of a list stand under
the list's path with `ELEMENT` behind it. Specs and tags are facts too, under paths that no key can have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any

from ..domain.nodes import Spec

__all__ = ["ELEMENT", "SPECS", "TAGS", "Kind", "facts_of", "kind_of", "words_in", "words_of"]

ELEMENT = "\x1f"
SPECS = "\x1especs"
TAGS = "\x1etags"

#: Lists longer than this are not taken apart; a filter that asks for an element looks into their JSON.
MAX_ELEMENTS = 1000

_WORD = re.compile(r"\w+")
_I64 = 1 << 63


class Kind(IntEnum):
    """What stands at a path. The order is that of sorting: numbers, texts, everything else, null (and missing) last."""

    NUMBER = 0
    TEXT = 1
    BOOLEAN = 2
    LIST = 3
    LONG_LIST = 4
    OBJECT = 5
    NULL = 6


def kind_of(value: Any) -> Kind:
    """The kind of a JSON value."""
    if value is None:
        return Kind.NULL
    if isinstance(value, bool):
        return Kind.BOOLEAN
    if isinstance(value, int | float):
        return Kind.NUMBER
    if isinstance(value, str):
        return Kind.TEXT
    if isinstance(value, list | tuple):
        return Kind.LONG_LIST if len(value) > MAX_ELEMENTS else Kind.LIST
    return Kind.OBJECT


def stored(value: Any) -> Any:
    """A scalar as SQL holds it; None for what has no scalar form."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if -_I64 <= value < _I64 else float(value)
    return value if isinstance(value, float | str) else None


def facts_of(metadata: dict[str, Any], specs: Sequence[Spec], tags: Sequence[str]) -> Iterator[tuple[str, Kind, Any]]:
    """All facts of a node: (path, kind, value)."""
    for spec in specs:
        yield SPECS, Kind.TEXT, spec.name
    for tag in tags:
        yield TAGS, Kind.TEXT, tag
    yield from _below("", metadata)


def words_of(metadata: Any) -> str:
    """The words of all string values, case-folded, each once, between single spaces."""
    found: dict[str, None] = {}
    for text in _texts(metadata):
        found.update(dict.fromkeys(words_in(text)))
    return f" {' '.join(found)} " if found else ""


def words_in(text: str) -> list[str]:
    """Words as full text search knows them."""
    return [word.casefold() for word in _WORD.findall(text)]


def _below(prefix: str, value: dict[str, Any]) -> Iterator[tuple[str, Kind, Any]]:
    for key, item in value.items():
        if "." in key:
            continue
        path = prefix + key
        kind = kind_of(item)
        yield path, kind, stored(item)
        if kind is Kind.OBJECT:
            yield from _below(path + ".", item)
        elif kind is Kind.LIST:
            for element in item:
                yield path + ELEMENT, kind_of(element), stored(element)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
