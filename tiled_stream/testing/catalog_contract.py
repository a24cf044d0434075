"""What every engine of the catalog must keep. Subclass and provide the fixture `catalog` (open, empty but for the root) and
`reopen` (closes it and opens it again).

Filters and orders are compared with `catalog_model.py`, over random metadata.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from ..catalog.port import Applied, Catalog, CatalogBatch
from ..domain.errors import Gone, Malformed, NotFound, NotSupported
from ..domain.events import (
    ArrayReferenced,
    ArrayWritten,
    ChildCreated,
    ChildDeleted,
    ChildMetadataUpdated,
    Event,
    Record,
    RevisionDeleted,
    StreamEnded,
)
from ..domain.nodes import ROOT, Node, Spec
from ..domain.search import Filter, Page, Search, SortKey
from .catalog_model import in_order, matches
from .factories import array_node, array_structure, container_node

__all__ = ["CatalogContract", "Reopen"]

Reopen = Callable[[], Awaitable[Catalog]]

_KEYS = ("color", "n", "nest.x", "nest.deep.v", "lst", "flag", "nul", "missing")
_VALUES: tuple[Any, ...] = ("red", "Red", "blue", "a b", "", 0, 1, 2.5, -3, 10, "10", True, False, None)
_LISTS: tuple[Any, ...] = ([], [1, 2], ["a", "b"], ["red", [1]], [{"k": 1}], [True, None])


def batch(node: str, *events: Event, after: int = 0, time: float = 100.0) -> CatalogBatch:
    """Consecutive records of one node."""
    return CatalogBatch(node, after, tuple(Record(after + n, time + n, e) for n, e in enumerate(events, start=1)))


def specified(node: Node, *specs: Spec) -> Node:
    return msgspec.structs.replace(node, specs=specs)


def created(*nodes: Node) -> list[Event]:
    return [ChildCreated(n) for n in nodes]


def updated(node: Node, metadata: dict[str, Any], revision: int | None = None, specs: tuple[Spec, ...] = ()) -> Event:
    return ChildMetadataUpdated(node.key, node.id, metadata, specs, (), revision)


async def keys(catalog: Catalog, *filters: Filter, sort: tuple[SortKey, ...] = (), limit: int = 1000) -> list[str]:
    found = await catalog.children(ROOT, Search(filters, sort), Page(limit=limit))
    return [hit.node.key for hit in found.hits]


class CatalogContract:
    """The sentences of `catalog/port.py`, one after the other."""

    async def test_the_root_is_there_from_the_beginning(self, catalog: Catalog) -> None:
        root = await catalog.node(ROOT)
        assert (root.node.key, root.node.family, root.node.parent) == ("", "container", None)
        assert (root.watermark, root.children) == (0, 0)
        assert await catalog.count(ROOT) == 0

    async def test_a_created_child_comes_back_whole(self, catalog: Catalog) -> None:
        child = specified(array_node("x", metadata={"a": {"b": [1, None, "é"]}}), Spec("s", "1"), Spec("t"))
        assert await catalog.apply([batch(ROOT, *created(child))]) == [Applied(1)]
        stored = await catalog.child(ROOT, "x")
        expected = msgspec.structs.replace(child, parent=ROOT, created=1, time_created=101.0, time_updated=101.0)
        assert stored.node == expected
        assert (stored.watermark, stored.children) == (0, 0)
        assert (await catalog.node(child.id)).node == expected
        root = await catalog.node(ROOT)
        assert (root.watermark, root.children) == (1, 1)

    async def test_what_is_not_there_is_not_found(self, catalog: Catalog) -> None:
        for look in (catalog.node("0" * 32), catalog.child(ROOT, "x"), catalog.child("0" * 32, "x")):
            with pytest.raises(NotFound):
                await look

    async def test_a_batch_counts_only_if_it_follows_the_watermark(self, catalog: Catalog) -> None:
        first, second = container_node("a"), container_node("b")
        await catalog.apply([batch(ROOT, *created(first))])
        assert await catalog.apply([batch(ROOT, *created(first))]) == [Applied(1)]  # I5
        assert await catalog.apply([batch(ROOT, *created(second), after=5)]) == [Applied(1)]
        assert await catalog.count(ROOT) == 1
        assert await catalog.apply([batch(ROOT, *created(second), after=1)]) == [Applied(2)]

    async def test_a_batch_of_an_unknown_node_changes_nothing(self, catalog: Catalog) -> None:
        assert await catalog.apply([batch("0" * 32, *created(container_node("x")))]) == [Applied(-1)]
        assert await catalog.count(ROOT) == 0

    async def test_batches_of_one_call_build_upon_each_other(self, catalog: Catalog) -> None:
        run, stream, data = container_node("run"), container_node("primary"), array_node("x")
        batches = [batch(ROOT, *created(run)), batch(run.id, *created(stream)), batch(stream.id, *created(data))]
        assert await catalog.apply(batches) == [Applied(1)] * 3
        assert (await catalog.child(stream.id, "x")).node.parent == stream.id

    async def test_all_batches_or_none(self, catalog: Catalog) -> None:
        good, twice = container_node("a"), container_node("b")
        with pytest.raises(Exception):  # noqa: B017, PT011 - each engine has its own
            await catalog.apply([batch(ROOT, *created(good)), batch(good.id, *created(twice, twice))])
        assert await catalog.count(ROOT) == 0
        assert (await catalog.node(ROOT)).watermark == 0
        assert await catalog.apply([batch(ROOT, *created(good))]) == [Applied(1)]

    async def test_edits_replace_and_keep_what_was_before(self, catalog: Catalog) -> None:
        child = container_node("x", metadata={"v": 0}, specs=["s"])
        edits = [updated(child, {"v": 1}, 1, (Spec("t"),)), updated(child, {"v": 2}, None), updated(child, {"v": 3}, 2)]
        await catalog.apply([batch(ROOT, *created(child), *edits)])
        node = (await catalog.node(child.id)).node
        assert (node.metadata, node.specs, node.revision, node.time_updated) == ({"v": 3}, (), 2, 104.0)
        revisions, count = await catalog.revisions(child.id)
        assert [(r.number, r.metadata, r.specs) for r in revisions] == [(1, {"v": 0}, (Spec("s"),)), (2, {"v": 2}, ())]
        assert count == 2
        assert [r.number for r in (await catalog.revisions(child.id, offset=1, limit=1))[0]] == [2]
        await catalog.apply([batch(ROOT, RevisionDeleted("x", child.id, 1), after=4)])
        assert [r.number for r in (await catalog.revisions(child.id))[0]] == [2]
        assert await keys(catalog, Filter("eq", 3, key="v")) == ["x"]
        assert await keys(catalog, Filter("eq", 0, key="v")) == []

    async def test_the_root_tells_its_own_edits(self, catalog: Catalog) -> None:
        await catalog.apply([batch(ROOT, ChildMetadataUpdated("", ROOT, {"facility": "b"}, (Spec("r"),), (), 1))])
        root = (await catalog.node(ROOT)).node
        assert (root.metadata, root.specs) == ({"facility": "b"}, (Spec("r"),))

    async def test_deletion_takes_the_subtree_and_remembers_the_ids(self, catalog: Catalog) -> None:
        run, stream, data, other = container_node("run"), container_node("primary"), array_node("x"), container_node("other")
        await catalog.apply(
            [batch(ROOT, *created(run, other)), batch(run.id, *created(stream)), batch(stream.id, *created(data))]
        )
        (applied,) = await catalog.apply([batch(ROOT, ChildDeleted("run", run.id), after=2)])
        assert applied.watermark == 3
        assert {n.id for n in applied.deleted} == {run.id, stream.id, data.id}
        for node in (run, stream, data):
            with pytest.raises(Gone):
                await catalog.node(node.id)
        assert await keys(catalog) == ["other"]
        assert (await catalog.node(ROOT)).children == 1
        assert await catalog.count(ROOT, deep=True) == 1
        again = container_node("run")
        await catalog.apply([batch(ROOT, *created(again), after=3)])
        assert await keys(catalog) == ["other", "run"]
        assert await catalog.apply([batch(data.id, StreamEnded())]) == [Applied(-1)]

    async def test_records_of_deleted_children_are_ignored(self, catalog: Catalog) -> None:
        child = container_node("x")
        await catalog.apply([batch(ROOT, *created(child), ChildDeleted("x", child.id))])
        late = [updated(child, {"v": 1}, 1), RevisionDeleted("x", child.id, 1), ChildDeleted("x", child.id)]
        assert await catalog.apply([batch(ROOT, *late, after=2)]) == [Applied(5)]
        assert (await catalog.node(ROOT)).children == 0

    async def test_structures_and_data_sources_follow_the_data(self, catalog: Catalog) -> None:
        child = array_node("x", structure=array_structure((2, 3)))
        await catalog.apply([batch(ROOT, *created(child))])
        grown = array_structure((5, 3))
        await catalog.apply([batch(child.id, ArrayWritten((2, 3)), ArrayWritten((3, 3), (2, 0), structure=grown))])
        stored = await catalog.node(child.id)
        assert (stored.node.structure, stored.watermark) == (grown, 2)
        source = msgspec.structs.replace(stored.node.data_sources[0], parameters={"swmr": True})
        await catalog.apply([batch(child.id, ArrayReferenced(source), StreamEnded(), after=2)])
        stored = await catalog.node(child.id)
        assert (stored.node.data_sources, stored.watermark) == ((source,), 4)

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

    async def test_distinct_values_with_their_counts(self, catalog: Catalog) -> None:
        values: list[dict[str, Any]] = [{"c": "red"}, {"c": "red"}, {"c": 1}, {"c": True}, {"c": [1]}, {"c": None}, {}]
        nodes = [container_node(f"k{n}", metadata=m) for n, m in enumerate(values)]
        await catalog.apply([batch(ROOT, *created(*nodes, specified(array_node("arr"), Spec("s"))))])
        found = await catalog.distinct(ROOT, (), metadata=["c"], structure_families=True, specs=True)
        counted = sorted(((repr(v), n) for v, n in found.metadata["c"]))
        assert counted == sorted([("'red'", 2), ("1", 1), ("True", 1), ("[1]", 1), ("None", 3)])
        assert sorted(found.structure_families or []) == [("array", 1), ("container", 7)]
        assert sorted(n for _, n in found.specs or []) == [1, 7]
        some = await catalog.distinct(ROOT, (Filter("eq", "red", key="c"),), metadata=["c"])
        assert some.metadata["c"] == [("red", 2)]
        assert (some.structure_families, some.specs) == (None, None)

    @pytest.mark.parametrize(
        "condition",
        [
            Filter("nonsense"),
            Filter("fulltext", 3),
            Filter("fulltext", "!?"),
            Filter("keys_filter", "x"),
            Filter("like", 3, key="a"),
        ],
        ids=lambda f: f"{f.name} {f.value!r}",
    )
    async def test_nonsense_is_malformed(self, catalog: Catalog, condition: Filter) -> None:
        with pytest.raises(Malformed):
            await catalog.children(ROOT, Search((condition,)), Page())

    async def test_regex_is_not_supported(self, catalog: Catalog) -> None:
        with pytest.raises(NotSupported, match="Regex"):
            await catalog.children(ROOT, Search((Filter("regex", "^r", key="color"),)), Page())

    @pytest.mark.parametrize("seed", range(4))
    async def test_filters_and_orders_mean_what_the_model_says(self, catalog: Catalog, seed: int) -> None:
        chance = random.Random(seed)
        nodes = [_random_node(chance, n) for n in range(60)]
        await catalog.apply([batch(ROOT, *created(*nodes))])
        kept = [(await catalog.node(n.id)).node for n in nodes]
        for _ in range(120):
            filters = tuple(_random_filter(chance, kept) for _ in range(chance.choice((1, 1, 2))))
            sort = _random_sort(chance)
            wanted = [n.key for n in in_order([n for n in kept if all(matches(n, f) for f in filters)], sort)]
            assert await keys(catalog, *filters, sort=sort) == wanted, (filters, sort)
            assert await catalog.count(ROOT, filters) == len(wanted), filters
            assert await catalog.count(ROOT, filters, deep=True) == len(wanted), filters

    async def test_everything_is_there_after_reopening(self, catalog: Catalog, reopen: Reopen) -> None:
        child = container_node("x", metadata={"v": 0})
        await catalog.apply([batch(ROOT, *created(child), updated(child, {"v": 1}, 1))])
        again = await reopen()
        assert (await again.child(ROOT, "x")).node.metadata == {"v": 1}
        assert (await again.node(ROOT)).watermark == 2
        assert await again.apply([batch(ROOT, *created(container_node("y")), after=2)]) == [Applied(3)]
        found = await again.children(ROOT, Search((Filter("eq", 1, key="v"),)), Page())
        assert [h.node.key for h in found.hits] == ["x"]


def _random_node(chance: random.Random, number: int) -> Node:
    metadata: dict[str, Any] = {}
    for key in ("color", "n", "lst", "flag", "nul", "a.dotted.key"):
        if chance.random() < 0.7:
            metadata[key] = chance.choice((*_VALUES, *_LISTS))
    if chance.random() < 0.7:
        metadata["nest"] = {"x": chance.choice(_VALUES), "deep": {"v": chance.choice((*_VALUES, *_LISTS))}}
    specs = [Spec(name) for name in ("a", "b", "ab") if chance.random() < 0.4]
    build = array_node if chance.random() < 0.3 else container_node
    node = specified(build(f"k{number}", metadata=metadata), *specs)
    tags = tuple(t for t in ("t", "u") if chance.random() < 0.3)
    return msgspec.structs.replace(node, access_tags=tags)


def _random_filter(chance: random.Random, nodes: Sequence[Node]) -> Filter:
    key, value = chance.choice(_KEYS), chance.choice((*_VALUES, *_LISTS))
    several = [chance.choice((*_VALUES, *_LISTS)) for _ in range(chance.randrange(4))]
    texts = ("r%", "%e%", "_ed", "1%", "%", "10", "R__", "")
    return chance.choice(
        (
            Filter("eq", value, key=key),
            Filter("noteq", value, key=key),
            Filter("comparison", value, key=key, operator=chance.choice(("lt", "gt", "le", "ge"))),
            Filter("in", several, key=key),
            Filter("notin", several, key=key),
            Filter("contains", value, key=key),
            Filter("keypresent", chance.random() < 0.5, key=key),
            Filter("like", chance.choice(texts), key=key),
            Filter("fulltext", chance.choice(("red", "a b", "RED blue", "re"))),
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
