"""Live streams: one node a socket (`/stream/single`), and the end of a stream. Many nodes on one socket: `stream_many.py`.

The course of a socket is told in `socket.py`; here is what is sent: the schema, then what the subscription gives.
"""

from __future__ import annotations

import logging
from typing import Any

from litestar import Request, delete, get
from litestar.response.base import ASGIResponse

from ..broadcast.hub import Frame, Gap, Item, Over, Skipped, Subscription
from ..domain.commands import EndStream
from ..domain.errors import Malformed, NotFound
from ..wire.messages import MessageEncoder
from .access import READ, Access, Principal, check_scopes
from .answers import null
from .params import API, Query, base_url, keys_of, segments
from .services import Edge, ack_of, edge_of
from .socket import CLOSE_CODES, FRAMES, REASONS, Closed, Receive, Scope, Send, Socket, framed, gap_fields
from .stream_many import ManySocket
from .subtree import subscribable
from .watch import SendWatch

__all__ = ["CLOSE_CODES", "FRAMES", "ROUTES", "Streams"]

logger = logging.getLogger(__name__)

Connection = Request[Any, Any, Any]

#: Beyond any sequence that a log will reach, and a number for every store.
_FAR = 1 << 53
_PLACE = segments(f"{API}/stream/single")
_MANY = segments(f"{API}/stream/many")


@delete("/stream/close/{path:path}", opt={"scopes": ("write:data",)}, status_code=200)
async def close_stream(request: Connection) -> ASGIResponse:
    """Tell subscribers of this node that nothing more will come."""
    await edge_of(request).writer.submit(keys_of(request), EndStream(), ack=ack_of(request.scope))
    return null()


@get(["/stream/single", "/stream/single/{path:path}", "/stream/many"], opt={"scopes": ()}, include_in_schema=False)
async def get_single(request: Connection) -> ASGIResponse:
    """Somebody came here without a WebSocket."""
    raise NotFound("There is no page here: this is a WebSocket endpoint; connect with ws:// or wss://.")


class Streams:
    """All sockets of an edge, as an ASGI application. Nothing fails in silence: see `__call__`."""

    def __init__(self, edge: Edge, access: Access) -> None:
        self._edge = edge
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One socket from handshake to close."""
        kind = ManySocket if segments(scope["path"]) == _MANY else _SingleSocket
        socket = kind(self._edge, self._access, scope, receive, send)
        try:
            await socket.run()
        except Exception as error:  # the supervisor of sockets: logged, and the client is told
            request_id = scope["state"].get("request_id", "?")
            logger.error("Stream %s of %s failed", request_id, scope["path"], exc_info=error)
            await socket.fail(f"Internal server error; the log tells more under request {request_id}.")


class _SingleSocket(Socket):
    """One node: `start` is the sequence to begin with; without it only what comes. `epoch`: the one that `start` belongs to."""

    _keys: tuple[str, ...] = ()
    _after: int | None = None
    _epoch: str | None = None
    _subscription: Subscription | None = None
    _encoder: MessageEncoder

    def understand(self, query: Query) -> None:
        keys = segments(self.scope["path"])
        if keys[: len(_PLACE)] != _PLACE:
            raise NotFound(f"Streams are at {API}/stream/single/… and {API}/stream/many.")
        self._keys = keys[len(_PLACE) :]
        start = query.get("start")
        self._epoch = query.get("epoch") or None
        try:
            self._after = None if start is None else min(max(int(start) - 1, 0), _FAR)
        except ValueError:
            raise Malformed(f"'start' is an integer, not {start!r}.") from None

    async def enter(self, principal: Principal) -> None:
        check_scopes(principal, READ)
        at = await subscribable(self.edge, self._keys)
        url = base_url(self.scope, self.edge.settings.root_path)
        self._encoder = MessageEncoder(self.envelope, url, at.path, at.node.structure, at.node.family)
        self._subscription = await self.edge.hub.subscribe(
            at.node.id, self._after, self._encoder, floor=at.head, epoch=self._epoch
        )

    async def leave(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.leave()

    async def deliver(self, watch: SendWatch) -> None:
        subscription = self._subscription
        assert subscription is not None
        watch.begin()
        await self.send_message(self._encoder.schema(epoch=subscription.present_epoch))
        while True:
            watch.end()
            batch = await subscription.take()
            watch.begin()
            if self.can_frames:
                await self._frames(batch)
                continue
            for item in batch:
                await self._item(item)
                watch.begin()

    async def _frames(self, batch: list[Item]) -> None:
        opcode = 0x82 if self.envelope == "msgpack" else 0x81
        messages = [framed(opcode, self._message(item)) for item in batch if not isinstance(item, Over | Skipped)]
        if messages:
            frames = b"".join(messages)
            await self.send_frames(frames)
            self.edge.hub.sent(len(messages), len(frames), gaps=sum(isinstance(item, Gap) for item in batch))
        last = batch[-1]
        if isinstance(last, Over):
            raise Closed(*REASONS[last.reason])

    async def _item(self, item: Item) -> None:
        if isinstance(item, Over):
            raise Closed(*REASONS[item.reason])
        if isinstance(item, Skipped):
            return  # of thinned subscriptions; there are none here
        data = self._message(item)
        await self.send_message(data)
        self.edge.hub.sent(1, len(data), gaps=isinstance(item, Gap))

    def _message(self, item: Frame | Gap) -> bytes:
        if isinstance(item, Frame):
            return item.data
        return self._encoder.notice("gap", **gap_fields(item))


ROUTES = [close_stream, get_single]
