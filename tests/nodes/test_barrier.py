"""The barrier asks the log no more than it must, and never lets a reader through too early."""

from __future__ import annotations

import asyncio

import pytest

from tiled_stream.domain.errors import InDoubt, Unavailable
from tiled_stream.log.memory import MemoryLog
from tiled_stream.nodes import barrier as module
from tiled_stream.nodes.barrier import Barrier
from tiled_stream.testing.factories import draft, new_id


class Counting(MemoryLog):
    """Counts what is asked of the backlog."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def reached(self, node: str, sequence: int) -> None:
        self.asked += 1
        await super().reached(node, sequence)


async def persist(log: MemoryLog, sequence: int) -> None:
    (lease,) = await log.claim("w", ttl=60)
    await log.settle(lease, sequence)


async def test_what_was_persisted_once_is_not_asked_again() -> None:
    log, node = Counting(), new_id()
    barrier = Barrier(log, timeout=0.2)
    await barrier.settle_at(node, 0)
    assert log.asked == 0  # an empty log owes nothing
    await log.append(node, draft(1), draft(1))
    waiting = asyncio.create_task(barrier.settle_at(node, 2))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await persist(log, 2)
    await waiting
    for head in (2, 1, 2):
        await barrier.settle_at(node, head)
    assert log.asked == 1
    await log.append(node, draft(1))
    with pytest.raises(Unavailable, match="Storage has not caught up"):
        await barrier.settle_at(node, 3)
    await barrier.settle_at(node, 2)  # whoever was answered before still is
    await persist(log, 3)
    await barrier.settle_at(node, 3)


async def test_a_write_that_is_not_confirmed_in_time_is_in_doubt() -> None:
    log, node = MemoryLog(), new_id()
    await log.append(node, draft(1))
    with pytest.raises(InDoubt, match="It was written, but"):
        await Barrier(log, timeout=0.01).reach(node, 1)


async def test_forgetting_asks_again() -> None:
    log, node = Counting(), new_id()
    barrier = Barrier(log, timeout=0.2)
    await log.append(node, draft(1))
    await persist(log, 1)
    for asked in (1, 2):
        await barrier.settle_at(node, 1)
        assert log.asked == asked
        barrier.forget()


async def test_it_remembers_a_bounded_number_of_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    log = Counting()
    barrier = Barrier(log, timeout=0.2)
    nodes = [new_id() for _ in range(3)]
    for node in nodes:
        await log.append(node, draft(1))
        await persist(log, 1)
        await barrier.settle_at(node, 1)
    assert log.asked == 3
    await barrier.settle_at(nodes[2], 1)
    assert log.asked == 3
    await barrier.settle_at(nodes[0], 1)
    assert log.asked == 4
