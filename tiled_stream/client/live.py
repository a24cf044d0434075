"""Streams for asyncio: `subscribe` to one node (or what is below it), `watch` many over one socket.

A pull: a message is read from the socket when somebody waits for an event, so a slow reader slows the socket down and holds
nothing but a few messages; there is no task. What must stay true: any wait may be cancelled; the next one goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from websockets.asyncio.client import ClientConnection, connect

from ..domain.errors import Unavailable
from .address import keys_of
from .asking import conversation_with
from .connection import FAILURES, OPTIONS, failure_of
from .conversation import Conversation
from .credentials import Token
from .events import Event, Failed
from .growing import Columns, Freshness
from .retry import Retry
from .session import Followed
from .steps import Connect, Listen, Opening, Pause, Say, Step, Steps
from .subscription import Subscription
from .view import View, ViewOptions

__all__ = ["Events", "Socket", "subscribe", "watch"]

_T = TypeVar("_T")


class _Shell:
    """Does what a conversation asks for, with await. One task listens at a time; others wait for their turn, which comes with
    each message."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._connection: ClientConnection | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    async def next(self, conversation: Conversation, seconds: float | None) -> Event | None:
        """The next event; None if none came for so long, or if nothing can come."""
        end = conversation.end_after(seconds)
        while True:
            async with self._turn:
                event = conversation.take()
                if event is not None or conversation.is_over or not await self.run(conversation.step(end)):
                    return event

    async def accepted(self, conversation: Conversation, followed: Followed) -> None:
        """Wait until a subscription is answered; if that is not to be, leave nothing of it."""
        try:
            await self.run(conversation.flush())
            while not conversation.is_settled(followed):
                async with self._turn:
                    if not conversation.is_settled(followed):
                        await self.run(conversation.step(None))
        except BaseException:
            conversation.forget(followed)
            raise

    async def run(self, steps: Steps[_T]) -> _T:
        """Safe to cancel."""
        try:
            self._check_open()
            step = next(steps)
            while True:
                try:
                    answer = await self._do(step)
                except FAILURES as error:
                    self._check_open()
                    step = steps.throw(failure_of(error))
                else:
                    step = steps.send(answer)
        except StopIteration as result:
            return result.value  # type: ignore[no-any-return]
        finally:
            steps.close()

    async def close(self) -> None:
        """Idempotent; who waits is told `Unavailable`."""
        self._closed = True
        await self._hang_up()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("This subscription was closed.")

    async def _do(self, step: Step) -> Any:
        match step:
            case Connect():
                await self._hang_up()
                self._connection = await connect(
                    step.url,
                    additional_headers=step.headers,
                    max_size=self._opening.max_message_bytes,
                    open_timeout=self._opening.open_seconds,
                    close_timeout=self._opening.close_seconds,
                    **OPTIONS,
                )
            case Say():
                await self._line().send(step.text)
            case Listen():
                return await self._listen(step.seconds)
            case Pause():
                await asyncio.sleep(step.seconds)
            case _:
                pong: Any = await self._line().ping()
                return pong.done
        return None

    async def _listen(self, seconds: float) -> bytes | str | None:
        try:
            async with asyncio.timeout(seconds) as limit:
                return await self._line().recv()
        except TimeoutError:
            if limit.expired():
                return None
            raise

    def _line(self) -> ClientConnection:
        assert self._connection is not None, "a conversation connects before it speaks"
        return self._connection

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class Socket:
    """Many subscriptions over one connection. Enter it, subscribe, and iterate: the events of all come in one sequence.

    The iteration ends when no subscription is left; it may begin again after another `subscribe`. Several tasks may use one.
    """

    def __init__(self, conversation: Conversation, opening: Opening, prefix: tuple[str, ...]) -> None:
        self._conversation = conversation
        self._shell = _Shell(opening)
        self._prefix = prefix

    async def subscribe(self, path: str | Sequence[str] = (), **options: Unpack[ViewOptions]) -> Subscription:
        """Follow a node, or with `subtree` all that is below it too. Returns when the server has accepted it.

        `options`: see `ViewOptions`. Raises what the server answers (`NotFound`, `Forbidden`, …). Cancelled, it leaves
        no subscription behind.
        """
        view = View.of((*self._prefix, *keys_of(path)), options)
        followed = self._conversation.begin(view)
        await self._shell.accepted(self._conversation, followed)
        return Subscription(followed)

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Follow it no more. What came of it and was not read is dropped."""
        self._conversation.forget(subscription._followed)
        await self._shell.run(self._conversation.flush())

    async def next(self, seconds: float | None = None) -> Event | None:
        """The next event; None if none comes for so many seconds, or if no subscription is left. Safe to cancel."""
        return await self._shell.next(self._conversation, seconds)

    async def close(self) -> None:
        """Idempotent."""
        await self._shell.close()

    async def __aenter__(self) -> Self:
        await _opened(self._shell, self._conversation, None)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event


class Events:
    """One subscription. Enter it and iterate; the iteration ends with the stream, after an `Ended`."""

    def __init__(self, conversation: Conversation, opening: Opening, view: View) -> None:
        self._conversation = conversation
        self._shell = _Shell(opening)
        self._view = view
        self._followed: Followed | None = None

    @property
    def subscription(self) -> Subscription:
        """Its path, cursor and epoch. Only once it was entered."""
        assert self._followed is not None, "use `async with`"
        return Subscription(self._followed)

    async def next(self, seconds: float | None = None) -> Event | None:
        """The next event; None if none comes for so many seconds, or after the end. Safe to cancel.

        Raises what ended the subscription before its time, and `Unavailable` when the server does not come back.
        """
        event = await self._shell.next(self._conversation, seconds)
        if isinstance(event, Failed):
            raise event.error
        return event

    async def table(self, *names: str, path: str | Sequence[str] = (), every: float = 0.05) -> AsyncIterator[Columns]:
        """Columns of the table that grow as its rows come: the same object each time there is more, at most each `every` seconds.

        `names`: the columns; all if none are given. `path`: which table of a subtree, by the end of its path; the first that has
        these columns if none is given. Ends with that table.
        """
        columns = Columns(names, path=keys_of(path))
        fresh = Freshness(every)
        while True:
            event = await self.next(fresh.wait())
            if event is not None:
                fresh.told(columns.take(event))
            if columns.is_complete or (event is None and self.is_over):
                break
            if fresh.is_due():
                yield columns
        if fresh.has_more():
            yield columns

    @property
    def is_over(self) -> bool:
        """Nothing more will come."""
        return self._conversation.is_over

    async def close(self) -> None:
        """Idempotent."""
        await self._shell.close()

    async def __aenter__(self) -> Self:
        self._followed = await _opened(self._shell, self._conversation, self._view)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event


def subscribe(
    uri: str,
    path: str | Sequence[str] = (),
    *,
    api_key: str | None = None,
    token: Token | None = None,
    retry: Retry = Retry(),
    max_message_bytes: int = 64 << 20,
    **options: Unpack[ViewOptions],
) -> Events:
    """Follow one node, or with `subtree` what is below it too.

    `uri`: ``http://HOST:8000``, with or without ``/api/v1`` and ``?api_key=``. `options`: see `ViewOptions`. `token`: an access
    token, or a function that gives one. Entering raises what the server answers, and `Unavailable` if it is not there; a
    connection that is lost later is sought again as `retry` says. `max_message_bytes`: larger ones end it with `TooLarge`.
    """
    conversation, prefix = conversation_with(uri, api_key=api_key, token=token, retry=retry)
    view = View.of((*prefix, *keys_of(path)), options)
    return Events(conversation, Opening(max_message_bytes=max_message_bytes), view)


def watch(
    uri: str,
    *,
    api_key: str | None = None,
    token: Token | None = None,
    retry: Retry = Retry(),
    max_message_bytes: int = 64 << 20,
) -> Socket:
    """A socket for many subscriptions: ``async with watch(uri) as socket: run = await socket.subscribe("run", subtree=True)``.

    Needs a server with `/stream/many`. Paths are relative to the node that the address names, if it names one.
    """
    conversation, prefix = conversation_with(uri, api_key=api_key, token=token, retry=retry)
    return Socket(conversation, Opening(max_message_bytes=max_message_bytes), prefix)


async def _opened(shell: _Shell, conversation: Conversation, view: View | None) -> Followed | None:
    """What fails on entering leaves nothing open."""
    try:
        followed = None if view is None else conversation.begin(view)
        await shell.run(conversation.open())
        if followed is not None:
            await shell.accepted(conversation, followed)
        return followed
    except BaseException:
        await shell.close()
        raise
