"""Statements of a test on its PostgreSQL database, and the loss of all connections that a store has to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from tiled_stream.domain.errors import StorageMissing, Unavailable

__all__ = ["ask", "cut", "with_fresh_connections"]

T = TypeVar("T")


async def ask(url: str, sql: str, *, schema: str = "public") -> list[tuple[Any, ...]]:
    """The rows of one statement. Names without a schema are those of `schema`."""
    connection = await asyncpg.connect(url, timeout=10, server_settings={"search_path": schema})
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def cut(url: str, application: str) -> None:
    """End every connection that `application` has to the database. Its next statement on each one fails."""
    await ask(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = current_database() AND application_name = '{application}'",
    )


async def with_fresh_connections(url: str, application: str, work: Callable[[], Awaitable[T]]) -> T:
    """End the connections of `application`, then do `work` again until it has a new one. `StorageMissing` is an answer."""
    await cut(url, application)
    async with asyncio.timeout(20):
        while True:
            try:
                return await work()
            except StorageMissing:
                raise
            except Unavailable:
                await asyncio.sleep(0.01)
