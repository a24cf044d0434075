"""The same as `live.py` for programs without asyncio: same names, blocking.

One thread reads and answers pings as long as a connection is open (that of `websockets.sync`); it is gone when the `with` block
is left. Use an object from one thread at a time; `close` alone may come from another.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from websockets.sync.client import ClientConnection, connect

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
    """Does what a conversation asks for, blocking."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._connection: ClientConnection | None = None
        self._left = contextlib.ExitStack()  # closes it
        self._closed = threading.Event()

    def next(self, conversation: Conversation, seconds: float | None) -> Event | None:
        """The next event; None if none came for so long, or if nothing can come."""
        end = conversation.end_after(seconds)
        while True:
            event = conversation.take()
            if event is not None or conversation.is_over or not self.run(conversation.step(end)):
                return event

    def accepted(self, conversation: Conversation, followed: Followed) -> None:
        """Wait until a subscription is answered; if that is not to be, leave nothing of it."""
        try:
            self.run(conversation.flush())
            while not conversation.is_settled(followed):
                self.run(conversation.step(None))
        except BaseException:
            conversation.forget(followed)
            raise

    def run(self, steps: Steps[_T]) -> _T:
        """An interrupt (Ctrl-C) leaves it as it was."""
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._do(step)
                except FAILURES as error:
                    self._check_open()
                    step = steps.throw(failure_of(error))
                else:
                    self._check_open()
                    step = steps.send(answer)
        except StopIteration as result:
            return result.value  # type: ignore[no-any-return]
        finally:
            steps.close()

    def close(self) -> None:
        """Idempotent; who waits is told `Unavailable`."""
        self._closed.set()
        self._hang_up()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise Unavailable("This subscription was closed.")

    def _do(self, step: Step) -> Any:
        self._check_open()
        match step:
            case Connect():
                self._hang_up()
                opener = connect(
                    step.url,
                    additional_headers=step.headers,
                    max_size=self._opening.max_message_bytes,
                    open_timeout=self._opening.open_seconds,
                    close_timeout=self._opening.close_seconds,
                    **OPTIONS,
                )
                self._connection = self._left.enter_context(opener)
            case Say():
                self._line().send(step.text)
            case Listen():
                return self._listen(step.seconds)
            case Pause():
                self._closed.wait(step.seconds)
            case _:
                return self._line().ping().is_set
        return None

    def _listen(self, seconds: float) -> bytes | str | None:
        try:
            return self._line().recv(timeout=seconds)
        except TimeoutError:
            return None

    def _line(self) -> ClientConnection:
        assert self._connection is not None, "a conversation connects before it speaks"
        return self._connection

    def _hang_up(self) -> None:
        self._connection = None
        self._left.close()


class Socket:
    """Many subscriptions over one connection. Enter it, subscribe, and iterate: the events of all come in one sequence.

    The iteration ends when no subscription is left; it may begin again after another `subscribe`.
    """

    def __init__(self, conversation: Conversation, opening: Opening, prefix: tuple[str, ...]) -> None:
        self._conversation = conversation
        self._shell = _Shell(opening)
        self._prefix = prefix

    def subscribe(self, path: str | Sequence[str] = (), **options: Unpack[ViewOptions]) -> Subscription:
        """Follow a node, or with `subtree` all that is below it too. Returns when the server has accepted it.

        `options`: see `ViewOptions`. Raises what the server answers (`NotFound`, `Forbidden`, …). Cancelled, it leaves
        no subscription behind.
        """
        view = View.of((*self._prefix, *keys_of(path)), options)
        followed = self._conversation.begin(view)
        self._shell.accepted(self._conversation, followed)
        return Subscription(followed)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Follow it no more. What came of it and was not read is dropped."""
        self._conversation.forget(subscription._followed)
        self._shell.run(self._conversation.flush())

    def next(self, seconds: float | None = None) -> Event | None:
        """The next event; None if none comes for so many seconds, or if no subscription is left. Safe to cancel."""
        return self._shell.next(self._conversation, seconds)

    def close(self) -> None:
        """Idempotent."""
        self._shell.close()

    def __enter__(self) -> Self:
        _opened(self._shell, self._conversation, None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = self.next()
        if event is None:
            raise StopIteration
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
        assert self._followed is not None, "use `with`"
        return Subscription(self._followed)

    def next(self, seconds: float | None = None) -> Event | None:
        """The next event; None if none comes for so many seconds, or after the end. Safe to cancel.

        Raises what ended the subscription before its time, and `Unavailable` when the server does not come back.
        """
        event = self._shell.next(self._conversation, seconds)
        if isinstance(event, Failed):
            raise event.error
        return event

    def table(self, *names: str, path: str | Sequence[str] = (), every: float = 0.05) -> Iterator[Columns]:
        """Columns of the table that grow as its rows come: the same object each time there is more, at most each `every` seconds.

        `names`: the columns; all if none are given. `path`: which table of a subtree, by the end of its path; the first that has
        these columns if none is given. Ends with that table.
        """
        columns = Columns(names, path=keys_of(path))
        fresh = Freshness(every)
        while True:
            event = self.next(fresh.wait())
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

    def close(self) -> None:
        """Idempotent."""
        self._shell.close()

    def __enter__(self) -> Self:
        self._followed = _opened(self._shell, self._conversation, self._view)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = self.next()
        if event is None:
            raise StopIteration
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
    """A socket for many subscriptions: ``with watch(uri) as socket: run = socket.subscribe("run", subtree=True)``.

    Needs a server with `/stream/many`. Paths are relative to the node that the address names, if it names one.
    """
    conversation, prefix = conversation_with(uri, api_key=api_key, token=token, retry=retry)
    return Socket(conversation, Opening(max_message_bytes=max_message_bytes), prefix)


def _opened(shell: _Shell, conversation: Conversation, view: View | None) -> Followed | None:
    """What fails on entering leaves nothing open."""
    try:
        followed = None if view is None else conversation.begin(view)
        shell.run(conversation.open())
        if followed is not None:
            shell.accepted(conversation, followed)
        return followed
    except BaseException:
        shell.close()
        raise
