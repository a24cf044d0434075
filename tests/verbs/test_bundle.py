"""Many subscriptions that one reader takes from: whatever the interleaving, each one is as if it were alone (I3)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.verbs.logs import Away
from tiled_stream.broadcast import outages as outages_module
from tiled_stream.broadcast import subscription as subscription_module
from tiled_stream.broadcast.bundle import Bundle
from tiled_stream.broadcast.hub import Frame, Hub, Over
from tiled_stream.domain.events import ArrayWritten, Draft, Record, StreamEnded
from tiled_stream.log.memory import MemoryLog

NODES = ("a", "b", "c", "d")

#: What happens next: so many records to a node, one round of taking, a member more, or a member less.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(NODES), st.integers(1, 40)),
        st.tuples(st.just("end"), st.sampled_from(NODES), st.just(0)),
        st.tuples(st.just("take"), st.just(""), st.integers(1, 3)),
        st.tuples(st.just("add"), st.sampled_from(NODES), st.integers(0, 30)),
        st.tuples(st.just("discard"), st.sampled_from(NODES), st.just(0)),
    ),
    max_size=40,
)


def encode(record: Record) -> bytes | None:
    return record.payload if isinstance(record.event, ArrayWritten) else None


class Reader:
    """What one member is owed, by a list that is kept beside the log, and what it got."""

    def __init__(self, node: str, after: int) -> None:
        self.node = node
        self.after = after
        self.got: list[int] = []
        self.is_over = False


async def play(steps: list[tuple[str, str, int]]) -> None:
    log = MemoryLog()
    await log.open()
    hub = Hub(log, now=lambda: 1.0)
    bundle: Bundle[int] = Bundle()
    written: dict[str, list[int]] = {node: [] for node in NODES}
    heads = dict.fromkeys(NODES, 0)
    ended: set[str] = set()
    readers: dict[int, Reader] = {}
    subscriptions = {}

    async def take() -> bool:
        taken = await bundle.take()
        for key, items in taken:
            for item in items:
                assert key in readers, "something of one that was taken out"
                assert not readers[key].is_over
                if isinstance(item, Frame):
                    assert item.data == b"%d" % item.sequence
                    readers[key].got.append(item.sequence)
                else:
                    assert item == Over("ended")
                    readers[key].is_over = True
                    bundle.discard(key)
        return bool(taken)

    try:
        for step, node, number in steps:
            if step == "write" and node not in ended:
                for _ in range(number):
                    heads[node] += 1
                    written[node].append(heads[node])
                    await log.append(node, Draft(ArrayWritten((1,)), 0.0, b"%d" % heads[node]))
            elif step == "end" and heads[node] and node not in ended:
                heads[node] += 1
                ended.add(node)
                await log.append(node, Draft(StreamEnded(), 0.0))
            elif step == "take":
                for _ in range(number):
                    if len(bundle) and bundle._ready:
                        await take()
            elif step == "add":
                key, after = len(subscriptions), min(number, heads[node])
                readers[key] = Reader(node, after)
                subscriptions[key] = await hub.subscribe(node, after, encode)
                bundle.add(key, subscriptions[key])
            elif step == "discard":
                for key in [key for key, reader in readers.items() if reader.node == node][:1]:
                    bundle.discard(key)
                    del readers[key]

        def is_owed(reader: Reader) -> bool:
            expected = [n for n in written[reader.node] if n > reader.after]
            return reader.got != expected or (reader.is_over != (reader.node in ended and reader.after < heads[reader.node]))

        async with asyncio.timeout(10):
            while any(map(is_owed, readers.values())):
                await take()
    finally:
        for subscription in subscriptions.values():
            await subscription.__aexit__()
        await hub.drain()
        await log.close()


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_each_gets_all_of_its_own_in_order(steps: list[tuple[str, str, int]]) -> None:
    asyncio.run(play(steps))


async def test_none_comes_before_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node with much to tell gives a batch a round; the others, with little, are not behind all of it."""
    monkeypatch.setattr(subscription_module, "BATCH_FRAMES", 10)
    log = MemoryLog()
    await log.open()
    hub = Hub(log, now=lambda: 1.0)
    bundle: Bundle[str] = Bundle()
    members = {node: await hub.subscribe(node, 0, encode) for node in ("busy", "quiet")}
    for node, subscription in members.items():
        bundle.add(node, subscription)
    for n in range(1, 501):
        await log.append("busy", Draft(ArrayWritten((1,)), 0.0, b"%d" % n))
    await log.append("quiet", Draft(ArrayWritten((1,)), 0.0, b"1"))
    order = []
    async with asyncio.timeout(10):
        while order.count("busy") < 500 or order.count("quiet") < 1:
            for key, items in await bundle.take():
                order += [key] * len(items)
    assert order.index("quiet") <= 20
    for subscription in members.values():
        await subscription.__aexit__()
    await hub.drain()
    await log.close()


async def test_member_that_waits_for_the_log_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages_module, "FIRST_SECONDS", 0.001)
    before = len(asyncio.all_tasks())
    log, replays = MemoryLog(), Away()
    hub = Hub(log, now=lambda: 1.0)
    bundle: Bundle[str] = Bundle()
    for n in (1, 2, 3):
        await log.append("behind", Draft(ArrayWritten((1,)), 0.0, b"%d" % n))
    behind = await hub.subscribe("behind", 0, encode)
    live = await hub.subscribe("live", None, encode)
    got: dict[str, list[int]] = {}

    async def take(key: str, count: int) -> None:
        async with asyncio.timeout(10):
            while len(got.get(key, ())) < count:
                for name, items in await bundle.take():
                    got.setdefault(name, []).extend(item.sequence for item in items if isinstance(item, Frame))

    monkeypatch.setattr(behind._tail, "page", _held(behind._tail.page, replays))
    replays.is_away = True
    bundle.add("behind", behind)
    bundle.add("live", live)
    await log.append("live", Draft(ArrayWritten((1,)), 0.0, b"1"))
    await take("live", 1)
    assert "behind" not in got
    assert replays.tries
    replays.is_away = False
    await take("behind", 3)
    assert got == {"live": [1], "behind": [1, 2, 3]}
    await bundle.close()
    for subscription in (behind, live):
        await subscription.leave()
    await hub.drain()
    assert len(asyncio.all_tasks()) == before  # I9


def _held(page: Any, away: Away) -> Any:
    async def held(*arguments: Any) -> Any:
        return await away(lambda: page(*arguments))

    return held


async def test_closing_ends_looks_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(asyncio.all_tasks())
    log = MemoryLog()
    hub = Hub(log, now=lambda: 1.0)
    bundle: Bundle[int] = Bundle()
    asked = asyncio.Event()

    async def hanging(*_: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    subscriptions = []
    for number in range(8):  # more than ask at the same time
        await log.append(f"n{number}", Draft(ArrayWritten((1,)), 0.0, b"1"))
        subscriptions.append(await hub.subscribe(f"n{number}", 0, encode))
        monkeypatch.setattr(subscriptions[-1]._tail, "page", hanging)
        bundle.add(number, subscriptions[-1])
    taking = asyncio.create_task(bundle.take())
    await asked.wait()
    bundle.discard(0)
    await bundle.close()
    taking.cancel()
    for subscription in subscriptions:
        await subscription.leave()
    await hub.drain()
    await asyncio.wait([taking])
    assert len(asyncio.all_tasks()) == before  # I9
