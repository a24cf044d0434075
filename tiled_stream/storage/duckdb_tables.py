"""Tables in one DuckDB file: nodes of one schema share an SQL table, appended to in batches through Arrow.

One thread writes, another reads by a cursor of its own, so that a long read does not hold up persisting. A DuckDB file has one
owner process. Files are written in the v1 format, which every DuckDB since 1.0 can open.

What must stay true: rows and watermarks are one transaction (I5).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..domain.errors import Unavailable, UnsupportedType
from ..domain.events import Record, RowsAppended, TableWritten
from ..domain.nodes import NodeId
from ..domain.structures import TableStructure
from .engine_thread import EngineThread
from .layout import SQL_TABLE, check_columns, dataset_id, table_name
from .port import Allocation, TableBatch

if TYPE_CHECKING:
    import duckdb
    import pyarrow

__all__ = ["DuckdbTables"]

#: Rows of schemas that have no exact SQL form: the Arrow bodies themselves.
_BODIES = "bodies"


class DuckdbTables:
    """`path` is the database file; it is made when the store is opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = EngineThread("duckdb writer")
        self._reader = EngineThread("duckdb reader")
        self._db: duckdb.DuckDBPyConnection | None = None
        self._cursor: duckdb.DuckDBPyConnection | None = None
        # Watermarks as they stand in the file; only the writer's thread touches them.
        self._watermarks: dict[int, int] = {}
        self._tables: set[str] = set()

    async def open(self) -> None:
        await self._writer.run(self._open)

    async def close(self) -> None:
        if self._db is not None:
            await self._reader.close()
            await self._writer.run(self._close)
        await self._reader.close()
        await self._writer.close()

    def allocate(self, node: NodeId, structure: TableStructure, mimetype: str | None, parameters: dict[str, Any]) -> Allocation:
        if mimetype not in (None, SQL_TABLE):
            raise UnsupportedType(
                f"Tables of type {mimetype!r} cannot be written here; leave the mimetype out, or use {SQL_TABLE!r}."
            )
        check_columns(structure)
        return Allocation(
            data_uri="duckdb://localhost/" + quote(str(self._path.absolute())),
            is_directory=False,
            mimetype=SQL_TABLE,
            parameter="data_uri",
            parameters={"table_name": table_name(structure, parameters), "dataset_id": dataset_id(node)},
        )

    async def apply(self, batches: Sequence[TableBatch]) -> list[int]:
        return await self._writer.run(self._apply, batches)

    async def read(
        self,
        node: NodeId,
        structure: TableStructure,
        *,
        columns: Sequence[str] | None = None,
        partition: int | None = None,
    ) -> pyarrow.Table:
        return await self._reader.run(self._read, node, structure, columns, partition)

    async def rows(self, node: NodeId, structure: TableStructure) -> int:
        return await self._reader.run(self._rows, node, structure)

    async def watermark(self, node: NodeId) -> int:
        return await self._writer.run(self._watermark, dataset_id(node))

    async def delete(self, nodes: Sequence[tuple[NodeId, TableStructure]]) -> None:
        await self._writer.run(self._delete, nodes)

    # ------------------------------------------------- in the writer's thread

    def _open(self) -> None:
        import duckdb

        self._path.parent.mkdir(parents=True, exist_ok=True)
        place = str(self._path.absolute()).replace("'", "''")
        options = "" if self._path.exists() else " (STORAGE_VERSION 'v1.0.0')"
        self._db = duckdb.connect(":memory:", config={"threads": 1})
        try:
            self._db.execute(f"ATTACH '{place}' AS store{options}")
        except duckdb.Error as error:
            self._db.close()
            self._db = None
            raise Unavailable(
                f"The table storage {self._path} cannot be opened (a DuckDB file has one owner process): {error}"
            ) from error
        self._db.execute("USE store")
        self._db.execute("CREATE TABLE IF NOT EXISTS watermarks (dataset BIGINT, watermark BIGINT)")
        self._db.execute(
            f"CREATE TABLE IF NOT EXISTS {_BODIES} "
            "(_dataset_id BIGINT, _partition_id INTEGER, _sequence BIGINT, _row BIGINT, rows BIGINT, body BLOB)"
        )
        self._tables = {name for (name,) in self._db.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        self._watermarks = dict(self._db.execute("SELECT dataset, watermark FROM watermarks").fetchall())
        self._cursor = self._db.cursor()
        self._cursor.execute("USE store")

    def _close(self) -> None:
        if self._cursor is not None:
            self._cursor.close()
        if self._db is not None:
            self._db.execute("USE memory")
            self._db.execute("DETACH store")
            self._db.close()
        self._db = self._cursor = None

    def _opened(self) -> duckdb.DuckDBPyConnection:
        if self._db is None:
            raise Unavailable(f"The table storage {self._path} is not open.")
        return self._db

    def _apply(self, batches: Sequence[TableBatch]) -> list[int]:
        import duckdb

        db = self._opened()
        tables = set(self._tables)
        db.execute("BEGIN")
        try:
            advanced = self._write(db, batches)
            self._advance(db, advanced)
            db.execute("COMMIT")
        except duckdb.Error as error:
            self._tables = tables
            db.execute("ROLLBACK")
            if isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException):
                raise Unavailable(f"The table storage {self._path} cannot be written now: {error}") from error
            raise
        except BaseException:
            self._tables = tables
            db.execute("ROLLBACK")
            raise
        self._watermarks.update(advanced)
        return [self._watermark(dataset_id(b.node)) for b in batches]

    def _write(self, db: duckdb.DuckDBPyConnection, batches: Sequence[TableBatch]) -> dict[int, int]:
        """Rows of all batches, one insert a table; returns the new watermarks."""
        pending: dict[str, list[pyarrow.Table]] = {}
        advanced: dict[int, int] = {}
        for batch in batches:
            dataset = dataset_id(batch.node)
            reached = self._watermark(dataset)
            if batch.after > reached:
                continue  # what lies between is missing: the caller looks at the watermark and comes again
            table = self._table(db, batch.structure)
            for record in batch.records:
                if record.sequence <= reached:
                    continue  # I5
                if isinstance(record.event, TableWritten):
                    self._flush(db, table, pending.pop(table, []))
                    self._erase(db, table, dataset, record.event.partition)
                if isinstance(record.event, TableWritten | RowsAppended):
                    pending.setdefault(table, []).append(_rows(table, record, dataset))
                advanced[dataset] = record.sequence
        for table, rows in pending.items():
            self._flush(db, table, rows)
        return advanced

    def _table(self, db: duckdb.DuckDBPyConnection, structure: TableStructure) -> str:
        """The SQL table of a structure, made if it is missing. It is named by the schema, whatever the client calls it."""
        from .arrow_columns import sql_types

        types = sql_types(structure)
        if types is None:
            return _BODIES
        name = table_name(structure, {})
        if name not in self._tables:
            data = "".join(f", c{n} {kind}" for n, kind in enumerate(types))
            db.execute(
                f"CREATE TABLE IF NOT EXISTS {name} "
                f"(_dataset_id BIGINT, _partition_id INTEGER, _sequence BIGINT, _row BIGINT{data})"
            )
            self._tables.add(name)
        return name

    def _flush(self, db: duckdb.DuckDBPyConnection, table: str, rows: list[pyarrow.Table]) -> None:
        import pyarrow

        if not rows:
            return
        db.register("incoming", pyarrow.concat_tables(rows))
        try:
            db.execute(f"INSERT INTO {table} SELECT * FROM incoming")
        finally:
            db.unregister("incoming")

    def _erase(self, db: duckdb.DuckDBPyConnection, table: str, dataset: int, partition: int | None) -> None:
        db.execute(
            f"DELETE FROM {table} WHERE _dataset_id = ? AND (? IS NULL OR _partition_id = ?)", [dataset, partition, partition]
        )

    def _advance(self, db: duckdb.DuckDBPyConnection, advanced: dict[int, int]) -> None:
        known = {d: w for d, w in advanced.items() if d in self._watermarks}
        new = {d: w for d, w in advanced.items() if d not in self._watermarks}
        if new:
            db.execute(f"INSERT INTO watermarks VALUES {', '.join(f'({int(d)}, {int(w)})' for d, w in new.items())}")
        if known:
            values = ", ".join(f"({int(d)}, {int(w)})" for d, w in known.items())
            db.execute(f"UPDATE watermarks SET watermark = v.w FROM (VALUES {values}) v(d, w) WHERE watermarks.dataset = v.d")

    def _watermark(self, dataset: int) -> int:
        return self._watermarks.get(dataset, 0)

    def _delete(self, nodes: Sequence[tuple[NodeId, TableStructure]]) -> None:
        db = self._opened()
        emptied: set[str] = set()
        db.execute("BEGIN")
        try:
            for node, structure in nodes:
                dataset = dataset_id(node)
                table = self._table(db, structure)
                self._erase(db, table, dataset, None)
                db.execute("DELETE FROM watermarks WHERE dataset = ?", [dataset])
                if table != _BODIES and db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None:
                    db.execute(f"DROP TABLE {table}")
                    self._tables.discard(table)
                    emptied.add(table)
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            self._tables |= emptied
            raise
        for node, _ in nodes:
            self._watermarks.pop(dataset_id(node), None)

    # ------------------------------------------------- in the reader's thread

    def _read(
        self, node: NodeId, structure: TableStructure, columns: Sequence[str] | None, partition: int | None
    ) -> pyarrow.Table:
        import duckdb
        import pyarrow

        from .arrow_columns import body_table, chosen, sql_types

        positions, schema = chosen(structure, columns)
        if sql_types(structure) is None:
            found = self._select(_BODIES, "body", node, partition)
            bodies = [body_table(body).select(positions) for body in found.column("body").to_pylist()]
            return pyarrow.concat_tables(bodies).cast(schema) if bodies else schema.empty_table()
        table = table_name(structure, {})
        if table not in self._tables:
            return schema.empty_table()
        try:
            found = self._select(table, ", ".join(f"c{n}" for n in positions) or "_row", node, partition)
        except duckdb.CatalogException:  # made by a transaction that is under way, or dropped by one that just ended
            return schema.empty_table()
        if not positions:
            return pyarrow.Table.from_arrays([], schema=schema)
        arrays = [column.cast(field.type) for column, field in zip(found.columns, schema, strict=True)]
        return pyarrow.Table.from_arrays(arrays, schema=schema)

    def _select(self, table: str, what: str, node: NodeId, partition: int | None) -> pyarrow.Table:
        cursor = self._cursor
        if cursor is None:
            raise Unavailable(f"The table storage {self._path} is not open.")
        only = "" if partition is None else f"AND _partition_id = {int(partition)}"
        return cursor.sql(
            f"SELECT {what} FROM {table} WHERE _dataset_id = {dataset_id(node)} {only} ORDER BY _partition_id, _sequence, _row"
        ).to_arrow_table()

    def _rows(self, node: NodeId, structure: TableStructure) -> int:
        from .arrow_columns import sql_types

        exact = sql_types(structure) is not None
        table = table_name(structure, {}) if exact else _BODIES
        if table not in self._tables:
            return 0
        found = self._select(table, "_row" if exact else "rows", node, None)
        return found.num_rows if exact else sum(found.column("rows").to_pylist())


def _rows(table: str, record: Record, dataset: int) -> pyarrow.Table:
    """What is inserted for one record."""
    import pyarrow

    from .arrow_columns import body_table, incoming

    event = record.event
    assert isinstance(event, TableWritten | RowsAppended)
    partition = event.partition or 0
    if table != _BODIES:
        return incoming(record.payload, record, partition, dataset)
    return pyarrow.table(
        {
            "_dataset_id": [dataset],
            "_partition_id": [partition],
            "_sequence": [record.sequence],
            "_row": [0],
            "rows": [body_table(record.payload).num_rows],
            "body": pyarrow.array([record.payload], pyarrow.binary()),
        }
    )
