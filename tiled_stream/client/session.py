"""The subscriptions of one socket as a value: what to say when a connection stands, and what its messages tell. No I/O, no clock.

On `/stream/many` each message comes as `[subscription, node, message]`; on `/stream/single` it comes bare and there is one
subscription. What must stay true: after any number of lost connections each subscription is asked for again, from its cursors and
in the epoch that these belong to. A subscription that stood is not over because the server cannot follow it for a while.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import orjson

from ..domain.errors import Malformed, TiledStreamError
from .events import Appeared, Event, Failed, Gap, Reconnected
from .faults import Lost, fault_of_status
from .fetch import Fetcher
from .node import FollowedNode, specs_of
from .view import View

__all__ = ["Followed", "Session"]

Path = tuple[str, ...]
_decode = msgspec.msgpack.Decoder().decode


class Followed:
    """One subscription: what was asked, and the nodes that it follows."""

    def __init__(self, number: int, view: View, fetcher: Fetcher) -> None:
        self.number = number
        self.view = view
        cursor = None if view.start is None else max(view.start - 1, 0)
        self.root = FollowedNode(number, view.path, cursor=cursor, fetcher=fetcher)
        #: All nodes by path: cursors outlive connections, numbers do not.
        self.nodes: dict[Path, FollowedNode] = {view.path: self.root}
        self.by_number: dict[int, FollowedNode] = {}
        #: The epoch that all cursors belong to.
        self.epoch: str | None = None
        #: Another one that the log is in, and the nodes whose notice of it has not come yet.
        self._next_epoch: str | None = None
        self._unnoticed: set[Path] = set()
        #: The server has answered. Until then a refusal belongs to whoever asked.
        self.is_answered = False
        self.is_over = False
        #: Why it was refused, or ended before its time.
        self.error: TiledStreamError | None = None

    def start(self) -> int | None:
        """Where to go on. In a subtree: where the nodes begin that have no cursor; those of the others are told one by one."""
        if self.view.subtree:
            # A node that was not known when the connection was lost was made meanwhile, and nothing of it may be missed.
            return 0 if self.is_answered else self.view.start
        return self.view.start if self.root.cursor is None else self.root.cursor + 1

    def enter(self, epoch: str | None) -> None:
        """The log is in this epoch. The first one counts at once, another one when each node that has a cursor was notified.

        So a connection that is lost before the notice came names the old epoch, and the notice comes again.
        """
        if epoch is None or epoch in (self.epoch, self._next_epoch):
            return
        self._next_epoch = epoch
        self._unnoticed = set() if self.epoch is None else {path for path, node in self.nodes.items() if node.cursor}
        self._settle_epoch()

    def noticed(self, path: Path, epoch: str | None) -> None:
        """The notice of another epoch came for a node."""
        self.enter(epoch)
        self.forget(path)

    def forget(self, path: Path) -> None:
        """No notice is expected for this node any more."""
        self._unnoticed.discard(path)
        self._settle_epoch()

    def _settle_epoch(self) -> None:
        if self._next_epoch is not None and not self._unnoticed:
            self.epoch, self._next_epoch = self._next_epoch, None

    def cursors(self) -> dict[str, int]:
        """The last sequence of each node of a subtree, by path relative to the addressed one. Nodes without any take `start`."""
        depth = len(self.view.path)
        return {"/".join(path[depth:]): node.cursor for path, node in self.nodes.items() if node.cursor is not None}


class Session:
    """All subscriptions of a socket. `is_many`: which of the two endpoints the connection speaks."""

    def __init__(self, fetcher: Fetcher) -> None:
        self.is_many = True
        self.subscriptions: dict[int, Followed] = {}
        self._fetcher = fetcher
        self._last = 0

    def add(self, view: View) -> Followed:
        """A new subscription; it stands once the server was asked."""
        self._last += 1
        followed = self.subscriptions[self._last] = Followed(self._last, view, self._fetcher)
        return followed

    def drop(self, followed: Followed) -> None:
        """It is over; what still comes for it is not looked at."""
        followed.is_over = True
        self.subscriptions.pop(followed.number, None)

    def request(self, followed: Followed) -> str:
        """The message that asks for a subscription, from its cursors on."""
        cursors = followed.cursors() if followed.is_answered else {}
        message = followed.view.message(followed.number, start=followed.start(), epoch=followed.epoch, cursors=cursors)
        return orjson.dumps(message).decode()

    def restart(self) -> list[str]:
        """A connection begins: what to say."""
        for followed in self.subscriptions.values():
            followed.by_number = {0: followed.root}
        return [self.request(followed) for followed in self.subscriptions.values()] if self.is_many else []

    def reconnected(self, attempts: int, seconds: float, why: str, now: datetime) -> list[Event]:
        """What each subscription is told after a loss."""
        events: list[Event] = []
        for followed in self.subscriptions.values():
            root = followed.root
            here: dict[str, Any] = {"subscription": followed.number, "path": root.path, "sequence": root.cursor or 0, "time": now}
            events.append(Reconnected(attempts=attempts, seconds=seconds, why=why, **here))
            if root.cursor is None and not self.is_many:
                events.append(Gap(first=None, last=None, reason="unknown", **here))
        return events

    def received(self, data: bytes | str, now: datetime) -> list[Event]:
        """What a message of the socket tells."""
        try:
            message = _decode(data) if isinstance(data, bytes) else orjson.loads(data)
            if not self.is_many:
                return self._of_single(message, now)
            number, node, body = message
            return self._of_subscription(int(number), int(node), body, now)
        except (msgspec.DecodeError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise Malformed(f"The server sent a message that is none of the protocol: {type(error).__name__}: {error}") from error

    def closed(self, lost: Lost, now: datetime) -> list[Event]:
        """The socket for one node was closed as its stream ended."""
        (followed,) = self.subscriptions.values()
        self.drop(followed)
        return followed.root.end(lost.reason or "Producer ended stream", now, is_deleted="deleted" in lost.reason.lower())

    def _of_single(self, message: dict[str, Any], now: datetime) -> list[Event]:
        (followed,) = self.subscriptions.values()
        if "sequence" not in message:
            self._epoch_of(followed, followed.root, message)
        events = followed.root.take(message, now)
        if not followed.is_answered:
            followed.is_answered = True  # by the schema, which comes first
            if followed.view.start is None:
                events += followed.root.take({"type": "live"}, now)
        return events

    def _of_subscription(self, number: int, node: int, body: dict[str, Any], now: datetime) -> list[Event]:
        kind = body.get("type")
        followed = self.subscriptions.get(number)
        if followed is None:
            if number == 0 and kind == "error":
                raise _error(body)
            return []  # answers to pings, and the rest of what is no longer wanted
        if node == 0 and kind in ("subscribed", "unsubscribed", "error"):
            return self._answer(followed, str(kind), body, now)
        if kind == "node":
            return [event for event in [self._appeared(followed, node, body, now)] if event]
        known = followed.by_number.get(node)
        if known is None:
            return []  # of a node that was never announced: nothing can be said about it
        self._epoch_of(followed, known, body)
        events = known.take(body, now)
        if kind == "live" and known.cursor is None:
            known.cursor = known.head  # nothing was replayed: it goes on from what it had
        elif kind == "deleted" and node:
            followed.nodes.pop(known.path, None)
            followed.forget(known.path)
        elif kind in ("ended", "deleted") and not node:
            self.drop(followed)
        return events

    def _answer(self, followed: Followed, kind: str, body: dict[str, Any], now: datetime) -> list[Event]:
        if kind == "subscribed":
            followed.is_answered = True
            followed.enter(body.get("epoch"))
            followed.root.family = body.get("structure_family") or ""
            if followed.root.cursor is None:
                followed.root.cursor = max(int(body["from"]) - 1, 0)
            return []
        if kind == "error" and followed.is_answered and body.get("status") == 503:
            raise Lost(1013, str(body.get("detail") or "The server cannot follow this node now."))
        self.drop(followed)
        if kind == "unsubscribed":
            return []
        followed.error = _error(body)
        if not followed.is_answered:
            return []
        root = followed.root
        return [Failed(error=followed.error, subscription=followed.number, path=root.path, sequence=root.cursor or 0, time=now)]

    def _epoch_of(self, followed: Followed, node: FollowedNode, body: dict[str, Any]) -> None:
        """Take note of an epoch that a schema or the notice of a gap tells."""
        kind = body.get("type")
        if kind == "gap" and body.get("reason") == "epoch":
            followed.noticed(node.path, body.get("epoch"))
        elif str(kind).endswith("-schema"):
            followed.enter(body.get("epoch"))

    def _appeared(self, followed: Followed, node: int, body: dict[str, Any], now: datetime) -> Event | None:
        path, head = tuple(body["path"]), int(body.get("head") or 0)
        known = followed.nodes.get(path)
        if node == 0:
            known = followed.root
        elif known is not None and known not in followed.by_number.values():
            followed.by_number[node] = known  # it was followed before the connection was lost
            if known.cursor is None or head >= known.cursor:
                return None
            # Lower than what came of it: made anew under its path while nobody looked, or its log was.
            known.cursor = head
            here: dict[str, Any] = {"subscription": followed.number, "path": path, "sequence": head, "time": now}
            return Gap(first=None, last=None, reason="epoch", **here)
        else:  # new to this subscription, or created anew under the path of another
            known = FollowedNode(followed.number, path, cursor=None, fetcher=self._fetcher)
            followed.nodes[path] = followed.by_number[node] = known
        known.head = head
        known.family = str(body.get("structure_family"))
        return Appeared(
            subscription=followed.number,
            path=path,
            sequence=0,
            time=now,
            key=str(body.get("key")),
            family=known.family,
            specs=specs_of(body.get("specs")),
            metadata=body.get("metadata") or {},
            structure=body.get("structure"),
            head=head,
        )


def _error(body: dict[str, Any]) -> TiledStreamError:
    return fault_of_status(int(body.get("status") or 500), orjson.dumps({"detail": body.get("detail")}).decode())
