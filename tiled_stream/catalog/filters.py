"""Filters and orders of a search as SQL over `nodes n` and `facts`. The meaning stands in `domain/search.py`.

Fragments use only plain SQL and the few words of a `Dialect`, so that every engine compiles the same. Values are always
parameters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from ..domain.errors import Malformed, NotSupported
from ..domain.search import Filter, SortKey
from .facts import ELEMENT, SPECS, TAGS, Kind, kind_of, stored, words_in

__all__ = ["Dialect", "Fragment", "compiled", "joined", "ordered"]

_OPERATORS = {"lt": "<", "gt": ">", "le": "<=", "ge": ">="}
_DEEP = (Kind.LIST, Kind.LONG_LIST, Kind.OBJECT)


class Dialect(Protocol):
    """What engines say differently."""

    def text(self, value: str) -> str:
        """An SQL expression: the text form of a number."""
        ...

    def substring(self, value: str, part: str) -> str:
        """A condition: `part` occurs in `value`; case matters."""
        ...

    def deep_equal(self, metadata: str, path: str, value: str) -> str:
        """A condition: at `path` of the JSON text `metadata` stands the JSON text `value`."""
        ...

    def deep_contains(self, metadata: str, path: str, value: str) -> str:
        """A condition: the list at `path` has an element equal to the JSON text `value`."""
        ...


class Fragment(msgspec.Struct, frozen=True):
    """SQL and its parameters, in order. `drives`: it names the rows it holds for, so that an engine can begin with them."""

    sql: str
    parameters: tuple[Any, ...] = ()
    drives: bool = False

    def negated(self) -> Fragment:
        return Fragment(f"NOT ({self.sql})", self.parameters)


_NOTHING = Fragment("0 = 1")
_EVERYTHING = Fragment("0 = 0")


def compiled(filters: Sequence[Filter], dialect: Dialect) -> Fragment:
    """One condition that all filters make together."""
    return joined(" AND ", [_one(f, dialect) for f in filters]) if filters else _EVERYTHING


def joined(word: str, fragments: Sequence[Fragment]) -> Fragment:
    """Fragments with a word between them."""
    parameters = tuple(p for f in fragments for p in f.parameters)
    drives = all(f.drives for f in fragments) if word == " OR " else any(f.drives for f in fragments)
    return Fragment("(" + word.join(f.sql for f in fragments) + ")", parameters, drives)


def ordered(sort: Sequence[SortKey]) -> tuple[Fragment, str]:
    """Joins and the ORDER BY list of a search by metadata keys."""
    joins: list[Fragment] = []
    terms: list[str] = []
    backwards = False
    seen: set[str] = set()
    for place, key in enumerate(sort):
        if key.key in seen:
            raise Malformed(f"The sort key {key.key!r} is given twice.")
        seen.add(key.key)
        direction = "DESC" if key.descending else "ASC"
        if key.key == "":
            if place != len(sort) - 1:
                raise Malformed("The default order can only be the last sort key.")
            backwards = key.descending
        elif key.key == "id":
            terms.append(f"n.key {direction}")
        else:
            alias = f"s{place}"
            joins.append(
                Fragment(
                    f"LEFT JOIN facts {alias} ON {alias}.node = n.row AND {alias}.path = (SELECT id FROM paths WHERE path = ?)",
                    (key.key,),
                )
            )
            rank = f"CASE WHEN {alias}.kind IS NULL THEN {int(Kind.NULL)} WHEN {alias}.kind > {int(Kind.TEXT)} AND "
            rank += f"{alias}.kind < {int(Kind.NULL)} THEN {int(Kind.BOOLEAN)} ELSE {alias}.kind END"
            terms += [f"{rank} {direction}", f"{alias}.value {direction}"]
    terms.append(f"n.created {'DESC' if backwards else 'ASC'}")
    return Fragment(" ".join(j.sql for j in joins), tuple(p for j in joins for p in j.parameters)), ", ".join(terms)


def _one(condition: Filter, dialect: Dialect) -> Fragment:
    compile_one = _COMPILERS.get(condition.name)
    if compile_one is None:
        raise Malformed(f"There is no filter {condition.name!r}; known are {', '.join(_COMPILERS)}.")
    return compile_one(condition, dialect)


def _having(path: str, rest: str = "", parameters: tuple[Any, ...] = ()) -> Fragment:
    """Nodes with a fact at `path` that fulfils `rest`."""
    condition = f" AND {rest}" if rest else ""
    sql = f"n.row IN (SELECT f.node FROM facts f WHERE f.path = (SELECT id FROM paths WHERE path = ?){condition})"
    return Fragment(sql, (path, *parameters), drives=True)


def _equal(path: str, value: Any, dialect: Dialect) -> Fragment:
    kind = kind_of(value)
    if kind in _DEEP:
        kinds = f"f.kind IN ({int(Kind.LIST)}, {int(Kind.LONG_LIST)}, {int(Kind.OBJECT)})"
        deep = Fragment(dialect.deep_equal("n.metadata", "?", "?"), (path, json.dumps(value)))
        return joined(" AND ", [_having(path, kinds), deep])
    if kind is Kind.NULL:
        return _having(path, "f.kind = ?", (int(kind),))
    return _having(path, "f.kind = ? AND f.value = ?", (int(kind), stored(value)))


def _in(path: str, values: Sequence[Any], dialect: Dialect) -> Fragment:
    return joined(" OR ", [_equal(path, v, dialect) for v in values]) if values else _NOTHING


def _fulltext(condition: Filter, dialect: Dialect) -> Fragment:
    words = words_in(_text(condition))
    if not words:
        raise Malformed("A full text search needs at least one word.")
    return joined(" AND ", [Fragment(dialect.substring("n.words", "?"), (f" {word} ",)) for word in words])


def _comparison(condition: Filter, dialect: Dialect) -> Fragment:
    operator = _OPERATORS.get(condition.operator)
    if operator is None:
        raise Malformed(f"There is no operator {condition.operator!r}; known are {', '.join(_OPERATORS)}.")
    kind = kind_of(condition.value)
    if kind not in (Kind.NUMBER, Kind.TEXT):
        return _NOTHING
    return _having(condition.key, f"f.kind = ? AND f.value {operator} ?", (int(kind), stored(condition.value)))


def _contains(condition: Filter, dialect: Dialect) -> Fragment:
    path, value, kind = condition.key, condition.value, kind_of(condition.value)
    encoded = json.dumps(value)
    deep = Fragment(dialect.deep_contains("n.metadata", "?", "?"), (path, encoded))
    lists = "f.kind IN (?, ?)" if kind in _DEEP else "f.kind = ?"
    kinds = (int(Kind.LONG_LIST), int(Kind.LIST)) if kind in _DEEP else (int(Kind.LONG_LIST),)
    ways = [joined(" AND ", [_having(path, lists, kinds), deep])]
    if kind not in _DEEP:
        ways.append(_equal(path + ELEMENT, value, dialect))
    if kind is Kind.TEXT:
        part = dialect.substring("f.value", "?")
        ways.append(_having(path, f"f.kind = ? AND {part}", (int(Kind.TEXT), value)))
    return joined(" OR ", ways)


def _like(condition: Filter, dialect: Dialect) -> Fragment:
    pattern = _text(condition)
    text = _having(condition.key, "f.kind = ? AND f.value LIKE ?", (int(Kind.TEXT), pattern))
    prefix = pattern.split("%")[0].split("_")[0]
    if prefix:  # lets the index find the few that begin so
        last = chr(min(ord(prefix[-1]) + 1, 0x10FFFF))
        rest = "f.kind = ? AND f.value >= ? AND f.value < ? AND f.value LIKE ?"
        text = _having(condition.key, rest, (int(Kind.TEXT), prefix, prefix[:-1] + last, pattern))
    number = _having(condition.key, f"f.kind = ? AND {dialect.text('f.value')} LIKE ?", (int(Kind.NUMBER), pattern))
    return joined(" OR ", [text, number])


def _notin(condition: Filter, dialect: Dialect) -> Fragment:
    values = _list(condition)
    if not values:
        return _EVERYTHING
    return joined(" AND ", [_having(condition.key), _in(condition.key, values, dialect).negated()])


def _specs(condition: Filter, dialect: Dialect) -> Fragment:
    included = [_equal(SPECS, name, dialect) for name in _names(condition.value)]
    excluded = [_equal(SPECS, name, dialect).negated() for name in condition.exclude]
    return joined(" AND ", [*included, *excluded]) if included or excluded else _EVERYTHING


def _keys(condition: Filter, dialect: Dialect) -> Fragment:
    keys = _names(condition.value)
    return Fragment(f"n.key IN ({', '.join('?' * len(keys))})", tuple(keys)) if keys else _NOTHING


def _regex(condition: Filter, dialect: Dialect) -> Fragment:
    raise NotSupported("Queries of type 'Regex' are not supported on this catalog; use Like, with % and _.")


def _text(condition: Filter) -> str:
    if not isinstance(condition.value, str):
        raise Malformed(f"The filter {condition.name!r} needs a text, not {json.dumps(condition.value)}.")
    return condition.value


def _list(condition: Filter) -> list[Any]:
    if not isinstance(condition.value, list | tuple):
        raise Malformed(f"The filter {condition.name!r} needs a list, not {json.dumps(condition.value)}.")
    return list(condition.value)


def _names(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise Malformed(f"Expected a list of texts, not {json.dumps(value)}.")
    return list(value)


_COMPILERS: dict[str, Callable[[Filter, Dialect], Fragment]] = {
    "fulltext": _fulltext,
    "lookup": lambda c, d: Fragment("n.key = ?", (_text(c),)),
    "keys_filter": _keys,
    "regex": _regex,
    "eq": lambda c, d: _equal(c.key, c.value, d),
    "noteq": lambda c, d: joined(" AND ", [_having(c.key), _equal(c.key, c.value, d).negated()]),
    "comparison": _comparison,
    "contains": _contains,
    "in": lambda c, d: _in(c.key, c.value, d) if isinstance(c.value, list | tuple) else _NOTHING,
    "notin": _notin,
    "keypresent": lambda c, d: _having(c.key) if c.value else _having(c.key).negated(),
    "like": _like,
    "specs": _specs,
    "access_tags_filter": lambda c, d: joined(" OR ", [_NOTHING, *(_equal(TAGS, t, d) for t in _names(c.value))]),
    "structure_family": lambda c, d: Fragment("n.family = ?", (_text(c),)),
}
