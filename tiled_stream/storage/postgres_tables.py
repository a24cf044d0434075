"""Tables in PostgreSQL: nodes of one schema share an SQL table, written and read by binary COPY, from many processes at once.

Columns are stored by position (`arrow_columns.py`), rows of schemas without an exact SQL form as Arrow bodies
(`arrow_bodies.py`).
Everything is in the schema `tiled_stream`, so that a database may be shared with a catalog or with what another server left.

What must stay true: rows, watermarks and fences are one transaction (I4, I5). A writer holds the watermarks of its
datasets, so that of two persisters with the same batch the second finds it applied, and a predecessor finds its fence too low; a
primary key refuses the same row twice, whatever happens. Locks are taken in one order: watermarks by number, then the making of
tables. Once it is bound, every connection begins by checking that it reaches the same database.
An SQL table goes with its last rows if nobody uses it at that moment; a process that still counts on it makes it again.
Small batches are encoded and decoded where they are, large ones in threads: nothing blocks the loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg  # type: ignore[import-untyped]

from ..domain.errors import Unavailable
from ..domain.nodes import NodeId
from ..domain.structures import TableStructure
from .engine_thread import EngineThread
from .layout import ARRIVED_BODIES, dataset_id, schema_table
from .port import Allocation, Arrived, TableBatch
from .postgres_connect import Database, Session, public_uri
from .postgres_marks import LOCK, advance, locked
from .postgres_schema import BODIES, ONE_MAKER, SCHEMA, WATERMARKS, adopt, check_identity, prepare
from .sql_tables import Change, Mark, allocation, changes

if TYPE_CHECKING:
    import pyarrow

    from .arrow_columns import Column, Rows
    from .postgres_copy import Answer

__all__ = ["PostgresTables"]

T = TypeVar("T")

#: The partitions of a dataset, each found by one step in the primary key.
_PARTITIONS = """WITH RECURSIVE p(n) AS (
    SELECT min(_partition_id) FROM tiled_stream.{table} WHERE _dataset_id = {dataset} UNION ALL
    SELECT (SELECT min(_partition_id) FROM tiled_stream.{table} WHERE _dataset_id = {dataset} AND _partition_id > p.n)
    FROM p WHERE p.n IS NOT NULL
) SELECT n FROM p WHERE n IS NOT NULL"""
#: Bytes from which on a thread does the work, and how many a record weighs besides its rows.
_SMALL = 64 << 10
_RECORD = 1 << 10
#: Seconds that a deletion may take: it says nothing until it is done.
_DELETE_SECONDS = 1800.0


class PostgresTables:
    """`TableStore`, `Identified`.

    `uri`: ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE``, or ``?host=/DIRECTORY`` for a Unix socket.
    """

    def __init__(self, uri: str, *, pool_size: int = 5) -> None:
        self._database = Database(uri, pool_size=pool_size, check=self._check)
        self._data_uri = public_uri(uri)
        self._threads = EngineThread("postgres tables", threads=2)
        # SQL tables that were there when this process last looked; if one was dropped since, the work is done again.
        self._tables: set[str] = set()
        # (deployment, incarnation) since `bind`.
        self._identity: tuple[str, str] | None = None

    async def open(self) -> None:
        """Connect, and make what is missing, one process at a time. `Unavailable` if it cannot be done.

        The user must be allowed to make a schema in the database, or find `tiled_stream` there and may make tables in it.
        """
        await self._database.open()
        try:
            await prepare(self._database)
        except BaseException:
            await self._database.close()
            raise
        self._tables = {BODIES}

    async def close(self) -> None:
        """Finish what was begun, then close all connections. Idempotent."""
        await self._database.close()
        await self._threads.close()

    @property
    def place(self) -> str:
        """See `Identified`."""
        return self._data_uri

    async def bind(self, deployment: str, expected: str | None) -> str:
        """See `Identified`. A blank database is adopted whatever is `expected`: the caller compares incarnations."""
        incarnation = await adopt(self._database, deployment, place=self._data_uri)
        self._identity = (deployment, incarnation)
        return incarnation

    async def _check(self, connection: asyncpg.Connection) -> None:
        if self._identity is not None:
            await check_identity(connection, *self._identity, place=self._data_uri)

    def allocate(self, node: NodeId, structure: TableStructure, mimetype: str | None, parameters: dict[str, Any]) -> Allocation:
        """See `TableStore`."""
        return allocation(self._data_uri, node, structure, mimetype, parameters)

    async def apply(self, batches: Sequence[TableBatch]) -> list[int]:
        """See `TableStore`. Cancelled, or with the connection lost: all of it is applied, or nothing."""
        return await self._again(lambda: self._apply(batches))

    async def read(
        self,
        node: NodeId,
        structure: TableStructure,
        *,
        columns: Sequence[str] | None = None,
        partition: int | None = None,
    ) -> pyarrow.Table:
        """See `TableStore`. Memory: the answer, and a piece of some MiB that is being decoded."""
        from .arrow_columns import chosen, declared_table
        from .postgres_copy import postgres_columns

        positions, schema = chosen(structure, columns)
        if not positions:
            return schema.empty_table()
        kept = postgres_columns(structure)
        if kept is None:
            return await self._read_bodies(dataset_id(node), positions, schema, partition)
        names, stored = [f"c{n}" for n in positions], [kept[n] for n in positions]
        answer = await self._select(schema_table(structure), names, stored, dataset_id(node), partition, "_sequence, _row")
        if answer is None:
            return schema.empty_table()
        return await self._work(answer.size, lambda: declared_table(answer.columns(), schema))

    async def arrived(self, node: NodeId, structure: TableStructure, *, after: int, upto: int, rows: int) -> Arrived:
        """See `TableStore`."""
        from .arrivals import arrived, whole_records
        from .arrow_columns import declared_schema, declared_table
        from .postgres_copy import LONG, postgres_columns

        kept, dataset = postgres_columns(structure), dataset_id(node)
        if kept is None:
            return await self._arrived_bodies(dataset, structure, after, upto, rows)
        schema, table = declared_schema(structure), schema_table(structure)
        names, stored = ["_sequence", "_partition_id", *(f"c{n}" for n in range(len(kept)))], [LONG, LONG, *kept]
        # Named by partition, rows of some records are found by the primary key, which begins with that.
        within = f"{_where(dataset, None)} AND _partition_id = ANY(ARRAY({_PARTITIONS.format(table=table, dataset=dataset)}))"
        where = f"{within} AND _sequence > {after} AND _sequence <= {upto}"
        answer = await self._selected(table, names, stored, where, f"_sequence, _row LIMIT {rows + 1}")
        columns = [] if answer is None else answer.columns()
        if columns and len(columns[0]) > rows and columns[0][0] == columns[0][-1]:  # all of the one record
            answer = await self._selected(table, names, stored, f"{within} AND _sequence = {columns[0][0].as_py()}", "_row")
            columns = [] if answer is None else answer.columns()
            rows = len(columns[0]) if columns else rows
        if not columns or not len(columns[0]):
            return arrived(schema.empty_table(), [], [])
        whole = arrived(declared_table(columns[2:], schema), columns[0].to_numpy(), columns[1].to_numpy())
        return whole_records(whole, rows=rows, is_cut=len(columns[0]) > rows)

    async def rows(self, node: NodeId, structure: TableStructure) -> int:
        """See `TableStore`."""
        table = _table(structure)
        what = "coalesce(sum(rows), 0)::bigint" if table == BODIES else "count(*)"
        try:
            async with self._database.session() as db:
                found = await db.value(f"SELECT {what} FROM {SCHEMA}.{table} WHERE _dataset_id = $1", dataset_id(node))
        except asyncpg.UndefinedTableError:
            return 0
        return int(found)

    async def watermark(self, node: NodeId) -> int:
        """See `TableStore`."""
        return await self._again(lambda: self._watermark(dataset_id(node)))

    async def watermarks(self, nodes: Sequence[NodeId]) -> list[int]:
        """See `TableStore`."""
        return await self._again(lambda: self._stored([dataset_id(node) for node in nodes]))

    async def delete(self, nodes: Sequence[tuple[NodeId, TableStructure]]) -> None:
        """See `TableStore`. An SQL table that is in use at that moment stays, empty, until the next deletion from it."""
        datasets = sorted({dataset_id(node) for node, _ in nodes})
        tables = sorted({_table(structure) for _, structure in nodes})
        await self._again(lambda: self._delete(datasets, tables))
        for table in tables:
            if table != BODIES:
                await self._drop_if_empty(table)

    async def _watermark(self, dataset: int) -> int:
        async with self._database.session() as db:
            return await db.value(f"SELECT watermark FROM {WATERMARKS} WHERE dataset = $1", dataset) or 0

    async def _stored(self, datasets: Sequence[int]) -> list[int]:
        async with self._database.session() as db:
            rows = await db.rows(f"SELECT dataset, watermark FROM {WATERMARKS} WHERE dataset = ANY($1::bigint[])", datasets)
        found: dict[int, int] = dict(rows)
        return [found.get(dataset, 0) for dataset in datasets]

    async def _apply(self, batches: Sequence[TableBatch]) -> list[int]:
        async with self._database.transaction() as db:
            stored = await locked(db, batches)
            size = sum(len(r.payload) for b in batches for r in b.records)
            found, marks, answers = await self._work(size, lambda: changes(batches, lambda dataset: stored.get(dataset, Mark())))
            found = [c for c in found if c.erased or c.rows]
            made = await self._make(db, found)
            for change in found:
                await self._change(db, change)
            if marks:
                await advance(db, marks, stored)
        self._tables |= made
        return answers

    async def _make(self, db: Session, found: Sequence[Change]) -> set[str]:
        """Make the SQL tables that this process does not know. Returns their names, to be known once they are committed."""
        from .arrow_columns import META
        from .postgres_copy import postgres_columns

        missing = {table: change for change in found if (table := _table(change.structure)) not in self._tables}
        if missing:
            await db.execute(ONE_MAKER)
        for table, change in missing.items():
            names = ", ".join(f"{name} {sql}" for name, sql in META.items())
            data = "".join(f"c{n} {column.sql}, " for n, column in enumerate(postgres_columns(change.structure) or ()))
            await db.execute(f"CREATE TABLE IF NOT EXISTS {SCHEMA}.{table} ({names}, {data}PRIMARY KEY ({', '.join(META)}))")
        return set(missing)

    async def _change(self, db: Session, change: Change) -> None:
        """One COPY for all rows of a schema."""
        from .arrow_bodies import gathered
        from .arrow_columns import stored_table
        from .postgres_copy import in_order, postgres_columns

        table, columns = _table(change.structure), postgres_columns(change.structure)
        for dataset, partition in dict.fromkeys(change.erased):
            await db.execute(f"DELETE FROM {SCHEMA}.{table} WHERE {_where(dataset, partition)}")
        if not change.rows:
            return

        def stored() -> pyarrow.Table:
            return in_order(_bodies(gathered(change.rows)) if columns is None else stored_table(change.rows, columns))

        incoming = await self._work(sum(_RECORD + r.table.nbytes for r in change.rows), stored)
        async with aclosing(self._encoded(incoming)) as pieces:
            await db.put(SCHEMA, table, incoming.column_names, pieces)

    async def _encoded(self, incoming: pyarrow.Table) -> AsyncGenerator[bytes, None]:
        from .postgres_copy import HEADER, TRAILER, encode, steps

        yield HEADER
        for step in steps(incoming):
            yield await self._work(step.nbytes, lambda step=step: encode(step))  # type: ignore[misc]
        yield TRAILER

    async def _read_bodies(
        self, dataset: int, positions: Sequence[int], schema: pyarrow.Schema, partition: int | None
    ) -> pyarrow.Table:
        from .arrow_bodies import decode, joined
        from .arrow_columns import declared_table
        from .postgres_copy import BYTES

        answer = await self._select(BODIES, ["body"], [BYTES], dataset, partition, "_sequence")

        def table() -> pyarrow.Table:
            bodies = [] if answer is None else [decode(b.as_buffer()).select(positions) for b in answer.columns()[0]]
            return declared_table(joined(bodies).columns, schema) if bodies else schema.empty_table()

        return await self._work(0 if answer is None else answer.size, table)

    async def _arrived_bodies(self, dataset: int, structure: TableStructure, after: int, upto: int, rows: int) -> Arrived:
        from .arrow_bodies import arrived_bodies

        some = 16
        while True:
            found = []
            async with self._database.session() as db:
                keys = await db.rows(ARRIVED_BODIES.format(table=f"{SCHEMA}.{BODIES}", dataset=dataset, after=after, upto=upto))
                for sequence, partition in keys[:some]:
                    body = await db.value(
                        f"SELECT body FROM {SCHEMA}.{BODIES} WHERE {_where(dataset, partition)} AND _sequence = {sequence}"
                    )
                    found += [] if body is None else [(sequence, partition, body)]
            # What the next body has comes later.
            last = upto if len(keys) <= some else min(upto, keys[some][0] - 1)
            size = sum(len(body) for *_, body in found)
            answer = await self._work(
                size,
                lambda: arrived_bodies(found, structure, after=after, upto=last, rows=rows),  # noqa: B023 - awaited here
            )
            if len(answer.sequences) or len(keys) <= some:
                return answer
            some *= 4

    async def _select(
        self, table: str, names: Sequence[str], columns: Sequence[Column], dataset: int, partition: int | None, order: str
    ) -> Answer | None:
        """The rows in order. None: there is no such SQL table."""
        return await self._selected(table, names, columns, _where(dataset, partition), f"_partition_id, {order}")

    async def _selected(
        self, table: str, names: Sequence[str], columns: Sequence[Column], where: str, order: str
    ) -> Answer | None:
        """The rows in order. None: there is no such SQL table."""
        from .postgres_copy import Answer, selected

        answer = Answer(columns)

        async def sink(data: bytes) -> None:
            answer.add(data)
            if answer.is_due():
                await self._work(answer.size, answer.decode)

        query = f"SELECT {selected(names, columns)} FROM {SCHEMA}.{table} WHERE {where} ORDER BY {order}"
        try:
            async with self._database.session() as db:
                await db.take(query, sink)
        except asyncpg.UndefinedTableError:
            return None
        return answer

    async def _delete(self, datasets: Sequence[int], tables: Sequence[str]) -> None:
        async with self._database.transaction(seconds=_DELETE_SECONDS) as db:
            await db.rows(LOCK, datasets)
            await db.execute(f"DELETE FROM {WATERMARKS} WHERE dataset = ANY($1)", datasets)
            there = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass($2 || '.' || name) IS NOT NULL"
            for (table,) in await db.rows(there, tables, SCHEMA):
                await db.execute(f"DELETE FROM {SCHEMA}.{table} WHERE _dataset_id = ANY($1)", datasets)

    async def _drop_if_empty(self, table: str) -> None:
        """Only while nobody uses it; who writes next finds it missing and makes it again."""
        some = f"SELECT EXISTS (SELECT FROM {SCHEMA}.{table})"
        with suppress(asyncpg.UndefinedTableError):  # another process was faster
            async with self._database.transaction() as db:
                if await db.value(some) or not await db.has_locked(f"{SCHEMA}.{table}") or await db.value(some):
                    return
                await db.execute(f"DROP TABLE {SCHEMA}.{table}")
            self._tables.discard(table)

    async def _again(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it, and once more if an SQL table was dropped meanwhile."""
        with suppress(asyncpg.UndefinedTableError):
            return await work()
        self._tables = {BODIES}
        try:
            return await work()
        except asyncpg.UndefinedTableError as error:
            raise Unavailable(f"The table storage {self._data_uri} has lost a table: {error}") from error

    async def _work(self, size: int, work: Callable[[], T]) -> T:
        """Small things here, for a thread costs more; large ones there."""
        return work() if size < _SMALL else await self._threads.run(work)


def _table(structure: TableStructure) -> str:
    from .postgres_copy import postgres_columns

    return BODIES if postgres_columns(structure) is None else schema_table(structure)


def _where(dataset: int, partition: int | None) -> str:
    return f"_dataset_id = {dataset}" + ("" if partition is None else f" AND _partition_id = {int(partition)}")


def _bodies(rows: Sequence[Rows]) -> pyarrow.Table:
    import pyarrow

    from .arrow_bodies import encode

    return pyarrow.table(
        {
            "_dataset_id": [r.dataset for r in rows],
            "_partition_id": [r.partition for r in rows],
            "_sequence": [r.sequence for r in rows],
            "rows": [r.table.num_rows for r in rows],
            "body": pyarrow.array([encode(r.table) for r in rows], pyarrow.large_binary()),
        }
    )
