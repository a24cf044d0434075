"""Every record after the cursor, once, in order, or the reason why not (I3); a slow reader costs the others nothing (I8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from tests.verbs.logs import Away, LossyLog, away_log
from tiled_stream.broadcast import outages as outages_module
from tiled_stream.broadcast import tail as tail_module
from tiled_stream.broadcast.hub import Frame, Gap, Hub, Item, Over, Subscription
from tiled_stream.domain.errors import DataLost, Unavailable
from tiled_stream.domain.events import ArrayWritten, ChildDeleted, Draft, Record, RecordLost, StreamEnded
from tiled_stream.domain.past import PastPage
from tiled_stream.log.memory import RECORD_OVERHEAD, MemoryLog
from tiled_stream.log.port import LogEngine, Retention

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


async def write(log: LogEngine, *values: int) -> None:
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


# ------------------------------------------------------------ a log that cannot be reached


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other without long pauses."""
    monkeypatch.setattr(outages_module, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(outages_module, "MOST_SECONDS", 0.005)


async def tried(away: Away, tries: int) -> None:
    """Until the log was asked in vain so many times more."""
    goal = away.tries + tries
    async with asyncio.timeout(10):
        while away.tries < goal:  # noqa: ASYNC110 - a count, not an event
            await asyncio.sleep(0.001)


@pytest.mark.usefixtures("quick")
async def test_tail_survives_a_log_that_cannot_be_reached(log: MemoryLog, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tiled_stream.broadcast")
    faulty, away = away_log(log)
    hub = Hub(faulty, now=lambda: 1.0)
    await write(log, 1)
    async with await hub.subscribe(NODE, 0, Counting()) as first, await hub.subscribe("other", None, Counting()):
        assert told(await collect(first, 1)) == [(1, 1)]
        waiting = asyncio.create_task(collect(first, 2))
        away.is_away = True
        await write(log, 2, 3)
        await log.append("other", Draft(ArrayWritten((1,)), 0.0, b"1"))
        await tried(away, 20)
        assert not waiting.done()
        away.is_away = False
        assert told(await waiting) == [(2, 2), (3, 3)]
        async with asyncio.timeout(10):
            while len(hub._outages):  # noqa: ASYNC110 - a count, not an event
                await asyncio.sleep(0.001)
    await hub.drain()
    # One line for the outage, not one for each try or each tail.
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert caplog.records[0].getMessage() == "Streams stay connected and wait: Out of order, on purpose."


@pytest.mark.usefixtures("quick")
async def test_replay_goes_on_where_the_log_went_away(log: MemoryLog) -> None:
    faulty, away = away_log(log)
    hub = Hub(faulty, now=lambda: 1.0)
    await write(log, *range(1, 1201))
    async with await hub.subscribe(NODE, 0, Counting()) as subscription:
        items = await collect(subscription, 1)
        away.is_away = True
        waiting = asyncio.create_task(collect(subscription, 1200 - len(items)))
        await tried(away, 10)
        assert not waiting.done()
        away.is_away = False
        assert told(items + await waiting) == [(n, n) for n in range(1, 1201)]
    await hub.drain()


class Storage:
    """Tells the past as gaps, once it can be reached."""

    def __init__(self, away: Away) -> None:
        self.away = away

    async def page(self, node: str, after: int, upto: int, state: object) -> PastPage:
        async def found() -> PastPage:
            event = ArrayWritten((1,))
            return PastPage((Record(upto, 0.0, event, b"%d" % upto, covers=(after + 1, upto)),), upto)

        return await self.away(found)

    async def ended(self, node: str) -> int:
        return 0


async def trimmed(log: MemoryLog, keep: int) -> None:
    (lease,) = await log.claim("w", ttl=10)
    await log.settle(lease, (await log.head(NODE)).sequence)
    await log.trim(Retention(node_bytes=keep * (RECORD_OVERHEAD + 1)), now=0.0)


@pytest.mark.usefixtures("quick")
async def test_backfill_waits_for_storage_and_live_records_of_others_go_on(log: MemoryLog) -> None:
    away = Away("The catalog cannot be reached.")
    hub = Hub(log, now=lambda: 1.0, past=Storage(away))
    await write(log, *range(1, 6))
    await trimmed(log, 2)
    away.is_away = True
    async with await hub.subscribe(NODE, 0, Counting()) as late, await hub.subscribe(NODE, None, Counting()) as live:
        waiting = asyncio.create_task(collect(late, 4))
        await tried(away, 10)
        await write(log, 6)
        assert told(await collect(live, 1)) == [(6, 6)]
        assert not waiting.done()
        away.is_away = False
        assert told(await waiting) == [(3, 3), (4, 4), (5, 5), (6, 6)]
    await hub.drain()


async def test_data_that_are_lost_in_storage_are_a_gap(log: MemoryLog) -> None:
    class Lost(Storage):
        async def page(self, node: str, after: int, upto: int, state: object) -> PastPage:
            raise DataLost("Records 1 to 3 of this node are lost.")

    hub = Hub(log, now=lambda: 1.0, past=Lost(Away()))
    await write(log, *range(1, 6))
    await trimmed(log, 2)
    async with await hub.subscribe(NODE, 0, Counting()) as subscription:
        assert told(await collect(subscription, 3)) == [Gap(1, 3, "lost"), (4, 4), (5, 5)]
    await hub.drain()


@pytest.mark.usefixtures("quick")
async def test_draining_ends_subscriptions_that_wait_for_a_log(log: MemoryLog) -> None:
    before = len(asyncio.all_tasks())
    faulty, away = away_log(log)
    hub = Hub(faulty, now=lambda: 1.0)
    await write(log, 1)
    behind, live = await hub.subscribe(NODE, 0, Counting()), await hub.subscribe("other", None, Counting())
    away.is_away = True
    waiting = [asyncio.create_task(collect(subscription, 1)) for subscription in (behind, live)]
    await tried(away, 5)
    await hub.drain()
    assert [told(await task) for task in waiting] == [[Over("restart")]] * 2
    with pytest.raises(Unavailable):
        await hub.patiently(lambda: faulty.head(NODE))
    assert len(asyncio.all_tasks()) == before  # I9


async def test_draining_does_not_wait_for_a_log_that_hangs(log: MemoryLog) -> None:
    asked = asyncio.Event()

    class Hanging(MemoryLog):
        async def read(self, node: str, after: int, **more: object) -> list[Record]:  # type: ignore[override]
            if after == 0:
                asked.set()
                await asyncio.Event().wait()
            return []

    engine = Hanging()
    await engine.append(NODE, Draft(ArrayWritten((1,)), 0.0, b"1"))
    hub = Hub(engine, now=lambda: 1.0)
    async with asyncio.timeout(10), await hub.subscribe(NODE, 0, Counting()) as subscription:
        waiting = asyncio.create_task(collect(subscription, 1))
        await asked.wait()
        await hub.drain()
        assert told(await waiting) == [Over("restart")]


# ------------------------------------------------------------ a log that was lost and restored


@pytest.fixture
async def lossy() -> AsyncIterator[LossyLog]:
    engine = LossyLog()
    await engine.open()
    yield engine
    await engine.close()


def epoch_notice(cursor: int, log: LogEngine, head: int) -> Gap:
    return Gap(cursor + 1, cursor, "epoch", log.epoch, head)


@pytest.mark.usefixtures("quick")
async def test_restored_records_follow_the_notice_of_another_epoch(lossy: LossyLog) -> None:
    hub = Hub(lossy, now=lambda: 1.0)
    await write(lossy, 1, 2, 3)
    async with await hub.subscribe(NODE, 0, Counting()) as subscription:
        assert told(await collect(subscription, 3)) == [(1, 1), (2, 2), (3, 3)]
        await write(lossy, 4, 5, 6)
        await lossy.lose(NODE, keep=[2, 3, 4, 5, 6])  # before the tail has read 4, 5, 6
        assert told(await collect(subscription, 4)) == [epoch_notice(3, lossy, 6), (4, 4), (5, 5), (6, 6)]
        await write(lossy, 7)
        assert told(await collect(subscription, 1)) == [(7, 7)]
    await hub.drain()


@pytest.mark.usefixtures("quick")
async def test_reader_behind_its_tail_gets_what_was_restored(lossy: LossyLog) -> None:
    hub = Hub(lossy, now=lambda: 1.0)
    await write(lossy, *range(1, 7))
    async with await hub.subscribe(NODE, 2, Counting()) as behind, await hub.subscribe(NODE, None, Counting()) as live:
        await lossy.lose(NODE, keep=[1, 2, 3, 6], lost=[4, 5])
        assert told(await collect(behind, 4)) == [epoch_notice(2, lossy, 6), (3, 3), Gap(4, 5, "lost"), (6, 6)]
        assert told(await collect(live, 1)) == [epoch_notice(6, lossy, 6)]
    await hub.drain()


@pytest.mark.usefixtures("quick")
async def test_head_below_the_cursor_is_in_the_notice_and_no_sequence_comes_twice(lossy: LossyLog) -> None:
    hub = Hub(lossy, now=lambda: 1.0)
    await write(lossy, *range(1, 7))
    async with await hub.subscribe(NODE, 0, Counting()) as ahead, await hub.subscribe(NODE, 2, Counting()) as behind:
        assert told(await collect(ahead, 6)) == [(n, n) for n in range(1, 7)]
        await lossy.lose(NODE, keep=[1, 2, 3])
        assert told(await collect(ahead, 1)) == [epoch_notice(6, lossy, 3)]
        assert told(await collect(behind, 3)) == [epoch_notice(2, lossy, 3), (3, 3), Gap(4, 6, "truncated")]
        # Who has seen the sixth names it as the floor, so that its number is not given again.
        await lossy.append(NODE, Draft(ArrayWritten((1,)), 0.0, b"70"), floor=6)
        for subscription in (ahead, behind):
            assert told(await collect(subscription, 1)) == [(7, 70)]
    await hub.drain()


async def test_mark_of_a_lost_record_is_a_gap(log: MemoryLog, hub: Hub) -> None:
    async def lose(*sequences: int) -> None:
        for sequence in sequences:
            await log.append(NODE, Draft(RecordLost(), 0.0), expected=sequence - 1)

    await write(log, 1)
    await lose(2, 3)
    await write(log, 4)
    async with await hub.subscribe(NODE, 0, Counting()) as subscription:
        assert told(await collect(subscription, 3)) == [(1, 1), Gap(2, 3, "lost"), (4, 4)]
        await lose(5)
        assert told(await collect(subscription, 1)) == [Gap(5, 5, "lost")]
        await write(log, 6)
        assert told(await collect(subscription, 1)) == [(6, 6)]


@pytest.mark.parametrize("after", [0, 2, 3, 7])
async def test_resuming_from_another_epoch_begins_with_a_notice(log: MemoryLog, hub: Hub, after: int) -> None:
    await write(log, 1, 2, 3)
    async with await hub.subscribe(NODE, after, Counting(), epoch="another") as subscription:
        rest = [(n, n) for n in range(after + 1, 4)]
        assert told(await collect(subscription, 1 + len(rest))) == [epoch_notice(after, log, 3), *rest]
    async with await hub.subscribe(NODE, 2, Counting(), epoch=log.epoch) as subscription:
        assert told(await collect(subscription, 1)) == [(3, 3)]


async def test_epoch_that_changes_without_records_is_noticed(lossy: LossyLog, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(LossyLog):
        async def wait(self, node: str, after: int) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(tail_module, "LOOK_SECONDS", 0.01)
    deaf = Deaf()
    await deaf.open()
    hub = Hub(deaf, now=lambda: 1.0)
    await write(deaf, 1)
    async with await hub.subscribe(NODE, None, Counting()) as subscription:
        waiting = asyncio.create_task(collect(subscription, 1))
        await asyncio.sleep(0)
        await deaf.lose(NODE, keep=[1])
        assert told(await waiting) == [epoch_notice(1, deaf, 1)]
    await hub.drain()
    await deaf.close()


async def test_tail_that_fails_unforeseen_ends_its_subscriptions(log: MemoryLog, hub: Hub) -> None:
    """So that they come back, instead of waiting for a tail that is not there."""

    @dataclass(frozen=True)
    class Failing:
        def __call__(self, record: Record) -> bytes | None:
            raise ZeroDivisionError

    async with await hub.subscribe(NODE, None, Failing()) as subscription:
        await write(log, 1)
        assert told(await collect(subscription, 1)) == [Over("restart")]
