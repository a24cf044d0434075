"""Filters as conditions of a search. The meaning stands in `domain/search.py`; orders in `orders.py`.

The few words that engines say differently come from a `Dialect`, so that every engine compiles the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from ..domain.errors import Malformed, NotSupported
from ..domain.search import Filter
from .conditions import FEW, MANY, MOST, SOME, Condition, Facts, Fragment, Way
from .facts import SPECS, TAGS, Kind, element_at, kind_of, value_at, words_in

__all__ = ["Dialect", "compiled"]

#: Engines bound how deep an expression may be; so does patience.
MAX_CONDITIONS = 100
#: Characters of a pattern's beginning that an index is asked with.
MAX_PREFIX = 200

_OPERATORS = {"lt": "<", "gt": ">", "le": "<=", "ge": ">="}
_DEEP = (Kind.LIST, Kind.LONG_LIST, Kind.OBJECT)
_KIND_OF_DEEP = f"f.kind IN ({', '.join(str(int(kind)) for kind in _DEEP)})"
_KIND_OF_LIST = f"f.kind IN ({int(Kind.LIST)}, {int(Kind.LONG_LIST)})"
_METADATA = "(SELECT m.metadata FROM nodes m WHERE m.row = f.node)"
_NOTHING = Fragment("0 = 1")


class Dialect(Protocol):
    """What engines say differently. Arguments and results are SQL expressions."""

    def value(self, kind: Kind) -> str:
        """The value of the fact `f`, of this kind."""
        ...

    def stored(self, kind: Kind, value: Any) -> Any:
        """What a value is compared by, as a parameter."""
        ...

    def like(self, kind: Kind) -> str:
        """The text of the fact `f`, a text or a number, matches a parameter.

        % and _ are special, nothing escapes them, case matters.
        """
        ...

    def has_part(self) -> str:
        """A parameter (see `part`) occurs in the text of the fact `f`; case matters."""
        ...

    def part(self, text: str) -> Any:
        """What `has_part` takes."""
        ...

    def substring(self, text: str, part: str) -> str:
        """`part` occurs in `text`, a column; case matters."""
        ...

    def deep_equal(self, metadata: str, key: str, value: str) -> str:
        """At `key` of the JSON text `metadata` stands the JSON text `value`."""
        ...

    def deep_contains(self, metadata: str, key: str, value: str) -> str:
        """The list at `key` has an element equal to the JSON text `value`."""
        ...


def compiled(filters: Sequence[Filter], dialect: Dialect) -> list[Condition]:
    """Conditions that must all hold. `Malformed` for what makes no sense, `NotSupported` for `regex`."""
    if len(filters) > MAX_CONDITIONS:
        raise Malformed(f"A search takes at most {MAX_CONDITIONS} conditions, not {len(filters)}.")
    conditions: list[Condition] = []
    ranges: dict[tuple[str, Kind], list[Filter]] = {}
    for condition in filters:
        compile_one = _COMPILERS.get(condition.name)
        if compile_one is None and condition.name != "comparison":
            raise Malformed(f"There is no filter {condition.name!r}; known are comparison, {', '.join(_COMPILERS)}.")
        if compile_one is not None:
            conditions += compile_one(condition, dialect)
        else:
            ranges.setdefault((condition.key, kind_of(condition.value)), []).append(condition)
    conditions += [_range(key, kind, bounds, dialect) for (key, kind), bounds in ranges.items()]
    return conditions


def _present(key: str, names: int = MOST) -> Facts:
    return Facts((Way(value_at(key), "f.kind >= 0"),), names)


def _is(path: str, kind: Kind, values: Sequence[Any], dialect: Dialect) -> Way:
    """Facts of a scalar kind with any of these values."""
    if kind is Kind.NULL:
        return Way(path, f"f.kind = {int(kind)}")
    test = "= ?" if len(values) == 1 else f"IN ({', '.join('?' * len(values))})"
    return Way(path, f"f.kind = {int(kind)} AND {dialect.value(kind)} {test}", tuple(dialect.stored(kind, v) for v in values))


def _any_of(key: str, values: Sequence[Any], dialect: Dialect) -> Facts:
    """The value at `key` equals one of these."""
    scalars: dict[Kind, list[Any]] = {}
    ways: list[Way] = []
    for value in values:
        kind = kind_of(value)
        if kind in _DEEP:
            test = f"{_KIND_OF_DEEP} AND {dialect.deep_equal(_METADATA, '?', '?')}"
            ways.append(Way(value_at(key), test, (key, _encoded(value))))
        else:
            scalars.setdefault(kind, []).append(value)
    if len(ways) > MAX_CONDITIONS:
        raise Malformed(f"A search compares with at most {MAX_CONDITIONS} lists and objects, not {len(ways)}.")
    names = SOME if ways else FEW
    ways += [_is(value_at(key), kind, several, dialect) for kind, several in scalars.items()]
    return Facts(tuple(ways), names)


def _equal(condition: Filter, dialect: Dialect) -> list[Condition]:
    return [_any_of(condition.key, [condition.value], dialect)]


def _noteq(condition: Filter, dialect: Dialect) -> list[Condition]:
    return [_present(condition.key), _any_of(condition.key, [condition.value], dialect).absent()]


def _in(condition: Filter, dialect: Dialect) -> list[Condition]:
    if not isinstance(condition.value, list | tuple) or not condition.value:
        return [_NOTHING]
    return [_any_of(condition.key, condition.value, dialect)]


def _notin(condition: Filter, dialect: Dialect) -> list[Condition]:
    if not isinstance(condition.value, list | tuple):
        raise Malformed(f"The filter 'notin' needs a list, not {_shown(condition.value)}.")
    if not condition.value:
        return []
    return [_present(condition.key), _any_of(condition.key, condition.value, dialect).absent()]


def _range(key: str, kind: Kind, bounds: Sequence[Filter], dialect: Dialect) -> Condition:
    """Comparisons of one key are one look into the index, between both bounds."""
    tests: list[str] = [f"f.kind = {int(kind)}"]
    for bound in bounds:
        operator = _OPERATORS.get(bound.operator)
        if operator is None:
            raise Malformed(f"There is no operator {bound.operator!r}; known are {', '.join(_OPERATORS)}.")
        tests.append(f"{dialect.value(kind)} {operator} ?")
    if kind not in (Kind.NUMBER, Kind.TEXT):
        return _NOTHING
    return Facts((Way(value_at(key), " AND ".join(tests), tuple(dialect.stored(kind, b.value) for b in bounds)),), SOME)


def _contains(condition: Filter, dialect: Dialect) -> list[Condition]:
    key, value, kind = condition.key, condition.value, kind_of(condition.value)
    deep = dialect.deep_contains(_METADATA, "?", "?")
    inside = (key, _encoded(value))
    if kind in _DEEP:
        return [Facts((Way(value_at(key), f"{_KIND_OF_LIST} AND {deep}", inside),), MANY)]
    ways = [
        _is(element_at(key), kind, [value], dialect),
        Way(value_at(key), f"f.kind = {int(Kind.LONG_LIST)} AND {deep}", inside),
    ]
    if kind is Kind.TEXT:
        ways.append(Way(value_at(key), f"f.kind = {int(kind)} AND {dialect.has_part()}", (dialect.part(value),)))
    return [Facts(tuple(ways), MANY)]


def _like(condition: Filter, dialect: Dialect) -> list[Condition]:
    pattern = _text(condition)
    text = dialect.value(Kind.TEXT)
    tests: list[str] = [f"f.kind = {int(Kind.TEXT)}"]
    parameters: list[Any] = []
    prefix = pattern.split("%")[0].split("_")[0][:MAX_PREFIX]
    if prefix:  # lets the index find the few that begin so
        tests.append(f"{text} >= ?")
        parameters.append(dialect.stored(Kind.TEXT, prefix))
        following = _following(prefix)
        if following is not None:
            tests.append(f"{text} < ?")
            parameters.append(dialect.stored(Kind.TEXT, following))
    path = value_at(condition.key)
    ways = [Way(path, " AND ".join([*tests, dialect.like(Kind.TEXT)]), (*parameters, pattern))]
    if set(pattern) <= set("0123456789+-.e%_"):
        ways.append(Way(path, f"f.kind = {int(Kind.NUMBER)} AND {dialect.like(Kind.NUMBER)}", (pattern,)))
    return [Facts(tuple(ways), SOME if prefix else MANY)]


def _fulltext(condition: Filter, dialect: Dialect) -> list[Condition]:
    words = dict.fromkeys(words_in(_text(condition)))
    if not words:
        raise Malformed("A full text search needs at least one word.")
    if len(words) > MAX_CONDITIONS:
        raise Malformed(f"A full text search takes at most {MAX_CONDITIONS} words, not {len(words)}.")
    return [Fragment(dialect.substring("n.words", "?"), (f" {word} ",)) for word in words]


def _specs(condition: Filter, dialect: Dialect) -> list[Condition]:
    included = [Facts((_is(SPECS, Kind.TEXT, [name], dialect),)) for name in _names(condition.value)]
    excluded = [Facts((_is(SPECS, Kind.TEXT, [name], dialect),)).absent() for name in condition.exclude]
    if len(included) + len(excluded) > MAX_CONDITIONS:
        raise Malformed(f"A search takes at most {MAX_CONDITIONS} names of specs.")
    return [*included, *excluded]


def _tags(condition: Filter, dialect: Dialect) -> list[Condition]:
    tags = _names(condition.value)
    return [Facts((_is(TAGS, Kind.TEXT, tags, dialect),), is_unique=len(tags) == 1) if tags else _NOTHING]


def _keys(condition: Filter, dialect: Dialect) -> list[Condition]:
    keys = _names(condition.value)
    return [Fragment(f"n.key IN ({', '.join('?' * len(keys))})", tuple(keys), is_place=True) if keys else _NOTHING]


def _lookup(condition: Filter, dialect: Dialect) -> list[Condition]:
    return [Fragment("n.key = ?", (_text(condition),), is_place=True)]


def _family(condition: Filter, dialect: Dialect) -> list[Condition]:
    return [Fragment("n.family = ?", (_text(condition),))]


def _keypresent(condition: Filter, dialect: Dialect) -> list[Condition]:
    present = _present(condition.key)
    return [present if condition.value else present.absent()]


def _regex(condition: Filter, dialect: Dialect) -> list[Condition]:
    raise NotSupported("Queries of type 'Regex' are not supported on this catalog; use Like, with % and _.")


def _text(condition: Filter) -> str:
    if not isinstance(condition.value, str):
        raise Malformed(f"The filter {condition.name!r} needs a text, not {_shown(condition.value)}.")
    return condition.value


def _names(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise Malformed(f"Expected a list of texts, not {_shown(value)}.")
    return list(value)


def _encoded(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, UnicodeEncodeError) as error:
        raise Malformed(f"A search cannot compare with {_shown(value)}: {error}.") from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _following(prefix: str) -> str | None:
    """The least text that is greater than everything that begins so; None if there is none. Surrogates are no characters."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return None
    code = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)


_COMPILERS: dict[str, Callable[[Filter, Dialect], list[Condition]]] = {
    "fulltext": _fulltext,
    "lookup": _lookup,
    "keys_filter": _keys,
    "regex": _regex,
    "eq": _equal,
    "noteq": _noteq,
    "contains": _contains,
    "in": _in,
    "notin": _notin,
    "keypresent": _keypresent,
    "like": _like,
    "specs": _specs,
    "access_tags_filter": _tags,
    "structure_family": _family,
}
