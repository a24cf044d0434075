"""When to come back: later each time, never together with everybody else, and not for ever."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..domain.errors import Unavailable

__all__ = ["Backoff", "Retry"]


#: A connection that stood so long counts even if it brought nothing: a quiet stream behind a proxy that cuts quiet lines.
_LASTED_SECONDS = 2.0


class Retry(msgspec.Struct, frozen=True):
    """How a lost connection is sought again. The first wait is up to `first_seconds`; each next one may be twice as long, up to
    `most_seconds`. After `give_up_seconds` without a connection that brought anything it is over (None: never).
    """

    first_seconds: float = 0.2
    most_seconds: float = 10.0
    give_up_seconds: float | None = 300.0


class Backoff:
    """The state of coming back. `clock` is monotonic, `random` gives 0…1."""

    def __init__(self, retry: Retry, *, clock: Callable[[], float], random: Callable[[], float]) -> None:
        self._retry = retry
        self._clock = clock
        self._random = random
        self._lost_at: float | None = None  # since when nothing came; None: all is well
        self._opened_at: float | None = None
        self.attempts = 0
        self.next_at = 0.0

    def lost(self, why: str, *, at_least: float = 0.0) -> None:
        """A connection ended, or was not made. Sets `next_at`; `Unavailable` when it is time to give up."""
        now = self._clock()
        if self._opened_at is not None and now - self._opened_at >= _LASTED_SECONDS:
            self.progressed()  # whatever ended it is a new thing
        self._opened_at = None
        if self._lost_at is None:
            self._lost_at = now
        give_up = self._retry.give_up_seconds
        if give_up is not None and now - self._lost_at >= give_up:
            raise Unavailable(f"The server did not come back within {give_up:g} s: {why}.", retry_after=self._retry.most_seconds)
        most = min(self._retry.most_seconds, self._retry.first_seconds * 2.0 ** min(self.attempts, 30))
        self.attempts += 1
        # Spread over the upper half: a thousand viewers of one server must not come back in one moment.
        self.next_at = now + max(at_least, most * (0.5 + 0.5 * self._random()))

    def opened(self) -> tuple[int, float]:
        """A connection stands; how many attempts it took and how many seconds nothing came."""
        self._opened_at = self._clock()
        return self.attempts, 0.0 if self._lost_at is None else self._opened_at - self._lost_at

    def progressed(self) -> None:
        """Something came: the next loss is another story."""
        self._lost_at = None
        self.attempts = 0
