"""The only door in: a command is decided against the present and its events are appended to the log.

What must stay true: nothing is appended for a refused command (I10), everything acknowledged is in the log (I6).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ..domain.commands import Command
from ..domain.nodes import Node
from ..domain.position import Position
from ..domain.structures import Structure

__all__ = ["Accepted", "Ack", "Writer"]

#: `log`: acknowledged once it is in the log. `persisted`: once it is in storage too.
Ack = Literal["log", "persisted"]


class Accepted(msgspec.Struct, frozen=True):
    """What became of a command. `position` is None if there was nothing to append.

    `node`: the node created or edited. `structure`: the array's structure after the write. `path`: of `node`.
    """

    position: Position | None
    node: Node | None = None
    structure: Structure | None = None
    path: tuple[str, ...] = ()


class Writer:
    """`submit` is the whole of it."""

    async def submit(self, path: tuple[str, ...], command: Command, *, ack: Ack = "log") -> Accepted:
        """Decide `command` against the node at `path` and append its events.

        Raises a `Refused` (nothing was appended) or `Unavailable` (nothing was appended, or with ``ack="persisted"``: it is in the
        log but storage did not confirm in time). Cancelled: appended whole or not at all.
        """
        raise NotImplementedError
