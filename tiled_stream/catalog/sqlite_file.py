"""The file of a SQLite catalog: made, checked and brought up to date. Blocking; runs in the writer's thread.

What must stay true: a file that is not a catalog of ours, or is of a newer version, is closed as it was found.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from ..domain.errors import Unavailable
from ..domain.nodes import ROOT
from ..sql.sqlite_wal import checkpoint_pages
from .migrate import migrations, pending

__all__ = ["connected", "version_of"]

#: Pages of the write-ahead log before it is copied into the file, where the disk has room: SQLite's own default.
_CHECKPOINT_PAGES = 1000


def connected(path: Path, statements: Mapping[str, str], *, init: bool) -> sqlite3.Connection:
    """A connection that may write, to a catalog of this version. With `init` a missing or empty file becomes one.

    `Unavailable` if it cannot be; nothing is left open then.
    """
    if not init and not path.exists():
        raise Unavailable(f"There is no catalog {path}. {_how_to_make(path)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(f"{path} cannot be opened as a catalog: {error}") from error
    try:
        connection.execute("PRAGMA busy_timeout = 5000")
        # Looked at before the first pragma that would write to the file.
        _check(connection, path, statements, init=init)
        pages = checkpoint_pages(path.absolute(), most=_CHECKPOINT_PAGES)
        checkpoint = f"wal_autocheckpoint = {pages}"
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON", checkpoint):
            connection.execute(f"PRAGMA {pragma}")
        _migrate(connection, path, statements, init=init)
    except sqlite3.Error as error:
        connection.close()
        raise Unavailable(f"{path} cannot be opened as a catalog: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def version_of(path: Path) -> int | None:
    """The last step that shaped the catalog in a file; None if there is none. The file is left as it is."""
    if not path.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            found = db.execute("SELECT max(number) FROM schema_steps").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise Unavailable(f"{path} cannot be read as a catalog: {error}") from error
    except sqlite3.Error as error:
        raise Unavailable(f"{path} cannot be read as a catalog: {error}") from error
    return int(found[0] or 0)


def _check(db: sqlite3.Connection, path: Path, statements: Mapping[str, str], *, init: bool) -> dict[int, str]:
    """The steps that were applied, by number. `Unavailable` for a file that is not to be touched."""
    tables = {name for (name,) in db.execute(statements["table_names"])}
    if not tables:
        if not init:
            raise Unavailable(f"The catalog {path} is not initialised. {_how_to_make(path)}")
        return {}
    if "schema_steps" not in tables:
        raise Unavailable(f"{path} is a database of another application; it is left alone. Choose another file.")
    applied = dict(db.execute(statements["steps"]))
    pending(migrations("sqlite"), applied, where=str(path))
    return applied


def _migrate(db: sqlite3.Connection, path: Path, statements: Mapping[str, str], *, init: bool) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        # Once more, under the lock: another process may have begun at the same moment.
        applied = _check(db, path, statements, init=init)
        db.execute(statements["make_steps"])
        for step in pending(migrations("sqlite"), applied, where=str(path)):
            for statement in _split(step.sql):
                db.execute(statement)
            db.execute(statements["insert_step"], (step.number, step.name, step.digest))
        db.execute(statements["insert_root"], (ROOT,))
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _how_to_make(path: Path) -> str:
    return f"Start the server with --init, or run: tiled-stream catalog init {path}"


def _split(script: str) -> list[str]:
    """The statements of a script, split where SQLite says that one is complete (comments may hold semicolons)."""
    statements, unfinished = [], ""
    for line in script.splitlines(keepends=True):
        unfinished += line
        if sqlite3.complete_statement(unfinished):
            statements.append(unfinished)
            unfinished = ""
    return statements
