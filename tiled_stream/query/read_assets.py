"""Registered files as they are: their bytes, piece by piece, and what a directory holds.

What must stay true: nothing is given out that lies outside of the asset, or outside of the wall. Nobody holds more than a piece
in memory, whatever the size of the file and the speed of the client.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from ..domain.errors import Forbidden, TooLarge, Unsatisfiable
from ..domain.nodes import Asset
from ..files.port import Missing
from ..files.wall import Wall
from ..storage.engine_thread import EngineThread

__all__ = ["Assets", "OpenAsset"]

#: Files of a directory that are listed, at most.
MAX_FILES = 100_000


class OpenAsset:
    """One open file, of the size that it had when it was opened. `modified` is in nanoseconds since the epoch."""

    def __init__(self, file: BinaryIO, name: str, threads: EngineThread) -> None:
        self._file = file
        self._threads = threads
        # A reader that was cancelled goes on in its thread: the file is not closed under it.
        self._lock = Lock()
        status = os.fstat(file.fileno())
        self.name = name
        self.size = status.st_size
        self.modified = status.st_mtime_ns

    async def read(self, offset: int, count: int) -> bytes:
        """So many bytes; EOFError if the file was cut meanwhile."""
        return await self._threads.run(self._read, offset, count)

    async def close(self) -> None:
        """Idempotent. Also done if the caller is cancelled."""
        await self._threads.run(self._close)

    def _read(self, offset: int, count: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            content = self._file.read(count)
        if len(content) < count:
            raise EOFError(f"{self.name!r} was cut while it was sent.")
        return content

    def _close(self) -> None:
        with self._lock:
            self._file.close()


class Assets:
    """Files and directories within `wall`, read in `threads`."""

    def __init__(self, wall: Wall, threads: EngineThread) -> None:
        self._wall = wall
        self._threads = threads

    async def open(self, asset: Asset, relative_path: str | None) -> OpenAsset:
        """The file of an asset; of a directory the one at `relative_path`. The caller closes it.

        `Unsatisfiable` if the path is absolute, missing for a directory or given for a file; `Missing` without such a file.
        """
        if not asset.data_uri.lower().startswith("file:"):
            raise Unsatisfiable("This asset is no file; only files and directories can be fetched.")
        return await self._threads.run(self._open, asset, relative_path)

    async def manifest(self, asset: Asset) -> list[str]:
        """Paths of all files in a directory, relative to it. `Unsatisfiable` if it is none."""
        if not asset.is_directory:
            raise Unsatisfiable("This asset is a single file; only directories have a manifest.")
        return await self._threads.run(self._manifest, asset)

    def _open(self, asset: Asset, relative_path: str | None) -> OpenAsset:
        path = self._wall.path_of(asset.data_uri)
        if relative_path is not None:
            path = self._inside(path, relative_path)
        try:
            return OpenAsset(open(path, "rb"), path.name, self._threads)
        except FileNotFoundError:
            raise Missing(f"The file {path.name!r} does not exist.") from None
        except (IsADirectoryError, NotADirectoryError):
            raise Unsatisfiable("This is a directory: say which file with ?relative_path=…; asset/manifest lists them.") from None
        except PermissionError:
            raise Forbidden(f"The system does not let this server read the file {path.name!r}.") from None

    def _inside(self, directory: Path, relative_path: str) -> Path:
        if os.path.isabs(relative_path):
            raise Unsatisfiable("'relative_path' is relative to the directory of the asset; it cannot be absolute.")
        if not directory.is_dir():
            raise Unsatisfiable("This asset is a single file; leave 'relative_path' out.")
        path = self._wall.within(directory / relative_path)
        if not path.is_relative_to(directory):
            raise Forbidden("'relative_path' leads out of the directory of the asset.")
        return path

    def _manifest(self, asset: Asset) -> list[str]:
        directory = self._wall.path_of(asset.data_uri)
        if not directory.exists():
            raise Missing(f"The directory {directory.name!r} does not exist.")
        found: list[str] = []
        for folder, _, names in os.walk(directory):
            for name in names:
                path = Path(folder, name)
                if path.is_symlink() and not path.resolve().is_relative_to(directory):
                    continue  # it could not be fetched
                found.append(path.relative_to(directory).as_posix())
                if len(found) > MAX_FILES:
                    raise TooLarge(f"The directory holds more than {MAX_FILES} files.")
        return sorted(found)
