"""The tables of a PostgreSQL catalog: made, checked and brought up to date, under a lock, for all replicas may start at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..domain.errors import Unavailable
from ..domain.nodes import ROOT
from . import rows
from .migrate import migrations, pending, statements
from .postgres_connect import SCHEMA, Database

__all__ = ["prepare", "upgrade", "version_of"]

#: One process at a time looks after the tables.
_LOCK = f"SELECT pg_advisory_xact_lock(741631120, hashtext('{SCHEMA}'))"


async def prepare(database: Database, sql: Mapping[str, str], *, init: bool) -> None:
    """Check the catalog; with `init` make it, and bring it up to date. `Unavailable` with the cure if it cannot be used."""
    async with database.transaction() as connection:
        await connection.execute(_LOCK)
        applied = await _applied(connection, sql)
        if applied is None and not init:
            raise Unavailable(
                f"The catalog {database.shown} is not initialised. Start the server with --init, or run: "
                f"tiled-stream catalog init {database.shown}"
            )
        steps = pending(migrations("postgres"), applied or {}, where=database.shown)
        if applied and steps and not init:
            raise Unavailable(
                f"The catalog {database.shown} is of an older version. Make a backup, then run: "
                f"tiled-stream catalog upgrade-database {database.shown}"
            )
        if applied is None:
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            await connection.execute(sql["make_steps"])
        for step in steps:
            await connection.execute(step.sql)
            await connection.execute(sql["insert_step"], step.number, step.name, step.digest)
        await connection.execute(sql["insert_root"], ROOT)


async def upgrade(uri: str) -> tuple[int, int]:
    """Apply what is pending to an initialised catalog; returns the versions before and after."""
    before = await version_of(uri)
    if before is None:
        raise Unavailable("This catalog is not initialised; run: tiled-stream catalog init URI")
    database = Database(uri, pool_size=1)
    await database.open()
    try:
        await prepare(database, statements("postgres", columns=rows.COLUMNS), init=True)
    finally:
        await database.close()
    return before, await version_of(uri) or before


async def version_of(uri: str) -> int | None:
    """The last step that shaped the catalog; None if it is not initialised."""
    sql = statements("postgres", columns=rows.COLUMNS)
    database = Database(uri, pool_size=1)
    await database.open()
    try:
        async with database.connection() as connection:
            applied = await _applied(connection, sql)
        return None if applied is None else max(applied, default=0)
    finally:
        await database.close()


async def _applied(connection: Any, sql: Mapping[str, str]) -> dict[int, str] | None:
    if not await connection.fetchval(sql["has_steps"]):
        return None
    return dict(await connection.fetch(sql["steps"]))
