"""Given a node and a command: this event, or this refusal."""

from __future__ import annotations

import msgspec
import pytest

from tiled_stream.domain import decide
from tiled_stream.domain.commands import DeleteAsset, NewDataSource, PatchArray, UpdateDataSource, WriteArray, WriteBlock
from tiled_stream.domain.errors import Conflict, Malformed, NotFound, NotSupported, Unsatisfiable
from tiled_stream.domain.nodes import Asset, DataSource, Management, Node, Spec, wire_number
from tiled_stream.domain.structures import ArrayStructure, DataType

F8 = DataType(itemsize=8, kind="f", endianness="little")
STRUCTURE = ArrayStructure(F8, ((3, 1), (2,)), (4, 2))


def array_node(management: Management = "writable") -> Node:
    asset = Asset("file://localhost/data/id", True, "data_uri", id=7)
    source = DataSource("array", STRUCTURE, "application/x-zarr", id=5, assets=(asset,), management=management)
    return Node("id", "a", "p", "array", data_sources=(source,))


def test_a_whole_write_needs_exactly_the_bytes_of_the_array() -> None:
    event = decide.whole_written(STRUCTURE, WriteArray(bytes(64)))
    assert (event.shape, event.offset, event.block) == ((4, 2), None, None)
    with pytest.raises(Malformed, match="2 bytes"):
        decide.whole_written(STRUCTURE, WriteArray(b"xx"))


def test_an_edge_block_has_its_actual_shape() -> None:
    event = decide.block_written(STRUCTURE, WriteBlock((1, 0), bytes(16)))
    assert (event.shape, event.offset, event.block) == ((1, 2), (3, 0), (1, 0))
    with pytest.raises(Malformed):
        decide.block_written(STRUCTURE, WriteBlock((1, 0), bytes(48)))
    with pytest.raises(Malformed):
        decide.block_written(STRUCTURE, WriteBlock((2, 0), bytes(16)))


def test_a_patch_inside_the_array_changes_no_structure() -> None:
    event = decide.region_written(STRUCTURE, PatchArray((1,), (2, 2), bytes(32)))
    assert event.structure is None
    assert event.offset == (1,)


def test_a_patch_beyond_the_edge_conflicts_unless_it_may_extend() -> None:
    with pytest.raises(Conflict, match=r"Use \?extend=true"):
        decide.region_written(STRUCTURE, PatchArray((4, 0), (1, 2), bytes(16)))
    event = decide.region_written(STRUCTURE, PatchArray((4, 0), (1, 2), bytes(16), extend=True))
    assert event.structure is not None
    assert event.structure.shape == (5, 2)
    assert event.structure.chunks == ((3, 2), (2,))


def test_extending_without_persisting_contradicts_itself() -> None:
    with pytest.raises(Unsatisfiable):
        decide.region_written(STRUCTURE, PatchArray((4, 0), (1, 2), bytes(16), extend=True, persist=False))


def test_a_patch_of_other_dimensions_conflicts() -> None:
    with pytest.raises(Conflict):
        decide.region_written(STRUCTURE, PatchArray((0,), (2,), bytes(16)))


def test_only_writable_arrays_are_written() -> None:
    assert decide.array_of(array_node()) == STRUCTURE
    with pytest.raises(NotSupported):
        decide.array_of(array_node("external"))
    with pytest.raises(NotFound):
        decide.table_of(array_node())


def test_an_asset_is_deleted_where_nothing_is_lost_unless_that_is_said() -> None:
    for management, command in (("external", DeleteAsset(7)), ("writable", DeleteAsset(7, external_only=False))):
        node = array_node(management)  # type: ignore[arg-type]
        event = decide.asset_deleted(node, command)
        assert event.data_source == msgspec.structs.replace(node.data_sources[0], assets=())
    with pytest.raises(Conflict, match="external_only=false"):
        decide.asset_deleted(array_node(), DeleteAsset(7))
    with pytest.raises(NotFound):
        decide.asset_deleted(array_node("external"), DeleteAsset(8))
    with pytest.raises(NotSupported):
        decide.asset_deleted(Node("id", "c", "p", "container"), DeleteAsset(7))
    empty = msgspec.structs.replace(array_node(), data_sources=(event.data_source,))
    with pytest.raises(NotSupported, match="were deleted"):
        decide.array_of(empty)


def test_a_data_source_keeps_its_assets_and_gains_new_ones() -> None:
    old = DataSource(
        "array",
        STRUCTURE,
        "image/tiff",
        id=5,
        assets=(Asset("file://localhost/a", False, "data_uris", 0),),
        management="external",
    )
    node = Node("id", "a", "p", "array", data_sources=(old,))
    new = NewDataSource(
        "array",
        STRUCTURE,
        "image/tiff",
        assets=(Asset("file://localhost/b", False, "data_uris", 1),),
        management="external",
        id=5,
    )
    event = decide.data_source_updated(node, UpdateDataSource(new, (0, 0), (1, 2)))
    assert [a.data_uri for a in event.data_source.assets] == ["file://localhost/a", "file://localhost/b"]
    assert event.data_source.assets[1].id == wire_number("file://localhost/b")
    assert (event.offset, event.shape) == ((0, 0), (1, 2))
    with pytest.raises(NotFound):
        decide.data_source_updated(node, UpdateDataSource(NewDataSource("array", STRUCTURE, id=6)))
    internal = UpdateDataSource(NewDataSource("array", STRUCTURE, id=5))
    with pytest.raises(NotSupported):
        decide.data_source_updated(array_node(), internal)


@pytest.mark.parametrize(
    "specs",
    [[Spec(str(n)) for n in range(21)], [Spec("a"), Spec("a", "2")], [Spec("x" * 256)], [Spec("x", "y" * 256)]],
    ids=["too many", "twice", "long name", "long version"],
)
def test_specs_are_few_unique_and_short(specs: list[Spec]) -> None:
    with pytest.raises(Malformed):
        decide.check_specs(specs)
