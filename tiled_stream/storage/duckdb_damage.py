"""Damaged DuckDB files: how to distinguish them from files that cannot be opened for another reason, and how to move them aside.

What must stay true: nothing is deleted, and nothing is moved unless DuckDB says that the content of the file is wrong. A file
that is locked, that may not be read, or that a newer DuckDB has written is left as it is.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

__all__ = ["is_damage", "is_of_the_data", "moved_aside"]

logger = logging.getLogger(__name__)

#: What DuckDB 1.4 to 2.0 say of content that is wrong. The class of the error differs between versions (`IOException`, plain
#: `Error`), and `IOException` is also that of a file that is locked. What cannot be deserialized is not among them: blocks have
#: checksums, so a newer DuckDB wrote it.
_DAMAGE = re.compile(
    r"corrupt(ed)? (database|wal)|checksum|not a valid duckdb database|could not read enough bytes", re.IGNORECASE
)
_OF_THE_WAL = re.compile(r"corrupt(ed)? wal|replaying wal", re.IGNORECASE)
#: How a database of another application begins. DuckDB takes it for one that an extension reads.
_SQLITE = b"SQLite format 3\x00"


def is_damage(error: Exception) -> bool:
    """Does DuckDB say that what the file holds is wrong?"""
    return _DAMAGE.search(str(error)) is not None


def is_of_the_data(error: Exception) -> bool:
    """Is the cause what was to be written, so that it fails the same way each time? (As opposed to the file or the disk.)"""
    import duckdb

    kinds = (duckdb.DataError, duckdb.IntegrityError, duckdb.ProgrammingError, duckdb.NotSupportedError)
    return isinstance(error, kinds) and not is_damage(error)


def moved_aside(path: Path, error: Exception) -> bool:
    """Rename the damaged file and its WAL to ``<name>.damaged-<n>``; False if there is nothing to move.

    Where only the WAL is damaged, only the WAL is moved: the file alone is the state of its last checkpoint.
    """
    wal = path.with_name(path.name + ".wal")
    if _OF_THE_WAL.search(str(error)) and wal.exists():
        doomed = [wal]
    elif path.is_file() and not _begins_with(path, _SQLITE):
        doomed = [path, wal] if wal.exists() else [path]
    else:
        return False
    number = 1
    while any(_aside(file, number).exists() for file in doomed):
        number += 1
    for file in doomed:
        file.rename(_aside(file, number))
    logger.error(
        "The table storage %s is damaged (%s). Nothing is deleted: %s. The server goes on with %s; what the log holds is applied "
        "again, and what it no longer holds is reported as lost. To restore a backup instead, stop the server and put it there.",
        path,
        error,
        ", ".join(f"{file.name} is now {_aside(file, number).name}" for file in doomed),
        "a new, empty database" if path in doomed else "the state of the last checkpoint",
    )
    return True


def _aside(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.damaged-{number}")


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
