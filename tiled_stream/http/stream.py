"""Live streams: a WebSocket a subscriber, and the end of a stream.

Sockets do not pass the framework: every delivered message goes through here. What must stay true: the subscription begins
before the handshake is answered, so nothing is missed (I3); a client that stops reading is let go after `send_timeout` and
costs the others nothing (I8); a disconnect is heard, for a listener stands beside the sender.

A server may offer the extension `FRAMES`: then ready WebSocket frames of a whole batch are written at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import orjson
from litestar import Request, delete, get
from litestar.response.base import ASGIResponse

from ..broadcast.hub import Frame, Gap, Item, Over, Subscription
from ..domain.commands import EndStream
from ..domain.errors import Gone, Malformed, NotFound, TiledStreamError, Unauthenticated, Unavailable
from ..wire.messages import Envelope, MessageEncoder
from .access import READ, Access, Principal, check_scopes
from .answers import null
from .faults import close_code_of, error_headers, status_of
from .params import API, Query, base_url, header, keys_of, segments
from .services import Edge, ack_of, edge_of
from .watch import SendWatch

__all__ = ["CLOSE_CODES", "FRAMES", "ROUTES", "Streams", "framed"]

logger = logging.getLogger(__name__)

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Connection = Request[Any, Any, Any]

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
#: How long a closed socket stays open for the client's answer. Torn sooner, what the client has not read yet could be lost.
_FAREWELL_SECONDS = 3.0
#: The same for a client that was let go because it does not read.
_EVICTED_SECONDS = 1.0
#: A reason in a close frame has at most 123 bytes.
_REASON_BYTES = 123
#: Beyond any sequence that a log will reach, and a number for every store.
_FAR = 1 << 53
_PLACE = segments(f"{API}/stream/single")
_REASONS = {"ended": (1000, "Producer ended stream"), "deleted": (1000, "Node deleted"), "restart": (1012, "Server restart")}


@delete("/stream/close/{path:path}", opt={"scopes": ("write:data",)}, status_code=200)
async def close_stream(request: Connection) -> ASGIResponse:
    """Tell subscribers of this node that nothing more will come."""
    await edge_of(request).writer.submit(keys_of(request), EndStream(), ack=ack_of(request.scope))
    return null()


@get(["/stream/single", "/stream/single/{path:path}"], opt={"scopes": ()}, include_in_schema=False)
async def get_single(request: Connection) -> ASGIResponse:
    """Somebody came here without a WebSocket."""
    body = b'{"detail":"This is a WebSocket endpoint; connect with ws:// or wss://."}'
    return ASGIResponse(body=body, media_type="application/json", status_code=426, headers={"Upgrade": "websocket"})


class Streams:
    """All sockets of an edge, as an ASGI application. Nothing fails in silence: see `__call__`."""

    def __init__(self, edge: Edge, access: Access) -> None:
        self._edge = edge
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One socket from handshake to close."""
        socket = _Socket(self._edge, self._access, scope, receive, send)
        try:
            await socket.run()
        except Exception as error:  # the supervisor of sockets: logged, and the client is told
            request_id = scope["state"].get("request_id", "?")
            logger.error("Stream %s of %s failed", request_id, scope["path"], exc_info=error)
            await socket.fail(f"Internal server error; the log tells more under request {request_id}.")


class _Closed(Exception):
    """The socket is to be closed, or is (code 0)."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _Wanted(NamedTuple):
    """Path of the node, envelope, and the sequence after which to begin (None: only what comes)."""

    keys: tuple[str, ...]
    envelope: Envelope
    after: int | None


class _Live(NamedTuple):
    """What a socket is fed from."""

    subscription: Subscription
    encoder: MessageEncoder


class _Socket:
    """One socket from handshake to close."""

    def __init__(self, edge: Edge, access: Access, scope: Scope, receive: Receive, send: Send) -> None:
        self._edge = edge
        self._access = access
        self._scope = scope
        self._receive = receive
        self._send = send
        self._accepted = False
        # No more may be sent: it was closed or refused, or the client left.
        self._gone = False
        self._can_frames = FRAMES in (scope.get("extensions") or {})

    async def run(self) -> None:
        await self._receive()  # websocket.connect
        try:
            wanted = self._wanted()
            principal = await self._principal()
            if self._edge.hub.is_draining:
                raise Unavailable("This server is stopping; connect again.")
            live = None if principal is None else await self._subscribed(principal, wanted)
        except TiledStreamError as error:
            await self._deny(status_of(error), str(error), error_headers(error))
            return
        try:
            if live is not None:
                async with live.subscription:
                    await self._accept()
                    await self._follow(live)
            else:  # only who has shown a key is told what there is
                await self._accept()
                live = await self._subscribed(await self._first_message(), wanted)
                async with live.subscription:
                    await self._follow(live)
        except _Closed as closed:
            await self._close(closed.code, closed.reason)
        except Unauthenticated:
            await self._close(4003, "Authentication failed")
        except Gone:
            await self._close(*_REASONS["deleted"])
        except TiledStreamError as error:
            await self._close(1012 if self._edge.hub.is_draining else close_code_of(error), str(error))

    async def fail(self, sentence: str) -> None:
        """What nobody foresaw happened: refuse or close, whatever is still possible."""
        if self._accepted:
            await self._close(1011, sentence)
        else:
            await self._deny(500, sentence, {})

    def _wanted(self) -> _Wanted:
        keys = segments(self._scope["path"])
        if keys[: len(_PLACE)] != _PLACE:
            raise NotFound(f"Streams are at {API}/stream/single/…")
        query = Query(self._scope)
        start = query.get("start")
        try:
            after = None if start is None else min(max(int(start) - 1, 0), _FAR)
        except ValueError:
            raise Malformed(f"'start' is an integer, not {start!r}.") from None
        envelope = query.get("envelope_format") or "json"
        if envelope not in ("json", "msgpack"):
            raise Malformed(f"'envelope_format' is json or msgpack, not {envelope!r}.")
        return _Wanted(keys[len(_PLACE) :], "json" if envelope == "json" else "msgpack", after)

    async def _principal(self) -> Principal | None:
        """Who asks, by header or token; None: they must say so in their first message. Cookies and `api_key=` do not count."""
        authorization = header(self._scope, b"authorization")
        if authorization is not None:
            return await self._access.of_header(authorization)
        token = Query(self._scope).get("access_token") if b"access_token=" in self._scope["query_string"] else None
        if token is not None:
            return await self._access.of_token(token)
        return self._access.without_credentials()

    async def _subscribed(self, principal: Principal, wanted: _Wanted) -> _Live:
        """From here on nothing is missed. The caller must enter the subscription."""
        check_scopes(principal, READ)
        at = await self._edge.browse.resolve(wanted.keys)
        if at.column is not None:
            raise NotFound(f"{at.column!r} is a column of a table; subscribe to the table.")
        if at.inside:
            raise NotFound(f"{at.path[-1]!r} lies inside of a registered file; subscribe to that.")
        url = base_url(self._scope, self._edge.settings.root_path)
        encoder = MessageEncoder(wanted.envelope, url, at.path, at.node.structure, at.node.family)
        return _Live(await self._edge.hub.subscribe(at.node.id, wanted.after, encoder, floor=at.head), encoder)

    async def _accept(self) -> None:
        await self._send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        self._accepted = True

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
        key, token = given.get("api_key"), given.get("access_token")
        if isinstance(token, str):
            return await self._access.of_token(token)
        if not isinstance(key, str):
            raise Unauthenticated("Invalid API key")
        return await self._access.of_key(key)

    async def _follow(self, live: _Live) -> None:
        """Send and listen until one of them ends. Returns if the client left."""
        sender = asyncio.create_task(self._deliver(*live), name=f"sender of {self._scope['path']}")
        listener = asyncio.create_task(self._listen(), name=f"listener of {self._scope['path']}")
        try:
            await asyncio.wait({sender, listener}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sender.cancel()
            listener.cancel()
            await asyncio.wait({sender, listener})
        for task in (sender, listener):
            if not task.cancelled():
                task.result()

    async def _listen(self) -> None:
        """What the client says is not listened to; that it left is."""
        while (await self._receive())["type"] != "websocket.disconnect":
            pass
        self._gone = True

    async def _deliver(self, subscription: Subscription, encoder: MessageEncoder) -> None:
        """Send until it is over, or until the client has taken nothing for `send_timeout`."""
        with SendWatch(self._edge.settings.send_timeout) as watch:
            try:
                watch.begin()
                await self._message(encoder, encoder.schema())
                while True:
                    watch.end()
                    batch = await subscription.take()
                    watch.begin()
                    if self._can_frames:
                        await self._send_frames(encoder, batch)
                    else:
                        for item in batch:
                            await self._item(encoder, item)
                            watch.begin()
            except asyncio.CancelledError:
                if watch.fired:
                    self._edge.hub.let_go()
                    raise _Closed(1013, "The client did not read for too long") from None
                raise

    async def _send_frames(self, encoder: MessageEncoder, batch: list[Item]) -> None:
        opcode = 0x82 if encoder.envelope == "msgpack" else 0x81
        frames = b"".join([framed(opcode, _message_of(encoder, item)) for item in batch if not isinstance(item, Over)])
        if frames:
            await self._send({"type": "websocket.send", "frames": frames})
            self._edge.hub.sent(batch, len(frames))
        last = batch[-1]
        if isinstance(last, Over):
            raise _Closed(*_REASONS[last.reason])

    async def _item(self, encoder: MessageEncoder, item: Item) -> None:
        if isinstance(item, Over):
            raise _Closed(*_REASONS[item.reason])
        data = _message_of(encoder, item)
        await self._message(encoder, data)
        self._edge.hub.sent([item], len(data))

    async def _message(self, encoder: MessageEncoder, data: bytes) -> None:
        if encoder.envelope == "msgpack":
            await self._send({"type": "websocket.send", "bytes": data})
        else:
            await self._send({"type": "websocket.send", "text": data.decode()})

    async def _deny(self, status: int, sentence: str, more: dict[str, str]) -> None:
        """Refuse the handshake with a status and a reason."""
        self._gone = True
        if "websocket.http.response" not in (self._scope.get("extensions") or {}):
            await self._send({"type": "websocket.close", "code": 4000 + status, "reason": ""})
            return
        body = orjson.dumps({"detail": sentence})
        fields = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close", **more}
        fields["x-tiled-request-id"] = self._scope["state"].get("request_id", "")
        headers = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in fields.items()]
        await self._send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await self._send({"type": "websocket.http.response.body", "body": body, "more_body": False})

    async def _close(self, code: int, reason: str) -> None:
        """Say why, and wait for the client's answer."""
        if not code or self._gone:
            return
        self._gone = True
        short = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
        try:
            async with asyncio.timeout(_EVICTED_SECONDS if code == 1013 else _FAREWELL_SECONDS):
                await self._send({"type": "websocket.close", "code": code, "reason": short})
                await self._listen()
        except TimeoutError:
            return  # the client reads nothing, not even this


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


ROUTES = [close_stream, get_single]
