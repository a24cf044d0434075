"""The identity of a storage directory: a marker file that says which deployment it belongs to, checked at every use.

What must stay true: nothing is read from or confirmed in a directory that is not the one that the catalog knows, so that the
empty mount point of a file system that is not mounted never reads as zeros. A mount that comes back is noticed by the next
check, without a restart. A check is one `stat` as long as nothing changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
from pathlib import Path

import msgspec

from ..domain.errors import StorageMissing, Unavailable

__all__ = ["MARKER", "StorageRoot"]

MARKER = ".tiled-stream.json"

#: The file system has no hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
_RETRY_AFTER = 5.0


class _Marker(msgspec.Struct, frozen=True):
    """What the file says. `incarnation` is made with the directory and never changes."""

    deployment: str
    incarnation: str


#: What `stat` says of the marker that was read last: device, inode, time of change, size.
_Seen = tuple[int, int, int, int]


class StorageRoot:
    """`Identified` for a directory. `check` is for any thread; before `bind` there is nothing that it could compare with."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._marker = str(self._path / MARKER)
        self._deployment: str | None = None
        self._expected: str | None = None
        self._seen: _Seen | None = None
        #: How often the marker was read again because it was another file: a mount that came back, perhaps older than before.
        self.changes = 0

    @property
    def place(self) -> str:
        """The path."""
        return str(self._path)

    async def bind(self, deployment: str, expected: str | None) -> str:
        """See `Identified`. A call that failed is remembered: `check` raises until the right marker is there."""
        return await asyncio.to_thread(self._bind, deployment, expected)

    def check(self) -> None:
        """`StorageMissing` if this is not the directory that was bound. Blocks for one `stat`."""
        if self._deployment is None:
            return
        try:
            found = os.stat(self._marker)
        except OSError as error:
            self._seen = None
            raise self._missing(error) from error
        if self._seen != (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size):
            self._read()
            self.changes += 1

    def _bind(self, deployment: str, expected: str | None) -> str:
        self._deployment, self._expected, self._seen = deployment, expected, None
        if expected is None:
            try:
                self._create(_Marker(deployment, secrets.token_hex(16)))
            except OSError as error:
                raise Unavailable(
                    f"The storage directory {self.place} cannot be marked: {error}. Make it writable for this server.",
                    retry_after=_RETRY_AFTER,
                ) from error
        return self._read()

    def _create(self, marker: _Marker) -> None:
        """Make the directory and the marker, unless there is one. Of several servers at once, the first one wins."""
        if os.path.exists(self._marker):
            return
        self._path.mkdir(parents=True, exist_ok=True)
        content = msgspec.json.encode(marker)
        new = f"{self._marker}.{secrets.token_hex(4)}"
        try:
            with open(new, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                try:
                    os.link(new, self._marker)  # whole, or not at all
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    with open(self._marker, "xb", buffering=0) as file:
                        file.write(content)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)

    def _read(self) -> str:
        """Compare the marker with what was bound, and remember it. Returns the incarnation."""
        self._seen = None
        try:
            with open(self._marker, "rb") as file:
                found = os.fstat(file.fileno())
                marker = msgspec.json.decode(file.read(), type=_Marker)
        except OSError as error:
            raise self._missing(error) from error
        except msgspec.MsgspecError as error:
            raise StorageMissing(
                f"{self._marker} is damaged: {error}. Restore it from a backup of the directory.", retry_after=_RETRY_AFTER
            ) from error
        if marker.deployment != self._deployment:
            raise StorageMissing(
                f"The storage directory {self.place} belongs to the deployment {marker.deployment}, not to {self._deployment}, "
                "that of this catalog. Mount the right file system there, or correct the path (-w).",
                retry_after=_RETRY_AFTER,
            )
        if self._expected not in (None, marker.incarnation):
            raise StorageMissing(
                f"The storage directory {self.place} is another one than before: its incarnation is {marker.incarnation}, the "
                f"catalog expects {self._expected}. Mount the right file system there, or correct the path (-w). Until then "
                "writes are accepted into the log.",
                retry_after=_RETRY_AFTER,
            )
        self._expected = marker.incarnation
        self._seen = found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
        return marker.incarnation

    def _missing(self, error: OSError) -> StorageMissing:
        return StorageMissing(
            f"The storage directory {self.place} is not there, or not mounted: {MARKER} cannot be read "
            f"({error.strerror or error}). Mount its file system; until then writes are accepted into the log.",
            retry_after=_RETRY_AFTER,
        )
