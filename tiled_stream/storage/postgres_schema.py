"""The schema of tables in PostgreSQL: made, brought up to date, and bound to one deployment, by any number of servers at once.

What must stay true: a process that makes something holds one lock, so that servers that start together agree; a database has one
deployment and one incarnation, both made by the first server that binds it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]

from ..domain.errors import StorageMissing
from .postgres_connect import Database
from .sql_tables import check_owner

__all__ = ["BODIES", "ONE_MAKER", "SCHEMA", "WATERMARKS", "adopt", "check_identity", "prepare"]

SCHEMA = "tiled_stream"
WATERMARKS = f"{SCHEMA}.watermarks"
#: Rows of schemas that have no exact SQL form: the Arrow bodies themselves.
BODIES = "bodies"
#: One process at a time makes tables: CREATE TABLE IF NOT EXISTS alone fails where two do it at once.
ONE_MAKER = "SELECT pg_advisory_xact_lock(hashtextextended('tiled_stream.tables', 0))"
#: One row: to whom the database belongs, and an id that was made with it.
_IDENTITY = f"{SCHEMA}.identity"
_TABLES = {
    WATERMARKS: "dataset BIGINT PRIMARY KEY, watermark BIGINT NOT NULL, fence BIGINT NOT NULL DEFAULT 0",
    f"{SCHEMA}.{BODIES}": (
        "_dataset_id BIGINT, _partition_id BIGINT, _sequence BIGINT, rows BIGINT, body BYTEA, "
        "PRIMARY KEY (_dataset_id, _partition_id, _sequence)"
    ),
    _IDENTITY: "one BOOLEAN PRIMARY KEY DEFAULT true CHECK (one), deployment TEXT NOT NULL, incarnation TEXT NOT NULL",
}
#: Asked before `ALTER TABLE`, which would wait for all who write, also if there is nothing to do.
_HAS_FENCE = (
    f"SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = '{WATERMARKS}'::regclass "
    "AND attname = 'fence' AND NOT attisdropped)"
)


async def prepare(database: Database) -> None:
    """Make what is missing, and add what databases of former versions lack."""
    async with database.transaction() as db:
        await db.execute(ONE_MAKER)
        if await db.value("SELECT to_regnamespace($1) IS NULL", SCHEMA):
            await db.execute(f"CREATE SCHEMA {SCHEMA}")
        for name, columns in _TABLES.items():
            await db.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
        if not await db.value(_HAS_FENCE):
            await db.execute(f"ALTER TABLE {WATERMARKS} ADD COLUMN fence BIGINT NOT NULL DEFAULT 0")


async def adopt(database: Database, deployment: str, *, place: str) -> str:
    """The incarnation of the database, which belongs to `deployment` if it belonged to none. Else `StorageMissing`."""
    async with database.transaction() as db:
        # Of two servers that do this at once the second waits here, and finds what the first has made.
        insert = f"INSERT INTO {_IDENTITY} (deployment, incarnation) VALUES ($1, $2) ON CONFLICT DO NOTHING"
        await db.execute(insert, deployment, uuid4().hex)
        ((owner, incarnation),) = await db.rows(f"SELECT deployment, incarnation FROM {_IDENTITY}")
    check_owner(place, owner, deployment)
    return str(incarnation)


async def check_identity(connection: asyncpg.Connection, deployment: str, incarnation: str, *, place: str) -> None:
    """`StorageMissing` unless a new connection reaches the database that was bound.

    It may have been dropped and restored under the running server, or its name may lead to another server.
    """
    found: Any = None
    with suppress(asyncpg.UndefinedTableError):
        found = await connection.fetchrow(f"SELECT deployment, incarnation FROM {_IDENTITY}")
    if found is None or tuple(found) != (deployment, incarnation):
        now = "none" if found is None else "/".join(found)
        raise StorageMissing(
            f"The table storage {place} is not the database that this server was started with: that had the identity "
            f"{deployment}/{incarnation}, this one has {now}. Restore the former one, or restart the servers to use this one."
        )
