"""What a client looks for among nodes: filters, order and page, as values.

Meaning of the filters (`contract/04-queries`, its portable reading; the same on every engine of the catalog):

- A key path is split on dots; each part descends one object level of `metadata`. A path that leads nowhere is *missing*.
- `eq`: present and equal, type-strict (``1 == 1.0``, but never ``1 == "1"`` nor ``1 == true``); null equals null; objects
  and lists compare deeply. `noteq`: present and not equal (JSON null counts as present).
- `comparison`: numbers with numbers, strings with strings (by code point); anything else never matches.
- `in`: any of the values by `eq`. `notin`: not (`in`) among nodes where the key is present, except that an empty list
  matches every node. Not a list: nothing matches `in`, as on the reference.
- `contains`: the value at the key is a list with an element equal to `value`; or both are strings and `value` is a substring.
- `keypresent`: the key exists, also with null; `exists=False` is the complement.
- `like`: SQL LIKE, case-sensitive, `%` and `_`, on strings and on the JSON text of numbers.
- `fulltext`: every word of `text` occurs as a whole word, case-insensitively, in some string value of the metadata.
- `specs`: all of `include` and none of `exclude` among the names. `lookup`: the key is this. `keys_filter`: any of these.
- `structure_family`: the family is this. `access_tags_filter`: at least one tag in common.

Order: by metadata values, numbers before strings before everything else, missing or null last when ascending and first when
descending; ties by insertion. `""` is insertion order itself and can only stand last.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = ["FILTERS", "Filter", "Page", "Search", "SortKey"]

#: Names as the about page announces them. `regex` is announced by the reference too, and refused on SQL catalogs; we refuse it.
FILTERS = (
    "fulltext",
    "lookup",
    "keys_filter",
    "regex",
    "eq",
    "noteq",
    "comparison",
    "contains",
    "in",
    "notin",
    "keypresent",
    "like",
    "specs",
    "access_tags_filter",
    "structure_family",
)


class Filter(msgspec.Struct, frozen=True):
    """One condition. Which fields are used depends on `name`:

    fulltext(value: str) · lookup(value: str) · keys_filter(value: list[str]) · eq, noteq, contains, in, notin(key, value) ·
    comparison(key, operator, value) · keypresent(key, value: bool) · like(key, value: str) ·
    specs(value: list[str] included, exclude) · access_tags_filter(value: list[str]) · structure_family(value: str)
    """

    name: str
    value: Any = None
    key: str = ""
    operator: Literal["lt", "gt", "le", "ge"] = "lt"
    exclude: tuple[str, ...] = ()


class SortKey(msgspec.Struct, frozen=True):
    """`key` is a metadata path, `"id"` for the node's key, or `""` for insertion order."""

    key: str
    descending: bool = False


class Page(msgspec.Struct, frozen=True):
    """Either `offset`, or `cursor`: continue after that row (only with the plain insertion order, either direction)."""

    limit: int = 100
    offset: int = 0
    cursor: int | None = None


class Search(msgspec.Struct, frozen=True):
    """Filters (all must hold) and order (`()`: insertion order)."""

    filters: tuple[Filter, ...] = ()
    sort: tuple[SortKey, ...] = ()
