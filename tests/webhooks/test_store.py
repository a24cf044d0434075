"""What is kept, in both databases: once, in order, for one worker at a time; and a state machine of workers that die."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from tiled_stream.accounts.database import SqliteDatabase
from tiled_stream.domain.errors import NotFound, Unavailable, Unsatisfiable
from tiled_stream.webhooks import store as store_module
from tiled_stream.webhooks.model import CREATED, Delivery, Expanded, Happened, Webhook, event_id
from tiled_stream.webhooks.store import Store, store_at

URL = "https://example.com/"


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Where a catalog is."""
    return tmp_path / "catalog.db" if request.param == "sqlite" else request.getfixturevalue("new_postgres")


@pytest.fixture
async def store(place: Any) -> AsyncIterator[Store]:
    store = store_at(place)
    await store.open()
    yield store
    await store.close()


def happened(n: int, kind: str = CREATED) -> Happened:
    return Happened(f"event{n}", "root", kind, float(n), f"node{n}", f"key{n}", '{"metadata": {}}')


async def register(store: Store, node: str = "root", now: float = 0.0, **fields: Any) -> Webhook:
    return await store.add(node, **{"chain": ["root"], "url": URL, "secret": None, "events": None, "now": now} | fields)


async def pending(store: Store, webhook: Webhook, count: int) -> None:
    for n in range(count):
        await store.keep([happened(n)])
        await store.expand([Expanded(f"event{n}", f"payload{n}", (webhook.id,))], now=float(n))


async def test_registrations_are_given_back_as_they_were_made(store: Store) -> None:
    one = await register(store, "a", chain=["root", "a"], secret="sealed", events=[CREATED], now=1.5)
    two = await register(store, "b")
    assert (one.id, two.id) == (1, 2)
    assert one == Webhook(1, "a", ("root", "a"), URL, "sealed", (CREATED,), 1.5)
    assert await store.webhooks() == [one, two]
    assert await store.webhooks("a") == [one]
    await store.remove(2)
    with pytest.raises(NotFound):
        await store.remove(2)
    assert (await register(store)).id == 3  # a number is never given twice


async def test_there_are_not_too_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_WEBHOOKS", 2)
    await register(store)
    await register(store)
    with pytest.raises(Unsatisfiable, match="already"):
        await register(store)
    assert len(await store.webhooks()) == 2


async def test_nothing_is_kept_while_nobody_wants_it(store: Store) -> None:
    assert not await store.keep([happened(1)])
    assert await store.outbox(limit=10) == []
    await register(store)
    assert await store.keep([happened(2), happened(3)])
    assert await store.keep([happened(3), happened(1)])  # a batch that comes again
    assert [event.id for event in await store.outbox(limit=10)] == ["event2", "event3", "event1"]
    assert await store.outbox(limit=1) == [happened(2)]


async def test_an_event_becomes_deliveries_once(store: Store) -> None:
    one, two = await register(store), await register(store)
    await store.keep([happened(1)])
    await asyncio.gather(*(store.expand([Expanded("event1", "{}", (one.id, two.id, 99))], now=5.0) for _ in range(3)))
    assert await store.outbox(limit=10) == []
    for webhook in (one, two):
        (delivery,) = await store.history(webhook.id, limit=10)
        assert delivery == Delivery(delivery.id, webhook.id, "event1", CREATED, "{}", 5.0, "pending")
    await store.keep([happened(1)])
    assert await store.outbox(limit=10) == []  # known from before
    await store.keep([happened(2)])
    await store.expand([Expanded("event2", "{}", ())], now=5.0)
    assert await store.outbox(limit=10) == []


async def test_one_worker_at_a_time(store: Store) -> None:
    webhook = await register(store)
    assert await store.claim("w1", now=0.0, seconds=30) is None  # there is nothing to do
    await pending(store, webhook, 2)
    claims = await asyncio.gather(*(store.claim(f"w{n}", now=100.0, seconds=30) for n in range(5)))
    assert [claim for claim in claims if claim] == [webhook]
    owner = next(f"w{n}" for n, claim in enumerate(claims) if claim)
    first = await store.next_for(webhook.id, owner, now=101.0, seconds=30)
    assert first is not None
    assert first.event == "event0"
    assert await store.claim("late", now=130.0, seconds=30) is None  # prolonged by the message
    assert await store.claim("late", now=132.0, seconds=30) == webhook
    assert await store.next_for(webhook.id, owner, now=133.0, seconds=30) is None  # lost
    await store.release(webhook.id, owner, due=1e9, is_well=True)  # of no effect
    assert (await store.next_for(webhook.id, "late", now=133.0, seconds=30)) == first


async def test_after_a_failure_nothing_is_tried_for_a_while(store: Store) -> None:
    webhook = await register(store)
    await pending(store, webhook, 1)
    assert await store.claim("w", now=0.0, seconds=30)
    assert [await store.failed(webhook.id, "w"), await store.failed(webhook.id, "w")] == [1, 2]
    await store.release(webhook.id, "w", due=50.0, is_well=False)
    assert await store.claim("w", now=49.0, seconds=30) is None
    assert await store.claim("w", now=50.0, seconds=30) == webhook
    assert await store.failed(webhook.id, "w") == 3
    await store.release(webhook.id, "w", due=0.0, is_well=True)
    assert await store.claim("w", now=50.0, seconds=30) == webhook
    assert await store.failed(webhook.id, "w") == 1


async def test_a_node_takes_what_is_registered_below_it_along(store: Store) -> None:
    await register(store, "root")
    await register(store, "a", chain=["root", "a"])
    below = await register(store, "b", chain=["root", "a", "b"])
    await pending(store, below, 1)
    await store.keep([Happened("gone", "root", "deleted", 1.0, "a")])
    await store.drop_node("gone", "a")
    assert [webhook.node for webhook in await store.webhooks()] == ["root"]
    assert await store.outbox(limit=10) == []
    with pytest.raises(NotFound):
        await store.history(below.id, limit=1)


async def test_what_is_kept_has_bounds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_PENDING", 3)
    monkeypatch.setattr(store_module, "MAX_FINISHED", 2)
    webhook = await register(store)
    await pending(store, webhook, 8)
    for delivery in (await store.history(webhook.id, limit=100))[-3:]:
        await settle(store, delivery, outcome="success", attempts=1, delivered=1.0)
    assert await store.trim() == 2
    assert [(d.event, d.outcome) for d in await store.history(webhook.id, limit=100)] == [
        *(("event7", "pending"), ("event6", "pending"), ("event5", "pending")),
        *(("event4", "failed"), ("event3", "failed")),
    ]
    assert await store.trim() == 0
    assert await store.waiting() == (3, 5.0)
    # Events that nobody's history holds are gone: kept again, they are new.
    await store.keep([happened(0), happened(7)])
    assert [event.id for event in await store.outbox(limit=10)] == ["event0"]
    assert await store.waiting() == (3, 0.0)  # it waits, too


async def test_what_is_settled_stays_so(store: Store) -> None:
    webhook = await register(store)
    await pending(store, webhook, 1)
    (delivery,) = await store.history(webhook.id, limit=1)
    done = await settle(store, delivery, outcome="success", attempts=2, status_code=204, delivered=7.0)
    await settle(store, delivery, outcome="failed", attempts=3, error="late")
    assert await store.history(webhook.id, limit=1) == [done]


async def test_it_is_there_after_a_restart_and_a_dead_worker_is_forgotten(tmp_path: Path) -> None:
    for _ in range(2):
        store = store_at(tmp_path / "catalog.db")
        await store.open()
        webhook = (await store.webhooks() or [await register(store)])[0]
        await store.keep([happened(1)])
        await store.expand([Expanded("event1", "{}", (webhook.id,))], now=0.0)
        assert await store.claim("w", now=0.0, seconds=1e9) == webhook
        await store.close()
        await store.close()


async def test_a_uri_for_a_pooler(new_postgres: str) -> None:
    """As the catalog takes it."""
    for uri in (f"{new_postgres}?statement_cache_size=0", new_postgres.replace("postgresql://", "postgresql+asyncpg://")):
        store = store_at(uri)
        await store.open()
        await register(store)
        await store.close()


async def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "catalog.db.webhooks") as db:
        db.execute("CREATE TABLE something (x)")
    with pytest.raises(Unavailable, match="for webhooks"):
        await store_at(tmp_path / "catalog.db").open()


async def test_a_database_that_is_away(store: Store) -> None:
    await store.close()
    with pytest.raises(Unavailable, match="webhooks is closed"):
        await store.keep([happened(1)])


def test_ids_of_events_differ_by_place_and_deployment() -> None:
    places = [("one", "root", 1), ("one", "root", 2), ("one", "a", 1), ("two", "root", 1), ("one", "root", 11)]
    assert len({event_id(*place) for place in places}) == 5
    # A receiver remembers them for years: they must not change with a version.
    assert event_id("one", "root", 1) == "f7675aa8-04dc-59ff-a290-fd0565611d04"


async def settle(store: Store, delivery: Delivery, **fields: Any) -> Delivery:
    settled = msgspec.structs.replace(delivery, **fields)
    await store.settle(settled, "w", now=0.0, seconds=30)
    return settled


class DeliveryMachine(RuleBasedStateMachine):
    """Two workers that may die in any step, batches that come twice: what each webhook gets, in which order.

    The oracle knows for each webhook what happened since it was registered, and what its receiver took, with repetitions.
    """

    webhooks: Bundle[Webhook] = Bundle("webhooks")
    claims: Bundle[tuple[str, Webhook]] = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = Store(SqliteDatabase(None, called="webhooks"), is_shared=True)
        self.run(self.store.open())
        self.clock = 0.0
        self.count = 0
        self.workers = 0
        self.wanted: dict[int, list[str]] = {}
        self.taken: dict[int, list[str]] = {}
        self.leases: dict[int, tuple[str, float]] = {}
        self.in_outbox: list[str] = []

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        try:
            for _ in range(10_000):  # everything is delivered in the end
                self.clock += 100
                self.expand()
                self.workers += 1
                webhook = self.run(self.store.claim(f"last{self.workers}", now=self.clock, seconds=30))
                if webhook is None:
                    break
                self.deliver((f"last{self.workers}", webhook), "done")
            for id, wanted in self.wanted.items():
                first = list(dict.fromkeys(self.taken[id]))
                assert first == wanted
        finally:
            self.run(self.store.close())
            self.runner.close()

    @rule(target=webhooks)
    def register(self) -> Webhook:
        webhook: Webhook = self.run(register(self.store, now=self.clock))
        self.wanted[webhook.id], self.taken[webhook.id] = [], []
        return webhook

    @rule(webhook=consumes(webhooks))
    def remove(self, webhook: Webhook) -> None:
        self.run(self.store.remove(webhook.id))
        del self.wanted[webhook.id], self.taken[webhook.id]

    @rule(new=st.integers(1, 3), again=st.integers(0, 2))
    def keep(self, new: int, again: int) -> None:
        known = range(max(0, self.count - again), self.count)
        events = [happened(n) for n in (*known, *range(self.count, self.count + new))]
        self.count += new
        if self.run(self.store.keep(events)):
            self.in_outbox += [e.id for e in events[len(known) :]]

    @rule()
    def expand(self) -> None:
        """All are concerned that were there when it was kept."""
        expanded = []
        for event in self.run(self.store.outbox(limit=100)):
            ids = sorted(self.wanted) if event.id in self.in_outbox else []
            expanded.append(Expanded(event.id, event.id, tuple(ids)))
            if event.id in self.in_outbox:
                self.in_outbox.remove(event.id)
                for id in ids:
                    self.wanted[id].append(event.id)
        self.run(self.store.expand(expanded, now=self.clock))

    @rule(target=claims)
    def claim(self) -> Any:
        self.workers += 1
        worker = f"w{self.workers}"
        webhook = self.run(self.store.claim(worker, now=self.clock, seconds=30))
        if webhook is None:
            return multiple()
        owner = self.leases.get(webhook.id)
        assert owner is None or owner[1] <= self.clock, "two workers at a time"
        self.leases[webhook.id] = (worker, self.clock + 30)
        return (worker, webhook)

    @rule(claim=consumes(claims), end=st.sampled_from(["done", "dies before it notes", "dies at once"]))
    def deliver(self, claim: tuple[str, Webhook], end: str) -> None:
        worker, webhook = claim
        if end == "dies at once":
            return
        delivery = self.run(self.store.next_for(webhook.id, worker, now=self.clock, seconds=30))
        while delivery:
            assert delivery.outcome == "pending"
            self.leases[webhook.id] = (worker, self.clock + 30)
            self.taken[webhook.id].append(delivery.event)
            if end == "dies before it notes":
                return
            done = msgspec.structs.replace(delivery, outcome="success", attempts=1, delivered=self.clock)
            delivery = self.run(self.store.settle(done, worker, now=self.clock, seconds=30))
        self.run(self.store.release(webhook.id, worker, due=0.0, is_well=True))
        if self.leases.get(webhook.id, ("", 0.0))[0] == worker:
            del self.leases[webhook.id]

    @rule(seconds=st.sampled_from([1.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.clock += seconds

    @invariant()
    def what_was_taken_came_in_order(self) -> None:
        for id, taken in self.taken.items():
            first = list(dict.fromkeys(taken))
            assert first == self.wanted[id][: len(first)]


TestDeliveryMachine = DeliveryMachine.TestCase
TestDeliveryMachine.settings = settings(max_examples=40, stateful_step_count=30)
