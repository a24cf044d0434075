"""`tiled-stream admin`: what an operator does with a database of accounts, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tiled_stream.accounts.database import database_at
from tiled_stream.accounts.store import Accounts
from tiled_stream.run.cli import app


@pytest.fixture(params=["sqlite", "postgres"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'accounts.db'}" if request.param == "sqlite" else str(request.getfixturevalue("new_postgres"))


def run(*words: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["admin", *words])
    assert done.exit_code == status, (done.output, done.exception)
    return done.output.strip()


def principal_of(uri: str, secret: str) -> str | None:
    async def look() -> str | None:
        accounts = Accounts(database_at(uri), init=False)
        await accounts.open()
        found = await accounts.key(secret, now=time.time())
        await accounts.close()
        return None if found is None else found[1].uuid

    return asyncio.run(look())


def test_a_database_is_made_once(uri: str) -> None:
    assert "initialize-database" in run("upgrade-database", uri, status=1)
    assert "initialize-database" in run("list-principals", uri, status=1)
    assert run("initialize-database", uri).startswith("Made ")
    assert "already" in run("initialize-database", uri, status=1)
    assert run("upgrade-database", uri).endswith("version 1, as before")
    assert run("list-principals", uri) == ""


def test_a_program_gets_a_key_and_loses_it(uri: str) -> None:
    run("initialize-database", uri)
    principal = run("create-service-principal", uri, "--role", "user")
    secret = run("create-api-key", uri, principal, "--scope", "read:data", "--expires-in", "60", "--note", "plots")
    assert principal_of(uri, secret) == principal.replace("-", "")
    listed = run("list-principals", uri)
    assert principal in listed
    assert "1 keys" in listed
    assert secret not in listed
    run("revoke-api-key", uri, principal, secret[:8])
    assert principal_of(uri, secret) is None
    run("revoke-api-key", uri, principal, secret[:8], status=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create-service-principal", "--role", "king"), "user, admin"),
        (("create-api-key", "nobody"), "no UUID"),
        (("create-api-key", "0" * 32), "no such principal"),
        (("create-api-key", "0" * 32, "--expires-in", "-1"), "positive"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    path = str(tmp_path / "a.db")
    run("initialize-database", path)
    assert said in run(words[0], path, *words[1:], status=1)


def test_no_key_may_more_than_its_principal(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    run("initialize-database", path)
    principal = run("create-service-principal", path)
    assert "read:data" in run("create-api-key", path, principal, "--scope", "admin:apikeys", status=1)


def test_no_password_is_printed() -> None:
    for command in ("initialize-database", "upgrade-database", "list-principals"):
        assert "hunter2" not in run(command, "postgresql://u:hunter2@127.0.0.1:9/db", status=1)
