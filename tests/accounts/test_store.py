"""Accounts on SQLite and on PostgreSQL: one contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tiled_stream.accounts.database import database_at
from tiled_stream.accounts.model import INHERIT, ROLES, Identity
from tiled_stream.accounts.store import MAX_KEYS, MAX_SESSIONS, Accounts
from tiled_stream.domain.errors import NotFound, Unavailable, Unsatisfiable

NOW = 1_800_000_000.0


@pytest.fixture(params=["sqlite", "postgres"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a fresh database is."""
    return f"sqlite:///{tmp_path / 'accounts.db'}" if request.param == "sqlite" else str(request.getfixturevalue("new_postgres"))


@pytest.fixture
async def accounts(uri: str) -> AsyncIterator[Accounts]:
    accounts = Accounts(database_at(uri), init=True)
    await accounts.open()
    yield accounts
    await accounts.close()


async def test_whoever_logs_in_first_becomes_a_user_and_stays_the_same(accounts: Accounts) -> None:
    alice = await accounts.log_in("toy", "alice", now=NOW)
    assert (alice.type, alice.roles, alice.name) == ("user", ("user",), "alice")
    assert alice.scopes == frozenset(ROLES["user"])
    assert "register" not in alice.scopes
    again = await accounts.log_in("toy", "alice", now=NOW + 5)
    assert again.uuid == alice.uuid
    assert again.identities == (Identity("toy", "alice", NOW + 5),)
    assert (await accounts.log_in("other", "alice", now=NOW + 1)).uuid != alice.uuid
    assert [a.uuid for a in await accounts.accounts(offset=0, limit=1)] == [alice.uuid]
    assert len(await accounts.accounts(offset=1, limit=10)) == 1


async def test_two_first_logins_at_once_are_one_principal(accounts: Accounts, uri: str) -> None:
    other = Accounts(database_at(uri), init=True)
    await other.open()
    found = await asyncio.gather(*(a.log_in("toy", "alice", now=NOW) for a in (accounts, other) * 4))
    await other.close()
    assert len({account.uuid for account in found}) == 1
    assert len(await accounts.accounts(offset=0, limit=10)) == 1


async def test_admins_may_more_and_need_not_have_logged_in(accounts: Accounts) -> None:
    for _ in range(2):
        await accounts.make_admin("toy", "alice", now=NOW)
    alice = await accounts.log_in("toy", "alice", now=NOW)
    assert alice.roles == ("user", "admin")
    assert {"register", "admin:apikeys", "create:apikeys"} <= alice.scopes


async def test_a_service_has_no_identity(accounts: Accounts) -> None:
    service = await accounts.create_service("user", now=NOW)
    assert (service.type, service.identities) == ("service", ())
    assert service.name == f"service:{service.uuid}"
    assert await accounts.account(service.uuid) == service
    with pytest.raises(NotFound):
        await accounts.account("0" * 32)


async def test_sessions_end(accounts: Accounts) -> None:
    alice = await accounts.log_in("toy", "alice", now=NOW)
    session = await accounts.begin_session(alice.uuid, now=NOW, seconds=60)
    assert await accounts.session(session.uuid) == session
    assert session.expires == NOW + 60
    for _ in range(2):
        await accounts.revoke_session(session.uuid)
    assert (await accounts.session(session.uuid)).revoked
    assert [s.revoked for s in await accounts.sessions(alice.uuid)] == [True]
    with pytest.raises(NotFound):
        await accounts.session("0" * 32)


async def test_a_key_is_known_by_its_secret_only(accounts: Accounts) -> None:
    alice = await accounts.log_in("toy", "alice", now=NOW)
    key, secret = await accounts.create_key(alice.uuid, scopes=["read:data"], now=NOW, note="plot", access_tags=["a"])
    assert len(secret) == 72
    assert secret.startswith(key.first_eight)
    assert await accounts.key(secret, now=NOW) == (key, alice)
    assert (key.scopes, key.note, key.access_tags) == (("read:data",), "plot", ("a",))
    for wrong in (secret[:-1] + "x", key.first_eight, ""):
        assert await accounts.key(wrong, now=NOW) is None
    assert await accounts.keys(alice.uuid, now=NOW) == [key]
    await accounts.revoke_key(alice.uuid, key.first_eight)
    assert await accounts.key(secret, now=NOW) is None
    with pytest.raises(NotFound):
        await accounts.revoke_key(alice.uuid, key.first_eight)


async def test_nobody_revokes_the_key_of_another(accounts: Accounts) -> None:
    alice, bob = [await accounts.log_in("toy", name, now=NOW) for name in ("alice", "bob")]
    key, secret = await accounts.create_key(alice.uuid, scopes=[INHERIT], now=NOW)
    with pytest.raises(NotFound):
        await accounts.revoke_key(bob.uuid, key.first_eight)
    assert await accounts.key(secret, now=NOW) is not None


async def test_keys_expire(accounts: Accounts) -> None:
    alice = await accounts.log_in("toy", "alice", now=NOW)
    _, secret = await accounts.create_key(alice.uuid, scopes=[INHERIT], now=NOW, seconds=10)
    assert await accounts.key(secret, now=NOW + 9) is not None
    assert await accounts.key(secret, now=NOW + 10) is None
    assert await accounts.keys(alice.uuid, now=NOW + 10) == []


async def test_there_are_limits(accounts: Accounts) -> None:
    alice = await accounts.log_in("toy", "alice", now=NOW)
    for _ in range(MAX_KEYS):
        await accounts.create_key(alice.uuid, scopes=[INHERIT], now=NOW, seconds=10)
    with pytest.raises(Unsatisfiable, match="revoke"):
        await accounts.create_key(alice.uuid, scopes=[INHERIT], now=NOW + 9)
    await accounts.create_key(alice.uuid, scopes=[INHERIT], now=NOW + 10)  # what has expired does not count
    for _ in range(MAX_SESSIONS):
        await accounts.begin_session(alice.uuid, now=NOW, seconds=10)
    with pytest.raises(Unsatisfiable):
        await accounts.begin_session(alice.uuid, now=NOW, seconds=10)
    await accounts.begin_session(alice.uuid, now=NOW + 11, seconds=10)


async def test_activity_is_remembered(accounts: Accounts) -> None:
    alice = await accounts.log_in("toy", "alice", now=NOW)
    key, secret = await accounts.create_key(alice.uuid, scopes=[INHERIT], now=NOW)
    await accounts.used({alice.uuid: NOW + 3}, {(alice.uuid, key.first_eight): NOW + 4})
    found = await accounts.key(secret, now=NOW)
    assert found is not None
    assert (found[0].latest_activity, found[1].latest_activity) == (NOW + 4, NOW + 3)


async def test_what_was_stored_is_found_again(accounts: Accounts, uri: str) -> None:
    alice = await accounts.log_in("toy", "alice", now=NOW)
    _, secret = await accounts.create_key(alice.uuid, scopes=[INHERIT], now=NOW)
    await accounts.close()
    again = Accounts(database_at(uri), init=False)
    await again.open()
    assert (await again.key(secret, now=NOW) or (None, None))[1] == alice
    await again.close()
    await again.close()


async def test_a_database_that_was_never_initialised_is_refused_with_the_cure(uri: str) -> None:
    accounts = Accounts(database_at(uri), init=False)
    with pytest.raises(Unavailable, match="initialize-database"):
        await accounts.open()


async def test_no_secret_rests_in_the_file(tmp_path: Path) -> None:
    accounts = Accounts(database_at(str(tmp_path / "a.db")), init=True)
    await accounts.open()
    alice = await accounts.log_in("toy", "alice", now=NOW)
    _, secret = await accounts.create_key(alice.uuid, scopes=[INHERIT], now=NOW)
    await accounts.close()
    kept = b"".join(path.read_bytes() for path in await asyncio.to_thread(lambda: list(tmp_path.iterdir())))
    assert secret[:8].encode() in kept
    assert secret[8:].encode() not in kept


@pytest.mark.parametrize("make", [lambda p: f"sqlite:///{p}", lambda p: "postgresql://u:hunter2@127.0.0.1:9/db"])
async def test_a_database_that_cannot_be_reached_is_told_without_its_password(
    tmp_path: Path, make: Callable[[Path], str]
) -> None:
    with pytest.raises(Unavailable) as caught:
        await Accounts(database_at(make(tmp_path)), init=True).open()
    assert "hunter2" not in str(caught.value)
