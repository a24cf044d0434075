"""What a log has let go of, as it is told again from storage: records that stand for some that were, and what cannot be told."""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from .events import Record

__all__ = ["Lost", "PastPage"]


class Lost(msgspec.Struct, frozen=True):
    """Of the records `first`…`last` nothing can be told."""

    first: int
    last: int


class PastPage(msgspec.Struct, frozen=True):
    """Some of the past, in order, without a hole: each item goes on where the one before ended.

    `reached`: up to where this page tells; what follows is asked for with `state`. `is_end`: by
    then the producer had ended the stream.
    """

    items: tuple[Record | Lost, ...]
    reached: int
    state: Hashable = None
    is_end: bool = False
