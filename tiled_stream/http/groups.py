"""What a socket with many nodes has open: groups (a subscription of the client, a subtree perhaps) of parts (one node each).

Values and bookkeeping only; `stream_many.py` acts on them.
"""

from __future__ import annotations

import asyncio

from ..broadcast.hub import Subscription
from ..nodes.repository import Located
from ..wire.many import Subscribe
from ..wire.messages import Envelope, MessageEncoder
from ..wire.views import Thinning, View, ViewEncoder, viewed

__all__ = ["Group", "Out", "Part", "encoder_of"]


class Part:
    """One node of a group: its cursor, and how its messages begin."""

    __slots__ = ("at", "encoder", "group", "horizon", "is_live", "is_new", "number", "prefix", "subscription")

    def __init__(
        self,
        group: Group,
        at: Located,
        *,
        number: int,
        prefix: bytes,
        encoder: MessageEncoder | ViewEncoder,
        subscription: Subscription,
        is_new: bool,
    ) -> None:
        self.group = group
        self.at = at
        self.number = number
        self.prefix = prefix
        self.encoder = encoder
        self.subscription = subscription
        # Created after the subscription began: all that is below it is told from its first record, whatever `start` was.
        self.is_new = is_new
        # Children that were created up to here are asked of the catalog; those created later are told by its records.
        self.horizon = subscription.head
        self.is_live = False

    @property
    def is_root(self) -> bool:
        """True for the node that was addressed."""
        return self.number == 0

    @property
    def has_children(self) -> bool:
        """True if its records may tell of further nodes of the group."""
        return self.group.wanted.subtree and self.at.node.family == "container" and not self.at.node.data_sources


class Group:
    """One subscription of the client. `wanted` is how it was asked for."""

    __slots__ = ("is_over", "next_number", "owed", "parts", "path", "tasks", "view", "wanted")

    def __init__(self, wanted: Subscribe) -> None:
        self.wanted = wanted
        self.view = View(wanted.columns, wanted.slice or "", wanted.payload)
        self.path: tuple[str, ...] = ()
        self.parts: set[Part] = set()
        self.next_number = 0
        self.tasks: set[asyncio.Task[None]] = set()
        # Once the addressed node has ended: up to which sequence its other parts are still to be delivered.
        self.owed: dict[Part, int] | None = None
        self.is_over = False

    def number(self) -> int:
        """The next number of a node."""
        self.next_number += 1
        return self.next_number - 1

    def relative(self, path: tuple[str, ...]) -> str:
        """The path below the addressed node, as `cursors` names it."""
        return "/".join(path[len(self.path) :])

    def after(self, path: tuple[str, ...], created: int) -> int | None:
        """After which sequence an existing node begins; None: only what comes.

        Without a `start`, a child that is younger than the cursor of its parent is new to the client, and is told whole.
        """
        wanted = self.wanted
        own = wanted.cursors.get(self.relative(path))
        if own is not None:
            return own
        if wanted.start is not None:
            return max(wanted.start - 1, 0)
        if len(path) > len(self.path):
            parents = wanted.cursors.get(self.relative(path[:-1]))
            if parents is not None and created > parents:
                return 0
        return None


class Out:
    """Messages on their way to the socket, in order: what stands before each, and the bytes that all share."""

    __slots__ = ("gaps", "messages")

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.gaps = 0

    def add(self, prefix: bytes, data: bytes) -> None:
        """One message more."""
        self.messages.append((prefix, data))


def encoder_of(
    envelope: Envelope, base_url: str, at: Located, *, wanted: Subscribe, view: View
) -> tuple[MessageEncoder | ViewEncoder, Thinning | None]:
    """How a node is encoded as the client wants to see it, and how it is thinned. Containers are told whole: they are few words.

    `NotFound` for a family without a stream.
    """
    node = at.node
    plain = MessageEncoder(envelope, base_url, at.path, viewed(node.structure, view), node.family)
    if node.family == "container":
        return plain, None
    thin = None
    if wanted.max_hz is not None:
        is_minmax = wanted.thin == "minmax" and node.family == "table" and view.payload
        thin = Thinning(1 / wanted.max_hz, is_minmax, view.columns if is_minmax else None)
    return plain if view == View() else ViewEncoder(plain, view, node), thin
