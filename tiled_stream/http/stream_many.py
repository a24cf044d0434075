"""Live streams of many nodes on one socket (`/stream/many`): subscriptions come and go as the client says.

What must stay true: each node of each subscription keeps the promises of a socket of its own (I3); of a subtree no node is
missed, however fast nodes are created (`subtree.py`); what is held for a client are cursors, not messages (I8): answers to what
it says wait in a short queue, and as long as that is full nothing more is heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Coroutine
from functools import partial
from typing import Any

from ..broadcast.bundle import Bundle
from ..broadcast.hub import Frame, Gap, Item, Over, Skipped
from ..domain.errors import Gone, Malformed, NotFound, TiledStreamError, Unavailable
from ..domain.nodes import Node
from ..nodes.repository import Located
from ..wire.many import Auth, Ping, Said, Subscribe, dump, prefix_of, said, suffix_of
from ..wire.views import check_view
from .access import READ, Access, Principal, check_scopes
from .faults import status_of
from .groups import Group, Out, Part, encoder_of
from .params import base_url
from .services import Edge
from .socket import REASONS, Closed, Receive, Scope, Send, Socket, gap_fields, head_of_frame
from .subtree import Child, children, subscribable, told
from .watch import SendWatch

__all__ = ["ManySocket"]

logger = logging.getLogger(__name__)

#: What one socket may hold.
MAX_SUBSCRIPTIONS = 1000
MAX_NODES = 10_000
#: Answers that wait for their turn.
_ANSWERS = 64
_FULL = f"A socket holds {MAX_NODES} nodes; open another one, or subscribe to less."
#: Beyond any sequence that a log will reach, and a number for every store.
_FAR = 1 << 53


class _Full(Exception):
    """The socket holds as much as it may."""


class ManySocket(Socket):
    """One socket. The listener takes what the client says, a task begins each subscription, the sender sends for all of them."""

    def __init__(self, edge: Edge, access: Access, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(edge, access, scope, receive, send)
        self._groups: dict[int, Group] = {}
        self._nodes = 0
        self._bundle: Bundle[Part] = Bundle()
        self._answers: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue(_ANSWERS)
        # Groups whose own node has ended, and that are to be told so once all below is delivered.
        self._ending: set[Group] = set()

    async def enter(self, principal: Principal) -> None:
        check_scopes(principal, READ)
        self.edge.hub.attend(self._bundle.nudge)

    async def leave(self) -> None:
        self.edge.hub.dismiss(self._bundle.nudge)
        for group in list(self._groups.values()):
            await self._finish(group)
        await self._bundle.close()

    # ------------------------------------------------------------ the client says

    def hear(self, message: Any) -> Awaitable[None] | None:
        try:
            return self._heard(said(message))
        except Malformed as error:
            return self._refuse(0, error)

    async def _heard(self, message: Said) -> None:
        if isinstance(message, Subscribe):
            await self._open(message)
        elif isinstance(message, Ping):
            await self._answer(0, 0, self._dump("pong", id=message.id))
        elif not isinstance(message, Auth):
            group = self._groups.get(message.id)
            if group is None:
                await self._refuse(0, NotFound(f"There is no subscription {message.id}."), id=message.id)
                return
            await self._finish(group)
            await self._answer(message.id, 0, self._dump("unsubscribed"))

    async def _open(self, wanted: Subscribe) -> None:
        if wanted.id in self._groups:  # under 0: under its number it would end the one that is open
            text = f"The number {wanted.id} is in use; unsubscribe first, or take another."
            await self._answer(0, 0, self._dump("error", status=409, detail=text, id=wanted.id))
        elif len(self._groups) >= MAX_SUBSCRIPTIONS:
            text = f"A socket holds {MAX_SUBSCRIPTIONS} subscriptions; open another one."
            await self._answer(wanted.id, 0, self._dump("error", status=429, detail=text))
        else:
            group = self._groups[wanted.id] = Group(wanted)
            self._start(group, self._begin(group))

    async def _answer(self, subscription: int, node: int, data: bytes) -> None:
        await self._answers.put((prefix_of(self.envelope, subscription, node), data))
        self._bundle.nudge()

    async def _refuse(self, subscription: int, error: TiledStreamError, **more: Any) -> None:
        await self._answer(subscription, 0, self._dump("error", status=status_of(error), detail=str(error), **more))

    def _dump(self, kind: str, **fields: Any) -> bytes:
        return dump(self.envelope, kind, **fields)

    # ------------------------------------------------------------ a subscription begins

    def _start(self, group: Group, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._guarded(group, work), name=f"subscription {group.wanted.id} of a socket")
        group.tasks.add(task)
        task.add_done_callback(group.tasks.discard)
        task.add_done_callback(lambda _: self._bundle.nudge())

    async def _guarded(self, group: Group, work: Coroutine[Any, Any, None]) -> None:
        """What goes wrong ends this subscription and nothing else."""
        number = group.wanted.id
        try:
            await work
        except _Full:
            await self._fail(group, 429, _FULL)
        except TiledStreamError as error:
            await self._fail(group, status_of(error), str(error))
        except Exception as error:  # the supervisor of subscriptions
            request_id = self.scope["state"].get("request_id", "?")
            logger.error("Subscription %d of stream %s failed", number, request_id, exc_info=error)
            await self._fail(group, 500, f"Internal server error; the log tells more under request {request_id}.")

    async def _fail(self, group: Group, status: int, detail: str) -> None:
        if group.is_over:
            return
        await self._finish(group)
        await self._answer(group.wanted.id, 0, self._dump("error", status=status, detail=detail))

    async def _begin(self, group: Group) -> None:
        wanted = group.wanted
        keys = wanted.path.split("/") if isinstance(wanted.path, str) else wanted.path
        # What is resumed waits for a log that cannot be reached; what is new is refused.
        is_new = wanted.epoch is None and not wanted.cursors
        patiently = partial(self.edge.hub.patiently, once=is_new)
        at = await patiently(partial(subscribable, self.edge, tuple(key for key in keys if key)))
        group.path = at.path
        check_view(group.view, at.node)
        root = await patiently(partial(self._join, group, at, group.after(at.path, 0)))
        position = root.subscription
        await self._answer(
            wanted.id,
            0,
            self._dump(
                "subscribed",
                path=at.path,
                structure_family=at.node.family,
                epoch=position.present_epoch,
                head=position.head,
                **{"from": position.cursor + 1},
            ),
        )
        await self._introduce(root)
        if root.has_children:
            await self._descend([root])
        else:
            self._bundle.add(root, root.subscription)

    async def _join(self, group: Group, at: Located, after: int | None, *, is_new: bool = False) -> Part:
        """A node more; nothing of it is missed from here on. The caller introduces it, then follows it."""
        if self._nodes >= MAX_NODES:
            raise _Full
        url = base_url(self.scope, self.edge.settings.root_path)
        encoder, thin = encoder_of(self.envelope, url, at, wanted=group.wanted, view=group.view)
        begin = None if after is None else min(after, _FAR)
        subscription = await self.edge.hub.subscribe(
            at.node.id, begin, encoder, floor=at.head, epoch=group.wanted.epoch if begin else None, thin=thin
        )
        if group.is_over:  # meanwhile
            await subscription.leave()
            raise Gone("The subscription is over.")
        number = group.number()
        prefix = prefix_of(self.envelope, group.wanted.id, number)
        part = Part(group, at, number=number, prefix=prefix, encoder=encoder, subscription=subscription, is_new=is_new)
        group.parts.add(part)
        self._nodes += 1
        if group.owed is not None:
            group.owed[part] = subscription.head
        return part

    async def _introduce(self, part: Part) -> None:
        for data in self._introduction(part):
            await self._answers.put((part.prefix, data))
            self._bundle.nudge()

    def _introduction(self, part: Part) -> list[bytes]:
        """What comes before the first update of a node."""
        head = part.subscription.head
        messages = [] if part.is_root else [self._dump("node", **told(part.at.node, part.at.path, head))]
        messages.append(part.encoder.schema())
        if part.subscription.cursor >= head:
            part.is_live = True
            messages.append(self._dump("live"))
        return messages

    # ------------------------------------------------------------ what is below a node

    async def _descend(self, containers: list[Part]) -> None:
        """Tell all nodes below, in breadth. The containers are followed once that is done, so that later ones come later."""
        for parent in containers:  # grows
            async for child in children(self.edge, parent.at, first=1, last=parent.horizon):
                part = await self._admit(parent, child, is_new=parent.is_new)
                if part is not None and part.has_children:
                    containers.append(part)
        for part in containers:
            self._bundle.add(part, part.subscription)

    async def _fill(self, parent: Part, gap: Gap) -> None:
        """Children whose creation stands in records that cannot be given."""
        containers = []
        async for child in children(self.edge, parent.at, first=max(gap.first, parent.horizon + 1), last=gap.last):
            part = await self._admit(parent, child, is_new=True)
            if part is not None and part.has_children:
                containers.append(part)
        await self._descend(containers)

    async def _admit(self, parent: Part, child: Child, *, is_new: bool) -> Part | None:
        """An existing child: told, and followed unless it has children itself. None if it has no stream, or was just deleted."""
        group, at = parent.group, child.at
        after = 0 if is_new else group.after(at.path, child.created)
        try:
            part = await self.edge.hub.patiently(lambda: self._join(group, at, after, is_new=is_new))
        except Gone:
            return None
        except NotFound as error:
            for prefix, data in self._without_stream(group, at, str(error)):
                await self._answers.put((prefix, data))
            return None
        await self._introduce(part)
        if not part.has_children:
            self._bundle.add(part, part.subscription)
        return part

    async def _born(self, parent: Part, node: Node, out: Out) -> None:
        """A child that its parent's records tell of: from its first record on."""
        group, at = parent.group, Located(node, (*parent.at.path, node.key), 0)
        try:
            part = await self._join(group, at, 0, is_new=True)
        except Gone:
            return
        except Unavailable:  # the others are not held up
            self._start(group, self._born_later(parent, at))
            return
        except _Full:
            await self._finish(group)
            out.add(prefix_of(self.envelope, group.wanted.id, 0), self._dump("error", status=429, detail=_FULL))
            return
        except NotFound as error:
            out.messages += self._without_stream(group, at, str(error))
            return
        part.horizon = 0  # its own children are told by its records, all of them
        for data in self._introduction(part):
            out.add(part.prefix, data)
        self._bundle.add(part, part.subscription)

    async def _born_later(self, parent: Part, at: Located) -> None:
        """As `_born`, once the log can be reached again."""
        with contextlib.suppress(Gone):
            part = await self.edge.hub.patiently(lambda: self._join(parent.group, at, 0, is_new=True))
            part.horizon = 0
            await self._introduce(part)
            self._bundle.add(part, part.subscription)

    def _without_stream(self, group: Group, at: Located, reason: str) -> list[tuple[bytes, bytes]]:
        """A node that is there, and of which nothing will come."""
        prefix = prefix_of(self.envelope, group.wanted.id, group.number())
        node = self._dump("node", **told(at.node, at.path, at.head))
        return [(prefix, node), (prefix, self._dump("ended", code=1000, reason=reason))]

    # ------------------------------------------------------------ sending

    async def deliver(self, watch: SendWatch) -> None:
        while True:
            watch.end()
            turns = await self._bundle.take()
            if self.edge.hub.is_draining:
                raise Closed(*REASONS["restart"])
            out = Out()
            # First: what is taken of a node comes after its introduction.
            while not self._answers.empty():
                out.add(*self._answers.get_nowait())
            for part, items in turns:
                await self._turn(part, items, out)
            for group in [g for g in self._ending if not g.owed and not g.tasks]:
                await self._over(group, Over("ended"), out)
            watch.begin()
            await self._send_out(out, watch)

    async def _turn(self, part: Part, items: list[Item], out: Out) -> None:
        """What one node has to say."""
        group = part.group
        for item in items:
            if group.is_over:
                return
            if isinstance(item, Frame):
                out.add(part.prefix, item.data)
                if item.node is not None and part.has_children and item.node.created > part.horizon:
                    await self._born(part, item.node, out)
            elif isinstance(item, Skipped):
                out.add(part.prefix, self._dump("thinned", skipped=item.count))
            elif isinstance(item, Gap):
                out.add(part.prefix, self._dump("gap", **gap_fields(item)))
                out.gaps += 1
                if part.has_children:
                    self._start(group, self._fill(part, item))
            else:
                await self._part_over(part, item, out)
                return
        if not part.is_live and part.subscription.cursor >= part.subscription.head:
            part.is_live = True
            out.add(part.prefix, self._dump("live"))
        if group.owed is not None and part.subscription.cursor >= group.owed.get(part, 0):
            group.owed.pop(part, None)

    async def _part_over(self, part: Part, why: Over, out: Out) -> None:
        group = part.group
        if part.is_root and group.wanted.subtree and why.reason == "ended":
            # Its end is told once what was written below it by now is delivered.
            self._bundle.discard(part)
            self._ending.add(group)
            self._start(group, self._end_later(group, part))
        elif part.is_root:
            await self._over(group, why, out)
        else:
            out.add(part.prefix, self._ending_of(why))
            await self._drop(part)

    async def _end_later(self, group: Group, root: Part) -> None:
        """Find out what is to be delivered before the end."""
        others = [part for part in group.parts if part is not root]
        heads = await self.edge.hub.patiently(lambda: self.edge.log.heads([part.at.node.id for part in others]))
        left = [(part, head) for part, head in zip(others, heads, strict=True) if head is not None and part in group.parts]
        group.owed = {part: head for part, head in left if head > part.subscription.cursor}

    async def _over(self, group: Group, why: Over, out: Out) -> None:
        await self._finish(group)
        out.add(prefix_of(self.envelope, group.wanted.id, 0), self._ending_of(why))

    def _ending_of(self, why: Over) -> bytes:
        if why.reason == "deleted":
            return self._dump("deleted")
        if why.reason == "restart":
            raise Closed(*REASONS["restart"])
        code, reason = REASONS[why.reason]
        return self._dump("ended", code=code, reason=reason)

    async def _drop(self, part: Part) -> None:
        if part not in part.group.parts:
            return
        part.group.parts.discard(part)
        if part.group.owed is not None:
            part.group.owed.pop(part, None)
        self._nodes -= 1
        self._bundle.discard(part)
        await part.subscription.leave()

    async def _finish(self, group: Group) -> None:
        """Give back all that a group holds; its number is free again."""
        if group.is_over:
            return
        group.is_over = True
        self._groups.pop(group.wanted.id, None)
        self._ending.discard(group)
        tasks = [task for task in group.tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for part in list(group.parts):
            await self._drop(part)

    async def _send_out(self, out: Out, watch: SendWatch) -> None:
        if not out.messages:
            return
        suffix = suffix_of(self.envelope)
        if not self.can_frames:
            for prefix, data in out.messages:
                await self.send_message(prefix + data + suffix)
                watch.begin()
        else:
            opcode = 0x82 if self.envelope == "msgpack" else 0x81
            pieces: list[bytes] = []
            for prefix, data in out.messages:
                pieces += (head_of_frame(opcode, len(prefix) + len(data) + len(suffix)), prefix, data, suffix)
            await self.send_frames(b"".join(pieces))
        size = sum(len(prefix) + len(data) + len(suffix) for prefix, data in out.messages)
        self.edge.hub.sent(len(out.messages), size, gaps=out.gaps)
