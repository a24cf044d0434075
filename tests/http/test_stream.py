"""Streams as a subscriber sees them, against the application itself."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import numpy
import pyarrow
import pytest
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.streams import StreamReader

from tiled_stream.http.socket import FRAMES, framed
from tiled_stream.log.port import Retention

ROW = numpy.arange(3.0).tobytes()


@pytest.fixture
async def written(server: Any) -> Any:
    """An array that was written to three times: the records 1, 2, 3."""
    await server.array("a", numpy.zeros(3), write=False)
    for _ in range(3):
        await server.ok("PUT", "/array/full/a", content=ROW)
    return server


async def sequences(socket: Any, count: int) -> list[int]:
    assert (await socket.update())["type"] == "array-schema"
    return [(await socket.update())["sequence"] for _ in range(count)]


@pytest.mark.parametrize(
    ("start", "wanted"),
    [("?start=0", [1, 2, 3, 4]), ("?start=1", [1, 2, 3, 4]), ("?start=-5", [1, 2, 3, 4]), ("?start=3", [3, 4])],
)
async def test_replay_then_live(written: Any, start: str, wanted: list[int]) -> None:
    socket = await written.socket(f"a{start}").accepted()
    await written.ok("PUT", "/array/full/a", content=ROW)
    assert await sequences(socket, len(wanted)) == wanted


async def test_a_start_that_is_far_away_waits(written: Any) -> None:
    socket = await written.socket(f"a?start={1 << 70}").accepted()
    await written.ok("PUT", "/array/full/a", content=ROW)
    assert (await socket.update())["type"] == "array-schema"
    await asyncio.sleep(0.05)
    assert socket._from_app.empty()


@pytest.mark.parametrize(("start", "wanted"), [("", [4, 5, 6]), ("?start=6", [6])])
async def test_only_what_comes(written: Any, start: str, wanted: list[int]) -> None:
    socket = await written.socket(f"a{start}").accepted()
    for _ in range(3):
        await written.ok("PUT", "/array/full/a", content=ROW)
    assert await sequences(socket, len(wanted)) == wanted


async def test_nothing_is_missed_once_the_handshake_is_answered(written: Any) -> None:
    """A client that is told "accepted" may write at once and must see it, also without `start`."""
    socket = written.socket("a")
    socket.block()
    await socket.spoken_to.wait()
    await written.ok("PUT", "/array/full/a", content=ROW)
    socket._may_send.set()
    assert await sequences(await socket.accepted(), 1) == [4]


async def test_an_array_in_both_envelopes(written: Any) -> None:
    await written.ok("PATCH", "/array/full/a?offset=3&shape=1&extend=true", content=numpy.array([7.0]).tobytes())
    plain = await written.socket("a?start=4").accepted()
    packed = await written.socket("a?start=4&envelope_format=msgpack").accepted()
    for socket in (plain, packed):
        schema = await socket.update()
        assert schema["type"] == "array-schema"
        assert schema["version"] == 1
        assert schema["data_type"]["kind"] == "f"
    said, meant = await plain.update(), await packed.update()
    assert (said["type"], said["sequence"], said["shape"], said["offset"], said["block"]) == ("array-data", 4, [1], [3], None)
    assert (said["payload"], said["content-type"]) == ([7.0], "application/json")
    assert meant["payload"] == numpy.array([7.0]).tobytes()
    assert isinstance(meant["timestamp"], str)
    assert not {"data_type", "subscription"} & meant.keys()


async def test_a_table(server: Any) -> None:
    await server.table("t", pyarrow.table({"x": [1, 2], "y": ["a", "b"]}))
    plain = await server.socket("t?start=0").accepted()
    assert (await plain.update())["type"] == "table-schema"
    update = await plain.update()
    assert (update["append"], update["partition"]) == (True, 0)
    assert update["payload"] == {"x": [1, 2], "y": ["a", "b"]}
    packed = await server.socket("t?start=0&envelope_format=msgpack").accepted()
    await packed.update()
    assert pyarrow.ipc.open_file((await packed.update())["payload"]).read_all().to_pydict() == update["payload"]


async def test_a_container_and_empty_segments(server: Any) -> None:
    await server.create("c")
    socket = await server.socket("//c//?start=0").accepted()
    epoch = server.assembly.hub._log.epoch
    assert await socket.update() == {"type": "container-schema", "version": 1, "epoch": epoch}
    await server.create("c/d", metadata={"m": 1}, specs=[{"name": "S", "version": "1"}])
    await server.ok("PUT", "/metadata/c/d", json={"metadata": {"m": 2}})
    created, updated = await socket.update(), await socket.update()
    assert (created["type"], created["key"], created["metadata"]) == ("container-child-created", "d", {"m": 1})
    assert created["specs"] == [{"name": "S", "version": "1"}]
    assert (updated["type"], updated["metadata"]) == ("container-child-metadata-updated", {"m": 2})
    assert updated["revision_number"] == 1
    assert (updated["sequence"] - created["sequence"]) == 1


async def test_the_root_has_a_stream(server: Any) -> None:
    socket = await server.socket("").accepted()
    assert (await socket.update())["type"] == "container-schema"
    await server.create("c")
    assert (await socket.update())["key"] == "c"


async def test_the_links_of_updates_are_those_of_the_subscriber(server: Any) -> None:
    structure = {
        "data_type": {"endianness": "little", "kind": "u", "itemsize": 2, "dt_units": None},
        "chunks": [[0], [3]],
        "shape": [0, 3],
        "dims": None,
        "resizable": False,
    }
    source = {"structure_family": "array", "structure": structure, "mimetype": "application/x-hdf5", "management": "external"}
    reply = await server.create("x", "array", data_sources=[source])
    socket = await server.socket("x").accepted()
    await socket.update()
    grown = source | {"id": reply["data_sources"][0]["id"], "structure": structure | {"shape": [2, 3], "chunks": [[2], [3]]}}
    await server.ok("PUT", "/data_source/x?patch_shape=2,3&patch_offset=0,0", json={"data_source": grown})
    update = await socket.update()
    assert update["uri"] == "http://server/api/v1/array/full/x?slice=0:2,0:3"
    assert update["patch"] == {"offset": [0, 0], "shape": [2, 3]}


# ------------------------------------------------------------------ who may subscribe


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"Authorization": "Apikey wrong"}, "", 401),
        ({"Authorization": "Basic x"}, "", 400),
        ({}, "?access_token=x", 401),
        ({"Authorization": "Apikey secret"}, "?envelope_format=xml", 422),
        ({"Authorization": "Apikey secret"}, "?start=x", 422),
    ],
)
async def test_handshakes_that_are_refused(written: Any, headers: dict[str, str], query: str, status: int) -> None:
    got, detail, fields = await written.socket(f"a{query}", headers).denied()
    assert got == status
    assert detail
    assert fields[b"content-type"] == b"application/json"
    assert len(fields[b"x-tiled-request-id"]) == 16


async def test_nodes_without_a_stream(server: Any) -> None:
    await server.table("t", pyarrow.table({"x": [1]}))
    for path in ("missing", "t/x", "t/y"):
        assert (await server.socket(path).denied())[0] == 404
    elsewhere = server.socket("a")
    elsewhere.scope["path"] = "/api/v1/metadata/a"
    assert (await elsewhere.denied())[0] == 404


async def test_a_server_without_the_extension_is_told_by_a_close(server: Any) -> None:
    socket = server.socket("missing")
    socket.scope["extensions"] = {}
    assert (await socket.message()) == {"type": "websocket.close", "code": 4404, "reason": ""}


@pytest.mark.parametrize("scheme", ["Apikey", "apikey", "APIKEY"])
async def test_the_header(written: Any, scheme: str) -> None:
    assert await sequences(await written.socket("a?start=3", {"Authorization": f"{scheme} secret"}).accepted(), 1) == [3]


@pytest.mark.parametrize("headers", [{}, {"Cookie": "tiled_api_key=secret"}])
async def test_the_first_message_may_bring_the_key(written: Any, headers: dict[str, str]) -> None:
    """Neither `?api_key=` nor a cookie counts here: a page of another origin could make a browser send them."""
    socket = await written.socket("a?start=3&api_key=secret", headers).accepted()
    await asyncio.sleep(0.05)
    assert socket._from_app.empty()
    socket.say(text='{"type": "auth", "api_key": "secret"}')
    assert await sequences(socket, 1) == [3]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"text": "hello"}, 4001),
        ({"text": "[]"}, 4001),
        ({"text": '{"type": "hello"}'}, 4001),
        ({"bytes": b'{"type": "auth"}'}, 4001),
        ({"text": '{"type": "auth"}'}, 4003),
        ({"text": '{"type": "auth", "api_key": 1}'}, 4003),
        ({"text": '{"type": "auth", "api_key": "wrong"}'}, 4003),
        ({"text": '{"type": "auth", "access_token": "x"}'}, 4003),
    ],
)
async def test_first_messages_that_are_refused(written: Any, message: dict[str, Any], code: int) -> None:
    socket = await written.socket("a", {}).accepted()
    socket.say(**message)
    assert (await socket.closed())[0] == code


async def test_who_says_nothing_is_not_waited_for(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiled_stream.http.socket._AUTH_SECONDS", 0.05)
    socket = await written.socket("a", {}).accepted()
    assert (await socket.closed())[0] == 4001


async def test_only_who_has_shown_a_key_learns_what_there_is(written: Any) -> None:
    for path in ("a", "missing"):
        socket = await written.socket(path, {}).accepted()
        socket.leave()
        await socket.finished()
    socket = await written.socket("missing", {}).accepted()
    socket.say(text='{"type": "auth", "api_key": "secret"}')
    assert (await socket.closed())[0] == 4404


async def test_a_public_server_needs_no_key(serve: Any) -> None:
    async with serve(public=True) as server:
        await server.array("a", numpy.zeros(3))
        assert await sequences(await server.socket("a?start=0", {}).accepted(), 1) == [1]
        assert (await server.socket("a", {"Authorization": "Apikey wrong"}).denied())[0] == 401


# ------------------------------------------------------------------ how it ends


async def test_the_producer_ends_it(written: Any) -> None:
    live, late = written.socket("a?start=0"), None
    await live.accepted()
    assert await written.ok("DELETE", "/stream/close/a") is None
    assert await sequences(live, 3) == [1, 2, 3]
    assert await live.closed() == (1000, "Producer ended stream")
    late = await written.socket("a?start=2").accepted()
    assert await sequences(late, 2) == [2, 3]
    assert await late.closed() == (1000, "Producer ended stream")
    assert (await written.refused("DELETE", "/stream/close/missing"))[0] == 404


async def test_a_deleted_node_ends_it(written: Any) -> None:
    socket = await written.socket("a").accepted()
    await socket.update()
    await written.ok("DELETE", "/metadata/a?external_only=false")
    assert await socket.closed() == (1000, "Node deleted")


async def test_a_server_that_stops_says_so_and_takes_nobody_on(written: Any) -> None:
    sockets = [await written.socket("a").accepted() for _ in range(3)]
    for socket in sockets:
        await socket.update()
    drain = asyncio.create_task(written.assembly.drain())
    for socket in sockets:
        assert (await socket.closed())[0] == 1012
    await drain
    status, _, fields = await written.socket("a").denied()
    assert (status, fields[b"retry-after"]) == (503, b"1")


async def test_who_leaves_is_forgotten(written: Any) -> None:
    sockets = [await written.socket("a?start=0").accepted() for _ in range(5)]
    assert written.assembly.hub.subscribers() == 5
    for socket in sockets:
        socket.say(text="whatever a client says")
        socket.leave()
        await socket.finished()
    assert written.assembly.hub.subscribers() == 0
    assert not [t for t in asyncio.all_tasks() if "stream/single" in t.get_name()]


async def test_the_socket_stays_open_until_the_client_has_answered(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torn at once, a client would lose what it has received but not read."""
    monkeypatch.setattr("tiled_stream.http.socket._FAREWELL_SECONDS", 0.3)
    socket = await written.socket("a").accepted()
    await written.ok("DELETE", "/stream/close/a")
    await socket.update()
    assert (await socket.message())["code"] == 1000
    await asyncio.sleep(0.1)
    assert not socket.task.done()
    assert written.assembly.hub.subscribers() == 0
    await socket.finished()  # but not for ever


async def test_who_does_not_read_is_let_go_and_costs_the_others_nothing(serve: Any) -> None:
    async with serve(send_timeout_seconds=0.3) as server:
        await server.array("a", numpy.zeros(3), write=False)
        mute, other = await server.socket("a").accepted(), await server.socket("a").accepted()
        await mute.update()
        mute.block()
        begin = time.monotonic()
        for _ in range(5):
            await server.ok("PUT", "/array/full/a", content=ROW)
        assert await sequences(other, 5) == [1, 2, 3, 4, 5]
        assert time.monotonic() - begin < 0.3
        await mute.finished()
        assert 0.3 <= time.monotonic() - begin < 3
        assert server.assembly.hub.subscribers() == 1
        mute._may_send.set()


async def test_who_has_nothing_to_read_is_not_let_go(serve: Any) -> None:
    async with serve(send_timeout_seconds=0.1) as server:
        await server.array("a", numpy.zeros(3), write=False)
        socket = await server.socket("a").accepted()
        await socket.update()
        await asyncio.sleep(0.4)
        await server.ok("PUT", "/array/full/a", content=ROW)
        assert (await socket.update())["sequence"] == 1


async def test_what_is_gone_is_told_never_skipped(written: Any) -> None:
    log = written.assembly._log
    await written.client.get("/api/v1/array/full/a")  # a reader waits until all is persisted
    await log.trim(Retention(node_bytes=0, total_bytes=0, seconds=0), now=time.time() + 10)
    await written.ok("PUT", "/array/full/a", content=ROW)
    for query in ("start=1", "start=1&envelope_format=msgpack"):
        socket = await written.socket(f"a?{query}").accepted()
        await socket.update()
        gap = await socket.update()
        assert (gap["type"], gap["first"], gap["last"], gap["reason"]) == ("gap", 1, 3, "truncated")
        assert (await socket.update())["sequence"] == 4


# ------------------------------------------------------------------ ready frames


async def frames_of(data: bytes) -> list[WebSocketFrame]:
    """All frames of what a server wrote, by the judgement of another implementation."""
    reader = StreamReader()
    reader.feed_data(data)
    found = []
    while reader.buffer:
        parser = WebSocketFrame.parse(reader.read_exact, mask=False)
        while True:
            try:
                next(parser)
            except StopIteration as done:
                found.append(done.value)
                break
    return found


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 70000])
async def test_frames_are_what_the_protocol_says(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (frame,) = await frames_of(framed(0x82, data))
    assert (frame.opcode, frame.fin, bytes(frame.data)) == (Opcode.BINARY, True, data)


@pytest.mark.parametrize(("envelope", "opcode"), [("msgpack", Opcode.BINARY), ("json", Opcode.TEXT)])
async def test_a_server_that_takes_frames_gets_a_batch_at_once(written: Any, envelope: str, opcode: Opcode) -> None:
    socket = await written.socket(f"a?start=0&envelope_format={envelope}", **{FRAMES: {}}).accepted()
    await socket.update()
    batch = await frames_of((await socket.message())["frames"])
    assert [f.opcode for f in batch] == [opcode] * 3
    await written.ok("DELETE", "/stream/close/a")
    assert (await socket.closed())[0] == 1000


async def test_a_request_without_a_socket_is_told_what_this_is(nobody: httpx.AsyncClient) -> None:
    response = await nobody.get("/api/v1/stream/single/a")
    assert response.status_code == 404
    assert "WebSocket" in response.json()["detail"]


async def test_epoch_in_the_schema_resumes_and_another_one_is_announced(written: Any) -> None:
    first = await written.socket("a?start=0").accepted()
    epoch = (await first.update())["epoch"]
    same = await written.socket(f"a?start=3&epoch={epoch}").accepted()
    assert await sequences(same, 1) == [3]
    stale = await written.socket("a?start=3&epoch=another").accepted()
    assert (await stale.update())["epoch"] == epoch
    notice = {"type": "gap", "first": 3, "last": 2, "reason": "epoch", "epoch": epoch, "head": 3}
    assert await stale.update() == notice
    assert (await stale.update())["sequence"] == 3
    live = await written.socket("a?epoch=another").accepted()  # without a cursor it says nothing
    await written.ok("PUT", "/array/full/a", content=ROW)
    assert await sequences(live, 1) == [4]
