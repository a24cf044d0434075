"""Tables over the wire."""

from __future__ import annotations

import importlib
import io
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

ARROW = "application/vnd.apache.arrow.file"
TABLE = pyarrow.table({"x": [1, 2, 3], "y": [0.5, None, 1.5], "s": ["a", "b", None]})


def arrow_file(table: pyarrow.Table) -> bytes:
    sink = io.BytesIO()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


async def read(server: Any, path: str, method: str = "GET", **options: Any) -> pyarrow.Table:
    response = await server.client.request(method, f"/api/v1{path}", headers={"Accept": ARROW}, **options)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == ARROW
    return pyarrow.ipc.open_file(response.content).read_all()


async def test_rows_come_back_as_they_were_appended(server: Any) -> None:
    await server.table("t", TABLE)
    await server.ok("PATCH", "/table/partition/t?partition=0", content=arrow_file(TABLE.slice(1)))
    wanted = pyarrow.concat_tables([TABLE, TABLE.slice(1)])
    assert (await read(server, "/table/partition/t?partition=0")).equals(wanted)
    assert (await read(server, "/table/full/t")).equals(wanted)


async def test_the_answer_to_a_write_is_null(server: Any) -> None:
    await server.table("t", TABLE)
    for method, path in (("PUT", "full/t"), ("PUT", "partition/t?partition=0"), ("PATCH", "partition/t?partition=0")):
        assert await server.ok(method, f"/table/{path}", content=arrow_file(TABLE), headers={"Content-Type": ARROW}) is None


async def test_a_replaced_table_has_only_the_new_rows(server: Any) -> None:
    await server.table("t", TABLE)
    await server.ok("PUT", "/table/full/t", content=arrow_file(TABLE.slice(2)))
    assert (await read(server, "/table/full/t")).equals(TABLE.slice(2))


async def test_columns_keep_the_order_of_the_table(server: Any) -> None:
    await server.table("t", TABLE)
    wanted = TABLE.select(["x", "s"])
    assert (await read(server, "/table/full/t?column=s&column=x")).equals(wanted)
    assert (await read(server, "/table/partition/t?partition=0&field=s&field=x")).equals(wanted)
    assert (await read(server, "/table/full/t", "POST", json=["s", "x"])).equals(wanted)
    assert (await read(server, "/table/partition/t?partition=0", "POST", content=b"null")).equals(TABLE)


async def test_a_partition_is_a_tag(server: Any) -> None:
    await server.table("t", TABLE)
    await server.ok("PATCH", "/table/partition/t?partition=7", content=arrow_file(TABLE.slice(2)))
    assert (await read(server, "/table/partition/t?partition=7")).equals(TABLE.slice(2))
    assert (await read(server, "/table/partition/t?partition=3")).num_rows == 0
    assert (await read(server, "/table/full/t")).num_rows == 4


async def test_export(server: Any) -> None:
    await server.table("t", TABLE)
    assert await server.ok("GET", "/table/full/t?format=json") == {
        "x": [1, 2, 3],
        "y": [0.5, None, 1.5],
        "s": ["a", "b", None],
    }
    response = await server.client.get("/api/v1/table/full/t?format=csv&filename=t.csv")
    assert response.text.splitlines()[0].replace('"', "") == "x,y,s"
    assert response.headers["content-disposition"] == 'attachment; filename="t.csv"'
    response = await server.client.get("/api/v1/table/full/t?format=parquet")
    assert pyarrow.parquet.read_table(io.BytesIO(response.content)).equals(TABLE)
    lines = (await server.client.get("/api/v1/table/full/t?format=jsonl&column=x")).text.split("\n")
    assert lines[:-1] == ['\x1e{"x":1}', '\x1e{"x":2}', '\x1e{"x":3}']
    assert (await server.refused("GET", "/table/full/t?format=docx"))[0] == 406


SENSELESS: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "partition/t", {}, 422),
    ("GET", "partition/t?partition=-1", {}, 422),
    ("GET", "partition/t?partition=x", {}, 422),
    ("GET", "full/t?column=x&field=x", {}, 400),
    ("GET", "full/t?column=z", {}, 422),
    ("GET", "full/missing", {}, 404),
    ("GET", "full/c", {}, 404),
    ("POST", "full/t", {"content": b"{"}, 422),
    ("POST", "full/t", {"json": []}, 422),
    ("POST", "full/t", {"json": {"x": 1}}, 422),
    ("POST", "full/t", {"json": [1]}, 422),
    ("PUT", "full/t", {"content": b""}, 422),
    ("PUT", "full/t", {"content": b"ARROW1" + bytes(100)}, 422),
    ("PUT", "full/t", {"json": {}}, 415),
    ("PATCH", "partition/t?partition=0", {"content": b"nonsense"}, 422),
    ("PATCH", "partition/t?partition=0", {"content": arrow_file(TABLE.select(["x"]))}, 422),
    ("PATCH", "partition/t", {"content": arrow_file(TABLE)}, 422),
    ("PATCH", "partition/t/x?partition=0", {"content": arrow_file(TABLE)}, 405),
    ("PATCH", "partition/c?partition=0", {"content": arrow_file(TABLE)}, 404),
]


async def test_what_makes_no_sense_is_refused(server: Any) -> None:
    await server.table("t", TABLE)
    await server.create("c")
    for method, path, body, status in SENSELESS:
        response = await server.client.request(method, f"/api/v1/table/{path}", headers={"Accept": ARROW}, **body)
        assert response.status_code == status, (method, path, response.text)
        assert response.json()["detail"]


async def test_too_much_is_refused(serve: Any) -> None:
    async with serve(response_bytesize_limit=1000) as server:
        await server.table("t", pyarrow.table({"x": list(range(1000))}))
        status, detail = await server.refused("GET", "/table/full/t")
        assert status == 400
        assert "column" in detail


async def test_rows_that_the_client_has_are_not_sent_again(server: Any) -> None:
    await server.table("t", TABLE)
    tag = (await server.client.get("/api/v1/table/full/t")).headers["etag"]
    again = await server.client.get("/api/v1/table/full/t", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    other = await server.client.get("/api/v1/table/full/t?column=x", headers={"If-None-Match": tag})
    assert other.status_code == 200


async def test_a_large_answer_does_not_hold_up_the_others(server: Any) -> None:
    """It is encoded in a thread."""
    module = importlib.import_module("tiled_stream.http.tables")
    import threading

    seen: list[str] = []

    def encode(table: pyarrow.Table, media_type: str) -> bytes:
        seen.append(threading.current_thread().name)
        return b"x"

    await server.table("t", pyarrow.table({"x": list(range(50_000))}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "encode_table", encode)
        await server.client.get("/api/v1/table/full/t")
        await server.client.get("/api/v1/table/partition/t?partition=9")
    assert seen[0] != threading.main_thread().name
    assert seen[1] == threading.main_thread().name
