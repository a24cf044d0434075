"""Folding records: given a state and events, then this state; twice equals once (I5)."""

from __future__ import annotations

from tiled_stream.domain.events import ArrayWritten, ChildCreated, ChildDeleted, ChildMetadataUpdated, Record, RowsAppended
from tiled_stream.domain.fold import Child, ContainerTail, DataTail, Edit, edited
from tiled_stream.domain.nodes import DataSource, Node, Spec
from tiled_stream.domain.structures import ArrayStructure, DataType

F8 = DataType(itemsize=8, kind="f", endianness="little")


def node(key: str, id: str = "a") -> Node:
    return Node(id=id, key=key, parent="p", family="container", metadata={"v": 0})


def update(key: str, value: int, id: str = "a", revision: int | None = 1) -> ChildMetadataUpdated:
    return ChildMetadataUpdated(key, id, {"v": value}, (Spec("s"),), (), revision)


def test_a_created_child_carries_sequence_and_time_of_its_record() -> None:
    tail = ContainerTail(base=4)
    tail.fold([Record(5, 12.5, ChildCreated(node("x")))])
    child = tail.children["x"]
    assert isinstance(child, Child)
    assert (child.node.created, child.node.time_created, child.own) == (5, 12.5, 0)
    assert tail.cursor == 5


def test_edits_are_laid_over_the_child_and_number_its_revisions() -> None:
    tail = ContainerTail(base=0)
    tail.fold(
        [Record(1, 1.0, ChildCreated(node("x"))), Record(2, 2.0, update("x", 7)), Record(3, 3.0, update("x", 8, revision=None))]
    )
    child = tail.children["x"]
    assert isinstance(child, Child)
    assert child.node.metadata == {"v": 8}
    assert (child.node.revision, child.node.time_updated, child.node.specs) == (1, 3.0, (Spec("s"),))


def test_an_edit_of_a_child_that_was_not_read_yet_waits_for_its_row() -> None:
    tail = ContainerTail(base=9)
    tail.fold([Record(10, 1.0, update("x", 3))])
    waiting = tail.children["x"]
    assert isinstance(waiting, Edit)
    assert edited(node("x"), waiting).metadata == {"v": 3}


def test_a_key_used_again_after_deletion_is_another_child() -> None:
    tail = ContainerTail(base=0)
    tail.fold([Record(1, 0.0, ChildCreated(node("x", "a"))), Record(2, 0.0, ChildDeleted("x", "a"))])
    assert tail.children["x"] is None
    tail.fold([Record(3, 0.0, ChildCreated(node("x", "b")))])
    child = tail.children["x"]
    assert isinstance(child, Child)
    assert child.node.id == "b"
    assert child.node.created == 3


def test_moves_count_what_the_catalog_has_not_seen() -> None:
    tail = ContainerTail(base=0)
    tail.fold([Record(n, 0.0, ChildCreated(node(f"k{n}", f"i{n}"))) for n in range(1, 6)])
    tail.fold([Record(6, 0.0, ChildDeleted("k1", "i1"))])
    assert tail.moved_since(0) == 4
    assert tail.moved_since(3) == 1
    assert tail.moved_since(6) == 0


def test_growth_is_folded_once_however_often_it_is_read() -> None:
    small, large = (ArrayStructure(F8, ((n,),), (n,)) for n in (2, 5))
    source = DataSource("array", small, "application/x-zarr", id=1)
    records = [Record(1, 0.0, ArrayWritten((2,))), Record(2, 0.0, ArrayWritten((3,), offset=(2,), structure=large))]
    tail = DataTail((source,), 0)
    tail.fold(records)
    once = tail.data_sources
    tail.fold(records)
    assert once[0].structure == large
    assert tail.data_sources == once  # I5


def test_data_that_do_not_change_the_structure_only_move_the_cursor() -> None:
    source = DataSource("table", None, "x", id=1)
    tail = DataTail((source,), 3)
    tail.fold([Record(4, 0.0, RowsAppended(0, 1))])
    assert tail.data_sources == (source,)
    assert tail.cursor == 4
