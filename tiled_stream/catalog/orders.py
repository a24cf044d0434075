"""Orders of a search as SQL. The meaning stands in `domain/search.py`: numbers, texts, everything else, null and missing; ties by
insertion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..domain.errors import Malformed
from ..domain.search import Page, SortKey
from .facts import Kind, value_at

__all__ = ["Order", "is_backwards", "ordered"]

MAX_KEYS = 20


class Order(msgspec.Struct, frozen=True):
    """Joins to put behind the tables of a search, and its ORDER BY list."""

    joins: str
    parameters: tuple[Any, ...]
    terms: str


def ordered(sort: Sequence[SortKey], row: str, page: Page, *, nothing: str = "0") -> Order:
    """The order of a listing; `row` is the expression for insertion order, `nothing` a value in place of a missing one.

    `Malformed` for keys that make no sense.
    """
    _check(sort, page)
    joins: list[str] = []
    parameters: list[str] = []
    terms: list[str] = []
    for place, key in enumerate(sort):
        direction = "DESC" if key.descending else "ASC"
        if key.key == "id":
            terms.append(f"n.key {direction}")
        elif key.key:
            alias = f"s{place}"
            joins.append(
                f" LEFT JOIN facts {alias} ON {alias}.node = n.row AND {alias}.path = (SELECT id FROM paths WHERE path = ?)"
            )
            parameters.append(value_at(key.key))
            terms += [f"{_rank(alias)} {direction}", f"coalesce({alias}.value, {nothing}) {direction}"]
    terms.append(f"{row} {'DESC' if is_backwards(sort) else 'ASC'}")
    return Order("".join(joins), tuple(parameters), ", ".join(terms))


def is_backwards(sort: Sequence[SortKey]) -> bool:
    """Does insertion order, the last of all keys, run backwards?"""
    return bool(sort) and sort[-1].key == "" and sort[-1].descending


def _check(sort: Sequence[SortKey], page: Page) -> None:
    names = [key.key for key in sort]
    if len(set(names)) != len(names):
        raise Malformed("A sort key is given twice.")
    if "" in names[:-1]:
        raise Malformed("The default order can only be the last sort key.")
    if len(names) > MAX_KEYS:
        raise Malformed(f"A search takes at most {MAX_KEYS} sort keys, not {len(names)}.")
    if page.cursor is not None and any(names):
        raise Malformed("A cursor continues the default order only; use an offset.")


def _rank(alias: str) -> str:
    """Kinds as they sort. A fact that is missing sorts as null."""
    return (
        f"CASE WHEN {alias}.kind <= {int(Kind.TEXT)} THEN {alias}.kind "
        f"WHEN {alias}.kind < {int(Kind.NULL)} THEN {int(Kind.BOOLEAN)} ELSE {int(Kind.NULL)} END"
    )
