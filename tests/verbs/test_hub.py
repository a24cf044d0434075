"""Every record after the cursor, once, in order, or the reason why not (I3); a slow reader costs the others nothing (I8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from tiled_stream.broadcast import tail as tail_module
from tiled_stream.broadcast.hub import Frame, Gap, Hub, Item, Over, Subscription
from tiled_stream.domain.errors import Unavailable
from tiled_stream.domain.events import ArrayWritten, ChildDeleted, Draft, Record, StreamEnded
from tiled_stream.log.memory import RECORD_OVERHEAD, MemoryLog
from tiled_stream.log.port import Retention

NODE = "n"


@dataclass(frozen=True)
class Counting:
    """An encoder that counts how often each record is encoded."""

    name: str = "a"
    encoded: list[int] = field(default_factory=list, compare=False)

    def __call__(self, record: Record) -> bytes | None:
        self.encoded.append(record.sequence)
        return record.payload if isinstance(record.event, ArrayWritten) else None


@pytest.fixture
async def log() -> AsyncIterator[MemoryLog]:
    engine = MemoryLog()
    await engine.open()
    yield engine
    await engine.close()


@pytest.fixture
async def hub(log: MemoryLog) -> AsyncIterator[Hub]:
    made = Hub(log, now=lambda: 1.0)
    yield made
    await made.drain()


async def write(log: MemoryLog, *values: int) -> None:
    for value in values:
        await log.append(NODE, Draft(ArrayWritten((1,)), 0.0, b"%d" % value))


async def end(log: MemoryLog) -> None:
    await log.append(NODE, Draft(StreamEnded(), 0.0))


async def collect(subscription: Subscription, count: int) -> list[Item]:
    """At least `count` items, or all until it is over."""
    items: list[Item] = []
    async with asyncio.timeout(10):
        while len(items) < count:
            items += await subscription.take()
            if isinstance(items[-1], Over):
                break
    return items


def told(items: list[Item]) -> list[object]:
    return [(i.sequence, int(i.data)) if isinstance(i, Frame) else i for i in items]


async def test_replay_then_follow_has_no_seam(log: MemoryLog, hub: Hub) -> None:
    await write(log, *range(1, 6))
    async with await hub.subscribe(NODE, 0, Counting()) as subscription:
        assert told(await collect(subscription, 5)) == [(n, n) for n in range(1, 6)]
        waiting = asyncio.create_task(collect(subscription, 2))
        await asyncio.sleep(0)
        await write(log, 6, 7)
        assert told(await waiting) == [(6, 6), (7, 7)]


async def test_without_a_start_only_what_comes_is_delivered(log: MemoryLog, hub: Hub) -> None:
    await write(log, 1, 2)
    async with await hub.subscribe(NODE, None, Counting()) as subscription:
        await write(log, 3)
        assert told(await collect(subscription, 1)) == [(3, 3)]


@pytest.mark.parametrize(("after", "first"), [(-3, 1), (0, 1), (2, 3)])
async def test_start_means_after_this_sequence(log: MemoryLog, hub: Hub, after: int, first: int) -> None:
    await write(log, *range(1, 5))
    async with await hub.subscribe(NODE, after, Counting()) as subscription:
        assert told(await collect(subscription, 5 - first)) == [(n, n) for n in range(first, 5)]


async def test_a_start_beyond_the_head_waits_for_later_ones(log: MemoryLog, hub: Hub) -> None:
    await write(log, 1)
    async with await hub.subscribe(NODE, 3, Counting()) as subscription:
        await write(log, 2, 3, 4)
        assert told(await collect(subscription, 1)) == [(4, 4)]


async def test_one_encoding_serves_all_subscribers(log: MemoryLog, hub: Hub) -> None:
    encode = Counting()
    subscriptions = [await hub.subscribe(NODE, None, encode) for _ in range(50)]
    await write(log, *range(1, 21))
    for subscription in subscriptions:
        assert told(await collect(subscription, 20)) == [(n, n) for n in range(1, 21)]
    assert encode.encoded == list(range(1, 21))
    for subscription in subscriptions:
        await subscription.__aexit__()


async def test_late_joiners_share_the_pages_of_their_replay(log: MemoryLog, hub: Hub) -> None:
    await write(log, *range(1, 1201))
    encode = Counting()
    subscriptions = [await hub.subscribe(NODE, 0, encode) for _ in range(10)]
    for received in await asyncio.gather(*(collect(s, 1200) for s in subscriptions)):
        assert told(received) == [(n, n) for n in range(1, 1201)]
    assert len(encode.encoded) == 1200
    for subscription in subscriptions:
        await subscription.__aexit__()


async def test_a_reader_that_sleeps_holds_a_cursor_and_no_queue(
    log: MemoryLog, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "WINDOW_ENTRIES", 16)
    encode = Counting()
    slow, fast = [await hub.subscribe(NODE, None, encode) for _ in range(2)]
    for n in range(1, 301):
        await write(log, n)
        assert told(await collect(fast, 1)) == [(n, n)]
    (strip,) = fast._tail.strips.values()
    assert len(strip.entries) <= 16  # I8
    assert told(await collect(slow, 300)) == [(n, n) for n in range(1, 301)]
    await slow.__aexit__()
    await fast.__aexit__()


async def test_a_crowd_is_woken_for_several_records_at_once(log: MemoryLog, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "PACE_A_READER", 1.0)
    monkeypatch.setattr(tail_module, "PACE_MOST", 0.05)
    async with await hub.subscribe(NODE, None, Counting()) as subscription:
        await write(log, 1)
        assert told(await subscription.take()) == [(1, 1)]
        waiting = asyncio.create_task(subscription.take())
        await write(log, 2)
        await asyncio.sleep(0.01)
        await write(log, 3)
        assert told(await waiting) == [(2, 2), (3, 3)]


async def test_the_end_closes_once_nothing_follows_it(log: MemoryLog, hub: Hub) -> None:
    await write(log, 1)
    await end(log)
    await write(log, 2)
    async with await hub.subscribe(NODE, 0, Counting()) as subscription:
        assert told(await collect(subscription, 9)) == [(1, 1), (3, 2), Over("ended")]
    async with await hub.subscribe(NODE, 2, Counting()) as later:  # the end lies before it: it is still open
        assert told(await collect(later, 1)) == [(3, 2)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await later.take()
        await end(log)
        assert told(await collect(later, 1)) == [Over("ended")]


async def test_what_left_the_log_is_announced(log: MemoryLog, hub: Hub) -> None:
    await write(log, *range(1, 6))
    (lease,) = await log.claim("w", ttl=10)
    await log.settle(lease, 5)
    await log.trim(Retention(node_bytes=2 * (RECORD_OVERHEAD + 1)), now=0.0)
    async with await hub.subscribe(NODE, 0, Counting()) as subscription:
        assert told(await collect(subscription, 3)) == [Gap(1, 3, "truncated"), (4, 4), (5, 5)]


async def test_a_log_that_was_emptied_is_followed_from_where_the_node_stands(log: MemoryLog, hub: Hub) -> None:
    """The catalog knows of seven records, the log of none: who wants the first is told, who wants the next gets them."""
    async with asyncio.timeout(10):
        late = await hub.subscribe(NODE, 0, Counting(), floor=7)
        live = await hub.subscribe(NODE, None, Counting(), floor=7)
        async with late, live:
            assert told(await collect(late, 1)) == [Gap(1, 7, "truncated")]
            await log.append(NODE, Draft(ArrayWritten((1,)), 0.0, b"8"), floor=7)
            assert told(await collect(late, 1)) == [(8, 8)]
            assert told(await collect(live, 1)) == [(8, 8)]


async def test_records_that_are_not_delivered_only_move_the_cursor(log: MemoryLog, hub: Hub) -> None:
    await log.append(NODE, Draft(ChildDeleted("x", "y"), 0.0))
    await write(log, 2)
    async with await hub.subscribe(NODE, 0, Counting()) as subscription:
        assert told(await collect(subscription, 1)) == [(2, 2)]
        assert subscription.cursor == 2


async def test_a_deleted_node_ends_its_subscriptions(log: MemoryLog, hub: Hub) -> None:
    await write(log, 1)
    async with await hub.subscribe(NODE, None, Counting()) as subscription:
        waiting = asyncio.create_task(collect(subscription, 1))
        await asyncio.sleep(0.01)
        await log.drop(NODE)
        assert told(await waiting) == [Over("deleted")]


async def test_draining_tells_everyone_and_leaves_no_task(log: MemoryLog, hub: Hub) -> None:
    before = len(asyncio.all_tasks())
    subscriptions = [await hub.subscribe(f"n{k}", None, Counting()) for k in range(5)]
    waiting = [asyncio.create_task(collect(s, 1)) for s in subscriptions]
    await asyncio.sleep(0.01)
    await hub.drain()
    assert [told(w) for w in await asyncio.gather(*waiting)] == [[Over("restart")]] * 5
    with pytest.raises(Unavailable):
        await hub.subscribe(NODE, None, Counting())
    assert len(asyncio.all_tasks()) == before  # I9


async def test_the_last_reader_takes_the_tail_along(log: MemoryLog, hub: Hub) -> None:
    before = len(asyncio.all_tasks())
    async with await hub.subscribe(NODE, None, Counting("a")), await hub.subscribe(NODE, None, Counting("b")):
        assert hub.stats().tails == 1
        assert hub.subscribers() == 2
    assert hub.stats().tails == 0
    assert len(asyncio.all_tasks()) == before


async def test_sixteen_writers_and_a_reader_that_is_cancelled_at_random(log: MemoryLog, hub: Hub) -> None:
    async def writer(k: int) -> None:
        for n in range(50):
            await write(log, k * 50 + n)
            await asyncio.sleep(0)

    received: list[Item] = []
    async with await hub.subscribe(NODE, 0, Counting()) as subscription, asyncio.TaskGroup() as group:
        for k in range(16):
            group.create_task(writer(k))
        while len(received) < 800:
            try:
                async with asyncio.timeout(0.0005):
                    received += await subscription.take()
            except TimeoutError:
                continue
    assert [i.sequence for i in received if isinstance(i, Frame)] == list(range(1, 801))  # I3
    assert sorted(int(i.data) for i in received if isinstance(i, Frame)) == list(range(800))
