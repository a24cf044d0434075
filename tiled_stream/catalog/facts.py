"""Metadata as facts: which kind of value stands at which path. Filters and orders are answered from them.

The path of a fact is what it is about, a letter, and then the keys joined by dots; keys that contain a dot cannot be addressed
and make no facts. An element of a list is a fact of its own, beside the list. Specs and tags are facts too.

What must stay true: at the path of a value a node has one fact; only elements, specs and tags can be several.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import IntEnum
from math import isfinite
from typing import Any

from ..domain.nodes import Spec

__all__ = ["SPECS", "TAGS", "Fact", "Kind", "element_at", "facts_of", "kind_of", "stored", "value_at", "words_in", "words_of"]

Fact = tuple[str, int, Any]

SPECS = "specs"
TAGS = "tags"

#: Lists longer than this are not taken apart; a filter that asks for an element looks into their JSON.
MAX_ELEMENTS = 64

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


_KINDS: dict[type, Kind] = {
    str: Kind.TEXT,
    int: Kind.NUMBER,
    dict: Kind.OBJECT,
    bool: Kind.BOOLEAN,
    type(None): Kind.NULL,
}


def value_at(key: str) -> str:
    """The path of the facts about a metadata key."""
    return "v" + key


def element_at(key: str) -> str:
    """The path of the facts about elements of the list at a metadata key."""
    return "e" + key


def kind_of(value: Any) -> Kind:
    """The kind of a JSON value. What JSON cannot say (NaN, infinities) is null, as its JSON is."""
    kind = _KINDS.get(type(value))
    if kind is not None:
        return kind
    if isinstance(value, float):
        return Kind.NUMBER if isfinite(value) else Kind.NULL
    return Kind.LONG_LIST if len(value) > MAX_ELEMENTS else Kind.LIST


def stored(kind: Kind, value: Any) -> Any:
    """The value of a fact. Lists and objects have none, and sort before false and true."""
    if kind is Kind.TEXT:
        return value
    if kind is Kind.NUMBER:
        return value if isinstance(value, float) or -_I64 <= value < _I64 else _nearest(value)
    return int(value) if kind is Kind.BOOLEAN else 0 if kind is Kind.NULL else -1


def facts_of(metadata: dict[str, Any], specs: Sequence[Spec], tags: Sequence[str]) -> list[Fact]:
    """All facts of a node: (path, kind, value)."""
    facts: list[Fact] = []
    for spec in specs:
        facts.append((SPECS, Kind.TEXT, spec.name))
    for tag in tags:
        facts.append((TAGS, Kind.TEXT, tag))
    _collect("", metadata, facts)
    return facts


def words_of(metadata: Any) -> str:
    """The words of all string values, case-folded, each once, between single spaces."""
    found: dict[str, None] = {}
    for text in _texts(metadata):
        found.update(dict.fromkeys(words_in(text)))
    return f" {' '.join(found)} " if found else ""


def words_in(text: str) -> list[str]:
    """Words as full text search knows them."""
    return [word.casefold() for word in _WORD.findall(text)]


def _collect(prefix: str, value: dict[str, Any], facts: list[Fact]) -> None:
    for key, item in value.items():
        if "." in key:
            continue
        key = prefix + key
        kind = kind_of(item)
        facts.append((value_at(key), kind, stored(kind, item)))
        if kind is Kind.OBJECT:
            _collect(key + ".", item, facts)
        elif kind is Kind.LIST:
            for element in item:
                kind = kind_of(element)
                facts.append((element_at(key), kind, stored(kind, element)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _nearest(value: int) -> float:
    """Integers beyond 64 bits sort and compare as doubles."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
