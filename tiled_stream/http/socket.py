"""One WebSocket from handshake to close: who asks, what is refused, how it ends. What is sent in between its heirs decide.

Sockets do not pass the framework: every delivered message goes through here. What must stay true: nothing is told to those who
have not shown a key; what a socket is subscribed to begins before the handshake is answered, so nothing is missed (I3); a client
that stops reading is let go after `send_timeout` and costs the others nothing (I8); a disconnect is heard, for a listener stands
beside the sender.

A server may offer the extension `FRAMES`: then ready WebSocket frames of a whole batch are written at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from ..broadcast.frames import Gap
from ..domain.errors import Gone, Malformed, TiledStreamError, Unauthenticated, Unavailable
from ..wire.messages import Envelope
from .access import Access, Principal
from .faults import close_code_of, error_headers, status_of
from .params import Query, header
from .services import Edge
from .watch import SendWatch

__all__ = ["CLOSE_CODES", "FRAMES", "REASONS", "Closed", "Socket", "envelope_of", "framed", "gap_fields", "head_of_frame"]

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
#: Why a subscription is over, as code and reason.
REASONS = {"ended": (1000, "Producer ended stream"), "deleted": (1000, "Node deleted"), "restart": (1012, "Server restart")}

_AUTH_SECONDS = 10.0
#: How long a closed socket stays open for the client's answer. Torn sooner, what the client has not read yet could be lost.
_FAREWELL_SECONDS = 3.0
#: The same for a client that was let go because it does not read.
_EVICTED_SECONDS = 1.0
#: A reason in a close frame has at most 123 bytes.
_REASON_BYTES = 123


class Closed(Exception):
    """The socket is to be closed, or is (code 0)."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Socket:
    """The course of a socket. Heirs say what they want (`understand`), begin (`enter`), send (`deliver`) and end it (`leave`)."""

    def __init__(self, edge: Edge, access: Access, scope: Scope, receive: Receive, send: Send) -> None:
        self.edge = edge
        self.scope = scope
        self._access = access
        self._receive = receive
        self._send = send
        self._accepted = False
        # No more may be sent: it was closed or refused, or the client left.
        self._gone = False
        self.can_frames = FRAMES in (scope.get("extensions") or {})
        self.envelope: Envelope = "json"

    def understand(self, query: Query) -> None:
        """Read what the address asks for. Refused with what it raises."""

    async def enter(self, principal: Principal) -> None:
        """Begin, so that nothing is missed from here on. Refused, or closed, with what it raises."""

    async def deliver(self, watch: SendWatch) -> None:
        """Send for ever; end by `Closed`. `watch` bounds each send."""

    def hear(self, message: Any) -> Awaitable[None] | None:
        """What the client says; may be awaited, then nothing more is heard meanwhile."""

    async def leave(self) -> None:
        """Give back what `enter` has taken. Called in any case, twice perhaps."""

    async def run(self) -> None:
        """From handshake to close."""
        await self._receive()  # websocket.connect
        try:
            await self._run()
        finally:
            await self.leave()

    async def fail(self, sentence: str) -> None:
        """What nobody foresaw happened: refuse or close, whatever is still possible."""
        if self._accepted:
            await self._close(1011, sentence)
        else:
            await self._deny(500, sentence, {})

    async def send_message(self, data: bytes) -> None:
        """One message, where ready frames are not taken."""
        if self.envelope == "msgpack":
            await self._send({"type": "websocket.send", "bytes": data})
        else:
            await self._send({"type": "websocket.send", "text": data.decode()})

    async def send_frames(self, frames: bytes) -> None:
        """Ready frames, many at once; only with `can_frames`."""
        await self._send({"type": "websocket.send", "frames": frames})

    async def _run(self) -> None:
        try:
            query = Query(self.scope)
            self.envelope = envelope_of(query)
            self.understand(query)
            principal = await self._principal(query)
            if self.edge.hub.is_draining:
                raise Unavailable("This server is stopping; connect again.")
            if principal is not None:
                await self.enter(principal)
        except TiledStreamError as error:
            await self._deny(status_of(error), str(error), error_headers(error))
            return
        try:
            try:
                await self._send({"type": "websocket.accept", "subprotocol": None, "headers": []})
                self._accepted = True
                if principal is None:  # only who has shown a key is told what there is
                    await self.enter(await self._first_message())
                await self._follow()
            finally:
                await self.leave()  # before the farewell, which may take its time
        except Closed as closed:
            await self._close(closed.code, closed.reason)
        except Unauthenticated:
            await self._close(4003, "Authentication failed")
        except Gone:
            await self._close(*REASONS["deleted"])
        except TiledStreamError as error:
            await self._close(1012 if self.edge.hub.is_draining else close_code_of(error), str(error))

    async def _principal(self, query: Query) -> Principal | None:
        """Who asks, by header or token; None: they must say so in their first message. Cookies and `api_key=` do not count."""
        authorization = header(self.scope, b"authorization")
        if authorization is not None:
            return await self._access.of_header(authorization)
        token = query.get("access_token")
        if token is not None:
            return await self._access.of_token(token)
        return self._access.without_credentials()

    async def _first_message(self) -> Principal:
        try:
            async with asyncio.timeout(_AUTH_SECONDS):
                message = await self._receive()
        except TimeoutError:
            raise Closed(4001, "No authentication came") from None
        if message["type"] == "websocket.disconnect":
            raise Closed(0)
        try:
            given = orjson.loads(message.get("text") or b"")
        except orjson.JSONDecodeError:
            raise Closed(4001, "The first message must be an authentication") from None
        if not isinstance(given, dict) or given.get("type") != "auth":
            raise Closed(4001, "The first message must be an authentication")
        key, token = given.get("api_key"), given.get("access_token")
        if isinstance(token, str):
            return await self._access.of_token(token)
        if not isinstance(key, str):
            raise Unauthenticated("Invalid API key")
        return await self._access.of_key(key)

    async def _follow(self) -> None:
        """Send and listen until one of them ends. Returns if the client left."""
        sender = asyncio.create_task(self._watched(), name=f"sender of {self.scope['path']}")
        listener = asyncio.create_task(self._listen(), name=f"listener of {self.scope['path']}")
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
        """Hear what the client says, and that it left."""
        while (message := await self._receive())["type"] != "websocket.disconnect":
            answer = None if self._gone else self.hear(message)
            if answer is not None:
                await answer
        self._gone = True

    async def _watched(self) -> None:
        """Send until it is over, or until the client has taken nothing for `send_timeout`."""
        with SendWatch(self.edge.settings.send_timeout) as watch:
            try:
                await self.deliver(watch)
            except asyncio.CancelledError:
                if watch.fired:
                    self.edge.hub.let_go()
                    raise Closed(1013, "The client did not read for too long") from None
                raise

    async def _deny(self, status: int, sentence: str, more: dict[str, str]) -> None:
        """Refuse the handshake with a status and a reason."""
        self._gone = True
        if "websocket.http.response" not in (self.scope.get("extensions") or {}):
            await self._send({"type": "websocket.close", "code": 4000 + status, "reason": ""})
            return
        body = orjson.dumps({"detail": sentence})
        fields = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close", **more}
        fields["x-tiled-request-id"] = self.scope["state"].get("request_id", "")
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


def envelope_of(query: Query) -> Envelope:
    """What `envelope_format` asks for; JSON if nothing."""
    envelope = query.get("envelope_format") or "json"
    if envelope not in ("json", "msgpack"):
        raise Malformed(f"'envelope_format' is json or msgpack, not {envelope!r}.")
    return "json" if envelope == "json" else "msgpack"


def gap_fields(gap: Gap) -> dict[str, Any]:
    """The fields of the notice of a gap."""
    fields: dict[str, Any] = {"first": gap.first, "last": gap.last, "reason": gap.reason}
    return fields | {"epoch": gap.epoch, "head": gap.head} if gap.reason == "epoch" else fields


def head_of_frame(opcode: int, length: int) -> bytes:
    """What stands before `length` bytes in an unmasked WebSocket frame (RFC 6455, section 5.2), as servers send them."""
    if length < 126:
        return bytes((opcode, length))
    if length < 1 << 16:
        return bytes((opcode, 126)) + length.to_bytes(2, "big")
    return bytes((opcode, 127)) + length.to_bytes(8, "big")


def framed(opcode: int, data: bytes) -> bytes:
    """One unmasked WebSocket frame."""
    return head_of_frame(opcode, len(data)) + data
