"""Who asks. Keys and tokens go into a header, or into the first message where a server wants them there; never into a URL.

What must stay true: no representation of these objects shows a secret.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson

from ..domain.errors import Malformed

__all__ = ["Credentials", "Token"]

#: A token, or what gives one that is still valid: it is asked before each connection.
Token = str | Callable[[], str]


class Credentials:
    """An API key, an access token, or neither (a public server)."""

    def __init__(self, api_key: str | None = None, *, token: Token | None = None) -> None:
        if api_key is not None and token is not None:
            raise Malformed("Give an API key or a token, not both.")
        self._api_key = api_key
        self._token = token

    def __repr__(self) -> str:
        kind = "a key" if self._api_key is not None else "a token" if self._token is not None else "nobody"
        return f"<{type(self).__name__}: {kind}>"

    @property
    def can_renew(self) -> bool:
        """Another try may show another token."""
        return callable(self._token)

    @property
    def has_token(self) -> bool:
        """A token, which some servers take in the first message only."""
        return self._token is not None

    def headers(self) -> dict[str, str]:
        """For a request."""
        if self._api_key is not None:
            return {"Authorization": f"Apikey {self._api_key}"}
        return {"Authorization": f"Bearer {self._now()}"} if self._token is not None else {}

    def first_message(self) -> str:
        """For a socket that was opened without the header."""
        return orjson.dumps({"type": "auth", "access_token": self._now()}).decode()

    def _now(self) -> str:
        return self._token() if callable(self._token) else str(self._token)
