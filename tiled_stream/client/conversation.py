"""One socket from opening to close as a value: connecting, listening, noticing a dead line, coming back. No I/O: see `steps.py`.

What must stay true: a shell may abandon any of these generators at any point (a cancelled task, an interrupt) and call again;
nothing is lost and nothing is asked twice. Events that came while an answer was awaited are kept, up to a bound.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from ..domain.errors import NotSupported, TooLarge, Unauthenticated, Unavailable
from .address import Address
from .credentials import Credentials
from .events import Event, Gap, Update
from .faults import Lost, Rejected, fault_of_close, is_worth_another_try
from .fetch import Fetcher
from .retry import Backoff, Retry
from .session import Followed, Session
from .steps import Connect, Listen, Pause, Probe, Say, Steps
from .view import View

__all__ = ["Conversation"]

#: After so long without a message the other side is asked whether it is there; after as long again the line is dead.
_SILENCE_SECONDS = 20.0
#: Events and bytes that may come before the answer to a `subscribe`.
_MAX_KEPT = 10_000
_MAX_KEPT_BYTES = 64 << 20
#: How a server says that it has no socket for many nodes.
_NO_SUCH_SOCKET = (403, 404, 405, 426)
_ONE_ONLY = "This server has no socket for many nodes (/stream/many): subscribe to one node, with no other option than start."


def _utc() -> datetime:
    return datetime.now(UTC)


class Conversation:
    """`events`: what came and was not taken yet."""

    def __init__(
        self,
        address: Address,
        credentials: Credentials,
        *,
        retry: Retry,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _utc,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.session = Session(Fetcher(address, credentials))
        self.events: deque[Event] = deque()
        self._kept_bytes = 0
        self._address = address
        self._credentials = credentials
        self._backoff = Backoff(retry, clock=clock, random=chance)
        self._clock = clock
        self._now = now
        #: A connection stands and has been told everything that it must know.
        self._is_open = False
        self._has_been_open = False
        self._owed: deque[str] = deque()  # to be said on the connection that stands
        self._why = ""
        #: The token goes into the first message: the server refused it in the header.
        self._says_token = False
        # Set while a probe is out.
        self._is_alive: Callable[[], bool] | None = None

    def open(self) -> Steps[None]:
        """The first connection, which is not sought again. Raises what the server answers, and `Unavailable` if it does not."""
        try:
            yield from self._connect()
        except (Lost, Rejected) as failure:
            raise self._fault(failure) from None

    def begin(self, view: View) -> Followed:
        """Add a subscription. On a connection that stands `flush` asks for it; then it takes steps until it `is_settled`."""
        if not self.session.is_many:
            raise NotSupported(_ONE_ONLY)
        followed = self.session.add(view)
        if self._is_open:
            followed.by_number = {0: followed.root}
            self._owed.append(self.session.request(followed))
        return followed

    def is_settled(self, followed: Followed) -> bool:
        """Whether the server has answered. Raises what it answered, and `TooLarge` if too much else came before."""
        if followed.error is not None and not followed.is_answered:
            raise followed.error
        if not followed.is_answered and (len(self.events) > _MAX_KEPT or self._kept_bytes > _MAX_KEPT_BYTES):
            raise TooLarge("Too much came before the answer to a subscription; read events before subscribing to more.")
        return followed.is_answered

    def forget(self, followed: Followed) -> None:
        """End a subscription; what came of it and was not taken is dropped. `flush` tells the server."""
        if followed.is_over:
            return
        self.session.drop(followed)
        kept = [event for event in self.events if event.subscription != followed.number]
        self.events.clear()
        self._kept_bytes = 0
        self._keep(kept)
        if self._is_open and self.session.is_many:
            self._owed.append(f'{{"type":"unsubscribe","id":{followed.number}}}')

    def flush(self) -> Steps[None]:
        """Say what is to be said. May run beside a step that listens."""
        try:
            while self._is_open and self._owed:
                yield Say(self._owed.popleft())
        except Lost:
            return  # whoever listens hears of it too; what was not said is said when a connection stands again

    def take(self) -> Event | None:
        """The next event that is here."""
        if not self.events:
            return None
        event = self.events.popleft()
        self._kept_bytes -= _size(event)
        return event

    @property
    def is_over(self) -> bool:
        """Nothing can come: no subscription is left, and nothing that was not taken."""
        return not self.session.subscriptions and not self.events

    def end_after(self, seconds: float | None) -> float | None:
        """For `step`: when to stop waiting, on the conversation's clock."""
        return None if seconds is None else self._clock() + seconds

    def step(self, end: float | None) -> Steps[bool]:
        """One message, or one step of coming back; False when the time is up. `events` may have grown."""
        if not self._is_open:
            return (yield from self._come_back(end))
        try:
            while self._owed:
                yield Say(self._owed.popleft())
            wait = _SILENCE_SECONDS if end is None else min(_SILENCE_SECONDS, max(0.0, end - self._clock()))
            data = yield Listen(wait)
            if data is None:
                return (yield from self._silence(end))
        except Lost as lost:
            self._lost(lost)
            return True
        self._is_alive = None
        try:
            events = self.session.received(data, self._now())
        except Lost as lost:  # a subscription that stood was refused for now
            self._lost(lost)
            return True
        if any(isinstance(event, Update | Gap) for event in events):
            self._backoff.progressed()
        self._keep(events)
        return True

    def _keep(self, events: list[Event]) -> None:
        self.events.extend(events)
        self._kept_bytes += sum(map(_size, events))

    def _silence(self, end: float | None) -> Steps[bool]:
        if end is not None and self._clock() >= end:
            return False
        if self._is_alive is None:
            self._is_alive = yield Probe()
        elif self._is_alive():
            self._is_alive = None
        else:
            raise Lost(1006, "the server gave no sign of life")
        return True

    def _lost(self, lost: Lost) -> None:
        """What the end of a connection means: the end of the stream, an error, or coming back."""
        self._is_open = False
        self._is_alive = None
        self._owed.clear()
        if not self.session.is_many and lost.code == 1000 and not lost.is_ours:
            self._keep(self.session.closed(lost, self._now()))
            return
        fault = fault_of_close(lost)
        if fault is not None and not (isinstance(fault, Unauthenticated) and self._credentials.can_renew):
            raise fault
        self._why = str(lost)
        self._backoff.lost(self._why)

    def _come_back(self, end: float | None) -> Steps[bool]:
        wait = self._backoff.next_at - self._clock()
        if wait > 0:
            if end is not None and end - self._clock() < wait:
                yield Pause(max(0.0, end - self._clock()))
                return False
            yield Pause(wait)
        try:
            yield from self._connect()
        except Lost as lost:
            self._lost(lost)
        except Rejected as rejected:
            is_stale = rejected.status == 401 and self._credentials.can_renew
            if not is_worth_another_try(rejected.status) and not is_stale:
                raise rejected.fault() from None
            self._why = str(rejected.fault())
            self._backoff.lost(self._why, at_least=rejected.retry_after or 0.0)
        return True

    def _connect(self) -> Steps[None]:
        if self.session.is_many:
            try:
                yield from self._connect_to(self._address.many())
            except Rejected as rejected:
                if rejected.status not in _NO_SUCH_SOCKET or (rejected.status == 403 and rejected.body.startswith(b"{")):
                    raise
                if self._plain() is None:
                    raise NotSupported(_ONE_ONLY) from None
                self.session.is_many = False
        if not self.session.is_many:
            (followed,) = self.session.subscriptions.values()
            yield from self._connect_to(self._address.single(followed.view.path, followed.start(), followed.epoch))
        self._owed.clear()
        for message in self.session.restart():
            yield Say(message)
        self._is_open = True
        attempts, seconds = self._backoff.opened()
        if self._has_been_open:
            self._keep(self.session.reconnected(attempts, seconds, self._why, self._now()))
        self._has_been_open = True

    def _plain(self) -> Followed | None:
        """The one subscription, if a socket for one node can carry it."""
        followed = list(self.session.subscriptions.values())
        return followed[0] if len(followed) == 1 and followed[0].view.is_plain else None

    def _connect_to(self, url: str) -> Steps[None]:
        if not self._says_token:
            try:
                yield Connect(url, self._credentials.headers())
                return
            except Rejected as rejected:
                if not (self._credentials.has_token and rejected.status == 400):
                    raise
                self._says_token = True
        yield Connect(url, {})
        yield Say(self._credentials.first_message())

    def _fault(self, failure: Lost | Rejected) -> Exception:
        if isinstance(failure, Rejected):
            return failure.fault()
        return fault_of_close(failure) or Unavailable(f"The server at {self._address.base} cannot be reached: {failure}.")


def _size(event: Event) -> int:
    return len(getattr(event, "payload", None) or b"")
