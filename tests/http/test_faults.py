"""What a client is told when something goes wrong: one table, complete; and nothing that it should not know."""

from __future__ import annotations

import errno
import inspect
import logging
from typing import Any

import numpy
import pyarrow
import pytest

from tests.http.conftest import arrow_file
from tiled_stream.domain import errors
from tiled_stream.http.faults import FAULTS, close_code_of, error_headers, status_of

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.TiledStreamError)]


def made(kind: type[errors.TiledStreamError]) -> errors.TiledStreamError:
    return kind(1) if kind is errors.Truncated else kind("sentence")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_row_of_its_own(kind: type[errors.TiledStreamError]) -> None:
    status, code = FAULTS[kind]
    assert (status_of(made(kind)), close_code_of(made(kind))) == (status, code)


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_at_fault_is_told_so(kind: type[errors.TiledStreamError]) -> None:
    """A client repeats a 5xx ten times, and a 4xx never."""
    assert (FAULTS[kind][0] < 500) == issubclass(kind, errors.Refused)


def test_an_error_that_is_added_later_has_the_row_of_its_parent() -> None:
    class Later(errors.Conflict):
        pass

    assert status_of(Later("x")) == 409


def test_who_may_come_again_is_told_when() -> None:
    assert error_headers(errors.Unavailable("x", retry_after=2.6)) == {"Retry-After": "3"}
    assert error_headers(errors.Unavailable("x", retry_after=0.01)) == {"Retry-After": "1"}


async def test_what_nobody_foresaw_is_logged_and_not_told(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(*_: Any) -> Any:
        raise RuntimeError("the password is swordfish")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.assembly.services.browse, "resolve", broken)
        with caplog.at_level(logging.ERROR):
            response = await server.client.get("/api/v1/metadata/a")
            socket = server.socket("a")
            status, detail, _ = await socket.denied()
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/json"
    request_id = response.headers["x-tiled-request-id"]
    assert request_id in response.json()["detail"]
    assert "swordfish" not in response.text
    assert any(request_id in r.getMessage() and r.exc_info for r in caplog.records)
    assert status == 500
    assert "swordfish" not in detail
    assert any("Stream" in r.getMessage() and r.exc_info for r in caplog.records)


@pytest.mark.parametrize(("number", "word"), [(errno.ENOSPC, "full"), (errno.EROFS, "read-only"), (errno.EIO, "fails")])
async def test_disk_that_refuses_is_told_without_a_traceback(
    server: Any, caplog: pytest.LogCaptureFixture, number: int, word: str
) -> None:
    async def full(*_: Any, **__: Any) -> Any:
        raise OSError(number, "the words of the system", "/data/x")

    await server.table("t", pyarrow.table({"x": [1]}), append=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.assembly.services.writer, "submit", full)
        body = arrow_file(pyarrow.table({"x": [1]}))
        response = await server.client.patch("/api/v1/table/partition/t?partition=0", content=body)
    assert response.status_code == 503  # it may have been done: not to be repeated
    assert word in response.json()["detail"]
    assert "/data" not in response.text
    (line,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert line.exc_info is None
    assert "/data/x" in line.getMessage()


async def test_what_cannot_be_done_now_says_when_to_come_again(server: Any) -> None:
    async def behind(*_: Any, **__: Any) -> Any:
        raise errors.Unavailable("Storage is behind.", retry_after=2)

    await server.array("a", numpy.arange(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.assembly.services.reader, "array", behind)
        response = await server.client.get("/api/v1/array/full/a")
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert response.json() == {"detail": "Storage is behind."}


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (errors.Unavailable("The log is full.", retry_after=3), 429),
        (errors.InDoubt("It may have been written all the same.", retry_after=3), 503),
    ],
)
async def test_an_append_that_did_nothing_is_one_that_stock_clients_repeat(
    server: Any, fault: errors.Unavailable, status: int
) -> None:
    """They repeat an append after 429 alone; everything else that is safe to repeat they repeat after 503."""
    rows = pyarrow.table({"x": [1, 2]})
    await server.table("t", rows)
    log = server.assembly.services.log
    body = {"content": arrow_file(rows), "headers": {"Content-Type": "application/vnd.apache.arrow.file"}}

    async def refused(*_: Any, **__: Any) -> Any:
        raise fault

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(log), "append", refused)
        append = await server.client.patch("/api/v1/table/partition/t?partition=0", **body)
        replace = await server.client.put("/api/v1/table/partition/t?partition=0", **body)
    assert (append.status_code, append.headers["retry-after"], append.json()["detail"]) == (status, "3", str(fault))
    assert (replace.status_code, replace.headers["retry-after"]) == (503, "3")
    assert (await server.client.patch("/api/v1/table/partition/t?partition=0", **body)).status_code == 200


@pytest.mark.parametrize("kind", [errors.DataLost, errors.StorageMissing])
async def test_data_that_are_lost_are_answered_before_the_first_byte(server: Any, kind: type[errors.Unavailable]) -> None:
    """In every form in which data are read; never as zeros, as no rows, or as a part of a body."""
    await server.create("c")
    await server.array("c/a", numpy.ones((2, 3)))
    await server.table("c/t", pyarrow.table({"x": [1, 2]}))
    sentence = "Records 1 to 3 of node c/a are lost; `tiled-stream check` tells more."

    async def lost(*_: Any, **__: Any) -> Any:
        raise kind(sentence)

    reader = server.assembly.services.reader
    table_store = reader._tables.of("application/x-tiled-sql-table")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader._arrays, "read", lost)
        patch.setattr(table_store, "read", lost)
        for path in (
            "/api/v1/array/full/c/a",
            "/api/v1/array/full/c/a?format=text/csv",
            "/api/v1/array/full/c/a?slice=0:1,0:1",
            "/api/v1/array/block/c/a?block=0,0",
            "/api/v1/array/full/c/t/x",
            "/api/v1/table/full/c/t?format=text/csv",
            "/api/v1/table/partition/c/t?partition=0",
            "/api/v1/container/full/c?format=application/x-hdf5",
            "/zarr/v2/c/a/0.0",
            "/zarr/v3/c/a/c/0/0",
        ):
            response = await server.client.get(path)
            assert response.status_code == 503, (path, response.status_code, response.text[:200])
            assert response.json() == {"detail": sentence}, path
            assert "retry-after" in response.headers, path
