"""What a log has let go of, as far as somebody can tell it (`query/history.py` does, from storage).

Broadcast knows only this: pages of records that stand for others, and what is lost. What must stay true: a page is given to all
who ask the same, and it says how far it reaches (I3).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import msgspec

from ..domain.events import ChildCreated, Record
from ..domain.nodes import Node, NodeId
from ..domain.past import Lost, PastPage
from .frames import Encoder, Frame, Gap

__all__ = ["Past", "PastEntries", "born", "past_entries"]


class Past(Protocol):
    """Tells the past of nodes, page by page."""

    async def page(self, node: NodeId, after: int, upto: int, state: Hashable, /) -> PastPage:
        """The next of the records after `after` up to `upto`; `state` as the page before gave it, or None."""
        ...

    async def ended(self, node: NodeId, /) -> int:
        """The sequence at which the producer ended the stream of `node`; 0 if that is not known."""
        ...


class PastEntries(msgspec.Struct, frozen=True):
    """A page, encoded. `reached`, `state` and `is_end` as in `PastPage`."""

    items: tuple[Frame | Gap, ...]
    reached: int
    state: Hashable
    is_end: bool = False


def past_entries(page: PastPage, encode: Encoder) -> PastEntries:
    """The page as it is sent."""
    items: list[Frame | Gap] = []
    for item in page.items:
        if isinstance(item, Lost):
            items.append(Gap(item.first, item.last, "truncated"))
        elif (data := encode(item)) is not None:
            items.append(Frame(item.sequence, item.time, data, born(item)))
    return PastEntries(tuple(items), page.reached, page.state, page.is_end)


def born(record: Record) -> Node | None:
    """The child that a record tells of; in a log it stands at the sequence of its creation."""
    if not isinstance(record.event, ChildCreated):
        return None
    node = record.event.node
    return node if record.covers is not None else msgspec.structs.replace(node, created=record.sequence)
