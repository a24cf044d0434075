"""Many nodes on one socket: what a client may say, and the list of three that every message of the server is.

`[subscription, node, message]`: the message itself is that of a socket with one node, encoded once for all; what stands around it
are a few bytes. docs/protocol.md tells what each message means.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import orjson

from ..domain.errors import Malformed
from .messages import Envelope

__all__ = ["Auth", "Ping", "Said", "Subscribe", "Unsubscribe", "dump", "prefix_of", "said", "suffix_of"]

Number = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class Subscribe(msgspec.Struct, frozen=True, tag_field="type", tag="subscribe", forbid_unknown_fields=True):
    """Begin. `cursors`: last sequences received, by path relative to the addressed node; the others are views."""

    id: Number
    path: tuple[str, ...] | str = ()
    start: int | None = None
    epoch: str | None = None
    subtree: bool = False
    cursors: dict[str, Annotated[int, msgspec.Meta(ge=0)]] = {}
    columns: tuple[str, ...] | None = None
    max_hz: Annotated[float, msgspec.Meta(gt=0)] | None = None
    thin: Literal["latest", "minmax"] | None = None
    slice: str | None = None
    payload: bool = True


class Unsubscribe(msgspec.Struct, frozen=True, tag_field="type", tag="unsubscribe", forbid_unknown_fields=True):
    """End."""

    id: Number


class Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping", forbid_unknown_fields=True):
    """Answered by a pong with the same `id`."""

    id: Any = None


class Auth(msgspec.Struct, frozen=True, tag_field="type", tag="auth"):
    """Who is asked nothing may say who they are all the same; it changes nothing."""


Said = Subscribe | Unsubscribe | Ping | Auth

_JSON: msgspec.json.Decoder[Said] = msgspec.json.Decoder(Said)
_MSGPACK: msgspec.msgpack.Decoder[Said] = msgspec.msgpack.Decoder(Said)
_ENCODER = msgspec.msgpack.Encoder()


def said(message: Any) -> Said:
    """What the client said, in a text frame (JSON) or a binary one (msgpack). `Malformed` with the reason."""
    text, data = message.get("text"), message.get("bytes")
    try:
        return _JSON.decode(text) if text is not None else _MSGPACK.decode(data or b"")
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Malformed(f"This message is not understood: {error}") from None


def prefix_of(envelope: Envelope, subscription: int, node: int) -> bytes:
    """What stands before a message."""
    if envelope == "json":
        return b"[%d,%d," % (subscription, node)
    return b"\x93" + _ENCODER.encode(subscription) + _ENCODER.encode(node)


def suffix_of(envelope: Envelope) -> bytes:
    """What stands behind it."""
    return b"]" if envelope == "json" else b""


def dump(envelope: Envelope, kind: str, **fields: Any) -> bytes:
    """A message of ours."""
    message = {"type": kind, **fields}
    return orjson.dumps(message) if envelope == "json" else _ENCODER.encode(message)
