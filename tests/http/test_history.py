"""One cursor from the first record to the live edge: what the log has let go of is told from storage, and nothing twice."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import numpy
import pyarrow
import pytest

from tests.http.conftest import arrow_file, serving
from tests.http.test_stream_many import Many
from tiled_stream.log.port import Retention

SCHEMA = pyarrow.schema([("n", pyarrow.int64()), ("x", pyarrow.float64())])


def rows(first: int, count: int) -> pyarrow.Table:
    numbers = list(range(first, first + count))
    return pyarrow.table({"n": numbers, "x": [float(n) for n in numbers]}, schema=SCHEMA)


def numbers(message: dict[str, Any]) -> list[int]:
    return pyarrow.ipc.open_file(pyarrow.BufferReader(message["payload"])).read_all()["n"].to_pylist()


async def trim(server: Any, *, keep: int = 0) -> None:
    """Let go of all persisted records but those of about so many bytes a node."""
    await server.assembly.services.reader._barrier.settle_all()
    await server.assembly._log.trim(Retention(node_bytes=keep, total_bytes=1 << 30, seconds=1e9), now=0.0)


async def append(server: Any, path: str, table: pyarrow.Table, partition: int = 0) -> None:
    await server.ok("PATCH", f"/table/partition/{path}?partition={partition}", content=arrow_file(table))


async def updates(socket: Any, last: int) -> list[dict[str, Any]]:
    """Messages after the schema, up to the one with this sequence."""
    found: list[dict[str, Any]] = []
    while not found or (found[-1].get("sequence") or found[-1].get("last", 0)) < last:
        found.append(await socket.update())
    return found


def covered(messages: list[dict[str, Any]], after: int) -> int:
    """Where the messages lead, without a hole and without a double."""
    for message in messages:
        if message["type"] == "gap":
            first, last = message["first"], message["last"]
        else:
            first, last = message.get("covers", (message["sequence"], message["sequence"]))
            assert last == message["sequence"]
        assert first == after + 1, (first, after)
        after = last
    return after


async def test_rows_from_the_first_to_the_live_edge(server: Any) -> None:
    await server.table("t", rows(0, 3))
    for n in range(1, 10):
        await append(server, "t", rows(3 * n, 3))
    await trim(server)
    await append(server, "t", rows(30, 2))
    socket = await server.socket("t?start=0&envelope_format=msgpack").accepted()
    assert (await socket.update())["type"] == "table-schema"
    await append(server, "t", rows(32, 1))
    got = await updates(socket, 12)
    assert covered(got, 0) == 12
    assert [n for message in got for n in numbers(message)] == list(range(33))
    assert (got[0]["append"], got[0]["covers"]) == (True, [1, 10])


@pytest.mark.parametrize("start", [1, 4, 10, 11])
async def test_any_start_is_exact(server: Any, start: int) -> None:
    await server.table("t", rows(0, 3))
    for n in range(1, 10):
        await append(server, "t", rows(3 * n, 3))
    await trim(server)
    await append(server, "t", rows(30, 3))
    socket = await server.socket(f"t?start={start}&envelope_format=msgpack").accepted()
    await socket.update()
    got = await updates(socket, 11)
    assert covered(got, start - 1) == 11
    assert [n for message in got for n in numbers(message)] == list(range(3 * (start - 1), 33))


async def test_rows_that_were_replaced_are_a_gap(server: Any) -> None:
    await server.table("t", rows(0, 3))
    await append(server, "t", rows(3, 3))
    await server.ok("PUT", "/table/full/t", content=arrow_file(rows(100, 2)))
    await append(server, "t", rows(102, 1))
    await trim(server)
    socket = await server.socket("t?start=0&envelope_format=msgpack").accepted()
    await socket.update()
    got = await updates(socket, 4)
    assert covered(got, 0) == 4
    assert (got[0]["type"], got[0]["first"], got[0]["last"]) == ("gap", 1, 2)
    assert [n for message in got[1:] for n in numbers(message)] == [100, 101, 102]


async def ended_and_trimmed(server: Any) -> None:
    await server.table("t", rows(0, 3))
    await server.ok("DELETE", "/stream/close/t")
    await trim(server)


@pytest.mark.parametrize("start", [0, 1, 2])
async def test_an_end_that_has_left_the_log_is_told(server: Any, start: int) -> None:
    await ended_and_trimmed(server)
    socket = await server.socket(f"t?envelope_format=msgpack&start={start}").accepted()
    assert (await socket.update())["type"] == "table-schema"
    if start < 2:
        assert (await socket.update())["sequence"] == 1
    assert (await socket.closed())[0] == 1000


@pytest.mark.parametrize("view", [{}, {"max_hz": 50}, {"max_hz": 50, "thin": "minmax"}])
async def test_an_end_that_has_left_the_log_is_told_on_one_socket_for_many(server: Any, view: dict[str, Any]) -> None:
    await ended_and_trimmed(server)
    many = Many(await server.socket_at("/many?envelope_format=msgpack").accepted())
    many.say(type="subscribe", id=1, path="t", start=0, **view)
    await many.until("ended", 1)
    if view.get("max_hz") is None:
        assert many.sequences(1) == [1]
        assert "gap" not in many.kinds(1)


async def test_what_was_written_after_an_end_is_told_too(server: Any) -> None:
    await ended_and_trimmed(server)
    await append(server, "t", rows(3, 1))
    many = Many(await server.socket_at("/many?envelope_format=msgpack").accepted())
    many.say(type="subscribe", id=1, path="t", start=0)
    await many.until("ended", 1)
    assert many.sequences(1) == [1, 3]
    assert "gap" not in many.kinds(1)


async def test_cells_of_an_array_that_grew(server: Any) -> None:
    frames = numpy.arange(40 * 6.0).reshape(40, 2, 3)
    await server.array("a", frames[:1], chunks=[[1], [2], [3]])
    for n in range(1, 30):
        await server.ok("PATCH", f"/array/full/a?offset={n}&shape=1,2,3&extend=true", content=frames[n].tobytes())
    await trim(server)
    for n in range(30, 40):
        await server.ok("PATCH", f"/array/full/a?offset={n}&shape=1,2,3&extend=true", content=frames[n].tobytes())
    socket = await server.socket("a?start=0&envelope_format=msgpack").accepted()
    await socket.update()
    got = await updates(socket, 40)
    assert covered(got, 0) == 40
    seen = numpy.zeros_like(frames)
    for message in got:
        begin, count = message["offset"][0], message["shape"][0]
        assert not seen[begin : begin + count].any()
        seen[begin : begin + count] = numpy.frombuffer(message["payload"]).reshape(message["shape"])
    assert numpy.array_equal(seen, frames)


async def test_an_array_that_was_overwritten_or_never_kept_is_a_gap(server: Any) -> None:
    await server.array("a", numpy.zeros(3))
    for n in range(5):
        await server.ok("PUT", "/array/full/a", content=numpy.full(3, float(n)).tobytes())
    await server.array("b", numpy.zeros((4, 3)), chunks=[[1] * 4, [3]], write=False)
    await server.ok("PUT", "/array/block/b?block=0,0&persist=false", content=numpy.ones(3).tobytes())
    await trim(server)
    for key, last in (("a", 6), ("b", 1)):
        socket = await server.socket(f"{key}?start=0").accepted()
        await socket.update()
        assert await socket.update() == {"type": "gap", "first": 1, "last": last, "reason": "truncated"}


async def test_children_that_are_there(server: Any) -> None:
    await server.create("run")
    for key in "abc":
        await server.create(f"run/{key}", metadata={"of": key})
    await server.ok("DELETE", "/metadata/run/b")
    patch = [{"op": "add", "path": "/more", "value": 1}]
    body = {"metadata": patch, "specs": [], "content-type": "application/json-patch+json"}
    await server.ok("PATCH", "/metadata/run/a", json=body)
    await trim(server)
    await server.create("run/d")
    socket = await server.socket("run?start=0").accepted()
    await socket.update()
    got = await updates(socket, 6)
    assert [m["key"] for m in got] == ["a", "c", "d"]
    assert covered(got, 0) == got[-1]["sequence"]
    again = await server.socket("run?start=3").accepted()
    await again.update()
    kinds = [(m["type"], m.get("key")) for m in await updates(again, got[-1]["sequence"])]
    assert kinds[0] == ("container-child-created", "c")
    assert kinds[1][0] == "gap"
    assert kinds[-1] == ("container-child-created", "d")


async def test_a_subtree_whose_log_is_gone(server: Any) -> None:
    await server.create("run")
    for key in "ab":
        await server.table(f"run/{key}", rows(0, 3))
        await append(server, f"run/{key}", rows(3, 3))
    await trim(server)
    many = Many(await server.socket_at("/many?envelope_format=msgpack").accepted())
    many.say(type="subscribe", id=1, path="run", subtree=True, start=0, columns=["n"])
    for node in (0, 1, 2):
        while "live" not in many.kinds(1, node):
            await many.next()
    assert many.kinds(1).count("container-child-created") == 2
    for node in (1, 2):
        got = [m for m in many.got[1, node] if m["type"] == "table-data"]
        assert [n for m in got for n in numbers(m)] == list(range(6))
        assert covered(got, 0) == 2
    await server.table("run/c", rows(0, 1))
    assert (await many.first("table-data", 1, 3))["sequence"] == 1


async def test_the_extremes_of_what_has_left_the_log(server: Any) -> None:
    await server.table("t", rows(0, 50))
    for n in range(1, 20):
        await append(server, "t", rows(50 * n, 50))
    await trim(server)
    many = Many(await server.socket_at("/many?envelope_format=msgpack").accepted())
    many.say(type="subscribe", id=1, path="t", start=0, max_hz=5, thin="minmax")
    await many.until("live", 1)
    got = [m for m in many.got[1, 0] if m["type"] == "table-data"]
    assert [numbers(m) for m in got] == [[0, 999]]
    assert got[0]["covers"] == [1, 20]


async def test_switched_off_it_is_a_gap_as_ever() -> None:
    async with serving(history=False) as server:
        await server.table("t", rows(0, 3))
        await trim(server)
        socket = await server.socket("t?start=0").accepted()
        await socket.update()
        assert (await socket.update())["type"] == "gap"


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_is_appended_and_trimmed_each_subscriber_gets_it(server: Any, seed: int) -> None:
    """Also while it is being told; with connections that are lost and come back with their cursor."""
    random = Random(seed)
    await server.table("t", rows(0, 1), append=False)
    written = 0

    async def write() -> None:
        nonlocal written
        for _ in range(60):
            count = random.choice((1, 1, 5, 400))
            await append(server, "t", rows(written, count), partition=0)
            written += count
            if random.random() < 0.3:
                await trim(server, keep=random.choice((0, 20_000)))
            if random.random() < 0.3:
                await asyncio.sleep(0)

    async def read(is_many: bool) -> list[int]:
        got: list[int] = []
        after = 0
        while after < 60:
            await asyncio.sleep(random.random() * 0.05)
            if is_many:
                many = Many(await server.socket_at("/many?envelope_format=msgpack").accepted())
                many.say(type="subscribe", id=1, path="t", start=after + 1)
                socket = many.socket
            else:
                socket = await server.socket(f"t?start={after + 1}&envelope_format=msgpack").accepted()
            for _ in range(random.randrange(1, 12)):
                message = await socket.update()
                if is_many:
                    message = message[2]
                if message["type"] == "table-data":
                    assert message.get("covers", [message["sequence"]])[0] == after + 1
                    got += numbers(message)
                    after = message["sequence"]
                    if after == 60:
                        break
                assert message["type"] != "gap"
            socket.leave()
        return got

    *found, _ = await asyncio.gather(read(False), read(True), read(True), write())
    assert all(numbers == list(range(written)) for numbers in found)
