"""What every engine of the catalog must keep to be compared with a log and with storages: an identity, a count of transactions,
how far storages were, and what is known to be lost.

Part of `CatalogContract`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from ..catalog.port import Applied, Catalog, CatalogBatch, Loss, Reached
from ..domain.errors import NotFound
from ..domain.events import ChildDeleted, RowsAppended, StreamEnded
from ..domain.nodes import ROOT, Node
from .catalog_search_contract import batch, created
from .factories import container_node, table_node

__all__ = ["CatalogLossContract"]

Reopen = Callable[[], Awaitable[Catalog]]


def _loss(node: Node, first: int, last: int, *, time: float = 5.0, reason: str = "left the log") -> Loss:
    return Loss(node.id, first, last, time, reason)


def _batch(node: Node, after: int = 0, count: int = 0, *, stored: int = 0, losses: tuple[Loss, ...] = ()) -> CatalogBatch:
    """So many records of a table, with what else is to be remembered."""
    plain = batch(node.id, *[RowsAppended(0, 1)] * count, after=after)
    return CatalogBatch(node.id, after, plain.records, stored, losses)


async def _tables(catalog: Catalog, *keys: str) -> list[Node]:
    nodes = [table_node(key) for key in keys]
    await catalog.apply([batch(ROOT, *created(*nodes))])
    return nodes


class CatalogLossContract:
    """Identity, revision, storages and losses."""

    async def test_the_identity_is_made_once_and_kept(self, catalog: Catalog, reopen: Reopen) -> None:
        identity = await catalog.identity()
        assert len(identity) >= 32
        assert await catalog.identity() == identity
        await _tables(catalog, "x")
        assert await (await reopen()).identity() == identity

    async def test_the_revision_counts_transactions_that_changed_something(self, catalog: Catalog, reopen: Reopen) -> None:
        assert await catalog.revision() == 0
        run, stream = container_node("run"), container_node("stream")
        both = [batch(ROOT, *created(run)), batch(run.id, *created(stream))]
        await catalog.apply(both)
        assert await catalog.revision() == 1  # once for all batches of a call
        for nothing in (
            [],
            both,
            [batch("0" * 32, StreamEnded())],
            [CatalogBatch(ROOT, 1, ())],
            [batch(ROOT, StreamEnded(), after=7)],
        ):
            await catalog.apply(nothing)
            assert await catalog.revision() == 1
        with pytest.raises(Exception):  # noqa: B017, PT011 - each engine has its own
            await catalog.apply([batch(ROOT, *created(container_node("a"), container_node("a")), after=1)])
        assert await catalog.revision() == 1
        await catalog.apply([*both, batch(stream.id, StreamEnded())])  # one of three is new
        assert await catalog.revision() == 2
        again = await reopen()
        assert await again.revision() == 2
        await again.apply([batch(stream.id, StreamEnded(), after=1)])
        assert await again.revision() == 3

    async def test_storages_are_remembered_by_name(self, catalog: Catalog, reopen: Reopen) -> None:
        assert await catalog.storages() == {}
        await catalog.remember_storage("arrays", "a1")
        await catalog.remember_storage("tables", "t1")
        await catalog.remember_storage("arrays", "a2")
        assert await catalog.storages() == {"arrays": "a2", "tables": "t1"}
        again = await reopen()
        assert await again.storages() == {"arrays": "a2", "tables": "t1"}
        assert await again.revision() == 0  # only `apply` counts

    async def test_what_the_storage_has_is_taken_with_the_watermark_and_never_goes_back(
        self, catalog: Catalog, reopen: Reopen
    ) -> None:
        (table,) = await _tables(catalog, "t")
        assert (await catalog.node(table.id)).stored == 0
        assert await catalog.apply([_batch(table, 0, 3, stored=3)]) == [Applied(3)]
        assert (await catalog.node(table.id)).stored == 3
        await catalog.apply([_batch(table, 3, 1)])  # a record that no storage is given
        await catalog.apply([_batch(table, 4, 1, stored=2)])
        assert (await catalog.node(table.id)).stored == 3
        await catalog.apply([_batch(table, 5, stored=5)])  # also without records
        stored = await (await reopen()).child(ROOT, "t")
        assert (stored.watermark, stored.stored, stored.lost) == (5, 5, 0)

    async def test_losses_are_counted_once(self, catalog: Catalog, reopen: Reopen) -> None:
        first, second = await _tables(catalog, "a", "b")
        gap, other = _loss(first, 1, 3), _loss(second, 2, 2, time=6.0, reason="the catalog was restored")
        assert await catalog.apply([_batch(first, 0, 4, stored=4, losses=(gap,)), _batch(second, losses=(other,))]) == [
            Applied(4),
            Applied(0),
        ]
        assert [(await catalog.node(n.id)).lost for n in (first, second)] == [3, 1]
        known = Loss(first.id, 1, 3, 99.0, "found once more")
        more = _loss(first, 7, 8)
        await catalog.apply([_batch(first, 4, 1, losses=(known, more, more)), _batch(second, losses=(other,))])
        assert [(await catalog.node(n.id)).lost for n in (first, second)] == [5, 1]
        again = await reopen()
        assert [(await again.child(ROOT, key)).lost for key in "ab"] == [5, 1]
        assert await again.losses() == [gap, other, more]
        assert await again.losses(limit=2) == [gap, other]

    async def test_a_batch_of_losses_alone_is_a_transaction_if_they_are_new(self, catalog: Catalog) -> None:
        (table,) = await _tables(catalog, "t")
        before = await catalog.revision()
        for _ in range(2):
            assert await catalog.apply([_batch(table, losses=(_loss(table, 1, 9),))]) == [Applied(0)]
            assert await catalog.revision() == before + 1
        stored = await catalog.node(table.id)
        assert (stored.watermark, stored.lost) == (0, 9)

    async def test_a_batch_that_is_skipped_takes_neither_losses_nor_what_is_stored(self, catalog: Catalog) -> None:
        (table,) = await _tables(catalog, "t")
        await catalog.apply([_batch(table, 0, 2, stored=2)])
        for after, count in ((0, 2), (1, 0), (3, 1), (5, 0)):
            assert await catalog.apply([_batch(table, after, count, stored=9, losses=(_loss(table, 1, 1),))]) == [Applied(2)]
        unknown = table_node("u")
        assert await catalog.apply([_batch(unknown, stored=9, losses=(_loss(unknown, 1, 1),))]) == [Applied(-1)]
        stored = await catalog.node(table.id)
        assert (stored.stored, stored.lost) == (2, 0)
        assert await catalog.losses() == []

    async def test_losses_and_watermark_are_one_transaction(self, catalog: Catalog) -> None:
        (table,) = await _tables(catalog, "t")
        before = await catalog.revision()
        impossible = batch(ROOT, *created(container_node("b"), container_node("b")), after=1)
        with pytest.raises(Exception):  # noqa: B017, PT011 - each engine has its own
            await catalog.apply([_batch(table, 0, 2, stored=2, losses=(_loss(table, 1, 1),)), impossible])
        stored = await catalog.node(table.id)
        assert (stored.watermark, stored.stored, stored.lost) == (0, 0, 0)
        assert await catalog.losses() == []
        assert await catalog.revision() == before

    async def test_accepted_losses_are_counted_no_more(self, catalog: Catalog, reopen: Reopen) -> None:
        first, second, third = await _tables(catalog, "a", "b", "c")
        await catalog.apply([_batch(n, losses=(_loss(n, 1, 2), _loss(n, 5, 5))) for n in (first, second, third)])
        revision = await catalog.revision()
        assert await catalog.accept_losses([second.id, "0" * 32]) == 3
        assert await catalog.accept_losses([second.id]) == 0
        assert await catalog.accept_losses([]) == 0
        assert [(await catalog.node(n.id)).lost for n in (first, second, third)] == [3, 0, 3]
        assert {loss.node for loss in await catalog.losses()} == {first.id, third.id}
        assert await catalog.accept_losses() == 6
        assert await catalog.accept_losses() == 0
        assert await catalog.revision() == revision
        again = await reopen()
        await again.apply([_batch(first, losses=(_loss(first, 1, 2), _loss(first, 6, 9)))])
        assert (await again.node(first.id)).lost == 4  # what was accepted is known, what is new counts
        assert await again.losses() == [_loss(first, 6, 9)]

    async def test_losses_go_with_their_node(self, catalog: Catalog) -> None:
        run, kept = container_node("run"), table_node("kept")
        table = table_node("t")
        await catalog.apply([batch(ROOT, *created(run, kept)), batch(run.id, *created(table))])
        await catalog.apply([_batch(n, losses=(_loss(n, 1, 1),)) for n in (table, kept)])
        await catalog.apply([_batch(table, losses=(_loss(table, 2, 2),)), batch(ROOT, ChildDeleted("run", run.id), after=2)])
        assert await catalog.losses() == [_loss(kept, 1, 1)]
        with pytest.raises(NotFound):
            await catalog.node(table.id)
        assert await catalog.accept_losses() == 1

    async def test_how_far_many_nodes_are(self, catalog: Catalog) -> None:
        first, second = await _tables(catalog, "a", "b")
        await catalog.apply([_batch(first, 0, 4, stored=3, losses=(_loss(first, 1, 2),))])
        asked = [second.id, "0" * 32, first.id, ROOT, first.id]
        reached = Reached(4, 3, 2)
        assert await catalog.reached(asked) == [Reached(0, 0, 0), None, reached, Reached(2, 0, 0), reached]
        assert await catalog.reached([]) == []
