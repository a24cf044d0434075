"""Logging in and out, sessions, API keys, principals: only where there are accounts. Bare objects, as clients expect them."""

from __future__ import annotations

import re
from collections.abc import Set
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import orjson
from litestar import Request, delete, get, post
from litestar.response.base import ASGIResponse

from ..accounts.model import INHERIT, ROLES, Account, ApiKey, Session
from ..domain.errors import Forbidden, Malformed, NotFound, Unauthenticated
from .access import KEY_COOKIE, Principal
from .params import Query
from .user_access import Issued, UserAccess

__all__ = ["ROUTES", "authentication_of"]

Connection = Request[Any, Any, Any]
#: Of a key that is to be made: scopes, seconds, tags.
_Wanted = tuple[list[str], float | None, list[str] | None]

_OPEN: dict[str, Any] = {"scopes": ()}
#: Bytes of a body. Anybody may send one before it is known who that is.
_SMALL = 64 << 10
_NOTHING = ASGIResponse(body=b"", status_code=204)


@post("/auth/provider/{provider:str}/token", opt=_OPEN, status_code=200, request_max_body_size=_SMALL)
async def post_token(request: Connection) -> ASGIResponse:
    """Log in with a name and a password (a form, as OAuth 2 has it)."""
    access = _access(request)
    provider = access.providers.get(request.scope["path_params"]["provider"])
    if provider is None:
        raise NotFound("There is no such provider.")
    form = dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True))
    if "username" not in form or "password" not in form:
        raise Malformed("The form needs 'username' and 'password'.")
    client = request.scope.get("client") or ("-", 0)
    issued = await access.log_in(provider, form["username"], form["password"], address=client[0])
    if issued is None:
        raise Unauthenticated("Incorrect username or password")
    return _json(_tokens(access, issued))


@post("/auth/session/refresh", opt=_OPEN, status_code=200, request_max_body_size=_SMALL)
async def post_refresh(request: Connection) -> ASGIResponse:
    """New tokens for a refresh token."""
    access = _access(request)
    return _json(_tokens(access, await access.renew(await _refresh_token(request))))


@post("/auth/session/revoke", opt=_OPEN, status_code=200, request_max_body_size=_SMALL)
async def post_revoke(request: Connection) -> ASGIResponse:
    """End the session of a refresh token."""
    await _access(request).end(await _refresh_token(request))
    return _NOTHING


@delete("/auth/session/revoke/{session:str}", opt=_OPEN, status_code=200)
async def delete_session(request: Connection) -> ASGIResponse:
    """End one of one's own sessions."""
    access, principal = _access(request), await _somebody(request)
    session = await access.accounts.session(_uuid(request.scope["path_params"]["session"]))
    if session.principal != principal.uuid:
        raise NotFound("There is no such session.")
    await access.accounts.revoke_session(session.uuid)
    return _NOTHING


@get("/auth/whoami", opt=_OPEN)
async def get_whoami(request: Connection) -> ASGIResponse:
    """The principal that asks, or null."""
    access = _access(request)
    principal = request.scope["state"]["principal"] = await access.of_request(request.scope)
    return _json(await _described(access, await access.accounts.account(principal.uuid)) if principal.uuid else None)


@post("/auth/apikey", opt=_OPEN, status_code=200, request_max_body_size=_SMALL)
async def post_key(request: Connection) -> ASGIResponse:
    """A new API key of one's own; its secret is told this once."""
    principal = await _somebody(request, "create:apikeys", "admin:apikeys")
    return await _new_key(request, principal.uuid, principal)


@get("/auth/apikey", opt=_OPEN)
async def get_key(request: Connection) -> ASGIResponse:
    """The API key that this request shows."""
    access, principal = _access(request), await _somebody(request)
    if principal.key is None:
        raise Unauthenticated("This request does not show an API key.")
    return _json(_key(access, principal.key))


@delete("/auth/apikey", opt=_OPEN, status_code=200)
async def delete_key(request: Connection) -> ASGIResponse:
    """Revoke one of one's own API keys, by its first eight characters."""
    principal = await _somebody(request, "revoke:apikeys", "admin:apikeys")
    await _access(request).revoke_key(principal.uuid, _first_eight(request))
    return _NOTHING


@get("/auth/principal", opt={"scopes": ("read:principals",)})
async def get_principals(request: Connection) -> ASGIResponse:
    """All principals, a page at a time."""
    access, query = _access(request), Query(request.scope)
    offset = query.integer("page[offset]", 0) or 0
    limit = query.integer("page[limit]", 100, high=300)
    found = await access.accounts.accounts(offset=offset, limit=100 if limit is None else limit)
    return _json([await _described(access, account) for account in found])


@post("/auth/principal", opt={"scopes": ("write:principals",)}, status_code=200, request_max_body_size=_SMALL)
async def post_principal(request: Connection) -> ASGIResponse:
    """A new service principal with a `role`."""
    access, role = _access(request), Query(request.scope).get("role")
    if role is None or role not in ROLES:
        raise Malformed(f"'role' must be one of {', '.join(ROLES)}.")
    return _json(await _described(access, await access.accounts.create_service(role, now=access.now())))


@get("/auth/principal/{principal:str}", opt={"scopes": ("read:principals",)})
async def get_principal(request: Connection) -> ASGIResponse:
    """One principal."""
    access = _access(request)
    return _json(await _described(access, await access.accounts.account(_principal(request))))


@post("/auth/principal/{principal:str}/apikey", opt={"scopes": ("admin:apikeys",)}, status_code=200, request_max_body_size=_SMALL)
async def post_principal_key(request: Connection) -> ASGIResponse:
    """A new API key for somebody else, within what they may do."""
    return await _new_key(request, _principal(request), None)


@delete("/auth/principal/{principal:str}/apikey", opt={"scopes": ("admin:apikeys",)}, status_code=200)
async def delete_principal_key(request: Connection) -> ASGIResponse:
    """Revoke an API key of somebody else."""
    await _access(request).revoke_key(_principal(request), _first_eight(request))
    return _NOTHING


@post("/auth/logout", opt=_OPEN, status_code=200, request_max_body_size=_SMALL)
async def post_logout(request: Connection) -> ASGIResponse:
    """Take the key out of the browser."""
    cookie = f"{KEY_COOKIE}=; Path=/; HttpOnly; SameSite=lax; Max-Age=0"
    return ASGIResponse(body=b"{}", media_type="application/json", headers={"Set-Cookie": cookie})


#: Scopes or tags that a key may name.
_MANY = 100
_FIRST_EIGHT = re.compile(r"[0-9a-f]{8}")
#: Clients before 0.1.0b17 knew the mode by another name.
_OLD_CLIENT = re.compile(r"python-tiled/0\.(0\.|1\.0(a|b([0-9]|1[0-6])$))")


def authentication_of(access: UserAccess, url: str, user_agent: str) -> dict[str, Any]:
    """What the about page says of how to log in."""
    auth = f"{url}/auth"
    return {
        "required": not access.public,
        "providers": [
            {
                "provider": provider.name,
                "mode": "password" if _OLD_CLIENT.match(user_agent) else "internal",
                "links": {"auth_endpoint": f"{auth}/provider/{provider.name}/token"},
                "confirmation_message": provider.confirmation_message,
                "extra_scopes": None,
            }
            for provider in access.providers.values()
        ],
        "links": {
            "whoami": f"{auth}/whoami",
            "apikey": f"{auth}/apikey",
            "refresh_session": f"{auth}/session/refresh",
            "revoke_session": f"{auth}/session/revoke/{{session_id}}",
            "logout": f"{auth}/logout",
        },
    }


async def _new_key(request: Connection, uuid: str, principal: Principal | None) -> ASGIResponse:
    access = _access(request)
    given, now = await _object(request), access.now()
    if "scopes" not in given or "expires_in" not in given:
        raise Malformed(
            "The body needs 'scopes' (a list, or null: all that the principal may do) and 'expires_in' (seconds or null)."
        )
    scopes = [INHERIT] if given["scopes"] is None else _texts(given["scopes"], "scopes")
    tags = None if given.get("access_tags") is None else _texts(given["access_tags"], "access_tags")
    seconds, note = given["expires_in"], given.get("note")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0):
        raise Malformed("'expires_in' must be a positive number of seconds, or null.")
    if note is not None and (not isinstance(note, str) or len(note) > 255 or "\0" in note):
        raise Malformed("'note' must be a text of at most 255 characters, or null.")
    if INHERIT in scopes and tags is not None:
        raise Forbidden("A key that inherits all scopes cannot be restricted by 'access_tags'; name its scopes.")
    allowed = (await access.accounts.account(uuid)).scopes
    if principal is not None:
        allowed &= principal.scopes
        scopes, seconds, tags = _within(principal, now, allowed, (scopes, seconds, tags))
    if not set(scopes) - {INHERIT} <= allowed:
        raise Forbidden(f"Requested scopes {sorted(scopes)} must be a subset of the principal's scopes {sorted(allowed)}.")
    key, secret = await access.accounts.create_key(uuid, scopes=scopes, now=now, seconds=seconds, note=note, access_tags=tags)
    return _json(_key(access, key) | {"secret": secret})


def _within(principal: Principal, now: float, allowed: Set[str], wanted: _Wanted) -> _Wanted:
    """A key does not make another one that may do more, lasts longer or reaches further than itself."""
    scopes, seconds, tags = wanted
    key = principal.key
    if key is None:
        return wanted
    if INHERIT in scopes and INHERIT not in key.scopes:
        scopes = sorted(allowed)
    if key.expires is not None:
        seconds = min(seconds or key.expires - now, key.expires - now)
    if key.access_tags is not None and not set(tags or key.access_tags) <= set(key.access_tags):
        raise Forbidden(f"'access_tags' must be among those of the key that was shown: {list(key.access_tags)}.")
    return scopes, seconds, tags if key.access_tags is None else tags or list(key.access_tags)


async def _somebody(request: Connection, *any_of: str) -> Principal:
    """Whoever is known, and holds one of these scopes."""
    principal = await _access(request).of_request(request.scope)
    request.scope["state"]["principal"] = principal
    if not principal.uuid:
        raise Unauthenticated("This needs a login, or an API key.")
    if any_of and not principal.scopes & set(any_of):
        raise Unauthenticated(f"Not enough permissions. Requires one of the scopes: {', '.join(any_of)}.", scopes=any_of[:1])
    return principal


async def _described(access: UserAccess, account: Account) -> dict[str, Any]:
    keys = await access.accounts.keys(account.uuid, now=access.now())
    sessions = await access.accounts.sessions(account.uuid)
    return {
        "uuid": str(UUID(account.uuid)),
        "type": account.type,
        "identities": [{"id": i.id, "provider": i.provider, "latest_login": _time(i.latest_login)} for i in account.identities],
        "roles": [{"name": role, "scopes": list(ROLES.get(role, ()))} for role in account.roles],
        "api_keys": [_key(access, key) for key in keys],
        "sessions": [_session(session) for session in sessions],
        "latest_activity": _time(access.activity(account.uuid) or account.latest_activity),
    }


def _session(session: Session) -> dict[str, Any]:
    return {
        "uuid": str(UUID(session.uuid)),
        "expiration_time": _time(session.expires),
        "revoked": session.revoked,
        "state": session.state,
    }


def _key(access: UserAccess, key: ApiKey) -> dict[str, Any]:
    return {
        "first_eight": key.first_eight,
        "expiration_time": _time(key.expires),
        "note": key.note,
        "scopes": list(key.scopes),
        "access_tags": None if key.access_tags is None else list(key.access_tags),
        "latest_activity": _time(access.key_activity(key)),
    }


def _tokens(access: UserAccess, issued: Issued) -> dict[str, Any]:
    told = {
        "access_token": issued.access,
        "expires_in": access.tokens.access_seconds,
        "refresh_token": issued.refresh,
        "refresh_token_expires_in": access.tokens.refresh_seconds,
        "token_type": "bearer",
    }
    if issued.identity is None:
        return told
    identity = {"id": issued.identity.id, "provider": issued.identity.provider}
    return told | {"identity": identity, "principal": issued.account.uuid}


def _access(request: Connection) -> UserAccess:
    access = request.app.state["access"]
    if not isinstance(access, UserAccess):
        raise NotFound("This server has one API key and no accounts; there is nothing to log in to.")
    return access


async def _object(request: Connection) -> dict[str, Any]:
    try:
        found = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Malformed("The body must be an object.")
    return found


async def _refresh_token(request: Connection) -> str:
    token = (await _object(request)).get("refresh_token")
    if not isinstance(token, str):
        raise Malformed("The body needs the 'refresh_token'.")
    return token


def _first_eight(request: Connection) -> str:
    found = (Query(request.scope).get("first_eight") or "")[:8]
    if not _FIRST_EIGHT.fullmatch(found):
        raise Malformed("Say which key: ?first_eight= and the eight digits and letters a to f that it begins with.")
    return found


def _principal(request: Connection) -> str:
    return _uuid(request.scope["path_params"]["principal"])


def _uuid(text: str) -> str:
    try:
        return UUID(text).hex
    except ValueError:
        raise NotFound(f"{text!r} is no UUID.") from None


def _texts(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value) or len(value) > _MANY:
        raise Malformed(f"{name!r} must be a list of at most {_MANY} texts, or null.")
    return sorted(set(value))


def _time(at: float | None) -> str | None:
    """ISO 8601, UTC, without a zone: so clients read it."""
    return None if at is None else datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat()


def _json(content: Any) -> ASGIResponse:
    return ASGIResponse(body=orjson.dumps(content), media_type="application/json")


ROUTES = [
    post_token,
    post_refresh,
    post_revoke,
    delete_session,
    get_whoami,
    post_key,
    get_key,
    delete_key,
    get_principals,
    post_principal,
    get_principal,
    post_principal_key,
    delete_principal_key,
    post_logout,
]
