"""What a server's statuses and close codes mean to a client: which error, and whether to come back.

The counterpart of the table in the server's edge; documented in `docs/reference/client.md`.
"""

from __future__ import annotations

import msgspec
import orjson

from ..domain.errors import (
    Conflict,
    Forbidden,
    Malformed,
    NotAcceptable,
    NotFound,
    NotSupported,
    Refused,
    TiledStreamError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsatisfiable,
    UnsupportedType,
)

__all__ = ["Lost", "Rejected", "fault_of_close", "fault_of_status", "is_worth_another_try"]

_BY_STATUS: dict[int, type[TiledStreamError]] = {
    400: Unsatisfiable,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: NotSupported,
    406: NotAcceptable,
    409: Conflict,
    415: UnsupportedType,
    422: Malformed,
}
_SENTENCES = {
    401: "The server does not know this key or token.",
    403: "The server does not allow this.",
    404: "There is no such node, or it has no stream.",
}
#: Said by this client when a message is larger than it takes.
_TOO_BIG = 1009


class Rejected(Exception):
    """A handshake was answered with an HTTP status. `retry_after` in seconds."""

    def __init__(self, status: int, body: bytes, retry_after: float | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.retry_after = retry_after

    def fault(self) -> TiledStreamError:
        """As an error."""
        return fault_of_status(self.status, self.body.decode(errors="replace"), self.retry_after)


class Lost(Exception):
    """A connection ended, or none could be made (code 1006). `is_ours`: the code is what this side said."""

    def __init__(self, code: int, reason: str, *, is_ours: bool = False) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.is_ours = is_ours

    def __str__(self) -> str:
        return f"{self.reason or 'the connection was lost'} ({self.code})"


def is_worth_another_try(status: int) -> bool:
    """Whether a handshake that was refused like this may succeed later."""
    return status in (408, 425, 429) or status >= 500


def fault_of_status(status: int, text: str, retry_after: float | None = None) -> TiledStreamError:
    """The error that a status stands for, with the server's sentence if it said one."""
    sentence = _detail(text) or _SENTENCES.get(status) or f"The server answered with status {status}."
    if is_worth_another_try(status):
        return Unavailable(sentence, retry_after=1.0 if retry_after is None else retry_after)
    return _BY_STATUS.get(status, Refused)(sentence)


def fault_of_close(lost: Lost) -> TiledStreamError | None:
    """The error that a close code stands for; None if one may come back."""
    if lost.is_ours and lost.code == _TOO_BIG:
        return TooLarge("A message is larger than max_message_bytes; subscribe with a larger value, or to a slice.")
    if lost.code in (4001, 4003):
        return Unauthenticated(lost.reason or _SENTENCES[401])
    if 4400 <= lost.code < 4500:
        return fault_of_status(lost.code - 4000, lost.reason)
    return None


def _detail(text: str) -> str:
    """The sentence of an error body; a body of another kind says nothing worth repeating."""
    try:
        detail = orjson.loads(text).get("detail")
    except (orjson.JSONDecodeError, AttributeError):
        return text if text and "<" not in text and len(text) < 200 else ""
    return detail if isinstance(detail, str) else msgspec.json.encode(detail).decode()
