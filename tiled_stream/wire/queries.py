"""Filters and orders from the query string: ``filter[name][condition][field]=value``, fields paired by position.

What must stay true: a condition that is not understood is refused, never ignored, for a search without it would find too much.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..domain.errors import Malformed, Unsatisfiable
from ..domain.search import FILTERS, Filter, SortKey
from .client_json import load

__all__ = ["parse_filters", "parse_sort"]

_PARAMETER = re.compile(r"filter\[(\w+)\]\[condition\]\[(\w+)\]\Z")
_SORT = re.compile(r"([+-]?)([A-Za-z0-9_.]*)\Z")
_FAMILIES = ("array", "awkward", "bytes", "container", "ragged", "sparse", "table")

#: Fields of each filter, and whether their value is JSON (else it is the text itself).
_FIELDS: dict[str, dict[str, bool]] = {
    "fulltext": {"text": False},
    "lookup": {"key": False},
    "keys_filter": {"keys": True},
    "regex": {"key": False, "pattern": False, "case_sensitive": True},
    "eq": {"key": False, "value": True},
    "noteq": {"key": False, "value": True},
    "comparison": {"operator": False, "key": False, "value": True},
    "contains": {"key": False, "value": True},
    "in": {"key": False, "value": True},
    "notin": {"key": False, "value": True},
    "keypresent": {"key": False, "exists": True},
    "like": {"key": False, "pattern": True},
    "specs": {"include": True, "exclude": True},
    "access_tags_filter": {"tags": True},
    "structure_family": {"value": False},
}
_OPTIONAL = {("regex", "case_sensitive")}


def parse_filters(params: Sequence[tuple[str, str]]) -> tuple[Filter, ...]:
    """All filters among query pairs. `Unsatisfiable` for unknown ones, `Malformed` for missing siblings and broken JSON."""
    given: dict[str, dict[str, list[str]]] = {}
    for name, value in params:
        if not name.startswith("filter["):
            continue
        match = _PARAMETER.match(name)
        if match is None or match[1] not in FILTERS:
            raise Unsatisfiable(f"There is no filter {name!r}; known are {', '.join(FILTERS)}.")
        if match[2] not in _FIELDS[match[1]]:
            raise Malformed(f"The filter {match[1]!r} has no field {match[2]!r}; it has {', '.join(_FIELDS[match[1]])}.")
        given.setdefault(match[1], {}).setdefault(match[2], []).append(value)
    return tuple(condition for name, fields in given.items() for condition in _conditions(name, fields))


def parse_sort(values: Sequence[str]) -> tuple[SortKey, ...]:
    """Sort keys; a leading ``metadata.`` is optional and goes."""
    keys: list[SortKey] = []
    for value in values:
        match = _SORT.match(value)
        if match is None:
            raise Malformed(f"{value!r} is no sort key: letters, digits, '_' and '.', with '-' in front to reverse.")
        keys.append(SortKey(match[2].removeprefix("metadata."), descending=match[1] == "-"))
    names = [k.key for k in keys]
    if len(set(names)) != len(names):
        raise Unsatisfiable("A sort key is given twice.")
    if "" in names[:-1]:
        raise Unsatisfiable("The default order can only be the last sort key.")
    return tuple(keys)


def _conditions(name: str, fields: dict[str, list[str]]) -> list[Filter]:
    needed = [f for f in _FIELDS[name] if f in fields or (name, f) not in _OPTIONAL]
    missing = [f for f in needed if f not in fields]
    if missing:
        raise Malformed(f"The filter {name!r} also needs filter[{name}][condition][{missing[0]}].")
    if len({len(fields[f]) for f in needed}) != 1:
        raise Malformed(f"The fields of the filter {name!r} are given a different number of times; they are paired in order.")
    return [_condition(name, dict(zip(needed, values, strict=True))) for values in zip(*(fields[f] for f in needed), strict=True)]


def _condition(name: str, texts: dict[str, str]) -> Filter:
    values = {field: _value(name, field, text) for field, text in texts.items()}
    key = str(values.get("key", ""))
    match name:
        case "regex":
            raise Unsatisfiable("Queries of type 'Regex' are not supported by this catalog; use Like, with % and _.")
        case "lookup":
            return Filter(name, key)
        case "comparison":
            if values["operator"] not in ("lt", "gt", "le", "ge"):
                raise Malformed(f"There is no operator {values['operator']!r}; known are lt, gt, le, ge.")
            return Filter(name, _scalar(name, values["value"]), key=key, operator=values["operator"])
        case "keypresent":
            if values["exists"] not in (True, False, 0, 1):
                raise Malformed("filter[keypresent][condition][exists] is true or false.")
            return Filter(name, bool(values["exists"]), key=key)
        case "specs":
            return Filter(name, _names(name, values["include"]), exclude=tuple(_names(name, values["exclude"])))
        case "structure_family":
            if values["value"] not in _FAMILIES:
                raise Malformed(f"There is no family {values['value']!r}; known are {', '.join(_FAMILIES)}.")
            return Filter(name, values["value"])
        case "like":
            if not isinstance(values["pattern"], str):
                raise Malformed("filter[like][condition][pattern] is a JSON text, in quotes.")
            return Filter(name, values["pattern"], key=key)
        case "keys_filter" | "access_tags_filter":
            return Filter(name, _names(name, next(iter(values.values()))))
        case "fulltext":
            return Filter(name, values["text"])
    return Filter(name, values["value"], key=key)


def _value(name: str, field: str, text: str) -> Any:
    if not _FIELDS[name][field]:
        return text
    # Python's True, as a client of Python may spell it.
    return load(text.lower() if field in ("exists", "case_sensitive") else text, f"filter[{name}][condition][{field}]")


def _names(name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise Malformed(f"The filter {name!r} takes a JSON list of texts.")
    return value


def _scalar(name: str, value: Any) -> Any:
    if isinstance(value, list | dict) or value is None:
        raise Malformed(f"The filter {name!r} compares with a number or a text.")
    return value
