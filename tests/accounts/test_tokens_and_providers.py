"""Tokens are what they say, and passwords are checked as the configuration has it."""

from __future__ import annotations

import base64
import hmac
import time
from typing import Any

import argon2
import jwt
import pytest

from tiled_stream.accounts.model import Account, Identity, Session
from tiled_stream.accounts.providers import AuthenticatorError, providers_of
from tiled_stream.accounts.tokens import Tokens
from tiled_stream.domain.errors import Unauthenticated

ALICE = Account("a" * 32, "user", ("user",), (Identity("toy", "alice"),))


def tokens(*secrets: str) -> Tokens:
    return Tokens([secret * 32 for secret in secrets], access_seconds=10, refresh_seconds=100)


def session(seconds: float = 1000) -> Session:
    return Session("5" * 32, ALICE.uuid, time.time() + seconds)


def test_a_token_tells_who_and_what() -> None:
    now = time.time()
    claims = tokens("s").claims(tokens("s").access(ALICE, session(), now=now), "access", now=now)
    assert (claims["sub"], claims["ids"], claims["exp"]) == (
        ALICE.uuid,
        [{"id": "alice", "idp": "toy"}],
        pytest.approx(now + 10, abs=1),
    )
    assert set(claims["scp"]) == ALICE.scopes


def test_a_token_does_not_outlive_its_session() -> None:
    now = time.time()
    claims = tokens("s").claims(tokens("s").access(ALICE, session(3), now=now), "access", now=now)
    assert claims["exp"] == pytest.approx(now + 3, abs=1)


def test_secrets_are_replaced_one_by_one() -> None:
    old = tokens("old").access(ALICE, session(), now=time.time())
    assert tokens("new", "old").claims(old, "access", now=time.time())["sub"] == ALICE.uuid
    with pytest.raises(Unauthenticated):
        tokens("new").claims(old, "access", now=time.time())


@pytest.mark.parametrize(
    "token",
    [
        "",
        "no.token.at-all",
        tokens("s").refresh(session(), now=time.time()),
        tokens("s").access(ALICE, session(), now=time.time() - 60),
        jwt.encode({"type": "access", "exp": time.time() + 9, "sub": "x"}, "", algorithm="none"),
        jwt.encode({"type": "access", "sub": "x"}, "s" * 32, algorithm="HS256"),
    ],
)
def test_what_is_no_access_token(token: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens("s").claims(token, "access", now=time.time())


def test_secrets_of_any_length_sign_without_complaint() -> None:
    """As the reference signs, so that its programs read them; the suite would fail at a warning."""
    short = Tokens(["SECRET"], access_seconds=10, refresh_seconds=100)
    token = short.refresh(session(), now=time.time())
    assert short.claims(token, "refresh", now=time.time())["sid"] == "5" * 32
    head, body, signature = token.split(".")
    expected = hmac.digest(b"SECRET", f"{head}.{body}".encode(), "sha256")
    assert base64.urlsafe_b64decode(signature + "=") == expected


def provider(**entry: Any) -> Any:
    return providers_of([{"provider": "toy", "authenticator": "DictionaryAuthenticator", **entry}])[0]


async def test_passwords_from_the_configuration() -> None:
    hashed = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("secret2")
    toy = provider(args={"users_to_passwords": {"alice": "secret1", "bob": hashed, "empty": ""}})
    assert await toy.check("alice", "secret1") == "alice"
    assert await toy.check("bob", "secret2") == "bob"
    for name, password in (
        ("alice", "secret2"), ("bob", hashed), ("nobody", "nobody has this password"), ("empty", ""), ("alice", ""), ("", ""),
    ):  # fmt: skip
        assert await toy.check(name, password) is None


async def test_the_names_of_the_reference_mean_ours() -> None:
    toy = provider(authenticator="tiled.authenticators:DictionaryAuthenticator", args={"users_to_passwords": {"a": "b"}})
    assert await toy.check("a", "b") == "a"


class Own:
    """What somebody else wrote."""

    def __init__(self, suffix: str = "") -> None:
        self.suffix = suffix

    async def authenticate(self, username: str, password: str) -> str | None:
        return username + self.suffix if password == "x" else None


async def test_ones_own_by_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "own_authenticator", type("M", (), {"Own": Own}))
    own = provider(authenticator="own_authenticator:Own", args={"suffix": "@lab"})
    assert await own.check("a", "x") == "a@lab"
    assert await own.check("a", "y") is None


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{"provider": "a"}], "'authenticator'"),
        ([{"provider": "a", "authenticator": "tiled.authenticators:OIDCAuthenticator"}], "there are DictionaryAuthenticator"),
        ([{"provider": "a", "authenticator": "no_such_module:X"}], "cannot be imported"),
        ([{"provider": "a", "authenticator": "DictionaryAuthenticator", "args": {"wrong": 1}}], "does not take"),
        ([{"provider": "a", "authenticator": "DictionaryAuthenticator", "args": {"users_to_passwords": {}}}] * 2, "unique"),
    ],
)
def test_providers_that_cannot_be_made(entries: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(AuthenticatorError, match=said):
        providers_of(entries)
