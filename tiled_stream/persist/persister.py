"""The background projection of the log onto storage and catalog.

It chases heads and consumes no messages: claim dirty nodes → read after the watermark → storage → catalog → settle. Under load
the batches grow by themselves; a hot node cannot starve the rest, for every node gets a bounded batch a round.

What must stay true: it settles only what storage and catalog hold (I4), and what it could not do stays owed (I6).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

import msgspec

from ..domain.errors import Gone, LeaseLost, Unavailable
from ..log.port import Lease, LogEngine, Retention
from .apply import Apply, Done
from .together import together

__all__ = ["Persister", "PersisterStats"]

logger = logging.getLogger(__name__)

_RENEWALS = 45
"""Of one round's leases, each for a third of their time: a minute, if they are of four seconds."""


class PersisterStats(msgspec.Struct):
    """Figures since the start. `failing_since`: seconds since the epoch of the first of the failures that go on, else None;
    `failing_because`: the latest of them."""

    rounds: int = 0
    records: int = 0
    seconds: float = 0.0
    failures: int = 0
    failing_since: float | None = None
    failing_because: str = ""


class Persister:
    """One a process. `linger`: how long it lets changes gather, in seconds, unless a reader waits for them.

    `lease_seconds`: how long a node waits for another worker after its own was killed; shorter than readers wait for storage, so
    that they do not notice. Longer rounds renew their leases.
    """

    def __init__(
        self,
        log: LogEngine,
        apply: Apply,
        *,
        worker: str,
        retention: Retention,
        now: Callable[[], float],
        linger: float = 0.1,
        lease_seconds: float = 4.0,
        nodes_a_round: int = 128,
        retry_seconds: float = 0.5,
        sweep_seconds: float = 15.0,
    ) -> None:
        self._log = log
        self._apply = apply
        self._worker = worker
        self._retention = retention
        self._now = now
        self._linger = linger
        self._ttl = lease_seconds
        self._nodes = nodes_a_round
        self._retry = retry_seconds
        self._sweep = sweep_seconds
        self._stopping = asyncio.Event()
        self._swept = now()
        # By how much fences are raised if a store knows higher ones than the log; doubled each time.
        self._fence_step = 1 << 20
        self.stats = PersisterStats()

    async def run(self) -> None:
        """Work until `stop`; ends after the round that is under way. Cancelled in the middle: it stays owed (I5, I6)."""
        stopping = asyncio.create_task(self._stopping.wait(), name="persister: stop asked for")
        try:
            while not self._stopping.is_set():
                dirty = asyncio.create_task(self._log.wait_dirty(linger=self._linger), name="persister: waits for work")
                await asyncio.wait({dirty, stopping}, timeout=self._sweep, return_when=asyncio.FIRST_COMPLETED)
                if not dirty.done():
                    dirty.cancel()
                    await asyncio.wait({dirty})
                elif (error := dirty.exception()) is not None:
                    await self._pause(error)
                if not self._stopping.is_set():
                    await self._round_safely()
                await self._trim_all()
        finally:
            stopping.cancel()

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stopping.set()

    async def finish(self, *, seconds: float) -> bool:
        """Persist all that is owed, after `run` ended; False if it could not be done in time (it stays owed)."""
        try:
            async with asyncio.timeout(seconds):
                while (await self._log.lag()).nodes:
                    if not await self._round_safely():
                        await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        return True

    async def round(self) -> int:
        """Claim, apply and settle once; returns how many records were applied."""
        leases = await self._log.claim(self._worker, ttl=self._ttl, limit=self._nodes)
        if not leases:
            return 0
        held = {lease.node: lease for lease in leases}
        keeper = asyncio.create_task(self._keep(held), name="persister: renews its leases")
        try:
            done, others = await self._apply.containers(leases)
            await self._settle(done, held)
            if others:
                await self._settle(await self._apply.data(others), held)
        finally:
            keeper.cancel()
            # Whatever is left in hand was not done: a failure, or a node that vanished.
            self._apply.forget(list(held))
            await together(self._log.release(lease, delay=self._retry) for lease in held.values())
        self.stats.rounds += 1
        return len(leases)

    async def _round_safely(self) -> int:
        """A round; a dependency that fails is reported, and everything stays owed."""
        begin, failures = self._now(), self.stats.failures
        try:
            applied = await self.round()
        except Unavailable as error:
            await self._pause(error)
            return 0
        except Exception as error:
            logger.exception("Persisting failed; nothing is lost, it is tried again")
            await self._pause(error)
            return 0
        if applied and self.stats.failures == failures:
            self.stats.failing_since, self.stats.failing_because = None, ""
        if applied:
            self.stats.seconds += max(0.0, self._now() - begin)
        return applied

    async def _settle(self, done: Sequence[Done], held: dict[str, Lease]) -> None:
        for item in done:
            held.pop(item.lease.node, None)
        if (failed := next((item.error for item in done if item.error is not None), None)) is not None:
            self._note_failure(failed)  # one store; the nodes of the others go on
        settled = await together(self._settle_one(item) for item in done)
        touched = [item.lease.node for item, is_settled in zip(done, settled, strict=True) if is_settled]
        if touched:
            await self._log.trim(self._retention, now=self._now(), nodes=touched)

    async def _settle_one(self, item: Done) -> bool:
        if item.is_fenced:
            await self._fenced(item.lease)
            return False
        if item.error is not None:
            await self._log.release(item.lease, delay=self._retry)
            return False
        if item.watermark is None or item.watermark < item.lease.after:  # not possible yet, or not up to where the log begins
            await self._log.release(item.lease, delay=item.delay if item.watermark is None else 0.0)
            return False
        try:
            # After a power cut the catalog may know more than the log does; the log settles what it has.
            head = item.lease.head
            if item.watermark > head:
                head = (await self._log.head(item.lease.node)).sequence
            await self._log.settle(item.lease, min(item.watermark, head))
        except (LeaseLost, Gone):
            logger.info("Node %s was taken over or deleted meanwhile", item.lease.node)
            return False
        self.stats.records += item.records
        return True

    async def _fenced(self, lease: Lease) -> None:
        """A store has seen a newer lease than this one: usually because this process was paused and another one took over.

        If the lease is in force all the same, the log gives fences that are too low (it was lost, and the clock went back).
        """
        try:
            await self._log.renew(lease, ttl=self._ttl)
        except (LeaseLost, Gone):
            logger.info("Node %s was taken over by another persister; this one changed nothing", lease.node)
            return
        self._fence_step *= 2
        await self._log.raise_fences(lease.fence + self._fence_step)
        logger.warning("Node %s: storage knows a newer lease than the log; the log gives higher ones from now on", lease.node)
        await self._log.release(lease, delay=self._retry)

    async def _keep(self, held: dict[str, Lease]) -> None:
        """Renew what is in hand while a round is slow; not for ever, so that another can try where this process hangs."""
        for _ in range(_RENEWALS):
            await asyncio.sleep(self._ttl / 3)
            with contextlib.suppress(Unavailable):  # the next one may get through; else the lease ends, and `settle` tells
                await together(self._renew_one(lease) for lease in list(held.values()))

    async def _renew_one(self, lease: Lease) -> None:
        with contextlib.suppress(LeaseLost, Gone):  # `settle` will tell
            await self._log.renew(lease, ttl=self._ttl)

    async def _trim_all(self) -> None:
        if self._now() - self._swept >= self._sweep:
            self._swept = self._now()
            await self._log.trim(self._retention, now=self._swept)

    async def _pause(self, error: BaseException) -> None:
        self._note_failure(error)
        await asyncio.sleep(self._retry)

    def _note_failure(self, error: BaseException) -> None:
        self.stats.failures += 1
        self.stats.failing_because = str(error)
        if self.stats.failing_since is None:
            self.stats.failing_since = self._now()
            logger.warning("Persisting is held up, writes go on into the log: %s", error)
