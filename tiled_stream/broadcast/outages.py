"""Readers that wait for a log or a storage that cannot be reached: how long each pauses, and one log line for all of them.

What must stay true: a reader that meets `Unavailable` tries again until it succeeds or is cancelled; a subscriber is never given
up because a dependency is unreachable. Each sentence is logged once when the first reader meets it and once when the last one is
through, however many readers and tries there are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..domain.errors import Unavailable

__all__ = ["Outages", "Pause"]

logger = logging.getLogger(__name__)

#: Seconds before the first new try, and at most before each later one.
FIRST_SECONDS = 0.1
MOST_SECONDS = 2.0


class Pause:
    """Seconds between tries, twice as many each time up to a bound."""

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds = 0.0

    @property
    def is_on(self) -> bool:
        """Whether the last try failed."""
        return self._seconds > 0

    def next(self) -> float:
        """How long to wait after one more failure."""
        self._seconds = min(2 * self._seconds or FIRST_SECONDS, MOST_SECONDS)
        return self._seconds

    def reset(self) -> None:
        """A try succeeded."""
        self._seconds = 0.0


class Outages:
    """All readers of this process that wait, by the sentence of the error that they met. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Each sentence: since when, and the readers that met it last.
        self._waiting: dict[str, tuple[float, set[object]]] = {}
        self._sentences: dict[object, str] = {}

    def met(self, reader: object, error: Unavailable) -> None:
        """Take note that `reader` waits because of `error`."""
        sentence = str(error)
        if self._sentences.get(reader) == sentence:
            return
        self.over(reader)
        self._sentences[reader] = sentence
        if sentence not in self._waiting:
            self._waiting[sentence] = (self._clock(), set())
            logger.warning("Streams stay connected and wait: %s", sentence)
        self._waiting[sentence][1].add(reader)

    def over(self, reader: object) -> None:
        """Take note that `reader` waits no more: it succeeded or has left. Idempotent."""
        sentence = self._sentences.pop(reader, None)
        if sentence is None:
            return
        since, readers = self._waiting[sentence]
        readers.discard(reader)
        if not readers:
            del self._waiting[sentence]
            logger.info("Streams no longer wait, after %.1f s: %s", self._clock() - since, sentence)

    def __len__(self) -> int:
        return len(self._sentences)
