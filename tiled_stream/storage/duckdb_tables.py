"""Tables in one DuckDB file: nodes of one schema share an SQL table, appended to in batches through Arrow.

A DuckDB file has one owner process; all others are locked out, readers too. It is written in the v1 format, which every DuckDB
since 1.0 can open. Columns are stored by position (`arrow_columns.py`): who looks into the file finds their names in the catalog.

What must stay true: rows, watermarks and fences are one transaction (I4, I5). Reads have connections of their own and see what
is committed. Nothing is read from or written to a file that its path no longer names; one that is damaged when it is opened is
moved aside (`duckdb_damage.py`), never deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

from ..domain.errors import Unavailable
from ..domain.structures import TableStructure
from ..sql.opened_file import OpenedFile
from .duckdb_damage import is_damage, is_of_the_data, moved_aside
from .layout import ARRIVED_BODIES, schema_table
from .port import Arrived, TableBatch
from .sql_tables import Change, Mark, SqlTables, changes

if TYPE_CHECKING:
    import duckdb
    import pyarrow

    from .arrow_columns import Rows

__all__ = ["DuckdbTables"]

#: Rows of schemas that have no exact SQL form: the Arrow bodies themselves.
_BODIES = "bodies"
_BODIES_COLUMNS = "_dataset_id BIGINT, _partition_id BIGINT, _sequence BIGINT, rows BIGINT, body BLOB"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS watermarks (dataset BIGINT, watermark BIGINT, fence BIGINT DEFAULT 0)",
    # For files of versions that kept no fence.
    "ALTER TABLE watermarks ADD COLUMN IF NOT EXISTS fence BIGINT DEFAULT 0",
    f"CREATE TABLE IF NOT EXISTS {_BODIES} ({_BODIES_COLUMNS})",
    "CREATE TABLE IF NOT EXISTS identity (deployment VARCHAR, incarnation VARCHAR)",
)
#: How often a file is moved aside before opening is given up.
_TRIES = 3


class DuckdbTables(SqlTables):
    """`path` is the database file; it is made when the store is opened. `memory_limit` as DuckDB writes it (``"2GB"``)."""

    def __init__(self, path: Path, *, memory_limit: str | None = None, readers: int = 2) -> None:
        path = path.absolute()
        engine = _DuckdbFile(path, memory_limit=memory_limit, cursors=readers)
        uri = "duckdb://localhost/" + quote(str(path))
        super().__init__("duckdb", engine, place=str(path), data_uri=uri, readers=readers)


class _DuckdbFile:
    """The blocking part. Fields are the writer's, but for `_cursors` and `_tables`."""

    def __init__(self, path: Path, *, memory_limit: str | None, cursors: int) -> None:
        self._path = path
        self._memory_limit = memory_limit
        self._db: duckdb.DuckDBPyConnection | None = None
        self._file: OpenedFile | None = None
        # One for each reader at a time.
        self._count = cursors
        self._cursors: SimpleQueue[duckdb.DuckDBPyConnection] = SimpleQueue()
        # Watermarks and fences as they are in the file: no other process writes them.
        self._marks: dict[int, Mark] = {}
        # SQL tables that are committed; replaced, never changed, for readers look into it too.
        self._tables: frozenset[str] = frozenset()

    def open(self) -> None:
        """`Unavailable` if it cannot be opened. A damaged file is moved aside, and a new one begun."""
        import duckdb

        for attempt in range(1, _TRIES + 1):
            try:
                self._open()
                return
            except duckdb.Error as error:
                if attempt < _TRIES and is_damage(error) and moved_aside(self._path, error):
                    continue
                raise Unavailable(
                    f"The table storage {self._path} cannot be opened; a DuckDB file has one owner process, which may be "
                    f"another server or a shell: {error}"
                ) from error
            except OSError as error:
                raise Unavailable(f"The table storage {self._path} cannot be made: {error}") from error

    def _open(self) -> None:
        import duckdb

        place, scratch = (str(p).replace("'", "''") for p in (self._path, f"{self._path}.tmp"))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        options = "" if self._path.exists() else " (STORAGE_VERSION 'v1.0.0')"
        # More threads would serve analytics; what is done here is short, and the processors belong to others too.
        db = duckdb.connect(":memory:", config={"threads": 1, "temp_directory": scratch})
        try:
            if self._memory_limit is not None:
                db.execute("SET memory_limit = ?", [self._memory_limit])
            db.execute(f"ATTACH '{place}' AS store{options}")
            db.execute("USE store")
            for statement in _SCHEMA:
                db.execute(statement)
            self._tables = frozenset(name for (name,) in db.execute("SELECT table_name FROM duckdb_tables()").fetchall())
            found = db.execute("SELECT dataset, watermark, coalesce(fence, 0) FROM watermarks").fetchall()
            self._marks = {dataset: Mark(watermark, fence) for dataset, watermark, fence in found}
            self._file = OpenedFile(self._path, what="table storage")
            for _ in range(self._count):
                self._cursors.put(cursor := db.cursor())
                cursor.execute("USE store")
        except BaseException:
            while not self._cursors.empty():
                self._cursors.get().close()
            db.close()
            raise
        self._db = db

    def close(self) -> None:
        import duckdb

        db, self._db = self._db, None
        if db is None:
            return
        while not self._cursors.empty():
            self._cursors.get().close()
        try:
            # Writes the WAL into the file. If it cannot, the WAL is read when the file is opened next; and what became of a
            # file that is damaged or gone was said before.
            with suppress(duckdb.Error):
                db.execute("USE memory")
                db.execute("DETACH store")
        finally:
            db.close()

    def bind(self, deployment: str) -> tuple[str, str]:
        with self._transaction() as db:
            found: tuple[str, str] | None = db.execute("SELECT deployment, incarnation FROM identity").fetchone()
            if found is None:
                found = (deployment, uuid4().hex)
                db.execute("INSERT INTO identity VALUES (?, ?)", found)
        return found

    def watermarks(self, datasets: Sequence[int]) -> list[int]:
        self._opened()
        return [self._mark(dataset).watermark for dataset in datasets]

    def apply(self, batches: Sequence[TableBatch]) -> list[int]:
        self._opened()
        found, marks, answers = changes(batches, self._mark)
        with self._transaction() as db:
            tables = self._tables
            for change in found:
                tables |= self._change(db, change, tables)
            self._advance(db, marks)
        self._tables = tables
        self._marks.update(marks)
        return answers

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
            self._marks.pop(dataset, None)

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
        """The writer's connection; `StorageMissing` if the file is no longer there."""
        if self._db is None or self._file is None:
            raise Unavailable(f"The table storage {self._path} is not open.")
        self._file.check()
        return self._db

    def _mark(self, dataset: int) -> Mark:
        return self._marks.get(dataset, Mark())

    def _failure(self, what: str, error: Exception) -> Unavailable:
        if is_damage(error):
            return Unavailable(
                f"The table storage {self._path} is damaged: {error}. Restart the server; if the file is damaged still, restore "
                "it from a backup, or move it away: what the log holds is then applied again."
            )
        return Unavailable(f"The table storage {self._path} cannot be {what} now: {error}")

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
            if isinstance(error, duckdb.Error) and not is_of_the_data(error):
                raise self._failure("written", error) from error
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

    def _advance(self, db: duckdb.DuckDBPyConnection, marks: dict[int, Mark]) -> None:
        new = [(d, m.watermark, m.fence) for d, m in marks.items() if d not in self._marks]
        moved = [(d, m.watermark) for d, m in marks.items() if d in self._marks]
        # While one worker keeps a node its fence stays, and a column less is written.
        fenced = [(d, m.fence) for d, m in marks.items() if d in self._marks and self._marks[d].fence != m.fence]
        if new:
            db.execute(f"INSERT INTO watermarks (dataset, watermark, fence) VALUES {', '.join(map(str, new))}")
        for column, values in (("watermark", moved), ("fence", fenced)):
            if values:
                rows = ", ".join(map(str, values))
                db.execute(f"UPDATE watermarks SET {column} = v.n FROM (VALUES {rows}) v(d, n) WHERE watermarks.dataset = v.d")

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
        except duckdb.Error as error:
            raise self._failure("read", error) from error
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
