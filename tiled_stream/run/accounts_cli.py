"""`tiled-stream admin`: the database of accounts, made and brought up to date; principals and keys without a server.

These commands work on the database itself: whoever can read it needs no other right. A running server sees what they change,
within seconds where it remembers keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import UUID

import typer

from ..domain.uris import redacted
from .told import told

if TYPE_CHECKING:
    from ..accounts.store import Accounts

__all__ = ["admin_app"]

admin_app = typer.Typer(no_args_is_help=True, help="Look after a server and its accounts.")

Database = Annotated[str, typer.Argument(help="Accounts: a file path, sqlite:///PATH or postgresql://USER@HOST/DATABASE.")]
Principal = Annotated[str, typer.Argument(help="UUID of a principal, as list-principals tells it.")]
Given = TypeVar("Given")


@admin_app.command("initialize-database")
def initialize_database(database: Database) -> None:
    """Make a database of accounts."""
    from .settings import SettingsError

    with told(unavailable=1):
        if _version(database) is not None:
            raise SettingsError(f"There are accounts in {redacted(database)} already; nothing was changed.")
        _with(database, _nothing, init=True)
    typer.echo(f"Made {redacted(database)}")


@admin_app.command("upgrade-database")
def upgrade_database(database: Database) -> None:
    """Bring a database of accounts of an older version up to date. Make a backup first."""
    from .settings import SettingsError

    with told(unavailable=1):
        before = _version(database)
        if before is None:
            shown = redacted(database)
            raise SettingsError(f"There are no accounts in {shown}; make them: tiled-stream admin initialize-database {shown}")
        _with(database, _nothing, init=True)
        after = _version(database)
    typer.echo(f"{redacted(database)}: version {after}" + (", as before" if before == after else f", was {before}"))


@admin_app.command("list-principals")
def list_principals(database: Database) -> None:
    """Who there is: a line each, with roles, identities, how many keys, and when last active."""

    async def lines(accounts: Accounts) -> list[str]:
        found: list[str] = []
        while page := await accounts.accounts(offset=len(found), limit=100):
            for account in page:
                keys = len(await accounts.keys(account.uuid, now=time.time()))
                names = ", ".join(f"{i.provider}:{i.id}" for i in account.identities) or "-"
                roles, active = ", ".join(account.roles), _time(account.latest_activity)
                found.append(f"{UUID(account.uuid)}  {account.type}  {roles}  {names}  {keys} keys  {active}")
        return found

    with told(unavailable=1):
        for line in _with(database, lines):
            typer.echo(line)


@admin_app.command("create-service-principal")
def create_service_principal(
    database: Database, role: Annotated[str, typer.Option("--role", help="user (default) or admin.")] = "user"
) -> None:
    """Make a principal for a program, which nobody logs in as; prints its UUID."""
    from ..accounts.model import ROLES
    from .settings import SettingsError

    async def make(accounts: Accounts) -> str:
        return (await accounts.create_service(role, now=time.time())).uuid

    with told(unavailable=1):
        if role not in ROLES:
            raise SettingsError(f"--role is one of {', '.join(ROLES)}, not {role!r}.")
        typer.echo(str(UUID(_with(database, make))))


@admin_app.command("create-api-key")
def create_api_key(
    database: Database,
    principal: Principal,
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", help="What it may do (repeat); without it, all that the principal may.")
    ] = None,
    expires_in: Annotated[
        float | None, typer.Option("--expires-in", help="Seconds that it is good; without it, for ever.")
    ] = None,
    note: Annotated[str | None, typer.Option("--note", help="What it is for.")] = None,
) -> None:
    """Make an API key; prints its secret, which is told this once."""
    from ..accounts.model import INHERIT
    from .settings import SettingsError

    async def make(accounts: Accounts) -> str:
        allowed = (await accounts.account(_uuid(principal))).scopes
        if not set(scopes or ()) <= allowed:
            raise SettingsError(f"--scope is among {', '.join(sorted(allowed))}: more the principal may not do itself.")
        wanted = sorted(set(scopes)) if scopes else [INHERIT]
        _, secret = await accounts.create_key(_uuid(principal), scopes=wanted, now=time.time(), seconds=expires_in, note=note)
        return secret

    with told(unavailable=1):
        if expires_in is not None and not 0 < expires_in < float("inf"):
            raise SettingsError("--expires-in is a positive number of seconds.")
        typer.echo(_with(database, make))


@admin_app.command("revoke-api-key")
def revoke_api_key(
    database: Database, principal: Principal, first_eight: Annotated[str, typer.Argument(help="What the key begins with.")]
) -> None:
    """Revoke an API key. Running servers refuse it within seconds."""

    async def revoke(accounts: Accounts) -> None:
        await accounts.revoke_key(_uuid(principal), first_eight[:8])

    with told(unavailable=1):
        _with(database, revoke)
    typer.echo(f"Revoked {first_eight[:8]}")


def _with(database: str, use: Callable[[Accounts], Awaitable[Given]], *, init: bool = False) -> Given:
    """Open, use, close."""
    from ..accounts.database import database_at
    from ..accounts.store import Accounts

    async def run() -> Given:
        accounts = Accounts(database_at(database), init=init)
        await accounts.open()
        try:
            return await use(accounts)
        finally:
            await accounts.close()

    return asyncio.run(run())


def _version(database: str) -> int | None:
    """The last step that shaped it; None if there is none. Nothing is made."""
    from ..accounts.database import SqliteDatabase, database_at
    from ..accounts.schema import version_of

    place = database_at(database)
    if isinstance(place, SqliteDatabase) and not place.is_there():
        return None

    async def run() -> int | None:
        await place.open(init=False)
        try:
            return await version_of(place)
        finally:
            await place.close()

    return asyncio.run(run())


async def _nothing(accounts: Accounts) -> None:
    """Opening was all."""


def _uuid(text: str) -> str:
    from .settings import SettingsError

    try:
        return UUID(text).hex
    except ValueError:
        raise SettingsError(f"{text!r} is no UUID; `tiled-stream admin list-principals` tells them.") from None


def _time(at: float | None) -> str:
    return "never active" if at is None else f"active {datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
