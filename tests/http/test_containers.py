"""Whole containers: nested metadata, the documents of a run, and whether the run is whole."""

from __future__ import annotations

import json
from typing import Any

import numpy
import pyarrow
import pytest

from tiled_stream.http import metadata as routes

RUN = [{"name": "BlueskyRun", "version": "3.0"}]


@pytest.fixture
async def run(server: Any) -> Any:
    """A run as the writer leaves it: a table, a large array, a file."""
    metadata = {"start": {"uid": "r", "time": 1.0}, "stop": {"uid": "e", "time": 9.0, "run_start": "r"}}
    await server.create("r", metadata=metadata, specs=RUN)
    keys = {"det": {"object_name": "det"}, "img": {"object_name": "img"}}
    await server.create("r/primary", metadata={"uid": "d", "time": 2.0, "data_keys": keys, "configuration": {}})
    columns = {"seq_num": [1, 2], "time": [3.0, 4.0], "det": [0.5, float("nan")], "ts_det": [3.1, 4.1], "ts_img": [3.2, 4.2]}
    await server.table("r/primary/internal", pyarrow.table(columns))
    await server.array("r/primary/img", numpy.arange(6).reshape(2, 3))
    return server


def records(text: str) -> list[dict[str, Any]]:
    lines = text.split("\x1e")
    assert lines[0] == ""
    assert all(line.endswith("\n") for line in lines[1:])
    return [json.loads(line) for line in lines[1:]]


@pytest.mark.parametrize("asked", ["format=application%2Fjson-seq", "format=jsonl", ""])
async def test_the_documents_of_a_run(run: Any, asked: str) -> None:
    accept = {"Accept": "application/json-seq"}
    response = await run.client.get(f"/api/v1/container/full/r?{asked}", headers={} if asked else accept)
    assert response.headers["content-type"] == "application/json-seq"
    found = records(response.text)
    assert [r["name"] for r in found] == ["start", "descriptor", "event", "event", "stop"]
    event = found[2]["doc"]
    assert event["data"] == {"det": 0.5, "img": [0, 1, 2]}
    assert event["timestamps"] == {"det": 3.1, "img": 3.2}
    assert numpy.isnan(found[3]["doc"]["data"]["det"])


async def test_documents_pass_through_json_whatever_they_hold(run: Any) -> None:
    await run.create("r/other", metadata={"uid": "o"})
    odd = {
        "seq_num": [1],
        "time": [5.0],
        "raw": [b"\x00\xff"],
        "when": pyarrow.array([1], pyarrow.timestamp("ns")),
        "deep": [[[1.0], [2.0]]],
    }
    await run.table("r/other/internal", pyarrow.table(odd))
    event = next(
        r["doc"]
        for r in records((await run.client.get("/api/v1/container/full/r?format=jsonl")).text)
        if r["doc"].get("descriptor") == "o"
    )
    assert event["data"]["deep"] == [[1.0], [2.0]]
    assert event["data"]["raw"].startswith("data:application/octet-stream;base64,")


async def test_a_container_as_json(run: Any) -> None:
    whole = await run.ok("GET", "/container/full/r?format=json")
    assert whole["metadata"]["start"]["uid"] == "r"
    primary = whole["contents"]["primary"]
    assert primary["contents"].keys() == {"internal", "img"}
    assert primary["contents"]["img"] == {"contents": {}, "metadata": {}}
    chosen = await run.ok("GET", "/container/full/r/primary?format=json&field=img&field=nothing")
    assert chosen["contents"].keys() == {"img"}
    assert chosen == await run.ok("POST", "/container/full/r/primary?format=json", json=["img", "nothing"])


async def test_a_container_has_an_etag(run: Any) -> None:
    url = "/api/v1/container/full/r?format=json"
    tag = (await run.client.get(url)).headers["etag"]
    assert (await run.client.get(url, headers={"If-None-Match": tag})).status_code == 304


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "r/primary/img", {}, 404),
        ("GET", "r/primary/internal/det", {}, 404),
        ("GET", "missing", {}, 404),
        ("GET", "r/primary?format=jsonl", {}, 406),
        ("GET", "r?format=text/csv", {}, 406),
        ("POST", "r", {"content": b"["}, 422),
        ("POST", "r", {"json": "img"}, 422),
        ("POST", "r", {"json": [1]}, 422),
    ],
)
async def test_what_makes_no_sense_is_refused(run: Any, method: str, path: str, options: Any, status: int) -> None:
    assert (await run.refused(method, f"/container/full/{path}", **options))[0] == status


async def test_an_export_beyond_the_limit_is_refused_before_it_is_built(serve: Any) -> None:
    async with serve(response_bytesize_limit=2000) as server:
        await server.create("r", metadata={"start": {}}, specs=RUN)
        await server.create("r/primary")
        await server.array("r/primary/img", numpy.zeros(1000))
        assert (await server.refused("GET", "/container/full/r?format=jsonl"))[0] == 400
        for n in range(5):
            await server.create(f"r/{n}", metadata={"text": "x" * 500})
        assert (await server.refused("GET", "/container/full/r?format=json"))[0] == 400


async def validated(server: Any, method: str, path: str, **options: Any) -> Any:
    response = await server.client.request(method, path, **options)
    return response.status_code, response.json()


async def test_a_run_that_is_whole(run: Any) -> None:
    await run.array("r/beside", numpy.arange(7))  # no stream
    for place in ("/custom", "/api/v1"):
        assert await validated(run, "GET", f"{place}/validate/r") == (200, {"valid": True, "notes": []})
        # As the client sends it: without a Content-Type.
        answer = await validated(run, "POST", f"{place}/validate//r?fix=true&read=true", content=b'{"ignore_errors": null}')
        assert answer == (200, {"valid": True, "notes": []})


async def test_a_run_whose_rows_do_not_agree(run: Any) -> None:
    await run.array("r/primary/short", numpy.arange(3).reshape(1, 3))
    status, answer = await validated(run, "POST", "/custom/validate/r?read=true")
    assert status == 200
    assert answer["valid"] is False
    assert "primary/short" in answer["notes"][0]


async def test_only_runs_are_validated(run: Any) -> None:
    assert (await validated(run, "GET", "/custom/validate/r/primary"))[0] == 400
    assert (await validated(run, "GET", "/custom/validate/missing"))[0] == 404
    assert (await validated(run, "GET", "/custom/validate/r?fix=maybe"))[0] == 422


async def test_children_with_odd_keys_are_told_with_their_container_all_or_none(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "MAX_INLINED", 3)
    async with serve(exact_count_limit=1) as server:
        await server.create("c")
        for number, key in enumerate(("a?b", "plain", "more", "too many")):
            body = {"id": key, "structure_family": "container", "metadata": {}, "specs": [], "data_sources": []}
            await server.ok("POST", "/metadata/c", json=body)
            contents = (await server.ok("GET", "/metadata/c"))["data"]["attributes"]["structure"]["contents"]
            assert (contents and list(contents)) == (["a?b", "plain", "more"][: number + 1] if number < 3 else None)
