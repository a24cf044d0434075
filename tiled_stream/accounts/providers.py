"""Who checks a password: providers by configuration, ours by name, those of the reference by theirs, others by import path.

A provider is a class made with the configuration's `args`; `authenticate(username, password)` gives the identity's id, or None.
It may be a coroutine function; one that is not is called in a thread. What must stay true: an unknown user takes as long as a
wrong password; a password is never kept, logged or told.
"""

from __future__ import annotations

import asyncio
import hmac
import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

__all__ = ["AuthenticatorError", "DictionaryAuthenticator", "PAMAuthenticator", "Provider", "providers_of"]

_HASHED = "$argon2"


class AuthenticatorError(Exception):
    """A provider that cannot be made; the sentence says how to mend it."""


class Authenticator(Protocol):
    """What a provider does."""

    def authenticate(self, username: str, password: str) -> Any:
        """The id of whoever this is, or None. May be a coroutine."""
        ...


class Provider(msgspec.Struct, frozen=True):
    """A provider under its name."""

    name: str
    authenticator: Any
    confirmation_message: str | None = None

    async def check(self, username: str, password: str) -> str | None:
        """The id, or None: wrong. Never blocks the loop."""
        if inspect.iscoroutinefunction(self.authenticator.authenticate):
            found = await self.authenticator.authenticate(username, password)
        else:
            found = await asyncio.to_thread(self.authenticator.authenticate, username, password)
        # The reference's own interface wraps the name.
        return None if found is None else str(getattr(found, "user_name", found))


class DictionaryAuthenticator:
    """Users and passwords from the configuration. A password may be given as an argon2 hash (begins with ``$argon2``)."""

    def __init__(self, users_to_passwords: Mapping[str, str], confirmation_message: str = "") -> None:
        from argon2 import PasswordHasher  # heavy, and a server of one key needs none

        self.confirmation_message = confirmation_message
        self._hasher = PasswordHasher()
        self._users = dict(users_to_passwords)
        self._nobody = self._hasher.hash("nobody has this password")

    def authenticate(self, username: str, password: str) -> str | None:
        """The user's name, if the password is right and not empty."""
        known = self._users.get(username)
        is_right = self._matches(self._nobody if known is None else known, password)
        return username if known and password and is_right else None

    def _matches(self, known: str, password: str) -> bool:
        if not known.startswith(_HASHED):
            self._verified(self._nobody, password)  # takes as long
            return hmac.compare_digest(known.encode(), password.encode())
        return self._verified(known, password)

    def _verified(self, known: str, password: str) -> bool:
        from argon2.exceptions import InvalidHashError, VerificationError

        try:
            return self._hasher.verify(known, password)
        except (VerificationError, InvalidHashError):
            return False


class PAMAuthenticator:
    """Users of this machine, by PAM. Needs the package `pamela`."""

    def __init__(self, service: str = "login", confirmation_message: str = "") -> None:
        self.confirmation_message = confirmation_message
        self._service = service
        try:
            self._pam: Any = importlib.import_module("pamela")
        except ModuleNotFoundError:
            raise AuthenticatorError("PAMAuthenticator needs the package 'pamela': pip install pamela") from None

    def authenticate(self, username: str, password: str) -> str | None:
        """The user's name, if PAM says so."""
        try:
            self._pam.authenticate(username, password, service=self._service)
        except self._pam.PAMError:
            return None
        return username


_OURS = {"DictionaryAuthenticator": DictionaryAuthenticator, "PAMAuthenticator": PAMAuthenticator}
_THEIRS = "tiled.authenticators:"


def providers_of(entries: Sequence[Mapping[str, Any]]) -> tuple[Provider, ...]:
    """Providers as the configuration lists them. `AuthenticatorError` names the entry and the cure."""
    found: dict[str, Provider] = {}
    for entry in entries:
        name, path = entry.get("provider"), entry.get("authenticator")
        if not isinstance(name, str) or not name or not isinstance(path, str):
            raise AuthenticatorError("Each provider needs a name under 'provider' and a class under 'authenticator'.")
        if name in found:
            raise AuthenticatorError(f"Two providers are called {name!r}; their names must be unique.")
        made = _made(path, entry.get("args") or {})
        found[name] = Provider(name, made, getattr(made, "confirmation_message", None) or None)
    return tuple(found.values())


def _made(path: str, args: Mapping[str, Any]) -> Any:
    name = path.removeprefix(_THEIRS).removeprefix("tiled_stream:")
    kind = _OURS.get(name)
    if kind is None and (path.startswith(_THEIRS) or ":" not in path):
        known = ", ".join(_OURS)
        raise AuthenticatorError(
            f"There is no authenticator {path!r} here; there are {known}, and your own as 'package.module:Class'."
        )
    if kind is None:
        module, _, attribute = path.partition(":")
        try:
            kind = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise AuthenticatorError(f"The authenticator {path!r} cannot be imported: {error}") from None
    try:
        return kind(**args)
    except TypeError as error:
        raise AuthenticatorError(f"The authenticator {path!r} does not take these 'args': {error}") from None
