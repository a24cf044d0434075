"""The cloakroom of a shared log: bodies too large to travel through it rest in files, and the log has the token.

What must stay true: a body is whole in its file before the log tells of it; a file goes only when no record can name it any more
(whoever trims says so), or when nothing has named it for a long time (an append that was refused, a process that was killed).
Every server of a deployment has the same directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from uuid import uuid4

from ..domain.errors import Unavailable
from ..domain.nodes import NodeId

__all__ = ["Claims"]


class Claims:
    """Files below `directory`, one for each body of `above` bytes and more; made when the first one comes.

    `synced`: a body is on the disk, not only on its way there, when `keep` returns. Nothing here blocks the loop. `check` raises
    `StorageMissing` if the parent of the directory is not the storage that it should be (its file system is not mounted). It is
    called in a thread, before and after a body is written, and before a body is reported missing. With it the parent is never
    created.
    """

    def __init__(self, directory: Path, *, above: int, synced: bool = False, check: Callable[[], None] | None = None) -> None:
        self.above = above
        self._directory = directory
        self._synced = synced
        self._check = check

    async def keep(self, node: NodeId, body: bytes) -> str:
        """Put a body away; its token. `Unavailable` if there is no room or no way; then nothing is left."""
        token = f"{uuid4().hex}-{zlib.crc32(body):08x}"
        try:
            await asyncio.to_thread(self._write, self._path(node, token), body)
        except OSError as error:
            raise Unavailable(
                f"A body of {len(body)} bytes cannot be put away for the log ({error.strerror or error}); nothing was written. "
                "Try again.",
                retry_after=5.0,
            ) from error
        return token

    async def take(self, node: NodeId, token: str) -> bytes | None:
        """The body; None if it is not there, or not whole (a machine that lost its power may leave such a file)."""
        try:
            body = await asyncio.to_thread(self._read, self._path(node, token))
        except OSError as error:
            raise Unavailable(f"A body of the log cannot be read ({error.strerror or error}).", retry_after=1.0) from error
        return body if body is not None and f"{zlib.crc32(body):08x}" == token.rpartition("-")[2] else None

    async def drop(self, claims: Iterable[tuple[NodeId, str]]) -> None:
        """No record names these any more."""
        paths = [self._path(node, token) for node, token in claims]
        if paths:
            await asyncio.to_thread(_remove, paths)

    async def drop_nodes(self, nodes: Sequence[NodeId]) -> None:
        """Nothing of these nodes is named any more."""
        await asyncio.to_thread(self._remove_nodes, nodes)

    async def older(self, seconds: float) -> dict[NodeId, set[str]]:
        """Tokens of files that were put away longer ago, by node."""
        return await asyncio.to_thread(self._older, time.time() - seconds)

    def _path(self, node: NodeId, token: str) -> Path:
        return self._directory / node / token

    def _read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            if self._check is not None:
                self._check()
            return None

    def _write(self, path: Path, body: bytes) -> None:
        if self._check is not None:
            self._check()
        file = self._opened(path)
        try:
            with file:
                rest = memoryview(body)
                while rest:  # a signal or a full disk may cut a write short
                    rest = rest[file.write(rest) :]
                if self._synced:
                    os.fsync(file.fileno())
            if self._synced:
                _sync(path.parent)
            if self._check is not None:  # what was written below an empty mount point is not kept
                self._check()
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _opened(self, path: Path) -> io.FileIO:
        for _ in range(10):  # whoever takes the last body of a node away takes its directory, too
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                if self._check is None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                else:
                    self._directory.mkdir(exist_ok=True)
                    path.parent.mkdir(exist_ok=True)
                return io.FileIO(path, "xb")
        raise FileNotFoundError(errno.ENOENT, "its directory vanishes", str(path.parent))

    def _remove_nodes(self, nodes: Sequence[NodeId]) -> None:
        for node in nodes:
            shutil.rmtree(self._directory / node, ignore_errors=True)  # what stays is swept later

    def _older(self, than: float) -> dict[NodeId, set[str]]:
        found: dict[NodeId, set[str]] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._directory) as places:
            for place in places:
                with contextlib.suppress(FileNotFoundError), os.scandir(place) as files:
                    tokens = {file.name for file in files if file.stat().st_mtime < than}
                if tokens:
                    found[place.name] = tokens
        return found


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # what stays is swept later
            path.unlink(missing_ok=True)
            path.parent.rmdir()  # the last one of a node takes the directory with it


def _sync(directory: Path) -> None:
    number = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
