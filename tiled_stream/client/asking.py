"""From the arguments of `subscribe` and `watch` to what a conversation needs; the same for both shells."""

from __future__ import annotations

from .address import parse_address
from .conversation import Conversation
from .credentials import Credentials, Token
from .retry import Retry

__all__ = ["conversation_with"]


def conversation_with(
    uri: str, *, api_key: str | None, token: Token | None, retry: Retry
) -> tuple[Conversation, tuple[str, ...]]:
    """A conversation that was not opened, and the path that the address names. A key in it counts if no other is given."""
    address, key = parse_address(uri)
    credentials = Credentials(key if api_key is None and token is None else api_key, token=token)
    return Conversation(address, credentials, retry=retry), address.path
