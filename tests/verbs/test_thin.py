"""Fewer messages: each record is stood for by exactly one of them, the last value always comes, nothing is reordered (I3)."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import numpy
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiled_stream.broadcast import thin as thin_module
from tiled_stream.broadcast.hub import Frame, Gap, Hub, Item, Over, Skipped, Subscription
from tiled_stream.domain.events import ArrayWritten, Draft, Record, RecordLost, RowsAppended, StreamEnded
from tiled_stream.log.memory import MemoryLog
from tiled_stream.wire.tables import ARROW_FILE, encode_table
from tiled_stream.wire.views import Thinning

NODE = "n"
SCHEMA = pyarrow.schema([("x", pyarrow.float64()), ("name", pyarrow.string())])

#: Records that come at once, and how long nothing comes after them, in milliseconds. Then: does the reader look?
BURSTS = st.lists(st.tuples(st.integers(1, 30), st.sampled_from((0, 0, 1, 4)), st.booleans()), min_size=1, max_size=12)


def encode(record: Record) -> bytes | None:
    return record.payload if isinstance(record.event, ArrayWritten | RowsAppended) else None


def rows(values: list[float]) -> bytes:
    return encode_table(pyarrow.table({"x": values, "name": [str(v) for v in values]}, schema=SCHEMA), ARROW_FILE)


def values_of(frame: Frame) -> list[float]:
    table: Any = pyarrow.ipc.open_file(frame.data).read_all()
    return list(table["x"].to_pylist())


async def played(
    bursts: list[tuple[int, int, bool]], thinning: Thinning, drafts: list[Draft], *, after: int, early: int
) -> list[Item]:
    """All that a reader gets who comes when `early` records are there and looks now and then."""
    log = MemoryLog()
    await log.open()
    hub = Hub(log, now=lambda: 1.0)
    pending = iter(drafts)
    items: list[Item] = []

    async def look(subscription: Subscription) -> None:
        found = await subscription.look()
        while found is not None and Over("ended") not in found:
            items.extend(found)
            found = await subscription.look()

    try:
        for _ in range(early):
            await log.append(NODE, next(pending))
        subscription = await hub.subscribe(NODE, after, encode, thin=thinning)
        for count, pause, looks in bursts:
            for _ in range(count):
                if (draft := next(pending, None)) is not None:
                    await log.append(NODE, draft)
            await asyncio.sleep(pause / 1000)
            if looks:
                await look(subscription)
        for draft in pending:
            await log.append(NODE, draft)
        await log.append(NODE, Draft(StreamEnded(), 0.0))
        async with asyncio.timeout(10):
            while not items or items[-1] != Over("ended"):
                items += await subscription.take()
        await subscription.__aexit__()
    finally:
        await hub.drain()
        await log.close()
    return items[:-1]


@settings(deadline=None, max_examples=60)
@given(bursts=BURSTS, early=st.integers(0, 40), after=st.integers(0, 40), hz=st.sampled_from((100.0, 500.0)))
def test_the_latest_stands_for_those_before_it(bursts: list[tuple[int, int, bool]], early: int, after: int, hz: float) -> None:
    total = early + sum(count for count, _, _ in bursts)
    after = min(after, early)
    drafts = [Draft(ArrayWritten((1,)), 0.0, b"%d" % n) for n in range(1, total + 1)]
    items = asyncio.run(played(bursts, Thinning(1 / hz), drafts, after=after, early=early))
    stood = after
    for item in items:
        if isinstance(item, Skipped):
            stood += item.count
        else:
            assert isinstance(item, Frame)
            stood += 1
            assert (item.sequence, item.data) == (stood, b"%d" % stood)
    assert stood == total


@settings(deadline=None, max_examples=60)
@given(
    bursts=BURSTS,
    early=st.integers(0, 40),
    after=st.integers(0, 40),
    page=st.sampled_from((7, 500)),
    seed=st.integers(0, 1 << 16),
)
def test_extremes_are_those_of_the_rows_they_stand_for(
    bursts: list[tuple[int, int, bool]], early: int, after: int, page: int, seed: int
) -> None:
    total = early + sum(count for count, _, _ in bursts)
    after = min(after, early)
    generator = numpy.random.default_rng(seed)
    numbers = generator.permutation(3 * total).astype(float)
    sizes = generator.integers(1, 4, total)
    edges = [0, *numpy.cumsum(sizes).tolist()]
    written = [numbers[begin:end].tolist() for begin, end in itertools.pairwise(edges)]
    drafts = [Draft(RowsAppended(0, len(some)), 0.0, rows(some)) for some in written]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thin_module, "PAGE_RECORDS", page)
        items = asyncio.run(played(bursts, Thinning(0.01, is_minmax=True, columns=("x",)), drafts, after=after, early=early))
    reached = after
    for item in items:
        assert not isinstance(item, Gap)
        if isinstance(item, Frame):
            meant = [value for some in written[reached : item.sequence] for value in some]
            assert values_of(item) == [value for value in meant if value in (min(meant), max(meant))]
            reached = item.sequence
    assert reached == total


@pytest.mark.parametrize("is_minmax", [False, True])
@settings(max_examples=30)
@given(
    lost=st.sets(st.integers(1, 30), max_size=12),
    early=st.integers(0, 30),
    after=st.integers(0, 10),
    frames=st.sampled_from((2, 64)),
)
def test_losses_are_announced_whatever_is_passed_over(
    is_minmax: bool, lost: set[int], early: int, after: int, frames: int
) -> None:
    """Each record after the cursor is stood for by a message or announced, and exactly the lost ones are announced."""
    drafts = [Draft(RecordLost(), 0.0) if n in lost else Draft(RowsAppended(0, 1), 0.0, rows([float(n)])) for n in range(1, 31)]
    bursts = [(5, 1, True), (3, 0, False), (9, 2, True)]
    thinning = Thinning(0.001, is_minmax)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thin_module, "_FRAMES", frames)
        items = asyncio.run(played(bursts, thinning, drafts, after=min(after, early), early=early))
    announced = [n for item in items if isinstance(item, Gap) for n in range(item.first, item.last + 1)]
    assert {item.reason for item in items if isinstance(item, Gap)} <= {"lost"}
    assert announced == sorted(n for n in lost if n > min(after, early))
    delivered = [item.sequence for item in items if isinstance(item, Frame)]
    assert delivered == sorted(set(delivered) - lost)
    if kept := [n for n in range(min(after, early) + 1, 31) if n not in lost]:
        assert delivered[-1] == kept[-1]
