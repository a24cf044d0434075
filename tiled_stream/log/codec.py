"""Events as bytes, for engines that keep them outside of this process: msgpack, tagged with the name of the event.

What must stay true: what was written can be read back, by this version and by later ones. A field may be added with a default;
a name that was used is never used for something else.
"""

from __future__ import annotations

import msgspec

from ..domain.errors import Malformed, Unavailable
from ..domain.events import Event

__all__ = ["decode_event", "encode_event"]

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def encode_event(event: Event) -> bytes:
    """The event without its payload. `Malformed` if something in it (an integer beyond 64 bits, say) cannot be written."""
    try:
        return _ENCODER.encode(event)
    except (OverflowError, TypeError, RecursionError, UnicodeEncodeError) as error:
        raise Malformed(f"This cannot be kept: {error}. Metadata takes what JSON takes, integers of at most 64 bits.") from error


def decode_event(data: bytes) -> Event:
    """The event again. `Unavailable` if this version does not know it."""
    try:
        return _DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise Unavailable(f"The log holds an event that this version cannot read ({error}); a newer version wrote it.") from error
