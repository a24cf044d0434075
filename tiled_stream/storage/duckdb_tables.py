"""Tables in one DuckDB file: nodes of one schema share an SQL table, appended to in batches through Arrow.

A DuckDB file has one owner process; all others are locked out, readers too. It is written in the v1 format, which every DuckDB
since 1.0 can open. Columns are stored by position (`arrow_columns.py`): who looks into the file finds their names in the catalog.

What must stay true: rows and watermarks are one transaction (I5). Reads have connections of their own and see what is committed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..domain.errors import Unavailable
from ..domain.structures import TableStructure
from .layout import ARRIVED_BODIES, dataset_id, schema_table
from .port import Arrived, TableBatch
from .sql_tables import Change, SqlTables, changes

if TYPE_CHECKING:
    import duckdb
    import pyarrow

    from .arrow_columns import Rows

__all__ = ["DuckdbTables"]

#: Rows of schemas that have no exact SQL form: the Arrow bodies themselves.
_BODIES = "bodies"
_BODIES_COLUMNS = "_dataset_id BIGINT, _partition_id BIGINT, _sequence BIGINT, rows BIGINT, body BLOB"


class DuckdbTables(SqlTables):
    """`path` is the database file; it is made when the store is opened. `memory_limit` as DuckDB writes it (``"2GB"``)."""

    def __init__(self, path: Path, *, memory_limit: str | None = None, readers: int = 2) -> None:
        path = path.absolute()
        engine = _DuckdbFile(path, memory_limit=memory_limit, cursors=readers)
        super().__init__("duckdb", engine, data_uri="duckdb://localhost/" + quote(str(path)), readers=readers)


class _DuckdbFile:
    """The blocking part. Fields are the writer's, but for `_cursors` and `_tables`."""

    def __init__(self, path: Path, *, memory_limit: str | None, cursors: int) -> None:
        self._path = path
        self._memory_limit = memory_limit
        self._db: duckdb.DuckDBPyConnection | None = None
        # One for each reader at a time.
        self._count = cursors
        self._cursors: SimpleQueue[duckdb.DuckDBPyConnection] = SimpleQueue()
        # Watermarks as they stand in the file: nobody else writes them.
        self._watermarks: dict[int, int] = {}
        # SQL tables that are committed; replaced, never changed, for readers look into it too.
        self._tables: frozenset[str] = frozenset()

    def open(self) -> None:
        import duckdb

        place, scratch = (str(p).replace("'", "''") for p in (self._path, f"{self._path}.tmp"))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            options = "" if self._path.exists() else " (STORAGE_VERSION 'v1.0.0')"
            # More threads would serve analytics; what is done here is short, and the processors belong to others too.
            db = duckdb.connect(":memory:", config={"threads": 1, "temp_directory": scratch})
        except OSError as error:
            raise Unavailable(f"The table storage {self._path} cannot be made: {error}") from error
        try:
            if self._memory_limit is not None:
                db.execute("SET memory_limit = ?", [self._memory_limit])
            db.execute(f"ATTACH '{place}' AS store{options}")
            db.execute("USE store")
            db.execute("CREATE TABLE IF NOT EXISTS watermarks (dataset BIGINT, watermark BIGINT)")
            db.execute(f"CREATE TABLE IF NOT EXISTS {_BODIES} ({_BODIES_COLUMNS})")
            self._tables = frozenset(name for (name,) in db.execute("SELECT table_name FROM duckdb_tables()").fetchall())
            self._watermarks = dict(db.execute("SELECT dataset, watermark FROM watermarks").fetchall())
            for _ in range(self._count):
                self._cursors.put(cursor := db.cursor())
                cursor.execute("USE store")
        except duckdb.Error as error:
            db.close()
            raise Unavailable(
                f"The table storage {self._path} cannot be opened; a DuckDB file has one owner process, which may be another "
                f"server or a shell: {error}"
            ) from error
        self._db = db

    def close(self) -> None:
        db, self._db = self._db, None
        if db is None:
            return
        while not self._cursors.empty():
            self._cursors.get().close()
        try:
            db.execute("USE memory")
            db.execute("DETACH store")  # writes the WAL into the file; if it cannot, the WAL is read when it is opened next
        finally:
            db.close()

    def watermark(self, dataset: int) -> int:
        return self._watermarks.get(dataset, 0)

    def apply(self, batches: Sequence[TableBatch]) -> list[int]:
        found, advanced = changes(batches, self.watermark)
        with self._transaction() as db:
            tables = self._tables
            for change in found:
                tables |= self._change(db, change, tables)
            self._advance(db, advanced)
        self._tables = tables
        self._watermarks.update(advanced)
        return [self.watermark(dataset_id(b.node)) for b in batches]

    def delete(self, datasets: Sequence[tuple[int, TableStructure]]) -> None:
        with self._transaction() as db:
            tables = self._tables
            for dataset, structure in datasets:
                db.execute("DELETE FROM watermarks WHERE dataset = ?", [dataset])
                table = _table(structure)
                if table not in tables:
                    continue
                _erase(db, table, dataset, None)
                if table != _BODIES and db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None:
                    db.execute(f"DROP TABLE {table}")
                    tables -= {table}
        self._tables = tables
        for dataset, _ in datasets:
            self._watermarks.pop(dataset, None)

    def read(
        self, dataset: int, structure: TableStructure, columns: Sequence[str] | None, partition: int | None
    ) -> pyarrow.Table:
        from .arrow_bodies import decode, joined
        from .arrow_columns import chosen, declared_table

        self._opened()
        positions, schema = chosen(structure, columns)
        table = _table(structure)
        if table == _BODIES:
            found = self._select(table, "body", dataset, partition, order="_sequence")
            bodies = [decode(body.as_buffer()).select(positions) for body in found.column(0)] if found is not None else []
            return declared_table(joined(bodies).columns, schema) if bodies else schema.empty_table()
        if table not in self._tables or not positions:
            return schema.empty_table()
        found = self._select(table, ", ".join(f"c{n}" for n in positions), dataset, partition, order="_sequence, _row")
        return declared_table(found.columns, schema) if found is not None else schema.empty_table()

    def arrived(self, dataset: int, structure: TableStructure, after: int, upto: int, rows: int) -> Arrived:
        from .arrivals import arrived, whole_records
        from .arrow_columns import declared_schema, declared_table

        self._opened()
        schema, table = declared_schema(structure), _table(structure)
        if table == _BODIES:
            return self._arrived_bodies(dataset, structure, after, upto, rows)
        found = None
        if table in self._tables:
            what = ", ".join(["_sequence", "_partition_id", *(f"c{n}" for n in range(len(schema.names)))])
            where = f"SELECT {what} FROM {table} WHERE _dataset_id = {dataset} AND _sequence"
            found = self._query(f"{where} > {after} AND _sequence <= {upto} ORDER BY _sequence, _row LIMIT {rows + 1}")
            if found is not None and found.num_rows > rows and found.column(0)[0] == found.column(0)[-1]:
                found = self._query(f"{where} = {found.column(0)[0].as_py()} ORDER BY _row")  # all of the one record
                rows = found.num_rows if found is not None else rows
        if found is None:
            return arrived(schema.empty_table(), [], [])
        sequences, partitions = (column.to_numpy() for column in found.columns[:2])
        whole = arrived(declared_table(found.columns[2:], schema), sequences, partitions)
        return whole_records(whole, rows=rows, is_cut=found.num_rows > rows)

    def _arrived_bodies(self, dataset: int, structure: TableStructure, after: int, upto: int, rows: int) -> Arrived:
        from .arrow_bodies import arrived_bodies

        keys = self._query(ARRIVED_BODIES.format(table=_BODIES, dataset=dataset, after=after, upto=upto))

        def bodies() -> Iterator[tuple[int, int, Any]]:
            for key in keys.to_pylist() if keys is not None else []:
                at = f"_partition_id = {key['_partition_id']} AND _sequence = {key['_sequence']}"
                found = self._query(f"SELECT body FROM {_BODIES} WHERE _dataset_id = {dataset} AND {at}")
                if found is not None and found.num_rows:
                    yield key["_sequence"], key["_partition_id"], found.column(0)[0].as_buffer()

        return arrived_bodies(bodies(), structure, after=after, upto=upto, rows=rows)

    def rows(self, dataset: int, structure: TableStructure) -> int:
        self._opened()
        table = _table(structure)
        if table not in self._tables:
            return 0
        what = "coalesce(sum(rows), 0)::BIGINT AS n" if table == _BODIES else "count(*) AS n"
        found = self._select(table, what, dataset, None, order=None)
        return int(found.column(0)[0].as_py()) if found is not None else 0

    def _opened(self) -> duckdb.DuckDBPyConnection:
        if self._db is None:
            raise Unavailable(f"The table storage {self._path} is not open.")
        return self._db

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        import duckdb

        db = self._opened()
        try:
            db.execute("BEGIN")
            yield db
            db.execute("COMMIT")
        except BaseException as error:
            with suppress(duckdb.Error):  # a commit that failed has rolled back already
                db.execute("ROLLBACK")
            if isinstance(error, duckdb.OperationalError | duckdb.InternalError | duckdb.FatalException):
                raise Unavailable(f"The table storage {self._path} cannot be written now: {error}") from error
            raise

    def _change(self, db: duckdb.DuckDBPyConnection, change: Change, tables: frozenset[str]) -> set[str]:
        """One insert for all rows of a schema. Returns the SQL table if it had to be made."""
        from .arrow_bodies import gathered
        from .arrow_columns import META, sql_columns, stored_table

        table = _table(change.structure)
        if table in tables:
            for dataset, partition in change.erased:
                _erase(db, table, dataset, partition)
        if not change.rows:
            return set()
        columns = sql_columns(change.structure)
        if columns is None:
            incoming = _bodies(gathered(change.rows))
        else:
            incoming = stored_table(change.rows, columns)
        made: set[str] = set()
        if table not in tables and columns is not None:
            meta = ", ".join(f"{name} {sql}" for name, sql in META.items())
            data = "".join(f", c{n} {column.sql}" for n, column in enumerate(columns))
            db.execute(f"CREATE TABLE {table} ({meta}{data})")
            made.add(table)
        db.register("incoming", incoming)
        try:
            db.execute(f"INSERT INTO {table} SELECT * FROM incoming")
        finally:
            db.unregister("incoming")
        return made

    def _advance(self, db: duckdb.DuckDBPyConnection, advanced: dict[int, int]) -> None:
        known = ", ".join(f"({d}, {w})" for d, w in advanced.items() if d in self._watermarks)
        new = ", ".join(f"({d}, {w})" for d, w in advanced.items() if d not in self._watermarks)
        if new:
            db.execute(f"INSERT INTO watermarks VALUES {new}")
        if known:
            db.execute(f"UPDATE watermarks SET watermark = v.w FROM (VALUES {known}) v(d, w) WHERE watermarks.dataset = v.d")

    def _select(self, table: str, what: str, dataset: int, partition: int | None, *, order: str | None) -> pyarrow.Table | None:
        """In a reader's thread, with a connection of its own. None: there is no such SQL table any more."""
        only = "" if partition is None else f" AND _partition_id = {int(partition)}"
        sorting = "" if order is None else f" ORDER BY _partition_id, {order}"
        return self._query(f"SELECT {what} FROM {table} WHERE _dataset_id = {dataset}{only}{sorting}")

    def _query(self, query: str) -> pyarrow.Table | None:
        import duckdb

        cursor = self._cursors.get()
        try:
            return cursor.sql(query).to_arrow_table()
        except duckdb.CatalogException:  # dropped since the caller looked: the last of its nodes was deleted
            return None
        except duckdb.OperationalError as error:
            raise Unavailable(f"The table storage {self._path} cannot be read now: {error}") from error
        finally:
            self._cursors.put(cursor)


def _table(structure: TableStructure) -> str:
    from .arrow_columns import sql_columns

    return _BODIES if sql_columns(structure) is None else schema_table(structure)


def _erase(db: duckdb.DuckDBPyConnection, table: str, dataset: int, partition: int | None) -> None:
    only = "" if partition is None else f" AND _partition_id = {int(partition)}"
    db.execute(f"DELETE FROM {table} WHERE _dataset_id = {dataset}{only}")


def _bodies(rows: Sequence[Rows]) -> pyarrow.Table:
    import pyarrow

    from .arrow_bodies import encode

    return pyarrow.table(
        {
            "_dataset_id": [r.dataset for r in rows],
            "_partition_id": [r.partition for r in rows],
            "_sequence": [r.sequence for r in rows],
            "rows": [r.table.num_rows for r in rows],
            "body": pyarrow.array([encode(r.table) for r in rows], pyarrow.binary()),
        }
    )
