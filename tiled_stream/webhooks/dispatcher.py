"""Delivers: expands the outbox, and sends what waits for each webhook, in order, one message at a time.

At least once: what was sent but not noted before a crash is sent again, under the same id. A receiver that is down is asked again
after a growing pause, and what waits for it waits; after a day a message is given up. What the receiver refuses again and again
is given up sooner, so that the ones behind it come through. What must stay true: a failing receiver holds up nobody but itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import Callable
from typing import Any

import msgspec

from ..domain.errors import Unavailable
from .expansion import Expansion
from .model import Delivery, Webhook
from .sender import Answer, Sender
from .store import Store
from .vault import Sealed, Vault, signature

__all__ = ["Dispatcher", "DispatcherStats", "is_given_up", "pause_after"]

logger = logging.getLogger(__name__)

#: Seconds between looks without a hint; other processes fill the outbox too.
_LOOK = 1.0
_TRIM = 60.0
#: Webhooks that are served at the same time, and how many messages one of them gets before others have their turn.
_AT_ONCE = 8
_TURN = 20
#: Longer than a message can take; a process that died gives its webhooks back after it.
_CLAIM = 30.0
_LONGEST_PAUSE = 60.0
#: How long a message is kept for a receiver that is down, and how often one that answers may refuse it.
_KEPT = 24 * 3600.0
_REFUSALS = 8
#: Answers that speak of the receiver, not of the message.
_DOWN = frozenset({408, 425, 429, 502, 503, 504})
_FAREWELL = 3.0


class DispatcherStats(msgspec.Struct):
    """Figures since the start: messages taken by receivers, attempts that failed, messages that were given up."""

    delivered: int = 0
    failures: int = 0
    given_up: int = 0


class Dispatcher:
    """One a process. `retry`: seconds until the first new attempt."""

    def __init__(
        self,
        store: Store,
        expansion: Expansion,
        sender: Sender,
        *,
        vault: Vault,
        worker: str,
        now: Callable[[], float],
        retry: float = 1.0,
    ) -> None:
        self._store = store
        self._expansion = expansion
        self._sender = sender
        self._vault = vault
        self._worker = worker
        self._count = itertools.count()
        self._now = now
        self._retry = retry
        self._hint = asyncio.Event()
        self._is_stopping = False
        self._turns: set[asyncio.Task[None]] = set()
        self._trimmed = 0.0
        self._is_failing = False
        self.stats = DispatcherStats()

    def wake(self) -> None:
        """There may be something to do."""
        self._hint.set()

    async def run(self) -> None:
        """Work until `stop`. Cancelled: what is under way is sent again by the next life."""
        try:
            while not self._is_stopping:
                self._hint.clear()
                await self._round_safely()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await self._hint.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._finish()
        finally:
            for task in self._turns:
                task.cancel()
            if self._turns:
                await asyncio.wait(self._turns)
            await self._sender.close()

    async def _finish(self) -> None:
        """What can be delivered at once: a program that ends after its last write has told of it, if its receivers listen."""
        is_first = True
        while is_first or self._turns or self._hint.is_set():
            is_first = False
            self._hint.clear()
            await self._round_safely()
            if self._turns:
                await asyncio.wait(self._turns)

    def stop(self) -> None:
        """Ask `run` to end, after what can be delivered within a few seconds."""
        self._is_stopping = True
        self._hint.set()

    async def waiting(self) -> tuple[int, float]:
        """How many deliveries are pending in the whole deployment, and how many seconds ago the oldest event happened."""
        count, oldest = await self._store.waiting()
        return count, 0.0 if oldest is None else max(0.0, self._now() - oldest)

    async def _round_safely(self) -> None:
        try:
            await self._round()
            self._is_failing = False
        except Unavailable as error:
            self._complain(error)
        except Exception:
            logger.exception("Delivering webhooks failed; nothing is lost, it is tried again")

    async def _round(self) -> None:
        if await self._expansion.round():
            self._hint.set()  # the rest in the next round, after those who wait already
        while len(self._turns) < _AT_ONCE:
            # A name for each turn: one that stalled and lost its claim must not take the next one's for its own.
            worker = f"{self._worker}-{next(self._count)}"
            webhook = await self._store.claim(worker, now=self._now(), seconds=_CLAIM)
            if webhook is None:
                break
            task = asyncio.create_task(self._turn_safely(webhook, worker), name=f"webhook {webhook.id}")
            self._turns.add(task)
            task.add_done_callback(self._ended)
        if self._now() - self._trimmed >= _TRIM:
            self._trimmed = self._now()
            given_up = await self._store.trim()
            self.stats.given_up += given_up  # apart from the await, during which a turn may count, too

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._turns.discard(task)
        self._hint.set()

    async def _turn_safely(self, webhook: Webhook, worker: str) -> None:
        try:
            await self._turn(webhook, worker)
        except Unavailable as error:
            self._complain(error)
        except Exception:
            logger.exception("Delivering to webhook %d failed; it is tried again", webhook.id)

    async def _turn(self, webhook: Webhook, worker: str) -> None:
        """Send what waits for it, up to a bound or the first failure, and give the claim back."""
        delivery = await self._store.next_for(webhook.id, worker, now=self._now(), seconds=_CLAIM)
        for _ in range(_TURN):
            if delivery is None:
                break
            answer = await self._send(webhook, delivery)
            if not answer.is_taken:
                await self._failed(webhook, delivery, answer, worker)
                return
            self.stats.delivered += 1
            now, attempts = self._now(), delivery.attempts + 1
            taken = _tried(delivery, answer, outcome="success", delivered=now)
            delivery = await self._store.settle(taken, worker, now=now, seconds=_CLAIM)
            if attempts > 1:
                break  # it is well again, which the release says
        await self._store.release(webhook.id, worker, due=0.0, is_well=True)

    async def _send(self, webhook: Webhook, delivery: Delivery) -> Answer:
        body = delivery.payload.encode()
        headers = {"X-Tiled-Event-ID": delivery.event}
        if webhook.secret is not None:
            try:
                headers["X-Tiled-Signature"] = signature(self._vault.open(webhook.secret), body)
            except Sealed as error:  # never unsigned
                return Answer(None, str(error))
        return await self._sender.post(webhook.url, body, headers)

    async def _failed(self, webhook: Webhook, delivery: Delivery, answer: Answer, worker: str) -> None:
        """Write it down, and leave the receiver alone for a while."""
        now = self._now()
        tried = _tried(delivery, answer)
        is_over = is_given_up(tried, answer, now=now)
        self.stats.failures += 1
        if is_over:
            self.stats.given_up += 1
            tried = msgspec.structs.replace(tried, outcome="failed")
            logger.warning("Webhook %d: event %s is given up after %d attempts", webhook.id, delivery.event, tried.attempts)
        await self._store.settle(tried, worker, now=now, seconds=_CLAIM)
        failures = 1 if is_over else await self._store.failed(webhook.id, worker)
        await self._store.release(webhook.id, worker, due=now + pause_after(failures, self._retry), is_well=is_over)

    def _complain(self, error: Unavailable) -> None:
        if not self._is_failing:
            self._is_failing = True
            logger.warning("Webhooks are held up: %s", error)


def _tried(delivery: Delivery, answer: Answer, **more: Any) -> Delivery:
    tried = {"attempts": delivery.attempts + 1, "status_code": answer.status, "error": answer.error}
    return msgspec.structs.replace(delivery, **tried, **more)


def is_given_up(delivery: Delivery, answer: Answer, *, now: float) -> bool:
    """Is it never tried again?"""
    if now - delivery.created > _KEPT:
        return True
    return answer.status is not None and answer.status not in _DOWN and delivery.attempts >= _REFUSALS


def pause_after(failures: int, first: float) -> float:
    """Seconds until the next attempt: doubled with each failure, up to a minute, and scattered, so that not all come at once."""
    return float(min(first * 2 ** min(failures - 1, 16), _LONGEST_PAUSE)) * random.uniform(0.8, 1.2)
