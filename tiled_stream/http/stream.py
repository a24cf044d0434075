"""Live streams: a WebSocket a subscriber, and the end of a stream.

A raw ASGI endpoint, for every delivered message passes here. What must stay true: the subscription begins before the schema is
sent, so nothing is missed (I3); a client that stops reading is let go after `send_timeout` and costs the others nothing (I8); a
disconnect is heard, for a listener stands beside the sender.

A server may offer the extension `FRAMES`: then ready WebSocket frames of a whole batch are written at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from litestar import Request, asgi, delete
from litestar.response.base import ASGIResponse

from ..broadcast.hub import Frame, Gap, Over, Subscription
from ..domain.commands import EndStream
from ..domain.errors import Malformed, NotFound, TiledStreamError, Unauthenticated, Unavailable
from ..nodes.repository import Located
from ..wire.messages import Envelope, MessageEncoder
from .access import READ, Access, Principal, check_scopes
from .answers import null
from .faults import error_headers, status_of
from .params import Query, base_url, header, segments
from .services import Edge, ack_of, edge_of

__all__ = ["CLOSE_CODES", "FRAMES", "ROUTES", "stream_single"]

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

#: ASGI extension by which a server takes ready WebSocket frames: `{"type": "websocket.send", "frames": bytes}`.
FRAMES = "tiled_stream.frames"

#: Why a stream was closed (beside those of `faults.FAULTS`).
CLOSE_CODES = {
    1000: "The producer ended the stream, or the node was deleted. Nothing more will come.",
    1012: "This server stops. Connect again, with start= the last sequence received + 1.",
    1013: "The client did not read for too long. Connect again with start=.",
    4001: "The first message was no authentication, or came too late.",
    4003: "The key in the first message is wrong.",
}

_AUTH_SECONDS = 10.0
_REASONS = {"ended": (1000, "Producer ended stream"), "deleted": (1000, "Node deleted"), "restart": (1012, "Server restart")}


@delete("/stream/close/{path:path}", opt={"scopes": ("write:data",)}, status_code=200)
async def close_stream(request: Request[Any, Any, Any], path: str) -> ASGIResponse:
    """Tell subscribers of this node that nothing more will come."""
    await edge_of(request).writer.submit(segments(path), EndStream(), ack=ack_of(request.scope))
    return null()


@asgi("/stream/single", is_mount=True, opt={"scopes": ()})  # it authenticates by itself: a first message may, too
async def stream_single(scope: Scope, receive: Receive, send: Send) -> None:
    """Follow one node: its schema first, then every update."""
    if scope["type"] != "websocket":
        await ASGIResponse(
            body=b'{"detail":"This is a WebSocket endpoint; connect with ws:// or wss://."}',
            media_type="application/json",
            status_code=426,
            headers={"Upgrade": "websocket"},
        )(scope, receive, send)
        return
    app = scope["litestar_app"] if "litestar_app" in scope else scope["app"]
    await _Stream(app.state["edge"], app.state["access"], scope, receive, send).run()


class _Closed(Exception):
    """The socket is to be closed, or is."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _Stream:
    """One socket from handshake to close."""

    def __init__(self, edge: Edge, access: Access, scope: Scope, receive: Receive, send: Send) -> None:
        self._edge = edge
        self._access = access
        self._scope = scope
        self._receive = receive
        self._send = send
        self._can_frames = FRAMES in scope.get("extensions", {})

    async def run(self) -> None:
        await self._receive()  # websocket.connect
        try:
            query = Query(self._scope)
            principal = self._principal(query)
            envelope, start = _asked(query)
            at = await self._located()
            encoder = self._encoder(at, envelope)
            if self._edge.hub.is_draining:
                raise Unavailable("This server is stopping; connect again.")
            if principal is not None:
                check_scopes(principal, READ)
        except TiledStreamError as error:
            await self._deny(error)
            return
        await self._send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        try:
            if principal is None:
                check_scopes(await self._first_message(), READ)
            await self._follow(at, encoder, start)
        except _Closed as closed:
            await self._close(closed.code, closed.reason)
        except Unauthenticated:
            await self._close(4003, "Authentication failed")
        except NotFound:
            await self._close(1000, "Node deleted")
        except Unavailable as error:
            await self._close(1012, str(error)[:100])

    def _principal(self, query: Query) -> Principal | None:
        """Who asks, by header or token; None: they must say so in their first message."""
        authorization = header(self._scope, b"authorization")
        if authorization is not None:
            return self._access.of_header(authorization)
        if query.get("access_token") is not None:
            raise Unauthenticated("Could not validate credentials: this server takes an API key.")
        return self._access.without_credentials()

    async def _located(self) -> Located:
        keys = segments(self._scope["path"])
        if keys[:4] == ("api", "v1", "stream", "single"):
            keys = keys[4:]
        at = await self._edge.browse.resolve(keys)
        if at.column is not None:
            raise NotFound(f"{at.column!r} is a column of a table; subscribe to the table.")
        return at

    def _encoder(self, at: Located, envelope: Envelope) -> MessageEncoder:
        url = base_url(self._scope, self._edge.settings.root_path)
        return MessageEncoder(envelope, url, at.path, at.node.structure, at.node.family)

    async def _first_message(self) -> Principal:
        try:
            async with asyncio.timeout(_AUTH_SECONDS):
                message = await self._receive()
        except TimeoutError:
            raise _Closed(4001, "No authentication came") from None
        if message["type"] == "websocket.disconnect":
            raise _Closed(0)
        try:
            given = orjson.loads(message.get("text") or b"")
        except orjson.JSONDecodeError:
            raise _Closed(4001, "The first message must be an authentication") from None
        if not isinstance(given, dict) or given.get("type") != "auth":
            raise _Closed(4001, "The first message must be an authentication")
        key = given.get("api_key")
        if not isinstance(key, str):
            raise Unauthenticated("Invalid API key")
        return self._access.of_key(key)

    async def _follow(self, at: Located, encoder: MessageEncoder, start: int | None) -> None:
        async with await self._edge.hub.subscribe(at.node.id, start, encoder) as subscription:
            sender = asyncio.create_task(self._deliver(subscription, encoder), name=f"stream of {at.node.id}")
            listener = asyncio.create_task(self._listen(), name=f"listener of {at.node.id}")
            try:
                await asyncio.wait({sender, listener}, return_when=asyncio.FIRST_COMPLETED)
                if sender.done():
                    sender.result()
            finally:
                for task in (sender, listener):
                    task.cancel()
                await asyncio.gather(sender, listener, return_exceptions=True)

    async def _listen(self) -> None:
        """What the client says is not listened to; that it left is."""
        while (await self._receive())["type"] != "websocket.disconnect":
            pass

    async def _deliver(self, subscription: Subscription, encoder: MessageEncoder) -> None:
        """Send until it is over. One timer watches all sending: a client that reads nothing for that long is let go."""
        watch = _Watch(self._edge.settings.send_timeout)
        try:
            await watch.during(self._message(encoder, encoder.schema()))
            while True:
                batch = await subscription.take()
                if self._can_frames:
                    await watch.during(self._send_frames(encoder, batch))
                else:
                    for item in batch:
                        await watch.during(self._item(encoder, item))
        except TimeoutError:
            raise _Closed(1013, "The client did not read for too long") from None
        finally:
            watch.stop()

    async def _send_frames(self, encoder: MessageEncoder, batch: list[Frame | Gap | Over]) -> None:
        opcode = 0x82 if encoder.envelope == "msgpack" else 0x81
        frames = b"".join(framed(opcode, _message_of(encoder, item)) for item in batch if not isinstance(item, Over))
        if frames:
            await self._send({"type": "websocket.send", "frames": frames})
        if isinstance(batch[-1], Over):
            raise _Closed(*_REASONS[batch[-1].reason])

    async def _item(self, encoder: MessageEncoder, item: Frame | Gap | Over) -> None:
        if isinstance(item, Over):
            raise _Closed(*_REASONS[item.reason])
        await self._message(encoder, _message_of(encoder, item))

    async def _message(self, encoder: MessageEncoder, data: bytes) -> None:
        if encoder.envelope == "msgpack":
            await self._send({"type": "websocket.send", "bytes": data})
        else:
            await self._send({"type": "websocket.send", "text": data.decode()})

    async def _deny(self, error: TiledStreamError) -> None:
        """Refuse the handshake with a status and a reason."""
        headers = [(b"content-type", b"application/json")]
        headers += [(k.lower().encode(), v.encode()) for k, v in error_headers(error).items()]
        await self._send({"type": "websocket.http.response.start", "status": status_of(error), "headers": headers})
        body = orjson.dumps({"detail": str(error)})
        await self._send({"type": "websocket.http.response.body", "body": body, "more_body": False})

    async def _close(self, code: int, reason: str) -> None:
        if not code:
            return
        try:
            async with asyncio.timeout(1.0):
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except TimeoutError:
            return  # the client reads nothing, not even this


class _Watch:
    """One timer for many sends: cheaper than one a message. It breaks a send that makes no progress for `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._task = asyncio.current_task()
        self._fired = False
        self._handle = self._loop.call_later(seconds, self._look)

    async def during(self, sending: Awaitable[None]) -> None:
        """Await `sending`; TimeoutError if it takes longer than allowed."""
        self._since = self._loop.time()
        try:
            await sending
        except asyncio.CancelledError:
            if self._fired:
                raise TimeoutError from None
            raise
        finally:
            self._since = None

    def stop(self) -> None:
        self._handle.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if self._since is not None and now - self._since >= self._seconds:
            self._fired = True
            if self._task is not None:
                self._task.cancel()
            return
        wait = self._seconds if self._since is None else self._seconds - (now - self._since)
        self._handle = self._loop.call_later(max(wait, 0.01), self._look)


def framed(opcode: int, data: bytes) -> bytes:
    """One unmasked WebSocket frame (RFC 6455, section 5.2), as servers send them."""
    length = len(data)
    if length < 126:
        return bytes((opcode, length)) + data
    if length < 1 << 16:
        return bytes((opcode, 126)) + length.to_bytes(2, "big") + data
    return bytes((opcode, 127)) + length.to_bytes(8, "big") + data


def _message_of(encoder: MessageEncoder, item: Frame | Gap) -> bytes:
    if isinstance(item, Frame):
        return item.data
    return encoder.notice("gap", first=item.first, last=item.last, reason=item.reason)


def _asked(query: Query) -> tuple[Envelope, int | None]:
    """Envelope, and the sequence after which to begin (None: only what comes)."""
    envelope = query.get("envelope_format") or "json"
    start = query.get("start")
    try:
        after = None if start is None else max(int(start) - 1, 0)
    except ValueError:
        raise Malformed(f"'start' is an integer, not {start!r}.") from None
    if envelope == "json":
        return "json", after
    if envelope == "msgpack":
        return "msgpack", after
    raise Malformed(f"'envelope_format' is json or msgpack, not {envelope!r}.")


ROUTES = [close_stream, stream_single]
