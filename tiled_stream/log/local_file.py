"""The file of the local log: one SQLite database in WAL mode, used by one thread of one process.

Everything here blocks; `local.py` calls it in a thread of its own, one call at a time. The exclusive locking mode is the file
lock: a second process is refused, and the kernel frees the lock with the process that held it, however that ends.

What must stay true: a batch is one transaction (I2, I6). With `synchronous="normal"` a commit survives a killed process but
perhaps not a machine that loses power; if that may have happened, the log begins a new epoch, so that nobody takes a position of
the old one for the same thing (I2).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from time import time_ns
from typing import Literal
from uuid import uuid4

import msgspec

from ..domain.errors import Unavailable
from ..domain.events import Record
from ..domain.nodes import NodeId
from ..sql.opened_file import OpenedFile
from ..sql.sqlite_wal import checkpoint_pages
from .codec import decode_event
from .node_log import NodeLog, Retained

__all__ = ["Batch", "LogFile", "NodeRow", "Opened", "RecordRow", "Synchronous"]

Synchronous = Literal["normal", "full"]
#: node, sequence, time, event, payload
RecordRow = tuple[NodeId, int, float, bytes, bytes]
#: node, head, settled
NodeRow = tuple[NodeId, int, int]

_VERSION = 1
#: Pages of 4 KiB in the write-ahead log before it is copied into the database, and what it may keep of the disk afterwards.
_CHECKPOINT_PAGES = 4000
_WAL_BYTES = 64 << 20
#: So many fences one process may give, at most.
_FENCES_A_LIFE = 1 << 32
#: How long to wait for the process before us to let go of the file, seconds.
_LOCK_SECONDS = 2.0

_INSERT = "INSERT INTO records (node, sequence, time, event, payload) VALUES (?, ?, ?, ?, ?)"
_CUT = "DELETE FROM records WHERE node = ? AND sequence < ?"
_STAND = """
INSERT INTO nodes (node, head, settled) VALUES (?, ?, ?)
ON CONFLICT (node) DO UPDATE SET head = excluded.head, settled = excluded.settled
"""
_READ = "SELECT sequence, time, event, payload FROM records WHERE node = ? AND sequence BETWEEN ? AND ? ORDER BY sequence"
_FACT = "INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"


class Batch(msgspec.Struct):
    """What one transaction writes: first records leave (`cut`: below this sequence) and nodes go, then records come."""

    records: list[RecordRow] = []
    nodes: list[NodeRow] = []
    cut: dict[NodeId, int] = {}
    gone: list[NodeId] = []
    facts: dict[str, str] = {}


class Opened(msgspec.Struct):
    """What the file says. The records themselves stay in the file.

    `fence`: all fences that earlier processes gave are below it. `catalog`: the deployment it belongs to, empty for none yet.
    `revision`: that of the catalog, as remembered.
    """

    epoch: str
    fence: int
    catalog: str
    revision: int
    nodes: dict[NodeId, NodeLog]
    gone: set[NodeId]


class LogFile:
    """Not for use by two threads at a time."""

    def __init__(self, path: Path, *, synchronous: Synchronous) -> None:
        self._path = path
        self._synchronous = synchronous
        self._connection: sqlite3.Connection | None = None
        self._opened: OpenedFile | None = None

    def open(self) -> Opened:
        """Take the file (made if it is not there) and tell what it holds. `Unavailable` with the reason if that cannot be."""
        try:
            return self._open()
        except sqlite3.Error as error:
            self._let_go()
            if "locked" in str(error):
                reason = "another process has it open; one log file serves one process"
            else:
                reason = f"{error}; check that the directory is there and may be written to"
            raise Unavailable(f"The log file {self._path} cannot be opened: {reason}.") from error
        except BaseException:
            self._let_go()
            raise

    def commit(self, batch: Batch) -> None:
        """All of the batch or, if it raises `sqlite3.Error` or `StorageMissing`, nothing."""
        if self._opened is not None:
            self._opened.check()
        with self._transaction() as connection:
            if batch.gone:
                connection.executemany("DELETE FROM records WHERE node = ?", [(node,) for node in batch.gone])
                connection.executemany("DELETE FROM nodes WHERE node = ?", [(node,) for node in batch.gone])
                connection.executemany("INSERT OR IGNORE INTO gone (node) VALUES (?)", [(node,) for node in batch.gone])
            if batch.cut:
                connection.executemany(_CUT, batch.cut.items())
            if batch.records:
                connection.executemany(_INSERT, batch.records)
            connection.executemany(_STAND, batch.nodes)
            if batch.facts:
                connection.executemany(_FACT, list(batch.facts.items()))

    def read(self, node: NodeId, first: int, last: int) -> list[Record]:
        """Those of the records `first` … `last` that are there, in order."""
        try:
            rows = self._open_connection.execute(_READ, (node, first, last)).fetchall()
        except sqlite3.Error as error:
            raise Unavailable(f"The log file {self._path} cannot be read: {error}.") from error
        return [Record(sequence, time, decode_event(event), payload) for sequence, time, event, payload in rows]

    def close(self) -> None:
        """Note that all is in order and let go of the file. Idempotent."""
        if self._connection is None:
            return
        try:
            with self._transaction() as connection:
                connection.execute(_FACT, ("clean", "1"))
        finally:
            self._let_go()

    @property
    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise Unavailable(f"The log file {self._path} is closed.")
        return self._connection

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._open_connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk can have rolled it back already
                connection.execute("ROLLBACK")
            raise

    def _open(self) -> Opened:
        connection = self._connection = sqlite3.connect(
            self._path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
        # Before the first access, so that the index of the write-ahead log stays in memory and no second process gets in.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        pages = checkpoint_pages(self._path, most=_CHECKPOINT_PAGES)
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES * pages // _CHECKPOINT_PAGES}")
        self._make(connection)
        self._opened = OpenedFile(self._path, what="log file")
        with self._transaction():
            facts = self._begin_life(connection)
        return Opened(
            epoch=facts["epoch"],
            fence=int(facts["fence"]),
            catalog=facts.get("catalog", ""),
            revision=int(facts.get("revision", "0")),
            nodes=_nodes(connection),
            gone={node for (node,) in connection.execute("SELECT node FROM gone")},
        )

    def _make(self, connection: sqlite3.Connection) -> None:
        """The tables, if the file is new."""
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == _VERSION:
            return
        if version != 0 or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise Unavailable(
                f"The file {self._path} is no log of this version (its version is {version}, this one writes {_VERSION}); "
                "name another file, or use the version that wrote it."
            )
        tables = (files(__package__) / "sql" / "local.sql").read_text()
        connection.executescript(f"BEGIN IMMEDIATE; {tables}; PRAGMA user_version = {_VERSION}; COMMIT;")

    def _begin_life(self, connection: sqlite3.Connection) -> dict[str, str]:
        facts: dict[str, str] = dict(connection.execute("SELECT name, value FROM facts").fetchall())
        boot = _boot()
        is_whole = facts.get("clean") == "1" or facts.get("synchronous") == "full" or (boot != "" and facts.get("boot") == boot)
        epoch = facts["epoch"] if "epoch" in facts and is_whole else uuid4().hex
        life = int(facts.get("life", "0")) + 1
        # The clock may have been set back since; stores have seen what was given before.
        fence = max(time_ns() // 1000, int(facts.get("fence", "0")) + _FENCES_A_LIFE)
        now = {"epoch": epoch, "life": str(life), "boot": boot, "fence": str(fence)}
        now |= {"clean": "0", "synchronous": self._synchronous}
        connection.executemany(_FACT, list(now.items()))
        return facts | now


def _nodes(connection: sqlite3.Connection) -> dict[NodeId, NodeLog]:
    """Where each node stands, and of its records when they came and how large they are."""
    nodes = {node: NodeLog(head, settled) for node, head, settled in connection.execute("SELECT node, head, settled FROM nodes")}
    for node, sequence, time, size in connection.execute(
        "SELECT node, sequence, time, length(payload) FROM records ORDER BY rowid"  # the order of arrival
    ):
        log = nodes[node]
        if log.retained is None or log.retained.last + 1 != sequence:  # what lies before a gap has left
            log.retained = Retained(sequence)
        log.retained.push_absent(time, size)
    return nodes


def _boot() -> str:
    """What names the present run of the machine; empty where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
