"""Accounts on SQLite and on PostgreSQL: one contract."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
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


async def test_admins_are_those_that_the_configuration_names(accounts: Accounts) -> None:
    for _ in range(2):
        await accounts.appoint([("toy", "alice"), ("toy", "carl")], now=NOW)
    alice = await accounts.log_in("toy", "alice", now=NOW)
    assert alice.roles == ("user", "admin")
    assert {"register", "admin:apikeys", "create:apikeys"} <= alice.scopes
    service = await accounts.create_service("admin", now=NOW)
    await accounts.appoint([("toy", "carl")], now=NOW)
    assert (await accounts.account(alice.uuid)).roles == ("user",)
    assert (await accounts.account(service.uuid)).roles == ("admin",)  # that was not given by the configuration
    assert len(await accounts.accounts(offset=0, limit=10)) == 3


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
    first = await accounts.begin_session(alice.uuid, now=NOW, seconds=100)
    revoked = await accounts.begin_session(alice.uuid, now=NOW + 1, seconds=100)
    await accounts.revoke_session(revoked.uuid)
    ended = await accounts.begin_session(alice.uuid, now=NOW + 2, seconds=1)
    for i in range(MAX_SESSIONS - 1):
        await accounts.begin_session(alice.uuid, now=NOW + 3 + i / 1000, seconds=100)
    left = {s.uuid for s in await accounts.sessions(alice.uuid)}
    assert len(left) == MAX_SESSIONS
    assert first.uuid in left  # what had ended made way
    assert not {revoked.uuid, ended.uuid} & left
    await accounts.begin_session(alice.uuid, now=NOW + 4, seconds=100)
    assert first.uuid not in {s.uuid for s in await accounts.sessions(alice.uuid)}
    with pytest.raises(NotFound):
        await accounts.begin_session("0" * 32, now=NOW, seconds=1)


async def test_limits_hold_for_two_servers_at_once(accounts: Accounts, uri: str) -> None:
    other = Accounts(database_at(uri), init=False)
    await other.open()
    alice = await accounts.log_in("toy", "alice", now=NOW)
    for _ in range(MAX_KEYS - 2):
        await accounts.create_key(alice.uuid, scopes=[INHERIT], now=NOW)
    asked = [a.create_key(alice.uuid, scopes=[INHERIT], now=NOW) for a in (accounts, other) * 3]
    made = await asyncio.gather(*asked, return_exceptions=True)
    await other.close()
    assert [type(one) for one in made].count(Unsatisfiable) == 4
    assert len(await accounts.keys(alice.uuid, now=NOW)) == MAX_KEYS


async def test_activity_is_remembered(accounts: Accounts) -> None:
    alice = await accounts.log_in("toy", "alice", now=NOW)
    key, secret = await accounts.create_key(alice.uuid, scopes=[INHERIT], now=NOW)
    await accounts.used({alice.uuid: NOW + 3}, {(alice.uuid, key.first_eight): NOW + 4})
    found = await accounts.key(secret, now=NOW)
    assert found is not None
    assert (found[0].latest_activity, found[1].latest_activity) == (NOW + 4, NOW + 3)
    await accounts.used({alice.uuid: NOW}, {(alice.uuid, key.first_eight): NOW + 5})  # of a server that was slower
    found = await accounts.key(secret, now=NOW)
    assert found is not None
    assert (found[0].latest_activity, found[1].latest_activity) == (NOW + 5, NOW + 3)


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


async def test_servers_that_start_at_once_make_one_database(uri: str) -> None:
    servers = [Accounts(database_at(uri), init=True) for _ in range(4)]
    await asyncio.gather(*(server.open() for server in servers))
    await asyncio.gather(*(server.log_in("toy", "alice", now=NOW) for server in servers))
    assert len(await servers[0].accounts(offset=0, limit=10)) == 1
    for server in servers:
        await server.close()


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("INSERT INTO account_steps (number, name, digest) VALUES (99, 'later', '')", "newer version"),
        ("UPDATE account_steps SET digest = 'another'", "another one"),
    ],
)
async def test_a_database_of_another_version_is_left_alone(accounts: Accounts, uri: str, sql: str, said: str) -> None:
    async with accounts._database.transaction() as db:
        await db.run(sql)
    for init in (False, True):
        with pytest.raises(Unavailable, match=said):
            await Accounts(database_at(uri), init=init).open()


async def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE principals (id INTEGER)")
    before = path.read_bytes()
    for init in (False, True):
        with pytest.raises(Unavailable, match="another kind"):
            await Accounts(database_at(str(path)), init=init).open()
    assert path.read_bytes() == before


async def test_accounts_share_a_postgres_with_other_programs(new_postgres: str) -> None:
    """The reference server calls its tables the same."""
    connection = await asyncpg.connect(new_postgres)
    await connection.execute("CREATE TABLE principals (id INTEGER); CREATE TABLE sessions (id INTEGER)")
    accounts = Accounts(database_at(new_postgres.replace("postgresql://", "postgresql+asyncpg://")), init=True)
    await accounts.open()
    await accounts.log_in("toy", "alice", now=NOW)
    await accounts.close()
    assert await connection.fetchval("SELECT count(*) FROM public.principals") == 0
    await connection.close()


async def test_what_is_cancelled_is_not_done(accounts: Accounts) -> None:
    """Wherever it is cut off, the next one finds everything as it was or as it should be."""
    alice = await accounts.log_in("toy", "alice", now=NOW)
    for turns in range(12):
        task = asyncio.create_task(accounts.create_key(alice.uuid, scopes=[INHERIT], now=NOW), name="key")
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert len(await accounts.keys(alice.uuid, now=NOW)) <= turns + 1
    await accounts.create_key(alice.uuid, scopes=[INHERIT], now=NOW)


async def test_a_file_of_accounts_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "new" / "accounts.db"
    with pytest.raises(Unavailable, match="initialize-database"):
        await Accounts(database_at(str(path)), init=False).open()
    assert not path.exists()
    accounts = Accounts(database_at(str(path)), init=True)
    await accounts.open()
    await accounts.close()
    assert path.stat().st_mode & 0o077 == 0


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
