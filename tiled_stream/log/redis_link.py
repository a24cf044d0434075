"""One connection to Redis that many share: what is asked while an answer is on its way travels together next.

So the number of connections stays constant whatever the number of clients, and a crowd costs few round trips.

What must stay true: an answer belongs to its question, also after a reconnection; nothing is sent twice unless it may be.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import msgspec
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import TimeoutError as TookTooLong

from ..domain.errors import Unavailable
from .redis_connection import Command, Connection

__all__ = ["Life", "LifeLost", "Link", "Script", "unavailable"]

#: The life of the log that the caller takes part in, for the run id of a Redis server; what the key `life` must hold.
Life = Callable[[str], str]

#: Questions that travel together, at most.
_TOGETHER = 256
#: First pause before what failed is asked again, in seconds; it doubles.
_PAUSE = 0.02


class LifeLost(Unavailable):
    """This Redis does not hold the log of this process; it was emptied, restarted or replaced. Nothing was done."""


class Script:
    """A file of `lua/`, behind the prelude. Known to the server by its digest, so that versions live side by side.

    `adds`: it adds records, which a server that is full refuses. The others must go on, for they are the way out.
    """

    def __init__(self, name: str, *, adds: bool = False) -> None:
        folder = files(__package__) / "lua"
        text = "#!lua\n" if adds else "#!lua flags=allow-oom\n"
        text += (folder / "prelude.lua").read_text("utf-8") + (folder / f"{name}.lua").read_text("utf-8")
        self.text = text.encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


class _Question(msgspec.Struct, eq=False):
    commands: Sequence[Command]
    answer: asyncio.Future[list[Any]]
    is_repeatable: bool
    deadline: float
    instance: str = ""


class Link:
    """`patience`: seconds for which a repeatable question is asked again while Redis cannot be reached."""

    def __init__(self, connection: Connection, *, patience: float) -> None:
        self._connection = connection
        self._patience = patience
        self._waiting: list[_Question] = []
        self._running: asyncio.Task[None] | None = None
        self._is_closed = False
        self.errors = 0

    async def ask(self, *command: Any, is_repeatable: bool = True) -> Any:
        """One command; raises what Redis answers if that is an error."""
        return (await self.ask_all([command], is_repeatable=is_repeatable))[0]

    async def ask_all(self, commands: Sequence[Command], *, is_repeatable: bool = True) -> list[Any]:
        """The answers to `commands`, which reach the server in this order, with others between them perhaps.

        `Unavailable` if Redis cannot be reached or refuses; if not `is_repeatable`, it may have been done all the same.
        """
        return (await self._asked(commands, is_repeatable=is_repeatable)).answer.result()

    async def _asked(self, commands: Sequence[Command], *, is_repeatable: bool) -> _Question:
        if self._is_closed:
            raise _closed()
        loop = asyncio.get_running_loop()
        question = _Question(commands, loop.create_future(), is_repeatable, loop.time() + self._patience)
        self._waiting.append(question)
        if self._running is None or self._running.done():
            self._running = loop.create_task(self._run(), name="redis link")
        for answer in await question.answer:
            if isinstance(answer, ResponseError):
                raise answer if isinstance(answer, NoScriptError) else unavailable(answer)
        return question

    async def ask_alive(self, commands: Sequence[Command], key: str, life: Life, *, is_repeatable: bool = True) -> list[Any]:
        """As `ask_all`; `LifeLost` if the key `key` does not hold this life, as of the time of the answers."""
        question = await self._asked([*commands, ("GET", key)], is_repeatable=is_repeatable)
        *answers, now = question.answer.result()
        if now is None or isinstance(now, ResponseError) or now.decode() != life(question.instance):
            raise _life_lost()
        return answers

    async def values_alive(self, keys: Sequence[str], key: str, life: Life) -> list[Any]:
        """The values of `keys`, in one command with the key `key`; `LifeLost` if that does not hold this life."""
        question = await self._asked([("MGET", key, *keys)], is_repeatable=True)
        values: list[Any]
        now, *values = question.answer.result()[0]
        if now is None or now.decode() != life(question.instance):
            raise _life_lost()
        return values

    async def run(self, script: Script, base: str, *arguments: Any, life: Life | None = None, is_repeatable: bool = True) -> Any:
        """What the script returns. A server that does not know it is given its text.

        Its first argument is `life`, if given, else the run id of the server.
        """

        def call(name: str, which: str | bytes) -> Callable[[str], tuple[Any, ...]]:
            return lambda instance: (name, which, 1, base, instance if life is None else life(instance), *arguments)

        try:
            return (await self.ask_all([call("EVALSHA", script.sha)], is_repeatable=is_repeatable))[0]
        except NoScriptError:
            return (await self.ask_all([call("EVAL", script.text)], is_repeatable=is_repeatable))[0]

    def doubt(self) -> None:
        """Connect anew before the next question."""
        self._connection.doubt()

    async def close(self) -> None:
        """Let go of the connection; what is still asked is told so."""
        self._is_closed = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        for question in self._waiting:
            _fail(question, _closed())
        self._waiting.clear()
        await self._connection.close()

    async def _run(self) -> None:
        pause = _PAUSE
        while self._waiting:
            asked, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
            asked = [question for question in asked if not question.answer.done()]
            try:
                await self._exchange(asked)
                pause = _PAUSE
            except asyncio.CancelledError:
                self._waiting = asked + self._waiting
                raise
            except (RedisError, OSError) as error:
                self.errors += 1
                again = self._sort_out(asked, error)
                if again:
                    self._waiting = again + self._waiting
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, 0.5)

    async def _exchange(self, asked: Sequence[_Question]) -> None:
        answers = await self._connection.exchange([command for question in asked for command in question.commands])
        at = 0
        for question in asked:
            upto = at + len(question.commands)
            question.instance = self._connection.instance
            if not question.answer.done():
                question.answer.set_result(answers[at:upto])
            at = upto

    def _sort_out(self, asked: Sequence[_Question], error: Exception) -> list[_Question]:
        """Those that may be asked again; the others are told."""
        now = asyncio.get_running_loop().time()
        again = []
        for question in asked:
            if question.is_repeatable and now < question.deadline:
                again.append(question)
            else:
                _fail(question, unavailable(error))
        return again


def unavailable(error: Exception) -> Unavailable:
    """The answer to a client if Redis cannot be reached, is loading, full, read-only …"""
    if isinstance(error, ResponseError) and str(error).startswith("HEAL"):
        return _life_lost()
    if isinstance(error, TookTooLong | TimeoutError):
        return Unavailable("Redis, which holds the log, does not answer; try again.", retry_after=1.0)
    if isinstance(error, Disconnected | OSError):
        return Unavailable(f"Redis, which holds the log, cannot be reached: {error}", retry_after=1.0)
    if isinstance(error, OutOfMemoryError):
        return Unavailable("Redis, which holds the log, is full (maxmemory); what it holds is safe. Try again.", retry_after=5.0)
    return Unavailable(f"Redis, which holds the log, refuses: {error}", retry_after=1.0)


def _life_lost() -> LifeLost:
    return LifeLost("Redis, which holds the log, was restarted or lost records; the log is being restored. Try again.")


def _fail(question: _Question, error: Exception) -> None:
    if not question.answer.done():
        question.answer.set_exception(error)


def _closed() -> Unavailable:
    return Unavailable("The log is closed: the server is stopping.")
