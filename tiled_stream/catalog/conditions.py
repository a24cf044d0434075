"""Conditions of a search over `nodes n` and `facts f`, and which of them a search begins with.

`Facts` can be used both ways round: to probe a node, or to name the nodes that fulfil it, by the index on values. `sourced` lets
the condition that names fewest begin, and everything else probe. Plain SQL that every engine understands; values are parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..domain.errors import Malformed

__all__ = ["FEW", "MANY", "MOST", "SOME", "Condition", "Facts", "Fragment", "Place", "Source", "Way", "sourced"]

#: How many nodes a condition may be expected to name, fewest first.
FEW, SOME, MANY, MOST = range(4)

#: What engines take in one statement (SQLite: 32766, PostgreSQL: 65535).
MAX_PARAMETERS = 20_000

_PATH = "f.path = (SELECT id FROM paths WHERE path = ?)"


class Fragment(msgspec.Struct, frozen=True):
    """SQL and its parameters, in order. `is_place`: it finds a node by its place in the tree, and nothing can be faster."""

    sql: str
    parameters: tuple[Any, ...] = ()
    is_place: bool = False


class Way(msgspec.Struct, frozen=True):
    """Facts at `path` that pass `test` (over `f`)."""

    path: str
    test: str
    parameters: tuple[Any, ...] = ()


class Facts(msgspec.Struct, frozen=True):
    """True for nodes that have a fact in any of these ways. `is_unique`: no more than one, if there is one way only."""

    ways: tuple[Way, ...]
    names: int = FEW
    is_unique: bool = True

    def probe(self) -> Fragment:
        """The node `n` has such a fact."""
        sql = " OR ".join(f"EXISTS (SELECT 1 FROM facts f WHERE f.node = n.row AND {_PATH} AND {way.test})" for way in self.ways)
        return Fragment(f"({sql})", tuple(p for way in self.ways for p in (way.path, *way.parameters)))

    def absent(self) -> Fragment:
        """The node `n` has no such fact."""
        probe = self.probe()
        return Fragment(f"NOT {probe.sql}", probe.parameters)


Condition = Fragment | Facts


class Place(msgspec.Struct, frozen=True):
    """Which nodes a search is about: `tables` and `condition` list them in the order of `row`; `probe` tells whether `n` is one.

    `parent`: they are the children of this row (facts know that by themselves). `is_small`: listing them all is the best start.
    """

    tables: str
    condition: Fragment
    row: str = "n.row"
    probe: Fragment | None = None
    parent: int | None = None
    is_small: bool = False


class Source(msgspec.Struct, frozen=True):
    """FROM and WHERE of a search. `row` is the row of the node there, by which it is in insertion order.

    `facts`: a condition over `facts f` alone that is true once for each node; None if the nodes must be looked at.
    """

    tables: str
    condition: Fragment
    row: str
    facts: Fragment | None = None


def sourced(conditions: Sequence[Condition], place: Place) -> Source:
    """Nodes of `place` that fulfil all conditions, begun with what names fewest."""
    driver = _driver(conditions, place)
    rest = [c for c in conditions if c is not driver]
    probes = [c.probe() if isinstance(c, Facts) else c for c in rest]
    if driver is None:
        return _source(place.tables, [place.condition, *probes], place.row)
    if place.probe is not None:
        probes.insert(0, place.probe)
    named = [_naming(way, place.parent) for way in driver.ways]
    if len(named) == 1 and driver.is_unique:
        # CROSS: facts first, which then come in insertion order. Engines that choose by themselves do not mind.
        whole = [named[0], Fragment("n.row = f.node"), *probes]
        return _source("facts f CROSS JOIN nodes n", whole, "f.node", facts=None if probes else named[0])
    union = " UNION ALL ".join(f"SELECT f.node FROM facts f WHERE {f.sql}" for f in named)
    whole = [Fragment(f"n.row IN ({union})", tuple(p for f in named for p in f.parameters)), *probes]
    return _source("nodes n", whole, "n.row")


def _joined(fragments: Iterable[Fragment]) -> Fragment:
    """All of them must hold."""
    several = list(fragments)
    return Fragment(" AND ".join(f.sql for f in several), tuple(p for f in several for p in f.parameters))


def _source(tables: str, fragments: Sequence[Fragment], row: str, *, facts: Fragment | None = None) -> Source:
    condition = _joined(fragments)
    if len(condition.parameters) > MAX_PARAMETERS:
        raise Malformed(f"A search takes at most {MAX_PARAMETERS} values; ask in parts.")
    return Source(tables, condition, row, facts)


def _driver(conditions: Sequence[Condition], place: Place) -> Facts | None:
    by_place = place.parent is not None and any(isinstance(c, Fragment) and c.is_place for c in conditions)
    if place.is_small or by_place:
        return None
    return min((c for c in conditions if isinstance(c, Facts)), key=lambda c: (c.names, len(c.ways)), default=None)


def _naming(way: Way, parent: int | None) -> Fragment:
    if parent is None:
        return Fragment(f"{_PATH} AND {way.test}", (way.path, *way.parameters))
    return Fragment(f"{_PATH} AND {way.test} AND f.parent = ?", (way.path, *way.parameters, parent))
