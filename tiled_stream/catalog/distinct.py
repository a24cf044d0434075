"""Distinct values among the nodes of a search, with their counts, in the order in which they first appear."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from . import rows
from .conditions import Source
from .facts import Kind, value_at

__all__ = ["Fetch", "grouped", "values_at"]

Fetch = Callable[[str, Sequence[Any]], Awaitable[list[Any]]]

_DEEP = f"v.kind IN ({int(Kind.LIST)}, {int(Kind.LONG_LIST)}, {int(Kind.OBJECT)})"
_JOIN = " LEFT JOIN facts v ON v.node = n.row AND v.path = (SELECT id FROM paths WHERE path = ?)"


async def grouped(fetch: Fetch, source: Source, column: str, *, is_json: bool = False) -> list[tuple[Any, int]]:
    """Values of a column of `nodes n`."""
    sql = f"SELECT {column}, count(*) FROM {source.tables} WHERE {source.condition.sql} GROUP BY 1 ORDER BY min({source.row})"
    found = await fetch(sql, source.condition.parameters)
    return [(rows.value(value) if is_json else value, count) for value, count in found]


async def values_at(
    fetch: Fetch, source: Source, key: str, *, nothing: str = "0", scalar: Callable[[int, Any], Any] = lambda _, value: value
) -> list[tuple[Any, int]]:
    """Values of a metadata key; missing ones count as null. Scalars are grouped by SQL, lists and objects here.

    `nothing` is a value in place of a missing one, `scalar` gives the value behind a stored one of a kind.
    """
    parameters = (value_at(key), *source.condition.parameters)
    of = f"FROM {source.tables}{_JOIN} WHERE {source.condition.sql}"
    found = await fetch(
        f"SELECT min({source.row}), coalesce(v.kind, {int(Kind.NULL)}) AS what, coalesce(v.value, {nothing}) AS scalar, count(*) "
        f"{of} "
        f"AND (v.kind IS NULL OR NOT {_DEEP}) GROUP BY what, scalar",
        parameters,
    )
    # By their JSON, objects with their keys in order: (first row, value, count).
    values = {(kind, raw): (row, _scalar(kind, scalar(kind, raw)), count) for row, kind, raw, count in found}
    for row, metadata in await fetch(f"SELECT {source.row}, n.metadata {of} AND {_DEEP} ORDER BY 1", parameters):
        value = rows.value(metadata)
        for part in key.split("."):
            value = value[part]
        text = (Kind.OBJECT, msgspec.json.encode(value, order="deterministic"))
        first, value, count = values.get(text, (row, value, 0))
        values[text] = (first, value, count + 1)
    return [(value, count) for _, value, count in sorted(values.values(), key=lambda v: v[0])]


def _scalar(kind: int, value: Any) -> Any:
    return None if kind == Kind.NULL else bool(value) if kind == Kind.BOOLEAN else value
