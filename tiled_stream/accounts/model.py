"""Who may use a server: principals, what identifies them, their sessions and keys, and the roles that say what they may do.

Values, compared by content. Times are seconds since the epoch, UTC; ids are 32 hexadecimal digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

__all__ = ["ALL_SCOPES", "INHERIT", "ROLES", "Account", "ApiKey", "Identity", "Session", "printable"]

#: In a key: whatever its principal may do.
INHERIT = "inherit"

_USER = (
    "read:metadata",
    "read:data",
    "create:node",
    "write:metadata",
    "write:data",
    "delete:revision",
    "delete:node",
)
#: What each role may do.
ROLES: Mapping[str, tuple[str, ...]] = {
    "user": (*_USER, "create:apikeys", "revoke:apikeys"),
    "admin": (
        *_USER,
        "register",
        "admin:apikeys",
        "read:principals",
        "write:principals",
        "metrics",
        "read:webhooks",
        "write:webhooks",
    ),
}
ALL_SCOPES = frozenset(scope for scopes in ROLES.values() for scope in scopes)


class Identity(msgspec.Struct, frozen=True):
    """How a provider knows somebody. `latest_login` is None for one who never came."""

    provider: str
    id: str
    latest_login: float | None = None


class Account(msgspec.Struct, frozen=True):
    """A principal: a person, or a service that has keys only."""

    uuid: str
    type: Literal["user", "service"]
    roles: tuple[str, ...]
    identities: tuple[Identity, ...] = ()
    latest_activity: float | None = None

    @property
    def scopes(self) -> frozenset[str]:
        """All that its roles allow; one that only another version knows allows nothing."""
        return frozenset(scope for role in self.roles for scope in ROLES.get(role, ()))

    @property
    def name(self) -> str:
        """For logs."""
        return printable(self.identities[0].id if self.identities else f"{self.type}:{self.uuid}")


class Session(msgspec.Struct, frozen=True):
    """What a login began. `state` is what the provider wants to remember."""

    uuid: str
    principal: str
    expires: float
    revoked: bool = False
    state: dict[str, Any] = {}


class ApiKey(msgspec.Struct, frozen=True):
    """A key as it is known afterwards: never its secret. `expires` None: never. `access_tags` None: no restriction."""

    first_eight: str
    principal: str
    scopes: tuple[str, ...]
    expires: float | None = None
    note: str | None = None
    access_tags: tuple[str, ...] | None = None
    latest_activity: float | None = None


def printable(name: str) -> str:
    """A name for a line of a log, which it must not end."""
    return "".join(c if c.isprintable() else "?" for c in name)
