"""Arrays over the wire, with numpy as the judge."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

OCTETS = {"Accept": "application/octet-stream"}


async def read(server: Any, path: str, dtype: Any, **headers: str) -> numpy.ndarray:
    response = await server.client.get(f"/api/v1{path}", headers=OCTETS | headers)
    assert response.status_code == 200, response.text
    return numpy.frombuffer(response.content, dtype)


@pytest.mark.parametrize("text", ["", "1", "-1", "1:3", "::-1", ":,2", "0:2:1,1:4:2", "-2:,::-2", "3:1", "0:0", "2,3"])
async def test_slices_are_those_of_numpy(server: Any, text: str) -> None:
    array = numpy.arange(20, dtype=">f4").reshape(5, 4)
    await server.array("a", array, [[3, 2], [2, 2]])
    index = tuple(int(p) if ":" not in p else slice(*(int(x) if x else None for x in p.split(":"))) for p in text.split(",") if p)
    wanted = array[index]
    shape = ",".join(map(str, wanted.shape)) or "scalar"
    got = await read(server, f"/array/full/a?slice={text}&expected_shape={shape}", array.dtype)
    assert got.tolist() == wanted.ravel().tolist()


async def test_blocks(server: Any) -> None:
    array = numpy.arange(20, dtype="i8").reshape(5, 4)
    await server.array("a", array, [[3, 2], [2, 2]])
    assert (await read(server, "/array/block/a?block=1,0", "i8")).tolist() == array[3:, :2].ravel().tolist()
    assert (await read(server, "/array/block/a?block=0,1&slice=1,-1", "i8")).tolist() == [array[1, 3]]
    await server.ok("PUT", "/array/block/a?block=1,1", content=numpy.full((2, 2), 7).tobytes())
    array[3:, 2:] = 7
    assert (await read(server, "/array/full/a", "i8")).tolist() == array.ravel().tolist()
    for query in ("", "?block=", "?block=0", "?block=0,2", "?block=-1,0", "?block=a,b"):
        assert (await server.refused("GET", f"/array/block/a{query}", headers=OCTETS))[0] == 422, query


async def test_a_patch_answers_the_whole_structure(server: Any) -> None:
    array = numpy.arange(6, dtype="f8").reshape(2, 3)
    await server.array("a", array)
    row = numpy.full((1, 3), 9.0)
    structure = await server.ok("PATCH", "/array/full/a?offset=2&shape=1,3&extend=true", content=row.tobytes())
    assert structure["shape"] == [3, 3]
    assert structure["chunks"] == [[2, 1], [3]]
    assert structure == (await server.ok("GET", "/metadata/a"))["data"]["attributes"]["structure"]
    assert (await read(server, "/array/full/a", "f8")).tolist() == numpy.vstack([array, row]).ravel().tolist()


async def test_a_patch_that_does_not_fit(server: Any) -> None:
    await server.array("a", numpy.zeros((2, 3)))
    body = numpy.zeros((1, 3)).tobytes()
    status, detail = await server.refused("PATCH", "/array/full/a?offset=2&shape=1,3", content=body)
    assert status == 409
    assert "Use ?extend=true" in detail
    assert (await server.refused("PATCH", "/array/full/a?offset=2&shape=1,3&extend=true&persist=false", content=body))[0] == 400
    for query in ("shape=1,3", "offset=0", "offset=0&shape=a", "offset=-1&shape=1,3", "offset=0&shape=1,2"):
        assert (await server.refused("PATCH", f"/array/full/a?{query}", content=body))[0] in (409, 422), query


async def test_bodies_that_are_none(server: Any) -> None:
    await server.array("a", numpy.zeros((2, 3)))
    assert (await server.refused("PUT", "/array/full/a", content=b"short"))[0] == 422
    assert (await server.refused("PUT", "/array/full/a", json=[[1]]))[0] == 415
    assert (await server.refused("PUT", "/array/block/a?block=0,0", content=b""))[0] == 422
    assert (await server.refused("PUT", "/array/full/missing", content=b""))[0] == 404
    await server.create("c")
    assert (await server.refused("PUT", "/array/full/c", content=b""))[0] == 404


async def test_what_is_not_kept_is_not_read(server: Any) -> None:
    await server.array("a", numpy.arange(3))
    await server.ok("PUT", "/array/full/a?persist=false", content=numpy.full(3, 9).tobytes())
    assert (await read(server, "/array/full/a", "i8")).tolist() == [0, 1, 2]


async def test_what_was_never_written_reads_as_zeros(server: Any) -> None:
    await server.array("a", numpy.ones((2, 2)), write=False)
    assert (await read(server, "/array/full/a", "f8")).tolist() == [0.0] * 4
    await server.array("empty", numpy.ones((0, 2)))
    assert (await read(server, "/array/full/empty", "f8")).tolist() == []
    await server.array("scalar", numpy.array(4.5))
    assert (await read(server, "/array/full/scalar?expected_shape=scalar", "f8")).tolist() == [4.5]
    assert (await read(server, "/array/block/scalar?block=", "f8")).tolist() == [4.5]


async def test_an_unexpected_shape_is_no_error_of_the_server(server: Any) -> None:
    await server.array("a", numpy.zeros((2, 3)))
    for end in ("full", "block"):
        query = "expected_shape=3,2" + ("&block=0,0" if end == "block" else "")
        status, detail = await server.refused("GET", f"/array/{end}/a?{query}", headers=OCTETS)
        assert status == 422
        assert "(2, 3)" in detail
    for text in ("1,2,3", "5", "a", "1,", "::0", "1:2:3:4"):
        assert (await server.refused("GET", f"/array/full/a?slice={text}", headers=OCTETS))[0] == 422, text


async def test_export(server: Any) -> None:
    await server.array("a", numpy.array([[1.5, numpy.nan], [2.0, 3.0]]))
    assert await server.ok("GET", "/array/full/a?format=json") == [[1.5, None], [2.0, 3.0]]
    response = await server.client.get('/api/v1/array/full/a?format=csv&filename=x".csv')
    assert response.text.splitlines()[1] == "2.0,3.0"
    assert response.headers["content-disposition"] == 'attachment; filename="x.csv"'
    status, detail = await server.refused("GET", "/array/full/a?format=image/x-nothing")
    assert status == 406
    assert "application/octet-stream" in detail


async def test_too_much_is_refused_before_it_is_read(serve: Any) -> None:
    async with serve(response_bytesize_limit=100) as server:
        await server.array("a", numpy.zeros((4, 8)))
        status, detail = await server.refused("GET", "/array/full/a", headers=OCTETS)
        assert status == 400
        assert "slice" in detail
        assert len(await read(server, "/array/full/a?slice=0", "f8")) == 8


async def test_uploads_are_bounded(serve: Any) -> None:
    async with serve(request_bytesize_limit=1000) as server:
        await server.array("a", numpy.zeros(4))
        assert (await server.refused("PUT", "/array/full/a", content=bytes(1001)))[0] == 413

        async def chunks() -> Any:
            for _ in range(11):
                yield bytes(100)

        assert (await server.refused("PUT", "/array/full/a", content=chunks()))[0] == 413


async def test_data_that_the_client_has_are_not_sent_again(server: Any) -> None:
    await server.array("a", numpy.arange(3))
    first = await server.client.get("/api/v1/array/full/a", headers=OCTETS)
    tag = first.headers["etag"]
    assert '"' not in tag
    again = await server.client.get("/api/v1/array/full/a", headers=OCTETS | {"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    await server.ok("PUT", "/array/full/a", content=numpy.zeros(3, "i8").tobytes())
    changed = await server.client.get("/api/v1/array/full/a", headers=OCTETS | {"If-None-Match": tag})
    assert changed.status_code == 200


async def test_a_column_is_read_as_an_array(server: Any) -> None:
    import pyarrow

    await server.table("t", pyarrow.table({"x": [1.0, 2.0, 3.0], "y": [[1, 2], [3, 4], [5, 6]]}))
    assert (await read(server, "/array/full/t/x?slice=1:&expected_shape=2", "f8")).tolist() == [2.0, 3.0]
    assert (await read(server, "/array/full/t/y?expected_shape=3,2", "i8")).tolist() == [1, 2, 3, 4, 5, 6]
    assert (await server.refused("PUT", "/array/full/t/x", content=b""))[0] == 405
    assert (await server.refused("GET", "/array/full/t", headers=OCTETS))[0] == 404
