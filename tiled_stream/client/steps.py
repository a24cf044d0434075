"""What a conversation asks of the outside: connect, say, listen, probe, pause. Two shells answer, one with await and one without.

A conversation yields one of these and is resumed with the answer, or with `Lost` or `Rejected` thrown into it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

import msgspec

__all__ = ["Connect", "Listen", "Opening", "Pause", "Probe", "Say", "Step", "Steps"]

_T = TypeVar("_T")


class Opening(msgspec.Struct, frozen=True):
    """How connections are made. Sizes in bytes, times in seconds."""

    max_message_bytes: int = 64 << 20
    open_seconds: float = 10.0
    #: How long a farewell may take.
    close_seconds: float = 1.0


class Connect:
    """Drop the connection there is, make another. The headers hold secrets: this object shows none."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.url = url
        self.headers = headers


class Say(msgspec.Struct, frozen=True):
    """Send a text message."""

    text: str


class Listen(msgspec.Struct, frozen=True):
    """Answer: the next message, or None if none came for so long."""

    seconds: float


class Probe(msgspec.Struct, frozen=True):
    """Answer: a function that says whether the other side has given a sign of life since."""


class Pause(msgspec.Struct, frozen=True):
    """Wait."""

    seconds: float


Step = Connect | Say | Listen | Probe | Pause
#: What came of it: see the classes. `Callable[[], bool]` for a probe.
Answer = bytes | str | None | Callable[[], bool]
Steps = Generator[Step, Any, _T]
