"""A page of nodes, as every search answers it."""

from __future__ import annotations

import msgspec

from ..catalog.port import Hit

__all__ = ["Listing"]


class Listing(msgspec.Struct, frozen=True):
    """A page of present nodes. `count` is exact up to the limit that is set. `is_inside`: they lie in a file.

    `next_cursor` / `next_offset`: where the next page begins; both None at the end.
    """

    hits: tuple[Hit, ...]
    count: int
    next_cursor: int | None = None
    next_offset: int | None = None
    is_inside: bool = False
