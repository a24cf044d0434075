"""Access and refresh tokens: JSON web tokens (RFC 7519), HS256.

The first secret signs, all of them verify, so that secrets can be replaced without sending everybody to the login again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..domain.errors import Unauthenticated
from .model import Account, Session

__all__ = ["Tokens"]

_ALGORITHM = "HS256"


class Tokens:
    """`access_seconds` and `refresh_seconds` are lifetimes. Without secrets: a random one, good until the process ends."""

    def __init__(self, secrets: Sequence[str], *, access_seconds: float, refresh_seconds: float) -> None:
        self._secrets = tuple(secrets)
        self.access_seconds = access_seconds
        self.refresh_seconds = refresh_seconds

    def access(self, account: Account, session: Session, *, now: float) -> str:
        """What a request shows."""
        claims = {
            "sub": account.uuid,
            "sub_typ": account.type,
            "scp": sorted(account.scopes),
            "state": session.state,
            "ids": [{"id": i.id, "idp": i.provider} for i in account.identities],
            "type": "access",
        }
        return self._signed(claims, now + min(self.access_seconds, session.expires - now))

    def refresh(self, session: Session, *, now: float) -> str:
        """What gets new tokens, as long as its session lives."""
        return self._signed({"sid": session.uuid, "type": "refresh"}, now + self.refresh_seconds)

    def claims(self, token: str, kind: str, *, now: float) -> Mapping[str, Any]:
        """`Unauthenticated` for a token that is none, has expired, or is of another kind."""
        import jwt  # heavy, and a server of one key needs none

        options: Any = {"require": ["exp"], "verify_exp": False}  # by our own clock, below
        for secret in self._secrets:
            try:
                claims: dict[str, Any] = jwt.decode(token, _key(secret), algorithms=[_ALGORITHM], options=options)
            except jwt.InvalidTokenError:
                continue
            if claims.get("type") != kind or not isinstance(claims["exp"], int | float):
                break
            if claims["exp"] <= now:
                raise Unauthenticated("The token has expired. Refresh it, or log in again.")
            return claims
        raise Unauthenticated("Could not validate credentials: this is no token of this server.")

    def _signed(self, claims: dict[str, Any], expires: float) -> str:
        import jwt

        return jwt.encode({**claims, "exp": expires}, _key(self._secrets[0]), algorithm=_ALGORITHM)


def _key(secret: str) -> bytes:
    """HMAC fills short keys with zeros itself (RFC 2104); done here, the library does not warn at each token."""
    return secret.encode().ljust(64, b"\0")
