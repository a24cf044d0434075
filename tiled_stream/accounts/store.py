"""The accounts of a deployment: who there is, who is logged in, which keys there are.

What must stay true: of a key only its SHA-256 digest is kept (it is 36 random bytes, so nothing slower is needed; passwords are
not kept here at all); one that was revoked or has expired is no key. Times come from the caller's clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Literal
from uuid import uuid4

import orjson

from ..domain.errors import NotFound, Unsatisfiable
from .database import Connection, Database
from .model import Account, ApiKey, Identity, Session
from .schema import prepare

__all__ = ["MAX_KEYS", "MAX_SESSIONS", "Accounts", "digest_of"]

#: Keys that a principal may have; one more is refused.
MAX_KEYS = 100
#: Sessions that are remembered of a principal; one more ends the oldest. Nobody is to be locked out by having logged in often.
MAX_SESSIONS = 200
_KEY_BYTES = 36
_KEY_COLUMNS = "first_eight, principal, scopes, expires, note, access_tags, latest_activity"


def digest_of(secret: str) -> str:
    """By which a key is found."""
    return sha256(secret.encode()).hexdigest()


class Accounts:
    """`init`: make the tables if they are missing."""

    def __init__(self, database: Database, *, init: bool) -> None:
        self._database = database
        self._init = init

    async def open(self) -> None:
        """`Unavailable` with the cure if the database cannot be used, was never initialised, or is of a newer version."""
        try:
            await self._database.open(init=self._init)
            await prepare(self._database, init=self._init)
        except BaseException:
            await self._database.close()
            raise

    async def close(self) -> None:
        """Idempotent."""
        await self._database.close()

    async def log_in(self, provider: str, id: str, *, now: float) -> Account:
        """Whoever a provider says that it is; a new one becomes a user."""
        async with self._database.transaction() as db:
            uuid = await _principal_of(db, provider, id) or await _new_principal(db, "user", "user", (provider, id), now)
            await db.run("UPDATE identities SET latest_login = ? WHERE provider = ? AND id = ?", now, provider, id)
            return await _account(db, uuid)

    async def appoint(self, admins: Sequence[tuple[str, str]], *, now: float) -> None:
        """Exactly these (provider, id) have the role admin by configuration, also those who never logged in; others that had it
        lose it."""
        async with self._database.transaction() as db:
            wanted = set()
            for provider, id in sorted(admins):
                known = await _principal_of(db, provider, id)
                wanted.add(known or await _new_principal(db, "user", "user", (provider, id), now))
            had = {str(row[0]) for row in await db.rows("SELECT uuid FROM principals WHERE appointed = 1")}
            for uuid in sorted(wanted ^ had):
                await db.run("UPDATE principals SET appointed = ? WHERE uuid = ?", int(uuid in wanted), uuid)

    async def create_service(self, role: str, *, now: float) -> Account:
        """A principal that nobody logs in as."""
        async with self._database.transaction() as db:
            return await _account(db, await _new_principal(db, "service", role, None, now))

    async def account(self, uuid: str) -> Account:
        """`NotFound`."""
        async with self._database.transaction() as db:
            return await _account(db, uuid)

    async def accounts(self, *, offset: int, limit: int) -> list[Account]:
        """In order of creation."""
        async with self._database.transaction() as db:
            rows = await db.rows("SELECT uuid FROM principals ORDER BY created, uuid LIMIT ? OFFSET ?", limit, offset)
            return [await _account(db, row[0]) for row in rows]

    async def begin_session(self, principal: str, *, now: float, seconds: float) -> Session:
        """What makes way for it: first what has ended, then the oldest."""
        session = Session(uuid4().hex, principal, now + seconds)
        insert = "INSERT INTO sessions (uuid, principal, created, expires, revoked, state) VALUES (?, ?, ?, ?, 0, ?)"
        stay = (
            "SELECT uuid FROM sessions WHERE principal = ? "
            "ORDER BY CASE WHEN revoked = 0 AND expires > ? THEN 0 ELSE 1 END, created DESC, uuid LIMIT ?"
        )
        trim = f"DELETE FROM sessions WHERE principal = ? AND uuid NOT IN ({stay})"
        async with self._database.transaction() as db:
            await _hold(db, principal)
            await db.run(trim, principal, principal, now, MAX_SESSIONS - 1)
            await db.run(insert, session.uuid, principal, now, session.expires, _json(session.state))
        return session

    async def session(self, uuid: str) -> Session:
        """`NotFound`."""
        async with self._database.transaction() as db:
            found = await _sessions(db, "uuid = ?", uuid)
        if not found:
            raise NotFound("There is no such session.")
        return found[0]

    async def sessions(self, principal: str) -> list[Session]:
        """Of a principal, the revoked ones too."""
        async with self._database.transaction() as db:
            return await _sessions(db, "principal = ?", principal)

    async def revoke_session(self, uuid: str) -> None:
        """Idempotent."""
        async with self._database.transaction() as db:
            await db.run("UPDATE sessions SET revoked = 1 WHERE uuid = ?", uuid)

    async def create_key(
        self,
        principal: str,
        *,
        scopes: Sequence[str],
        now: float,
        seconds: float | None = None,
        note: str | None = None,
        access_tags: Sequence[str] | None = None,
    ) -> tuple[ApiKey, str]:
        """A key and its secret, which is told this once. `Unsatisfiable` if there are too many."""
        secret = secrets.token_hex(_KEY_BYTES)
        tags = None if access_tags is None else tuple(access_tags)
        key = ApiKey(secret[:8], principal, tuple(scopes), None if seconds is None else now + seconds, note, tags)
        async with self._database.transaction() as db:
            await _hold(db, principal)
            await db.run("DELETE FROM api_keys WHERE principal = ? AND expires IS NOT NULL AND expires <= ?", principal, now)
            if (await db.rows("SELECT COUNT(*) FROM api_keys WHERE principal = ?", principal))[0][0] >= MAX_KEYS:
                raise Unsatisfiable(f"There are {MAX_KEYS} API keys already; revoke some first.")
            await db.run(
                "INSERT INTO api_keys (digest, first_eight, principal, created, expires, note, scopes, access_tags) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                digest_of(secret),
                key.first_eight,
                principal,
                now,
                key.expires,
                note,
                _json(key.scopes),
                None if tags is None else _json(tags),
            )
        return key, secret

    async def key(self, secret: str, *, now: float) -> tuple[ApiKey, Account] | None:
        """The key of this secret and whose it is; None if there is none, or no more."""
        async with self._database.transaction() as db:
            rows = await db.rows(f"SELECT {_KEY_COLUMNS} FROM api_keys WHERE digest = ?", digest_of(secret))
            key = _key(rows[0]) if rows else None
            if key is None or (key.expires is not None and key.expires <= now):
                return None
            return key, await _account(db, key.principal)

    async def keys(self, principal: str, *, now: float) -> list[ApiKey]:
        """Of a principal, those that count."""
        where = "principal = ? AND (expires IS NULL OR expires > ?) ORDER BY created"
        async with self._database.transaction() as db:
            rows = await db.rows(f"SELECT {_KEY_COLUMNS} FROM api_keys WHERE {where}", principal, now)
        return [_key(row) for row in rows]

    async def revoke_key(self, principal: str, first_eight: str) -> None:
        """`NotFound` if the principal has no such key."""
        async with self._database.transaction() as db:
            if not await db.run("DELETE FROM api_keys WHERE principal = ? AND first_eight = ?", principal, first_eight):
                raise NotFound(f"There is no API key that begins with {first_eight!r}.")

    async def used(self, principals: dict[str, float], keys: dict[tuple[str, str], float]) -> None:
        """Remember when principals, and keys by principal and first eight, were last active. An older time never replaces a newer
        one, that of another server."""
        newer = "(latest_activity IS NULL OR latest_activity < ?)"
        async with self._database.transaction() as db:
            # In one order everywhere, so that two servers do not wait for each other.
            for uuid, at in sorted(principals.items()):
                await db.run(f"UPDATE principals SET latest_activity = ? WHERE uuid = ? AND {newer}", at, uuid, at)
            for (uuid, first_eight), at in sorted(keys.items()):
                sql = f"UPDATE api_keys SET latest_activity = ? WHERE principal = ? AND first_eight = ? AND {newer}"
                await db.run(sql, at, uuid, first_eight, at)


async def _hold(db: Connection, principal: str) -> None:
    """Changes nothing, and keeps others from changing this principal until the transaction ends."""
    if not await db.run("UPDATE principals SET type = type WHERE uuid = ?", principal):
        raise NotFound("There is no such principal.")


async def _principal_of(db: Connection, provider: str, id: str) -> str | None:
    rows = await db.rows("SELECT principal FROM identities WHERE provider = ? AND id = ?", provider, id)
    return str(rows[0][0]) if rows else None


async def _new_principal(
    db: Connection, kind: Literal["user", "service"], role: str, identity: tuple[str, str] | None, now: float
) -> str:
    """Its id. Another server may see the same first login: then the one that came first counts."""
    uuid = uuid4().hex
    await db.run("INSERT INTO principals (uuid, type, roles, created) VALUES (?, ?, ?, ?)", uuid, kind, _json([role]), now)
    if identity is None:
        return uuid
    insert = "INSERT INTO identities (provider, id, principal) VALUES (?, ?, ?) ON CONFLICT (provider, id) DO NOTHING"
    if await db.run(insert, *identity, uuid):
        return uuid
    await db.run("DELETE FROM principals WHERE uuid = ?", uuid)
    first = await _principal_of(db, *identity)
    assert first is not None
    return first


async def _account(db: Connection, uuid: str) -> Account:
    rows = await db.rows("SELECT type, roles, appointed, latest_activity FROM principals WHERE uuid = ?", uuid)
    if not rows:
        raise NotFound("There is no such principal.")
    kind, roles, appointed, activity = rows[0]
    given = tuple(orjson.loads(roles))
    given += ("admin",) if appointed and "admin" not in given else ()
    found = await db.rows("SELECT provider, id, latest_login FROM identities WHERE principal = ? ORDER BY provider, id", uuid)
    return Account(uuid, kind, given, tuple(Identity(*row) for row in found), activity)


async def _sessions(db: Connection, where: str, *args: Any) -> list[Session]:
    rows = await db.rows(f"SELECT uuid, principal, expires, revoked, state FROM sessions WHERE {where} ORDER BY created", *args)
    return [Session(uuid, principal, expires, bool(gone), orjson.loads(state)) for uuid, principal, expires, gone, state in rows]


def _key(row: Sequence[Any]) -> ApiKey:
    first_eight, principal, scopes, expires, note, tags, activity = row
    restricted = None if tags is None else tuple(orjson.loads(tags))
    return ApiKey(first_eight, principal, tuple(orjson.loads(scopes)), expires, note, restricted, activity)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
