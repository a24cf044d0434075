"""What every engine of the catalog must answer: pages, deep searches, distinct values, filters and orders.

Part of `CatalogContract`. Filters and orders are compared with `catalog_model.py`, over random metadata.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from ..catalog.port import Catalog, CatalogBatch
from ..domain.errors import Malformed, NotSupported
from ..domain.events import ChildCreated, ChildDeleted, ChildMetadataUpdated, Event, Record
from ..domain.nodes import ROOT, Node, NodeId, Spec
from ..domain.search import Filter, Page, Search, SortKey
from .catalog_model import in_order, matches, same
from .factories import array_node, container_node

__all__ = ["CatalogSearchContract", "batch", "created", "keys", "specified", "updated"]

_KEYS = ("color", "n", "nest", "nest.x", "nest.deep.v", "lst", "flag", "nul", "missing", "", "a.dotted.key", "nest.x.y")
_VALUES: tuple[Any, ...] = (
    *("red", "Red", "blue", "a b", "", "10", "100%", "red_", "Straße", "é", "\ud7ff", "\ue000", "\U0010ffff"),
    *(0, 1, 1.0, 2.5, -3, 10, 0.1 + 0.2, 1e20, -2.5e-7, 2**53 + 1, -(2**63)),
    *(True, False, None),
)
_PATTERNS = (
    *("r%", "%e%", "_ed", "1%", "%", "10", "R__", "", "%E%", "_ED", "%.%", "red_"),
    *("%0.3%", "1e+20", "\ud7ff%", "\U0010ffff%", "100\\%"),
)
_LISTS: tuple[Any, ...] = (
    *([], [1, 2], [1, 1.0, True], ["a", "b"], ["red", [1]], [{"k": 1}], [True, None], {"k": [1]}, {}),
    *([*range(200), "red"], ["x"] * 65, [[2]] * 100),
)


def batch(node: str, *events: Event, after: int = 0, time: float = 100.0) -> CatalogBatch:
    """Consecutive records of one node."""
    return CatalogBatch(node, after, tuple(Record(after + n, time + n, e) for n, e in enumerate(events, start=1)))


def specified(node: Node, *specs: Spec) -> Node:
    """`node` with these specs."""
    return msgspec.structs.replace(node, specs=specs)


def created(*nodes: Node) -> list[Event]:
    """The creations of these nodes, in order."""
    return [ChildCreated(n) for n in nodes]


def updated(node: Node, metadata: dict[str, Any], revision: int | None = None, specs: tuple[Spec, ...] = ()) -> Event:
    """An edit of `node`; `revision` None keeps nothing of what was before."""
    return ChildMetadataUpdated(node.key, node.id, metadata, specs, (), revision)


async def keys(catalog: Catalog, *filters: Filter, sort: tuple[SortKey, ...] = (), parent: NodeId = ROOT) -> list[str]:
    """Keys of the matching children, in order."""
    found = await catalog.children(parent, Search(filters, sort), Page(limit=1000))
    assert [hit.path for hit in found.hits] == [(hit.node.key,) for hit in found.hits]
    return [hit.node.key for hit in found.hits]


class CatalogSearchContract:
    """Needs the fixture `catalog`: open, empty but for the root."""

    async def test_pages_by_offset_and_by_cursor_in_both_directions(self, catalog: Catalog) -> None:
        names = [f"k{n}" for n in range(7)]
        await catalog.apply([batch(ROOT, *created(*(container_node(name) for name in names)))])
        for sort, expected in (((), names), ((SortKey("", descending=True),), names[::-1])):
            seen: list[str] = []
            page = Page(limit=3)
            while True:
                found = await catalog.children(ROOT, Search((), sort), page)
                seen += [hit.node.key for hit in found.hits]
                if not found.more:
                    break
                page = Page(limit=3, cursor=found.hits[-1].cursor)
            assert seen == expected
        found = await catalog.children(ROOT, Search(), Page(limit=3, offset=5))
        assert ([h.node.key for h in found.hits], found.more) == (["k5", "k6"], False)
        found = await catalog.children(ROOT, Search(), Page(limit=0))
        assert (found.hits, found.more) == ((), True)

    async def test_a_cursor_goes_on_where_it_was_whatever_happened(self, catalog: Catalog) -> None:
        nodes = [container_node(f"k{n}", metadata={"even": n % 2 == 0}) for n in range(8)]
        await catalog.apply([batch(ROOT, *created(*nodes))])
        for filters in ((), (Filter("keypresent", True, key="even"),)):
            found = await catalog.children(ROOT, Search(filters), Page(limit=3))
            after = Page(limit=100, cursor=found.hits[-1].cursor)
            last = (await catalog.node(ROOT)).watermark
            # What was last on the page goes, and so does its neighbour; something new comes.
            doomed = [hit.node for hit in found.hits[1:]]
            new = container_node(f"new{last}", metadata={"even": False})
            await catalog.apply([batch(ROOT, *(ChildDeleted(n.key, n.id) for n in doomed), *created(new), after=last)])
            rest = await catalog.children(ROOT, Search(filters), after)
            assert [h.node.key for h in rest.hits][-1] == new.key
            assert not {h.node.key for h in rest.hits} & {h.node.key for h in found.hits}
            assert rest.more is False
            before = await catalog.children(ROOT, Search(filters, (SortKey("", descending=True),)), after)
            assert [h.node.key for h in before.hits] == [found.hits[0].node.key]

    async def test_pages_of_matches_in_an_order_fit_together(self, catalog: Catalog) -> None:
        nodes = [container_node(f"k{n}", metadata={"v": n * 7 % 10, "kind": n % 3}) for n in range(20)]
        await catalog.apply([batch(ROOT, *created(*nodes))])
        search = Search((Filter("in", [0, 1], key="kind"),), (SortKey("v", descending=True), SortKey("id")))
        wanted = sorted((n for n in nodes if n.metadata["kind"] < 2), key=lambda n: (-n.metadata["v"], n.key))
        seen: list[str] = []
        for offset in range(0, 16, 4):
            found = await catalog.children(ROOT, search, Page(limit=4, offset=offset))
            seen += [hit.node.key for hit in found.hits]
            assert found.more is (offset + 4 < len(wanted))
        assert seen == [n.key for n in wanted]
        beyond = await catalog.children(ROOT, search, Page(limit=4, offset=100))
        assert (beyond.hits, beyond.more) == ((), False)

    async def test_nothing_is_below_what_is_not_there(self, catalog: Catalog) -> None:
        await catalog.apply([batch(ROOT, *created(container_node("a"), array_node("x")))])
        leaf = (await catalog.child(ROOT, "x")).node.id
        for nobody in ("0" * 32, leaf):
            assert (await catalog.children(nobody, Search(), Page())).hits == ()
            assert (await catalog.descendants(nobody, Search(), Page())).hits == ()
            assert await catalog.count(nobody) == await catalog.count(nobody, deep=True) == 0
            assert await catalog.count(nobody, (Filter("structure_family", "array"),)) == 0
            assert (await catalog.distinct(nobody, (), structure_families=True)).structure_families == []

    async def test_many_values_at_once(self, catalog: Catalog) -> None:
        nodes = [container_node(f"k{n}", metadata={"n": n}) for n in range(5)]
        await catalog.apply([batch(ROOT, *created(*nodes))])
        many = [*range(3, 3000), *(str(n) for n in range(2000))]
        assert await keys(catalog, Filter("in", many, key="n")) == ["k3", "k4"]
        assert await keys(catalog, Filter("notin", many, key="n")) == ["k0", "k1", "k2"]
        assert await keys(catalog, Filter("keys_filter", [f"k{n}" for n in range(2, 3000)])) == ["k2", "k3", "k4"]

    async def test_deep_searches_know_paths_and_depth(self, catalog: Catalog) -> None:
        run, stream, data = container_node("run"), container_node("primary"), array_node("x", metadata={"v": 1})
        await catalog.apply([batch(ROOT, *created(run)), batch(run.id, *created(stream)), batch(stream.id, *created(data))])
        found = await catalog.descendants(ROOT, Search(), Page())
        assert [h.path for h in found.hits] == [("run",), ("run", "primary"), ("run", "primary", "x")]
        below = await catalog.descendants(run.id, Search((Filter("eq", 1, key="v"),)), Page())
        assert [h.path for h in below.hits] == [("primary", "x")]
        assert await catalog.count(ROOT, deep=True, max_depth=2) == 2
        shallow = await catalog.descendants(ROOT, Search(), Page(), max_depth=1)
        assert [h.path for h in shallow.hits] == [("run",)]
        first = await catalog.descendants(ROOT, Search(), Page(limit=2))
        assert first.more
        rest = await catalog.descendants(ROOT, Search(), Page(limit=2, cursor=first.hits[-1].cursor))
        assert [h.path for h in rest.hits] == [("run", "primary", "x")]
        newest = await catalog.descendants(ROOT, Search((), (SortKey("", descending=True),)), Page(limit=1))
        assert ([h.path for h in newest.hits], newest.more) == ([("run", "primary", "x")], True)

    async def test_distinct_values_with_their_counts(self, catalog: Catalog) -> None:
        seen = ("red", "red", 1, True, [1], None, {"a": 1, "b": 2}, {"b": 2, "a": 1})
        values: list[dict[str, Any]] = [*({"c": value} for value in seen), {}]
        nodes = [container_node(f"k{n}", metadata=m) for n, m in enumerate(values)]
        await catalog.apply([batch(ROOT, *created(*nodes, specified(array_node("arr"), Spec("s"))))])
        found = await catalog.distinct(ROOT, (), metadata=["c"], structure_families=True, specs=True)
        counted = sorted(((repr(v), n) for v, n in found.metadata["c"]))
        assert counted == sorted([("'red'", 2), ("1", 1), ("True", 1), ("[1]", 1), ("None", 3), ("{'a': 1, 'b': 2}", 2)])
        assert sorted(found.structure_families or []) == [("array", 1), ("container", 9)]
        assert sorted(n for _, n in found.specs or []) == [1, 9]
        some = await catalog.distinct(ROOT, (Filter("eq", "red", key="c"),), metadata=["c"])
        assert some.metadata["c"] == [("red", 2)]
        assert (some.structure_families, some.specs) == (None, None)

    @pytest.mark.parametrize(
        "condition",
        [
            Filter("nonsense"),
            Filter("fulltext", 3),
            Filter("fulltext", "!?"),
            Filter("fulltext", " ".join(f"w{n}" for n in range(1000))),
            Filter("lookup", None),
            Filter("keys_filter", "x"),
            Filter("notin", "x", key="a"),
            Filter("like", 3, key="a"),
            Filter("specs", [1]),
            Filter("access_tags_filter", "t"),
            Filter("eq", "\ud800", key="a"),
            Filter("in", [[n] for n in range(1000)], key="a"),
            Filter("in", [*range(100_000)], key="a"),
        ],
        ids=lambda f: f"{f.name} {ascii(f.value)[:12]}",
    )
    async def test_nonsense_is_malformed(self, catalog: Catalog, condition: Filter) -> None:
        with pytest.raises(Malformed):
            await catalog.children(ROOT, Search((condition,)), Page())

    @pytest.mark.parametrize(
        ("sort", "page"),
        [
            ((SortKey("a"), SortKey("a", descending=True)), Page()),
            ((SortKey(""), SortKey("a")), Page()),
            ((SortKey("a"),), Page(cursor=1)),
            (tuple(SortKey(f"k{n}") for n in range(1000)), Page()),
            ((), Page(offset=2**80)),
        ],
        ids=["twice", "default not last", "cursor", "many", "offset"],
    )
    async def test_orders_and_pages_that_make_no_sense_are_malformed(
        self, catalog: Catalog, sort: tuple[SortKey, ...], page: Page
    ) -> None:
        with pytest.raises(Malformed):
            await catalog.children(ROOT, Search((), sort), page)

    async def test_a_deep_search_has_no_order_but_that_of_creation(self, catalog: Catalog) -> None:
        with pytest.raises(Malformed):
            await catalog.descendants(ROOT, Search((), (SortKey("a"),)), Page())

    async def test_regex_is_not_supported(self, catalog: Catalog) -> None:
        with pytest.raises(NotSupported, match="Regex"):
            await catalog.children(ROOT, Search((Filter("regex", "^r", key="color"),)), Page())

    @pytest.mark.parametrize("seed", range(6))
    async def test_filters_and_orders_mean_what_the_model_says(self, catalog: Catalog, seed: int) -> None:
        chance = random.Random(seed)
        tree = await _random_tree(catalog, chance)
        everything = [node for nodes in tree.values() for node in nodes]
        for _ in range(80):
            filters = tuple(_random_filter(chance, everything) for _ in range(chance.choice((1, 1, 2, 3))))
            sort = _random_sort(chance)
            for parent, nodes in tree.items():
                wanted = [n.key for n in in_order([n for n in nodes if _all_match(n, filters)], sort)]
                assert await keys(catalog, *filters, sort=sort, parent=parent) == wanted, (filters, sort)
                assert await catalog.count(parent, filters) == len(wanted), filters
                assert await catalog.count(parent, filters, at_most=3) == min(3, len(wanted)), filters
            await _check_deep(catalog, tree, filters)


async def _random_tree(catalog: Catalog, chance: random.Random) -> dict[NodeId, list[Node]]:
    """Nodes under the root and, with the same keys, under one of its children, some edited and some deleted: as they are then."""
    inner = container_node("inner", metadata=_random_metadata(chance))
    tree: dict[NodeId, list[Node]] = {}
    for parent, number in ((ROOT, 40), (inner.id, 25)):
        nodes = [_random_node(chance, n) for n in range(number)] + ([inner] if parent == ROOT else [])
        chance.shuffle(nodes)
        edited = [n for n in nodes if n is not inner and chance.random() < 0.3]
        doomed = [n for n in nodes if n is not inner and chance.random() < 0.1]
        edits = [ChildMetadataUpdated(n.key, n.id, _random_metadata(chance), n.specs, n.access_tags, 1) for n in edited]
        await catalog.apply([batch(parent, *created(*nodes), *edits, *(ChildDeleted(n.key, n.id) for n in doomed))])
        tree[parent] = [(await catalog.node(n.id)).node for n in nodes if n not in doomed]
        new = {e.id: e.metadata for e in edits}
        assert all(same(n.metadata, new[n.id]) for n in tree[parent] if n.id in new)
    return tree


async def _check_deep(catalog: Catalog, tree: dict[NodeId, list[Node]], filters: tuple[Filter, ...]) -> None:
    """The same filters over the whole tree and over its inner container."""
    top, low = tree.values()
    inner = next(n for n in top if n.id in tree)
    for ancestor, max_depth, nodes in ((ROOT, None, top + low), (ROOT, 1, top), (inner.id, None, low), (inner.id, 1, low)):
        wanted = sorted(n.id for n in nodes if _all_match(n, filters))
        found = await catalog.descendants(ancestor, Search(filters), Page(limit=1000), max_depth=max_depth)
        assert sorted(h.node.id for h in found.hits) == wanted, filters
        cursors = [h.cursor for h in found.hits]
        assert cursors == sorted(set(cursors))
        assert await catalog.count(ancestor, filters, deep=True, max_depth=max_depth) == len(wanted), filters
        few = await catalog.count(ancestor, filters, deep=True, max_depth=max_depth, at_most=2)
        assert few == min(2, len(wanted)), filters


def _all_match(node: Node, filters: tuple[Filter, ...]) -> bool:
    return all(matches(node, condition) for condition in filters)


def _random_metadata(chance: random.Random) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for key in ("color", "n", "lst", "flag", "nul", "a.dotted.key", ""):
        if chance.random() < 0.7:
            metadata[key] = chance.choice((*_VALUES, *_LISTS))
    if chance.random() < 0.7:
        metadata["nest"] = {"x": chance.choice(_VALUES), "deep": {"v": chance.choice((*_VALUES, *_LISTS))}}
    return metadata


def _random_node(chance: random.Random, number: int) -> Node:
    specs = [Spec(name) for name in ("a", "b", "ab") if chance.random() < 0.4]
    build = array_node if chance.random() < 0.3 else container_node
    node = specified(build(f"k{number}", metadata=_random_metadata(chance)), *specs)
    tags = tuple(t for t in ("t", "u") if chance.random() < 0.3)
    return msgspec.structs.replace(node, access_tags=tags)


def _random_filter(chance: random.Random, nodes: Sequence[Node]) -> Filter:
    key, value = chance.choice(_KEYS), chance.choice((*_VALUES, *_LISTS))
    several = [chance.choice((*_VALUES, *_LISTS)) for _ in range(chance.randrange(4))]
    return chance.choice(
        (
            Filter("eq", value, key=key),
            Filter("noteq", value, key=key),
            Filter("comparison", value, key=key, operator=chance.choice(("lt", "gt", "le", "ge"))),
            Filter("in", several, key=key),
            Filter("notin", several, key=key),
            Filter("contains", value, key=key),
            Filter("keypresent", chance.random() < 0.5, key=key),
            Filter("like", chance.choice(_PATTERNS), key=key),
            Filter("fulltext", chance.choice(("red", "a b", "RED blue", "re", "STRASSE", "é", "red_"))),
            Filter(
                "specs",
                chance.sample(("a", "b"), chance.randrange(3)),
                exclude=tuple(chance.sample(("ab", "b"), chance.randrange(2))),
            ),
            Filter("lookup", chance.choice(nodes).key),
            Filter("keys_filter", [chance.choice(nodes).key, "zzz"][: chance.randrange(3)]),
            Filter("structure_family", chance.choice(("array", "container", "table"))),
            Filter("access_tags_filter", chance.sample(("t", "u", "w"), chance.randrange(3))),
        )
    )


def _random_sort(chance: random.Random) -> tuple[SortKey, ...]:
    names = chance.sample(("color", "n", "nest.deep.v", "id", "flag"), chance.randrange(3))
    sort = tuple(SortKey(name, descending=chance.random() < 0.5) for name in names)
    return (*sort, SortKey("", descending=True)) if chance.random() < 0.3 else sort
