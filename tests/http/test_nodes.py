"""Nodes over the wire: create, read, edit, delete; their earlier states; data that exist already."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import numpy
import orjson
import pyarrow
import pytest


async def test_the_answer_to_a_creation_has_what_clients_merge(server: Any) -> None:
    reply = await server.array("a", numpy.zeros((3, 4)), write=False, specs=[{"name": "S", "version": None}])
    assert reply["id"] == "a"
    assert reply["links"]["block"] == "http://server/api/v1/array/block/a?block={0},{1}"
    assert isinstance(reply["data_sources"][0]["id"], int)
    assert "structure" not in reply
    assert "metadata" not in reply


async def test_a_node_without_a_key_gets_one(server: Any) -> None:
    body = {"id": None, "structure_family": "container", "metadata": {"a": 1}, "specs": [], "data_sources": []}
    key = (await server.ok("POST", "/metadata/", json=body))["id"]
    assert len(key) == 36
    assert (await server.ok("GET", f"/metadata/{key}"))["data"]["attributes"]["metadata"] == {"a": 1}


async def test_a_taken_key_is_a_conflict_that_names_the_path(server: Any) -> None:
    await server.create("c")
    await server.create("c/d")
    body = {"id": "d", "structure_family": "container", "metadata": {}, "specs": [], "data_sources": []}
    assert await server.refused("POST", "/metadata/c", json=body) == (409, "/c/d")


async def test_empty_segments_do_not_count_and_bodies_need_no_type(server: Any) -> None:
    body = b'{"id":"c","structure_family":"container","metadata":{},"specs":[],"data_sources":[]}'
    await server.ok("POST", "//metadata//", content=body)
    await server.array("c//a", numpy.arange(3))
    for path in ("/metadata//c/a", "/metadata/c//a/", "/metadata///c///a"):
        data = (await server.ok("GET", path))["data"]
        assert data["attributes"]["ancestors"] == ["c"]
        assert data["links"]["self"] == "http://server/api/v1/metadata/c/a"


@pytest.mark.parametrize("key", ["with space", " around ", "žluťoučký", "a.b", "...", "-", "~", "a+b", "a%b", "a?b", "#", "full"])
async def test_any_key_can_be_addressed(server: Any, key: str) -> None:
    await server.ok("POST", "/metadata/", json={"id": key, "structure_family": "container", "metadata": {}})
    assert (await server.ok("GET", f"/metadata/{quote(key)}"))["data"]["id"] == key
    assert key in [n["id"] for n in (await server.ok("GET", "/search/?fields="))["data"]]


async def test_all_attributes_are_there_asked_for_or_not(server: Any) -> None:
    await server.create("c", metadata={"m": {"n": 1}}, specs=[{"name": "S", "version": "1"}])
    every = {"ancestors", "structure_family", "specs", "metadata", "structure", "access_tags", "sorting", "data_sources"}
    whole = await server.ok("GET", "/metadata/c")
    assert whole["data"]["attributes"].keys() == every
    assert whole["data"]["attributes"]["structure"] == {"contents": None, "count": 0}
    assert whole["meta"] == {}
    some = (await server.ok("GET", "/metadata/c?fields=specs&fields=metadata"))["data"]["attributes"]
    assert some["specs"] == [{"name": "S", "version": "1"}]
    assert some["structure"] is None
    bare = (await server.ok("GET", "/metadata/c?fields="))["data"]
    assert bare["links"].keys() == {"self"}
    selected = await server.ok("GET", "/metadata/c?select_metadata=m.n&omit_links=true&root_path=true&max_depth=5")
    assert selected["data"]["attributes"]["metadata"] == {"selected": 1}
    assert selected["data"]["links"] is None
    assert selected["meta"] == {"root_path": "/"}


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("fields=nothing", 422),
        ("max_depth=6", 422),
        ("max_depth=x", 422),
        ("omit_links=maybe", 422),
        ("select_metadata=[", 400),
        ("select_metadata=abs(@)", 400),
        ("select_metadata=nosuch(@)", 400),
    ],
)
async def test_questions_that_make_no_sense(server: Any, query: str, status: int) -> None:
    await server.create("c")
    assert (await server.refused("GET", f"/metadata/c?{query}"))[0] == status


async def test_a_missing_node_is_told_with_its_segments(server: Any) -> None:
    assert await server.refused("GET", "/metadata/no/such") == (404, "No such entry: ['no', 'such']")


async def test_a_column_is_seen_as_an_array(server: Any) -> None:
    await server.table("t", pyarrow.table({"x": [1.0, 2.0, 3.0], "s": ["a", "bb", None]}))
    attributes = (await server.ok("GET", "/metadata/t/x"))["data"]["attributes"]
    assert attributes["structure"]["shape"] == [3]
    assert attributes["ancestors"] == ["t"]
    assert attributes["access_tags"] is None
    assert (await server.ok("GET", "/metadata/t/s"))["data"]["attributes"]["structure"]["data_type"]["kind"] == "U"
    assert (await server.refused("GET", "/metadata/t/y"))[0] == 404


async def test_an_edit_is_seen_and_leaves_a_revision(server: Any) -> None:
    await server.create("c", metadata={"a": 1})
    patch = {"content-type": "application/json-patch+json", "metadata": [{"op": "add", "path": "/b", "value": 2}], "specs": None}
    assert await server.ok("PATCH", "/metadata/c", json=patch) == {"id": "c"}
    merge = {"content-type": "application/merge-patch+json", "metadata": {"a": None}, "specs": [{"name": "S", "version": None}]}
    await server.ok("PATCH", "/metadata/c", json=merge)
    await server.ok("PUT", "/metadata/c?drop_revision=true", json={"metadata": {"z": 0}, "specs": None})
    attributes = (await server.ok("GET", "/metadata/c"))["data"]["attributes"]
    assert attributes["metadata"] == {"z": 0}
    assert attributes["specs"] == [{"name": "S", "version": None}]
    revisions = await server.ok("GET", "/revisions/c")
    assert [(r["revision_number"], r["attributes"]["metadata"]) for r in revisions["data"]] == [
        (1, {"a": 1}),
        (2, {"a": 1, "b": 2}),
    ]
    assert revisions["meta"] == {"count": 2}
    assert revisions["links"]["next"] is None


async def test_revisions_come_in_pages_and_can_be_forgotten(server: Any) -> None:
    await server.create("c")
    for n in range(3):
        await server.ok("PUT", "/metadata/c", json={"metadata": {"n": n}})
    count = await server.ok("GET", "/revisions/c?page[offset]=0&page[limit]=0")
    assert count["data"] == []
    assert count["meta"] == {"count": 3}
    page = await server.ok("GET", "/revisions/c?page[offset]=1&page[limit]=1")
    assert page["data"][0]["revision_number"] == 2
    assert page["links"]["next"] == "http://server/api/v1/revisions/c?page[offset]=2&page[limit]=1"
    assert await server.ok("DELETE", "/revisions/c?number=2") is None
    assert [r["revision_number"] for r in (await server.ok("GET", "/revisions/c"))["data"]] == [1, 3]
    assert (await server.refused("DELETE", "/revisions/c?number=2"))[0] == 404
    assert (await server.refused("DELETE", "/revisions/c"))[0] == 422
    assert (await server.refused("GET", "/revisions/c?page[limit]=301"))[0] == 422


async def test_the_root_can_be_read_and_edited(server: Any) -> None:
    root = (await server.ok("GET", "/metadata/"))["data"]
    assert (root["id"], root["attributes"]["ancestors"]) == ("", [])
    await server.ok("PUT", "/metadata/", json={"metadata": {"title": "here"}})
    assert (await server.ok("GET", "/metadata/"))["data"]["attributes"]["metadata"] == {"title": "here"}
    assert (await server.refused("DELETE", "/metadata/?recursive=true&external_only=false"))[0] == 405


async def test_deletion_is_refused_where_something_would_be_lost(server: Any) -> None:
    await server.create("c")
    await server.array("c/a", numpy.arange(3))
    assert (await server.refused("DELETE", "/metadata/c"))[0] == 409
    assert (await server.refused("DELETE", "/metadata/c?recursive=true"))[0] == 409
    assert (await server.refused("DELETE", "/metadata/c/a"))[0] == 409
    assert await server.ok("DELETE", "/metadata/c?recursive=true&external_only=false") is None
    for path in ("c", "c/a"):
        assert (await server.refused("GET", f"/metadata/{path}"))[0] == 404
    assert (await server.refused("DELETE", "/metadata/c"))[0] == 404


def external(shape: list[int], **fields: Any) -> dict[str, Any]:
    structure = {
        "data_type": {"endianness": "little", "kind": "u", "itemsize": 2, "dt_units": None},
        "chunks": [[n] for n in shape],
        "shape": shape,
        "dims": None,
        "resizable": False,
    }
    source = {"structure_family": "array", "structure": structure, "mimetype": "application/x-hdf5", "management": "external"}
    return source | fields


async def test_files_are_registered_and_grow(server: Any) -> None:
    asset = {"data_uri": "file://localhost/d/x.h5", "is_directory": False, "parameter": "data_uris", "num": 0}
    body = {
        "id": "x",
        "structure_family": "array",
        "metadata": {},
        "specs": [],
        "data_sources": [external([0, 3], assets=[asset])],
    }
    reply = await server.ok("POST", "/register/", json=body)
    source = reply["data_sources"][0]
    assert source["assets"][0]["data_uri"] == asset["data_uri"]
    grown = external([2, 3], assets=[asset], id=source["id"], parameters={"dataset": "/e"})
    url = "/data_source/x?patch_shape=2,3&patch_offset=0,0"
    # Bluesky's writer sends this body without a Content-Type.
    assert await server.ok("PUT", url, content=orjson.dumps({"data_source": grown})) is None
    attributes = (await server.ok("GET", "/metadata/x?include_data_sources=true"))["data"]["attributes"]
    assert attributes["structure"]["shape"] == [2, 3]
    assert attributes["data_sources"][0]["parameters"] == {"dataset": "/e"}
    assert len(attributes["data_sources"][0]["assets"]) == 1
    assert (await server.refused("PUT", "/data_source/x?patch_shape=2,3", json={"data_source": grown}))[0] == 400
    assert (await server.refused("PUT", "/data_source/x", json={"data_source": grown | {"id": 1}}))[0] == 404
    assert (await server.refused("GET", "/array/full/x"))[0] == 403


async def test_who_wants_it_waits_until_it_is_in_storage(server: Any) -> None:
    await server.array("a", numpy.arange(3), write=False)
    headers = {"X-Tiled-Ack": "persisted"}
    await server.ok("PUT", "/array/full/a", content=numpy.arange(3).tobytes(), headers=headers)
    assert (await server.assembly._log.lag()).records == 0
    status, detail = await server.refused("PUT", "/array/full/a", content=b"", headers={"X-Tiled-Ack": "never"})
    assert (status, "X-Tiled-Ack" in detail) == (422, True)
