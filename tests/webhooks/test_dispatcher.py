"""From a record to a message, one step at a time: what is told, what waits, what is given up, what is never sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.webhooks.receiver import Receiver, receiving
from tiled_stream.accounts.database import SqliteDatabase
from tiled_stream.catalog.port import CatalogBatch, Stored
from tiled_stream.domain.errors import Gone, NotFound, Unavailable
from tiled_stream.domain.events import (
    ArrayWritten,
    ChildCreated,
    ChildDeleted,
    ChildMetadataUpdated,
    Event,
    Record,
    RecordLost,
    RevisionDeleted,
    StreamEnded,
)
from tiled_stream.domain.nodes import ROOT, Node, Spec
from tiled_stream.nodes.mounts import Mounts
from tiled_stream.testing import factories
from tiled_stream.webhooks.dispatcher import Dispatcher, is_given_up, pause_after
from tiled_stream.webhooks.egress import Egress
from tiled_stream.webhooks.expansion import Expansion
from tiled_stream.webhooks.kinship import Kinship
from tiled_stream.webhooks.model import CLOSED, CREATED, DELETED, UPDATED, Delivery
from tiled_stream.webhooks.outbox import Outbox, happened
from tiled_stream.webhooks.sender import Answer, Sender
from tiled_stream.webhooks.store import Store
from tiled_stream.webhooks.vault import Vault


class Places:
    """As much of a catalog as kinship asks for: parents by id; `gone` were there once."""

    def __init__(self) -> None:
        self.nodes: dict[str, tuple[str, str]] = {}
        self.gone: set[str] = set()
        self.asked = 0

    async def node(self, id: str) -> Stored:
        self.asked += 1
        if id in self.gone:
            raise Gone(id)
        if id not in self.nodes:
            raise NotFound(id)
        parent, key = self.nodes[id]
        return Stored(Node(id, key, parent, "container"), 0)


class Room:
    """Everything of webhooks over a database in memory, with a clock that a test sets."""

    def __init__(self) -> None:
        self.clock = 100.0
        self.places = Places()
        self.store = Store(SqliteDatabase(None, called="webhooks"), is_shared=False)
        self.vault = Vault(["key"])
        catalog: Any = self.places
        kinship = Kinship(catalog)
        self.expansion = Expansion(self.store, kinship, mounts=Mounts, now=lambda: self.clock)
        egress = Egress(allow_http=True, allow_private=True)
        self.dispatcher = Dispatcher(
            self.store, self.expansion, Sender(egress), vault=self.vault, worker="w", now=lambda: self.clock, retry=0.0
        )
        self.outbox = Outbox(self.store, kinship, catalog="c", kept=self.dispatcher.wake)

    async def register(self, url: str = "http://x/", node: str = ROOT, **fields: Any) -> int:
        made = {"chain": [ROOT, node], "url": url, "secret": None, "events": None, "now": 0.0} | fields
        return (await self.store.add(node, **made)).id

    async def take(self, log: str, *events: Event, after: int = 0, time: float = 100.0) -> None:
        records = tuple(Record(after + n, time, event) for n, event in enumerate(events, 1))
        await self.outbox.take([CatalogBatch(log, after, records)])

    async def payloads(self, webhook: int = 1) -> list[str]:
        return [delivery.payload for delivery in reversed(await self.store.history(webhook, limit=100))]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.dispatcher.run(), name="dispatcher")
        try:
            yield
        finally:
            self.dispatcher.stop()
            await task


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    room = Room()
    await room.store.open()
    yield room
    await room.store.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - a thread makes it so
            await asyncio.sleep(0.01)


def created(id: str, key: str) -> ChildCreated:
    return ChildCreated(Node(id, key, ROOT, "container", metadata={"m": 1}, specs=(Spec("S", "1"),)))


def test_what_records_mean() -> None:
    def kind_of(event: Event) -> str | None:
        found = happened("c", "log", Record(3, 1.5, event))
        return None if found is None else found.kind

    assert kind_of(created("a", "k")) == CREATED
    assert kind_of(ChildMetadataUpdated("k", "a", {}, (), (), 1)) == UPDATED
    assert kind_of(ChildDeleted("k", "a")) == DELETED
    assert kind_of(StreamEnded()) == CLOSED
    others = [RevisionDeleted("k", "a", 1), ArrayWritten((1,)), RecordLost()]
    assert [kind_of(event) for event in others] == [None] * 3


def test_metadata_that_are_no_json_do_not_hold_up_the_persister() -> None:
    for metadata in ({"x": object()}, {"x": "\ud800"}, {"x": {1, 2}}):
        event = happened("c", "log", Record(1, 0.0, ChildMetadataUpdated("k", "a", metadata, (), (), None)))
        assert event is not None
        assert event.about == '{"specs":[],"metadata":{}}'


async def test_a_batch_that_comes_again_is_kept_once(room: Room) -> None:
    await room.register()
    for _ in range(3):
        await room.take(ROOT, created("a", "k"), StreamEnded())
    assert [event.kind for event in await room.store.outbox(limit=10)] == [CREATED, CLOSED]


async def test_what_happens_in_a_batch_needs_no_catalog(room: Room) -> None:
    await room.register()
    await room.take(ROOT, created("a", "k"))
    await room.take("a", created("b", "l"))
    await room.take("b", StreamEnded())
    assert not await room.expansion.round()
    assert [payload.partition('"path":')[2].partition("]")[0] for payload in await room.payloads()] == [
        '["k"',
        '["k","l"',
        '["k","l"',
    ]
    assert room.places.asked == 0


async def test_an_event_whose_node_is_not_known_yet_waits_and_others_do_not(room: Room) -> None:
    await room.register()
    await room.take("later", StreamEnded())
    await room.take(ROOT, StreamEnded())
    assert not await room.expansion.round()
    assert len(await room.payloads()) == 1
    assert (await room.store.waiting())[1] == 100.0
    room.places.nodes["later"] = (ROOT, "k")
    await room.expansion.round()
    assert '"path":["k"]' in (await room.payloads())[1]
    assert await room.store.outbox(limit=10) == []


async def test_what_follows_in_the_same_log_waits_too(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node comes into the catalog between two looks."""
    await room.register()
    await room.take("later", StreamEnded(), created("b", "l"))
    asked: list[str] = []
    real = room.places.node

    async def node(id: str) -> Stored:
        asked.append(id)
        try:
            return await real(id)
        finally:
            room.places.nodes["later"] = (ROOT, "k")

    monkeypatch.setattr(room.places, "node", node)
    assert not await room.expansion.round()
    assert await room.payloads() == []
    await room.expansion.round()
    assert [orjson.loads(payload)["path"] for payload in await room.payloads()] == [["k"], ["k", "l"]]
    assert asked == ["later", "later"]


async def test_an_event_whose_node_is_nowhere_is_given_up_in_the_end(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    await room.register()
    await room.take("lost", StreamEnded())
    room.clock = 690.0
    await room.expansion.round()
    assert len(await room.store.outbox(limit=10)) == 1
    room.clock = 710.0
    await room.expansion.round()
    assert await room.store.outbox(limit=10) == []
    assert await room.payloads() == []
    assert "nowhere in the catalog" in caplog.text


async def test_many_that_wait_do_not_stop_the_rest(room: Room) -> None:
    await room.register()
    room.places.gone.add("gone")
    for n in range(99):
        await room.take(f"later{n}", StreamEnded())
    await room.take("gone", StreamEnded())
    for n in range(5):
        await room.take(ROOT, StreamEnded(), after=n)
    assert await room.expansion.round()  # one was dropped, so there is room for one more
    assert await room.expansion.round()
    assert len(await room.payloads()) == 1


async def test_only_what_happened_since_the_registration(room: Room) -> None:
    await room.register(now=50.0)
    await room.take(ROOT, created("a", "before"), time=49.9)
    await room.take(ROOT, created("b", "after"), after=1, time=50.0)
    await room.expansion.round()
    (payload,) = await room.payloads()
    assert '"after"' in payload


async def test_what_is_registered_on_a_deleted_node_goes_in_order(room: Room) -> None:
    """What happened before the deletion is told to those above, not to those who went."""
    await room.register()
    gone = await room.register(node="a", chain=[ROOT, "a"])
    await room.take(ROOT, created("a", "k"), ChildDeleted("k", "a"), created("b", "k"))
    await room.expansion.round()
    assert len(await room.payloads()) == 2
    with pytest.raises(NotFound):
        await room.store.history(gone, limit=1)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    with receiving() as receiver:
        yield receiver


async def test_what_is_refused_again_and_again_makes_way_for_the_next(room: Room, receiver: Receiver) -> None:
    receiver.answer = lambda got: 422 if got.json["path"] == ["bad"] else 200
    await room.register(receiver.url)
    await room.take(ROOT, created("a", "bad"), created("b", "good"))
    async with room.running():
        await until(lambda: len(receiver.got) == 9)
        await until(lambda: room.dispatcher.stats.delivered == 1)
    assert receiver.paths() == ["bad"] * 8 + ["good"]
    last, first = await room.store.history(1, limit=10)
    assert (first.outcome, first.attempts, first.status_code) == ("failed", 8, 422)
    assert (last.outcome, last.attempts) == ("success", 1)
    stats = room.dispatcher.stats
    assert (stats.delivered, stats.failures, stats.given_up) == (1, 8, 1)


async def test_one_that_is_down_is_asked_for_a_day(room: Room, receiver: Receiver) -> None:
    receiver.answer = lambda got: 503
    await room.register(receiver.url)
    await room.take(ROOT, created("a", "k"))
    async with room.running():
        await until(lambda: len(receiver.got) > 20)
        room.clock += 24 * 3600 + 1
        await until(lambda: room.dispatcher.stats.given_up == 1)
    (delivery,) = await room.store.history(1, limit=10)
    assert (delivery.outcome, delivery.status_code) == ("failed", 503)


async def test_a_secret_that_cannot_be_read_is_never_passed_over(room: Room, receiver: Receiver) -> None:
    await room.register(receiver.url, secret=Vault(["another key"]).seal("s3cret"))
    await room.take(ROOT, created("a", "k"))
    async with room.running():
        await until(lambda: room.dispatcher.stats.failures > 2)
    (delivery,) = await room.store.history(1, limit=10)
    assert delivery.outcome == "pending"
    assert "webhooks.secret_keys" in (delivery.error or "")
    assert receiver.got == []


async def test_the_database_is_away_for_a_while(
    room: Room, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await room.register(receiver.url)
    await room.take(ROOT, created("a", "k"))
    failing = ["claim", "outbox", "next_for"]
    for name in failing:

        async def fail(*args: Any, name: str = name, real: Any = getattr(room.store, name), **named: Any) -> Any:
            if name in failing:
                failing.remove(name)
                raise Unavailable("away")
            return await real(*args, **named)

        monkeypatch.setattr(room.store, name, fail)
    async with room.running():
        await until(lambda: not failing)
        room.clock += 31  # the turn that was cut short holds its claim until then
        await until(lambda: len(receiver.got) == 1)
    assert "held up" in caplog.text


async def test_a_batch_that_cannot_be_kept_is_not_persisted(room: Room) -> None:
    await room.register()
    await room.store.close()
    with pytest.raises(Unavailable):
        await room.take(ROOT, created("a", "k"))
    await room.take(ROOT, ArrayWritten((1,)))  # what nobody is told of does not need the database


async def test_kinship_is_bounded_and_asks_anew() -> None:
    places = Places()
    places.nodes = {"a": (ROOT, "k"), "b": ("a", "l"), "c": (ROOT, "m")}
    catalog: Any = places
    kinship = Kinship(catalog, size=2)
    assert await kinship.way("b") == ((ROOT, ""), ("a", "k"), ("b", "l"))
    assert places.asked == 2
    assert await kinship.way("b") == ((ROOT, ""), ("a", "k"), ("b", "l"))
    assert places.asked == 2
    await kinship.way("c")
    places.gone.add("b")
    with pytest.raises(Gone):
        await kinship.way("b")


@given(st.integers(1, 10_000), st.floats(0.01, 10))
def test_pauses_grow_up_to_a_minute(failures: int, first: float) -> None:
    pause = pause_after(failures, first)
    assert 0.8 * min(first, 60) <= pause <= 1.2 * 60
    if failures == 1:
        assert pause <= 1.2 * first


@given(st.one_of(st.none(), st.integers(300, 599)), st.integers(1, 20), st.floats(0, 48 * 3600))
def test_when_it_is_given_up(status: int | None, attempts: int, age: float) -> None:
    delivery = Delivery(1, 1, "e", CREATED, "{}", 0.0, "pending", attempts=attempts)
    is_old = age > 24 * 3600
    is_refused = status not in (None, 408, 425, 429, 502, 503, 504) and attempts >= 8
    assert is_given_up(delivery, Answer(status), now=age) == (is_old or is_refused)


def test_factories_give_what_is_told() -> None:
    """Any node that can be made can be told of."""
    for node in (factories.container_node(), factories.array_node(), factories.table_node()):
        event = happened("c", ROOT, Record(1, 0.0, ChildCreated(node)))
        assert event is not None
        assert f'"structure_family":"{node.family}"' in event.about
