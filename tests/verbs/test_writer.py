"""One door in: what is accepted is in the log and visible at once, what is refused leaves no trace."""

from __future__ import annotations

import asyncio

import numpy
import pytest

from tests.verbs.conftest import Core
from tiled_stream.domain.commands import (
    CreateChild,
    DeleteNode,
    DeleteRevision,
    EndStream,
    NewDataSource,
    PatchArray,
    PatchMetadata,
    ReplaceMetadata,
    WriteArray,
)
from tiled_stream.domain.errors import Conflict, Malformed, NotFound, NotSupported
from tiled_stream.domain.nodes import ROOT, Spec
from tiled_stream.domain.search import Page, Search
from tiled_stream.domain.structures import ArrayStructure


async def test_a_created_node_is_visible_before_anything_is_persisted(idle: Core) -> None:
    await idle.container("a", color="red")
    await idle.container("a", "b")
    await idle.array("a", "b", "x")
    at = await idle.repository.resolve(("a", "b", "x"))
    assert at.node.family == "array"
    assert (await idle.repository.resolve(("a",))).node.metadata == {"color": "red"}
    assert await idle.repository.child_count(ROOT) == 1
    assert (await idle.log.lag()).nodes == 3  # I7: nothing of it is in the catalog yet


async def test_a_key_is_given_once(idle: Core) -> None:
    await idle.container("a")
    before = await idle.log.head(ROOT)
    with pytest.raises(Conflict, match="/a"):
        await idle.container("a")
    assert await idle.log.head(ROOT) == before  # I10


async def test_concurrent_creations_of_one_key_make_one_node(idle: Core) -> None:
    outcomes = await asyncio.gather(*(idle.container("same") for _ in range(8)), return_exceptions=True)
    assert sorted(type(o).__name__ for o in outcomes) == ["Conflict"] * 7 + ["NoneType"]
    assert (await idle.log.head(ROOT)).sequence == 1


async def test_a_parent_must_exist_and_be_a_container(idle: Core) -> None:
    with pytest.raises(NotFound):
        await idle.container("missing", "x")
    await idle.array("arr")
    with pytest.raises(NotSupported):
        await idle.container("arr", "x")


async def test_refused_writes_leave_no_record(idle: Core) -> None:
    await idle.array("x", shape=(2, 3))
    node = (await idle.repository.resolve(("x",))).node
    for command in (WriteArray(b"xx"), PatchArray((5, 0), (1, 3), bytes(24)), PatchArray((0, 0), (1, 3), b"")):
        with pytest.raises((Malformed, Conflict)):
            await idle.writer.submit(("x",), command)
    assert (await idle.log.head(node.id)).sequence == 0  # I10


async def test_growth_is_decided_on_what_was_acknowledged_before(idle: Core) -> None:
    await idle.array("x", shape=(1, 3))
    rows = [
        idle.writer.submit(("x",), PatchArray((n,), (1, 3), numpy.full(3, float(n)).tobytes(), extend=True)) for n in range(1, 20)
    ]
    await asyncio.gather(*rows)
    structure = (await idle.repository.resolve(("x",))).node.structure
    assert isinstance(structure, ArrayStructure)
    assert structure.shape == (20, 3)
    await idle.persister.round()
    assert (await idle.catalog.child(ROOT, "x")).node.structure == structure


async def test_metadata_edits_number_their_revisions(core: Core) -> None:
    await core.container("m", a=1)
    await core.writer.submit(("m",), ReplaceMetadata({"a": 2}, (Spec("s", "1"),)))
    await core.writer.submit(("m",), PatchMetadata("merge-patch", {"b": 3}, drop_revision=True))
    await core.writer.submit(("m",), PatchMetadata("json-patch", [{"op": "remove", "path": "/a"}]))
    at = await core.browse.resolve(("m",))
    assert (at.node.metadata, at.node.specs) == ({"b": 3}, (Spec("s", "1"),))
    revisions, count = await core.browse.revisions(at, offset=0, limit=10)
    assert [(r.number, r.metadata) for r in revisions] == [(1, {"a": 1}), (2, {"a": 2, "b": 3})]
    await core.writer.submit(("m",), DeleteRevision(1))
    revisions, count = await core.browse.revisions(at, offset=0, limit=10)
    assert ([r.number for r in revisions], count) == ([2], 1)
    with pytest.raises(NotFound):
        await core.writer.submit(("m",), DeleteRevision(1))


async def test_a_failed_test_operation_changes_nothing(idle: Core) -> None:
    await idle.container("m", a=1)
    head = await idle.log.head(ROOT)
    patch = [{"op": "add", "path": "/b", "value": 1}, {"op": "test", "path": "/a", "value": 99}]
    with pytest.raises(Conflict):
        await idle.writer.submit(("m",), PatchMetadata("json-patch", patch))
    for nonsense in ({"not": "a list"}, [{"op": "fly"}], [{"op": "replace", "path": "/nope/x", "value": 1}]):
        with pytest.raises(Malformed):
            await idle.writer.submit(("m",), PatchMetadata("json-patch", nonsense))
    assert (await idle.repository.resolve(("m",))).node.metadata == {"a": 1}
    assert await idle.log.head(ROOT) == head  # I10


async def test_the_root_can_be_edited(core: Core) -> None:
    await core.writer.submit((), PatchMetadata("merge-patch", {"facility": "b1"}))
    assert (await core.browse.resolve(())).node.metadata == {"facility": "b1"}
    await core.barrier.settle(ROOT)
    assert (await core.catalog.node(ROOT)).node.metadata == {"facility": "b1"}


async def test_deletion_asks_before_it_takes_data_or_children(core: Core) -> None:
    await core.container("d")
    await core.array("d", "x")
    with pytest.raises(Conflict, match="external_only"):
        await core.writer.submit(("d", "x"), DeleteNode())
    with pytest.raises(Conflict, match="recursive"):
        await core.writer.submit(("d",), DeleteNode(external_only=False))
    with pytest.raises(Conflict, match="external_only"):
        await core.writer.submit(("d",), DeleteNode(recursive=True))
    await core.writer.submit(("d",), DeleteNode(recursive=True, external_only=False))
    with pytest.raises(NotFound):
        await core.browse.resolve(("d",))
    with pytest.raises(NotFound):
        await core.browse.resolve(("d", "x"))
    await core.container("d", again=True)
    assert (await core.browse.resolve(("d",))).node.metadata == {"again": True}
    listing = await core.browse.search(await core.browse.resolve(()), Search(), Page())
    assert [hit.node.key for hit in listing.hits] == ["d"]
    assert listing.hits[0].node.metadata == {"again": True}


async def test_writes_after_the_end_are_accepted_and_numbered(idle: Core) -> None:
    await idle.array("x", shape=(1, 1))
    for expected, command in enumerate((WriteArray(bytes(8)), EndStream(), WriteArray(bytes(8))), start=1):
        accepted = await idle.writer.submit(("x",), command)
        assert accepted.position is not None
        assert accepted.position.sequence == expected


async def test_without_storage_nothing_can_be_allocated(idle: Core) -> None:
    idle.writer._creation._arrays = None
    with pytest.raises(NotSupported, match="-w"):
        await idle.array("x")
    source = NewDataSource("array", None, management="external")
    with pytest.raises(Malformed, match="mimetype"):
        await idle.writer.submit((), CreateChild("e", "array", {}, data_sources=(source,)))


async def test_ack_persisted_waits_for_storage(core: Core) -> None:
    await core.array("x", shape=(2,))
    at = await core.browse.resolve(("x",))
    accepted = await core.writer.submit(("x",), WriteArray(numpy.array([1.0, 2.0]).tobytes()), ack="persisted")
    assert accepted.position is not None
    assert (await core.catalog.node(at.node.id)).watermark >= accepted.position.sequence  # I6


async def test_nothing_is_created_in_a_container_while_it_is_deleted(idle: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    await idle.container("d")
    decided, go_on = asyncio.Event(), asyncio.Event()

    async def slow_check(*_: object) -> None:
        decided.set()
        await go_on.wait()

    monkeypatch.setattr(idle.writer._deletion, "check", slow_check)
    deletion = asyncio.create_task(idle.writer.submit(("d",), DeleteNode(recursive=True, external_only=False)))
    await decided.wait()
    creations = [asyncio.create_task(idle.container("d", f"k{n}")) for n in range(5)]
    await asyncio.sleep(0.01)
    go_on.set()
    await deletion
    assert [type(o) for o in await asyncio.gather(*creations, return_exceptions=True)] == [NotFound] * 5
