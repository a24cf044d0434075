"""Tables in one SQLite file, for deployments without DuckDB: rows rest as Arrow bodies, whatever their types.

SQLite has fewer types than Arrow and no columns to gain from; so it keeps bodies, exact and cheap. The last body of a partition
takes up what is appended until it is full, so that a table written row by row is not a file of tiny bodies.

What must stay true: rows, watermarks and fences are one transaction (I4, I5). The file may be shared with other processes.
Nothing is read from or written to a file that its path no longer names.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

from ..domain.errors import Unavailable
from ..domain.structures import TableStructure
from ..sql.opened_file import OpenedFile
from ..sql.sqlite_wal import checkpoint_pages
from .port import Arrived, TableBatch
from .sql_tables import Change, Mark, SqlTables, changes

if TYPE_CHECKING:
    import pyarrow

__all__ = ["SqliteTables"]

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS watermarks "
    "(dataset INTEGER PRIMARY KEY, watermark INTEGER NOT NULL, fence INTEGER NOT NULL DEFAULT 0) STRICT",
    "CREATE TABLE IF NOT EXISTS bodies (dataset INTEGER NOT NULL, partition INTEGER NOT NULL, sequence INTEGER NOT NULL, "
    "rows INTEGER NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL) STRICT",
    "CREATE UNIQUE INDEX IF NOT EXISTS bodies_in_order ON bodies (dataset, partition, sequence)",
    "CREATE TABLE IF NOT EXISTS identity "
    "(one INTEGER PRIMARY KEY CHECK (one = 1), deployment TEXT NOT NULL, incarnation TEXT NOT NULL) STRICT",
)
#: For files of versions that kept no fence.
_ADD_FENCE = "ALTER TABLE watermarks ADD COLUMN fence INTEGER NOT NULL DEFAULT 0"
_MARKS = "SELECT dataset, watermark, fence FROM watermarks WHERE dataset IN (SELECT value FROM json_each(?))"
#: Bodies that may hold rows of the records after :after up to :upto: the last one of each partition that begins before, and those
#: that begin in between.
_ARRIVED = """
SELECT sequence, partition, body FROM bodies AS b WHERE dataset = :dataset AND sequence <= :upto AND sequence >= coalesce(
    (SELECT max(sequence) FROM bodies WHERE dataset = b.dataset AND partition = b.partition AND sequence <= :after + 1), 0)
ORDER BY sequence
"""
#: Pages of the write-ahead log before it is copied into the file, where the disk has room: SQLite's own default.
_CHECKPOINT_PAGES = 1000
#: Seconds that a write waits for other processes that use the file.
_PATIENCE = 5.0


class SqliteTables(SqlTables):
    """`path` is the database file; it is made when the store is opened."""

    def __init__(self, path: Path, *, readers: int = 2) -> None:
        path = path.absolute()
        engine = _SqliteFile(path, readers=readers)
        uri = "sqlite://localhost/" + quote(str(path))
        super().__init__("sqlite", engine, place=str(path), data_uri=uri, readers=readers)


class _SqliteFile:
    """The blocking part."""

    def __init__(self, path: Path, *, readers: int) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._file: OpenedFile | None = None
        self._count = readers
        # One for each reader at a time.
        self._readers: SimpleQueue[sqlite3.Connection] = SimpleQueue()

    def open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            db = self._connect()
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages(self._path, most=_CHECKPOINT_PAGES)}")
            # A killed process loses nothing; a power failure may lose the last transactions, but never tears one.
            db.execute("PRAGMA synchronous = NORMAL")
            _prepare(db)
            for _ in range(self._count):
                self._readers.put(self._connect())
            self._file = OpenedFile(self._path, what="table storage")
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"The table storage {self._path} cannot be opened: {error}") from error
        self._db = db

    def close(self) -> None:
        db, self._db = self._db, None
        if db is None:
            return
        while not self._readers.empty():
            self._readers.get().close()
        db.close()

    def bind(self, deployment: str) -> tuple[str, str]:
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO identity VALUES (1, ?, ?)", [deployment, uuid4().hex])
            owner, incarnation = db.execute("SELECT deployment, incarnation FROM identity").fetchone()
            return owner, incarnation

    def watermarks(self, datasets: Sequence[int]) -> list[int]:
        db = self._opened()
        try:
            found = {dataset: watermark for dataset, watermark, _ in db.execute(_MARKS, [json.dumps(datasets)])}
        except sqlite3.Error as error:
            raise Unavailable(f"The table storage {self._path} cannot be read now: {error}") from error
        return [found.get(dataset, 0) for dataset in datasets]

    def apply(self, batches: Sequence[TableBatch]) -> list[int]:
        with self._transaction() as db:
            found, marks, answers = changes(batches, lambda dataset: _mark(db, dataset))
            for change in found:
                self._change(db, change)
            db.executemany(
                "INSERT OR REPLACE INTO watermarks (dataset, watermark, fence) VALUES (?, ?, ?)",
                [(dataset, mark.watermark, mark.fence) for dataset, mark in marks.items()],
            )
        return answers

    def delete(self, datasets: Sequence[tuple[int, TableStructure]]) -> None:
        with self._transaction() as db:
            for dataset, _ in datasets:
                db.execute("DELETE FROM bodies WHERE dataset = ?", [dataset])
                db.execute("DELETE FROM watermarks WHERE dataset = ?", [dataset])

    def read(
        self, dataset: int, structure: TableStructure, columns: Sequence[str] | None, partition: int | None
    ) -> pyarrow.Table:
        from .arrow_bodies import decode, joined
        from .arrow_columns import chosen, declared_table

        positions, schema = chosen(structure, columns)
        found = self._select("body", dataset, partition)
        bodies = [decode(body).select(positions) for (body,) in found]
        if not bodies or not positions:
            return schema.empty_table()
        return declared_table(joined(bodies).columns, schema)

    def arrived(self, dataset: int, structure: TableStructure, after: int, upto: int, rows: int) -> Arrived:
        from .arrow_bodies import arrived_bodies

        with self._reading() as db:  # body by body, until there are rows enough
            bodies = db.execute(_ARRIVED, {"dataset": dataset, "after": after, "upto": upto})
            return arrived_bodies(bodies, structure, after=after, upto=upto, rows=rows)

    def rows(self, dataset: int, structure: TableStructure) -> int:
        return sum(count for (count,) in self._select("rows", dataset, None))

    def _connect(self) -> sqlite3.Connection:
        # Connections are handed from thread to thread, never used by two at once.
        return sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)

    def _opened(self) -> sqlite3.Connection:
        """The writer's connection; `StorageMissing` if the file is no longer there."""
        if self._db is None or self._file is None:
            raise Unavailable(f"The table storage {self._path} is not open.")
        self._file.check()
        return self._db

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._opened()
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except BaseException as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if _is_of_the_file(error):
                raise Unavailable(f"The table storage {self._path} cannot be written now: {error}") from error
            raise

    def _change(self, db: sqlite3.Connection, change: Change) -> None:
        from .arrow_bodies import FULL, decode, encode, gathered, grown

        for dataset, partition in change.erased:
            only = "" if partition is None else f" AND partition = {int(partition)}"
            db.execute(f"DELETE FROM bodies WHERE dataset = ?{only}", [dataset])
        for rows in gathered(change.rows):
            table, sequence = rows.table, rows.sequence
            last = db.execute(
                "SELECT sequence, size, body FROM bodies WHERE dataset = ? AND partition = ? ORDER BY sequence DESC LIMIT 1",
                [rows.dataset, rows.partition],
            ).fetchone()
            if last is not None and last[1] + table.nbytes <= FULL:
                sequence, table = last[0], grown(decode(last[2]), last[0], rows)
            db.execute(
                "INSERT OR REPLACE INTO bodies VALUES (?, ?, ?, ?, ?, ?)",
                [rows.dataset, rows.partition, sequence, table.num_rows, table.nbytes, encode(table)],
            )

    def _select(self, what: str, dataset: int, partition: int | None) -> list[tuple[Any]]:
        """In a reader's thread, with a connection of its own."""
        only = "" if partition is None else f" AND partition = {int(partition)}"
        with self._reading() as db:
            return db.execute(
                f"SELECT {what} FROM bodies WHERE dataset = ?{only} ORDER BY partition, sequence", [dataset]
            ).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection of the reader's own."""
        self._opened()
        db = self._readers.get()
        try:
            yield db
        except sqlite3.Error as error:
            raise Unavailable(f"The table storage {self._path} cannot be read now: {error}") from error
        finally:
            self._readers.put(db)


def _prepare(db: sqlite3.Connection) -> None:
    """Make what is missing. The transaction keeps out other processes that begin at the same moment."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in _SCHEMA:
            db.execute(statement)
        if "fence" not in {name for _, name, *_ in db.execute("PRAGMA table_info(watermarks)")}:
            db.execute(_ADD_FENCE)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _is_of_the_file(error: BaseException) -> bool:
    """Is the cause the file or its disk, and not what was to be written? A damaged file is a `DatabaseError` and no other."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def _mark(db: sqlite3.Connection, dataset: int) -> Mark:
    found = db.execute("SELECT watermark, fence FROM watermarks WHERE dataset = ?", [dataset]).fetchone()
    return Mark() if found is None else Mark(*found)
