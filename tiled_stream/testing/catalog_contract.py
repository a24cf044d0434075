"""What every engine of the catalog must keep. Subclass and provide the fixture `catalog` (open, empty but for the root) and
`reopen` (closes it and opens it again). What is searched and listed is in `catalog_search_contract.py`; identity, revision and
losses are in `catalog_loss_contract.py`. Both belong to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from ..catalog.port import Applied, Catalog
from ..domain.errors import Gone, NotFound
from ..domain.events import (
    ArrayReferenced,
    ArrayWritten,
    AssetDeleted,
    ChildDeleted,
    ChildMetadataUpdated,
    PartWritten,
    RevisionDeleted,
    RowsAppended,
    StreamEnded,
)
from ..domain.nodes import ROOT, Node, Spec
from ..domain.search import Filter, Page, Search
from ..domain.structures import RaggedStructure
from .catalog_history import History
from .catalog_loss_contract import CatalogLossContract
from .catalog_search_contract import CatalogSearchContract, batch, created, keys, specified, updated
from .factories import array_node, array_structure, container_node, table_node

__all__ = ["CatalogContract", "Reopen"]

Reopen = Callable[[], Awaitable[Catalog]]


class CatalogContract(CatalogLossContract, CatalogSearchContract):
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
        edits = [ChildMetadataUpdated("", ROOT, {"facility": name}, (Spec("r"),), (), n) for n, name in ((1, "a"), (2, "b"))]
        await catalog.apply([batch(ROOT, *edits)])
        root = (await catalog.node(ROOT)).node
        assert (root.metadata, root.specs, root.revision) == ({"facility": "b"}, (Spec("r"),), 2)
        assert [r.metadata for r in (await catalog.revisions(ROOT))[0]] == [{}, {"facility": "a"}]
        await catalog.apply([batch(ROOT, RevisionDeleted("", ROOT, 1), after=2)])
        assert [r.number for r in (await catalog.revisions(ROOT))[0]] == [2]
        assert await keys(catalog, Filter("eq", "b", key="facility")) == []  # the root is nobody's child

    async def test_revision_numbers_are_not_given_again(self, catalog: Catalog) -> None:
        child = container_node("x", metadata={"v": 0})
        await catalog.apply([batch(ROOT, *created(child), updated(child, {"v": 1}, 1), RevisionDeleted("x", child.id, 1))])
        assert (await catalog.node(child.id)).node.revision == 1
        assert await catalog.revisions(child.id) == ([], 0)

    async def test_all_kinds_of_nodes_and_all_of_json_come_back(self, catalog: Catalog) -> None:
        odd = {
            "": 1,
            "a.b": {"c": [[], {}, None]},
            "big": [2**63, 2**64 - 1, -(2**63)],
            "é\n": "\U0001f600",
            "f": [0.1, 1e300],
        }
        nodes = [
            container_node("c", metadata=odd, access_tags=["t", "u"]),
            table_node("table"),
            array_node("scalar", structure=array_structure(())),
            array_node("ext/ernal é", management="external"),
        ]
        await catalog.apply([batch(ROOT, *created(*nodes))])
        for node in nodes:
            found = (await catalog.child(ROOT, node.key)).node
            assert msgspec.structs.replace(found, created=0, time_created=0.0, time_updated=0.0) == node

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
        source = msgspec.structs.replace(source, assets=())
        await catalog.apply([batch(child.id, AssetDeleted(source), after=4)])
        stored = await catalog.node(child.id)
        assert (stored.node.data_sources, stored.watermark) == ((source,), 5)
        assert stored.ended == 4  # where the stream ended, although something followed

    async def test_structures_follow_what_is_kept_in_parts(self, catalog: Catalog) -> None:
        child = array_node("x")
        before = RaggedStructure(array_structure().data_type, (2, None), 5, ((2,), None))
        source = msgspec.structs.replace(child.data_sources[0], structure_family="ragged", structure=before)
        child = msgspec.structs.replace(child, family="ragged", data_sources=(source,))
        await catalog.apply([batch(ROOT, *created(child))])
        after = msgspec.structs.replace(before, shape=(3, None), size=9, chunks=((2, 1), None))
        await catalog.apply([batch(child.id, PartWritten((1, None), after, (2,), (1,)))])
        stored = await catalog.node(child.id)
        assert (stored.node.structure, stored.watermark) == (after, 1)

    async def test_odd_keys_are_marked_at_the_container(self, catalog: Catalog) -> None:
        plain, odd = container_node("plain"), container_node("what?")
        await catalog.apply([batch(ROOT, *created(plain))])
        assert not (await catalog.node(ROOT)).has_odd_keys
        await catalog.apply([batch(ROOT, *created(odd), after=1)])
        await catalog.apply([batch(ROOT, ChildDeleted("plain", plain.id), after=2)])
        assert (await catalog.node(ROOT)).has_odd_keys
        assert not (await catalog.node(odd.id)).has_odd_keys

    async def test_other_records_only_move_the_watermark(self, catalog: Catalog) -> None:
        child = table_node("t")
        await catalog.apply([batch(ROOT, *created(child))])
        before = (await catalog.node(child.id)).node
        assert await catalog.apply([batch(child.id, RowsAppended(0, 5), StreamEnded())]) == [Applied(2)]
        after = await catalog.node(child.id)
        assert (after.node, after.watermark, after.ended) == (before, 2, 2)
        assert (await catalog.node(ROOT)).ended == 0

    async def test_readers_see_whole_transactions_only(self, catalog: Catalog) -> None:
        """Two nodes are created at a time; whoever counts while that goes on finds an even number."""
        seen: set[int] = set()

        async def write() -> None:
            for n in range(20):
                pair = created(container_node(f"a{n}"), container_node(f"b{n}"))
                await catalog.apply([batch(ROOT, *pair, after=2 * n)])

        async def look() -> None:
            while (found := len(await keys(catalog))) < 40:
                seen.update(
                    {found, await catalog.count(ROOT, (Filter("keypresent", False, key="x"),)), await catalog.count(ROOT)}
                )

        await asyncio.gather(write(), look(), look())
        assert all(number % 2 == 0 for number in seen)
        assert len(seen) > 1

    @pytest.mark.parametrize("seed", range(6))
    async def test_any_history_ends_as_the_model_says(self, catalog: Catalog, reopen: Reopen, seed: int) -> None:
        history = History(seed)
        for _ in range(30):
            batches = [history.batch() for _ in range(1 + seed % 3)]
            expected = [b.records[-1].sequence for b in batches]
            assert [a.watermark for a in await catalog.apply(batches)] == expected
            again = await catalog.apply(batches)  # I5: the second time nothing happens, for every node is beyond it, or gone
            assert [a.watermark for a in again] == [
                history.watermarks[b.node] if b.node in history.nodes else -1 for b in batches
            ]
        await _check(catalog, history)
        await _check(await reopen(), history)

    async def test_everything_is_there_after_reopening(self, catalog: Catalog, reopen: Reopen) -> None:
        child = container_node("x", metadata={"v": 0})
        await catalog.apply([batch(ROOT, *created(child), updated(child, {"v": 1}, 1))])
        again = await reopen()
        assert (await again.child(ROOT, "x")).node.metadata == {"v": 1}
        assert (await again.node(ROOT)).watermark == 2
        assert await again.apply([batch(ROOT, *created(container_node("y")), after=2)]) == [Applied(3)]
        found = await again.children(ROOT, Search((Filter("eq", 1, key="v"),)), Page())
        assert [h.node.key for h in found.hits] == ["x"]


async def _check(catalog: Catalog, history: History) -> None:
    """The catalog holds what the history says, and nothing else."""
    for node in history.nodes.values():
        stored = await catalog.node(node.id)
        children = history.children(node.id)
        assert _lasting(stored.node) == _lasting(node)
        assert (stored.watermark, stored.children) == (history.watermarks[node.id], len(children))
        assert (stored.stored, stored.lost) == (history.stored.get(node.id, 0), history.lost(node.id))
        found = await catalog.children(node.id, Search(), Page(limit=1000))
        assert [h.node.id for h in found.hits] == [c.id for c in children]
        assert await catalog.count(node.id, deep=True) == len(history.below(node.id))
        of_value = [c.id for c in history.below(node.id) if c.metadata["v"] == 1]
        deep = await catalog.descendants(node.id, Search((Filter("eq", 1, key="v"),)), Page(limit=1000))
        assert sorted(h.node.id for h in deep.hits) == sorted(of_value)
        revisions, count = await catalog.revisions(node.id)
        expected = {number: metadata for (id, number), metadata in history.revisions.items() if id == node.id}
        assert {r.number: r.metadata for r in revisions} == expected
        assert count == len(expected)
    assert await catalog.losses() == history.losses
    for id in history.gone:
        with pytest.raises(Gone):
            await catalog.node(id)


def _lasting(node: Node) -> Node:
    """Without what the port leaves open: whether growing data count as an edit of an array."""
    return msgspec.structs.replace(node, time_updated=0.0) if node.family == "array" else node
