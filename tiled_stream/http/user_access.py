"""Who asks, where there are users: by API key, or by a token of a session.

A key is looked up once and remembered for a few seconds, so that a burst of requests asks the database once; another process sees
a revocation after that. Activity is noted in memory and written now and then, never on the way of a request. What must stay true:
what was told to be revoked *here* is refused here at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec

from ..accounts.failures import Failures
from ..accounts.model import INHERIT, Account, ApiKey, Identity, Session, printable
from ..accounts.providers import Provider
from ..accounts.store import Accounts, digest_of
from ..accounts.tokens import Tokens
from ..domain.errors import NotFound, Unauthenticated, Unavailable
from .access import Access, Principal

__all__ = ["REMEMBERED", "Issued", "UserAccess"]

logger = logging.getLogger(__name__)

#: Seconds for which a key that was found good is not looked up again.
REMEMBERED = 5.0
_MAX_REMEMBERED = 10_000
#: Seconds between two writings of who was active.
_NOTE_EVERY = 60.0
#: Passwords that are checked at a time: a check takes tens of milliseconds and 64 MiB, and anybody may ask for one.
_CHECKS = 2
#: What no key looks like is not looked up.
_SECRET = re.compile(r"[0-9a-f]{72}")


class _Known(msgspec.Struct, frozen=True):
    principal: Principal
    until: float


class Issued(msgspec.Struct, frozen=True):
    """Tokens, and whose they are. `identity`: as whom somebody logged in; None where tokens were renewed."""

    access: str
    refresh: str
    account: Account
    session: Session
    identity: Identity | None = None


class UserAccess(Access):
    """Access of a server with accounts. `public`: those without credentials may read. `now`: seconds since the epoch."""

    is_multi_user = True

    def __init__(
        self,
        accounts: Accounts,
        tokens: Tokens,
        providers: Sequence[Provider],
        *,
        public: bool,
        session_seconds: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__("", public=public)
        self.accounts = accounts
        self.tokens = tokens
        self.providers = {provider.name: provider for provider in providers}
        self._session_seconds = session_seconds
        self.now = now
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._active: dict[str, float] = {}
        self._active_keys: dict[tuple[str, str], float] = {}
        # Who waits for the same key waits for one question; keys of other halves need not wait.
        self._questions = tuple(asyncio.Lock() for _ in range(16))
        # How often something was revoked here: an answer that was asked for before must not be remembered.
        self._revocations = 0
        self._failures = Failures()
        self._checks = asyncio.Semaphore(_CHECKS)
        self._noting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to note who is active."""
        self._noting = asyncio.create_task(self._note(), name="account activity")
        self._noting.add_done_callback(_heard)

    async def close(self) -> None:
        """Write what was noted. Idempotent."""
        task, self._noting = self._noting, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
            await self._write_activity()

    async def of_key(self, key: str) -> Principal:
        """Whose key it is, with the scopes of the key. `Unauthenticated`."""
        if not _SECRET.fullmatch(key):
            raise Unauthenticated("Invalid API key")
        digest = digest_of(key)
        principal = self._remembered(digest)
        if principal is None:
            async with self._questions[int(digest[0], 16)]:
                principal = self._remembered(digest) or await self._looked_up(key, digest)
        self._seen(principal, self.now())
        return principal

    async def of_token(self, token: str) -> Principal:
        """Who a session belongs to. Tells nothing of whether the session was revoked meanwhile: tokens are short-lived."""
        claims = self.tokens.claims(token, "access", now=self.now())
        identities = claims.get("ids") or [{}]
        name = printable(str(identities[0].get("id") or claims["sub"]))
        principal = Principal(name, frozenset(claims["scp"]), uuid=str(claims["sub"]))
        self._seen(principal, self.now())
        return principal

    async def knows(self, key: str) -> bool:
        """Is it a key?"""
        try:
            await self.of_key(key)
        except Unauthenticated:
            return False
        return True

    async def log_in(self, provider: Provider, username: str, password: str, *, address: str) -> Issued | None:
        """New tokens of a new session; None for a wrong password. `TooOften` after too many of them from one address."""
        now = self.now()
        self._failures.begin(address, f"{provider.name}:{username}", now=now)
        async with self._checks:
            id = await provider.check(username, password)
        if id is None:
            return None
        self._failures.forgive(address, f"{provider.name}:{username}", began=now)
        return await self.begin_session(provider.name, id)

    async def begin_session(self, provider: str, id: str) -> Issued:
        """New tokens for somebody whom a provider vouches for."""
        now = self.now()
        account = await self.accounts.log_in(provider, id, now=now)
        session = await self.accounts.begin_session(account.uuid, now=now, seconds=self._session_seconds)
        identity = next(i for i in account.identities if (i.provider, i.id) == (provider, id))
        return self._issued(account, session, now, identity)

    async def renew(self, refresh_token: str) -> Issued:
        """New tokens of the same session. `Unauthenticated` if it has ended."""
        now = self.now()
        session = await self._session_of(refresh_token)
        if session.revoked or session.expires <= now:
            raise Unauthenticated("Session has expired. Please re-authenticate.")
        return self._issued(await self.accounts.account(session.principal), session, now)

    async def end(self, refresh_token: str) -> None:
        """Revoke the session of a refresh token."""
        await self.accounts.revoke_session((await self._session_of(refresh_token)).uuid)

    async def revoke_key(self, principal: str, first_eight: str) -> None:
        """Refused here from now on, by other processes within `REMEMBERED` seconds. `NotFound`."""
        await self.accounts.revoke_key(principal, first_eight)
        self._revocations += 1
        for digest, known in list(self._known.items()):
            if known.principal.key is not None and known.principal.key.first_eight == first_eight:
                del self._known[digest]

    def activity(self, uuid: str) -> float | None:
        """When a principal was last seen here, if that is not written yet."""
        return self._active.get(uuid)

    def key_activity(self, key: ApiKey) -> float | None:
        """The same of a key."""
        return self._active_keys.get((key.principal, key.first_eight), key.latest_activity)

    def _remembered(self, digest: str) -> Principal | None:
        known = self._known.get(digest)
        return known.principal if known is not None and self.now() < known.until else None

    async def _looked_up(self, key: str, digest: str) -> Principal:
        now, revocations = self.now(), self._revocations
        found = await self.accounts.key(key, now=now)
        if found is None:
            raise Unauthenticated("Invalid API key")
        known, account = found
        scopes = account.scopes if INHERIT in known.scopes else account.scopes & set(known.scopes)
        principal = Principal(account.name, scopes, uuid=account.uuid, key=known)
        if revocations == self._revocations:
            until = now + REMEMBERED if known.expires is None else min(now + REMEMBERED, known.expires)
            self._known[digest] = _Known(principal, until)
            while len(self._known) > _MAX_REMEMBERED:
                self._known.popitem(last=False)
        return principal

    async def _session_of(self, refresh_token: str) -> Session:
        try:
            return await self.accounts.session(str(self.tokens.claims(refresh_token, "refresh", now=self.now())["sid"]))
        except NotFound:
            raise Unauthenticated("Session has expired. Please re-authenticate.") from None

    def _issued(self, account: Account, session: Session, now: float, identity: Identity | None = None) -> Issued:
        access = self.tokens.access(account, session, now=now)
        return Issued(access, self.tokens.refresh(session, now=now), account, session, identity)

    def _seen(self, principal: Principal, now: float) -> None:
        self._active[principal.uuid] = now
        if principal.key is not None:
            self._active_keys[principal.key.principal, principal.key.first_eight] = now

    async def _note(self) -> None:
        while True:
            await asyncio.sleep(_NOTE_EVERY)
            await self._write_activity()

    async def _write_activity(self) -> None:
        principals, keys = dict(self._active), dict(self._active_keys)
        if not principals:
            return
        try:
            await self.accounts.used(principals, keys)
        except Unavailable as error:  # kept for the next time
            logger.warning("Who was active could not be written: %s", error)
            return
        # What came in meanwhile stays for the next time.
        for uuid, at in principals.items():
            if self._active.get(uuid) == at:
                del self._active[uuid]
        for place, at in keys.items():
            if self._active_keys.get(place) == at:
                with contextlib.suppress(KeyError):
                    del self._active_keys[place]


def _heard(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.critical("Who is active is noted no more", exc_info=task.exception())
