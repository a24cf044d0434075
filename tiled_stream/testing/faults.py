"""Wrappers of the ports that do what networks, disks and operators do: slow, refusing, dying, deaf.

A fault is a function around one step, so that one fault can be shared: `CrashAfter(7)` around log, catalog and storage is a
process that dies after its seventh step, wherever that is. Wrappers are engines themselves and can be wrapped again.

    crash = CrashAfter(7)
    log = FaultyLog(MemoryLog(), crash, steps={"append", "settle"})
    catalog = faulty_apply(SqliteCatalog(path), crash)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, cast

from ..catalog.port import Catalog
from ..domain.errors import Gone, InDoubt, Unavailable
from ..domain.events import Draft, Record
from ..domain.nodes import NodeId
from ..domain.position import Position
from ..log.port import UNGUARDED, Lag, Lease, LogEngine, NodeState, Persisted, Retention
from ..storage.port import ArrayStore, TableStore

__all__ = ["Crash", "CrashAfter", "Fault", "FaultyLog", "Flaky", "LostHints", "Slow", "faulty_apply"]

T = TypeVar("T")
StoreT = TypeVar("StoreT", bound=Catalog | ArrayStore | TableStore)


class Fault(Protocol):
    """What happens around a step. `call` takes the step; its result, or what it raises, is the result of the step."""

    async def __call__(self, call: Callable[[], Awaitable[T]], /) -> T: ...


class Slow:
    """So many seconds pass before each step, and so many after it."""

    def __init__(self, before: float = 0.0, after: float = 0.0) -> None:
        self._before = before
        self._after = after

    async def __call__(self, call: Callable[[], Awaitable[T]], /) -> T:
        await asyncio.sleep(self._before)
        result = await call()
        await asyncio.sleep(self._after)
        return result


class Flaky:
    """Steps fail by a schedule: "before" (nothing was done), "after" (it was done, but nobody is told), None (all is well).

    After the schedule all is well.
    """

    def __init__(self, schedule: Iterable[Literal["before", "after"] | None]) -> None:
        self._schedule = iter(schedule)

    async def __call__(self, call: Callable[[], Awaitable[T]], /) -> T:
        when = next(self._schedule, None)
        if when == "before":
            raise Unavailable("Out of order, on purpose; nothing was done.")
        result = await call()
        if when == "after":
            raise InDoubt("Out of order, on purpose; it was done all the same.")
        return result


class Crash(BaseException):
    """The process is dead. Not an `Exception`, so that no supervisor brings it back to life."""


class CrashAfter:
    """The step with this number (1, 2, …) is the last that is done; its caller, and all after it, get `Crash`."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    @property
    def is_dead(self) -> bool:
        """Did it happen?"""
        return self._left <= 0

    async def __call__(self, call: Callable[[], Awaitable[T]], /) -> T:
        if self.is_dead:
            raise Crash
        result = await call()
        self._left -= 1
        if self.is_dead:
            raise Crash
        return result


class FaultyLog(LogEngine):
    """A log with a fault around some of its steps (names of methods; None: all that change something or read records)."""

    _STEPS = frozenset({"append", "read", "head", "heads", "drop", "claim", "renew", "settle", "trim"})

    def __init__(self, inner: LogEngine, fault: Fault, *, steps: Collection[str] | None = None) -> None:
        self._inner = inner
        self._fault = fault
        self._steps = self._STEPS if steps is None else frozenset(steps)

    async def _step(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        return await (self._fault(call) if name in self._steps else call())

    @property
    def epoch(self) -> str:
        return self._inner.epoch

    async def open(self) -> None:
        await self._step("open", self._inner.open)

    async def bind(self, catalog: str, persisted: Persisted) -> None:
        await self._inner.bind(catalog, persisted)

    async def figures(self) -> dict[str, float]:
        return await self._inner.figures()

    async def close(self) -> None:
        await self._step("close", self._inner.close)

    async def append(
        self,
        node: NodeId,
        *drafts: Draft,
        expected: int | None = None,
        floor: int = 0,
        guards: Mapping[NodeId, int] = UNGUARDED,
    ) -> Position:
        return await self._step(
            "append", lambda: self._inner.append(node, *drafts, expected=expected, floor=floor, guards=guards)
        )

    async def read(
        self,
        node: NodeId,
        after: int,
        *,
        limit: int = 1000,
        max_bytes: int = 16 << 20,
        epoch: str | None = None,
        headers: bool = False,
    ) -> list[Record]:
        return await self._step(
            "read",
            lambda: self._inner.read(node, after, limit=limit, max_bytes=max_bytes, epoch=epoch, headers=headers),
        )

    async def heads(self, nodes: Sequence[NodeId]) -> list[int | None]:
        return await self._step("heads", lambda: self._inner.heads(nodes))

    async def head(self, node: NodeId) -> Position:
        return await self._step("head", lambda: self._inner.head(node))

    async def wait(self, node: NodeId, after: int) -> None:
        await self._step("wait", lambda: self._inner.wait(node, after))

    async def drop(self, *nodes: NodeId) -> None:
        await self._step("drop", lambda: self._inner.drop(*nodes))

    async def claim(self, worker: str, *, ttl: float, limit: int = 1) -> list[Lease]:
        return await self._step("claim", lambda: self._inner.claim(worker, ttl=ttl, limit=limit))

    async def renew(self, lease: Lease, *, ttl: float) -> None:
        await self._step("renew", lambda: self._inner.renew(lease, ttl=ttl))

    async def settle(self, lease: Lease, watermark: int) -> bool:
        return await self._step("settle", lambda: self._inner.settle(lease, watermark))

    async def release(self, lease: Lease, *, delay: float = 0.0) -> None:
        await self._step("release", lambda: self._inner.release(lease, delay=delay))

    async def raise_fences(self, above: int) -> None:
        await self._step("raise_fences", lambda: self._inner.raise_fences(above))

    async def reopen(self, node: NodeId, watermark: int) -> int:
        return await self._step("reopen", lambda: self._inner.reopen(node, watermark))

    def states(self, *, retained: bool = True) -> AsyncIterator[list[NodeState]]:
        return self._inner.states(retained=retained)

    async def remembered(self) -> int:
        return await self._step("remembered", self._inner.remembered)

    async def remember(self, revision: int) -> None:
        await self._step("remember", lambda: self._inner.remember(revision))

    async def reached(self, node: NodeId, sequence: int) -> None:
        await self._step("reached", lambda: self._inner.reached(node, sequence))

    async def wait_dirty(self, *, linger: float = 0.0) -> None:
        await self._step("wait_dirty", lambda: self._inner.wait_dirty(linger=linger))

    async def dirty(self) -> list[tuple[NodeId, int]]:
        return await self._step("dirty", self._inner.dirty)

    async def lag(self) -> Lag:
        return await self._step("lag", self._inner.lag)

    async def trim(self, policy: Retention, *, now: float, nodes: Sequence[NodeId] | None = None) -> int:
        return await self._step("trim", lambda: self._inner.trim(policy, now=now, nodes=nodes))


class LostHints(FaultyLog):
    """No hint ever arrives: whoever waits looks again after `poll` seconds. It must cost latency, and never data."""

    def __init__(self, inner: LogEngine, *, poll: float = 0.02) -> None:
        super().__init__(inner, Slow(), steps=())
        self._poll = poll

    async def wait(self, node: NodeId, after: int) -> None:
        try:
            await self._inner.head(node)
        except Gone:
            return
        await asyncio.sleep(self._poll)

    async def wait_dirty(self, *, linger: float = 0.0) -> None:
        await self._inner.lag()
        await asyncio.sleep(self._poll)


class _FaultyApply:
    """Any store, with the fault around `apply`."""

    def __init__(self, inner: Any, fault: Fault) -> None:
        self._inner = inner
        self._fault = fault

    async def apply(self, batches: Sequence[Any]) -> Any:
        return await self._fault(lambda: self._inner.apply(batches))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def faulty_apply(store: StoreT, fault: Fault) -> StoreT:
    """The catalog, array store or table store with a fault around its `apply`; everything else goes straight through."""
    return cast(StoreT, _FaultyApply(store, fault))
