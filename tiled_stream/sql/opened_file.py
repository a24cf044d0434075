"""The file of a database that is open: notices when its path names another file, or none.

What must stay true: nothing is acknowledged into a file that a restart would not find again, because it was removed,
replaced, or its file system is not mounted any more.
"""

from __future__ import annotations

from pathlib import Path

from ..domain.errors import StorageMissing

__all__ = ["OpenedFile"]


class OpenedFile:
    """`what` names the file in errors: "catalog", "log file", "table storage"."""

    def __init__(self, path: Path, *, what: str) -> None:
        self._path = path
        self._what = what
        found = path.stat()
        self._identity = (found.st_dev, found.st_ino)

    def check(self) -> None:
        """`StorageMissing` unless the path still names the file that was opened. One `stat`; blocking."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise StorageMissing(
                f"The {self._what} {self._path} is missing ({error.strerror}): the file was removed, or its file system is "
                "not mounted. Put it back, or restart the server to begin a new one."
            ) from error
        if (found.st_dev, found.st_ino) != self._identity:
            raise StorageMissing(
                f"The {self._what} {self._path} was replaced by another file while the server had it open. Put the former file "
                "back, or restart the server to use the new one."
            )
