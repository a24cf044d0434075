"""Subscribers of this process: one tail a node reads the log once and encodes each record once per format for all of them.

A hint wakes, the log tells: a subscriber is a cursor, not a queue, so its memory is bounded whatever its speed, and a slow one
costs the others nothing (I8). It gets every record after its cursor once, in order, or a notice that says why not (I3). A
log or storage that cannot be reached ends no subscription; only new ones are refused meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from ..domain.errors import Unavailable
from ..domain.events import DELIVERED, Record
from ..domain.nodes import NodeId
from ..log.port import LogEngine
from .frames import Encoder, Frame, Gap, Item, Over, Skipped
from .outages import Outages, Pause
from .past import Past
from .subscription import Subscription
from .tail import Tail
from .thin import Thinner, ThinSubscription

__all__ = ["Encoder", "Frame", "Gap", "Hub", "HubStats", "Item", "Over", "Skipped", "Subscription"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class HubStats(msgspec.Struct, frozen=True):
    """Figures of this process: open subscriptions and tails now; the others since the start.

    `records` were read by tails, `messages` and `bytes` sent, `gaps` announced; `slow` subscribers were let go, for they did not
    read.
    """

    subscribers: int
    tails: int
    records: int
    messages: int = 0
    bytes: int = 0
    gaps: int = 0
    slow: int = 0


class _Shared:
    """A tail, the task that runs it and how many read it."""

    __slots__ = ("readers", "tail", "task")

    def __init__(self, tail: Tail, task: asyncio.Task[None]) -> None:
        self.tail = tail
        self.task = task
        self.readers = 0


class Hub:
    """All tails of this process. `now` gives seconds since the epoch; without `past`, what has left the log is a gap."""

    def __init__(self, log: LogEngine, *, now: Callable[[], float], past: Past | None = None) -> None:
        self._log = log
        self._past = past
        self._now = now
        self._outages = Outages(now)
        self._shared: dict[NodeId, _Shared] = {}
        self._draining = False
        self._attending: set[Callable[[], None]] = set()
        self._records = 0
        self._observers: list[Callable[[float], None]] = []
        self._messages = self._bytes = self._gaps = self._slow = 0

    async def subscribe(
        self,
        node: NodeId,
        after: int | None,
        encode: Encoder,
        *,
        floor: int = 0,
        epoch: str | None = None,
        thin: Thinner | None = None,
    ) -> Subscription:
        """Begin after sequence `after` (0: from the first; negative is 0; None: only what comes from now on).

        The position is fixed when this returns: whatever is appended afterwards will be delivered. An `after` beyond the
        head waits for later ones. `ended` once a `StreamEnded` was passed and nothing follows it. `Gone` if the node was
        deleted, `Unavailable` while draining and while the log cannot be reached. `floor`: how far the node is known to have been
        written, for a log that was emptied knows nothing of it. `epoch`: the one that `after` belongs to; if the log is in
        another one, the first item is a gap. `thin`: fewer messages.
        """
        position = await self._log.head(node)
        head = max(position.sequence, floor)
        if self._draining:
            raise Unavailable("This server is stopping; connect again.", retry_after=1.0)
        shared = self._shared.get(node)
        if shared is None or shared.task.done():
            shared = self._shared[node] = self._begin(node, head, position.epoch)
        shared.readers += 1

        async def leave() -> None:
            await self._leave(node, shared)

        # A tail that was there already may stand before the head; then its next reading brings what lies between.
        start = head if after is None else max(after, 0)
        life = epoch if after is not None and epoch != position.epoch else None
        if thin is not None:
            return ThinSubscription(shared.tail, after=start, encode=encode, leave=leave, head=head, epoch=life, thinner=thin)
        return Subscription(shared.tail, after=start, encode=encode, leave=leave, head=head, epoch=life)

    async def drain(self) -> None:
        """Tell every subscription `Over("restart")`, refuse new ones, stop all tails (I9)."""
        self._draining = True
        for nudge in list(self._attending):
            nudge()
        for shared in list(self._shared.values()):
            shared.tail.stop(Over("restart"))
            await _cancelled(shared.task)
        self._shared.clear()

    async def patiently(self, ask: Callable[[], Awaitable[T]], *, once: bool = False) -> T:
        """The answer of log, catalog or storage, asked again while they are `Unavailable`; while draining that is raised.

        For who already has a subscription; with `once` for who has none. Safe to cancel.
        """
        pause, reader = Pause(), object()
        try:
            while True:
                try:
                    return await ask()
                except Unavailable as error:
                    if self._draining or once:
                        raise
                    self._outages.met(reader, error)
                await asyncio.sleep(pause.next())
        finally:
            self._outages.over(reader)

    def attend(self, nudge: Callable[[], None]) -> None:
        """Call back when draining begins: for those who may have no subscription then."""
        self._attending.add(nudge)

    def dismiss(self, nudge: Callable[[], None]) -> None:
        """Call back no more. Idempotent."""
        self._attending.discard(nudge)

    @property
    def is_draining(self) -> bool:
        """True once `drain` was called: nobody is taken on any more."""
        return self._draining

    def subscribers(self) -> int:
        """How many subscriptions are open."""
        return sum(shared.readers for shared in self._shared.values())

    def stats(self) -> HubStats:
        """Figures for metrics."""
        return HubStats(self.subscribers(), len(self._shared), self._records, self._messages, self._bytes, self._gaps, self._slow)

    def sent(self, messages: int, size: int, *, gaps: int = 0) -> None:
        """Count what a subscriber got: messages, among them notices of gaps, and their bytes."""
        self._messages += messages
        self._bytes += size
        self._gaps += gaps

    def let_go(self) -> None:
        """Count a subscriber that did not read."""
        self._slow += 1

    def observe(self, callback: Callable[[float], None]) -> None:
        """Call back with seconds from write to first delivery in this process, once a record."""
        self._observers.append(callback)

    def _begin(self, node: NodeId, cursor: int, epoch: str) -> _Shared:
        tail = Tail(self._log, node, cursor=cursor, epoch=epoch, arrived=self._arrived, past=self._past, outages=self._outages)
        task = asyncio.get_running_loop().create_task(tail.follow(), name=f"tail of {node}")
        task.add_done_callback(_heard)
        return _Shared(tail, task)

    def _arrived(self, record: Record) -> None:
        self._records += 1
        if self._observers and isinstance(record.event, DELIVERED):
            lag = max(0.0, self._now() - record.time)
            for callback in self._observers:
                callback(lag)

    async def _leave(self, node: NodeId, shared: _Shared) -> None:
        shared.readers -= 1
        if shared.readers == 0 and self._shared.get(node) is shared:
            del self._shared[node]
            await _cancelled(shared.task)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _heard(task: asyncio.Task[None]) -> None:
    """No tail dies in silence."""
    if not task.cancelled() and task.exception() is not None:
        logger.error("%s stopped: %s", task.get_name(), task.exception())
