"""Nodes as clients see them."""

from __future__ import annotations

from typing import Any

import jmespath
import orjson
import pyarrow
import pytest

from tiled_stream.domain.nodes import ROOT, DataSource, Node, Spec
from tiled_stream.domain.structures import ArrayStructure, DataType
from tiled_stream.testing.factories import array_node, array_structure, container_node, table_node
from tiled_stream.wire.resources import View, column_resource, create_reply, links, resource
from tiled_stream.wire.tables import structure_of

BASE = "http://h/api/v1"
VIEW = View(BASE)
KEYS = ["ancestors", "structure_family", "specs", "metadata", "structure", "access_tags", "sorting", "data_sources"]
STRUCTURE = ArrayStructure(DataType(8, "f", "little"), ((5,), (4,)), (5, 4))
WIRE_STRUCTURE = {
    "data_type": {"endianness": "little", "kind": "f", "itemsize": 8, "dt_units": None},
    "chunks": [[5], [4]],
    "shape": [5, 4],
    "dims": None,
    "resizable": False,
}
NODE = Node(
    "0" * 32,
    "a1",
    "1" * 32,
    "array",
    {"m": 1},
    (Spec("S1", "1"), Spec("S2")),
    data_sources=(DataSource("array", STRUCTURE, "application/x-zarr", 42),),
)


def wire(value: Any) -> Any:
    """As the client decodes it."""
    return orjson.loads(orjson.dumps(value))


def test_a_container() -> None:
    node = Node("0" * 32, "m", ROOT, "container", {"a": {"b": 5}}, (Spec("S1", "1"),))
    assert wire(resource(node, ("m",), VIEW, children=3)) == {
        "id": "m",
        "attributes": {
            "ancestors": [],
            "structure_family": "container",
            "specs": [{"name": "S1", "version": "1"}],
            "metadata": {"a": {"b": 5}},
            "structure": {"contents": None, "count": 3},
            "access_tags": [],
            "sorting": [{"key": "", "direction": 1}],
            "data_sources": None,
        },
        "links": {
            "self": "http://h/api/v1/metadata/m",
            "search": "http://h/api/v1/search/m",
            "search_deep": "http://h/api/v1/search-deep/m",
            "full": "http://h/api/v1/container/full/m",
        },
        "meta": None,
    }


def test_an_array_with_its_data_source() -> None:
    found = wire(resource(NODE, ("fam", "a1"), View(BASE, include_data_sources=True), children=None))
    assert found["attributes"]["structure"] == WIRE_STRUCTURE
    assert found["attributes"]["ancestors"] == ["fam"]
    assert found["attributes"]["sorting"] is None
    assert [s["id"] for s in found["attributes"]["data_sources"]] == [42]
    assert found["links"] == {
        "self": "http://h/api/v1/metadata/fam/a1",
        "full": "http://h/api/v1/array/full/fam/a1",
        "block": "http://h/api/v1/array/block/fam/a1?block={0},{1}",
    }


def test_the_root() -> None:
    root = Node(ROOT, "", None, "container")
    found = resource(root, (), VIEW, children=0)
    assert (found["id"], found["attributes"]["ancestors"]) == ("", [])
    assert found["links"]["self"] == "http://h/api/v1/metadata/"


@pytest.mark.parametrize("fields", [frozenset(), *({key} for key in KEYS), {"metadata", "specs"}, {"count"}])
def test_only_what_was_asked_for_is_filled(fields: set[str]) -> None:
    view = View(BASE, frozenset(fields), include_data_sources=True)
    attributes = resource(NODE, ("fam", "a1"), view, children=None)["attributes"]
    assert list(attributes) == KEYS
    filled = {key for key, value in attributes.items() if value is not None}
    expected = {"ancestors"} | (fields - {"sorting", "count"}) | ({"structure"} if "count" in fields else set())
    assert filled == expected


def test_ids_only() -> None:
    found = resource(NODE, ("fam", "a1"), View(BASE, frozenset()), children=None)
    assert found["links"] == {"self": "http://h/api/v1/metadata/fam/a1"}


def test_no_links() -> None:
    assert resource(NODE, ("fam", "a1"), View(BASE, omit_links=True), children=None)["links"] is None


@pytest.mark.parametrize(("expression", "selected"), [("m", 1), ("nothing.here", None), ("{x: m}", {"x": 1})])
def test_a_part_of_the_metadata(expression: str, selected: Any) -> None:
    view = View(BASE, select_metadata=jmespath.compile(expression).search)
    assert resource(NODE, ("a1",), view, children=None)["attributes"]["metadata"] == {"selected": selected}


def test_bytes_have_an_empty_structure() -> None:
    node = Node("0" * 32, "b", ROOT, "bytes", data_sources=(DataSource("bytes", None, "application/octet-stream", 1),))
    found = resource(node, ("b",), View(BASE, include_data_sources=True), children=None)
    assert found["attributes"]["structure"] == {}
    assert found["attributes"]["data_sources"][0]["structure"] == {}
    assert found["links"] == {"self": "http://h/api/v1/metadata/b"}


def test_links_of_tables_and_scalars() -> None:
    table = structure_of(pyarrow.schema([("x", pyarrow.int64())]))
    found = links("table", table, ("t",), BASE)
    assert found["partition"].format(index=3) == "http://h/api/v1/table/partition/t?partition=3"
    assert links("array", array_structure(()), ("s",), BASE)["block"].endswith("?block=")


def test_links_hold_whatever_the_key_is() -> None:
    """Spaces and letters stand as they are, as clients know it; what would break the link is escaped."""
    block = links("array", STRUCTURE, ("a b", "ü{0}%20?x#y"), BASE)["block"]
    assert block.format(1, 2) == "http://h/api/v1/array/block/a b/ü%7B0%7D%2520%3Fx%23y?block=1,2"


def test_a_column() -> None:
    found = wire(column_resource(("t", "x"), array_structure((5,)), View(BASE, include_data_sources=True)))
    attributes = found["attributes"]
    assert (found["id"], attributes["ancestors"], attributes["structure_family"]) == ("x", ["t"], "array")
    assert (attributes["metadata"], attributes["specs"], attributes["structure"]["shape"]) == ({}, [], [5])
    assert (attributes["access_tags"], attributes["data_sources"], attributes["sorting"]) == (None, None, None)
    assert found["links"]["block"] == "http://h/api/v1/array/block/t/x?block={0}"


def test_a_column_of_which_only_the_key_is_asked() -> None:
    found = column_resource(("t", "x"), array_structure((5,)), View(BASE, frozenset()))
    assert {key for key, value in found["attributes"].items() if value is not None} == {"ancestors"}
    assert found["links"] == {"self": "http://h/api/v1/metadata/t/x"}
    found = column_resource(("t", "x"), array_structure((5,)), View(BASE, frozenset({"structure"})))
    assert found["attributes"]["structure"]["shape"] == (5,)


def test_the_answer_to_a_creation() -> None:
    reply = wire(create_reply(NODE, ("fam", "a1"), BASE, ()))
    assert list(reply) == ["id", "links", "data_sources"]
    assert reply["id"] == "a1"
    assert reply["links"]["self"] == "http://h/api/v1/metadata/fam/a1"
    assert reply["data_sources"][0]["id"] == 42
    assert reply["data_sources"][0]["structure"] == WIRE_STRUCTURE


@pytest.mark.parametrize(("requested", "told"), [(None, True), ((), False), (("x",), True)])
def test_tags_are_told_if_they_differ_from_the_request(requested: tuple[str, ...] | None, told: bool) -> None:
    assert ("access_tags" in create_reply(NODE, ("a1",), BASE, requested)) is told


@pytest.mark.parametrize("node", [container_node("c"), array_node("a"), table_node("t")], ids=lambda n: n.family)
def test_everything_is_json(node: Node) -> None:
    assert wire(resource(node, (node.key,), View(BASE, include_data_sources=True), children=None))["id"] == node.key
