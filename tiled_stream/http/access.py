"""Who asks, and what they may do. One API key for a single user; with `public`, anybody may read.

Every route declares its scopes; `guard` checks them. Keys are compared in constant time and never appear in an error.
"""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from typing import Any

import msgspec
from litestar import Request

from ..accounts.model import ApiKey
from ..domain.errors import Forbidden, Unauthenticated, Unsatisfiable
from .params import Query, header

__all__ = ["ANONYMOUS", "CSRF_COOKIE", "KEY_COOKIE", "OWNER", "READ", "Access", "Principal", "guard"]

READ = ("read:metadata", "read:data")
KEY_COOKIE = "tiled_api_key"
CSRF_COOKIE = "tiled_csrf"


class Principal(msgspec.Struct, frozen=True):
    """Who asks. `name` is for logs; `uuid` is empty where there are no accounts; `key` is what the request showed."""

    name: str
    scopes: frozenset[str]
    uuid: str = ""
    key: ApiKey | None = None


OWNER = Principal(
    "singleuser",
    frozenset(
        (
            *READ,
            "write:metadata",
            "write:data",
            "delete:revision",
            "delete:node",
            "create:node",
            "register",
            "metrics",
            "read:webhooks",
            "write:webhooks",
        )
    ),
)
ANONYMOUS = Principal("anon", frozenset(READ))
NOBODY = Principal("anon", frozenset())


class Access:
    """Decides by one key. `public`: those without credentials may read."""

    #: Are there accounts, with logins and keys of their own?
    is_multi_user = False

    def __init__(self, api_key: str, *, public: bool) -> None:
        self._key = api_key.encode()
        self.public = public

    async def of_request(self, scope: Any) -> Principal:
        """By query, header or cookie, in this order. `Unauthenticated` for a wrong key, even if the server is public."""
        if b"api_key" in scope["query_string"]:
            key = Query(scope).get("api_key")
            if key is not None:
                return await self.of_key(key)
        authorization = header(scope, b"authorization")
        if authorization is not None:
            return await self.of_header(authorization)
        cookies = _cookies(scope)
        if KEY_COOKIE in cookies:
            principal = await self.of_key(cookies[KEY_COOKIE])
            _check_csrf(scope, cookies)
            return principal
        return ANONYMOUS if self.public else NOBODY

    async def of_header(self, authorization: str) -> Principal:
        """`Apikey K` or `Bearer T`, the scheme in any case."""
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "apikey" and value.strip():
            return await self.of_key(value.strip())
        if scheme.lower() == "bearer":
            return await self.of_token(value.strip())
        raise Unsatisfiable("The Authorization header must be of the form 'Apikey SECRET'.")

    async def of_token(self, token: str) -> Principal:
        """Whose token it is; here there are none: `Unauthenticated`."""
        raise Unauthenticated("Could not validate credentials: this server takes an API key, 'Authorization: Apikey …'.")

    async def of_key(self, key: str) -> Principal:
        """The owner, or `Unauthenticated`."""
        if await self.knows(key):
            return OWNER
        raise Unauthenticated("Invalid API key")

    async def knows(self, key: str) -> bool:
        """Is it the key? Takes as long for a wrong one."""
        return bool(self._key) and hmac.compare_digest(key.encode(), self._key)

    def without_credentials(self) -> Principal | None:
        """Who somebody without credentials is; None: nobody."""
        return ANONYMOUS if self.public else None


async def guard(request: Request[Any, Any, Any]) -> None:
    """Check the scopes that the route declares (`opt={"scopes": …}`); a route without declaration is open to nobody.

    Hung in before the handler, not as a guard of the framework: that would copy the route at every request.
    """
    scope: Any = request.scope
    if scope["method"] == "OPTIONS":  # the framework's own, it tells only the methods
        return
    needed = request.route_handler.opt["scopes"]
    if not needed:
        return
    principal = await request.app.state["access"].of_request(scope)
    scope["state"]["principal"] = principal
    check_scopes(principal, needed)


def check_scopes(principal: Principal, needed: tuple[str, ...]) -> None:
    """`Unauthenticated` unless the principal holds all of them."""
    if not principal.scopes.issuperset(needed):
        held = ", ".join(sorted(principal.scopes)) or "none"
        raise Unauthenticated(
            f"Not enough permissions. Requires scopes: {', '.join(needed)}. Request had scopes: {held}. "
            "Send the API key as 'Authorization: Apikey …'.",
            scopes=needed,
        )


def _cookies(scope: Any) -> dict[str, str]:
    text = header(scope, b"cookie")
    if not text:
        return {}
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(text)
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in jar.items()}


def _check_csrf(scope: Any, cookies: dict[str, str]) -> None:
    """A page of another origin can make a browser send cookies, but not read them."""
    if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return
    token = header(scope, b"x-csrf") or ""
    if not token or not hmac.compare_digest(token.encode(), cookies.get(CSRF_COOKIE, "").encode()):
        raise Forbidden(f"A request with a cookie needs the header 'x-csrf' with the value of the cookie {CSRF_COOKIE!r}.")
