"""The wrappers are faithful: they do what they say and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tiled_stream.domain.errors import Unavailable
from tiled_stream.log.memory import MemoryLog
from tiled_stream.log.port import LogEngine
from tiled_stream.storage.port import ArrayBatch, ArrayStore
from tiled_stream.testing.factories import array_structure, draft, new_id
from tiled_stream.testing.faults import Crash, CrashAfter, FaultyLog, Flaky, LostHints, Slow, faulty_apply
from tiled_stream.testing.log_contract import LogContract


class TestSlowAndDeaf(LogContract):
    """Slow answers and lost hints are within the contract."""

    @pytest.fixture
    async def engine(self) -> AsyncIterator[LogEngine]:
        log = LostHints(FaultyLog(MemoryLog(), Slow(before=0.0001, after=0.0001)), poll=0.005)
        await log.open()
        yield log
        await log.close()


async def test_flaky_before_does_nothing_and_after_does_all() -> None:
    inner = MemoryLog()
    log = FaultyLog(inner, Flaky(["before", None, "after"]), steps={"append"})
    node = new_id()
    with pytest.raises(Unavailable):
        await log.append(node, draft(1))
    assert (await log.head(node)).sequence == 0
    await log.append(node, draft(1))
    with pytest.raises(Unavailable):
        await log.append(node, draft(1))
    assert (await log.head(node)).sequence == 2
    assert (await log.append(node, draft(1))).sequence == 3


class Counting:
    """As much of an array store as the wrapper needs."""

    def __init__(self) -> None:
        self.applied = 0

    async def apply(self, batches: Sequence[ArrayBatch]) -> None:
        self.applied += len(batches)


async def test_one_crash_for_the_whole_process() -> None:
    inner = MemoryLog()
    crash = CrashAfter(3)
    log = FaultyLog(inner, crash, steps={"append"})
    counting: Any = Counting()
    store: ArrayStore = faulty_apply(counting, crash)
    batch = ArrayBatch(new_id(), array_structure(), ())
    node = new_id()
    await log.append(node, draft(1))
    await store.apply([batch])
    assert not crash.is_dead
    with pytest.raises(Crash):
        await log.append(node, draft(2))
    assert crash.is_dead
    assert (await inner.head(node)).sequence == 2  # the last step was done
    with pytest.raises(Crash):
        await store.apply([batch])
    assert counting.applied == 1
