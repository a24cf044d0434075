"""What every engine promises as a `Log`; with the backlog and retention, all that `LogEngine` says.

    class TestMyLog(LogContract):
        @pytest.fixture
        async def engine(self) -> AsyncIterator[LogEngine]: ...     # opened, empty; closed afterwards

An engine that outlives its process takes `DurableLogContract`. An engine whose clock the tests
hold overrides `elapse`. The oracle is written here, as lists and numbers: nothing is computed by the code under test.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from ..domain.errors import Conflict, EpochChanged, Gone, Truncated, Unavailable
from ..domain.events import Draft, Event, Record
from ..domain.nodes import NodeId, Spec
from ..log.port import LogEngine
from . import factories as make
from .backlog_contract import LONG, PATIENCE, BacklogContract, claim_one, fill, settle_at, waits
from .factories import draft, new_id
from .restore_contract import RestoreContract
from .retention_contract import RetentionContract

__all__ = ["LogContract", "Reopen", "every_event", "sequences"]

Reopen = Callable[[LogEngine], Awaitable[LogEngine]]


def every_event() -> list[Event]:
    """One of each kind, with everything in it that can be."""
    from ..domain import events as told

    structure = make.array_structure((4, 3), chunks=((2, 2), (3,)), dims=("t", "x"))
    metadata = {"a": [1, 2.5, None, True, {"ü": "☃"}], "n": -(2**63), "m": 2**64 - 1}
    source = make.array_node(structure=structure).data_sources[0]
    return [
        make.child_created(make.container_node(metadata=metadata, specs=("BlueskyRun",), access_tags=("x",), time=1.5)),
        make.child_created(make.array_node(structure=structure)),
        make.child_created(make.table_node(parameters={"dataset_id": 3})),
        told.ChildMetadataUpdated("k", new_id(), metadata, (Spec("s", "1.0"), Spec("t")), ("a", "b"), 4),
        told.ChildMetadataUpdated("", "root", {}, (), (), None),
        told.ChildDeleted("k", new_id()),
        told.RevisionDeleted("k", new_id(), 7),
        make.array_written((4, 3)),
        make.array_written((2, 3), block=(1, 0), persist=False),
        make.array_written((1, 3), offset=(4,), structure=structure),
        told.ArrayReferenced(source, (0,), (4, 3)),
        told.AssetDeleted(source),
        make.rows_appended(3, partition=1),
        told.TableWritten(None, 9),
        told.StreamEnded(),
    ]


def sequences(records: list[Record]) -> list[int]:
    """Where they stand."""
    return [record.sequence for record in records]


def payloads(records: list[Record]) -> list[bytes]:
    """What they carry."""
    return [record.payload for record in records]


class LogContract(BacklogContract, RetentionContract, RestoreContract):
    """Subclasses provide `engine`: an opened, empty engine of their own."""

    @pytest.fixture
    async def engine(self) -> LogEngine:
        raise NotImplementedError("give the fixture `engine`")

    # -------------------------------------------------------------- append

    async def test_sequences_begin_at_one_and_are_dense(self, engine: LogEngine) -> None:
        node = new_id()
        told = [await engine.append(node, draft(n)) for n in range(5)]
        assert [position.sequence for position in told] == [1, 2, 3, 4, 5]
        assert {position.epoch for position in told} == {engine.epoch}
        assert sequences(await engine.read(node, 0)) == [1, 2, 3, 4, 5]

    async def test_many_drafts_are_one_step(self, engine: LogEngine) -> None:
        node = new_id()
        await engine.append(node, draft(1))
        assert (await engine.append(node, draft(2), draft(3), draft(4))).sequence == 4
        assert sequences(await engine.read(node, 0)) == [1, 2, 3, 4]

    async def test_nodes_are_numbered_each_for_itself(self, engine: LogEngine) -> None:
        first, second = new_id(), new_id()
        await fill(engine, first, 1, 2, 3)
        assert (await engine.append(second, draft())).sequence == 1
        assert (await engine.append("root", draft())).sequence == 1

    async def test_what_was_written_is_read(self, engine: LogEngine) -> None:
        node = new_id()
        drafts = [Draft(event, 1_700_000_000.125 + n, bytes([n]) * n) for n, event in enumerate(every_event())]
        await engine.append(node, *drafts)
        records = await engine.read(node, 0)
        assert records == [Record(n, d.time, d.event, d.payload) for n, d in enumerate(drafts, start=1)]
        assert await engine.read(node, 0) == records  # I2

    async def test_large_payloads(self, engine: LogEngine) -> None:
        node = new_id()
        body = random.Random(0).randbytes(3 << 20)
        await engine.append(node, draft(1, body))
        assert payloads(await engine.read(node, 0)) == [body]

    async def test_nothing_to_append(self, engine: LogEngine) -> None:
        node = new_id()
        with pytest.raises(ValueError, match="nothing"):
            await engine.append(node)
        assert (await engine.head(node)).sequence == 0

    async def test_expected_is_the_head(self, engine: LogEngine) -> None:
        node = new_id()
        await engine.append(node, draft(1), expected=0)
        await engine.append(node, draft(2), draft(3), expected=1)
        for wrong in (0, 2, 4):
            with pytest.raises(Conflict) as lost:
                await engine.append(node, draft(9), expected=wrong)
            assert lost.value.head == 3
        assert sequences(await engine.read(node, 0)) == [1, 2, 3]

    async def test_one_of_many_who_expect_the_same_wins(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2)
        race = (engine.append(node, draft(1, b"%d" % n), expected=2) for n in range(20))
        results = await asyncio.gather(*race, return_exceptions=True)
        winners = [n for n, result in enumerate(results) if not isinstance(result, BaseException)]
        assert len(winners) == 1
        assert all(isinstance(r, Conflict) for n, r in enumerate(results) if n not in winners)
        assert payloads(await engine.read(node, 2)) == [b"%d" % winners[0]]

    async def test_a_floor_keeps_sequences_rising(self, engine: LogEngine) -> None:
        node = new_id()
        assert (await engine.append(node, draft(1), floor=41)).sequence == 42  # I1
        assert sequences(await engine.read(node, 41)) == [42]
        with pytest.raises(Truncated) as told:
            await engine.read(node, 0)
        assert told.value.first == 42
        assert (await engine.append(node, draft(2), floor=7)).sequence == 43  # no lower than it stands
        assert sequences(await engine.read(node, 41)) == [42, 43]
        assert await settle_at(engine, node, 43)

    async def test_a_floor_above_what_is_there(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2, 3)
        assert (await engine.append(node, draft(4), draft(5), floor=10)).sequence == 12
        assert sequences(await engine.read(node, 10)) == [11, 12]
        with pytest.raises(Truncated) as told:
            await engine.read(node, 3)
        assert told.value.first == 11
        assert await engine.dirty() == [(node, 12)]

    async def test_expected_takes_the_floor_into_account(self, engine: LogEngine) -> None:
        node = new_id()
        with pytest.raises(Conflict) as lost:
            await engine.append(node, draft(), expected=0, floor=5)
        assert lost.value.head == 5
        assert (await engine.append(node, draft(), expected=5, floor=5)).sequence == 6
        assert (await engine.append(node, draft(), expected=6, floor=5)).sequence == 7

    async def test_guards_must_not_have_moved(self, engine: LogEngine) -> None:
        node, first, second, never = (new_id() for _ in range(4))
        await fill(engine, first, 1, 2)
        await fill(engine, second, 1)
        assert (await engine.append(node, draft(), guards={first: 2, second: 1, never: 0})).sequence == 1
        assert (await engine.append(node, draft(), expected=1, guards={first: 2})).sequence == 2
        # A head that is lower than what somebody saw was forgotten by this log; what is above it is what matters.
        assert (await engine.append(node, draft(), guards={first: 3, never: 1})).sequence == 3
        for guards in ({first: 1}, {first: 2, second: 0}, {second: 0, never: 1}):
            with pytest.raises(Conflict) as lost:
                await engine.append(node, draft(), guards=guards)
            assert lost.value.head is None
        await fill(engine, second, 2)
        with pytest.raises(Conflict):
            await engine.append(node, draft(), guards={second: 1})
        await engine.drop(first)
        with pytest.raises(Conflict):
            await engine.append(node, draft(), guards={first: 2})
        assert (await engine.head(node)).sequence == 3

    async def test_of_two_who_guard_each_other_one_wins(self, engine: LogEngine) -> None:
        first, second = new_id(), new_id()
        race = (engine.append(first, draft(), guards={second: 0}), engine.append(second, draft(), guards={first: 0}))
        results = await asyncio.gather(*race, return_exceptions=True)
        assert sum(await engine.heads([first, second]), 0) == 1  # type: ignore[arg-type]
        assert [isinstance(result, Conflict) for result in results].count(True) == 1

    # ---------------------------------------------------------------- read

    async def test_read_begins_after_the_cursor(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, *range(10))
        assert sequences(await engine.read(node, 7)) == [8, 9, 10]
        assert await engine.read(node, 10) == []
        assert await engine.read(node, 11) == []
        assert await engine.read(new_id(), 0) == []
        assert await engine.read(new_id(), 5) == []

    async def test_read_is_bounded(self, engine: LogEngine) -> None:
        node = new_id()
        for n in range(10):
            await engine.append(node, draft(n, bytes(1000)))
        assert sequences(await engine.read(node, 0, limit=3)) == [1, 2, 3]
        assert sequences(await engine.read(node, 8, limit=3)) == [9, 10]
        by_bytes = sequences(await engine.read(node, 2, max_bytes=3500))
        assert by_bytes == [3, 4, 5, 6][: len(by_bytes)]
        assert 2 <= len(by_bytes) <= 4
        assert sequences(await engine.read(node, 4, max_bytes=1)) == [5]  # one at least
        assert sequences(await engine.read(node, 4, limit=1, max_bytes=1 << 30)) == [5]

    async def test_another_epoch_is_told(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1)
        assert sequences(await engine.read(node, 0, epoch=engine.epoch)) == [1]
        with pytest.raises(EpochChanged) as told:
            await engine.read(node, 0, epoch="another")
        assert told.value.now == engine.epoch

    async def test_head(self, engine: LogEngine) -> None:
        node = new_id()
        assert (await engine.head(node)).sequence == 0
        await fill(engine, node, 1, 2)
        position = await engine.head(node)
        assert (position.epoch, position.sequence) == (engine.epoch, 2)

    async def test_heads_of_many_nodes(self, engine: LogEngine) -> None:
        long, short, empty, gone = (new_id() for _ in range(4))
        await fill(engine, long, 1, 2, 3)
        await fill(engine, short, 1)
        await fill(engine, gone, 1)
        await engine.drop(gone)
        assert await engine.heads([short, empty, gone, long, short]) == [1, 0, None, 3, 1]
        assert await engine.heads([]) == []

    async def test_headers_alone(self, engine: LogEngine) -> None:
        node = new_id()
        drafts = [draft(n, bytes(size)) for n, size in enumerate((0, 10, 5000, 1 << 20))]
        await engine.append(node, *drafts)
        records = await engine.read(node, 0, headers=True)
        assert sequences(records) == [1, 2, 3, 4]
        assert [(r.event, r.time) for r in records] == [(d.event, d.time) for d in drafts]
        assert all(record.payload in (b"", d.payload) for record, d in zip(records, drafts, strict=True))

    # ---------------------------------------------------------------- wait

    async def test_an_append_wakes_all_who_wait(self, engine: LogEngine) -> None:
        node = new_id()
        waiting = [await waits(self._wait_until(engine, node, 0)) for _ in range(10)]
        waiting[3].cancel()  # disturbs nobody
        await fill(engine, node, 1)
        async with asyncio.timeout(PATIENCE):
            results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(r, asyncio.CancelledError) for r in results] == [n == 3 for n in range(10)]

    async def test_no_waiting_for_what_is_there(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1, 2)
        async with asyncio.timeout(PATIENCE):
            await engine.wait(node, 1)
            await engine.wait(node, 0)

    async def test_following_misses_nothing(self, engine: LogEngine) -> None:
        node = new_id()
        followers = [await waits(self._follow(engine, node, 60)) for _ in range(3)]
        for n in range(60):
            await engine.append(node, draft(1, b"%d" % n))
            if n % 7 == 0:
                await asyncio.sleep(0.001)
        async with asyncio.timeout(PATIENCE):
            for follower in followers:
                assert payloads(await follower) == [b"%d" % n for n in range(60)]  # I3

    async def _wait_until(self, engine: LogEngine, node: NodeId, after: int) -> None:
        while (await engine.head(node)).sequence <= after:
            await engine.wait(node, after)
            await asyncio.sleep(0)

    async def _follow(self, engine: LogEngine, node: NodeId, count: int) -> list[Record]:
        seen: list[Record] = []
        while len(seen) < count:
            records = await engine.read(node, seen[-1].sequence if seen else 0, limit=4)
            seen += records
            if not records:
                await engine.wait(node, len(seen))
                await asyncio.sleep(0)
        assert sequences(seen) == list(range(1, count + 1))
        return seen

    # ---------------------------------------------------------------- drop

    async def test_a_dropped_node_is_gone(self, engine: LogEngine) -> None:
        node, other, never = new_id(), new_id(), new_id()
        await fill(engine, node, 1)
        await fill(engine, other, 1)
        await engine.drop(node, never)
        await engine.drop(node)
        await engine.drop()
        for gone in (node, never):
            with pytest.raises(Gone):
                await engine.append(gone, draft())
            with pytest.raises(Gone):
                await engine.read(gone, 0)
            with pytest.raises(Gone):
                await engine.head(gone)
        assert await engine.dirty() == [(other, 1)]
        assert (await engine.lag()).nodes == 1

    async def test_a_drop_wakes_who_waits(self, engine: LogEngine) -> None:
        node = new_id()
        async with asyncio.timeout(PATIENCE):
            waiting = await waits(self._wait_until(engine, node, 0))
            await engine.drop(node)
            with pytest.raises(Gone):
                await waiting
            await engine.wait(node, 0)

    # ------------------------------------------------------ many at a time

    async def test_a_hundred_writers_of_one_node(self, engine: LogEngine) -> None:
        node = new_id()
        told = await asyncio.gather(*(engine.append(node, draft(1, b"%d" % n)) for n in range(100)))
        assert sorted(position.sequence for position in told) == list(range(1, 101))
        records = await engine.read(node, 0)
        assert sequences(records) == list(range(1, 101))
        for n, position in enumerate(told):
            assert records[position.sequence - 1].payload == b"%d" % n

    async def test_a_hundred_writers_of_many_nodes(self, engine: LogEngine) -> None:
        nodes = [new_id() for _ in range(20)]

        async def write(place: int) -> None:
            for turn in range(5):
                drafts = [draft(1, b"%d.%d.%d" % (place, turn, part)) for part in range(3)]
                last = (await engine.append(nodes[place % 20], *drafts)).sequence
                assert payloads(await engine.read(nodes[place % 20], last - 3, limit=3)) == [d.payload for d in drafts]

        await asyncio.gather(*(write(place) for place in range(100)))
        for node in nodes:
            assert sequences(await engine.read(node, 0)) == list(range(1, 76))
        assert sorted(await engine.dirty()) == sorted((node, 75) for node in nodes)

    async def test_a_cancelled_append_happened_whole_or_not_at_all(self, engine: LogEngine) -> None:
        node = new_id()
        chance = random.Random(1)
        done: list[int] = []
        for attempt in range(60):
            drafts = [draft(1, b"%d.%d" % (attempt, part)) for part in range(3)]
            task = asyncio.create_task(engine.append(node, *drafts), name="append")
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            task.cancel()
            results = await asyncio.gather(task, return_exceptions=True)
            if not isinstance(results[0], BaseException):
                done.append(attempt)
        await engine.append(node, draft(1, b"last"))
        read = payloads(await engine.read(node, 0))
        assert read.pop() == b"last"
        groups = [read[n : n + 3] for n in range(0, len(read), 3)]
        attempts = [int(group[0].split(b".")[0]) for group in groups]
        assert groups == [[b"%d.%d" % (attempt, part) for part in range(3)] for attempt in attempts]
        assert attempts == sorted(set(attempts))
        assert set(done) <= set(attempts)  # I6

    # --------------------------------------------------------------- close

    async def test_closing_leaves_nobody_waiting(self, engine: LogEngine) -> None:
        node = new_id()
        await fill(engine, node, 1)
        lease = await claim_one(engine, node)
        reader = await waits(engine.reached(node, 1))
        others = [await waits(engine.wait(new_id(), 0)), await waits(engine.wait_dirty())]
        await engine.close()
        await engine.close()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*others)
            with pytest.raises(Unavailable):  # to return would say that it is persisted (I7)
                await reader
        await engine.release(lease)
        for refused in (engine.append(node, draft()), engine.read(node, 0), engine.wait(node, 1), engine.claim("w", ttl=LONG)):
            with pytest.raises(Unavailable):
                await refused
        assert asyncio.all_tasks() == {asyncio.current_task()}  # I9
