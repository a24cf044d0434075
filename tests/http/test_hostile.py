"""Whatever a client sends, it is told what is wrong with it: never a 5xx, and nothing reaches a subscriber (I10)."""

from __future__ import annotations

from typing import Any

import numpy
import orjson
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NODE = {"id": "n", "structure_family": "container", "metadata": {}, "specs": [], "data_sources": []}
TYPE = {"endianness": "little", "kind": "f", "itemsize": 8, "dt_units": None}
ARRAY = {"data_type": TYPE, "chunks": [[2]], "shape": [2], "dims": None, "resizable": False}
SOURCE = {"structure_family": "array", "structure": ARRAY, "management": "writable"}
SPEC = {"name": "s", "version": None}


def of_array(**structure: Any) -> dict[str, Any]:
    return NODE | {"structure_family": "array", "data_sources": [SOURCE | {"structure": ARRAY | structure}]}


CREATIONS = {
    "no object": [1],
    "no family": {"id": "n"},
    "wrong family": NODE | {"structure_family": "tree"},
    "slash in key": NODE | {"id": "a/b"},
    "number as key": NODE | {"id": 1},
    "huge key": NODE | {"id": "k" * 5000},
    "metadata no object": NODE | {"metadata": [1]},
    "specs no list": NODE | {"specs": "s"},
    "specs twice": NODE | {"specs": [SPEC, SPEC]},
    "too many specs": NODE | {"specs": [SPEC | {"name": str(n)} for n in range(21)]},
    "long spec": NODE | {"specs": [SPEC | {"name": "s" * 256}]},
    "tags no list": NODE | {"access_tags": "x"},
    "array without source": NODE | {"structure_family": "array"},
    "two sources": NODE | {"structure_family": "array", "data_sources": [SOURCE, SOURCE]},
    "unknown key in source": NODE | {"structure_family": "array", "data_sources": [SOURCE | {"x": 1}]},
    "unwritable type": NODE | {"structure_family": "array", "data_sources": [SOURCE | {"mimetype": "application/x-nothing"}]},
    "mimetype no text": NODE | {"structure_family": "array", "data_sources": [SOURCE | {"mimetype": 1}]},
    "wrong management": NODE | {"structure_family": "array", "data_sources": [SOURCE | {"management": "mine"}]},
    "assets of ours": NODE | {"structure_family": "array", "data_sources": [SOURCE | {"assets": [{"data_uri": "x"}]}]},
    "family of source": NODE | {"structure_family": "array", "data_sources": [SOURCE | {"structure_family": "table"}]},
    "source no object": NODE | {"structure_family": "array", "data_sources": ["x"]},
    "structure missing": NODE | {"structure_family": "array", "data_sources": [SOURCE | {"structure": None}]},
    "chunks do not cover": of_array(chunks=[[1]]),
    "chunks of other rank": of_array(chunks=[[1], [1]]),
    "negative shape": of_array(shape=[-1], chunks=[[-1]]),
    "huge shape": of_array(shape=[1 << 70], chunks=[[1 << 70]]),
    "float shape": of_array(shape=[1.5], chunks=[[1.5]]),
    "dims of other rank": of_array(dims=["x", "y"]),
    "objects": of_array(data_type=TYPE | {"kind": "O"}),
    "no such kind": of_array(data_type=TYPE | {"kind": "q"}),
    "no such size": of_array(data_type=TYPE | {"itemsize": 7}),
    "negative size": of_array(data_type=TYPE | {"itemsize": -8}),
    "table without columns": NODE | {"structure_family": "table", "data_sources": [SOURCE | {"structure_family": "table"}]},
    "awkward": NODE | {"structure_family": "awkward", "data_sources": [SOURCE | {"structure_family": "awkward"}]},
}


async def test_creations(server: Any) -> None:
    for name, body in CREATIONS.items():
        for door in ("metadata", "register"):
            response = await server.client.post(f"/api/v1/{door}/", json=body)
            assert 400 <= response.status_code < 500, (name, door, response.text)
            assert response.json()["detail"], name
    assert (await server.ok("GET", "/search/?fields=count"))["meta"]["count"] == 0
    assert (await server.assembly._log.head("root")).sequence == 0


BROKEN = [b"", b"{", b"null", b"\xff\xfe", b'"text"', b"[" * 100_000, b'{"a":NaN}', b'{"id":"\\ud800"}']


async def test_bodies_that_are_no_json(server: Any) -> None:
    await server.create("c")
    for body in BROKEN:
        for method, path in (("POST", "metadata/"), ("POST", "register/"), ("PATCH", "metadata/"), ("PUT", "metadata/")):
            await server.refused(method, f"/{path}", content=body)
        for path in ("table/full/c", "container/full/c"):
            response = await server.client.post(f"/api/v1/{path}", content=body)
            assert response.status_code < 500


PATCHES = [
    {},
    {"metadata": []},
    {"content-type": "text/plain", "specs": None},
    {"content-type": "application/json-patch+json", "metadata": {"a": 1}, "specs": None},
    {"content-type": "application/json-patch+json", "metadata": [{"op": "test", "path": "/m", "value": 2}], "specs": None},
    {"content-type": "application/json-patch+json", "metadata": [{"op": "remove", "path": "/no"}], "specs": None},
    {"content-type": "application/json-patch+json", "metadata": [{"op": "fly", "path": "/no"}], "specs": None},
    {"content-type": "application/json-patch+json", "metadata": ["x"], "specs": None},
    {"content-type": "application/json-patch+json", "metadata": [{"op": "replace", "path": "", "value": 1}], "specs": None},
    {"content-type": "application/json-patch+json", "metadata": None, "specs": [{"op": "add", "path": "/-", "value": "s"}]},
    {"content-type": "application/merge-patch+json", "metadata": [1], "specs": None},
    {"content-type": "application/merge-patch+json", "metadata": None, "specs": [SPEC, SPEC]},
    {"content-type": "application/merge-patch+json", "metadata": None, "specs": None, "access_tags": [1]},
]


async def test_patches(server: Any) -> None:
    await server.create("c", metadata={"m": 1})
    for body in PATCHES:
        response = await server.client.patch("/api/v1/metadata/c", json=body)
        assert 400 <= response.status_code < 500, (body, response.text)
    assert (await server.ok("GET", "/metadata/c"))["data"]["attributes"]["metadata"] == {"m": 1}
    assert (await server.assembly._log.head("root")).sequence == 1


@pytest.mark.parametrize("body", [{"metadata": 1}, {"specs": "x"}, {"specs": [SPEC, SPEC]}, {"access_tags": 1}])
async def test_replacements(server: Any, body: Any) -> None:
    await server.create("c")
    assert (await server.refused("PUT", "/metadata/c", json=body))[0] == 422


@pytest.mark.parametrize(
    "body", [{}, {"data_source": 1}, {"data_source": {}}, {"data_source": SOURCE}, {"data_source": SOURCE | {"id": "x"}}]
)
async def test_data_sources(server: Any, body: Any) -> None:
    await server.array("a", numpy.arange(2.0))
    await server.refused("PUT", "/data_source/a", json=body)


FIELDS = st.sampled_from(
    ["slice", "block", "expected_shape", "offset", "shape", "extend", "persist", "partition", "column", "field"]
)
MORE = st.sampled_from(
    ["format", "page[limit]", "page[offset]", "page[cursor]", "sort", "fields", "select_metadata", "max_depth"]
)
ODD = st.sampled_from(
    ["", "0", "-1", "1e9", ",", ":", "::", "1,2", "a", "99999999999999999999", "true", "%00", "%ff", "[]", "*/*", "'"]
)
PATHS = ["metadata", "search", "search-deep", "distinct", "revisions", "array/full", "array/block", "table/full"]
PATHS += ["table/partition", "container/full", "register", "data_source", "stream/close", "validate", "asset/bytes"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
async def test_any_question_of_anything(server: Any, data: st.DataObject) -> None:
    """All methods on all places with odd parameters: whatever it is, it is not our fault."""
    if (await server.client.get("/api/v1/metadata/a")).status_code == 404:
        await server.array("a", numpy.arange(4.0))
    if (await server.client.get("/api/v1/metadata/t")).status_code == 404:
        await server.table("t", pyarrow.table({"x": [1, 2]}))
    for _ in range(10):
        method = data.draw(st.sampled_from(["GET", "POST", "PUT", "PATCH"]))
        place = data.draw(st.sampled_from(PATHS))
        node = data.draw(st.sampled_from(["", "a", "t", "t/x", "no", "a/b"]))
        query = "&".join(f"{k}={v}" for k, v in data.draw(st.lists(st.tuples(FIELDS | MORE, ODD), max_size=3)))
        body = data.draw(st.sampled_from([b"", b"{}", b"[]", bytes(32), orjson.dumps(NODE)]))
        response = await server.client.request(method, f"/api/v1/{place}/{node}?{query}", content=body)
        assert response.status_code < 500, (method, place, node, query, body, response.text)


async def test_what_was_refused_was_not_broadcast(server: Any) -> None:
    await server.array("a", numpy.arange(2.0), write=False)
    socket = await server.socket("a?start=0&envelope_format=msgpack").accepted()
    assert (await socket.update())["type"] == "array-schema"
    await server.refused("PUT", "/array/full/a", content=b"short")
    await server.refused("PATCH", "/array/full/a?offset=5&shape=1", content=bytes(8))
    await server.ok("PUT", "/array/full/a", content=bytes(16))
    update = await socket.update()
    assert (update["sequence"], update["payload"]) == (1, bytes(16))
