"""The shared catalog: PostgreSQL, through asyncpg. Any number of processes read; one transaction at a time changes it.

SQL is compiled as for SQLite (`filters.py`, `orders.py`), with the words of `postgres_dialect.py` and numbered parameters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from ..domain.errors import Malformed, Unavailable
from ..domain.nodes import NodeId, Spec
from . import rows
from .facts import words_of
from .migrate import statements
from .port import Applied, CatalogBatch
from .postgres_apply import PostgresWriter
from .postgres_connect import AGAIN, Database
from .postgres_dialect import NOTHING, PostgresDialect, parameter, scalar
from .postgres_schema import prepare
from .sql_reads import SqlReads

__all__ = ["PostgresCatalog"]

#: How often a transaction that others were in the way of is tried.
_TRIES = 5


class _Unchanged(Exception):
    """The transaction has nothing to commit: rolled back, so that it is not counted."""


class PostgresCatalog(SqlReads):
    """`uri` is ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE`` (``?host=/directory`` for a Unix socket).

    With `init` the catalog is made if it is missing, and brought up to date. `root_metadata` and `root_specs` describe the root
    until somebody edits it. `pool_size`: connections at most.
    """

    def __init__(
        self,
        uri: str,
        *,
        init: bool = False,
        pool_size: int = 5,
        root_metadata: dict[str, Any] | None = None,
        root_specs: Sequence[Spec] | None = None,
    ) -> None:
        super().__init__(PostgresDialect(), statements("postgres", columns=rows.COLUMNS), nothing=NOTHING, scalar=scalar)
        self._database = Database(uri, pool_size=pool_size)
        self._init = init
        self._root_metadata = root_metadata
        self._root_specs = root_specs

    async def open(self) -> None:
        """`Unavailable` that says how to mend it, if the server cannot be reached, or the catalog is missing, older or newer."""
        self._database.identity = None  # opened again, it may be another one
        try:
            await self._database.open()
            await prepare(self._database, self._sql, init=self._init)
            await self._configure_root()
            self._database.identity = await self.identity()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Waits for what is running. Idempotent."""
        await self._database.close()

    async def apply(self, batches: Sequence[CatalogBatch]) -> list[Applied]:
        """Cancelled: all of it is applied, or nothing."""
        for _ in range(_TRIES):
            applied: list[Applied] = []
            try:
                async with self._database.transaction() as connection:
                    writer = PostgresWriter(connection, self._sql)
                    applied = await writer.apply(batches)
                    if not writer.has_changed:
                        raise _Unchanged
            except AGAIN:
                continue
            except _Unchanged:
                pass
            return applied
        raise Unavailable("Others kept changing the catalog; try again.")

    async def remember_storage(self, name: str, incarnation: str) -> None:
        """See `Catalog`."""
        async with self._database.connection() as connection:
            await connection.execute(self._sql["remember_storage"], name, incarnation)

    async def accept_losses(self, nodes: Sequence[NodeId] | None = None) -> int:
        """See `Catalog`."""
        async with self._database.transaction() as connection:
            await connection.execute(self._sql["lock"])
            return int(await connection.fetchval(self._sql["accept_losses"], None if nodes is None else list(nodes)))

    # ------------------------------------------------------------- inside

    def _ids(self, nodes: Sequence[NodeId]) -> list[NodeId]:
        return list(nodes)

    def _rows_of(self, which: str) -> str:
        # A join keeps no order by itself.
        return (
            f"SELECT {rows.COLUMNS} FROM unnest(ARRAY({which})) WITH ORDINALITY w (row, place) "
            "JOIN nodes n ON n.row = w.row ORDER BY w.place"
        )

    async def _all(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        try:
            async with self._database.connection() as connection:
                return list(await connection.fetch(numbered(sql), *map(parameter, parameters)))
        except (asyncpg.DataError, UnicodeEncodeError, OverflowError) as error:
            raise Malformed(f"A value of this search is none that can be stored: {error}.") from error

    async def _configure_root(self) -> None:
        """Give the root what the configuration says, if that is news and nobody edited it."""
        async with self._database.transaction() as connection:
            await connection.execute(self._sql["lock"])
            row, old, old_specs, time_updated = await connection.fetchrow(self._sql["root"])
            new = old if self._root_metadata is None else rows.json_text(self._root_metadata)
            new_specs = old_specs if self._root_specs is None else rows.specs_text(self._root_specs)
            if time_updated or (new, new_specs) == (old, old_specs):
                return
            words = words_of(rows.value(new))
            await connection.execute(self._sql["describe"], new, new_specs, "[]", words, 0, 0.0, row)


@lru_cache(maxsize=1024)
def numbered(sql: str) -> str:
    """``?`` as ``$1``, ``$2`` … No text in our SQL holds a question mark."""
    numbers = count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", sql)
