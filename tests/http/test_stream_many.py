"""Many nodes on one socket, as a client of it sees them, against the application itself."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy
import orjson
import pyarrow
import pytest

from tests.verbs.logs import Away
from tiled_stream.broadcast import outages as outages_module
from tiled_stream.domain.events import ArrayWritten, Draft, RecordLost, StreamEnded

ROW = numpy.arange(3.0).tobytes()


class Many:
    """A client of one socket with many nodes: what each (subscription, node) got, in order."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.got: dict[tuple[int, int], list[dict[str, Any]]] = {}

    def say(self, **message: Any) -> None:
        self.socket.say(text=orjson.dumps(message).decode())

    async def next(self) -> tuple[int, int, dict[str, Any]]:
        subscription, node, message = await self.socket.update()
        self.got.setdefault((subscription, node), []).append(message)
        return subscription, node, message

    async def until(self, kind: str, subscription: int | None = None, node: int | None = None) -> dict[str, Any]:
        """Read on until such a message comes."""
        while True:
            s, n, message = await self.next()
            if message["type"] == kind and subscription in (None, s) and node in (None, n):
                return message

    async def first(self, kind: str, subscription: int, node: int = 0) -> dict[str, Any]:
        """The first such message, whether it has come already or not."""
        while True:
            for message in self.got.get((subscription, node), []):
                if message["type"] == kind:
                    return message
            await self.next()

    def kinds(self, subscription: int, node: int = 0) -> list[str]:
        return [message["type"] for message in self.got.get((subscription, node), [])]

    def sequences(self, subscription: int, node: int = 0) -> list[int]:
        return [m["sequence"] for m in self.got.get((subscription, node), []) if "sequence" in m]

    def number(self, subscription: int, path: str) -> int:
        """The number under which a node of a subtree comes."""
        found = [
            n
            for (s, n), messages in self.got.items()
            for m in messages
            if s == subscription and m["type"] == "node" and "/".join(m["path"]) == path
        ]
        assert len(found) == 1, (path, found)
        return found[0]


async def connect(server: Any, query: str = "", **extensions: Any) -> Many:
    return Many(await server.socket_at(f"/many{query}", **extensions).accepted())


@pytest.fixture
async def arrays(server: Any) -> Any:
    """Two arrays, written three times each: the records 1, 2, 3."""
    for key in ("a", "b"):
        await server.array(key, numpy.zeros(3), write=False)
        for _ in range(3):
            await server.ok("PUT", f"/array/full/{key}", content=ROW)
    return server


@pytest.mark.parametrize("query", ["", "?envelope_format=msgpack"])
async def test_replay_then_live_of_several_nodes(arrays: Any, query: str) -> None:
    many = await connect(arrays, query)
    many.say(type="subscribe", id=1, path=["a"], start=0)
    many.say(type="subscribe", id=7, path="/b", start=3)
    await many.until("live", 1)
    await many.until("live", 7)
    await arrays.ok("PUT", "/array/full/b", content=ROW)
    await many.until("array-data", 7)
    assert many.kinds(1) == ["subscribed", "array-schema", *["array-data"] * 3, "live"]
    assert many.kinds(7) == ["subscribed", "array-schema", "array-data", "live", "array-data"]
    assert (many.sequences(1), many.sequences(7)) == ([1, 2, 3], [3, 4])
    begun = many.got[7, 0][0]
    epoch = arrays.assembly._log.epoch
    assert begun == {"type": "subscribed", "path": ["b"], "structure_family": "array", "epoch": epoch, "head": 3, "from": 3}


async def test_a_subtree_existing_nodes_first_then_those_that_are_created(server: Any) -> None:
    await server.create("run")
    await server.create("run/deep")
    await server.array("run/deep/a", numpy.zeros(3))
    many = await connect(server)
    many.say(type="subscribe", id=1, path="run", subtree=True, start=0)
    await many.until("array-data", 1)
    await server.array("run/deep/late", numpy.zeros(3))
    await server.create("run/other")
    await server.array("run/other/b", numpy.zeros(3))
    for _ in range(2):
        await many.until("array-data", 1)
    deep, late, b = (many.number(1, f"run/{path}") for path in ("deep", "deep/late", "other/b"))
    assert many.kinds(1)[:3] == ["subscribed", "container-schema", "container-child-created"]
    assert many.kinds(1, deep)[:2] == ["node", "container-schema"]
    assert many.kinds(1, late)[:2] == ["node", "array-schema"]
    assert many.sequences(1, late) == many.sequences(1, b) == [1]
    assert many.got[1, late][0]["structure"]["shape"] == [3]


async def test_twenty_children_at_full_speed_and_every_first_event(server: Any) -> None:
    """What comes first in a node is there for who learns of the node by its creation, and without a `start`."""
    await server.create("run")
    many = await connect(server)
    many.say(type="subscribe", id=1, path="run", subtree=True)
    await many.until("live", 1)
    await asyncio.gather(*[server.array(f"run/n{n}", numpy.zeros(3)) for n in range(20)])
    for _ in range(20):
        await many.until("array-data", 1)
    assert [many.sequences(1, node) for node in range(1, 21)] == [[1]] * 20


async def test_a_child_that_is_created_while_its_parent_is_subscribed_to(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the parent was found and before its log is followed: the catalog must tell of it, though it is not persisted yet."""
    async with serve(persist_linger_seconds=60.0) as server:
        await server.create("run")
        await server.client.get("/api/v1/search/run")  # persisted
        hub = server.assembly.services.hub
        subscribe = hub.subscribe

        async def late(*args: Any, **options: Any) -> Any:
            monkeypatch.setattr(hub, "subscribe", subscribe)
            await server.array("run/late", numpy.zeros(3))
            return await subscribe(*args, **options)

        monkeypatch.setattr(hub, "subscribe", late)
        many = await connect(server)
        many.say(type="subscribe", id=1, path="run", subtree=True, start=0)
        async with asyncio.timeout(10):
            await many.until("array-data", 1)
        assert many.sequences(1, many.number(1, "run/late")) == [1]


async def test_a_deletion_ends_the_part_of_a_node(server: Any) -> None:
    await server.create("run")
    await server.array("run/a", numpy.zeros(3))
    many = await connect(server)
    many.say(type="subscribe", id=1, path="run", subtree=True)
    await many.until("live", 1, 1)
    await server.ok("DELETE", "/metadata/run/a?external_only=false")
    await many.until("deleted", 1, 1)
    await server.ok("DELETE", "/metadata/run?recursive=true&external_only=false")
    await many.until("deleted", 1, 0)
    many.say(type="subscribe", id=1, path="")
    await many.until("live", 1)


async def test_the_end_of_the_root_is_told_after_all_below_it(server: Any) -> None:
    await server.create("run")
    await server.array("run/a", numpy.zeros(3))
    many = await connect(server)
    many.socket.block()
    many.say(type="subscribe", id=1, path="run", subtree=True, start=0)
    await server.ok("DELETE", "/stream/close/run")
    for _ in range(3):
        await server.ok("PUT", "/array/full/run/a", content=ROW)
    many.socket._may_send.set()
    await many.until("ended", 1, 0)
    assert many.sequences(1, 1) == [1, 2, 3, 4]


def arrow_file(table: pyarrow.Table) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def rows(message: dict[str, Any]) -> pyarrow.Table:
    return pyarrow.ipc.open_file(pyarrow.BufferReader(message["payload"])).read_all()


TABLE = pyarrow.table({"t": [1.0, 2.0, 3.0], "x": [5.0, float("nan"), 4.0], "name": ["a", "b", "c"]})


async def test_some_columns(server: Any) -> None:
    await server.table("t", TABLE)
    many = await connect(server, "?envelope_format=msgpack")
    many.say(type="subscribe", id=1, path="t", start=0, columns=["x", "t"])
    many.say(type="subscribe", id=2, path="t", start=0)
    schema = await many.first("table-schema", 1)
    assert rows(await many.first("table-data", 1)).schema.names == ["t", "x"]
    assert rows(await many.first("table-data", 2)).schema.names == ["t", "x", "name"]
    text = schema["arrow_schema"].partition(",")[2]
    assert pyarrow.ipc.read_schema(pyarrow.BufferReader(base64.b64decode(text))).names == ["t", "x"]
    many.say(type="subscribe", id=3, path="t", columns=["y"])
    assert (await many.first("error", 3))["status"] == 422


async def test_every_other_pixel_and_headers_alone(server: Any) -> None:
    images = numpy.arange(2 * 4 * 4.0).reshape(2, 4, 4)
    await server.array("a", images)
    many = await connect(server, "?envelope_format=msgpack")
    many.say(type="subscribe", id=1, path="a", start=0, slice="::2,1:3")
    many.say(type="subscribe", id=2, path="a", start=0, payload=False)
    many.say(type="subscribe", id=3, path="a", slice="::2,::2,::2")
    part = await many.first("array-data", 1)
    assert part["shape"] == [2, 2, 2]
    assert numpy.array_equal(numpy.frombuffer(part["payload"]).reshape(2, 2, 2), images[:, ::2, 1:3])
    bare = await many.first("array-data", 2)
    assert "payload" not in bare
    assert (bare["shape"], bare["bytes"], bare["sequence"]) == ([2, 4, 4], images.nbytes, 1)
    assert (await many.first("error", 3))["status"] == 422


async def test_the_latest_of_many_at_most_so_often(server: Any) -> None:
    await server.array("a", numpy.zeros(3), write=False)
    many = await connect(server, "?envelope_format=msgpack")
    many.say(type="subscribe", id=1, path="a", start=0, max_hz=10)
    await many.until("live", 1)
    for n in range(20):
        await server.ok("PUT", "/array/full/a", content=numpy.full(3, float(n)).tobytes())
    while not many.sequences(1) or many.sequences(1)[-1] < 20:
        await many.next()
    got = many.got[1, 0]
    stood = sum(
        1 + (got[n - 1]["skipped"] if got[n - 1]["type"] == "thinned" else 0)
        for n, message in enumerate(got)
        if message["type"] == "array-data"
    )
    assert stood == 20
    assert len(many.sequences(1)) < 10
    assert numpy.frombuffer(got[-1]["payload"])[0] == 19


async def test_the_extremes_of_many_rows(server: Any) -> None:
    await server.table("t", TABLE, append=False)
    many = await connect(server, "?envelope_format=msgpack")
    many.say(type="subscribe", id=1, path="t", start=0, max_hz=20, thin="minmax", columns=["x"])
    await many.until("live", 1)
    generator = numpy.random.default_rng(1)
    written = []
    for n in range(30):
        x = generator.normal(size=5)
        written += list(x)
        more = arrow_file(pyarrow.table({"t": x, "x": x, "name": [str(n)] * 5}))
        await server.ok("PATCH", "/table/partition/t?partition=0", content=more)
    while not many.sequences(1) or many.sequences(1)[-1] < 30:
        await many.next()
    values = [v for message in many.got[1, 0] if message["type"] == "table-data" for v in rows(message)["x"].to_pylist()]
    assert min(values) == min(written)
    assert max(values) == max(written)
    assert len(values) < 60
    # In the order in which they were written.
    places = [written.index(v) for v in values]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ({"type": "subscribe", "id": 0}, 422),
        ({"type": "subscribe", "id": 1, "max_hz": 0}, 422),
        ({"type": "subscribe", "id": 1, "colums": ["a"]}, 422),
        ({"type": "nonsense"}, 422),
        ({"type": "unsubscribe", "id": 5}, 404),
        ({"type": "subscribe", "id": 1, "path": "nowhere"}, 404),
    ],
)
async def test_what_is_not_understood_is_told_and_the_socket_stays(server: Any, message: dict[str, Any], status: int) -> None:
    many = await connect(server)
    many.say(**message)
    error = await many.until("error")
    assert error["status"] == status
    assert error["detail"]
    many.say(type="ping", id="x")
    assert (await many.until("pong"))["id"] == "x"


async def test_a_number_is_free_again_after_unsubscribing(arrays: Any) -> None:
    many = await connect(arrays)
    many.say(type="subscribe", id=1, path="a")
    await many.until("live", 1)
    many.say(type="subscribe", id=1, path="b")
    assert (await many.until("error", 0))["status"] == 409
    many.say(type="unsubscribe", id=1)
    await many.until("unsubscribed", 1)
    assert arrays.assembly.hub.subscribers() == 0
    many.say(type="subscribe", id=1, path="b", start=0)
    await many.until("array-data", 1)


async def test_a_server_that_stops_closes_also_who_has_no_subscription(server: Any) -> None:
    many = await connect(server)
    await server.assembly.drain()
    assert await many.socket.closed() == (1012, "Server restart")


async def test_resuming_by_cursors_misses_nothing(server: Any) -> None:
    await server.create("run")
    await server.array("run/a", numpy.zeros(3))
    first = await connect(server)
    first.say(type="subscribe", id=1, path="run", subtree=True, start=0)
    await first.until("array-data", 1)
    epoch = first.got[1, 0][0]["epoch"]
    await server.array("run/b", numpy.zeros(3))
    await server.ok("PUT", "/array/full/run/a", content=ROW)
    second = await connect(server)
    second.say(type="subscribe", id=1, path="run", subtree=True, epoch=epoch, cursors={"": 1, "a": 1})
    for _ in range(2):
        await second.until("array-data", 1)
    assert second.sequences(1, second.number(1, "run/a")) == [2]
    assert second.sequences(1, second.number(1, "run/b")) == [1]
    many = await connect(server)
    many.say(type="subscribe", id=1, path="run/a", start=2, epoch="another")
    gap = await many.until("gap", 1)
    # Sequences never restart: what is in the log after the cursor is given, not skipped.
    assert (gap["first"], gap["last"], gap["reason"], gap["epoch"], gap["head"]) == (2, 1, "epoch", epoch, 2)
    await many.until("array-data", 1)
    assert many.sequences(1, 0) == [2]


async def test_a_key_is_shown_first(server: Any) -> None:
    socket = await server.socket_at("/many", {}).accepted()
    socket.say(text='{"type":"subscribe","id":1}')
    assert (await socket.closed())[0] == 4001
    many = Many(await server.socket_at("/many", {}).accepted())
    many.say(type="auth", api_key="secret")
    many.say(type="subscribe", id=1)
    await many.until("live", 1)


async def test_one_that_does_not_read_is_let_go(serve: Any) -> None:
    """With all its subscriptions, and counted once; others on the same nodes get everything."""
    async with serve(send_timeout_seconds=0.2) as server:
        for key in ("a", "b"):
            await server.array(key, numpy.arange(3.0), write=False)
        slow, quick = await connect(server, "?envelope_format=msgpack"), await connect(server, "?envelope_format=msgpack")
        for many in (slow, quick):
            for number, key in enumerate(("a", "b"), 1):
                many.say(type="subscribe", id=number, path=key, start=0)
                await many.until("live", number)
        slow.socket.block()
        for n in range(1, 11):
            for number, key in enumerate(("a", "b"), 1):
                await server.ok("PUT", f"/array/full/{key}", content=ROW)
                while quick.sequences(number)[-1:] != [n]:
                    await quick.next()
        await slow.socket.finished()
        assert quick.sequences(1) == quick.sequences(2) == list(range(1, 11))
        figures = (await server.client.get("/api/v1/metrics")).text
        assert "tiled_stream_slow_readers_total 1.0" in figures
        assert "tiled_stream_subscribers 2.0" in figures


# ------------------------------------------------------------ log or storage cannot be reached


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Takes methods of an object away, until `is_away` is False."""
    monkeypatch.setattr(outages_module, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(outages_module, "MOST_SECONDS", 0.005)
    switch = Away()

    def take(target: Any, *names: str) -> Away:
        for name in names:
            method = getattr(target, name)
            monkeypatch.setattr(target, name, lambda *a, _m=method, **k: switch(lambda: _m(*a, **k)))
        return switch

    return take


async def tried(switch: Away, tries: int = 5) -> None:
    goal = switch.tries + tries
    async with asyncio.timeout(10):
        while switch.tries < goal:  # noqa: ASYNC110 - a count, not an event
            await asyncio.sleep(0.001)


async def node_of(server: Any, *path: str) -> str:
    return str((await server.assembly.services.browse.resolve(path)).node.id)


async def test_log_that_cannot_be_reached_ends_no_subscription(server: Any, away: Any) -> None:
    await server.create("run")
    await server.array("run/a", numpy.zeros(3))
    node = await node_of(server, "run", "a")
    many = await connect(server)
    many.say(type="subscribe", id=1, path="run", subtree=True, start=0)
    await many.until("array-data", 1)
    single = await server.socket("run/a?start=0").accepted()
    assert (await single.update())["type"] == "array-schema"
    assert (await single.update())["sequence"] == 1
    log = server.assembly.services.log
    switch = away(log, "read", "head", "heads")
    switch.is_away = True
    await log.append(node, Draft(ArrayWritten((3,)), 1.0, ROW))
    await tried(switch)
    many.say(type="ping", id=7)
    await many.until("pong")
    late = server.socket("run/a?start=0")  # a new one is refused, and told to come again
    status, _, headers = await late.denied()
    assert (status, b"retry-after" in headers) == (503, True)
    switch.is_away = False
    await many.until("array-data", 1)
    assert many.sequences(1, many.number(1, "run/a")) == [1, 2]
    assert (await single.update())["sequence"] == 2


async def test_child_that_is_created_while_the_log_goes_away_is_told(server: Any, away: Any) -> None:
    await server.create("run")
    many = await connect(server)
    many.say(type="subscribe", id=1, path="run", subtree=True, start=0)
    await many.until("live", 1)
    switch = away(server.assembly.services.log, "head")  # asked when the socket subscribes to the child
    switch.is_away = True
    await server.array("run/b", numpy.zeros(3))
    await tried(switch)
    many.say(type="ping", id=8)
    await many.until("pong")
    switch.is_away = False
    await many.until("array-data", 1)
    assert many.sequences(1, many.number(1, "run/b")) == [1]


async def test_subtree_ends_once_the_log_can_be_asked(server: Any, away: Any) -> None:
    await server.create("run")
    await server.array("run/a", numpy.zeros(3))
    node = await node_of(server, "run")
    many = await connect(server)
    many.say(type="subscribe", id=1, path="run", subtree=True, start=0)
    await many.until("array-data", 1)
    log = server.assembly.services.log
    switch = away(log, "heads")
    switch.is_away = True
    await log.append(node, Draft(StreamEnded(), 1.0))
    await tried(switch)
    many.say(type="ping", id=9)
    await many.until("pong")
    switch.is_away = False
    await many.until("ended", 1)


async def test_children_of_a_subtree_wait_for_the_catalog(server: Any, away: Any) -> None:
    await server.create("run")
    for name in "abc":
        await server.array(f"run/{name}", numpy.zeros(3))
    switch = away(server.assembly.services.browse, "search")
    switch.is_away = True
    many = await connect(server)
    many.say(type="subscribe", id=1, path="run", subtree=True, start=0)
    await many.until("subscribed", 1)
    await tried(switch)
    switch.is_away = False
    for _ in range(3):
        await many.until("array-data", 1)
    assert {many.sequences(1, many.number(1, f"run/{name}"))[0] for name in "abc"} == {1}


async def test_resumed_subscription_waits_and_a_new_one_is_refused(server: Any, away: Any) -> None:
    await server.array("a", numpy.zeros(3))
    epoch = server.assembly.services.log.epoch
    switch = away(server.assembly.services.log, "head", "heads")
    switch.is_away = True
    many = await connect(server)
    many.say(type="subscribe", id=1, path="a", start=1, epoch=epoch)
    many.say(type="subscribe", id=2, path="a", start=1)
    assert (await many.until("error", 2))["status"] == 503
    await tried(switch)
    switch.is_away = False
    await many.until("array-data", 1)


async def test_losses_are_gaps_in_every_view(server: Any) -> None:
    await server.array("a", numpy.zeros((1, 3)))
    log = server.assembly.services.log
    node = await node_of(server, "a")
    await log.append(node, Draft(RecordLost(), 1.0), Draft(RecordLost(), 1.0))
    await server.ok("PUT", "/array/full/a", content=ROW)
    many = await connect(server)
    for number, view in enumerate(({}, {"payload": False}, {"slice": "::2"}, {"max_hz": 1000}), 1):
        many.say(type="subscribe", id=number, path="a", start=0, **view)
        gap = await many.until("gap", number)
        assert (gap["first"], gap["last"], gap["reason"]) == (2, 3, "lost")
    single = await server.socket("a?start=0").accepted()
    got = [await single.update() for _ in range(4)]
    assert got[2] == {"type": "gap", "first": 2, "last": 3, "reason": "lost"}
    assert got[3]["sequence"] == 4
