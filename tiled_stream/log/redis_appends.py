"""Appends of this process to a log in Redis, one batch at a time: what comes while a batch is on its way travels in the next.

What must stay true: a batch is done once, however often it has to be sent (its token tells the server that it knows it), and an
append that was sent and whose answer never came is told `InDoubt`, any other one that failed `Unavailable`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec
from redis.exceptions import ClusterDownError, NoScriptError, ReadOnlyError, RedisError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import TimeoutError as TookTooLong

from ..domain.errors import InDoubt, Unavailable
from ..domain.nodes import NodeId
from .redis_connection import Command, Connection
from .redis_life import RedisLife
from .redis_link import LifeLost, Script, unavailable

__all__ = ["SMALL", "Append", "Appended", "Appends", "Encoded"]

logger = logging.getLogger(__name__)

#: Payloads up to this many bytes lie in the record itself; larger ones beside it, so that headers can be read without them.
SMALL = 4096
#: A batch is bounded, so that one crowd does not hold up the server for everybody.
_BATCH_APPENDS = 64
_BATCH_BYTES = 1 << 20
#: Bytes that may wait to be sent; beyond, writers are told to come again.
_PENDING_BYTES = 256 << 20
_PAUSE = 0.02
#: Times that an append is sent again after it found that Redis had lost records.
_RETRIES = 3
#: Answers that say "not now": the same batch can be sent again.
_NOT_NOW = (ReadOnlyError, TryAgainError, ClusterDownError)


class Encoded(msgspec.Struct, frozen=True):
    """A draft as it is sent. `claimed`: bytes of the body that `payload`, a token, stands for; 0: it is the body itself."""

    time: float
    event: bytes
    payload: bytes
    claimed: int = 0

    @property
    def how(self) -> str:
        """How the payload lies, in the words of `append.lua`."""
        return f"c{self.claimed}" if self.claimed else "1" if len(self.payload) <= SMALL else "0"


class Append(msgspec.Struct, frozen=True, eq=False):
    """What is asked for: drafts, what this process knows of the node's head, and in which epoch."""

    node: NodeId
    drafts: Sequence[Encoded]
    expected: int | None
    floor: int
    known: int
    known_epoch: str
    epoch: str
    guards: Mapping[NodeId, int]
    size: int


class Appended(msgspec.Struct, frozen=True):
    """`outcome`: ok, conflict, moved, gone or lost; `sequence`: of the last record, or where the log stands."""

    epoch: str
    outcome: str
    sequence: int


class _Waiting(msgspec.Struct, eq=False):
    append: Append
    answer: asyncio.Future[Appended]
    retries: int = 0


class Appends:
    """`synced`: an append is acknowledged when it is on the server's disk (`WAITAOF`).

    `done` is called with each append that is in the log, before its caller hears of it.
    """

    def __init__(
        self,
        connection: Connection,
        base: str,
        *,
        life: RedisLife,
        done: Callable[[Append, Appended], None],
        patience: float,
        synced: bool,
    ) -> None:
        self._connection = connection
        self._base = base
        self._script = Script("append", adds=True)
        self._life = life
        self._done_with = done
        #: Held while a batch is on its way, until what it has appended is kept: `Healing` takes it to know that nothing is.
        self.gate = asyncio.Lock()
        self._patience = patience
        self._synced = synced
        self._writer = uuid4().hex
        self._batches = 0
        #: Batches that were sent and not answered, by their tokens, since Redis answered last: they may be in the log.
        self.doubtful: dict[str, Sequence[Append]] = {}
        self._waiting: list[_Waiting] = []
        self._pending = 0
        self._running: asyncio.Task[None] | None = None
        self.errors = 0

    async def append(self, append: Append) -> Appended:
        """Safe to cancel: appended whole or not at all."""
        if self._pending > _PENDING_BYTES:
            raise Unavailable("Redis, which holds the log, does not keep up; try again.", retry_after=1.0)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(append, loop.create_future())
        self._waiting.append(waiting)
        self._pending += append.size
        if self._running is None or self._running.done():
            self._running = loop.create_task(self._run(), name="redis appends")
        return await waiting.answer

    async def close(self) -> None:
        """Send what waits, then let go of the connection."""
        if self._running is not None:
            await asyncio.wait([self._running])
        await self._connection.close()

    async def _run(self) -> None:
        while self._waiting:
            batch = self._take()
            if not batch:
                continue
            try:
                answers = await self._done(batch)
            except Unavailable as error:
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(type(error)(str(error), retry_after=error.retry_after))
                continue
            lost: list[_Waiting] = []
            for waiting, answer in zip(batch, answers, strict=True):
                if waiting.answer.done():
                    continue
                if answer.outcome == "lost" and waiting.retries < _RETRIES:
                    lost.append(waiting)
                else:
                    waiting.answer.set_result(answer)
            if lost:
                await self._again(lost)

    async def _again(self, lost: Sequence[_Waiting]) -> None:
        """These found that Redis lost records: have it healed, and send them first."""
        evidence = lost[0].append
        try:
            deadline = asyncio.get_running_loop().time() + self._patience
            await self._life.heal(deadline, evidence.node, evidence.known)
        except Unavailable as error:
            for waiting in lost:
                if not waiting.answer.done():
                    waiting.answer.set_exception(type(error)(str(error), retry_after=error.retry_after))
            return
        for waiting in lost:
            waiting.retries += 1
            self._pending += waiting.append.size
        self._waiting[:0] = lost

    def _take(self) -> list[_Waiting]:
        """The next batch, without those whose callers went away."""
        batch: list[_Waiting] = []
        size = taken = 0
        for waiting in self._waiting:
            if len(batch) >= _BATCH_APPENDS or (batch and size + waiting.append.size > _BATCH_BYTES):
                break
            taken += 1
            self._pending -= waiting.append.size
            if not waiting.answer.cancelled():
                batch.append(waiting)
                size += waiting.append.size
        del self._waiting[:taken]
        return batch

    async def _done(self, batch: Sequence[_Waiting]) -> list[Appended]:
        """Send until it is answered. `Unavailable`, or `InDoubt`, when that takes too long."""
        self._batches += 1
        token = f"{self._writer}:{self._batches}"
        arguments = self._arguments(batch)
        loop = asyncio.get_running_loop()
        deadline, pause, in_doubt = loop.time() + self._patience, _PAUSE, False
        while True:
            generation = self._life.generation
            try:
                answers = await self._once(batch, ["1" if in_doubt else "", *arguments])
                self.doubtful.clear()  # what became of earlier ones is in this Redis
                return answers
            except LifeLost:  # nothing was done
                try:
                    await self._life.heal(deadline)
                except Unavailable as error:
                    raise (_doubt(error) if in_doubt else error) from error
                if self._life.generation != generation:
                    continue
                self._connection.doubt()  # the log is whole, and this connection reached something else
                failure = unavailable(Disconnected("another server answers"))
            except (Disconnected, TookTooLong, OSError) as error:
                self.errors += 1
                if self._connection.was_sent:
                    in_doubt = True
                    self.doubtful[token] = [waiting.append for waiting in batch]
                failure = unavailable(error)
            except RedisError as error:
                self.errors += 1
                failure = unavailable(error)
                if not isinstance(error, _NOT_NOW):
                    raise (_doubt(failure) if in_doubt else failure) from error
            if loop.time() > deadline:
                raise _doubt(failure) if in_doubt else failure
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)

    async def _once(self, batch: Sequence[_Waiting], arguments: Sequence[object]) -> list[Appended]:
        life = self._life.of

        def call(name: str, which: str | bytes) -> Command:
            return lambda instance: (name, which, 1, self._base, life(instance), self._writer, self._batches, *arguments)

        async with self.gate:
            answer = (await self._exchanged(call("EVALSHA", self._script.sha)))[0]
            if isinstance(answer, NoScriptError):
                answer = (await self._exchanged(call("EVAL", self._script.text)))[0]
            if isinstance(answer, ResponseError):
                failure = unavailable(answer)
                raise failure if isinstance(failure, LifeLost) else answer
            epoch, *outcomes = [part.decode() for part in answer]
            answers = [Appended(epoch, outcomes[n], int(outcomes[n + 1])) for n in range(0, len(outcomes), 2)]
            for waiting, appended in zip(batch, answers, strict=True):
                if appended.outcome == "ok":
                    self._done_with(waiting.append, appended)
            return answers

    async def _exchanged(self, command: Command) -> list[Any]:
        if not self._synced:
            return await self._connection.exchange([command])
        milliseconds = round(self._patience * 1000)
        answers = await self._connection.exchange([command, ("WAITAOF", 1, 0, milliseconds)])
        synced = answers[1]
        if isinstance(synced, ResponseError):
            raise synced
        if not isinstance(answers[0], ResponseError) and synced[0] < 1:
            raise TookTooLong("the append-only file was not written in time")
        return answers

    def _arguments(self, batch: Sequence[_Waiting]) -> list[object]:
        arguments: list[object] = [len(batch)]
        for waiting in batch:
            append = waiting.append
            expected = "" if append.expected is None else append.expected
            arguments += [
                append.node,
                expected,
                append.floor,
                append.known,
                append.known_epoch,
                append.epoch,
                len(append.guards),
                len(append.drafts),
            ]
            for guarded, head in append.guards.items():
                arguments += [guarded, head]
            for draft in append.drafts:
                arguments += [repr(draft.time), draft.event, draft.payload, draft.how]
        return arguments


def _doubt(failure: Unavailable) -> InDoubt:
    return InDoubt(f"{failure} It may have been written all the same.", retry_after=failure.retry_after)
