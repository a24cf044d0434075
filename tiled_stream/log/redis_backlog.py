"""What is owed, in Redis: the backlog half of `redis.py`, on the same keys and connections.

Any number of processes claim at once; a script gives each node to one of them, with a fence that grows. Times are the server's,
so that clocks of processes do not matter.

What must stay true: the watermark never goes back nor passes the head (I4), and whoever lost a lease changes nothing by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from ..domain.errors import Gone, LeaseLost, Unavailable
from ..domain.nodes import NodeId
from .port import Lag, Lease, NodeState, Retention
from .redis_hints import Hints, Watch
from .redis_life import AliveLink
from .redis_link import Script

__all__ = ["REMEMBER", "RedisBacklog", "closed"]

#: How long heads of clean and of dropped nodes are remembered, in seconds; afterwards the catalog knows them.
REMEMBER = 30 * 24 * 3600
#: Records that one script lets go of at most: it holds up the server for everybody.
_TRIM = 1000
#: Nodes on a page of `states`, about.
_PAGE = 500
#: Seconds between looks for something to persist, hints or no hints.
_LOOK = 1.0


class RedisBacklog:
    """See `Backlog`. `heads` tells heads of nodes, None for one that was dropped; `unclaimed` is told of bodies that nothing
    names any more, as nodes and tokens; `claimed` is called with each lease, `settled` with each node and its watermark.
    `lost` is called with a node and a head that it had: this log has less.
    """

    def __init__(
        self,
        questions: AliveLink,
        base: str,
        *,
        heads: Callable[[Sequence[NodeId]], Awaitable[list[int | None]]],
        unclaimed: Callable[[Sequence[tuple[NodeId, str]]], Awaitable[None]],
        claimed: Callable[[Lease], None],
        settled: Callable[[NodeId, int], None],
        lost: Callable[[NodeId, int], Awaitable[None]],
    ) -> None:
        self._questions = questions
        self._base = base
        self._heads_of = heads
        self._unclaimed = unclaimed
        self._claimed = claimed
        self._settled_at = settled
        self._lost = lost
        names = ("claim", "renew", "settle", "release", "want", "trim", "reopen", "raise", "remember")
        self._scripts = {name: Script(name) for name in names}
        # How many here wait for a node to be persisted, and tasks that nobody waits for.
        self._wanting: Counter[NodeId] = Counter()
        self._background: set[asyncio.Task[None]] = set()
        # Rung when there may be more to claim, and when it should not wait for company.
        self._bell = asyncio.Event()
        self._hurry = asyncio.Event()
        self._is_closed = False

    def close(self) -> None:
        """Wake all waiters."""
        self._is_closed = True
        self._bell.set()
        self._hurry.set()
        for task in self._background:
            task.cancel()

    def rung(self, is_wanted: bool) -> None:
        """There may be something to claim; `is_wanted`: somebody waits for it."""
        self._bell.set()
        if is_wanted:
            self._hurry.set()

    async def claim(self, worker: str, *, ttl: float, limit: int = 1) -> list[Lease]:
        flat = await self._run("claim", worker, _ms(ttl), limit, is_repeatable=False)
        rows = zip(*[iter(part.decode() for part in flat)] * 4, strict=True)
        leases = [Lease(node, worker, int(fence), int(head), int(after)) for node, fence, head, after in rows]
        for lease in leases:
            self._claimed(lease)
        return leases

    async def renew(self, lease: Lease, *, ttl: float) -> None:
        if not await self._run("renew", lease.node, lease.fence, _ms(ttl)):
            raise _lost(lease)

    async def settle(self, lease: Lease, watermark: int) -> bool:
        outcome, settled, head = await self._run("settle", REMEMBER, lease.node, lease.fence, watermark, is_repeatable=False)
        if outcome == b"lost":
            raise _lost(lease)
        if outcome == b"wrong":
            if not lease.after <= watermark <= max(lease.head, int(head)):
                raise ValueError(f"watermark {watermark} is not between {int(settled)} (settled) and {int(head)} (head)")  # I4
            if watermark > int(head):
                await self._lost(lease.node, lease.head)
            raise _lost(lease)  # right for what was leased, and the log has changed since: it was restored
        self._settled_at(lease.node, watermark)
        return bool(outcome == b"clean")

    async def release(self, lease: Lease, *, delay: float = 0.0) -> None:
        with contextlib.suppress(Unavailable):  # the lease ends by itself
            await self._run("release", lease.node, lease.fence, _ms(delay))

    async def reached(self, node: NodeId, sequence: int, hints: Hints) -> None:
        if await self._questions.ask("ZSCORE", f"{self._base}since", node) is None:
            return
        self._wanting[node] += 1
        try:
            with hints.watching(node) as watch:
                await self._settled(node, sequence, watch)
        finally:
            self._wanting[node] -= 1
            if not self._wanting[node]:
                del self._wanting[node]
                self._give_up(node)

    async def raise_fences(self, above: int) -> None:
        await self._run("raise", above)

    async def reopen(self, node: NodeId, watermark: int) -> int:
        first = int(await self._run("reopen", node, watermark))
        if first < 0:
            raise Gone(f"The node {node} was deleted.")
        return first

    async def states(self, *, retained: bool = True) -> AsyncIterator[list[NodeState]]:
        cursor = b"0"
        prefix = f"{self._base}h:"
        while True:
            if retained:
                cursor, found = await self._questions.ask("ZSCAN", f"{self._base}retained", cursor, "COUNT", _PAGE)
                nodes = [node.decode() for node in found[::2]]
            else:
                match = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
                cursor, found = await self._questions.ask("SCAN", cursor, "MATCH", match, "COUNT", _PAGE)
                nodes = [key.decode().removeprefix(prefix) for key in found]
            page = await self._states(list(dict.fromkeys(nodes)))
            if page:
                yield page
            if cursor == b"0":
                return

    async def remembered(self) -> int:
        return int(await self._questions.ask("GET", f"{self._base}revision") or 0)

    async def remember(self, revision: int) -> None:
        await self._run("remember", revision)

    async def wait_dirty(self, *, linger: float = 0.0) -> None:
        is_wanted = False
        while not self._is_closed:
            self._bell.clear()
            pause, is_wanted = await self._pause()
            if pause == 0:
                break
            await _rung(self._bell, min(pause, _LOOK))
        if linger > 0 and not is_wanted and not self._is_closed:
            self._hurry.clear()
            await _rung(self._hurry, linger)

    async def dirty(self) -> list[tuple[NodeId, int]]:
        nodes = [node.decode() for node in await self._questions.ask("ZRANGE", f"{self._base}since", 0, -1)]
        heads = await self._heads_of(nodes)
        return [(node, head) for node, head in zip(nodes, heads, strict=True) if head is not None]

    async def lag(self) -> Lag:
        nodes, records, oldest = await self._questions.ask_all(
            [
                ("ZCARD", f"{self._base}since"),
                ("GET", f"{self._base}owed"),
                ("ZRANGE", f"{self._base}since", 0, 0, "WITHSCORES"),
            ]
        )
        return Lag(int(nodes), int(records or 0), float(oldest[1]) if oldest else None)

    async def trim(self, policy: Retention, *, now: float, nodes: Sequence[NodeId] | None = None) -> int:
        if nodes is not None and not nodes:
            return 0
        left, more = 0, 1
        while more:
            gone, more, claims = await self._run(
                "trim", policy.node_bytes, policy.total_bytes, repr(now - policy.seconds), _TRIM, *(nodes or ())
            )
            left += int(gone)
            await self._unclaimed([(claims[n].decode(), claims[n + 1].decode()) for n in range(0, len(claims), 2)])
        return left

    # --------------------------------------------------------------- inside

    async def _states(self, nodes: Sequence[NodeId]) -> list[NodeState]:
        if not nodes:
            return []
        heads, *rows = await self._questions.ask_all(
            [
                ("MGET", *(f"{self._base}h:{node}" for node in nodes)),
                *(("HMGET", f"{self._base}n:{node}", "s", "a") for node in nodes),
            ]
        )
        return [
            NodeState(node, int(settled or 0), int(first or 1), int(head))
            for node, head, (settled, first) in zip(nodes, heads, rows, strict=True)
            if head is not None and head != b"-"
        ]

    async def _settled(self, node: NodeId, sequence: int, watch: Watch) -> None:
        """Ask for the node to be persisted, and again now and then, until it is."""
        while not self._is_closed:
            await watch.confirmed.wait()
            if watch.settled >= sequence or await self._run("want", node, sequence):
                return
            if watch.settled < sequence and watch.confirmed.is_set():  # else it was told while the question was on its way
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await watch.changed()
        raise closed()

    def _give_up(self, node: NodeId) -> None:
        """Nobody here waits for the node any more. Others who do say so again."""
        if not self._is_closed:
            task = asyncio.get_running_loop().create_task(self._unwant(node), name="redis log: wants no more")
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _unwant(self, node: NodeId) -> None:
        with contextlib.suppress(Unavailable):  # then it is persisted a little earlier than it need be
            await self._questions.ask("ZREM", f"{self._base}wanted", node)

    async def _pause(self) -> tuple[float, bool]:
        """Seconds until something can be claimed (0: now), and whether somebody waits for any of it."""
        free, leased, clock, wanted = await self._questions.ask_all(
            [
                ("ZCARD", f"{self._base}free"),
                ("ZRANGE", f"{self._base}leased", 0, 0, "WITHSCORES"),
                ("TIME",),
                ("ZCARD", f"{self._base}wanted"),
            ]
        )
        pause = 0.0 if free else float("inf")
        if leased and not free:
            now = int(clock[0]) * 1000 + int(clock[1]) // 1000
            pause = max(0.0, (float(leased[1]) - now) / 1000)
        return pause, bool(wanted)

    async def _run(self, name: str, *arguments: Any, is_repeatable: bool = True) -> Any:
        return await self._questions.run(self._scripts[name], self._base, *arguments, is_repeatable=is_repeatable)


def _ms(seconds: float) -> int:
    return max(0, round(min(seconds, 1e9) * 1000))


async def _rung(bell: asyncio.Event, seconds: float) -> None:
    """Return when the bell rings, at the latest after `seconds`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await bell.wait()


def closed() -> Unavailable:
    """What callers of a closed log are told."""
    return Unavailable("The log is closed: the server is stopping.")


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"Worker {lease.worker} does not hold node {lease.node} any more.")
