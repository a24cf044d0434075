"""Logs that cannot be reached for a while, and logs that were lost and restored in part."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

from tiled_stream.domain.errors import Unavailable
from tiled_stream.domain.events import Draft, Record, RecordLost
from tiled_stream.domain.nodes import NodeId
from tiled_stream.log.memory import MemoryLog
from tiled_stream.testing.faults import FaultyLog

__all__ = ["Away", "LossyLog", "away_log"]

T = TypeVar("T")


class Away:
    """While `is_away`, steps raise `Unavailable`. `tries`: how many did."""

    def __init__(self, sentence: str = "Out of order, on purpose.") -> None:
        self.sentence = sentence
        self.is_away = False
        self.tries = 0

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        if self.is_away:
            self.tries += 1
            raise Unavailable(self.sentence)
        result = await call()
        if self.is_away:  # it went away meanwhile; nobody hears of the result
            self.tries += 1
            raise Unavailable(self.sentence)
        return result


def away_log(inner: MemoryLog) -> tuple[FaultyLog, Away]:
    """A log, and the switch that takes it away for all who read it."""
    away = Away()
    return FaultyLog(inner, away, steps={"read", "head", "heads", "wait", "append"}), away


class LossyLog(FaultyLog):
    """A log that can be lost and restored, as a Redis that was emptied is by the servers that use it."""

    def __init__(self) -> None:
        super().__init__(MemoryLog(), Away(), steps=())

    async def lose(self, node: NodeId, *, keep: Sequence[int], lost: Collection[int] = ()) -> None:
        """Begin another epoch that has the records `keep` of `node`; those in `lost` are marks that say so."""
        old, new = self._inner, MemoryLog()
        await new.open()
        records = {record.sequence: record for record in await old.read(node, 0)}
        for sequence in sorted({*keep, *lost}):
            record = records[sequence]
            event = RecordLost() if sequence in lost else record.event
            draft = Draft(event, record.time, b"" if sequence in lost else record.payload)
            await new.append(node, draft, floor=sequence - 1)
        self._inner = new
        await old.close()

    async def read_all(self, node: NodeId) -> list[Record]:
        """What the log has of a node."""
        return await self._inner.read(node, 0)
