"""Many nodes on one socket, as a client of it sees them, against the application itself."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy
import orjson
import pytest

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
